"""A trace goes along with a record through what makes one of one; where many become one, see operators/test_traced.py."""

from typing import Any

import pytest

from engine import Sink, Stream, agg, windows
from engine.testing.driver import TestDriver
from engine.topology import Topology
from tests.engine.shop_records import Order, order

TRACE = (("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), ("tracestate", b"vendor=1"))
OTHER = (("content-type", b"application/json"),)


def work_on(*, repartition: bool) -> Any:
    """Return a pipeline with a path of one for one, and one of a window."""
    topology = Topology("app", partitions=2)
    orders = topology.source("orders", Order, key="user_id", time="ts")

    @topology.pipeline(orders)
    def work(orders: Stream[str, Order]) -> list[Sink]:
        keyed = orders.key_by("currency") if repartition else orders
        copies = keyed.filter(lambda order: order.amount_cents > 0).flat_map(lambda order: [{"n": 1}, {"n": 2}])
        return [copies.to("copies"), keyed.window(windows.tumbling("1m")).aggregate(n=agg.count()).to("counts")]

    return work


@pytest.mark.parametrize("repartition", [False, True])
@pytest.mark.parametrize("ts", [1_000, -1_000])
def test_trace_headers_go_where_one_record_goes(repartition: bool, ts: int) -> None:
    with TestDriver(work_on(repartition=repartition)) as driver:
        driver.send("orders", order(1, ts=ts), headers=(*OTHER, *TRACE))
        driver.send("orders", order(2, ts=ts, amount=0), headers=TRACE)
        driver.send("orders", order(3, ts=ts))
        driver.finish()
        copies, counts = ([(record.value["n"], tuple(record.headers)) for record in driver.read(topic)] for topic in ("copies", "counts"))
    assert copies == [(1, TRACE), (2, TRACE), (1, ()), (2, ())]
    assert counts == [(3, TRACE)]
