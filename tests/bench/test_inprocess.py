"""The jobs in process: they take everything and give what the oracle has."""

from pathlib import Path

import pytest

from tests.bench.inprocess import STAGES, Run, fetches, main
from tests.bench.workload import PARTITIONS, answers


@pytest.mark.parametrize("job", ["A0", "B", "C"])
def test_run_gives_as_many_results_as_the_oracle_has(job: str, tmp_path: Path) -> None:
    run = Run(job, tmp_path)
    for fetch in fetches(2_000, 2_000):
        fetch.read_plainly()
        run.feed(fetch)
    for partition in range(PARTITIONS):
        run.commit(partition)
        run.tasks[partition].store.close()
    # The first of the two records a partition that close every window is in a result itself; a pattern has none of it.
    assert run.results == len(answers(2_000, [job])[job]) + (0 if job == "C" else PARTITIONS)
    assert all(run.seconds[stage] > 0 for stage in STAGES)


def test_main_prints_a_line_a_job_and_writes_a_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--n", "1000", "--of", "1000", "--jobs", "B", "--profile", str(tmp_path / "profile")]) == 0
    assert capsys.readouterr().out.startswith("B   1,000 records")
    assert (tmp_path / "profile").stat().st_size > 0
