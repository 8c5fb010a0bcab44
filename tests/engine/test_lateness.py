"""What is late is the same in every operator: a record whose last moment of use the watermark has reached, not one moment before.

    watermark w       no record at or below w is still to come
    late              last + lateness <= w, where `last` is the last time that counts for the record: its own, or the end - 1 of the
                      last window that holds it

So at the same distance a record exactly at the boundary is late everywhere, and the one a millisecond above it nowhere. The distances
are written out by hand, from each operator's windows.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec import Struct

from engine import agg, cep, triggers, windows
from engine.operators.process import Context, Timer
from engine.records import Record
from engine.state_handles import MapState, ValueState
from engine.testing.driver import TestDriver
from engine.topology import Topology
from engine.watermarks import bounded

TS = 1_009
"""Event time of the record that is looked at: the last moment of the tumbling window [1000, 1010)."""


class Seen(Struct, frozen=True):
    """A record."""

    user: str
    ts: int


def topology_of(declare: Callable[[Any, Any], Any]) -> Topology:
    """Return a topology of two sources whose watermark is the highest time less one."""
    topology = Topology("shop", partitions=1)
    sources = [topology.source(name, Seen, key="user", time="ts", watermark=bounded("0ms")) for name in ("views", "buys")]
    topology.pipeline(*sources, name="work")(lambda views, buys: declare(views, buys).to("out"))
    return topology


def reach(driver: TestDriver, watermark: int) -> None:
    """Bring both sources to a watermark, by records of another key."""
    for topic in ("views", "buys"):
        driver.send(topic, Seen("clock", watermark + 1))
    driver.commit()


def count(window: Any, **options: Any) -> Callable[[Any, Any], Any]:
    return lambda views, buys: views.window(window, **options).aggregate(n=agg.count())


def is_end(seen: Seen) -> bool:
    return seen.user == "nobody"


TUMBLING, HOPPING = windows.tumbling("10ms"), windows.hopping("10ms", every="4ms")

SQL = cep.match_recognize(
    "MATCH_RECOGNIZE (PARTITION BY user ORDER BY ts MEASURES A.ts AS one AFTER MATCH SKIP PAST LAST ROW PATTERN (A B) "
    "DEFINE A AS A.ts > 0, B AS B.ts > 0)"
)

DISTANCES: list[tuple[str, Callable[[Any, Any], Any], int]] = [
    # How far behind the record's time its last moment lies.
    ("tumbling", count(TUMBLING), 0),
    ("tumbling with a lateness", count(TUMBLING, lateness="7ms"), 7),
    ("tumbling, early results", count(TUMBLING, lateness="7ms", trigger=triggers.every(records=5)), 7),
    ("tumbling, again when late", count(TUMBLING, lateness="7ms", trigger=triggers.on_late()), 7),
    ("tumbling, the latest", lambda v, b: v.window(TUMBLING, lateness="7ms").aggregate(emit="update", n=agg.count()), 7),
    ("tumbling, behind a repartition", lambda v, b: v.key_by("user").window(TUMBLING).aggregate(n=agg.count()), 0),
    ("tumbling, by hand", lambda v, b: v.window(TUMBLING).aggregate(n=agg.reduce(lambda total, seen: total + 1, 0)), 0),
    # The last one that holds 1009 is [1008, 1018): its last moment is 8 behind.
    ("hopping", count(HOPPING), 8),
    ("hopping with a lateness", count(HOPPING, lateness="3ms"), 11),
    # A sliding window that ends with the record is the first of ten.
    ("sliding", count(windows.sliding("10ms")), 9),
    ("sliding with a lateness", count(windows.sliding("10ms"), lateness="3ms"), 12),
    ("session", count(windows.session("10ms")), 9),
    ("session with a lateness", count(windows.session("10ms"), lateness="3ms"), 12),
    ("session, again when late", count(windows.session("10ms"), lateness="3ms", trigger=triggers.on_late()), 12),
    # These work in order of event time: a record counts up to its own time.
    ("session with an end", count(windows.session("10ms", ends_with=is_end)), 0),
    ("in_event_time_order", lambda v, b: v.in_event_time_order(), 0),
    ("detect", lambda v, b: v.detect(cep.begin("one").followed_by("two").within("1m")), 0),
    ("detect, in SQL", lambda v, b: v.detect(SQL), 0),
    # What a record of these could be joined with has gone by its own time and the width, so that it counts up to its own.
    ("interval join", lambda v, b: v.join(b, within=("-5ms", "5ms")), 0),
    ("interval join, outer", lambda v, b: v.join(b, within=("0ms", "5ms"), how="outer"), 0),
    ("interval join, right", lambda v, b: b.join(v, within=("-3ms", "-1ms"), how="right"), 0),
    ("window join", lambda v, b: v.join(b, within=TUMBLING), 0),
    ("window join with a lateness", lambda v, b: v.join(b, within=HOPPING, lateness="3ms", how="left"), 11),
]


@pytest.mark.parametrize(("declare", "distance"), [case[1:] for case in DISTANCES], ids=[case[0] for case in DISTANCES])
def test_record_is_late_from_its_last_moment_on(declare: Callable[[Any, Any], Any], distance: int) -> None:
    for watermark, late in [(TS + distance - 1, 0), (TS + distance, 1)]:
        with TestDriver(topology_of(declare)) as driver:
            reach(driver, watermark)
            driver.send("views", Seen("ann", TS))
            driver.commit()
            found = sum(number for (_, _, name), number in driver.counters().items() if name == "late_records")
            assert found == late, f"at a watermark of {watermark}"
            assert not driver.read("shop-dlq")


# -- those that count no late records: what they do at the watermark is done when it is at the time, and not before


class Reminder:
    """Sets a timer for the time of each record of ann."""

    def on_record(self, record: Record[str, Seen], ctx: Context) -> None:
        if ctx.key == "ann":
            ctx.timers.event_time(record.timestamp_ms)

    def on_timer(self, timer: Timer, ctx: Context) -> Iterator[int]:
        yield ctx.watermark_ms


def test_timer_fires_when_the_watermark_is_at_its_time_and_not_before() -> None:
    for watermark, fired in [(TS - 1, []), (TS, [TS])]:
        with TestDriver(topology_of(lambda v, b: v.process(Reminder))) as driver:
            driver.send("views", Seen("ann", TS))
            reach(driver, watermark)
            assert [record.value for record in driver.read("out")] == fired
    for watermark, fired in [(TS - 1, []), (TS, [TS])]:  # set when the watermark is there already
        with TestDriver(topology_of(lambda v, b: v.process(Reminder))) as driver:
            reach(driver, watermark)
            driver.send("views", Seen("ann", TS))
            assert [record.value for record in driver.read("out")] == fired


def test_as_of_waits_for_a_record_that_is_not_late_and_for_no_other() -> None:
    """A change of the table at the record's own time may be under way until the watermark is there."""
    for watermark, known in [(TS - 1, []), (TS, [True])]:
        topology = topology_of(lambda v, b: v.as_of(b.table("bought", versions="1d")).map(lambda pair: pair[1] is not None))
        with TestDriver(topology) as driver:
            driver.send("buys", Seen("ann", TS - 1))
            reach(driver, watermark)
            driver.read("out")
            driver.send("views", Seen("ann", TS))
            assert [record.value for record in driver.read("out") if record.key == "ann"] == known


class Remembers:
    """Tells whether a value of 10 ms is there."""

    last = ValueState(int, ttl="10ms")
    each = MapState(int, bool, ttl="10ms")

    def on_record(self, record: Record[str, Seen], ctx: Context) -> Iterator[tuple[bool, bool]]:
        if ctx.key == "ann":
            yield self.last.get() is not None, 1 in self.each
            self.last.set(1)
            self.each[1] = True


def test_ttl_ends_when_the_watermark_is_at_it_and_not_before() -> None:
    for watermark, there in [(TS + 9, True), (TS + 10, False)]:
        with TestDriver(topology_of(lambda v, b: v.process(Remembers))) as driver:
            driver.send("views", Seen("ann", TS))
            reach(driver, watermark)
            driver.read("out")
            driver.send("views", Seen("ann", watermark + 1))
            assert [tuple(record.value) for record in driver.read("out")] == [(there, there)]
