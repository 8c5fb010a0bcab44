"""The bench of merging: both ways take everything, and the figures are told."""

import json
from typing import Any

import pytest

from tests.bench import merging as bench


@pytest.mark.thorough
@pytest.mark.parametrize("job", bench.JOBS)
@pytest.mark.parametrize("merged", [True, False])
def test_measure_takes_the_whole_backlog(job: str, merged: bool) -> None:
    assert bench.measure(job, 1_000, merged=merged) > 0


@pytest.mark.thorough
def test_main_json_tells_each_job(capsys: Any) -> None:
    assert bench.main(["--n", "500", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["records"] == 1_000
    assert [row["job"] for row in document["jobs"]] == list(bench.JOBS)
    assert all(row["times"] > 0 for row in document["jobs"])
