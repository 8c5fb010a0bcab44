"""Partial matches that run out of time are results of their own, in SQL and for live rules that ask for it."""

from typing import Any

import msgspec
import pytest

from engine import ConfigError, Sink, Stream, cep
from engine.testing import TestDriver
from engine.topology import Topology
from tests.engine.cep.rules_world import PAIR, Event, alerts, counted, errors, feed, put, rule, world

CLAUSE = """PARTITION BY user ORDER BY ts MEASURES A.cents AS a, B.cents AS b PATTERN (A X*? B) WITHIN INTERVAL '10' SECOND
    DEFINE A AS kind = 'a', X AS kind <> 'b', B AS kind = 'b'"""


def sql_world(clause: str = CLAUSE, **options: Any) -> Topology:
    topology = Topology("rules-app", partitions=1)
    events = topology.source("events", Event, key="user", time="ts")

    @topology.pipeline(events)
    def alerts(events: Stream[str, Event]) -> Sink:
        return events.detect(cep.match_recognize(clause), **options).to("alerts")

    return topology


def shown(driver: TestDriver) -> list[tuple[Any, ...]]:
    """Return (time, key, start, end, cents that each stage took, what it waited for) of time-outs."""
    found = []
    for record in driver.read("timeouts"):
        value = record.value
        stages = {name: [event["cents"] for event in taken] for name, taken in value["stages"].items()}
        found.append((record.timestamp_ms, value["key"], value["start_ms"], value["end_ms"], stages, value["waited_for"]))
    return found


def test_sql_attempt_that_within_ends_comes_out_with_what_it_had_and_waited_for() -> None:
    with TestDriver(sql_world(timeouts_to="timeouts")) as driver:
        feed(driver, "a:1@1 x:2@2 a:3@5 b:4@13 z@40")
        # From 1 s: the limit is 11 s, before the b. From 5 s: matched.
        assert shown(driver) == [(11_000, "ann", 1_000, 11_000, {"A": [1], "X": [2, 3], "B": []}, ["X", "B"])]
        assert [record.value for record in driver.read("alerts")] == [{"user": "ann", "a": 3, "b": 4}]
        assert counted(driver, "timeouts") == 1


def test_sql_each_row_that_began_an_attempt_runs_out_at_its_own_limit_whatever_the_batches() -> None:
    for restarts in (False, True):
        with TestDriver(sql_world(timeouts_to="timeouts")) as driver:
            for part in ("a:1@1", "a:2@4", "x@5", "x@30"):
                feed(driver, part)
                if restarts:
                    driver.restart()
            found = [(time_ms, stages["A"]) for time_ms, _, _, _, stages, _ in shown(driver)]
            assert found == [(11_000, [1]), (14_000, [2])]


def test_sql_match_that_its_limit_decides_is_no_time_out() -> None:
    clause = CLAUSE.replace("(A X*? B)", "(A X* B?)").replace("kind <> 'b'", "kind = 'x'")
    with TestDriver(sql_world(clause, timeouts_to="timeouts")) as driver:
        feed(driver, "a:1@1 x@2 z@40")
        assert shown(driver) == [] and len(driver.read("alerts")) == 1


@pytest.mark.parametrize(
    ("clause", "options", "words"),
    [
        (CLAUSE.replace("WITHIN INTERVAL '10' SECOND", ""), {"timeouts_to": "t"}, "give the clause a WITHIN"),
        (CLAUSE, {"timeouts_to": "t", "late_to": "t"}, "the same topic"),
    ],
)
def test_sql_time_outs_that_cannot_be_are_refused(clause: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        sql_world(clause, **options)


def timed_rule(version: int, **other: Any) -> bytes:
    return rule("pair", version, *PAIR, within="10s", **other)


def sql_rule(name: str) -> bytes:
    clause = CLAUSE.partition("ORDER BY ts ")[2]
    return msgspec.json.encode({"id": name, "version": 1, "match_recognize": clause, "timeouts": True})


def test_rules_that_ask_for_it_tell_of_what_ran_out_of_time_with_their_id_and_version() -> None:
    with TestDriver(world(timeouts_to="timeouts")) as driver:
        put(driver, timed_rule(3, timeouts=True))
        put(driver, rule("silent", 1, *PAIR, within="10s"))
        put(driver, sql_rule("sql"))
        feed(driver, "a:1@1 a:2@4 b:3@12 z@40")
        found = [record.value for record in driver.read("timeouts")]
        assert [(one["rule"], one["version"], one["end_ms"], one["waited_for"]) for one in found] == [
            ("pair", 3, 11_000, ["b"]),
            ("sql", 1, 11_000, ["X", "B"]),
        ]
        assert [event["cents"] for event in found[0]["stages"]["a"]] == [1] and found[0]["stages"]["b"] == []
        assert {name for name, _, _ in alerts(driver)} == {"pair", "silent", "sql"}
        assert counted(driver, "timeouts of pair v3") == 1


def test_rules_time_outs_come_by_time_then_key_over_restarts() -> None:
    with TestDriver(world(timeouts_to="timeouts"), partitions=1) as driver:
        put(driver, timed_rule(1, timeouts=True))
        put(driver, sql_rule("also"))
        for user in ("bob", "ann"):
            feed(driver, "a:1@1", user)
        driver.restart()
        feed(driver, "z@60", "eve")
        assert [(r.value["rule"], r.key) for r in driver.read("timeouts")] == [
            ("also", "ann"), ("pair", "ann"), ("also", "bob"), ("pair", "bob")
        ]  # fmt: skip


def test_rules_that_are_dropped_tell_of_nothing_and_those_that_drain_do() -> None:
    for old, expected in (("drop", []), ("drain", [1])):
        with TestDriver(world(timeouts_to="timeouts")) as driver:
            put(driver, timed_rule(1, timeouts=True))
            feed(driver, "a:1@1 z@2")
            put(driver, timed_rule(2, old=old))
            feed(driver, "z@60")
            assert [record.value["version"] for record in driver.read("timeouts")] == expected


@pytest.mark.parametrize(
    ("options", "raw", "words"),
    [
        ({}, timed_rule(1, timeouts=True), "no topic for them"),
        ({"timeouts_to": "timeouts"}, rule("pair", 1, *PAIR, timeouts=True), "give the pattern a `within`"),
        ({"timeouts_to": "timeouts"}, msgspec.json.encode({"id": "off", "version": 1, "enabled": False, "timeouts": True}), "timeouts out"),
        ({"timeouts_to": "timeouts"}, sql_rule("sql").replace(b"WITHIN INTERVAL '10' SECOND", b""), "give the clause a WITHIN"),
    ],
)
def test_rules_whose_time_outs_cannot_be_are_refused(options: dict[str, Any], raw: bytes, words: str) -> None:
    with TestDriver(world(**options)) as driver:
        put(driver, raw)
        assert words in errors(driver)[0]
