"""A welcome for each user's first order, and a reminder if no second one follows within a day."""

from collections.abc import Iterator

from engine import App, Context, Record, Sink, Stream, Struct, Timer, ValueState, bounded

DAY_MS = 24 * 3_600_000


class Order(Struct, frozen=True):
    order_id: str
    user_id: str
    ts: int


class Mail(Struct, frozen=True):
    user_id: str
    text: str


class Welcome:
    """Counts the orders of a user."""

    orders = ValueState(int, default=0)

    def on_record(self, record: Record[str, Order], ctx: Context) -> Iterator[Mail]:
        """Greet with the first order, expect a second one."""
        orders = self.orders.get() + 1
        self.orders.set(orders)
        if orders == 1:
            ctx.timers.event_time(record.timestamp_ms + DAY_MS, name="remind")
            yield Mail(ctx.key, f"welcome, thank you for {record.value.order_id}")
        else:
            ctx.timers.cancel("remind")

    def on_timer(self, timer: Timer, ctx: Context) -> Iterator[Mail]:
        """A day has passed without a second order."""
        yield Mail(timer.key, "come back soon")


app = App("welcome", broker="memory://", partitions=4)
orders = app.source("orders", Order, key="user_id", time="ts", watermark=bounded("1m"))


@app.pipeline(orders)
def welcome(orders: Stream[str, Order]) -> Sink:
    """Mails to new customers."""
    return orders.process(Welcome).to("mails")
