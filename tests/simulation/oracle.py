"""What must come out: plain Python over the source topics, pipeline by pipeline, with nothing of the engine in it.

Rows of a topic stand by key, in the order in which they must come; topics in `UNORDERED` need only the right rows.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import msgspec

from tests.simulation import app
from tests.simulation.app import Click, Order

Rows = dict[str, list[Any]]
UNORDERED = frozenset({"waits", "revenue-late", "pairs", "visits", "sim-dlq"})
MIN_TIME = -(2**63)


@dataclass(frozen=True, slots=True)
class Sent:
    """A record of a source topic; value None for one that cannot be decoded."""

    topic: str
    partition: int
    offset: int
    value: Any


@dataclass(slots=True)
class Expected:
    """What must be in the output topics.

    Attributes:
        rows: topic -> key -> rows in order.
        last: topic -> key -> the last row, where those before it depend on when commits fell.
    """

    rows: dict[str, Rows] = field(default_factory=dict)
    last: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, topic: str, key: str, row: Any) -> None:
        self.rows.setdefault(topic, {}).setdefault(key, []).append(row)

    def count(self, topic: str) -> int:
        """Return the number of rows of a topic."""
        return sum(map(len, self.rows.get(topic, {}).values()))


def expect(pipelines: Sequence[str], orders: Sequence[Sequence[Sent]], clicks: Sequence[Sequence[Sent]]) -> Expected:
    """Return what the chosen pipelines must make of the partitions of the two source topics."""
    expected, pipelines = Expected(), [name for name in pipelines if name != "tally"]  # that one depends on commands
    for name in pipelines:
        if name == "visits":
            _visits(expected, orders, clicks)
        else:
            _PIPELINES[name](expected, clicks if name == "pages" else orders)
    for topic, partitions in (("orders", orders), ("clicks", clicks)):
        readers = ",".join(name for name in pipelines if name == "visits" or (name == "pages") == (topic == "clicks"))
        for record in (record for partition in partitions for record in partition):
            if record.value is None and readers:
                expected.add("sim-dlq", "record", [topic, record.partition, record.offset, readers, "source"])
    return expected


def _orders(partitions: Sequence[Sequence[Sent]], *kinds: str) -> list[Order]:
    return [record.value for partition in partitions for record in partition if record.value is not None and record.value.kind in kinds]


def _revenue(expected: Expected, partitions: Sequence[Sequence[Sent]]) -> None:
    found: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for order in _orders(partitions, "sale"):
        found[order.currency, order.ts - order.ts % app.REVENUE_MS].append(order.amount)
    for (currency, start), amounts in sorted(found.items()):
        expected.add("revenue", currency, [start, start + app.REVENUE_MS, len(amounts), sum(amounts)])
    _late(expected, partitions, "revenue-late", lambda order: order.currency)


def _late(expected: Expected, partitions: Sequence[Sequence[Sent]], topic: str, key: Callable[[Order], str]) -> None:
    for order in _orders(partitions, "late"):
        expected.add(topic, key(order), order.order_id)
    expected.rows.setdefault(topic, {})


def _totals(expected: Expected, partitions: Sequence[Sequence[Sent]]) -> None:
    found: defaultdict[str, list[int]] = defaultdict(list)
    for order in _orders(partitions, "sale", "late"):
        found[order.currency].append(order.amount)
    expected.last["totals"] = {currency: [len(amounts), sum(amounts)] for currency, amounts in found.items()}


def _numbers(expected: Expected, partitions: Sequence[Sequence[Sent]]) -> None:
    counts: defaultdict[str, int] = defaultdict(int)
    for record in (record for partition in partitions for record in partition):
        order = record.value
        if order is None or order.kind != "sale":
            continue
        if order.amount % 100 == app.POISON:
            expected.add("sim-dlq", "record", ["orders", record.partition, record.offset, "numbers", "numbers"])
            continue
        counts[order.user] += 1
        expected.add("numbers", order.user, [counts[order.user], order.order_id])


def _waits(expected: Expected, partitions: Sequence[Sequence[Sent]]) -> None:
    for partition in partitions:
        watermark = MIN_TIME
        counts: defaultdict[str, int] = defaultdict(int)
        timers: dict[str, int] = {}

        def fire(timers: dict[str, int], counts: dict[str, int], until: int) -> None:
            for user, due in [(user, due) for user, due in timers.items() if due <= until]:
                del timers[user]
                if user == app.TIMER_RAISES_FOR:
                    expected.add("sim-dlq", "timer", [user, "farewell", due, "waits"])
                else:
                    expected.add("waits", user, ["farewell", counts[user]])

        for order in (record.value for record in partition if record.value is not None):
            fire(timers, counts, watermark)
            if order.kind == "sale":
                counts[order.user] += 1
                if counts[order.user] == 1:
                    timers[order.user] = order.ts + app.FAREWELL_MS
                    expected.add("waits", order.user, ["moment", None])
            watermark = max(watermark, order.ts - app.ORDERS_DELAY_MS - 1)
        fire(timers, counts, 2**63)


def _sessions(expected: Expected, partitions: Sequence[Sequence[Sent]]) -> None:
    by_user: defaultdict[str, list[Order]] = defaultdict(list)
    for order in _orders(partitions, "sale"):
        by_user[order.user].append(order)
    for user, orders in by_user.items():
        orders.sort(key=lambda order: order.ts)
        begin = 0
        for index in range(1, len(orders) + 1):
            if index == len(orders) or orders[index].ts - orders[index - 1].ts > app.SESSION_GAP_MS:
                part = orders[begin:index]
                row = [part[0].ts, part[-1].ts + app.SESSION_GAP_MS, len(part), part[0].order_id, part[-1].order_id]
                expected.add("sessions", user, row)
                begin = index
    _late(expected, partitions, "sessions-late", lambda order: order.user)


def _alerts(expected: Expected, partitions: Sequence[Sequence[Sent]]) -> None:
    by_user: defaultdict[str, list[Order]] = defaultdict(list)
    for order in _orders(partitions, "sale"):
        by_user[order.user].append(order)
    for user, orders in by_user.items():
        orders.sort(key=lambda order: order.ts)
        for one, other in pairwise(orders):
            if one.amount < app.SMALL and other.amount >= app.BIG:
                expected.add("alerts", user, [one.order_id, other.order_id])
    _late(expected, partitions, "alerts-late", lambda order: order.user)


def _even(expected: Expected, partitions: Sequence[Sequence[Sent]]) -> None:
    for order in _orders(partitions, "sale", "late", "end"):
        if order.order_id % 2 == 0:
            expected.add("even", order.user, order.order_id)


def _pages(expected: Expected, partitions: Sequence[Sequence[Sent]]) -> None:
    for partition in partitions:
        watermark = MIN_TIME
        found: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
        for click in (record.value for record in partition if record.value is not None):
            start = click.ts - click.ts % app.CLICK_WINDOW_MS
            if click.page != "end":
                if start + app.CLICK_WINDOW_MS - 1 + app.CLICK_LATENESS_MS <= watermark:
                    expected.add("pages-late", click.user, click.click_id)
                else:
                    found[click.user, start].append(click.click_id)
            watermark = max(watermark, click.ts - app.CLICKS_DELAY_MS - 1)
        for (user, start), ids in sorted(found.items()):
            expected.add("pages", user, [start, start + app.CLICK_WINDOW_MS, len(ids), sum(ids)])
    expected.rows.setdefault("pages-late", {})


def _pairs(expected: Expected, partitions: Sequence[Sequence[Sent]]) -> None:
    orders = _orders(partitions, "sale")
    for one in orders:
        others: list[int | None] = [o.order_id for o in orders if o.currency == one.currency and 1 <= o.ts - one.ts <= app.PAIR_MS]
        for other in others or [None]:
            expected.add("pairs", one.currency, [one.order_id, other])


def _visits(expected: Expected, orders: Sequence[Sequence[Sent]], clicks: Sequence[Sequence[Sent]]) -> None:
    sales = _orders(orders, "sale")
    seen = [record.value for partition in clicks for record in partition if record.value is not None and record.value.page == "home"]
    paired = set()
    for order in sales:
        ids: list[int | None] = [c.click_id for c in seen if c.user == order.user and 0 <= order.ts - c.ts <= app.VISIT_MS]
        paired.update(ids)
        for click_id in ids or [None]:
            expected.add("visits", order.user, [order.order_id, click_id])
    for click in seen:
        if click.click_id not in paired:
            expected.add("visits", click.user, [None, click.click_id])


_PIPELINES: dict[str, Callable[[Expected, Sequence[Sequence[Sent]]], None]] = {
    "revenue": _revenue, "totals": _totals, "numbers": _numbers, "waits": _waits, "sessions": _sessions, "alerts": _alerts,
    "even": _even, "pages": _pages, "pairs": _pairs,
}  # fmt: skip


_TYPES: dict[str, Any] = {"orders": Order, "clicks": Click}


def read_sent(topic: str, partition: int, offset: int, value: bytes | None) -> Sent:
    """Return a record of a source topic."""
    try:
        return Sent(topic, partition, offset, msgspec.json.decode(value or b"", type=_TYPES[topic]))
    except msgspec.DecodeError:
        return Sent(topic, partition, offset, None)


def read_row(topic: str, key: bytes | None, value: bytes | None, headers: dict[str, str]) -> tuple[str, Any]:
    """Return key and row of an output record, in the form of `Expected.rows`."""
    if topic == "sim-dlq":
        if "timer" in headers:
            return "timer", [(key or b"").decode(), headers["timer"], int(headers["timer_ms"]), headers["pipeline"]]
        place = [headers["topic"], int(headers["partition"]), int(headers["offset"])]
        return "record", [*place, headers["pipeline"], headers["operator"]]
    row = json.loads(value or b"null")
    if topic.endswith("-late"):
        return (key or b"").decode(), row["click_id" if topic == "pages-late" else "order_id"]
    return (key or b"").decode(), _COLUMNS[topic](row)


def _window(row: dict[str, Any], *names: str) -> list[Any]:
    return [row["window_start"], row["window_end"], *(row[name] for name in names)]


_COLUMNS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "revenue": lambda row: _window(row, "n", "sum"),
    "sessions": lambda row: _window(row, "n", "first", "last"),
    "alerts": lambda row: [row["small"], row["big"]],
    "totals": lambda row: [row["n"], row["sum"]],
    "numbers": lambda row: [row["number"], row["order_id"]],
    "waits": lambda row: [row["kind"], row.get("count")],
    "even": lambda row: row["order_id"],
    "pairs": lambda row: row,
    "visits": lambda row: row,
    "pages": lambda row: _window(row, "n", "ids"),
    "tally": lambda row: [row["note_id"], row["count"], row["notes"]],
}
