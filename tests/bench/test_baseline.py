"""The baseline is read, compared with and written anew."""

import shutil
from pathlib import Path

from tests.bench.baseline import AIMS, FILE, read_baseline, shortfalls, verdicts, write_baseline


def test_baseline_of_the_checkout_has_every_job_with_an_aim() -> None:
    assert read_baseline().keys() >= AIMS.keys()


def test_shortfalls_begin_beyond_15_percent() -> None:
    baseline = {"A0": 1.0, "B": 0.4, "C": 0.2}
    assert shortfalls({"A0": 0.85, "B": 0.5, "X": 0.1}, baseline) == []
    (line,) = shortfalls({"A0": 0.9, "B": 0.3}, baseline)
    assert line.startswith("SLOWER THAN THE BASELINE: B reaches 0.30 of the control, 25% less than the 0.40")


def test_verdicts_tell_which_aims_are_met() -> None:
    assert verdicts({"A0": 0.5, "A": 0.1, "C": 0.19}) == [
        "A0: 0.50 of the control, reaches the aim of 0.5",
        "C: 0.19 of the control, BELOW the aim of 0.2",
    ]


def test_write_baseline_keeps_the_comment_and_the_other_jobs(tmp_path: Path) -> None:
    file = tmp_path / "baseline.toml"
    shutil.copy(FILE, file)
    write_baseline({"B": 0.333, "A": 0.1}, file)
    assert file.read_text().startswith("# What `make bench` compares")
    assert read_baseline(file) == {**read_baseline(), "B": 0.33, "A": 0.1}
