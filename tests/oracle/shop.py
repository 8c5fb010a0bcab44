"""What the shop's four pipelines must give for some input, computed record by record with dicts and lists.

    orders in order of arrival ──► partition by murmur2 of the user ──► watermark = max(ts) - 30 s - 1 of that partition
                                                                        late or not, windows, alerts, histories

Sessions, alerts, first orders and histories follow from the input alone. Revenue does not: it is computed behind a
repartition topic, where the watermark is the minimum over 12 upstream partitions, and how far each of them has got when a
record arrives is a matter of scheduling. What does hold under every schedule (`revenue_given_late`, `may_be_late`):

- the watermark there is never ahead of the record's own partition's, so an order on time in its partition is on time there;
- each order is in exactly one place, in its window's sum or in orders-late.

So revenue is determined by the set of orders that came out as late, and that set may only hold orders of `may_be_late`.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

PARTITIONS = 12
OUT_OF_ORDER_MS = 30_000
SESSION_GAP_MS = 30 * 60_000
FRAUD_MS = 5 * 60_000
FRAUD_ORDERS = 3
MINUTE_MS = 60_000

_ORDER = {"order_id": str, "user_id": str, "amount_cents": int, "currency": str, "country": str, "items": int, "ts": int}
_PAGE_VIEW = {"user_id": str, "page": str, "ts": int}

Value = dict[str, Any]


class Arrival(NamedTuple):
    """A good record as its partition sees it: `watermark` is in force when it arrives."""

    value: Value
    watermark: int


@dataclass
class Shop:
    """What must come out; keys are users, or (currency, window_start)."""

    sessions: dict[str, list[Value]] = field(default_factory=dict)
    alerts: dict[str, list[Value]] = field(default_factory=dict)
    first_orders: dict[str, Value] = field(default_factory=dict)
    histories: dict[str, Value] = field(default_factory=dict)
    orders: list[Arrival] = field(default_factory=list)
    page_views: list[Arrival] = field(default_factory=list)
    bad_orders: int = 0
    bad_page_views: int = 0
    late_page_views: int = 0
    late_fraud_orders: int = 0

    def may_be_late(self) -> list[Value]:
        """Return the orders whose minute their own partition had closed when they arrived."""
        return [order for order, watermark in self.orders if _minute(order) + MINUTE_MS - 1 <= watermark]

    def revenue_given_late(self, late: Iterable[Value]) -> dict[tuple[str, int], tuple[int, int]]:
        """Return (orders, revenue_cents) of each currency and minute when just these orders came too late."""
        sums: dict[tuple[str, int], tuple[int, int]] = {}
        signed = [(order, 1) for order, _ in self.orders] + [(order, -1) for order in late]
        for order, sign in signed:
            window = (order["currency"], _minute(order))
            count, cents = sums.get(window, (0, 0))
            sums[window] = (count + sign, cents + sign * order["amount_cents"])
        return {window: total for window, total in sums.items() if total[0]}


def compute(orders: Iterable[bytes], page_views: Iterable[bytes]) -> Shop:
    """Return what the shop must give for values in order of arrival, bad ones included."""
    shop = Shop()
    shop.page_views, shop.bad_page_views = _arrivals(page_views, _PAGE_VIEW)
    shop.orders, shop.bad_orders = _arrivals(orders, _ORDER)
    for user, visits in _by_user(shop.page_views).items():
        sessions, late = _sessions(user, visits)
        shop.late_page_views += late
        if sessions:
            shop.sessions[user] = sessions
    for user, bought in _by_user(shop.orders).items():
        alerts, late = _alerts(user, bought)
        shop.late_fraud_orders += late
        if alerts:
            shop.alerts[user] = alerts
        first, last = bought[0].value, bought[-1].value
        shop.first_orders[user] = {name: first[name] for name in ("user_id", "order_id", "ts", "amount_cents")}
        total_cents = sum(order["amount_cents"] for order, _ in bought)
        shop.histories[user] = {"orders": len(bought), "total_cents": total_cents, "first_ts": first["ts"], "last_ts": last["ts"]}
    return shop


def murmur2(data: bytes) -> int:
    """Return the 32-bit murmur2 hash that Kafka's Java client places keys with (seed 0x9747b28c)."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) - len(data) % 4
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = h * m & mask ^ k
    tail = data[whole:]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def _arrivals(values: Iterable[bytes], fields: Mapping[str, type]) -> tuple[list[Arrival], int]:
    """Return the good records with the watermark that each meets in its partition, and the number of bad ones."""
    highest: dict[int, int] = {}
    arrivals, bad = [], 0
    for raw in values:
        value = _decode(raw, fields)
        if value is None:
            bad += 1
            continue
        partition = (murmur2(value["user_id"].encode()) & 0x7FFFFFFF) % PARTITIONS
        reached = highest.get(partition)
        arrivals.append(Arrival(value, -(2**63) if reached is None else reached - OUT_OF_ORDER_MS - 1))
        highest[partition] = value["ts"] if reached is None else max(reached, value["ts"])
    return arrivals, bad


