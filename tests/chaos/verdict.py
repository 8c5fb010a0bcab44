"""The comparison with the oracle: which rows are lost, doubled or wrong.

    expected   a  b  c        found   a  a  x(b)       →   lost 1 (c), doubled 1 (a), wrong 1 (b has another value)

Rows that belong to the same thing (a session's beginning, a user's n-th order, …) are matched first: a row with another value is
wrong, not one lost and one too many. Rows of a key must also come in order, but for those of the join. Revenue follows from which orders
were late, see `tests.oracle.shop`, and the join from which records were late there, see `tests.oracle.viewed`; the closing records' own
minute, which nothing closes, must not come out at all.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.feed import CLOSING_USER, Input
from tests.chaos.results import Row
from tests.oracle.shop import MINUTE_MS, Shop, compute
from tests.oracle.viewed import may_be_late, viewed_given_late

Value = dict[str, Any]
Rows = list[tuple[str, Value]]
_SHOWN = 2


@dataclass(slots=True)
class Verdict:
    """How a topic's rows compare; `examples` shows a few that do not."""

    topic: str
    expected: int = 0
    found: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether every row is there, once, and right."""
        return not (self.lost or self.doubled or self.wrong)

    def show(self, what: str, row: object) -> None:
        """Keep a row as an example."""
        if len(self.examples) < _SHOWN:
            self.examples.append(f"{self.topic}: {what}: {row}")


class Expected:
    """What must come out of an input."""

    def __init__(self, source: Input, closing_ms: int) -> None:
        self.shop = compute(source.values["orders"], source.values["page-views"])
        self.closing_ms = closing_ms
        self.dead = _dead_letters(source)
        self.rows: dict[str, Rows] = {
            "sessions": [(user, row) for user, rows in self.shop.sessions.items() for row in rows if not user.startswith(CLOSING_USER)],
            "fraud-alerts": [(user, row) for user, rows in self.shop.alerts.items() for row in rows],
            "first-orders": list(self.shop.first_orders.items()),
            "user-history": _histories(self.shop),
        }
        self._viewed_known = (-1, 0)

    def is_complete(self, rows: Mapping[str, Sequence[Row]]) -> bool:
        """Return whether as much has come out as must; whether it is right is for `judge`."""
        if any(len(rows[topic]) < len(expected) for topic, expected in self.rows.items()):
            return False
        if len(rows["shop-dlq"]) < len(self.dead):
            return False
        if len(rows["viewed-orders"]) < self._viewed_rows(rows["viewed-late"]):
            return False
        settled: int = len(rows["orders-late"]) + sum(_value(row)["orders"] for row in rows["revenue"])
        return settled >= sum(not order["user_id"].startswith(CLOSING_USER) for order, _ in self.shop.orders)

    def judge(self, rows: Mapping[str, Sequence[Row]]) -> list[Verdict]:
        """Compare everything that came out."""
        identities: dict[str, Callable[[str, Value], Hashable]] = {
            "sessions": lambda key, row: (key, row.get("window_start")),
            "fraud-alerts": lambda key, row: (key, row.get("first_ts")),
            "first-orders": lambda key, row: key,
            "user-history": lambda key, row: (key, row.get("orders")),
        }
        join_late = may_be_late([*self.shop.orders, *self.shop.page_views])
        found = {topic: [(row.key, _value(row)) for row in sorted(rows[topic], key=_place)] for topic in rows if topic != "shop-dlq"}
        verdicts = [compare(topic, self.rows[topic], found[topic], identity) for topic, identity in identities.items()]
        for verdict in verdicts:
            if verdict.good:
                check_order(verdict, self.rows[verdict.topic], found[verdict.topic])
        return [
            *verdicts,
            self._late("orders-late", found["orders-late"], self.shop.may_be_late()),
            self._revenue(found["revenue"], found["orders-late"]),
            self._late("viewed-late", found["viewed-late"], join_late),
            self._joined(found["viewed-orders"], found["viewed-late"]),
            self._dead(rows["shop-dlq"]),
        ]

    def _late(self, topic: str, found: Rows, may_be: Sequence[Value]) -> Verdict:
        """Late records: each that may be late at most as often as it came in; whether enough came out, the topic of results tells."""
        possible = Counter(map(canonical, may_be))
        verdict = Verdict(topic, len(found), len(found))
        for text, count in Counter(canonical(value) for _, value in found).items():
            if count > possible[text]:
                kind = "doubled" if possible[text] else "wrong"
                setattr(verdict, kind, getattr(verdict, kind) + count - possible[text])
                verdict.show(kind, text)
        return verdict

    def _revenue(self, found: Rows, late: Rows) -> Verdict:
        sums = self.shop.revenue_given_late([value for _, value in late])
        closing = self.closing_ms // MINUTE_MS * MINUTE_MS
        expected = [(currency, _minute(currency, start, *total)) for (currency, start), total in sums.items() if start != closing]
        return compare("revenue", expected, found, lambda key, row: (key, row.get("window_start")))

    def _joined(self, found: Rows, late: Rows) -> Verdict:
        return compare("viewed-orders", self._viewed(late), found, lambda key, row: (key, row.get("order_id")))

    def _viewed(self, late: Rows) -> Rows:
        values = [value for _, value in late]
        return viewed_given_late(
            self.shop, [value for value in values if "order_id" in value], [value for value in values if "page" in value]
        )

    def _viewed_rows(self, late: Sequence[Row]) -> int:
        """Return how many rows the join must give; computed anew only when another record was late."""
        if self._viewed_known[0] != len(late):
            self._viewed_known = (len(late), len(self._viewed([(row.key, _value(row)) for row in late])))
        return self._viewed_known[1]

    def _dead(self, rows: Sequence[Row]) -> Verdict:
        """Dead letters name the record that they are about in their headers."""
        found = [("", {name: row.headers.get(name, b"").decode() for name in ("topic", "partition", "offset")}) for row in rows]
        return compare("shop-dlq", self.dead, found, lambda key, row: tuple(row.values()))


def compare(topic: str, expected: Rows, found: Rows, identity: Callable[[str, Value], Hashable]) -> Verdict:
    """Count what is lost, doubled and wrong, whatever the order."""
    verdict = Verdict(topic, len(expected), len(found))
    wanted, got = _by_identity(expected, identity), _by_identity(found, identity)
    for thing in dict.fromkeys([*wanted, *got]):
        missing, extra = wanted[thing] - got[thing], got[thing] - wanted[thing]
        doubled = sum(count for text, count in extra.items() if text in wanted[thing])
        wrong = sum(extra.values()) - doubled
        lost = max(0, sum(missing.values()) - wrong)
        verdict.doubled, verdict.wrong, verdict.lost = verdict.doubled + doubled, verdict.wrong + wrong, verdict.lost + lost
        for kind, count in (("doubled", doubled), ("wrong", wrong), ("lost", lost)):
            if count:
                verdict.show(kind, f"{thing}: expected {list(wanted[thing].elements())}, found {list(got[thing].elements())}")
    return verdict


def check_order(verdict: Verdict, expected: Rows, found: Rows) -> None:
    """Count the rows that are out of their key's order as wrong. All rows are there, once."""
    wanted, got = _by_key(expected), _by_key(found)
    for key, rows in wanted.items():
        out_of_place = sum(one != other for one, other in zip(rows, got[key], strict=True))
        if out_of_place:
            verdict.wrong += out_of_place
            verdict.show("out of order", f"{key}: {got[key]}")


