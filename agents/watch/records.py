"""What the watch reads and writes beside the shop's records. Amounts are whole cents; times are event time in UTC milliseconds."""

from typing import Literal

from agents.records import Order, PageView
from engine import Struct


class Payment(Struct, frozen=True):
    """Topic `payments`, keyed by the user: money that came for an order, or a few cents to try a card out."""

    payment_id: str
    order_id: str
    user_id: str
    amount_cents: int
    ts: int


class Step(Struct, frozen=True):
    """An order, a payment or a page view as the patterns of the watch see it: what a merged stream holds is of one type."""

    kind: Literal["order", "payment", "view"]
    user_id: str
    ts: int
    order_id: str | None = None
    amount_cents: int = 0
    country: str | None = None
    page: str | None = None


class UnpaidOrder(Struct, frozen=True):
    """Topic `unpaid-orders`, keyed by the user."""

    user_id: str
    order_id: str
    amount_cents: int
    ts: int


class OddJourney(Struct, frozen=True):
    """Topic `odd-journeys`, keyed by the user: two orders of one visit from two countries, with what was looked at between them."""

    user_id: str
    countries: list[str]
    order_ids: list[str]
    views: int
    first_ts: int
    last_ts: int


def step_of_order(order: Order) -> Step:
    """Return an order as a step."""
    return Step("order", order.user_id, order.ts, order_id=order.order_id, amount_cents=order.amount_cents, country=order.country)


def step_of_payment(payment: Payment) -> Step:
    """Return a payment as a step."""
    return Step("payment", payment.user_id, payment.ts, order_id=payment.order_id, amount_cents=payment.amount_cents)


def step_of_view(view: PageView) -> Step:
    """Return a page view as a step."""
    return Step("view", view.user_id, view.ts, page=view.page)
