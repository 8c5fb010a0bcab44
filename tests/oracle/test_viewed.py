"""The oracle of the join, against cases worked out by hand."""

import json

from tests.oracle.shop import compute
from tests.oracle.viewed import may_be_late, viewed_given_late

MINUTE = 60_000


def order(name: str, ts: int) -> bytes:
    return json.dumps(
        {"order_id": name, "user_id": "u", "amount_cents": 1, "currency": "EUR", "country": "DE", "items": 1, "ts": ts}
    ).encode()


def view(page: str, ts: int) -> bytes:
    return json.dumps({"user_id": "u", "page": page, "ts": ts}).encode()


def test_orders_meet_the_views_of_the_three_minutes_before() -> None:
    shop = compute(
        [order("a", 3 * MINUTE), order("b", 7 * MINUTE)], [view("home", 0), view("cart", 3 * MINUTE), view("help", 3 * MINUTE + 1)]
    )
    rows = [(row["order_id"], row["page"]) for _, row in viewed_given_late(shop, [], [])]
    assert rows == [("a", "home"), ("a", "cart"), ("b", None)]


def test_what_was_late_joins_nothing_as_often_as_it_was_late() -> None:
    shop = compute([order("a", MINUTE), order("a", MINUTE)], [view("home", 0), view("cart", MINUTE)])
    first, second = json.loads(order("a", MINUTE)), json.loads(view("home", 0))
    assert [row["page"] for _, row in viewed_given_late(shop, [first], [second])] == ["cart"]


def test_only_what_its_own_partition_has_passed_may_be_late() -> None:
    shop = compute([order("a", 10 * MINUTE), order("b", 10 * MINUTE - 30_001), order("c", 10 * MINUTE - 30_002)], [])
    assert [value["order_id"] for value in may_be_late(shop.orders)] == ["c"]
