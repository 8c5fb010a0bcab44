"""Deadlines that only end what is kept, rounded up: the same matches as with exact ones, and in the end no state."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import cep
from engine.block import MAX_TIME
from engine.cep import Pattern
from engine.operators.base import OperatorContext
from engine.operators.detect import Detect, detect_operator
from engine.testing.harness import OperatorHarness, Out
from tests.effort import examples

Row = tuple[str, int, int]
"""Key, value, event time."""
WITHIN_MS = 600_000  # deadlines are rounded up to 37 s

PATTERNS: list[tuple[Pattern, dict[str, Any]]] = [
    (cep.begin("a").times(3).within("10m"), {"skip": cep.skip.past_last}),
    (cep.begin("a", lambda value: value % 3).times(2).within("10m"), {}),
    (cep.begin("a").next("b", lambda value: value % 2).followed_by("c").within("10m"), {"skip": cep.skip.past_last}),
    (cep.begin("a").times(3), {"skip": cep.skip.past_last}),
]


def exactly(pattern: Pattern, options: dict[str, Any]) -> Any:
    """Return what makes the operator with exact deadlines."""
    make = detect_operator(pattern, value_type=int, **options)

    def made(context: OperatorContext) -> Detect:
        operator = make(context)
        assert operator._expiring is not None
        operator._expiring = None
        return operator

    return made


def outcome(harness: OperatorHarness, rows: list[Row], cuts: list[int], restarts: list[bool], careful: list[bool]) -> list[Out]:
    """Feed rows in blocks; restart and go to careful mode where asked."""
    bounds = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    for number, (start, stop) in enumerate(pairwise(bounds)):
        harness.careful = bool(careful and careful[number % len(careful)])
        block = rows[start:stop]
        highest = max([time_ms for _, _, time_ms in rows[:stop]])
        harness.feed_block(block, watermark=highest - 1)
        if restarts and restarts[number % len(restarts)]:
            harness.snapshot_and_restore()
    harness.careful = False
    harness.advance(MAX_TIME - 1)
    return [Out(*out[:3], 0) for out in harness.take()]


@st.composite
def streams(draw: st.DrawFn) -> list[Row]:
    """Draw records in order of time, with gaps around the limit."""
    time_ms, rows = 1_000_000, []
    steps = st.sampled_from([1, 1_000, 30_000, 100_000, WITHIN_MS - 1, WITHIN_MS, 700_000])
    for _ in range(draw(st.integers(1, 20))):
        time_ms += draw(steps)
        rows.append((draw(st.sampled_from("xyz")), draw(st.integers(0, 9)), time_ms))
    return rows


@settings(max_examples=examples(60), deadline=None)
@given(
    st.sampled_from(PATTERNS),
    streams(),
    st.lists(st.integers(0, 19), max_size=5),
    st.lists(st.booleans(), max_size=4),
    st.lists(st.booleans(), max_size=4),
)
def test_rounded_deadlines_give_what_exact_ones_give(
    pattern: tuple[Pattern, dict[str, Any]], rows: list[Row], cuts: list[int], restarts: list[bool], careful: list[bool]
) -> None:
    rounded = OperatorHarness(detect_operator(pattern[0], value_type=int, **pattern[1]))
    exact = OperatorHarness(exactly(*pattern))
    assert outcome(rounded, rows, cuts, restarts, careful) == outcome(exact, rows, cuts, [], [])
    rounded.commit()
    exact.commit()
    left, left_exact = (list(harness.store.scan(b"\x00\x00\x00\x01", b"\xff" * 9)) for harness in (rounded, exact))
    assert left == left_exact
    assert pattern[0].limit_ms is None or left == []


@pytest.mark.parametrize("skip", [cep.skip.past_last, cep.skip.none])
def test_key_keeps_its_place_in_the_index_and_goes_a_sixteenth_of_the_limit_later_at_most(skip: Any) -> None:
    harness = OperatorHarness(detect_operator(cep.begin("a").times(2).within("10m"), value_type=int, skip=skip))
    harness.feed_block([("k", 1, 1_000), ("k", 2, 2_000)], watermark=2_000)
    assert len(harness.take()) == 1
    assert dict(harness.operator.inspect("k")).keys() == (set() if skip is cep.skip.past_last else {"partial_matches"})
    harness.feed_block([("k", 3, 3_000)], watermark=3_000)
    harness.commit()
    entries = len(list(harness.store.scan(b"\x00\x00\x00\x01", b"\xff" * 9)))
    assert entries == 2, "one state and one place in the index"
    harness.advance(3_000 + WITHIN_MS + 2 * WITHIN_MS // 16)
    harness.commit()
    assert list(harness.store.scan(b"\x00\x00\x00\x01", b"\xff" * 9)) == []


def test_entries_with_exact_deadlines_of_an_earlier_run_are_taken_over() -> None:
    options: dict[str, Any]
    pattern, options = cep.begin("a").times(2).within("10m"), {"skip": cep.skip.past_last}
    exact = OperatorHarness(exactly(pattern, options))
    exact.feed_block([("k", 1, 1_000), ("l", 1, 2_500)], watermark=2_500)
    exact.commit()
    rounded = OperatorHarness(detect_operator(pattern, value_type=int, **options), store=exact.store)
    rounded.advance(1_000 + WITHIN_MS)  # in the midst of a pane: only "k" is over
    rounded.commit()
    assert "partial_matches" in dict(rounded.operator.inspect("l"))
    assert dict(rounded.operator.inspect("k")) == {}
    rounded.feed_block([("l", 2, 2_499 + WITHIN_MS)], watermark=2_499 + WITHIN_MS)
    assert [out.key for out in rounded.take()] == ["l"]
    rounded.advance(MAX_TIME - 1)
    rounded.commit()
    assert list(rounded.store.scan(b"\x00\x00\x00\x01", b"\xff" * 9)) == []
