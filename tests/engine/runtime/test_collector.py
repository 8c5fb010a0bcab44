"""The collector's settings of a worker."""

import gc
from collections.abc import Iterator

import pytest

from engine.runtime.collector import OLDER_EVERY, UNCOMMITTED_MAX, YOUNG_MAX, collect_young, tune_collector

pytestmark = pytest.mark.thorough


@pytest.fixture
def collector() -> Iterator[None]:
    """Put the settings back afterwards."""
    thresholds = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def test_collector_looks_rarely_and_not_at_what_was_there(collector: None) -> None:
    tune_collector()
    assert gc.get_threshold() == (UNCOMMITTED_MAX, OLDER_EVERY, OLDER_EVERY)
    assert gc.get_freeze_count() > 0
    assert gc.isenabled()


def test_collector_is_tuned_once(collector: None) -> None:
    tune_collector()
    frozen = gc.get_freeze_count()
    kept = [[number] for number in range(1_000)]
    tune_collector()
    assert gc.get_freeze_count() == frozen
    assert len(kept) == 1_000


def test_young_containers_are_looked_at_after_a_commit_if_there_are_many(collector: None) -> None:
    tune_collector()
    few = [[number] for number in range(YOUNG_MAX // 2)]
    collect_young()
    assert gc.get_count()[0] >= len(few), "not worth it"
    many = [[number] for number in range(YOUNG_MAX)]
    collect_young()
    assert gc.get_count()[0] < 1_000
    assert len(many) == YOUNG_MAX


def test_cycles_are_freed_after_a_commit(collector: None) -> None:
    tune_collector()
    for _ in range(YOUNG_MAX):
        cycle: list[object] = []
        cycle.append(cycle)
    del cycle
    before = gc.get_count()[0]
    collect_young()
    assert before >= YOUNG_MAX
    assert gc.get_count()[0] < 1_000


def test_older_containers_are_looked_at_in_turn(collector: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.runtime.collector.YOUNG_MAX", 5_000)
    tune_collector()
    kept = []
    for _ in range(OLDER_EVERY + 1):
        kept.append([[number] for number in range(5_000)])
        collect_young()
    assert gc.get_count()[1] <= 1
    assert gc.get_count()[2] >= 1


def test_process_that_is_not_a_worker_is_left_alone(collector: None) -> None:
    gc.set_threshold(YOUNG_MAX * 3, 10, 10)
    kept = [[number] for number in range(YOUNG_MAX)]
    collect_young()
    assert gc.get_count()[0] >= len(kept)
