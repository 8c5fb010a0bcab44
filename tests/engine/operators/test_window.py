"""Window operators must give what the oracle gives, in the same order, however the input is cut and whenever the worker restarts."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import agg, triggers, windows
from engine.block import MAX_TIME, MIN_TIME
from engine.errors import ConfigError
from engine.operators.window import WindowSpec, window_operator
from engine.testing.harness import OperatorHarness, Out
from engine.triggers import Trigger
from engine.windows import SessionWindow, Window
from tests.effort import examples
from tests.engine.operators.window_oracle import Input, Oracle
from tests.engine.operators.window_world import (
    AGGREGATES,
    CUTS,
    RESTARTS,
    Reading,
    check,
    drive,
    fixed_windows,
    gap_by_number,
    make,
    results_of,
    rows,
    spans_of,
    streams,
)


@settings(max_examples=examples(50), deadline=None)
@given(streams(), fixed_windows(), st.integers(0, 9), st.sampled_from([0, 5, MAX_TIME]), CUTS, RESTARTS)
def test_fixed_windows_any_cut_equals_oracle(
    inputs: list[Input], window: windows.FixedWindow, lateness: int, end: int, cuts: list[int], restarts: list[bool]
) -> None:
    end = max([end, *(record.before for record in inputs)])
    spec = WindowSpec(window, AGGREGATES, lateness, "late", value_type=Reading)
    check(spec, Oracle(spans_of(window), lateness), inputs, end, cuts, restarts)


@settings(max_examples=examples(50), deadline=None)
@given(streams(), st.integers(1, 12), st.booleans(), st.integers(0, 9), st.sampled_from([0, 5, MAX_TIME]), CUTS, RESTARTS)
def test_sessions_any_cut_equals_oracle(
    inputs: list[Input], gap: int, by_number: bool, lateness: int, end: int, cuts: list[int], restarts: list[bool]
) -> None:
    end = max([end, *(record.before for record in inputs)])
    window = windows.session(gap_by_number if by_number else f"{gap}ms")
    spec = WindowSpec(window, AGGREGATES, lateness, "late", value_type=Reading)
    check(spec, Oracle(spans_of(window), lateness, merging=True), inputs, end, cuts, restarts)


TRIGGERS: list[tuple[Trigger, Any]] = [
    (triggers.on_late(), "on_late"),
    (triggers.on_late(purge=True), "on_late"),
    (triggers.every(records=2), ("records", 2)),
    (triggers.every(records=3, purge=True), ("records", 3)),
    (triggers.every(event_time="4ms"), ("event_time", 4)),
    (triggers.every(event_time="3ms", purge=True), ("event_time", 3)),
]


@settings(max_examples=examples(50), deadline=None)
@given(
    streams(),
    st.one_of(fixed_windows(), st.builds(lambda gap: windows.session(f"{gap}ms"), st.integers(1, 12))),
    st.integers(0, 9),
    st.sampled_from(TRIGGERS),
    st.sampled_from([0, 5, MAX_TIME]),
    CUTS,
    RESTARTS,
)
def test_triggers_any_cut_equals_oracle(
    inputs: list[Input], window: Window, lateness: int, trigger: tuple[Trigger, Any], end: int, cuts: list[int], restarts: list[bool]
) -> None:
    end = max([end, *(record.before for record in inputs)])
    spec = WindowSpec(window, AGGREGATES, lateness, "late", trigger[0], value_type=Reading)
    purge = bool(getattr(trigger[0], "purge", False))
    oracle = Oracle(spans_of(window), lateness, isinstance(window, SessionWindow), trigger[1], purge)
    oracle.run(inputs, end)
    for sizes, stops, careful in [
        (cuts, restarts, False),
        ([], [], False),
        ([1] * len(inputs), [True] * len(inputs), False),
        (cuts, [], True),
    ]:
        harness = OperatorHarness(window_operator(spec))
        drive(harness, inputs, end, sizes, stops, careful=careful)
        assert [row[:-1] for row in results_of(harness.take())] == [row[:-1] for row in oracle.results]
        assert harness.counters["late_records"] == len(oracle.late)


def test_window_into_struct_makes_it() -> None:
    class Minute(msgspec.Struct, frozen=True):
        currency: str
        window_start: int
        window_end: int
        n: int

    spec = WindowSpec(windows.tumbling("1m"), {"n": agg.count()}, into=Minute, key_as="currency")
    harness = OperatorHarness(window_operator(spec))
    harness.feed("EUR", {}, 60_001)
    harness.advance(MAX_TIME)
    assert harness.take() == [Out("EUR", Minute("EUR", 60_000, 120_000, 1), 119_999, 119_998)]


def test_window_that_fired_leaves_nothing_in_the_store() -> None:
    for window in (windows.tumbling("4ms"), windows.hopping("6ms", "4ms"), windows.session("3ms"), windows.sliding("5ms")):
        harness = make(window)
        harness.feed("a", 1, 1)
        harness.snapshot_and_restore()
        assert list(harness.store.scan(b"", b"\xff" * 9))
        harness.advance(100)
        harness.snapshot_and_restore()
        assert not list(harness.store.scan(b"", b"\xff" * 9)), window


@pytest.mark.parametrize("window", [windows.tumbling("10ms"), windows.hopping("10ms", "5ms"), windows.session("5ms")])
def test_window_update_gives_latest_once_a_commit_and_the_rest_at_close(window: Window) -> None:
    harness = make(window, emit="update")
    harness.feed_block([("b", 1, 6), ("a", 2, 7), ("a", 3, 8)])
    assert harness.take() == []
    harness.commit()
    first = [(out.key, out.value["total"], out.value["window_end"]) for out in harness.take()]
    assert first == sorted(first, key=lambda row: (row[2], row[0]))
    assert {row[:2] for row in first} == {("b", 1), ("a", 5)}
    harness.commit()
    assert harness.take() == []
    harness.restart()
    harness.feed("a", 4, 9)
    harness.advance(MAX_TIME)
    # Only what has changed since the commit; "b" has been told.
    assert {(out.key, out.value["total"]) for out in harness.take()} == {("a", 9)}
    harness.commit()
    assert harness.take() == []
    assert not list(harness.store.scan(b"", b"\xff" * 9))


def test_window_update_rolled_back_batch_is_not_told() -> None:
    harness = make(windows.tumbling("10ms"), emit="update")
    harness.feed("a", 1, 1)
    mark = harness.mark()
    harness.feed("b", 1, 1)
    harness.rollback(mark)
    harness.commit()
    assert rows(harness, "total") == [("a", 1, 9)]


def test_window_chained_tumbling_results_are_never_late() -> None:
    outer = make(windows.tumbling("20ms"))
    harness = make(windows.tumbling("10ms"))
    harness.operator.emit = lambda block: outer.operator.process(block.replace(values=[row["total"] for row in block.values]))
    harness.feed_block([("a", 1, 5), ("a", 2, 15), ("a", 4, 25)], before=[MIN_TIME, 9, 21], watermark=60)
    assert rows(outer, "total", "window_start") == [("a", 3, 0, 19), ("a", 4, 20, 39)]
    assert not outer.counters


def test_window_careful_firing_that_fails_is_used_up_and_the_next_goes_on() -> None:
    harness = make(windows.tumbling("10ms"))
    harness.feed_block([("a", 1, 1), ("b", 2, 1), ("c", 3, 1)])
    harness.careful = True
    emit = harness.operator.emit

    def fail_for_b(block: Any) -> None:
        if "b" in block.keys:
            raise ValueError("no b here")
        emit(block)

    harness.operator.emit = fail_for_b
    harness.advance(50)
    assert rows(harness, "total") == [("a", 1, 9), ("c", 3, 9)]
    assert [(failed.key, failed.timestamp_ms) for failed in harness.failed] == [("b", 9)]
    harness.snapshot_and_restore()
    assert not list(harness.store.scan(b"", b"\xff" * 9))


def test_hopping_reduce_without_merge_sees_every_window_in_order_of_arrival() -> None:
    spec = WindowSpec(windows.hopping("10ms", "5ms"), {"text": agg.reduce(lambda total, value: total + value, "")}, value_type=str)
    harness = OperatorHarness(window_operator(spec))
    harness.feed_block([("k", "x", 7), ("k", "y", 6), ("k", "z", 12)])
    harness.advance(MAX_TIME)
    assert rows(harness, "window_start", "text") == [("k", 0, "xy", 9), ("k", 5, "xyz", 14), ("k", 10, "z", 19)]


# -- everything, and the wall clock


def test_everything_without_trigger_fires_at_the_end_of_time() -> None:
    harness = make(windows.everything())
    harness.feed_block([("a", 1, 5), ("b", 2, 9), ("a", 3, 4)])
    harness.advance(1_000_000)
    harness.snapshot_and_restore()
    assert harness.take() == []
    harness.advance(MAX_TIME)
    assert [(out.value, out.timestamp_ms) for out in harness.take()] == [
        ({"key": "a", "n": 2, "total": 4}, 5),
        ({"key": "b", "n": 1, "total": 2}, 9),
    ]
    harness.snapshot_and_restore()
    assert not list(harness.store.scan(b"", b"\xff" * 9))


def test_everything_update_gives_latest_once_a_commit() -> None:
    harness = make(windows.everything(), emit="update")
    harness.feed_block([("a", 1, 5), ("a", 3, 4)])
    harness.commit()
    harness.commit()
    assert rows(harness, "total") == [("a", 4, 5)]


def test_trigger_event_time_jump_over_many_multiples_fires_once() -> None:
    harness = make(windows.everything(), trigger=triggers.every(event_time="1s"))
    harness.feed("a", 1, 500)
    harness.advance(3_000)
    assert [out.before + 1 for out in harness.take()] == [1_000, 2_000, 3_000]
    harness.advance(1_700_000_000_500)
    assert [out.before + 1 for out in harness.take()] == [1_700_000_000_000]


@pytest.mark.parametrize("purge", [False, True])
def test_trigger_wall_clock_fires_after_a_record_over_restarts(purge: bool) -> None:
    harness = make(windows.tumbling("1h"), trigger=triggers.every(wall_clock="10s", purge=purge))
    harness.wall_clock(12_000)
    harness.feed("a", 1, 5)
    assert harness.operator.next_wall_clock_ms() == 20_000
    harness.snapshot_and_restore()
    harness.wall_clock(19_999)
    assert harness.take() == []
    harness.wall_clock(20_000)
    assert rows(harness, "total") == [("a", 1, 3_599_999)]
    assert harness.operator.next_wall_clock_ms() is None
    harness.feed("a", 2, 6)
    harness.wall_clock(95_000)
    assert rows(harness, "total") == [("a", 2 if purge else 3, 3_599_999)]
    harness.advance(MAX_TIME)
    assert rows(harness, "total") == ([] if purge else [("a", 3, 3_599_999)])
    harness.snapshot_and_restore()
    assert not list(harness.store.scan(b"", b"\xff" * 9))


# -- declarations


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lateness_ms": -1}, "at least 0"),
        ({"emit": "update", "trigger": triggers.on_late()}, "leave one of them out"),
        ({"window": windows.count(3), "lateness_ms": 1}, "no end in time"),
        ({"window": windows.everything(), "late_to": "late"}, "no end in time"),
        ({"window": windows.sliding("1s"), "emit": "update"}, "one result each time"),
        ({"window": windows.count(3), "trigger": triggers.on_late()}, "one result each time"),
        ({"window": windows.session("1s", ends_with=bool), "lateness_ms": 1}, "one final result"),
        ({"window": windows.session("1s"), "aggregates": {"r": agg.reduce(max, 0)}}, "merge="),
        ({"aggregates": {"total": agg.sum("amount")}}, "no field 'amount'"),
        ({"aggregates": {"window_end": agg.count()}}, "'window_end' already"),
        ({"key_as": "window_end"}, "name of another field"),
        ({"key_type": float}, "cannot be a key"),
    ],
)
def test_window_operator_senseless_declaration_is_refused(options: dict[str, Any], message: str) -> None:
    given_options: dict[str, Any] = {"window": windows.tumbling("1s"), "aggregates": {"n": agg.count()}, "value_type": Reading}
    with pytest.raises(ConfigError, match=message):
        window_operator(WindowSpec(**(given_options | options)))
