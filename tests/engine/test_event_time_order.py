"""`in_event_time_order` over partitions, against sorting: random records, cut and restarted anywhere; what is late is only counted."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from engine.testing.driver import TestDriver
from engine.topology import Topology
from engine.watermarks import bounded
from state.hashing import partition_of
from tests.effort import examples

PARTITIONS, BOUND_MS = 2, 10


class Reading(Struct, frozen=True):
    """A record with a number of its own."""

    key: str
    number: int
    ts: int


STEPS = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.integers(0, 2 * BOUND_MS),  # how far behind the newest of its partition: beyond the bound it is late
        st.sampled_from([0, 0, 1, 5, 30]),
        st.sampled_from(["", "", "commit", "crash", "restart"]),
    ),
    max_size=30,
)


@settings(max_examples=examples(60), deadline=None)
@given(STEPS)
def test_order_over_partitions_is_that_of_sorting_what_is_not_late(steps: list[Any]) -> None:
    topology = Topology("app", partitions=PARTITIONS)
    readings = topology.source("readings", Reading, key="key", time="ts", watermark=bounded(f"{BOUND_MS}ms"))
    topology.pipeline(readings, name="work")(lambda stream: stream.in_event_time_order().to("out"))
    reached = [1_000] * PARTITIONS
    highest: list[int | None] = [None] * PARTITIONS
    in_time: list[list[tuple[int, int, str]]] = [[] for _ in range(PARTITIONS)]
    late = 0
    with TestDriver(topology, partitions=PARTITIONS) as driver:
        for number, (key, behind, on, then) in enumerate(steps):
            partition = partition_of(key.encode(), PARTITIONS)
            reached[partition] += on
            ts = reached[partition] - behind
            newest = highest[partition]
            if newest is not None and ts <= newest - BOUND_MS - 1:
                late += 1
            else:
                in_time[partition].append((ts, number, key))
            highest[partition] = ts if newest is None else max(newest, ts)
            driver.send("readings", Reading(key, number, ts))
            if then:
                getattr(driver, then)()
        driver.finish()
        found: list[list[tuple[int, int, str]]] = [[] for _ in range(PARTITIONS)]
        for record in driver.read("out"):
            found[record.partition].append((record.timestamp_ms, record.value["number"], record.key))
        restarted = any(then in ("crash", "restart") for *_, then in steps)
        counted = driver.counters().get(("work", "in_event_time_order", "late_records"), 0)
    assert found == [sorted(records) for records in in_time]
    assert restarted or counted == late
