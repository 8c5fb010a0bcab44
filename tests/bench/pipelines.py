"""The process that is measured: `python -m tests.bench.pipelines`, told what to do by `BENCH_*` variables (see `measured.py`)."""

import os
import sys
import time

from engine import App, Sink, Stream, Struct, agg, bounded, cep, windows
from tests.bench.measured import note

JOB, TOPIC, RESULTS = os.environ["BENCH_JOB"], os.environ["BENCH_TOPIC"], os.environ["BENCH_RESULTS"]


class Order(Struct):
    """What the jobs need of an order; the other fields are skipped."""

    user_id: str
    amount_cents: int
    ts: int


app = App(
    os.environ["BENCH_APP"],
    broker=f"kafka://{os.environ['BENCH_BROKER']}",
    state_dir=os.environ["BENCH_STATE"],
    partitions=int(os.environ["BENCH_PARTITIONS"]),
    commit_interval=os.environ["BENCH_COMMIT"],
)
source = app.source(TOPIC, Order, key="user_id", time="ts", watermark=bounded("30s"))
_begun = False


def note_first(order: Order) -> bool:
    """Say once when the first order is processed. A call for each order: part of what is measured."""
    global _begun
    if not _begun:
        _begun = True
        note(first=time.time())
    return True


def minute_totals(orders: Stream[str, Order]) -> Sink:
    """A0: sum and count of each user and minute."""
    return orders.window(windows.tumbling("1m")).aggregate(sum=agg.sum("amount_cents"), count=agg.count()).to(RESULTS)


def session_totals(orders: Stream[str, Order]) -> Sink:
    """B: sum and count of each session."""
    return orders.window(windows.session("1m")).aggregate(sum=agg.sum("amount_cents"), count=agg.count()).to(RESULTS)


def three_orders(orders: Stream[str, Order]) -> Sink:
    """C: three orders within five minutes."""
    pattern = cep.begin("order", of=Order).times(3).within("5m")
    matches = orders.detect(pattern, skip=cep.skip.past_last)
    return matches.select(lambda match: {"key": match.key, "times": [order.ts for order in match["order"]]}).to(RESULTS)


def running_totals(orders: Stream[str, Order]) -> Sink:
    """Latency: one result for each order, with the order's own time."""
    return orders.aggregate(total=agg.sum("amount_cents"), ts=agg.last("ts"), emit="record").to(RESULTS)


JOBS = {"A0": minute_totals, "B": session_totals, "C": three_orders, "latency": running_totals}


@app.pipeline(source)
def measured(orders: Stream[str, Order]) -> Sink:
    """One of the jobs."""
    return JOBS[JOB](orders.filter(note_first))


if __name__ == "__main__":
    sys.argv = [sys.argv[0], "worker", "--without-web", "--loglevel", "warn"]
    app.main()
