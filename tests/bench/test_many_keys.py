"""The bench of many keys: every order has its result, and what does not fit into memory is on disk."""

import pytest

from tests.bench import many_keys


def test_every_order_has_a_result_with_more_keys_than_fit_into_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert many_keys.main(["--keys", "6000", "--n", "9000", "--memory", "1"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("6,000 keys  9,000 orders")
    assert "9,000 results" in said
