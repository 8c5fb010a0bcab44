"""The format of live rules: what is refused, with which words, and what the conditions and fields of a pattern mean."""

from typing import Any

import msgspec
import pytest

from engine.cep.conditions import PartialMatch
from engine.cep.matcher import Found
from engine.cep.rules import parse_rule
from engine.cep.rules.compiled import Frame, compile_rule
from engine.cep.rules.expressions import Expressions
from engine.errors import RecordError
from tests.engine.cep.rules_world import Event, rule, stage

FRAME = Frame(Event, frozenset(["user"]), frozenset(["ts"]))


def sql(text: str, **other: Any) -> bytes:
    return msgspec.json.encode({"id": "r", "version": 1, "match_recognize": text, **other})


def group(*stages: dict[str, Any], **other: Any) -> dict[str, Any]:
    return {"group": list(stages), **other}


def fields_of(raw: bytes, text: str) -> list[Any]:
    """Return the fields of each match over records written as kind:cents@second."""
    compiled = compile_rule(parse_rule(raw), FRAME)
    assert compiled is not None
    records = []
    for record in text.split():
        name, _, second = record.partition("@")
        kind, _, cents = name.partition(":")
        records.append((int(second) * 1_000, Event("ann", kind, int(cents or 0), int(second) * 1_000)))
    found = Found()
    compiled.matcher.run(None, "ann", records, 10**12, found)
    matches: list[Any] = list(found.matches)
    return [match.row for match in matches]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"[]", "Expected `object`"),
        (b"{", "not a valid Rule"),
        (b'{"id": "r"}', "missing required field `version`"),
        (b'{"id": "r", "version": "1"}', "Expected `int`"),
        (b'{"id": "r", "version": 1, "patern": {}}', "unknown field `patern`"),
        (b'{"id": "r", "version": 1, "pattern": {"stages": [{"stage": "a", "wher": "1"}]}}', "unknown field `wher`"),
        (rule("r", 1, stage("a", after="then")), "Invalid enum value 'then'"),
        (b'{"id": "r", "version": 1}', "neither"),
        (b'{"id": "", "version": 1, "enabled": false}', "needs an id"),
        (rule("r", 0, stage("a")), "counted from 1"),
        (rule("r", 1, stage("a"), enabled=False), "finds nothing: leave"),
        (rule("r", 1, stage("a"), match_recognize="PATTERN (A)"), "match_recognize and pattern"),
        (sql("PATTERN (A)", skip="none"), "AFTER MATCH SKIP"),
        (rule("r", 1, stage("a"), skip={}), "skip to one stage"),
        (rule("r", 1), "the pattern has no stage"),
        (rule("r", 1, group()), "a group has no stage"),
        (rule("r", 1, {"where": "cents > 1"}), "either stage .its name. or group"),
        (rule("r", 1, stage("a b")), "'a b': the name is a word"),
        (rule("r", 1, stage("a"), stage("A")), "differ only by capitals"),
        (rule("r", 1, stage("a"), stage("a")), "differ only by capitals: a, a"),
        (rule("r", 1, stage("a", after="next")), "nothing stands before the first stage"),
        (rule("r", 1, group(stage("a"), where="cents > 1")), "a group has no condition of its own"),
        (rule("r", 1, stage("a"), group(stage("b"), after="not_next")), "a group cannot be negated"),
        (rule("r", 1, group(stage("a"), times=2, until="cents > 1")), "until is for a stage with a name"),
        (rule("r", 1, stage("a", times=0)), "not a range of at least one repetition"),
        (rule("r", 1, stage("a", until="cents > 1")), "only a loop has an end to set"),
        (rule("r", 1, stage("a"), stage("b", after="not_followed_by")), "is the last stage"),
        (rule("r", 1, stage("a"), within="5"), "not a duration"),
        (rule("r", 1, stage("a", "cent > 1")), "stage 'a': line 1, column 1: the records have no field 'cent'"),
        (rule("r", 1, stage("a", "cents >")), "line 1, column 7"),
        (rule("r", 1, stage("a", "cents > 'x")), "never closed"),
        (rule("r", 1, stage("a", "PREV(cents) > 1")), "PREV is only for match_recognize"),
        (rule("r", 1, stage("a"), output={"x": "b.cents"}), "output 'x'"),
        (rule("r", 1, stage("a"), output={"x": "MATCH_NUMBER()"}), "MATCH_NUMBER is only for match_recognize"),
        (rule("r", 1, stage("a"), skip={"to_last": "b"}), "has no such stage"),
        (sql("PATTERN (A"), "line 1, column 11"),
        (sql("PARTITION BY kind PATTERN (A)"), "matched by the key of its stream; that is user"),
        (sql("ORDER BY cents PATTERN (A)"), "not known to be the event time of the stream"),
        (sql("PATTERN (A) DEFINE A AS nope > 1"), "no field 'nope'"),
    ],
)  # fmt: skip
def test_rule_that_cannot_run_is_refused_with_the_reason(raw: bytes, words: str) -> None:
    with pytest.raises(RecordError, match=words):
        compile_rule(parse_rule(raw), FRAME)


def test_rule_reasons_name_rule_and_version() -> None:
    with pytest.raises(RecordError, match="rule 'probe' version 3: where of stage 'a'"):
        compile_rule(parse_rule(rule("probe", 3, stage("a", "x = 1"))), FRAME)


