"""Live rules that cannot run, no longer fit, or raise: what goes to the dead letters, and that the other rules go on."""

from typing import Any

import pytest

from engine import Struct
from engine.operators import rule_states
from engine.testing.driver import TestDriver
from engine.topology import Topology
from tests.engine.cep.rules_world import Event, alerts, counted, errors, feed, pair, put, rule, stage, world


class Renamed(Struct, frozen=True):
    """The records of the next version of the program."""

    user: str
    kind: str
    cents: int
    ts: int
    remark: str | None = None


def test_rules_one_that_raises_spoils_only_its_own_firing() -> None:
    with TestDriver(world()) as driver:
        put(driver, rule("bad", 1, stage("a", "LENGTH(note) / (cents - 1) > CAST(UPPER(kind) AS INTEGER)")))
        put(driver, pair(1))
        driver.send("events", Event("ann", "a", 5, 1_000, note="text"))
        feed(driver, "b:2@2 x@3")
        assert alerts(driver) == [("pair", 1, {"a": 5, "b": 2})]
        (letter,) = driver.read("rules-app-dlq")
        headers = dict(letter.headers)
        assert (letter.key, headers["timer"], headers["timer_ms"]) == ("ann", b"rule bad version 1", b"1000")


@pytest.mark.parametrize(
    ("stages", "output", "message"),
    [
        ([stage("first", "CAST(kind AS INTEGER) > 1")], None, "where of stage 'first' (CAST(kind AS INTEGER) > 1): invalid literal"),
        ([stage("first"), stage("second", "CAST(second.kind AS INT) > first.cents")], None, "where of stage 'second' (CAST(second.kind AS"),
        (
            [stage("first"), stage("second", times=[1, None], until="CAST(kind AS INT) > 1"), stage("third")],
            None,
            "until of stage 'second'",
        ),
        ([stage("first")], {"number": "CAST(first.kind AS INT)"}, "output 'number' (CAST(first.kind AS INT)): invalid literal"),
        ([stage("first")], {"sum": "SUM(CAST(first.kind AS INT))"}, "output 'sum' (SUM(CAST(first.kind AS INT))): an aggregate"),
    ],
)
@pytest.mark.parametrize("shared", [False, True])
def test_rules_a_dead_letter_names_the_stage_and_the_condition(stages: list[Any], output: Any, message: str, shared: bool) -> None:
    with TestDriver(world()) as driver:
        put(driver, rule("bad", 1, *stages, **({} if output is None else {"output": output})))
        if shared:
            put(driver, rule("same", 1, *stages, **({} if output is None else {"output": output})))
        feed(driver, "a:1@1 b:2@2")
        driver.finish()
        reasons = errors(driver)
    assert reasons
    assert all(message in reason for reason in reasons)


def test_rules_that_no_longer_fit_the_program_find_nothing_are_counted_and_wait_for_a_version_that_does() -> None:
    with TestDriver(world()) as driver:
        put(driver, pair(1))
        put(driver, rule("noted", 1, stage("a", "note = 'x'"), output={"c": "a.cents"}))
        feed(driver, "a:1@1 x@2")
        driver.restart(world(Renamed))  # as after a deployment: the records have no `note` any more
        feed(driver, "b:2@3 x@4")
        assert alerts(driver) == [("pair", 1, {"a": 1, "b": 2})]
        assert counted(driver, "rules_that_do_not_fit") == 1
        put(driver, rule("noted", 2, stage("a", "remark = 'x'"), output={"c": "a.cents"}))
        driver.send("events", Renamed("ann", "a", 7, 5_000, remark="x"))
        feed(driver, "x@6")
        assert alerts(driver) == [("noted", 2, {"c": 7})]
        assert errors(driver) == []


