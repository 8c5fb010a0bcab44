"""Rules look only at what can matter to them: the same matches and the same dead letters as if they looked at everything."""

from dataclasses import replace
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Struct
from engine.cep.rules.compiled import Frame, compile_rule
from engine.cep.rules.rule import parse_rule
from engine.cep.rules.screen import Due
from engine.errors import RecordError
from engine.operators.detect_rules import DetectRules, detect_rules_operator
from engine.testing.harness import OperatorHarness
from tests.effort import examples
from tests.engine.cep.rules_world import rule, stage


class Event(Struct, frozen=True):
    kind: str
    cents: Any
    number: int


FRAME = Frame(Event, frozenset(["user"]), frozenset(["ts"]))
Batches = list[tuple[list[tuple[str, Event, int]], int]]


def sql(text: str, name: str = "r") -> bytes:
    return msgspec.json.encode({"id": name, "version": 1, "match_recognize": text})


def take_screens_away(harness: OperatorHarness) -> None:
    for _, slot in cast(DetectRules, harness.operator)._standing:
        if slot.compiled is not None:
            slot.compiled = replace(slot.compiled, screen=None)


def run(raws: list[bytes], batches: Batches, how: str) -> Any:
    """Return matches and failed firings, with "screens", in "careful" mode, or with rules that look at "everything"."""
    make = detect_rules_operator(FRAME, key_type=str, late_to=None, timeouts_to=None, history=0)
    harness = OperatorHarness(make)
    harness.feed_block([(parse_rule(raw).id, parse_rule(raw), 0) for raw in raws], watermark=0, port=1)
    for number, (records, watermark) in enumerate(batches):
        mark, reached = harness.mark(), harness.reached()
        harness.careful = how == "careful"
        try:
            if how == "everything":
                take_screens_away(harness)
            harness.feed_block(records, watermark=watermark)
        except (TypeError, RecordError):
            assert how != "careful"
            harness.rewind(mark, reached)
            harness.careful = True
            harness.feed_block(records, watermark=watermark)
        if number % 2:
            harness.commit()
            harness.restart()
    return [(out.key, out.value, out.timestamp_ms) for out in harness.take()], [(one.key, one.timestamp_ms) for one in harness.failed]


wheres = st.sampled_from(
    [None, "kind = 'a'", "kind = 'b'", "kind = 'a' AND cents > 2", "kind = 'c' OR cents = 0", "cents > 3", "NOT (cents > 3)", "cents <> 1"]
)
quantifiers = st.sampled_from(
    [{}, {}, {"times": 2}, {"times": [1, 3]}, {"times": [1, None]}, {"optional": True}, {"times": 2, "between": "consecutive"}]
)
afters = st.sampled_from(["next", "followed_by", "followed_by", "followed_by_any", "not_next", "not_followed_by"])


@st.composite
def patterns(draw: Any) -> bytes | None:
    stages = []
    for place in range(draw(st.integers(1, 3))):
        after = {"after": draw(afters)} if place else {}
        quantifier = {} if "not" in after.get("after", "") else draw(quantifiers)
        stages.append(stage(f"s{place}", draw(wheres), **after, **quantifier))
    skip = draw(st.sampled_from(["none", "to_next", "past_last"]))
    raw = rule("r", 1, *stages, within="6s", skip=skip, output={"n": "COUNT(*)", "first": "FIRST(s0.number)", "last": "number"})
    return raw if _runs(raw) else None


clauses = st.builds(
    "MEASURES COUNT(*) AS n, FIRST(number) AS f, LAST(number) AS l {} PATTERN ({}) WITHIN INTERVAL '6' SECOND DEFINE {}".format,
    st.sampled_from(["", "AFTER MATCH SKIP TO NEXT ROW"]),
    st.sampled_from(["A B", "A+ B", "A? B", "A X*? B", "A | B", "A*", "PERMUTE(A, B)", "(A | X) B", "^A B"]),
    st.sampled_from(
        ["A AS kind = 'a', B AS kind = 'b'", "A AS kind = 'a' AND cents > 2", "A AS cents > 3, B AS cents > PREV(cents)",
         "A AS kind = 'a', B AS B.cents > A.cents", "B AS cents = 0", "A AS kind = 'c', B AS MATCH_NUMBER() < 3"]
    ),
).map(sql)  # fmt: skip


def _runs(raw: bytes) -> bool:
    try:
        compile_rule(parse_rule(raw), FRAME)
    except RecordError:
        return False
    return True


