"""What a worker leaves behind: a profile and a note, also when it ends by an exception; and what a parent makes of the notes."""

import pstats
from pathlib import Path

import pytest

from engine.runtime.cli.observing import observed, shares
from engine.runtime.metrics import Metrics


def work(metrics: Metrics) -> None:
    for number, records in ((3, 20), (0, 10)):
        metrics.task(number).opens += 1
        metrics.task(number).records += records
    metrics.task(2)  # given to this worker, and taken away before it was open
    raise SystemExit(0)


def test_observed_writes_both_files_when_the_worker_exits(tmp_path: Path) -> None:
    metrics = Metrics()
    with pytest.raises(SystemExit), observed(metrics, profile=tmp_path / "profile", note=tmp_path / "note"):
        work(metrics)
    stats = pstats.Stats(str(tmp_path / "profile"))
    assert any(name == "work" for _, _, name in stats.stats)  # type: ignore[attr-defined]
    assert shares([tmp_path / "note"]) == ["worker 0: 30 records, 100 % (tasks 0 3)"]


def test_observed_writes_nothing_unasked(tmp_path: Path) -> None:
    with observed(Metrics(), profile=None, note=None):
        pass
    assert list(tmp_path.iterdir()) == []


def test_shares_of_workers_that_did_nothing_or_were_killed(tmp_path: Path) -> None:
    (tmp_path / "0").write_text('{"records": 30, "tasks": [0, 1]}')
    (tmp_path / "2").write_text('{"records": 10, "tasks": []}')
    assert shares([tmp_path / "0", tmp_path / "1", tmp_path / "2"]) == [
        "worker 0: 30 records, 75 % (tasks 0 1)",
        "worker 1: ended without saying what it did",
        "worker 2: 10 records, 25 % (tasks none)",
    ]
    (tmp_path / "0").write_text('{"records": 0, "tasks": []}')
    assert shares([tmp_path / "0"]) == ["worker 0: 0 records, 0 % (tasks none)"]
