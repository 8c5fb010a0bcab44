"""The app of the chaos rounds: the shop's own pipelines, and a join beside them.

    orders ──┬─► revenue (repartition, windows), fraud (patterns), first_order (state)
             └─► viewed ─► viewed-orders, viewed-late        each order with what its user looked at in the three minutes before
    page-views ──┴─► sessions (windows)

It is an app of its own, so that the shop itself, which other tests run, stays what it is.
"""

from collections.abc import Sequence

from agents import first_order as first_order_module
from agents import fraud as fraud_module
from agents import revenue as revenue_module
from agents import sessions as sessions_module
from agents.records import Order, PageView
from engine import App, Sink, Stream, Struct, bounded

app = App("shop", broker="memory://", state_dir="var/state", partitions=12)

orders = app.source("orders", Order, key="user_id", time="ts", watermark=bounded("30s", idle="1m"))
page_views = app.source("page-views", PageView, key="user_id", time="ts", watermark=bounded("30s", idle="1m"))


class ViewedOrder(Struct, frozen=True):
    """Topic `viewed-orders`, keyed by the user: one of the views before an order; none if there was no view."""

    user_id: str
    order_id: str
    ts: int
    page: str | None
    viewed_ts: int | None


def shape(pair: tuple[Order | None, PageView | None]) -> ViewedOrder:
    """Make a result of a pair; in a left join there is always an order."""
    order, view = pair
    assert order is not None
    page, viewed_ts = (None, None) if view is None else (view.page, view.ts)
    return ViewedOrder(order.user_id, order.order_id, order.ts, page, viewed_ts)


@app.pipeline(orders)
def revenue(orders: Stream[str, Order]) -> Sink:
    """The shop's."""
    return revenue_module.revenue(orders)


@app.pipeline(page_views)
def sessions(page_views: Stream[str, PageView]) -> Sink:
    """The shop's."""
    return sessions_module.sessions(page_views)


@app.pipeline(orders)
def fraud(orders: Stream[str, Order]) -> Sink:
    """The shop's."""
    return fraud_module.fraud(orders)


@app.pipeline(orders)
def first_order(orders: Stream[str, Order]) -> Sequence[Sink]:
    """The shop's."""
    return first_order_module.first_order(orders)


@app.pipeline(orders, page_views)
def viewed(orders: Stream[str, Order], page_views: Stream[str, PageView]) -> Sink:
    """What a user looked at in the three minutes before each order."""
    return orders.join(page_views, within=("-3m", "0s"), how="left", late_to="viewed-late").map(shape).to("viewed-orders")
