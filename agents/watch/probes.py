"""Cards that are tried out with a few cents before they are used for much: found by live rules, so that they can follow the thieves.

The first rule is in `rules.jsonl`; what it finds keeps the history of a user, for `streamforge cep explain --pipeline probes`.
"""

from agents.records import Order
from agents.watch.records import Payment, step_of_order, step_of_payment
from agents.watch.settings import app, orders, payments, rules
from engine import Sink, Stream


@app.pipeline(orders, payments)
def probes(orders: Stream[str, Order], payments: Stream[str, Payment]) -> Sink:
    """What the rules of the day find in orders and payments."""
    steps = orders.map(step_of_order).merge(payments.map(step_of_payment))
    return steps.detect(rules=rules, history=5).to("probe-alerts")
