"""Live rules in a task: what a version sees, what becomes of the one before it, and the same over crashes, cuts and errors."""

from typing import Any

import msgspec
import pytest

from engine import Sink, Stream, cep
from engine.errors import ConfigError
from engine.testing.driver import TestDriver
from engine.topology import Topology
from tests.engine.cep.rules_world import PAIR, Event, alerts, feed, pair, put, rule, stage, world


def test_rules_added_changed_and_removed_while_running() -> None:
    with TestDriver(world()) as driver:
        feed(driver, "a:1@1 b:2@2 x@3")
        put(driver, pair(1))
        feed(driver, "a:3@4 b:4@5 x@6")
        put(driver, rule("pair", 2, *PAIR, within="10m", output={"cents": "a.cents + b.cents"}))
        feed(driver, "a:5@7 b:6@8 x@9")
        put(driver, None, "pair")
        feed(driver, "a:7@10 b:8@11 x@12")
        driver.finish()
        assert alerts(driver) == [("pair", 1, {"a": 3, "b": 4}), ("pair", 2, {"cents": 11})]


def test_rules_drain_lets_what_has_begun_end_and_begins_nothing() -> None:
    with TestDriver(world()) as driver:
        put(driver, pair(1))
        feed(driver, "a:1@1 x@2")
        put(driver, pair(2))
        feed(driver, "a:2@3 b:3@4 a:4@5 b:5@6 x@7")
        assert alerts(driver) == [("pair", 1, {"a": 1, "b": 3}), ("pair", 2, {"a": 2, "b": 3}), ("pair", 2, {"a": 4, "b": 5})]


def test_rules_drop_forgets_what_has_begun() -> None:
    with TestDriver(world()) as driver:
        put(driver, pair(1))
        feed(driver, "a:1@1 x@2")
        put(driver, pair(2, old="drop"))
        feed(driver, "b:3@4 a:4@5 b:5@6 x@7")
        assert alerts(driver) == [("pair", 2, {"a": 4, "b": 5})]


@pytest.mark.parametrize(("old", "expected"), [("drain", [("pair", 1, {"a": 1, "b": 3})]), ("drop", [])])
def test_rules_not_enabled_ends_a_rule_as_it_says(old: str, expected: list[Any]) -> None:
    with TestDriver(world()) as driver:
        put(driver, pair(1))
        feed(driver, "a:1@1 x@2")
        put(driver, msgspec.json.encode({"id": "pair", "version": 2, "enabled": False, "old": old}))
        feed(driver, "a:2@3 b:3@4 a:4@5 b:5@6 x@7")
        assert alerts(driver) == expected
        put(driver, pair(3))
        feed(driver, "a:6@8 b:7@9 x@10")
        assert alerts(driver) == [("pair", 3, {"a": 6, "b": 7})]


def test_rules_from_ms_is_the_point_whenever_the_rule_comes() -> None:
    records = ["a:1@1", "b:2@3", "a:3@4", "b:4@12", "a:5@13", "b:6@14", "x@15"]
    results = []
    for place in range(5):
        with TestDriver(world()) as driver:
            put(driver, pair(1))
            for number, record in enumerate(records):
                if number == place:
                    put(driver, pair(2, from_ms=12_500))
                feed(driver, record)
            results.append(alerts(driver))
    assert results == [[("pair", 1, {"a": 1, "b": 2}), ("pair", 1, {"a": 3, "b": 4}), ("pair", 2, {"a": 5, "b": 6})]] * 5


def test_rules_a_newer_version_takes_the_place_of_one_that_has_not_begun() -> None:
    with TestDriver(world()) as driver:
        put(driver, pair(1))
        put(driver, pair(2, from_ms=50_000))
        put(driver, pair(3, from_ms=20_000))
        feed(driver, "a:1@1 b:2@2 a:3@21 b:4@22 a:5@60 b:6@61 x@62")
        assert [version for _, version, _ in alerts(driver)] == [1, 3, 3]


def test_rules_put_in_the_past_of_the_watermark_begin_behind_it() -> None:
    with TestDriver(world()) as driver:
        feed(driver, "a:1@1 x@10 a:2@11 x@12")
        put(driver, pair(1, from_ms=0))
        feed(driver, "b:3@13 a:4@14 b:5@15 x@16")
        assert alerts(driver) == [("pair", 1, {"a": 4, "b": 5})]


