"""`detect` as an operator: order of time, late records, ties, deadlines without records, cuts, restarts, careful mode."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import ConfigError, RecordError, Struct, cep
from engine.cep import Pattern
from engine.operators.detect import detect_operator
from engine.operators.pending import PENDING_MS
from engine.testing.harness import OperatorHarness, Out
from tests.effort import examples


class Reading(Struct, frozen=True):
    number: int
    letter: str


def is_(letter: str) -> Any:
    return lambda value: value.letter == letter


PAIRS = cep.begin("a").times(2)
A_THEN_B = cep.begin("a", is_("a")).followed_by("b", is_("b")).within("10s")
NO_B = cep.begin("a", is_("a")).not_followed_by("b", is_("b")).within("10s")


def harness_of(pattern: Pattern, **options: Any) -> OperatorHarness:
    return OperatorHarness(detect_operator(pattern, value_type=Reading, **options))


def feed(harness: OperatorHarness, text: str, *, key: str = "k") -> None:
    """Feed readings such as "a1 b2": letter and second."""
    for number, word in enumerate(text.split()):
        harness.feed(key, Reading(number, word[0]), int(word[1:]) * 1_000)


def stages(outs: Sequence[Out]) -> list[dict[str, list[int]]]:
    return [{stage: [value.number for value in values] for stage, values in out.value.stages.items()} for out in outs]


def test_detect_records_out_of_order_are_matched_by_event_time() -> None:
    harness = harness_of(A_THEN_B)
    feed(harness, "b5 a3 b2 a1")
    assert harness.take() == []
    harness.advance(4_999)
    assert stages(harness.take()) == [{"a": [3], "b": [2]}]
    harness.advance(5_000)
    out = harness.take()
    assert stages(out) == [{"a": [1], "b": [0]}]
    assert (out[0].key, out[0].timestamp_ms, out[0].before, out[0].value.start_ms, out[0].value.end_ms) == ("k", 5_000, 4_999, 3_000, 5_000)


def test_detect_records_at_one_time_keep_the_order_of_arrival_or_follow_ties() -> None:
    for ties, expected in ((None, [[0, 1], [2, 3]]), (lambda reading: -reading.number, [[3, 2], [1, 0]])):
        harness = harness_of(PAIRS, skip=cep.skip.past_last, ties=ties)
        feed(harness, "a1 a1 a1 a1")
        harness.advance(1_000)
        assert [found["a"] for found in stages(harness.take())] == expected


def test_detect_record_at_or_below_the_watermark_is_counted_and_sent_on() -> None:
    harness = harness_of(PAIRS, late_to="late")
    harness.advance(2_000)
    feed(harness, "a2 a3 a1")
    assert [(side.topic, side.key, side.value.number, side.timestamp_ms) for side in harness.take_sides()] == [
        ("late", "k", 0, 2_000),
        ("late", "k", 2, 1_000),
    ]
    assert harness.counters == {"late_records": 2}
    harness.advance(9_000)
    assert harness.take() == []


def test_detect_late_record_without_a_topic_is_counted() -> None:
    harness = harness_of(PAIRS)
    harness.advance(2_000)
    feed(harness, "a2")
    assert harness.counters == {"late_records": 1}


def test_detect_matches_of_several_keys_come_by_time_then_key_bytes() -> None:
    harness = harness_of(PAIRS, key_type=int)
    for key, time in ((30, 1), (4, 1), (4, 2), (30, 2), (100, 0), (100, 3), (5, 0), (5, 1)):
        harness.feed(key, Reading(0, "a"), time)
    harness.advance(10)
    assert [(out.timestamp_ms, out.key) for out in harness.take()] == [(1, 5), (2, 30), (2, 4), (3, 100)]


def test_detect_absence_comes_out_when_the_watermark_reaches_the_limit() -> None:
    harness = harness_of(NO_B)
    feed(harness, "a1")
    harness.advance(10_999)
    assert harness.take() == []
    harness.snapshot_and_restore()
    harness.advance(11_000)
    out = harness.take()
    assert [(row.timestamp_ms, row.before, row.value.end_ms) for row in out] == [(11_000, 10_999, 11_000)]


def test_detect_timeouts_go_to_their_topic() -> None:
    harness = harness_of(A_THEN_B, timeouts_to="timeouts")
    feed(harness, "a1 a2 b5 a20")
    harness.advance(40_000)
    sides = harness.take_sides()
    assert [(side.topic, side.key, side.timestamp_ms, type(side.value)) for side in sides] == [("timeouts", "k", 30_000, cep.TimedOut)]
    assert sides[0].value["a"][0].number == 3
    assert harness.counters == {"timeouts": 1}


def test_detect_dropped_partial_matches_are_counted() -> None:
    harness = harness_of(A_THEN_B, max_partials=1)
    feed(harness, "a1 a2 a3 b4")
    harness.advance(4_000)
    assert stages(harness.take()) == [{"a": [2], "b": [3]}]
    assert harness.counters == {"dropped_partials": 2}


@pytest.mark.parametrize(("pattern", "options"), [(A_THEN_B, {}), (A_THEN_B, {"matcher": "general"}), (NO_B, {}), (PAIRS.within("3s"), {})])
def test_detect_key_with_nothing_pending_or_half_matched_leaves_no_state(pattern: Pattern, options: dict[str, Any]) -> None:
    harness = harness_of(pattern, **options)
    feed(harness, "a1 b3 a20 b19 a25 x26")
    harness.commit()
    harness.advance(21_000)
    assert harness.commit()
    harness.restart()
    harness.advance(35_000)
    harness.commit()
    assert list(harness.store.scan(b"\x00\x00\x00\x01", b"\xff" * 8)) == []


def test_detect_state_of_a_key_can_be_looked_at() -> None:
    harness = harness_of(A_THEN_B, matcher="general")
    feed(harness, "a1 a5")
    harness.advance(1_000)
    state = dict(harness.operator.inspect("k"))
    assert [(partial.start_ms, partial.waits_for, partial.dies_ms) for partial in state["partial_matches"]] == [(1_000, ("b",), 11_000)]
    assert state["pending"] == [(5_000, Reading(1, "a"))]
    assert dict(harness.operator.inspect("other")) == {}


def test_detect_impossible_options_are_refused() -> None:
    for options, reason in (
        ({"timeouts_to": "t"}, "nothing runs out of time"),
        ({"skip": cep.skip.to_first("b")}, "no such stage"),
    ):
        with pytest.raises(ConfigError, match=reason):
            detect_operator(PAIRS, **options)
    with pytest.raises(ConfigError, match="the same topic"):
        detect_operator(A_THEN_B, timeouts_to="side", late_to="side")


# -- cuts, restarts, careful mode

PATTERNS: list[tuple[Pattern, dict[str, Any]]] = [
    (PAIRS.within("3s"), {"skip": cep.skip.past_last}),
    (A_THEN_B, {"timeouts_to": "timeouts"}),
    (cep.begin("a", is_("a")).next("b", is_("b")).within("2s"), {}),
    (NO_B, {"skip": cep.skip.to_next}),
    (cep.begin("a", is_("a")).one_or_more().followed_by_any("b", is_("b")).within("3s"), {"skip": cep.skip.past_last}),
    (
        cep.begin("a", is_("a")).followed_by("b", lambda v, m: v.number % 2 != m["a"][0].number % 2).within("3s"),
        {"skip": cep.skip.past_last, "max_partials": 2},
    ),
]
Row = tuple[str, Reading, int]


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[Row], list[int], list[int]]:
    """Records, the watermark before each and after the last, and where to cut."""
    delay = draw(st.sampled_from([0, 700, 2_500]))
    rows: list[Row] = []
    column = [-10_000]
    top = 0
    drawn = st.tuples(st.sampled_from("xyz"), st.sampled_from("aab"), st.integers(-2_000, 1_500))
    for number, (key, letter, step) in enumerate(draw(st.lists(drawn, max_size=20))):
        time = max(top + step, 0)
        rows.append((key, Reading(number, letter), time))
        top = max(top, time)
        column.append(max(column[-1], top - delay - 1))
    cuts = sorted(draw(st.lists(st.integers(0, len(rows)), max_size=5)))
    return rows, column, cuts


def outcome(harness: OperatorHarness, rows: list[Row], column: list[int], cuts: list[int], *, restarts: bool = False) -> Any:
    harness.advance(column[0])
    for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        harness.feed_block(rows[start:stop], before=column[start:stop], watermark=column[stop])
        if restarts:
            harness.snapshot_and_restore()
    harness.advance(column[-1] + 1_234)
    harness.advance(column[-1] + 60_000)
    return harness.take(), harness.take_sides(), harness.counters


@settings(max_examples=examples(150), deadline=None)
@given(st.sampled_from(PATTERNS), streams())
def test_detect_gives_the_same_however_the_input_is_cut(
    pattern: tuple[Pattern, dict[str, Any]], stream: tuple[list[Row], list[int], list[int]]
) -> None:
    rows, column, cuts = stream
    make = detect_operator(pattern[0], value_type=Reading, late_to="late", **pattern[1])
    singly = outcome(OperatorHarness(make), rows, column, list(range(1, len(rows))))
    assert outcome(OperatorHarness(make), rows, column, cuts) == singly
    assert outcome(OperatorHarness(make), rows, column, cuts, restarts=True) == singly
    careful = OperatorHarness(make)
    careful.careful = True
    assert outcome(careful, rows, column, cuts) == singly
    assert careful.failed == []


def test_detect_pending_panes_cut_by_the_watermark_keep_order() -> None:
    harness = harness_of(PAIRS, skip=cep.skip.past_last)
    for number, time in enumerate((PENDING_MS + 5, PENDING_MS + 1, PENDING_MS + 9, PENDING_MS + 7)):
        harness.feed("k", Reading(number, "a"), time)
    harness.advance(PENDING_MS + 4)
    harness.feed("k", Reading(4, "a"), PENDING_MS + 5)
    harness.advance(PENDING_MS + 20)
    assert [found["a"] for found in stages(harness.take())] == [[1, 0], [4, 3]]


def test_detect_condition_that_raises_takes_only_its_record_out() -> None:
    def b(value: Reading) -> bool:
        if value.letter == "!":
            raise ValueError("no letter")
        return value.letter == "b"

    make = detect_operator(cep.begin("a", is_("a")).followed_by("b", b).within("10s"), value_type=Reading)
    harness = OperatorHarness(make)
    feed(harness, "a1 !2 b3 a4 b5")
    mark, reached = harness.mark(), harness.reached()
    with pytest.raises(ValueError, match="no letter"):
        harness.advance(9_000)
    harness.rewind(mark, reached)
    harness.careful = True
    harness.advance(9_000)
    assert stages(harness.take()) == [{"a": [0], "b": [2]}, {"a": [3], "b": [4]}]
    assert [(failed.key, failed.timestamp_ms, failed.name) for failed in harness.failed] == [("k", 2_000, "record")]


def test_detect_error_downstream_uses_the_match_up() -> None:
    harness = harness_of(NO_B)
    emit = harness.operator.emit

    def picky(block: Any) -> None:
        emit(block)
        if any(match["a"][0].number == 0 for match in block.values):
            raise RecordError("not this one")

    harness.operator.emit = picky
    feed(harness, "a1 a2")
    harness.careful = True
    harness.advance(11_000)
    harness.advance(12_000)
    assert stages(harness.take()) == [{"a": [1]}]
    assert [(failed.timestamp_ms, failed.name) for failed in harness.failed] == [(11_000, "deadline")]


def test_detect_deadline_that_fails_in_the_matcher_drops_the_state_of_the_key() -> None:
    """The skip fails as the absence comes out: if the state stayed, it would fail for ever."""
    pattern = cep.begin("a", is_("a")).optional().followed_by("c", is_("c")).not_followed_by("b", is_("b")).within("10s")
    harness = harness_of(pattern, skip=cep.skip.to_first("a", on_miss="error"))
    feed(harness, "c1")
    harness.careful = True
    harness.advance(20_000)
    assert [(failed.timestamp_ms, failed.name, type(failed.error)) for failed in harness.failed] == [(11_000, "deadline", RecordError)]
    assert harness.commit() == []
