"""What users hand in is refused at declaration where it cannot work."""

import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from engine import ConfigError, Struct, agg, cep, windows
from engine.testing.driver import TestDriver
from engine.topology import Topology


class Visit(Struct, frozen=True):
    """A value."""

    user: str
    seconds: int
    ts: int


async def waits(value: Any) -> bool:
    """Return a coroutine."""
    return bool(value)


async def streams(value: Any) -> AsyncIterator[Any]:
    """Return an async generator."""
    yield value


class Waits:
    """What is called waits."""

    async def __call__(self, value: Any) -> bool:
        """Return a coroutine."""
        return bool(value)


class WaitsInside:
    """A handler that waits."""

    async def on_record(self, record: Any, ctx: Any) -> None:
        """Return a coroutine."""


USES: dict[str, Callable[[Any, Any], Any]] = {
    "filter": lambda stream, function: stream.filter(function),
    "map": lambda stream, function: stream.map(function),
    "flat_map": lambda stream, function: stream.flat_map(function),
    "key_by": lambda stream, function: stream.key_by(function),
    "branch": lambda stream, function: stream.branch(some=function)["some"],
    "sum": lambda stream, function: stream.aggregate(n=agg.sum(function)),
    "top": lambda stream, function: stream.aggregate(n=agg.top("user", 2, by=function)),
    "gap": lambda stream, function: stream.window(windows.session(function)).aggregate(n=agg.count()),
    "ends_with": lambda stream, function: stream.window(windows.session("1m", ends_with=function)).aggregate(n=agg.count()),
    "where": lambda stream, function: stream.detect(cep.begin("a", where=function).next("b")),
    "until": lambda stream, function: stream.detect(cep.begin("a").one_or_more().until(function).next("b")),
}


@pytest.mark.parametrize("function", [waits, streams, Waits(), partial(waits)], ids=["function", "generator", "object", "partial"])
@pytest.mark.parametrize("use", USES)
def test_async_function_is_refused_where_it_is_declared(use: str, function: Any) -> None:
    topology = Topology("visits")
    source = topology.source("visits", Visit, key="user", time="ts")
    with pytest.raises(ConfigError, match=r"pipeline 'p'.* is an async function, and a pipeline does not wait"):
        topology.pipeline(source, name="p")(lambda stream: USES[use](stream, function).to("out"))


def test_async_handler_is_refused_where_it_is_declared() -> None:
    topology = Topology("visits")
    source = topology.source("visits", Visit, key="user", time="ts")
    with pytest.raises(ConfigError, match=r"WaitsInside.on_record: 'on_record' is an async function"):
        topology.pipeline(source, name="p")(lambda stream: stream.process(WaitsInside).to("out"))


@pytest.mark.parametrize("topic", ["a b", "a/b", "größe", ".", "..", "x" * 250, "", 5, None])
def test_topic_that_kafka_does_not_take_is_refused_where_it_is_declared(topic: Any) -> None:
    topology = Topology("visits")
    with pytest.raises(ConfigError, match="topic"):
        topology.source(topic, Visit)
    source = topology.source("visits", Visit, key="user", time="ts")
    with pytest.raises(ConfigError, match="topic"):
        topology.pipeline(source, name="p")(lambda stream: stream.to(topic))
    if topic is not None:
        with pytest.raises(ConfigError, match="topic"):
            topology.pipeline(source, name="q")(
                lambda stream: stream.window(windows.tumbling("1m"), late_to=topic).aggregate(n=agg.count()).to("out")
            )


def test_topic_of_the_app_itself_must_be_one_that_kafka_takes() -> None:
    topology = Topology("my visits")
    source = topology.source("visits", Visit, key="user", time="ts")
    topology.pipeline(source, name="p")(lambda stream: stream.aggregate(n=agg.count()).to("out"))
    with pytest.raises(ConfigError, match="app 'my visits': its own topic: 'my visits-changelog-1' cannot be the name of a topic"):
        topology.plan()


class Sometimes(Struct, frozen=True):
    """A value that may come without its time."""

    user: str
    ts: int | None = None


def test_time_that_may_be_missing_is_a_dead_letter_where_it_is() -> None:
    topology = Topology("visits", partitions=1)
    source = topology.source("visits", Sometimes, key="user", time="ts")
    topology.pipeline(source, name="p")(lambda stream: stream.to("out"))
    with TestDriver(topology) as driver:
        for ts in (5, None, 0):
            driver.send("visits", b'{"user": "ann", "ts": %s}' % json.dumps(ts).encode())
        assert [record.timestamp_ms for record in driver.read("out")] == [5, 0]
        (letter,) = driver.read("visits-dlq")
    assert b"the event time must be a whole number of milliseconds, not None" in dict(letter.headers)["error"]
