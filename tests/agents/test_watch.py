"""The watch over the shop's topics, each pipeline by hand, and the sample payments."""

import json
from itertools import islice, pairwise
from pathlib import Path

from agents.payments import payments_for, with_payments
from agents.records import Order, PageView
from agents.traffic import endless_traffic, traffic
from agents.traffic_command import take
from agents.watch import app
from agents.watch.records import Payment
from engine.testing import TestDriver

RULES = Path(__file__).parents[2] / "agents" / "watch" / "rules.jsonl"
MINUTE = 60_000


def order(name: str, ts: int, cents: int = 5_000, country: str = "DE") -> Order:
    return Order(name, "ann", cents, "EUR", country, 1, ts)


def test_watch_order_without_a_payment_in_half_an_hour_is_unpaid() -> None:
    with TestDriver(app) as driver:
        for number, minutes in enumerate((0, 1, 2)):
            driver.send("orders", order(f"o{number}", minutes * MINUTE))
        driver.send("payments", Payment("p0", "o0", "ann", 5_000, 10 * MINUTE))
        driver.send("payments", Payment("p1", "o1", "ann", 4, 11 * MINUTE))  # a few cents pay nothing
        driver.send("payments", Payment("p2", "o2", "ann", 5_000, 33 * MINUTE))  # too late
        driver.finish()
        assert [record.value["order_id"] for record in driver.read("unpaid-orders")] == ["o1", "o2"]


def test_watch_small_payment_then_a_large_order_is_a_probe_by_its_live_rule() -> None:
    with TestDriver(app) as driver:
        for line in RULES.read_text().splitlines():
            rule = json.loads(line)
            driver.send("watch-rules", json.dumps(rule["value"]).encode(), key=rule["key"])
        driver.send("payments", Payment("p", "o0", "ann", 50, MINUTE))
        driver.send("orders", order("small", 2 * MINUTE, 4_999))
        driver.send("orders", order("large", 10 * MINUTE, 5_000))
        driver.send("orders", order("late", 12 * MINUTE, 9_000))
        driver.finish()
        (alert,) = driver.read("probe-alerts")
        assert (alert.value["rule"], alert.value["key"]) == ("probe", "ann")
        assert alert.value["fields"] == {"test_ts": MINUTE, "test_cents": 50, "order_id": "large", "amount_cents": 5_000}
        assert driver.read("shop-watch-dlq") == []


def test_watch_journey_that_jumps_between_countries_is_odd() -> None:
    with TestDriver(app) as driver:
        driver.send("orders", order("o1", 0))
        for minutes in (1, 2):
            driver.send("page-views", PageView("ann", "home", minutes * MINUTE))
        driver.send("orders", order("o2", 3 * MINUTE, country="JP"))
        driver.send("page-views", PageView("ann", "home", 4 * MINUTE))
        driver.send("orders", order("o3", 5 * MINUTE, country="JP"))
        driver.finish()
        (journey,) = driver.read("odd-journeys")
        assert journey.value == {
            "user_id": "ann", "countries": ["DE", "JP"], "order_ids": ["o1", "o2"], "views": 2, "first_ts": 0, "last_ts": 3 * MINUTE
        }  # fmt: skip


def test_payments_follow_from_the_orders_and_arrive_in_order() -> None:
    records = list(traffic(2_000, seed=1))
    payments = list(payments_for(records, seed=5))
    assert payments == list(payments_for(records, seed=5)) != list(payments_for(records, seed=6))
    assert all(one.timestamp_ms <= other.timestamp_ms for one, other in pairwise(payments))
    orders = {json.loads(record.value)["order_id"] for record in records if record.topic == "orders" and record.value.endswith(b"}")}
    paid = {json.loads(payment.value)["order_id"] for payment in payments}
    assert paid <= orders and 0.8 < len(paid) / len(orders) < 1


def test_with_payments_leaves_the_traffic_as_it_is_and_keeps_the_order_of_arrival() -> None:
    records = list(traffic(2_000, seed=1))
    both = list(with_payments(records, seed=5))
    assert [record for record in both if record.topic != "payments"] == records
    assert [record for record in both if record.topic == "payments"] == list(payments_for(records, seed=5))
    assert all(one.timestamp_ms <= other.timestamp_ms for one, other in pairwise(both))


def test_traffic_command_counts_orders_and_views_and_sends_payments_in_between() -> None:
    source = with_payments(endless_traffic(seed=1, users=50, records_per_second=2, start_ms=0), seed=1)
    pieces = [list(take(source, count)) for count in (0, 1, 700, 1_300)]
    assert [sum(record.topic != "payments" for record in piece) for piece in pieces] == [0, 1, 700, 1_300]
    assert sum(record.topic == "payments" for record in pieces[3]) > 100
    assert list(with_payments(islice(endless_traffic(seed=1, users=50, records_per_second=2, start_ms=0), 2_001), seed=1))[
        : sum(map(len, pieces))
    ] == [record for piece in pieces for record in piece]
