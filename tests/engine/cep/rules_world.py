"""A small world for tests of live rules: payments of users, rules on a topic, alerts."""

from collections.abc import Iterable
from typing import Any

import msgspec

from engine import Sink, Stream, Struct
from engine.testing.driver import TestDriver
from engine.topology import Topology


class Event(Struct, frozen=True):
    """Something that a user did."""

    user: str
    kind: str
    cents: int
    ts: int
    note: str | None = None


def world(records: type[Struct] = Event, **options: Any) -> Topology:
    """Return an app whose rules come in live."""
    topology = Topology("rules-app")
    events = topology.source("events", records, key="user", time="ts")
    rules = topology.rules("rules")

    @topology.pipeline(events)
    def alerts(events: Stream[str, Any]) -> Sink:
        return events.detect(rules=rules, **options).to("alerts")

    return topology


def stage(name: str, where: str | None = None, **other: Any) -> dict[str, Any]:
    """Return a stage in JSON."""
    return {"stage": name, **({} if where is None else {"where": where}), **other}


def rule(name: str, version: int, *stages: dict[str, Any], within: str | None = None, **other: Any) -> bytes:
    """Return a rule with a pattern in JSON."""
    pattern = {"stages": list(stages)} | ({} if within is None else {"within": within})
    return msgspec.json.encode({"id": name, "version": version, "pattern": pattern, **other})


def put(driver: Any, raw: bytes | None, name: str | None = None) -> None:
    """Send a rule, None to remove it."""
    driver.send("rules", raw, key=name or msgspec.json.decode(raw or b"{}")["id"])


def feed(driver: Any, text: str, user: str = "ann") -> None:
    """Send records, written as kind:cents@second."""
    for record in text.split():
        name, _, second = record.partition("@")
        kind, _, cents = name.partition(":")
        driver.send("events", Event(user, kind, int(cents or 0), int(second) * 1_000))


def found(records: Iterable[Any]) -> list[tuple[str, int, Any]]:
    """Return (rule, version, fields) of alerts."""
    return [(record.value["rule"], record.value["version"], record.value["fields"]) for record in records]


PAIR = (stage("a", "kind = 'a'"), stage("b", "kind = 'b'"))
OUT = {"a": "a.cents", "b": "b.cents"}


def pair(version: int, **other: Any) -> bytes:
    """Return a rule that finds an "a" and the next "b" within ten minutes."""
    return rule("pair", version, *PAIR, within="10m", output=OUT, **other)


def alerts(driver: TestDriver) -> list[tuple[str, int, Any]]:
    """Return the alerts since the last look."""
    return found(driver.read("alerts"))


def counted(driver: TestDriver, counter: str) -> int:
    """Return what a counter says, over all operators."""
    return sum(count for (_, _, name), count in driver.counters().items() if name == counter)


def errors(driver: TestDriver) -> list[str]:
    """Return the reasons of the dead letters since the last look."""
    return [dict(letter.headers)["error"].decode() for letter in driver.read("rules-app-dlq")]
