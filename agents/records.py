"""What the shop reads and writes. Amounts are whole cents; times are event time in UTC milliseconds."""

from engine import Struct


class Order(Struct, frozen=True):
    """Topic `orders`, keyed by the user."""

    order_id: str
    user_id: str
    amount_cents: int
    currency: str
    country: str
    items: int
    ts: int


class PageView(Struct, frozen=True):
    """Topic `page-views`, keyed by the user."""

    user_id: str
    page: str
    ts: int


class MinuteRevenue(Struct, frozen=True):
    """Topic `revenue`, keyed by the currency."""

    currency: str
    window_start: int
    window_end: int
    orders: int
    revenue_cents: int


class Session(Struct, frozen=True):
    """Topic `sessions`, keyed by the user; `window_end` is the time of the last view plus the gap."""

    user_id: str
    window_start: int
    window_end: int
    views: int
    pages: int
    first_page: str
    last_page: str


class FraudAlert(Struct, frozen=True):
    """Topic `fraud-alerts`, keyed by the user: orders that came suspiciously fast, in event-time order."""

    user_id: str
    order_ids: list[str]
    total_cents: int
    first_ts: int
    last_ts: int


class FirstOrder(Struct, frozen=True):
    """Topic `first-orders`, keyed by the user: one record a user, ever."""

    user_id: str
    order_id: str
    ts: int
    amount_cents: int


class UserHistory(Struct, frozen=True):
    """Topic `user-history`, keyed by the user and compacted; first and last are meant in the order of arrival."""

    orders: int
    total_cents: int
    first_ts: int
    last_ts: int