def _decode(raw: bytes, fields: Mapping[str, type]) -> Value | None:
    try:
        value = json.loads(raw)
    except ValueError:
        return None
    if not isinstance(value, dict) or any(type(value.get(name)) is not kind for name, kind in fields.items()):
        return None
    return {name: value[name] for name in fields}


def _by_user(arrivals: Iterable[Arrival]) -> dict[str, list[Arrival]]:
    users: dict[str, list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        users[arrival.value["user_id"]].append(arrival)
    return users


def _minute(order: Value) -> int:
    return int(order["ts"]) // MINUTE_MS * MINUTE_MS


def _sessions(user: str, arrivals: Iterable[Arrival]) -> tuple[list[Value], int]:
    """Return a user's sessions in the order of their end, and how many views came after theirs had closed.

    A session is open until the watermark has passed its end. A view joins every open session that its own [ts, ts + gap]
    touches; it is late if what it then belongs to is over already.
    """
    still_open: list[_Visit] = []
    closed: list[_Visit] = []
    late = 0
    for number, (view, watermark) in enumerate(arrivals):
        closed += [visit for visit in still_open if visit.end - 1 <= watermark]
        still_open = [visit for visit in still_open if visit.end - 1 > watermark]
        ts = view["ts"]
        touched = [visit for visit in still_open if visit.start <= ts + SESSION_GAP_MS and ts <= visit.end]
        visit = _Visit(min([ts, *(other.start for other in touched)]), max([ts + SESSION_GAP_MS, *(other.end for other in touched)]))
        if visit.end - 1 <= watermark:
            late += 1
            continue
        for other in touched:
            still_open.remove(other)
        visit.views = max((other.views for other in touched), key=len, default=[])
        visit.views += [(ts, number, view), *(seen for other in touched if other.views is not visit.views for seen in other.views)]
        still_open.append(visit)
    results = [_session(user, visit) for visit in closed + still_open]
    return sorted(results, key=lambda session: int(session["window_end"])), late


@dataclass(eq=False)
class _Visit:
    start: int
    end: int
    views: list[tuple[int, int, Value]] = field(default_factory=list)


def _session(user: str, visit: _Visit) -> Value:
    pages = [view["page"] for _, _, view in sorted(visit.views, key=lambda view: view[:2])]
    return {
        "user_id": user,
        "window_start": visit.start,
        "window_end": visit.end,
        "views": len(pages),
        "pages": len(set(pages)),
        "first_page": pages[0],
        "last_page": pages[-1],
    }


def _alerts(user: str, arrivals: Iterable[Arrival]) -> tuple[list[Value], int]:
    """Return a user's alerts in event-time order, and how many orders came after the watermark had passed them."""
    on_time = [order for order, watermark in arrivals if order["ts"] > watermark]
    late = sum(order["ts"] <= watermark for order, watermark in arrivals)
    on_time.sort(key=lambda order: int(order["ts"]))
    alerts, start = [], 0
    while start + FRAUD_ORDERS <= len(on_time):
        taken = on_time[start : start + FRAUD_ORDERS]
        if taken[-1]["ts"] - taken[0]["ts"] >= FRAUD_MS:
            start += 1
            continue
        alerts.append(
            {
                "user_id": user,
                "order_ids": [order["order_id"] for order in taken],
                "total_cents": sum(order["amount_cents"] for order in taken),
                "first_ts": taken[0]["ts"],
                "last_ts": taken[-1]["ts"],
            }
        )
        start += FRAUD_ORDERS
    return alerts, late
