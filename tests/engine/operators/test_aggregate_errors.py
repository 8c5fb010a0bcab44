"""A running total that cannot be told when the commit comes: one dead letter for its key, and the others come out.

Results leave with the commit, so no record is being worked on that could be the bad one: what raised then would raise at each try to
commit, also after a restart, and the task would stand still for good.
"""

from typing import Any

import pytest
from msgspec import Struct

from engine import agg
from engine.agg import Aggregate
from engine.records import Record
from engine.testing.driver import TestDriver
from engine.topology import Topology


class Paid(Struct, frozen=True):
    """A record."""

    user: str
    cents: int
    note: str
    ts: int


HUGE = 10**400  # its mean is no float


def refuse_bad(row: dict[str, Any]) -> dict[str, Any]:
    if row["key"] == "bad":
        raise ValueError("a bad one")
    return row


def topology_of(total: Aggregate, told: Any) -> Topology:
    topology = Topology("shop", partitions=1)
    paid = topology.source("paid", Paid, key="user", time="ts")

    @topology.pipeline(paid)
    def work(paid: Any) -> Any:
        return paid.aggregate(n=agg.count(), total=total).map(told).to("out")

    return topology


def same(row: dict[str, Any]) -> dict[str, Any]:
    return row


def told_of(records: list[Record[Any, Any]]) -> list[tuple[Any, int, int]]:
    return [(record.key, record.value["n"], record.timestamp_ms) for record in records]


@pytest.mark.parametrize(
    ("total", "told", "bad", "error"),
    [
        (agg.sum("cents"), refuse_bad, Paid("bad", 1, "", 20), "ValueError: a bad one"),
        (agg.mean("cents"), same, Paid("bad", HUGE, "", 20), "OverflowError: "),
        (agg.collect("note", 9), same, Paid("bad", 1, "x" * 1_048_588, 20), "RecordError: a record of 1,048,"),
    ],
    ids=["behind it", "its own row", "larger than the topic takes"],
)
@pytest.mark.parametrize("crash", [False, True])
def test_total_that_cannot_be_told_is_a_dead_letter_of_its_key(total: Aggregate, told: Any, bad: Paid, error: str, crash: bool) -> None:
    with TestDriver(topology_of(total, told)) as driver:
        for record in (Paid("ann", 1, "", 10), bad, Paid("bob", 1, "", 30)):
            driver.send("paid", record)
        if crash:
            driver.crash()
        driver.commit()
        assert told_of(driver.read("out")) == [("ann", 1, 10), ("bob", 1, 30)]
        (letter,) = driver.read("shop-dlq")
        headers = dict(letter.headers)
        assert (letter.key, letter.value, letter.timestamp_ms) == ("bad", None, 20)
        assert (headers["timer"], headers["timer_ms"], headers["operator"]) == (b"aggregate", b"20", b"aggregate")
        assert headers["error"].startswith(error.encode())
        driver.send("paid", Paid("ann", 1, "", 40))
        driver.commit()
        assert told_of(driver.read("out")) == [("ann", 2, 40)]
        assert driver.read("shop-dlq") == [], "the bad total has not changed since: it is told once"
        assert driver.counters()["work", "aggregate", "dead_letters"] == 1


def test_totals_told_one_by_one_have_the_order_and_the_time_of_those_told_together() -> None:
    both = []
    for told in (same, refuse_bad):
        with TestDriver(topology_of(agg.sum("cents"), told)) as driver:
            for user in ("bob", "ann", "cid", "bad"):
                driver.send("paid", Paid(user, 1, "", 10))
            driver.commit()
            both.append(told_of(driver.read("out")))
    together, singly = both
    assert singly == [row for row in together if row[0] != "bad"]
    assert [row[0] for row in together] == ["ann", "bad", "bob", "cid"]