def test_rule_that_is_not_enabled_has_no_matcher() -> None:
    assert compile_rule(parse_rule(b'{"id": "r", "version": 2, "enabled": false, "old": "drop"}'), FRAME) is None


@pytest.mark.parametrize(
    ("stages", "other", "records", "expected"),
    [
        # the record at hand counts as one of its stage, also in aggregates
        ([stage("a", "SUM(a.cents) <= 30", times=3)], {"output": {"n": "COUNT(*)", "sum": "SUM(a.cents)"}}, "x:5@1 x:20@2 x:6@3 x:5@4",
         [{"n": 3, "sum": 30}]),
        # names of stages know no capitals, a column alone is of the last record
        ([stage("Small", "cents < 10"), stage("big", "cents > 10 * SMALL.cents")], {"output": {"s": "small.cents", "b": "cents"}},
         "x:3@1 x:20@2 x:31@3", [{"s": 3, "b": 31}]),
        # time is a column, and so is the distance to the first record
        ([stage("a"), stage("b", "timestamp_ms - FIRST(a.timestamp_ms) >= 5000")],
         {"output": {"a": "FIRST(ts)", "b": "ts"}, "skip": "past_last"},
         "x@1 x@3 x@6", [{"a": 1_000, "b": 6_000}]),
        # over a group the records stand in the order in which they were taken
        ([group(stage("a", "kind = 'a'"), stage("b", "kind = 'b' AND cents > LAST(a.cents)"), times=2)],
         {"output": {"first": "FIRST(kind)", "as": "SUM(a.cents)", "bs": "SUM(b.cents)", "all": "COUNT(*)", "top": "MAX(b.cents)"}},
         "a:1@1 b:2@2 a:3@3 b:1@4 b:9@5", [{"first": "a", "as": 4, "bs": 11, "all": 4, "top": 9}]),
        # without output: every value of every stage
        ([stage("a", "kind = 'a'"), stage("b", "kind = 'b'", after="next")], {}, "a:1@1 b:2@2",
         [{"a": [Event("ann", "a", 1, 1_000)], "b": [Event("ann", "b", 2, 2_000)]}]),
        # loops, until, optional
        ([stage("a", "kind = 'a'", times=[2, None], greedy=True, until="kind = 'stop'"), stage("b", "kind = 'b'")],
         {"output": {"n": "COUNT(a.cents)"}, "skip": "past_last"}, "a@1 a@2 a@3 b@4 a@5 stop@6 a@7 b@8", [{"n": 3}]),
        ([stage("a", "kind = 'a'"), stage("c", "kind = 'c'", optional=True, after="next"), stage("b", "kind = 'b'", after="next")],
         {"output": {"c": "c.cents"}}, "a@1 b@2 a@3 c:7@4 b@5", [{"c": None}, {"c": 7}]),
        # NULL and wrong comparisons with it fit nothing
        ([stage("a", "note = 'x'")], {"output": {"n": "COUNT(*)"}}, "a@1", []),
        ([stage("a", "note IS NULL")], {"output": {"n": "COALESCE(note, 'none')"}}, "a@1", [{"n": "none"}]),
    ],
)  # fmt: skip
def test_rule_pattern_in_json_finds(stages: list[dict[str, Any]], other: dict[str, Any], records: str, expected: list[Any]) -> None:
    assert fields_of(rule("r", 1, *stages, **other), records) == expected


def test_rule_with_an_absence_comes_out_at_its_limit() -> None:
    raw = rule("r", 1, stage("order", "kind = 'order'"), stage("paid", "kind = 'pay'", after="not_followed_by"), within="30m",
               output={"cents": "order.cents"})  # fmt: skip
    assert fields_of(raw, "order:1@0 pay@60 order:2@100") == [{"cents": 2}]


def test_rule_in_sql_needs_no_key_and_no_order_and_may_name_the_right_ones() -> None:
    clause = "MEASURES A.cents AS a, B.cents AS b PATTERN (A B) DEFINE A AS kind = 'a', B AS kind = 'b'"
    assert fields_of(sql(clause), "a:1@1 b:2@2") == [{"a": 1, "b": 2}]
    assert fields_of(sql(f"PARTITION BY user ORDER BY ts, cents {clause}"), "a:1@1 b:2@2") == [{"user": "ann", "a": 1, "b": 2}]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("cents > 5", [False, True]),
        ("5 < cents", [False, True]),
        ("a.cents + 1 >= 6 AND NOT kind IN ('x', 'y')", [True, True]),
        ("note IS NULL OR LENGTH(note) = 2", [True, True]),
        ("note = 'hi'", [None, True]),
        ("NULL > cents OR cents BETWEEN 6 AND 9", [None, True]),
        ("CASE WHEN cents = 5 THEN kind = 'k' ELSE FALSE END", [True, False]),
        ("TRUE", [True, True]),
    ],
)
def test_rule_condition_on_the_record_alone_gives_what_it_gives_in_a_match(sql: str, expected: list[bool | None]) -> None:
    records = [Event("u", "k", 5, 1), Event("u", "k", 7, 1, "hi")]
    expressions = Expressions(["a"], Event)
    alone = expressions.condition("a", sql, "where")
    with_match = expressions.condition("a", f"({sql}) AND COUNT(a.*) = 1", "where")
    assert [alone(record) for record in records] == expected
    looks = [PartialMatch("u", 1, record, ["a"]) for record in records]
    assert [with_match(record, look) for record, look in zip(records, looks, strict=True)] == [value is True for value in expected]
