"""Window joins must give every pair of a window once, when it closes, and tell of records that had nobody there."""

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.block import MAX_TIME, MIN_TIME
from engine.errors import ConfigError
from engine.operators.join_sides import How
from engine.operators.window_join import WindowJoinSpec, joining_window, window_join_operator
from engine.testing.harness import OperatorHarness
from engine.windows import FixedWindow, count, everything, session, sliding
from state.keys import store_id
from tests.effort import examples

LEFT, RIGHT = 0, 1
Fed = tuple[int, str, int, int, int]  # side, key, number, event time, watermark of the side before it


def make(size_ms: int, every_ms: int | None = None, offset_ms: int = 0, how: How = "inner", **options: Any) -> OperatorHarness:
    window = FixedWindow(size_ms, every_ms or size_ms, offset_ms)
    return OperatorHarness(window_join_operator(WindowJoinSpec(window, how=how, left_type=int, right_type=int, **options)))


@st.composite
def inputs(draw: st.DrawFn) -> list[Fed]:
    """Draw records of both sides, out of order, some of them late."""
    reached = [draw(st.integers(-5, 5)), draw(st.integers(-5, 5))]
    records = []
    for number in range(draw(st.integers(0, 25))):
        side = draw(st.sampled_from([LEFT, RIGHT]))
        timestamp_ms = reached[side] + draw(st.integers(-8, 15))
        records.append((side, draw(st.sampled_from("ab")), number, timestamp_ms, reached[side]))
        reached[side] += draw(st.sampled_from([0, 0, 1, 4, 12]))
    return records


def expected_of(records: list[Fed], size: int, every: int, offset: int, lateness: int, how: How) -> tuple[list[tuple[Any, ...]], list[int]]:
    """Return (key, left, right, time) of all results, and the numbers of the late records; by trying all windows there can be."""
    reached = {LEFT: MIN_TIME, RIGHT: MIN_TIME}
    inside: dict[tuple[str, int], tuple[list[tuple[int, int]], list[tuple[int, int]]]] = defaultdict(lambda: ([], []))
    late = []
    for side, key, number, timestamp_ms, watermark in records:
        reached[side] = max(reached[side], watermark)
        open_windows = [
            start
            for start in range(timestamp_ms - size + 1, timestamp_ms + 1)
            if (start - offset) % every == 0 and start + size - 1 + lateness > min(reached.values())
        ]
        for start in open_windows:
            inside[key, start][side].append((timestamp_ms, number))
        if not open_windows:
            late.append(number)
    rows: list[tuple[Any, ...]] = []
    for (key, start), (lefts, rights) in inside.items():
        pairs: list[tuple[int | None, int | None]] = [(left, right) for _, left in lefts for _, right in rights]
        if not pairs:
            pairs = [(left, None) for _, left in lefts if how in ("left", "outer")]
            pairs += [(None, right) for _, right in rights if how in ("right", "outer")]
        rows += [(key, *pair, start + size - 1) for pair in pairs]
    return rows, late


@settings(max_examples=examples(100), deadline=None)
@given(
    inputs(),
    st.sampled_from([(10, 10), (10, 3), (6, 2), (5, 4), (1, 1)]),
    st.integers(-2, 2),
    st.sampled_from([0, 0, 1, 7]),
    st.sampled_from(["inner", "left", "right", "outer"]),
    st.sampled_from(["", "restart", "careful"]),
)
def test_window_join_equals_all_pairs_of_all_windows(
    records: list[Fed], window: tuple[int, int], offset: int, lateness: int, how: How, way: str
) -> None:
    size, every = window
    offset = offset if abs(offset) < every else 0
    harness = make(size, every, offset, how, late_to="late", lateness_ms=lateness)
    for side, key, number, timestamp_ms, watermark in records:
        harness.careful = way == "careful"
        harness.advance(max(watermark, harness.reached(side)), port=side)
        harness.feed(key, number, timestamp_ms, port=side)
        if way == "restart":
            harness.snapshot_and_restore()
    for side in (LEFT, RIGHT):
        harness.advance(MAX_TIME, port=side)
    rows, late = expected_of(records, size, every, offset, lateness, how)
    out = harness.take()
    assert sorted(map(repr, ((row.key, *row.value, row.timestamp_ms) for row in out))) == sorted(map(repr, rows))
    assert [side.value for side in harness.take_sides()] == late
    assert harness.counters["late_records"] == len(late)
    assert all(row.before == row.timestamp_ms - 1 + lateness for row in out), "what comes out is late by the lateness, and no more"
    assert [row.timestamp_ms for row in out] == sorted(row.timestamp_ms for row in out)
    harness.snapshot_and_restore()
    for key in "ab":
        assert dict(harness.operator.inspect(key)) == {"left": [], "right": []}
    kept = {raw[:4] for raw, _ in harness.store.scan(b"", b"\xff" * 8)}
    assert kept <= {store_id(f"test/op/{local}") for local in ("time", "arrivals")}, "records and closes are gone"


