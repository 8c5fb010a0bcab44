"""Large states of a pattern lie in parts: a commit writes what is new, and nothing else changes by it."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from engine import cep
from engine.block import MAX_TIME
from engine.cep.layout import PARTS_MIN, Folded, decode_kept, encode_kept
from engine.cep.recognize import Recognizer
from engine.control import Delete
from engine.errors import StateError
from engine.operators.base import OperatorContext
from engine.operators.detect import Detect, detect_operator
from engine.testing.driver import TestDriver
from engine.testing.harness import OperatorHarness, Out
from state.keys import prefix_end, store_id
from state.store import Position
from state.values import raw_codec, stored
from tests.effort import examples
from tests.engine.cep.rules_world import alerts, feed, pair, put, world
from tests.engine.cep.stored import everything_in_parts

WITHIN_MS = 86_400_000


class Reading(Struct, frozen=True):
    """What the patterns look at."""

    letter: str
    ts: int = 0


def is_(letters: str) -> Any:
    return lambda reading: reading.letter in letters


def sql_operator(clause: str) -> Any:
    """Return what makes the operator of a clause."""
    matcher = Recognizer(clause, placed=True).matcher(Reading, max_partials=20_000, on_too_many="drop_oldest")

    def make(context: OperatorContext) -> Detect:
        options: dict[str, Any] = {"key_type": str, "value_type": Reading, "timeouts_to": None, "late_to": None, "ties": None}
        return Detect(context, matcher, deadline_pane_ms=60_000, **options)

    return make


def of_pattern(pattern: cep.Pattern, **options: Any) -> Any:
    return detect_operator(pattern, value_type=Reading, max_partials=20_000, **options)


A_THEN_B = cep.begin("a", is_("a")).followed_by("b", is_("b")).within("1d")
LOOP = cep.begin("s", is_("s")).followed_by("a", is_("a")).one_or_more().greedy().followed_by("b", is_("b")).within("1d")
OPERATORS: dict[str, Any] = {
    "linear": of_pattern(A_THEN_B),
    "nfa": of_pattern(A_THEN_B, timeouts_to="timeouts"),
    "loop": of_pattern(LOOP),
    "times": of_pattern(cep.begin("a", is_("a")).times(20_000).within("1d")),
    "sql": sql_operator("MEASURES COUNT(*) AS n PATTERN (A+ B) WITHIN INTERVAL '1' DAY DEFINE A AS letter = 'a', B AS letter = 'b'"),
}


def fill(harness: OperatorHarness, letters: str, start_ms: int) -> None:
    rows = [("k", Reading(letter), start_ms + at) for at, letter in enumerate(letters)]
    harness.feed_block(rows, watermark=start_ms + len(letters) - 1)


def changed_bytes(changes: list[tuple[bytes, bytes | None]]) -> int:
    return sum(len(key) + len(value or b"") for key, value in changes)


def parts_of(harness: OperatorHarness) -> int:
    """Return how many parts the store holds."""
    ids = _ids(harness, "records", "runs")
    return sum(key[:4] in ids for key, _ in harness.store.scan(b"", b"\xff" * 5))


@pytest.mark.parametrize("kind", OPERATORS)
def test_commit_writes_only_the_new_records_of_a_key_with_many_open_ones(kind: str) -> None:
    harness = OperatorHarness(OPERATORS[kind])
    fill(harness, "s" + "a" * 399, 0)
    everything = changed_bytes(harness.commit())
    fill(harness, "a" * 10, 400)
    new = harness.commit()
    assert len(new) <= 30
    assert changed_bytes(new) < 2_000 < everything / 5
    harness.restart()
    fill(harness, "a" * 10, 410)
    assert changed_bytes(harness.commit()) < 2_000, "what was read again is known to lie in the store"


@pytest.mark.parametrize("kind", OPERATORS)
def test_parts_go_when_no_partial_match_needs_them(kind: str) -> None:
    harness = OperatorHarness(OPERATORS[kind])
    fill(harness, "s" + "a" * 200, 0)
    harness.commit()
    assert parts_of(harness) >= 200
    harness.advance(WITHIN_MS * 3)
    harness.commit()
    assert parts_of(harness) == 0


# -- the same results


@st.composite
def scripts(draw: st.DrawFn) -> list[tuple[str, int, str]]:
    """Draw blocks of letters, each with a gap before it and what happens after it."""
    after = st.sampled_from(["", "", "commit", "restart", "undo", "careful"])
    gaps = st.sampled_from([1, 3, 50, WITHIN_MS // 2, WITHIN_MS])
    return draw(st.lists(st.tuples(st.text("sab", min_size=1, max_size=5), gaps, after), min_size=1, max_size=8))


def outcome(kind: str, script: list[tuple[str, int, str]]) -> tuple[list[Out], int]:
    """Run a script; return what came out, and how many parts are left behind in the end."""
    harness, now_ms = OperatorHarness(OPERATORS[kind]), 0
    for letters, gap_ms, after in script:
        now_ms += gap_ms
        if after == "undo":
            mark, reached = harness.mark(), harness.watermark
            fill(harness, letters, now_ms)
            harness.rewind(mark, reached)
        harness.careful = after == "careful"
        fill(harness, letters, now_ms)
        harness.careful = False
        now_ms += len(letters)
        if after == "commit":
            harness.commit()
        elif after == "restart":
            harness.snapshot_and_restore()
    harness.advance(MAX_TIME - 1)
    harness.commit()
    return [Out(*out[:3], 0) for out in harness.take()], parts_of(harness)


@settings(max_examples=examples(60), deadline=None)
@given(st.sampled_from([kind for kind in OPERATORS if kind != "times"]), scripts())
def test_everything_in_parts_gives_what_whole_states_give(kind: str, script: list[tuple[str, int, str]]) -> None:
    expected, _ = outcome(kind, script)
    with everything_in_parts():
        assert outcome(kind, script) == (expected, 0)


# -- formats


def test_format_1_is_read_and_written_in_parts_at_the_next_change() -> None:
    harness = OperatorHarness(OPERATORS["nfa"])
    fill(harness, "a" * 200, 0)
    operator = harness.operator
    assert isinstance(operator, Detect)
    kept = operator._partials.get("k")
    assert kept is not None
    raw = stored(raw_codec, "old").encode(kept[0].to_bytes(8, "big", signed=True) + operator._matcher.layout.encode(kept[1]))
    heads, parts = (_ids(harness, *locals_) for locals_ in (("partials",), ("records", "runs")))
    changes = [(key, raw if key[:4] in heads else value) for key, value in harness.commit() if key[:4] not in parts]
    again = OperatorHarness(OPERATORS["nfa"])
    again.store.apply(changes, Position(b"x", 1, 0))
    again.restart()
    fill(again, "a", 200)
    again.commit()
    assert parts_of(again) == 2 * 201
    again.restart()
    fill(again, "b", 201)
    assert len(again.take()) == 201


def _ids(harness: OperatorHarness, *states: str) -> list[bytes]:
    return [store_id(f"{harness.pipeline}/{harness.name}/{state}") for state in states]


def test_a_format_that_is_not_known_is_refused() -> None:
    operator = OperatorHarness(OPERATORS["nfa"]).operator
    assert isinstance(operator, Detect)
    layout = operator._matcher.layout
    with pytest.raises(StateError, match="format 9; this version reads formats 1 to 3"):
        decode_kept(bytes(8) + b"\x09abc", layout)
    with pytest.raises(StateError, match="cut off"):
        decode_kept(bytes(8), layout)


def test_state_in_parts_that_lacks_one_is_a_state_error() -> None:
    harness = OperatorHarness(OPERATORS["linear"])
    fill(harness, "a" * 100, 0)
    harness.commit()
    (records,) = _ids(harness, "records")
    lost = next(key for key, _ in harness.store.scan(records, prefix_end(records)))
    harness.store.apply([(lost, None)], Position(b"x", 2, 0))
    harness.restart()
    with pytest.raises(StateError, match="lacks a part"):
        fill(harness, "b", 200)


def test_a_folded_state_is_written_as_it_was_read() -> None:
    assert encode_kept((5, Folded(b"head")), None) == (5).to_bytes(8, "big") + b"\x03head"
    assert PARTS_MIN == 64, "the README says so"


# -- rules and edits


def parts_in(driver: TestDriver) -> int:
    """Return how many parts of rules and patterns the stores hold."""
    specs = [spec for spec in driver._tasks[0].catalog().specs.values() if spec.part_of]
    ids = {store_id(spec.name) for spec in specs}
    driver.commit()
    return sum(raw[:4] in ids for store in driver._stores for raw, _ in store.scan(b"", b"\xff" * 8))


@pytest.mark.parametrize("old", ["drain", "drop"])
def test_rule_parts_of_a_version_go_with_it_and_those_of_the_next_are_its_own(old: str) -> None:
    with TestDriver(world()) as driver:
        put(driver, pair(1))
        feed(driver, " ".join(f"a:{number}@{number}" for number in range(1, 101)) + " x@101")
        assert parts_in(driver) == 200
        driver.restart()
        put(driver, pair(2, old=old))
        feed(driver, " ".join(f"a:{number}@{number}" for number in range(102, 202)) + " x@202")
        assert parts_in(driver) == (200 if old == "drop" else 400)
        driver.restart()
        feed(driver, "b:7@203 x@204")
        assert len(alerts(driver)) == (100 if old == "drop" else 200)
        assert parts_in(driver) == 0


def test_delete_of_a_key_takes_its_parts_along_and_never_parts_alone() -> None:
    with TestDriver(world()) as driver:
        put(driver, pair(1))
        for second in range(1, 101):
            feed(driver, f"a:1@{second}")
            feed(driver, f"a:2@{second}", "bob")
        feed(driver, "x@101")
        partials = next(spec.part_of for spec in driver._tasks[0].catalog().specs.values() if spec.part_of)
        reports = driver.command(Delete(id="d1", key=b"ann", state=f"{partials.removesuffix('partials')}records"))
        assert [report.kind for report in reports] == ["refused"] and "delete the key from that" in (reports[0].error or "")
        assert parts_in(driver) == 400
        driver.command(Delete(id="d2", key=b"ann", state=partials))
        assert parts_in(driver) == 200
        driver.command(Delete(id="d3", key=b"bob"))
        assert parts_in(driver) == 0