def test_rules_put_in_the_past_of_the_watermark_let_the_version_before_them_drain() -> None:
    with TestDriver(world()) as driver:
        feed(driver, "x@10")
        put(driver, pair(1))
        feed(driver, "a:1@11 x@12")
        put(driver, pair(2, from_ms=0))
        feed(driver, "b:2@13 a:3@14 b:4@15 x@16")
        assert alerts(driver) == [("pair", 1, {"a": 1, "b": 2}), ("pair", 2, {"a": 3, "b": 4})]


def test_rules_of_one_time_come_out_by_key_then_rule() -> None:
    with TestDriver(world()) as driver:
        for name in ("z", "b", "a"):
            put(driver, rule(name, 1, stage("one", "kind = 'a'"), output={}))
        for user in ("bob", "ann"):
            feed(driver, "a@1", user)
        driver.finish()
        assert [(r.key, r.value["rule"]) for r in driver.read("alerts")] == [
            ("ann", "a"), ("ann", "b"), ("ann", "z"), ("bob", "a"), ("bob", "b"), ("bob", "z")
        ]  # fmt: skip


def test_rules_state_goes_with_the_rule_and_slots_are_used_again() -> None:
    with TestDriver(world()) as driver:
        for version in range(1, 8):
            put(driver, pair(version, old="drop"))
            feed(driver, f"a:{version}@{version * 10} x@{version * 10 + 1}")
        assert len(driver.explain("alerts", "ann")) == 1
        put(driver, None, "pair")
        driver.commit()
        names = [raw for raw, _ in driver._stores[0].scan(b"", b"\xff" * 8)]
        driver.restart()
        feed(driver, "b:1@100 x@101")
        assert alerts(driver) == [] and driver.explain("alerts", "ann") == []
        assert len(names) < 12  # positions, times, one pending record


def test_rules_drained_version_is_forgotten_with_its_last_partial_match() -> None:
    with TestDriver(world()) as driver:
        put(driver, pair(1))
        feed(driver, "a:1@1 x@2")
        put(driver, pair(2))
        assert [one.version for one in driver.explain("alerts", "ann")] == [1]
        feed(driver, "x@601 x@602")
        assert driver.explain("alerts", "ann") == []
        feed(driver, "b:1@603 x@604")
        assert alerts(driver) == []


@pytest.mark.parametrize("store", ["memory", "rocks"])
def test_rules_that_count_over_crash_and_restart(store: Any) -> None:
    with TestDriver(world(), store=store) as driver:
        put(driver, pair(1))
        feed(driver, "a:1@1 x@2")
        driver.crash()
        put(driver, pair(2, from_ms=3_000))
        driver.restart()
        feed(driver, "a:2@3")
        driver.commit()
        feed(driver, "b:3@4 x@5")
        driver.crash()
        feed(driver, "b:4@6 x@7")
        assert alerts(driver) == [("pair", 1, {"a": 1, "b": 3}), ("pair", 2, {"a": 2, "b": 3})]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"skip": cep.skip.none}, "the rules say it"),
        ({"on_too_many": "drop_newest"}, "not for rules"),
        ({"max_partials": 0}, "a positive number"),
        ({"max_records": 0}, "max_records=0"),
        ({"max_records": True}, "max_records=True"),
        ({"on_too_many": "shout"}, "is not known"),
    ],
)
def test_rules_with_what_does_not_suit_them_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        world(**options)
    assert "pipeline 'alerts', detect" in str(error.value)


def test_rules_that_are_none_and_neither_pattern_nor_rules_are_refused() -> None:
    topology = Topology("rules-app")
    events = topology.source("events", Event, key="user", time="ts")
    with pytest.raises(ConfigError, match="no topic of rules"):
        topology.pipeline(events, name="one")(lambda events: events.detect(rules="rules").to("alerts"))
    with pytest.raises(ConfigError, match="give a pattern"):
        topology.pipeline(events, name="two")(lambda events: events.detect().to("alerts"))
    with pytest.raises(ConfigError, match="partitions=0"):
        topology.rules("rules", partitions=0)


def test_rules_topic_is_made_compacted_and_the_rules_may_stand_among_the_sources() -> None:
    topology = Topology("rules-app")
    events, rules = topology.source("events", Event, key="user", time="ts"), topology.rules("rules", partitions=2)

    @topology.pipeline(events, rules)
    def work(events: Stream[str, Event], rules: Any) -> Sink:
        return events.detect(rules=rules).to("alerts")

    (spec,) = [spec for spec in topology.plan().topic_specs() if spec.name == "rules"]
    assert (spec.partitions, spec.compacted, spec.create) == (2, True, True)
    with TestDriver(topology) as driver:
        put(driver, pair(1))
        feed(driver, "a:1@1 b:2@2 x@3")
        assert alerts(driver) == [("pair", 1, {"a": 1, "b": 2})]
