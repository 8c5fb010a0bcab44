"""The jobs of the bench as pipelines."""

from collections.abc import Callable
from typing import Any

from engine import Sink, Stream, Struct, agg, bounded, cep, windows
from engine.topology import Topology
from tests.bench.workload import PARTITIONS

RESULTS = "results"


class Order(Struct):
    """What the jobs need of an order; the other fields are skipped."""

    user_id: str
    amount_cents: int
    ts: int


class OrderFrom(Struct):
    """The same with the country, which only one job asks for."""

    user_id: str
    amount_cents: int
    country: str
    ts: int


def minute_totals(orders: Stream[str, Order], results: str) -> Sink:
    """A0: sum and count of each user and minute."""
    return orders.window(windows.tumbling("1m")).aggregate(sum=agg.sum("amount_cents"), count=agg.count()).to(results)


def country_totals(orders: Stream[str, OrderFrom], results: str) -> Sink:
    """A: the same of each country, through a repartition topic."""
    by_country = orders.key_by("country").window(windows.tumbling("1m"))
    return by_country.aggregate(sum=agg.sum("amount_cents"), count=agg.count()).to(results)


def session_totals(orders: Stream[str, Order], results: str) -> Sink:
    """B: sum and count of each session."""
    return orders.window(windows.session("1m")).aggregate(sum=agg.sum("amount_cents"), count=agg.count()).to(results)


def three_orders(orders: Stream[str, Order], results: str) -> Sink:
    """C: three orders within five minutes."""
    pattern = cep.begin("order", of=Order).times(3).within("5m")
    matches = orders.detect(pattern, skip=cep.skip.past_last)
    return matches.select(lambda match: {"key": match.key, "times": [order.ts for order in match["order"]]}).to(results)


def running_totals(orders: Stream[str, Order], results: str) -> Sink:
    """Latency: one result for each order, with the order's own time."""
    return orders.aggregate(total=agg.sum("amount_cents"), ts=agg.last("ts"), emit="record").to(results)


JOBS: dict[str, Callable[[Stream[str, Any], str], Sink]] = {
    "A0": minute_totals,
    "A": country_totals,
    "B": session_totals,
    "C": three_orders,
    "latency": running_totals,
}


def order_type(job: str) -> type[Struct]:
    """Return what a job reads an order as."""
    return OrderFrom if job == "A" else Order


def topology(job: str) -> Topology:
    """Return an app with one pipeline, without a shell."""
    app = Topology("bench", partitions=PARTITIONS, max_ahead_ms=None)
    source = app.source("orders", order_type(job), key="user_id", time="ts", watermark=bounded("30s"))

    @app.pipeline(source)
    def measured(orders: Stream[str, Any]) -> Sink:
        """One of the jobs."""
        return JOBS[job](orders, RESULTS)

    return app
