"""The comparison with the oracle must find what is lost, doubled, wrong or out of order, and nothing else."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos.feed import Input, closing_records, partition_of
from tests.chaos.results import TOPICS, Row
from tests.chaos.verdict import Expected
from tests.oracle.shop import PARTITIONS

T0 = 1_767_225_600_000
HOUR = 3_600_000
CLOSING = T0 + 4 * HOUR
Rows = dict[str, list[Row]]


def order(number: int, user: str, ts: int, cents: int = 100) -> bytes:
    value = {"order_id": f"o{number}", "user_id": user, "amount_cents": cents, "currency": "EUR", "country": "DE", "items": 1, "ts": ts}
    return json.dumps(value).encode()


ORDERS = [
    order(1, "ann", T0),
    order(2, "ann", T0 + 1_000, cents=50),
    b"no order",
    order(3, "ann", T0 + 2_000),
    order(4, "ann", T0 + 400_000),
    order(5, "ann", T0 + 5_000),  # five minutes late
    order(6, "bob", T0 + 60_000),
]
VIEWS = [json.dumps({"user_id": "ann", "page": page, "ts": T0 + at}).encode() for page, at in (("home", 0), ("cart", 5_000))]


EXACT = ["sessions", "fraud-alerts", "first-orders", "user-history", "revenue", "viewed-orders", "shop-dlq"]


def source() -> Input:
    """Return an input with a little of everything, and its closing records."""
    made = Input()
    for topic, values in (("orders", ORDERS), ("page-views", VIEWS)):
        made.values[topic] = list(values)
        made.places[topic] = [(0, offset) for offset in range(len(values))]
    for topic, key, value, _ in closing_records(T0 + HOUR):
        made.values[topic].append(value)
        made.places[topic].append((partition_of(key), 99))
    return made


def row(key: str, value: dict[str, Any], offset: int, headers: dict[str, bytes] | None = None) -> Row:
    return Row(0, offset, key, json.dumps(value).encode(), headers or {}, 0.0)


def joined(order_id: str, ts: int, page: str | None, viewed_ts: int | None, user: str | None = None) -> dict[str, Any]:
    """Return a row of the join; bob has the sixth order, ann the others."""
    who = user or ("bob" if order_id == "o6" else "ann")
    return {"user_id": who, "order_id": order_id, "ts": ts, "page": page, "viewed_ts": viewed_ts}


def right() -> Rows:
    """Return what must come out, worked out by hand but for the closing users."""
    history = [
        {"orders": 1, "total_cents": 100, "first_ts": T0, "last_ts": T0},
        {"orders": 2, "total_cents": 150, "first_ts": T0, "last_ts": T0 + 1_000},
        {"orders": 3, "total_cents": 250, "first_ts": T0, "last_ts": T0 + 2_000},
        {"orders": 4, "total_cents": 350, "first_ts": T0, "last_ts": T0 + 400_000},
        {"orders": 5, "total_cents": 450, "first_ts": T0, "last_ts": T0 + 5_000},
    ]
    alert = {"user_id": "ann", "order_ids": ["o1", "o2", "o3"], "total_cents": 250, "first_ts": T0, "last_ts": T0 + 2_000}
    session = {
        "user_id": "ann",
        "window_start": T0,
        "window_end": T0 + 5_000 + HOUR // 2,
        "views": 2,
        "pages": 2,
        "first_page": "home",
        "last_page": "cart",
    }
    rows: Rows = {topic: [] for topic in TOPICS}
    rows["sessions"] = [row("ann", session, 0)]
    rows["fraud-alerts"] = [row("ann", alert, 0)]
    rows["first-orders"] = [
        row("ann", {"user_id": "ann", "order_id": "o1", "ts": T0, "amount_cents": 100}, 0),
        row("bob", {"user_id": "bob", "order_id": "o6", "ts": T0 + 60_000, "amount_cents": 100}, 1),
    ]
    rows["user-history"] = [row("ann", value, offset) for offset, value in enumerate(history)]
    rows["user-history"].append(row("bob", {"orders": 1, "total_cents": 100, "first_ts": T0 + 60_000, "last_ts": T0 + 60_000}, 9))
    rows["orders-late"] = [row("EUR", json.loads(ORDERS[5]), 0)]
    rows["revenue"] = [
        row(
            "EUR", {"currency": "EUR", "window_start": start, "window_end": start + 60_000, "orders": count, "revenue_cents": cents}, offset
        )
        for offset, (start, count, cents) in enumerate([(T0, 3, 250), (T0 + 60_000, 1, 100), (T0 + 360_000, 1, 100)])
    ]
    rows["viewed-late"] = [row("ann", json.loads(ORDERS[5]), 0)]
    rows["viewed-orders"] = [
        row("ann", joined("o1", T0, "home", T0), 0),
        row("ann", joined("o2", T0 + 1_000, "home", T0), 1),
        row("ann", joined("o3", T0 + 2_000, "home", T0), 2),
        row("ann", joined("o4", T0 + 400_000, None, None), 3),
        row("bob", joined("o6", T0 + 60_000, None, None), 4),
    ]
    rows["shop-dlq"] = [row("", {}, 0, {"topic": b"orders", "partition": b"0", "offset": b"2"})]
    for topic, _, value, ts in closing_records(T0 + HOUR):
        if topic == "orders":
            closing = json.loads(value)
            user = closing["user_id"]
            first = {"user_id": user, "order_id": closing["order_id"], "ts": ts, "amount_cents": 100}
            rows["first-orders"].append(row(user, first, 50))
            rows["user-history"].append(row(user, {"orders": 1, "total_cents": 100, "first_ts": ts, "last_ts": ts}, 50))
            rows["viewed-orders"].append(row(user, joined(closing["order_id"], ts, "home", ts, user), 50))
    return rows


def counts(rows: Rows) -> dict[str, tuple[int, int, int]]:
    """Return (lost, doubled, wrong) of the topics that are not right."""
    verdicts = Expected(source(), CLOSING).judge(rows)
    assert {verdict.topic for verdict in verdicts} == set(TOPICS)
    return {verdict.topic: (verdict.lost, verdict.doubled, verdict.wrong) for verdict in verdicts if not verdict.good}


def test_verdict_of_what_must_come_out_is_good_and_complete() -> None:
    assert counts(right()) == {}
    assert Expected(source(), CLOSING).is_complete(right())


@pytest.mark.parametrize("topic", EXACT)
def test_verdict_of_a_missing_row_is_lost_and_not_complete(topic: str) -> None:
    rows = right()
    del rows[topic][0]
    assert counts(rows) == {topic: (1, 0, 0)}
    assert not Expected(source(), CLOSING).is_complete(rows)


@pytest.mark.parametrize("topic", EXACT)
def test_verdict_of_a_row_that_came_twice_is_doubled(topic: str) -> None:
    rows = right()
    rows[topic].append(rows[topic][0]._replace(offset=70))
    assert counts(rows) == {topic: (0, 1, 0)}


@pytest.mark.parametrize(
    ("topic", "field"),
    [
        ("sessions", "views"),
        ("fraud-alerts", "total_cents"),
        ("first-orders", "order_id"),
        ("revenue", "orders"),
        ("viewed-orders", "page"),
    ],
)
def test_verdict_of_a_row_with_another_value_is_wrong(topic: str, field: str) -> None:
    rows = right()
    value = json.loads(rows[topic][0].value or b"")
    rows[topic][0] = row(rows[topic][0].key, {**value, field: 77}, 0)
    assert counts(rows) == {topic: (0, 0, 1)}


def test_verdict_of_rows_out_of_their_keys_order_is_wrong() -> None:
    rows = right()
    first, second = rows["user-history"][:2]
    rows["user-history"][:2] = [second._replace(offset=0), first._replace(offset=1)]
    assert counts(rows) == {"user-history": (0, 0, 2)}


def test_verdict_of_a_late_order_that_came_twice_is_doubled_and_its_minute_wrong() -> None:
    rows = right()
    rows["orders-late"].append(rows["orders-late"][0]._replace(offset=1))
    assert counts(rows) == {"orders-late": (0, 1, 0), "revenue": (0, 0, 1)}


def test_verdict_of_an_order_on_time_that_was_called_late_is_wrong() -> None:
    rows = right()
    rows["orders-late"].append(row("EUR", json.loads(ORDERS[0]), 1))
    assert counts(rows) == {"orders-late": (0, 0, 1), "revenue": (0, 0, 1)}


def test_verdict_of_an_order_that_may_be_late_but_was_counted_is_good() -> None:
    rows = right()
    del rows["orders-late"][0]
    sums = {"currency": "EUR", "window_start": T0, "window_end": T0 + 60_000, "orders": 4, "revenue_cents": 350}
    rows["revenue"][0] = row("EUR", sums, 0)
    assert counts(rows) == {}


def the_closing_session() -> Row:
    return row(
        "closing-0",
        {
            "user_id": "closing-0",
            "window_start": CLOSING,
            "window_end": CLOSING,
            "views": 1,
            "pages": 1,
            "first_page": "home",
            "last_page": "home",
        },
        60,
    )


def the_closing_minute() -> Row:
    sums = {"currency": "EUR", "window_start": CLOSING, "window_end": CLOSING + 60_000, "orders": PARTITIONS, "revenue_cents": 1_200}
    return row("EUR", sums, 60)


@pytest.mark.parametrize(("topic", "make"), [("sessions", the_closing_session), ("revenue", the_closing_minute)])
def test_verdict_of_what_only_the_closing_records_opened_is_wrong(topic: str, make: Callable[[], Row]) -> None:
    rows = right()
    rows[topic].append(make())
    assert counts(rows) == {topic: (0, 0, 1)}


def test_verdict_of_an_order_that_the_join_took_although_it_came_late_is_good() -> None:
    rows = right()
    del rows["viewed-late"][0]  # the watermark of the views had not got so far
    for page, viewed_ts, offset in (("home", T0, 5), ("cart", T0 + 5_000, 6)):
        rows["viewed-orders"].append(row("ann", joined("o5", T0 + 5_000, page, viewed_ts), offset))
    assert counts(rows) == {}
    assert Expected(source(), CLOSING).is_complete(rows)
    del rows["viewed-orders"][-1]
    assert counts(rows) == {"viewed-orders": (1, 0, 0)}


def test_verdict_of_an_order_on_time_that_the_join_called_late_is_wrong() -> None:
    rows = right()
    rows["viewed-late"].append(row("ann", json.loads(ORDERS[0]), 1))
    del rows["viewed-orders"][0]
    assert counts(rows) == {"viewed-late": (0, 0, 1)}
