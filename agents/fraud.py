"""Orders that come too fast: three of one user within five minutes, in event-time order.

Alerts do not overlap: after one, the next three orders are looked at (`cep.skip.past_last`). Six fast orders are two alerts.
"""

from agents.records import FraudAlert, Order
from agents.settings import app, orders
from engine import Match, Sink, Stream, cep

three_fast = cep.begin("order", of=Order).times(3).within("5m")


def alert(match: Match[Order]) -> FraudAlert:
    """Shape three orders into an alert."""
    taken = match["order"]
    return FraudAlert(
        user_id=taken[0].user_id,
        order_ids=[order.order_id for order in taken],
        total_cents=sum(order.amount_cents for order in taken),
        first_ts=taken[0].ts,
        last_ts=taken[-1].ts,
    )


@app.pipeline(orders)
def fraud(orders: Stream[str, Order]) -> Sink:
    """Three orders of one user within five minutes."""
    return orders.detect(three_fast, skip=cep.skip.past_last).select(alert).to("fraud-alerts")
