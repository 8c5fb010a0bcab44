"""Revenue of each currency, minute by minute."""

from engine import App, Sink, Stream, Struct, agg, bounded, windows


class Order(Struct, frozen=True):
    user_id: str
    amount_cents: int
    currency: str
    ts: int


app = App("minute-revenue", broker="memory://", partitions=4)
orders = app.source("orders", Order, key="user_id", time="ts", watermark=bounded("30s"))


@app.pipeline(orders)
def revenue(orders: Stream[str, Order]) -> Sink:
    """Revenue of each currency, minute by minute."""
    return (
        orders.filter(lambda order: order.amount_cents > 0)
        .key_by("currency")
        .window(windows.tumbling("1m"))
        .aggregate(orders=agg.count(), revenue_cents=agg.sum("amount_cents"))
        .to("revenue")
    )


if __name__ == "__main__":
    app.main()
