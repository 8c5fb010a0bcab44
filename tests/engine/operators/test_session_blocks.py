"""Sessions worked on as whole blocks give what the path gives that looks at the watermark before each record."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import agg, windows
from engine.block import MAX_TIME, Block
from engine.operators import window_sessions
from engine.operators.session_blocks import is_quick
from engine.operators.window import WindowSpec, window_operator
from engine.testing.harness import OperatorHarness, Out
from tests.effort import examples

DELAY_MS = 6
Input = tuple[str, int, int]
"""Key, value, event time."""
AGGREGATES = {"n": agg.count(), "total": agg.sum(lambda value: value), "all": agg.collect(lambda value: value, 99)}


def run(inputs: list[Input], cuts: list[int], *, gap: Any, lateness: int, restart: bool = False) -> tuple[list[Out], int, Any]:
    """Feed records under a watermark of bounded out-of-orderness, in blocks of the given sizes, the rest in one.

    Returns:
        What came out, the number of late records, and what the store holds before everything is closed.
    """
    spec = WindowSpec(windows.session(gap), AGGREGATES, lateness, value_type=int)
    harness = OperatorHarness(window_operator(spec))
    highest, at = -100, 0
    for size in [*cuts, len(inputs)]:
        block, before = inputs[at : at + size], []
        at += len(block)
        for _, _, timestamp_ms in block:
            before.append(highest - DELAY_MS - 1)
            highest = max(highest, timestamp_ms)
        harness.feed_block(block, before=before, watermark=highest - DELAY_MS - 1)
        if restart:
            harness.snapshot_and_restore()
    harness.commit()
    stored = list(harness.store.scan(b"", b"\xff" * 9))
    harness.advance(MAX_TIME)
    return harness.take(), harness.counters["late_records"], stored


@st.composite
def streams(draw: st.DrawFn, back_ms: int) -> list[Input]:
    """Draw records that come up to so many ms behind the latest one."""
    found: list[Input] = []
    highest = 0
    for _ in range(draw(st.integers(0, 25))):
        highest += draw(st.sampled_from([0, 1, 2, 5, 20]))
        found.append((draw(st.sampled_from(["a", "b", "c"])), draw(st.integers(0, 99)), highest - draw(st.integers(0, back_ms))))
    return found


@settings(max_examples=examples(60), deadline=None)
@given(
    # The last strategy draws records that come too late for the fast path too, which then must not be taken.
    st.one_of(streams(DELAY_MS - 1), streams(DELAY_MS - 1), streams(DELAY_MS + 9)),
    st.lists(st.integers(0, 9), max_size=6),
    st.sampled_from(["1ms", "4ms", "15ms", lambda value: value % 7]),
    st.integers(0, 3),
    st.booleans(),
)
def test_blocks_equal_records_one_after_the_other(inputs: list[Input], cuts: list[int], gap: Any, lateness: int, restart: bool) -> None:
    quick = run(inputs, cuts, gap=gap, lateness=lateness, restart=restart)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window_sessions, "is_quick", lambda block, delay_ms: False)
        slow = run(inputs, [1] * len(inputs), gap=gap, lateness=lateness)
        same_cuts = run(inputs, cuts, gap=gap, lateness=lateness, restart=restart)
    assert quick[:2] == slow[:2]
    assert quick == same_cuts


def test_block_of_records_within_the_bound_takes_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = window_sessions.SessionWindows._process_carefully
    seen: list[int] = []

    def carefully(self: window_sessions.SessionWindows, block: Block) -> Any:
        seen.append(len(block))
        return slow(self, block)

    monkeypatch.setattr(window_sessions.SessionWindows, "_process_carefully", carefully)
    within = [("a", 1, 0), ("a", 2, 40), ("a", 3, 36), ("b", 4, 90)]
    run(within, [], gap="10ms", lateness=0)
    assert seen == []
    run([*within, ("a", 5, 80)], [], gap="10ms", lateness=0)
    assert seen == [5]


@pytest.mark.parametrize(
    ("timestamp_ms", "before", "expected"),
    [
        (12, 10, True),
        (11, 10, False),  # a session that ended at 11 has closed at 10, and the record would touch it
        (11, 9, True),
        (-5, -6, False),
        (-4, -6, True),
    ],
)
def test_is_quick_at_the_edge(timestamp_ms: int, before: int, expected: bool) -> None:
    block = Block(["a"], [1], [timestamp_ms], before, timestamp_ms, [before])
    assert is_quick(block, -1) is expected


@pytest.mark.parametrize("quick", [True, False])
def test_earlier_session_of_a_key_in_the_pane_that_time_has_reached_closes_in_time(quick: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not quick:
        monkeypatch.setattr(window_sessions, "is_quick", lambda block, delay_ms: False)
    harness = OperatorHarness(window_operator(WindowSpec(windows.session(lambda value: value), AGGREGATES, value_type=int)))
    # Panes are 5 s wide. "a" closes at 4_999, and then also at 1_999 by a session of its own, in the pane that is being looked at.
    harness.feed_block([("a", 2_000, 3_000)], before=[0], watermark=1_000)
    harness.advance(1_500)
    harness.feed_block([("a", 300, 1_700)], before=[1_500], watermark=1_500)
    assert harness.take() == []
    harness.advance(2_000)
    assert [(out.key, out.value["window_start"], out.value["window_end"]) for out in harness.take()] == [("a", 1_700, 2_000)]
    harness.advance(5_000)
    assert [(out.key, out.value["window_start"]) for out in harness.take()] == [("a", 3_000)]


def test_sessions_of_a_key_in_a_block_close_earliest_first_and_the_rest_stays() -> None:
    spec = WindowSpec(windows.session("5ms"), AGGREGATES, value_type=int)
    harness = OperatorHarness(window_operator(spec))
    rows = [("a", 1, 100), ("a", 2, 120), ("a", 3, 107), ("a", 4, 102), ("a", 5, 140), ("b", 6, 101)]
    harness.feed_block(rows, before=[50] * 6, watermark=130)
    assert [(out.key, out.value["window_start"], out.value["window_end"], out.value["all"], out.before) for out in harness.take()] == [
        ("b", 101, 106, [6], 104),
        ("a", 100, 112, [1, 4, 3], 110),
        ("a", 120, 125, [2], 123),
    ]
    harness.snapshot_and_restore()
    harness.advance(144)
    assert [(out.value["window_start"], out.value["all"]) for out in harness.take()] == [(140, [5])]