def canonical(value: Value) -> str:
    """Return a value as text that is the same for equal values."""
    return json.dumps(value, sort_keys=True)


def _by_identity(rows: Rows, identity: Callable[[str, Value], Hashable]) -> defaultdict[Hashable, Counter[str]]:
    found: defaultdict[Hashable, Counter[str]] = defaultdict(Counter)
    for key, value in rows:
        found[identity(key, value)][canonical({"key": key, **value})] += 1
    return found


def _by_key(rows: Rows) -> defaultdict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for key, value in rows:
        found[key].append(canonical(value))
    return found


def _histories(shop: Shop) -> Rows:
    """Return the running history of each user, order by order, in order of arrival."""
    present: dict[str, Value] = {}
    rows: Rows = []
    for order, _ in shop.orders:
        user, past = order["user_id"], present.get(order["user_id"])
        present[user] = {
            "orders": 1 if past is None else past["orders"] + 1,
            "total_cents": order["amount_cents"] + (0 if past is None else past["total_cents"]),
            "first_ts": order["ts"] if past is None else past["first_ts"],
            "last_ts": order["ts"],
        }
        rows.append((user, present[user]))
    return rows


def _dead_letters(source: Input) -> Rows:
    """Return where the records lie that are no order or no page view."""
    rows: Rows = []
    for topic, values in source.values.items():
        for (partition, offset), value in zip(source.places[topic], values, strict=True):
            shop = compute([value], []) if topic == "orders" else compute([], [value])
            if shop.bad_orders or shop.bad_page_views:
                rows.append(("", {"topic": topic, "partition": str(partition), "offset": str(offset)}))
    return rows


def _minute(currency: str, start: int, orders: int, cents: int) -> Value:
    return {"currency": currency, "window_start": start, "window_end": start + MINUTE_MS, "orders": orders, "revenue_cents": cents}


def _value(row: Row) -> Value:
    value: Value = json.loads(row.value or b"null")
    return value


def _place(row: Row) -> tuple[int, int]:
    return row.partition, row.offset
