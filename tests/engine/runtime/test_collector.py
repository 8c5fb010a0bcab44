"""The collector's settings of a worker."""

import gc
from collections.abc import Iterator

import pytest

from engine.runtime.collector import YOUNG_MAX, tune_collector


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
    assert gc.get_threshold() == (YOUNG_MAX, 20, 20)
    assert gc.get_freeze_count() > 0
    assert gc.isenabled()


def test_collector_is_tuned_once(collector: None) -> None:
    tune_collector()
    frozen = gc.get_freeze_count()
    kept = [[number] for number in range(1_000)]
    tune_collector()
    assert gc.get_freeze_count() == frozen
    assert len(kept) == 1_000
