"""Each user's first order, exactly once ever, and their history so far.

Both follow the order of arrival: an order that arrives first is the first, also when its event time says otherwise, because
nobody can take back a welcome message that has been sent.
"""

from collections.abc import Iterator, Sequence

from agents.records import FirstOrder, Order, UserHistory
from agents.settings import app, orders
from engine import Context, Record, Sink, Stream, ValueState


class History:
    """Adds up the orders of a user."""

    history = ValueState(UserHistory)

    def on_record(self, record: Record[str, Order], ctx: Context) -> Iterator[FirstOrder | UserHistory]:
        """Yield the first order if this is it, and the history with this order."""
        order, past = record.value, self.history.get()
        if past is None:
            yield FirstOrder(order.user_id, order.order_id, order.ts, order.amount_cents)
            present = UserHistory(1, order.amount_cents, order.ts, order.ts)
        else:
            present = UserHistory(past.orders + 1, past.total_cents + order.amount_cents, past.first_ts, order.ts)
        self.history.set(present)
        yield present


def is_first_order(result: FirstOrder | UserHistory) -> bool:
    """Tell the two kinds of results apart."""
    return isinstance(result, FirstOrder)


@app.pipeline(orders)
def first_order(orders: Stream[str, Order]) -> Sequence[Sink]:
    """The first order of each user, and a compacted topic of what each has ordered so far."""
    results = orders.process(History).branch(first=is_first_order, rest="history")
    return [results["first"].to("first-orders"), results["history"].to("user-history", compacted=True)]