def test_rules_one_that_raises_is_a_dead_letter_each_time_and_takes_no_result_from_others() -> None:
    """Careful mode with a rule that raises for one record in a hundred: the same alerts as without that rule."""
    text = " ".join(f"{'ab'[number % 2]}:{number}@{number}" for number in range(1, 400))
    outputs = []
    for trouble in (False, True):
        with TestDriver(world()) as driver:
            put(driver, pair(1))
            if trouble:
                put(driver, rule("bad", 1, stage("a", "cents % 100 = 0 AND cents > CAST(kind AS INTEGER)")))
            feed(driver, text)
            driver.finish()
            outputs.append(alerts(driver))
            letters = [dict(letter.headers) for letter in driver.read("rules-app-dlq")]
            assert [letter["timer"] for letter in letters] == [b"rule bad version 1"] * (3 if trouble else 0)
            assert all(b"invalid literal" in letter["error"] for letter in letters)
    assert outputs[0] == outputs[1] and len(outputs[0]) > 150


@pytest.mark.parametrize("stop", [lambda driver: None, TestDriver.restart, TestDriver.crash])
def test_rules_one_that_raises_again_and_again_is_stopped_until_a_new_version_comes(stop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_states, "FAILURES_MAX", 5)
    text = " ".join(f"{'ab'[number % 2]}:{number}@{number}" for number in range(1, 41))
    with TestDriver(world()) as driver:
        put(driver, pair(1))
        put(driver, rule("bad", 1, stage("a", "cents > 10 AND cents > CAST(kind AS INTEGER)"), stage("b"), output={"c": "a.cents"}))
        feed(driver, text)
        driver.commit()
        stop(driver)
        feed(driver, "x@41 x@42")
        found = alerts(driver)
        assert {name for name, *_ in found} == {"pair"} and len(found) > 15
        letters = [dict(letter.headers) for letter in driver.read("rules-app-dlq")]
        assert [int(letter["timer_ms"]) for letter in letters] == [11_000, 12_000, 13_000, 14_000, 15_000, 15_000]
        assert b"is stopped in this task" in letters[-1]["error"]
        put(driver, rule("bad", 2, stage("a", "cents > 40"), output={"c": "a.cents"}))
        feed(driver, "a:41@43 x@44")
        assert ("bad", 2, {"c": 41}) in alerts(driver)
        assert driver.read("rules-app-dlq") == []


def test_rules_one_that_raises_now_and_then_is_not_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_states, "FAILURES_MAX", 3)
    with TestDriver(world()) as driver:
        put(driver, rule("bad", 1, stage("a", "cents > CAST(kind AS INTEGER)")))
        feed(driver, " ".join(f"a@{number * 1_801}" for number in range(1, 9)))
        driver.finish()
        assert len(driver.read("rules-app-dlq")) == 8


def test_rules_bad_one_is_one_dead_letter_and_the_old_one_stays() -> None:
    with TestDriver(world(), partitions=3) as driver:
        put(driver, pair(1))
        put(driver, rule("pair", 2, stage("a", "nope = 1")))
        put(driver, b'{"id": "pair", "version": 2', "pair")
        put(driver, pair(1, old="drop"))
        driver.send("rules", pair(2), key="other")
        put(driver, pair(1))  # the same again is no change
        reasons = errors(driver)
        assert len(reasons) == 4
        for words in ("no field 'nope'", "truncated", "stands with version 1", "key is 'other' and its rule's id 'pair'"):
            assert any(words in reason for reason in reasons)
        feed(driver, "a:1@1 b:2@2 x@3")
        assert alerts(driver) == [("pair", 1, {"a": 1, "b": 2})]


def test_rules_with_on_error_fail_a_bad_one_stops() -> None:
    topology = Topology("rules-app", on_error="fail")
    events, rules = topology.source("events", Event, key="user", time="ts"), topology.rules("rules")
    topology.pipeline(events, name="alerts")(lambda events: events.detect(rules=rules).to("alerts"))
    with TestDriver(topology) as driver, pytest.raises(Exception, match="no field 'nope'"):
        put(driver, rule("pair", 2, stage("a", "nope = 1")))
