"""Revenue of each currency, minute by minute. Late orders are not lost: they go to `orders-late`, as they came."""

from agents.records import MinuteRevenue, Order
from agents.settings import app, orders
from engine import Sink, Stream, agg, windows


@app.pipeline(orders)
def revenue(orders: Stream[str, Order]) -> Sink:
    """Revenue of each currency, minute by minute."""
    return (
        orders.key_by("currency")
        .window(windows.tumbling("1m"), late_to="orders-late")
        .aggregate(into=MinuteRevenue, key_as="currency", orders=agg.count(), revenue_cents=agg.sum("amount_cents"))
        .to("revenue")
    )