@settings(max_examples=examples(60), deadline=None)
@given(inputs(), st.lists(st.integers(1, 5), min_size=30, max_size=30))
def test_window_join_block_of_one_side_equals_its_records_one_by_one(records: list[Fed], cuts: list[int]) -> None:
    one, blocks = make(10, 4, how="outer", late_to="late"), make(10, 4, how="outer", late_to="late")
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
    assert one.take_sides() == blocks.take_sides()


def test_window_join_pairs_of_overlapping_windows_come_once_for_each() -> None:
    harness = make(10, 5)
    harness.feed("k", 1, 6, port=LEFT)
    harness.feed("k", 2, 12, port=RIGHT)
    harness.feed("k", 3, 9, port=RIGHT)
    for side in (LEFT, RIGHT):
        harness.advance(30, port=side)
    assert [(out.value, out.timestamp_ms) for out in harness.take()] == [((1, 3), 9), ((1, 3), 14), ((1, 2), 14)]


def test_window_join_late_record_names_the_window_that_it_missed() -> None:
    harness = make(10, late_to="late")
    for side in (LEFT, RIGHT):
        harness.advance(9, port=side)
    harness.feed("k", 1, 9, port=LEFT)
    (side_record,) = harness.take_sides()
    assert dict(side_record.headers) == {"window_start": b"0", "window_end": b"10", "watermark": b"9"}
    harness.feed("k", 1, 10, port=LEFT)
    assert harness.take_sides() == []


def test_window_join_with_a_lateness_takes_late_records_and_gives_its_pairs_once_at_its_end() -> None:
    harness = make(10, how="left", late_to="late", lateness_ms=5)
    harness.feed("k", 1, 5, port=LEFT)
    for watermark in (9, 13):
        for side in (LEFT, RIGHT):
            harness.advance(watermark, port=side)
        assert harness.take() == []
    harness.feed("k", 2, 9, port=RIGHT)
    for side in (LEFT, RIGHT):
        harness.advance(14, port=side)
    assert [(out.value, out.timestamp_ms, out.before) for out in harness.take()] == [((1, 2), 9, 13)]
    harness.feed("k", 3, 9, port=RIGHT)
    (side_record,) = harness.take_sides()
    assert dict(side_record.headers) == {"window_start": b"0", "window_end": b"10", "watermark": b"14"}


def test_window_join_idle_side_does_not_hold_windows_open() -> None:
    harness = make(10, how="left")
    harness.feed("k", 1, 5, port=LEFT)
    harness.context.idle.add(RIGHT)
    harness.advance(20, port=LEFT)
    assert [out.value for out in harness.take()] == [(1, None)]


def test_window_join_pair_that_fails_downstream_is_used_up_and_the_others_go_on() -> None:
    harness = make(10)
    for number in (1, 2):
        harness.feed("k", number, 5, port=LEFT)
    harness.feed("k", 3, 6, port=RIGHT)
    harness.advance(20, port=RIGHT)
    harness.careful = True
    emit = harness.operator.emit

    def fail_for_1(block: Any) -> None:
        if any(value[0] == 1 for value in block.values):
            raise ValueError("no 1 here")
        emit(block)

    harness.operator.emit = fail_for_1
    harness.advance(20, port=LEFT)
    assert [out.value for out in harness.take()] == [(2, 3)]
    assert [(failed.key, failed.timestamp_ms) for failed in harness.failed] == [("k", 9)]


@pytest.mark.parametrize("window", [session(lambda value: 5), sliding("1m"), count(5), everything()], ids=repr)
def test_window_join_of_a_window_that_records_place_is_refused(window: Any) -> None:
    with pytest.raises(ConfigError, match=r"pipeline 'p', join: within=.* does not join streams"):
        joining_window(window, "pipeline 'p', join")