@st.composite
def batches(draw: Any) -> Batches:
    found: Batches = []
    now = number = 0
    cents = st.one_of(st.integers(0, 5), st.integers(0, 5), st.none(), *([st.just("five")] if draw(st.booleans()) else []))
    for _ in range(draw(st.integers(1, 4))):
        records = []
        for _ in range(draw(st.integers(0, 8))):
            number += 1
            records.append(
                (
                    draw(st.sampled_from("uvw")),
                    Event(draw(st.sampled_from("abc")), draw(cents), number),
                    now + draw(st.integers(1, 5)) * 1_000,
                )
            )
        now += draw(st.integers(1, 5)) * 1_000
        found.append((records, now))
    return [*found, ([], now + 20_000)]


@settings(max_examples=examples(60), deadline=None)
@given(st.one_of(patterns(), clauses), batches())
def test_rule_finds_with_a_screen_what_it_finds_without(raw: bytes | None, batches: Batches) -> None:
    if raw is None or not _runs(raw):
        return
    screened = run([raw], batches, "screens")
    assert screened == run([raw], batches, "everything")
    assert screened == run([raw], batches, "careful")


@pytest.mark.parametrize(
    "raw",
    [
        rule("r", 1, stage("a", "cents > 100", times=3)),
        rule("r", 1, stage("a", "cents > 100"), stage("b", "cents > 200")),
        rule("r", 1, stage("a", "cents > 100"), stage("b", "cents > 200", after="next")),
        rule("r", 1, stage("a", "cents > 100", optional=True), stage("b", "cents > 200")),
        sql("PATTERN (A B) DEFINE A AS cents > 100, B AS B.cents > A.cents"),
        sql("PATTERN (A B) DEFINE A AS cents > 100, B AS cents > 200"),
    ],
)
def test_keys_without_a_record_that_fits_are_not_handed_to_the_matcher(raw: bytes) -> None:
    records = {f"u{number}": [(1, Event("a", number, number))] for number in range(100)}
    records["rich"] = [(1, Event("a", 5, 0)), (2, Event("a", 150, 1)), (3, Event("a", 5, 2))]
    compiled = compile_rule(parse_rule(raw), FRAME)
    assert compiled is not None and compiled.screen is not None
    fitting = Due(records).fitting(compiled.screen, [])
    assert fitting is not None
    assert {key: [value.number for _, value in pairs] for key, pairs in fitting.items()} in ({"rich": [1]}, {"rich": [1, 2]})


def test_key_with_a_partial_match_is_looked_at_from_its_first_record_on() -> None:
    """What goes on with the match comes before what begins another."""
    raw = rule("r", 1, stage("a", "kind = 'a'"), stage("b", "kind = 'b'"), output={"first": "FIRST(a.number)", "last": "b.number"})
    taken: Batches = [([("u", Event("a", 0, 1), 1_000)], 1_000), ([("u", Event("b", 0, 2), 2_000), ("u", Event("a", 0, 3), 3_000)], 9_000)]
    for how in ("screens", "everything", "careful"):
        found, failed = run([raw], taken, how)
        assert [(key, match.fields) for key, match, _ in found] == [("u", {"first": 1, "last": 2})]
        assert not failed


@pytest.mark.parametrize(
    "raw",
    [
        rule("r", 1, stage("a"), stage("b", "cents > 200")),
        rule("r", 1, stage("a", "timestamp_ms > 100")),
        sql("PATTERN (A B) DEFINE B AS cents > 100"),
        sql("PATTERN (A*) DEFINE A AS cents > 100"),
        sql("PATTERN (^A) DEFINE A AS cents > 100"),
        sql("MEASURES MATCH_NUMBER() AS n PATTERN (A) DEFINE A AS cents > 100"),
        sql("MEASURES PREV(A.cents) AS p PATTERN (A) DEFINE A AS cents > 100"),
        sql("ALL ROWS PER MATCH WITH UNMATCHED ROWS PATTERN (A) DEFINE A AS cents > 100"),
    ],
)
def test_rule_that_any_record_may_matter_to_has_no_screen(raw: bytes) -> None:
    compiled = compile_rule(parse_rule(raw), FRAME)
    assert compiled is not None and compiled.screen is None


def test_a_condition_that_raises_lets_the_rule_look_at_everything() -> None:
    compiled = compile_rule(parse_rule(rule("r", 1, stage("a", "cents > 100"))), FRAME)
    assert compiled is not None and compiled.screen is not None
    assert Due({"u": [(1, Event("a", "many", 1))]}).fitting(compiled.screen, []) is None
