"""What must come out of a left join of orders with the views of the same user in the three minutes before, whatever the schedule.

    orders      ───────── o 10:05 ──       (o, a), (o, b); an order without a view comes out alone
    page views  ── a 10:02 ─ b 10:05 ──

A record is late, and joins nothing, when the watermark of both inputs together has passed it. How far the other input has got when it
comes is a matter of scheduling, so which records are late is not determined; but each late one comes out as such, only one that its
own partition's watermark had passed can be late, and everything else is joined exactly.
"""

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from tests.oracle.shop import Arrival, Shop

WITHIN_MS = 3 * 60_000

Value = dict[str, Any]
_Identity = tuple[Any, ...]


def may_be_late(arrivals: Iterable[Arrival]) -> list[Value]:
    """Return the records that the watermark of their own partition had passed when they came."""
    return [value for value, watermark in arrivals if value["ts"] < watermark]


def viewed_given_late(shop: Shop, late_orders: Iterable[Value], late_views: Iterable[Value]) -> list[tuple[str, Value]]:
    """Return (user, row) for each pair, and for each order without a view, when just these records came too late."""
    views: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for view in _without(shop.page_views, late_views):
        insort(views[view["user_id"]], (view["ts"], view["page"]))
    alone: list[tuple[int | None, str | None]] = [(None, None)]
    rows = []
    for order in _without(shop.orders, late_orders):
        user, ts = order["user_id"], order["ts"]
        seen = views[user][bisect_left(views[user], (ts - WITHIN_MS,)) : bisect_left(views[user], (ts + 1,))]
        for viewed_ts, page in seen or alone:
            rows.append((user, {"user_id": user, "order_id": order["order_id"], "ts": ts, "page": page, "viewed_ts": viewed_ts}))
    return rows


def _without(arrivals: Iterable[Arrival], late: Iterable[Value]) -> list[Value]:
    """Return the values but for the late ones, each as often as it is late; equal values are one as good as the other."""
    gone = Counter(map(_identity, late))
    kept = []
    for value, _ in arrivals:
        identity = _identity(value)
        if gone[identity]:
            gone[identity] -= 1
        else:
            kept.append(value)
    return kept


def _identity(value: Value) -> _Identity:
    return tuple(sorted(value.items()))
