"""Orders that nobody pays: half an hour without a payment for them, by event time. The result comes when the half hour is over."""

from agents.records import Order
from agents.watch.records import Payment, Step, UnpaidOrder, step_of_order, step_of_payment
from agents.watch.settings import app, orders, payments
from engine import Match, Sink, Stream, cep


def is_order(step: Step) -> bool:
    """Tell orders."""
    return step.kind == "order"


def pays_for_it(step: Step, match: cep.PartialMatch) -> bool:
    """Tell payments for the order of the match; one of a few cents does not count."""
    order: Step = match["order"][0]
    return step.kind == "payment" and step.order_id == order.order_id and step.amount_cents >= order.amount_cents


no_payment = cep.begin("order", is_order).not_followed_by("payment", pays_for_it).within("30m")


def unpaid_order(match: Match[Step]) -> UnpaidOrder:
    """Shape what was not paid."""
    (order,) = match["order"]
    return UnpaidOrder(order.user_id, order.order_id or "", order.amount_cents, order.ts)


@app.pipeline(orders, payments)
def unpaid(orders: Stream[str, Order], payments: Stream[str, Payment]) -> Sink:
    """Orders without a payment within 30 minutes."""
    steps = orders.map(step_of_order).merge(payments.map(step_of_payment))
    return steps.detect(no_payment).select(unpaid_order).to("unpaid-orders")
