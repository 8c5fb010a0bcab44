"""`windows.everything()`: blocks at a time give what every record by itself gives, in memory and in RocksDB, whatever trigger there was."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from engine import agg, triggers, windows
from engine.block import MAX_TIME
from engine.operators.window import WindowSpec, window_operator
from engine.operators.window_everything import EverythingWindows
from engine.operators.window_triggers import TriggeredWindows
from engine.testing.harness import OperatorHarness
from state.store import Store
from tests.effort import examples

Record = tuple[str, int, int]  # key, number, event time

RECORDS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(-5, 5), st.integers(-50, 50)), max_size=30)


class Reading(Struct, frozen=True):
    """A record's value."""

    number: int


def make(store: Store | None = None, **options: Any) -> OperatorHarness:
    aggregates = {"n": agg.count(), "total": agg.sum("number"), "last": agg.last("number")}
    return OperatorHarness(window_operator(WindowSpec(windows.everything(), aggregates, value_type=Reading, **options)), store=store)


def feed(harness: OperatorHarness, records: list[Record]) -> None:
    harness.feed_block([(key, Reading(number), ts) for key, number, ts in records])


def expected(records: list[Record]) -> list[tuple[Any, ...]]:
    """Return (key, count, sum, last by event time then arrival, time of the last) by hand."""
    rows = []
    for key in sorted({key for key, _, _ in records}):
        own = [(ts, number) for k, number, ts in records if k == key]
        last = max(range(len(own)), key=lambda i: (own[i][0], i))
        rows.append((key, len(own), sum(number for _, number in own), own[last][1], own[last][0]))
    return rows


def results(harness: OperatorHarness) -> list[tuple[Any, ...]]:
    return [(out.key, out.value["n"], out.value["total"], out.value["last"], out.timestamp_ms) for out in harness.take()]


@settings(max_examples=examples(60), deadline=None)
@given(RECORDS, st.lists(st.integers(1, 6), max_size=8), st.booleans(), st.sampled_from(["close", "update"]))
def test_everything_any_cut_equals_a_batch(records: list[Record], cuts: list[int], restarts: bool, emit: Any) -> None:
    harness = make(emit=emit)
    at = 0
    for size in [*cuts, len(records)]:
        if records[at : at + size]:
            feed(harness, records[at : at + size])
        at += size
        if restarts:
            harness.snapshot_and_restore()
    harness.commit()
    found = results(harness)
    if emit == "update":
        assert {row[0]: row for row in found} == {row[0]: row for row in expected(records)}
        harness.advance(MAX_TIME)
        assert results(harness) == []
    else:
        assert found == []
        harness.advance(MAX_TIME)
        assert results(harness) == expected(records)
    harness.snapshot_and_restore()
    assert not list(harness.store.scan(b"", b"\xff" * 9))


@pytest.mark.parametrize("after", [None, triggers.every(records=100)])
@pytest.mark.parametrize("before", [None, triggers.every(records=100), triggers.every(event_time="1s"), triggers.every(wall_clock="1s")])
def test_everything_goes_on_with_what_was_kept_under_another_trigger(before: Any, after: Any) -> None:
    harness = make(trigger=before)
    feed(harness, [("a", 1, 5), ("b", 2, 7), ("a", 3, 9)])
    harness.snapshot_and_restore()
    harness.take()
    other = make(harness.store, trigger=after)
    assert isinstance(other.operator, EverythingWindows if after is None else TriggeredWindows)
    feed(other, [("a", 4, 8)])
    other.advance(MAX_TIME)
    assert results(other) == [("a", 3, 8, 3, 9), ("b", 1, 2, 2, 7)]
    other.snapshot_and_restore()
    assert not list(other.store.scan(b"", b"\xff" * 9))


def test_everything_after_the_end_of_the_input_is_late() -> None:
    harness = make()
    feed(harness, [("a", 1, 5)])
    harness.advance(MAX_TIME)
    harness.take()
    feed(harness, [("a", 2, 6)])
    assert harness.take() == []
    assert harness.counters["late_records"] == 1
