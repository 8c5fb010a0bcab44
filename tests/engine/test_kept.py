"""Operators that keep whole values: what a source can read never stands in the way of a commit, and comes back as it was."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from engine import agg, cep, windows
from engine.kept import kept_codec
from engine.stream import Stream
from engine.testing.driver import TestDriver
from engine.topology import Topology
from engine.watermarks import bounded

WIDE = 123_456_789_012_345_678_901


class Reading(Struct, frozen=True):
    k: str
    x: int
    ts: int
    f: float = 0.0


def _joined(stream: Stream[Any, Any], within: Any) -> Any:
    sides = stream.branch(small=lambda value: value.x < 10, rest="large")
    return sides["large"].join(sides["small"], within=within).map(lambda pair: [pair[0].x, pair[1].x])


PATTERNS = {
    "linear": cep.begin("a").followed_by("b", where=lambda b: b.x == 2),
    "repeated": cep.begin("a").times(2),
    "partials": cep.begin("a").followed_by_any("b", where=lambda b: b.x == 2),
}
KEPT: dict[str, tuple[Callable[[Stream[Any, Any]], Any], list[Any]]] = {
    "order": (lambda stream: stream.in_event_time_order().map(lambda value: value.x), [WIDE, 2]),
    "join": (lambda stream: _joined(stream, ("-1s", "1s")), [[WIDE, 2]]),
    "window join": (lambda stream: _joined(stream, windows.tumbling("1s")), [[WIDE, 2]]),
    "ends_with": (
        lambda stream: (
            stream.window(windows.session("1s", ends_with=lambda value: value.x == 2))
            .aggregate(xs=agg.collect("x", 9))
            .map(lambda row: row["xs"])
        ),
        [[WIDE, 2]],
    ),
}


def _detected(pattern: Any) -> Callable[[Stream[Any, Any]], Any]:
    return lambda stream: stream.detect(pattern).select(lambda match: match["a"][0].x)


KEPT |= {f"detect {name}": (_detected(pattern), [WIDE]) for name, pattern in PATTERNS.items()}


@pytest.mark.parametrize("waits", [0, 1_095], ids=["held", "passed"])
@pytest.mark.parametrize("name", KEPT)
def test_a_number_beyond_64_bits_is_committed_and_comes_back(name: str, waits: int) -> None:
    make, expected = KEPT[name]
    topology = Topology("app")
    readings = topology.source("in", Reading, key="k", time="ts", watermark=bounded("1s"))
    topology.pipeline(readings, name="p")(lambda stream: make(stream).to("out"))
    with TestDriver(topology) as driver:
        driver.send("in", Reading("a", WIDE, 5))
        driver.commit()
        driver.restart()
        driver.send("in", Reading("other", 2, 5 + waits))  # lets the watermark pass the first, or not
        driver.commit()
        driver.restart()
        driver.send("in", Reading("a", 2, 200))
        driver.finish()
        results = [record.value for record in driver.read("out") if record.key == "a"]
        assert not driver.dead_letters()
    assert results == expected


@pytest.mark.parametrize("value", [{"b": WIDE, "a": [WIDE, 1.5, None]}, [WIDE], WIDE, {"a": 1}, None])
def test_undeclared_values_come_back_in_their_order(value: Any) -> None:
    codec = kept_codec(Any)
    assert json.dumps(codec.decode(codec.encode(value))) == json.dumps(value)


def test_what_fits_is_written_as_ever() -> None:
    value = (7, Reading("a", 1, 2))
    raw = msgspec.msgpack.encode(value)
    codec = kept_codec(tuple[int, Reading])
    assert (codec.encode(value), codec.decode(raw)) == (raw, value)


@pytest.mark.parametrize("name", ["order", "join", "ends_with", "detect linear"])
def test_an_object_that_cannot_be_stored_is_its_records_fault(name: str) -> None:
    def opaque(value: Reading):  # type: ignore[no-untyped-def]
        return value.k if value.x == 1 else object()

    topology = Topology("app")
    readings = topology.source("in", Reading, key="k", time="ts", watermark=bounded("1s"))
    makes: dict[str, Callable[[Stream[Any, Any]], Any]] = {
        "order": lambda stream: stream.in_event_time_order(),
        "join": lambda stream: stream.join(stream.map(lambda value: 0), within=("-1s", "1s")).map(str),
        "ends_with": lambda stream: stream.window(windows.session("1s", ends_with=bool)).aggregate(n=agg.count()),
        "detect linear": lambda stream: stream.detect(cep.begin("a").followed_by("b")).select(lambda match: 1),
    }
    topology.pipeline(readings, name="p")(lambda stream: makes[name](stream.map(opaque)).to("out"))
    with TestDriver(topology) as driver:
        driver.send("in", Reading("a", 1, 5))
        driver.send("in", Reading("a", 2, 6))
        driver.commit()
        driver.finish()
        letters = driver.dead_letters()
    assert [(letter.value, "cannot be stored" in letter.error) for letter in letters] == [(msgspec.json.encode(Reading("a", 2, 6)), True)]
