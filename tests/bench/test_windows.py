"""The bench of the window kinds: the same work whatever the number of keys, and a verdict that tells."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench import windows as bench

RECORDS = 3 * bench.ROUND_RECORDS


@pytest.mark.thorough
@pytest.mark.parametrize("kind", bench.KINDS)
def test_measure_many_keys_give_as_many_results_as_few(kind: str, tmp_path: Path) -> None:
    found = [results for _, results in bench.measure(kind, RECORDS, (100, 700), tmp_path)]
    assert found[0] == found[1]
    assert found[0] > 0 or kind == "everything"


@pytest.mark.parametrize("keys", [100, 700])
def test_orders_each_key_of_a_round_comes_ten_times_and_nothing_is_late(keys: int) -> None:
    made = list(bench.orders(RECORDS, keys))
    for number in range(0, RECORDS, bench.ROUND_RECORDS):
        of_round = [order.user_id for order in made[number : number + bench.ROUND_RECORDS]]
        assert sorted(of_round.count(user) for user in set(of_round)) == [10] * bench.ROUND_KEYS
    highest = made[0].ts
    for order in made:
        assert order.ts > highest - 30_000
        highest = max(highest, order.ts)
    assert len({order.user_id for order in bench.far_orders(RECORDS, keys)}) == keys


@pytest.mark.thorough
@pytest.mark.parametrize(("ratio_min", "status"), [(0.0, 0), (1e9, 1)])
def test_main_json_says_what_the_exit_status_says(ratio_min: float, status: int, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "RATIO_MIN", ratio_min)
    assert bench.main(["--n", "1000", "--many", "200", "--kinds", "count", "--json"]) == status
    document = json.loads(capsys.readouterr().out)
    assert document["good"] is (status == 0)
    (row,) = document["windows"]
    assert (row["kind"], row["keys_few"], row["keys_many"], row["results_few"]) == ("count", 100, 200, 100)


def test_options_unknown_kind_is_refused(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        bench.options(["--kinds", "tumbling,cuckoo"])
    assert "cuckoo" in capsys.readouterr().err
