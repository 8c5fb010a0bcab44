"""Interval joins must find every pair once, tell of records without one when it is certain, and keep nothing for longer."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.block import MAX_TIME, MIN_TIME
from engine.errors import ConfigError
from engine.operators.join import JoinSpec, join_operator
from engine.operators.join_sides import How
from engine.testing.harness import OperatorHarness
from tests.effort import examples

LEFT, RIGHT = 0, 1


def make(lower_ms: int, upper_ms: int, how: How = "inner", **options: Any) -> OperatorHarness:
    return OperatorHarness(join_operator(JoinSpec(lower_ms, upper_ms, how=how, left_type=int, right_type=int, **options)))


@st.composite
def inputs(draw: st.DrawFn) -> list[tuple[int, str, int, int, int]]:
    """Draw (side, key, number, event time, watermark of the side after it); nothing is late."""
    reached = [draw(st.integers(-3, 3)), draw(st.integers(-3, 3))]
    records = []
    for number in range(draw(st.integers(0, 25))):
        side = draw(st.sampled_from([LEFT, RIGHT]))
        timestamp_ms = max(reached) + draw(st.integers(1, 12))
        records.append((side, draw(st.sampled_from("ab")), number, timestamp_ms, reached[side]))
        reached[side] += draw(st.sampled_from([0, 0, 1, 3, 9]))
    return records


@settings(max_examples=examples(80), deadline=None)
@given(inputs(), st.integers(-8, 8), st.integers(0, 8), st.sampled_from(["inner", "left", "right", "outer"]), st.booleans(), st.booleans())
def test_join_equals_every_pair_that_fits(
    records: list[tuple[int, str, int, int, int]], lower_ms: int, width: int, how: How, restarts: bool, careful: bool
) -> None:
    upper_ms = lower_ms + width
    expected: list[tuple[Any, ...]] = []
    for side, outer_in in ((LEFT, ("left", "outer")), (RIGHT, ("right", "outer"))):
        for record in (record for record in records if record[0] == side):
            sign = 1 if side == LEFT else -1
            partners = [
                other
                for other in records
                if other[0] != side and other[1] == record[1] and lower_ms <= sign * (other[3] - record[3]) <= upper_ms
            ]
            if side == LEFT:
                expected += [(record[1], record[2], other[2], max(record[3], other[3])) for other in partners]
            if not partners and how in outer_in:
                alone = (record[2], None) if side == LEFT else (None, record[2])
                expected.append((record[1], *alone, record[3]))
    harness = make(lower_ms, upper_ms, how)
    harness.careful = careful
    for side, key, number, timestamp_ms, watermark in records:
        harness.advance(max(watermark, harness.reached(side)), port=side)
        harness.feed(key, number, timestamp_ms, port=side)
        if restarts:
            harness.snapshot_and_restore()
            harness.careful = careful
    for side in (LEFT, RIGHT):
        harness.advance(MAX_TIME, port=side)
    out = harness.take()
    assert sorted(map(repr, ((row.key, *row.value, row.timestamp_ms) for row in out))) == sorted(map(repr, expected))
    assert not harness.counters
    # Nothing that comes out is late for what follows.
    assert all(
        row.timestamp_ms > row.before or row.timestamp_ms in [record[3] for record in records if record[3] <= record[4]] for row in out
    )
    harness.snapshot_and_restore()
    kept = dict(harness.operator.inspect("a"))
    assert kept == {"left": [], "right": []}


@settings(max_examples=examples(60), deadline=None)
@given(inputs(), st.lists(st.integers(1, 5), min_size=30, max_size=30))
def test_join_block_of_one_side_equals_its_records_one_by_one(records: list[tuple[int, str, int, int, int]], cuts: list[int]) -> None:
    one, blocks = make(-3, 4, "outer"), make(-3, 4, "outer")
    while records:
        side = records[0][0]
        size = next((at for at, record in enumerate(records) if record[0] != side), len(records))
        size = min(size, cuts.pop())
        block, records = records[:size], records[size:]
        rows = [(key, number, timestamp_ms) for _, key, number, timestamp_ms, _ in block]
        before = [max(one.reached(side), watermark) for *_, watermark in block]
        for row, watermark in zip(rows, before, strict=True):
            one.advance(watermark, port=side)
            one.feed(*row, port=side)
        start = blocks.reached(side)
        blocks.feed_block(rows, before=[max(start, watermark) for watermark in before], port=side)
    for side in (LEFT, RIGHT):
        one.advance(MAX_TIME, port=side)
        blocks.advance(MAX_TIME, port=side)
    assert one.take() == blocks.take()


def test_join_late_record_is_counted_and_sent_and_joins_nothing() -> None:
    harness = make(-10, 10, late_to="late")
    harness.feed("k", 1, 100, port=LEFT)
    for side in (LEFT, RIGHT):
        harness.advance(105, port=side)
    harness.feed("k", 2, 104, port=RIGHT)
    assert harness.take() == []
    assert [(side.topic, side.value, dict(side.headers)) for side in harness.take_sides()] == [
        ("late", 2, {"side": b"right", "watermark": b"105"})
    ]
    assert harness.counters["late_records"] == 1


def test_join_idle_side_does_not_hold_time_back() -> None:
    harness = make(0, 5, "left")
    harness.feed("k", 1, 100, port=LEFT)
    harness.context.idle.add(RIGHT)
    harness.advance(200, port=LEFT)
    assert [out.value for out in harness.take()] == [(1, None)]


def test_join_careful_unmatched_record_that_fails_downstream_is_used_up() -> None:
    harness = make(0, 5, "left")
    harness.feed_block([("a", 1, 10), ("b", 2, 10)], port=LEFT)
    harness.advance(100, port=RIGHT)
    harness.careful = True
    emit = harness.operator.emit

    def fail_for_a(block: Any) -> None:
        if "a" in block.keys:
            raise ValueError("no a here")
        emit(block)

    harness.operator.emit = fail_for_a
    harness.advance(100, port=LEFT)
    assert [out.value for out in harness.take()] == [(2, None)]
    assert [failed.key for failed in harness.failed] == ["a"]


@pytest.mark.parametrize("spec", [JoinSpec(5, 4), JoinSpec(0, 1, how="cross"), JoinSpec(1, 1, bounds="[)"), JoinSpec(0, 1, bounds="[[")])  # type: ignore[arg-type]  # what is tested
def test_join_without_meaning_is_refused(spec: JoinSpec) -> None:
    with pytest.raises(ConfigError):
        join_operator(spec)


def test_join_time_before_any_record_stays_at_the_start() -> None:
    harness = make(0, 5, "outer")
    harness.feed("k", 1, 100, port=LEFT)
    assert harness.watermark == MIN_TIME
