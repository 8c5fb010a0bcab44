"""Users and orders that the tests of tables share, and ways to feed them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import Struct

from engine.records import TopicPartition
from engine.testing.driver import TestDriver
from engine.topology import Topology
from engine.watermarks import bounded


class User(Struct, frozen=True):
    """A row of the table."""

    user_id: str
    city: str | None
    score: int
    ts: int


class Purchase(Struct, frozen=True):
    """A record that looks into it, and a row whose `user_id` is a foreign key."""

    order_id: str
    user_id: str | None
    ts: int


FAILURES = st.sampled_from(["", "", "", "restart", "crash"])
USERS = st.tuples(
    st.just("users"), st.sampled_from("abc"), st.sampled_from(["rome", "oslo", "bonn", None]), st.integers(-3, 3), st.booleans()
)
ORDERS = st.tuples(st.just("orders"), st.sampled_from("uvwxyz"), st.sampled_from(["a", "b", "c", None]), st.just(0), st.booleans())


def world(declare: Callable[[Any, Any], Any], *, delay: str = "1h", versions: str | None = None) -> Topology:
    """Return a topology whose one pipeline gets the table of users and the stream of orders, and gives sinks."""
    topology = Topology("shop")
    users = topology.table("users", User, key="user_id", time="ts", watermark=bounded(delay), versions=versions)
    orders = topology.source("orders", Purchase, key="order_id", time="ts", watermark=bounded(delay))
    topology.pipeline(users, orders, name="work")(declare)
    return topology


def set_user(driver: TestDriver, user_id: str, city: str | None, score: int = 0, ts: int = 0, *, deleted: bool = False) -> None:
    """Write a row of users, or a tombstone."""
    driver.send("users", None if deleted else User(user_id, city, score, ts), key=user_id, at=ts)


def latest(driver: TestDriver, topic: str) -> dict[Any, Any]:
    """Return what a compacted topic holds in the end."""
    rows = {record.key: record.value for record in driver.read(topic)}
    return {key: value for key, value in rows.items() if value is not None}


def check_chain(driver: TestDriver, topic: str, start: Mapping[Any, Any] | None = None) -> dict[Any, Any]:
    """Check that each change goes on from where the one before ended, the first from `start`; return the rows that are left."""
    rows: dict[Any, Any] = dict(start or {})
    for record in driver.read(topic):
        old, new = record.value
        assert rows.get(record.key) == old, f"{record.key}: {old} was never given out"
        rows[record.key] = new
    return {key: value for key, value in rows.items() if value is not None}


def feed_in_cuts(driver: TestDriver, records: Iterable[tuple[str, bytes, Any]], size: int) -> None:
    """Feed (topic, key, value) to partition 0 in batches of up to `size` consecutive records of one topic."""
    run: list[tuple[str, bytes, Any]] = []
    for record in [*records, None]:
        if run and (record is None or record[0] != run[0][0] or len(run) == size):
            _deliver(driver, run)
            run = []
        if record is not None:
            run.append(record)


def _deliver(driver: TestDriver, run: Sequence[tuple[str, bytes, Any]]) -> None:
    partition = TopicPartition(run[0][0], 0)
    log = driver._log(partition)
    start = len(log)
    log.extend((0, key, None if value is None else msgspec.json.encode(value), ()) for _, key, value in run)
    driver._deliver(partition)
    assert isinstance(driver._tasks[0].positions[partition], int) and len(log) == start + len(run)


__all__ = ["Purchase", "User", "check_chain", "feed_in_cuts", "latest", "set_user", "world"]
