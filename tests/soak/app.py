"""The app of the soak: windows, a repartition, state and timers, all of which are bounded by the number of users."""

from collections.abc import Iterator
from typing import Any

from engine import App, Context, Record, Sink, Stream, Struct, Timer, ValueState, agg, bounded, windows

PARTITIONS = 4

app = App("soak", broker="memory://", partitions=PARTITIONS, commit_interval="500ms", checkpoint_interval="10s")


class Order(Struct, frozen=True):
    """An order; `ts` is event time."""

    user: str
    country: str
    cents: int
    ts: int


# Never idle: a pause of the traffic, in a rebalance on a busy machine, would let event time follow the wall clock (which is right), and
# what is sent after it, with the next milliseconds of event time, would be late.
orders = app.source("orders", Order, key="user", time="ts", watermark=bounded("10s", idle=None))


class Large:
    """Counts large orders; a user without any for ten minutes is forgotten."""

    count = ValueState(int, default=0)

    def on_record(self, record: Record[str, Order], ctx: Context) -> None:
        """Count, and wait."""
        self.count.set(self.count.get() + 1)
        ctx.timers.event_time(record.timestamp_ms + 600_000, name="over")

    def on_timer(self, timer: Timer, ctx: Context) -> Iterator[dict[str, Any]]:
        """Tell, and forget."""
        yield {"user": ctx.key, "orders": self.count.get()}
        self.count.clear()


@app.pipeline(orders)
def minutes(orders: Stream[str, Order]) -> Sink:
    """Orders of each user and minute."""
    minutes = orders.window(windows.tumbling("1m"), late_to="minutes-late")
    return minutes.aggregate(orders=agg.count(), cents=agg.sum("cents")).to("minutes")


@app.pipeline(orders)
def countries(orders: Stream[str, Order]) -> Sink:
    """Orders of each country and minute."""
    minutes = orders.key_by("country").window(windows.tumbling("1m"), late_to="countries-late")
    return minutes.aggregate(orders=agg.count(), cents=agg.sum("cents")).to("countries")


@app.pipeline(orders)
def large(orders: Stream[str, Order]) -> Sink:
    """Users with large orders."""
    return orders.filter(lambda order: order.cents >= 9_900).process(Large).to("large")
