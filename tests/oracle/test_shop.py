"""The oracle itself, against cases worked out by hand."""

import json
from typing import Any

import pytest

from tests.oracle.shop import compute, murmur2

MINUTE = 60_000
T0 = 1_767_225_600_000


def order(number: int, ts: int, **other: Any) -> bytes:
    fields = {"order_id": f"o{number}", "user_id": "u", "amount_cents": 100, "currency": "EUR", "country": "DE", "items": 1, "ts": T0 + ts}
    return json.dumps(fields | other).encode()


def view(page: str, ts: int, user: str = "u") -> bytes:
    return json.dumps({"user_id": user, "page": page, "ts": T0 + ts}).encode()


@pytest.mark.parametrize(
    ("text", "signed"),
    [("21", -973932308), ("foobar", -790332482), ("a-little-bit-long-string", -985981536), ("abc", 479470107)],
)
def test_murmur2_of_known_texts_is_what_kafka_says(text: str, signed: int) -> None:
    assert murmur2(text.encode()) == signed & 0xFFFFFFFF


def test_sessions_within_the_gap_are_one_and_beyond_it_two() -> None:
    shop = compute([], [view("a", 0), view("b", 30 * MINUTE), view("a", 60 * MINUTE + 1)])
    first, second = shop.sessions["u"]
    assert first == {
        "user_id": "u", "window_start": T0, "window_end": T0 + 60 * MINUTE, "views": 2, "pages": 2, "first_page": "a", "last_page": "b"
    }  # fmt: skip
    assert (second["window_start"], second["views"]) == (T0 + 60 * MINUTE + 1, 1)


def test_sessions_out_of_order_are_joined_by_the_view_between_them() -> None:
    shop = compute([], [view("a", 0), view("c", 30 * MINUTE + 20_000), view("b", 20 * MINUTE)])
    (session,) = shop.sessions["u"]
    assert (session["first_page"], session["last_page"], session["views"], shop.late_page_views) == ("a", "c", 3, 0)


def test_sessions_of_a_view_after_the_watermark_drop_it() -> None:
    shop = compute([], [view("a", 0), view("b", 90 * MINUTE), view("c", 10 * MINUTE)])
    assert [session["views"] for session in shop.sessions["u"]] == [1, 1]
    assert shop.late_page_views == 1


def test_sessions_closed_by_the_watermark_take_no_more_views() -> None:
    shop = compute([], [view("a", 0), view("c", 40 * MINUTE), view("b", 20 * MINUTE)])
    assert [(session["first_page"], session["views"]) for session in shop.sessions["u"]] == [("a", 1), ("b", 2)]


def test_alerts_of_six_fast_orders_are_two() -> None:
    shop = compute([order(number, number * MINUTE) for number in range(6)], [])
    assert [alert["order_ids"] for alert in shop.alerts["u"]] == [["o0", "o1", "o2"], ["o3", "o4", "o5"]]


def test_alerts_of_three_orders_need_less_than_five_minutes() -> None:
    assert compute([order(0, 0), order(1, MINUTE), order(2, 5 * MINUTE)], []).alerts == {}
    assert len(compute([order(0, 0), order(1, MINUTE), order(2, 5 * MINUTE - 1)], []).alerts["u"]) == 1


def test_alerts_follow_event_time_and_leave_late_orders_out() -> None:
    shop = compute([order(0, 60_000), order(1, 40_000), order(2, 70_000), order(3, 39_999)], [])
    assert shop.alerts["u"][0]["order_ids"] == ["o1", "o0", "o2"]
    assert shop.late_fraud_orders == 1


def test_revenue_counts_every_order_but_the_late_ones() -> None:
    shop = compute([order(0, 0), order(1, 2 * MINUTE), order(2, 1), order(3, 2 * MINUTE - 29_000)], [])
    assert [late["order_id"] for late in shop.may_be_late()] == ["o2"]
    assert shop.revenue_given_late(shop.may_be_late()) == {
        ("EUR", T0): (1, 100), ("EUR", T0 + 2 * MINUTE): (1, 100), ("EUR", T0 + MINUTE): (1, 100)
    }  # fmt: skip


def test_first_order_is_the_first_to_arrive() -> None:
    shop = compute([order(1, 20_000), order(0, 0), b"{", order(2, 1, items="x")], [])
    assert shop.first_orders["u"]["order_id"] == "o1"
    assert shop.histories["u"] == {"orders": 2, "total_cents": 200, "first_ts": T0 + 20_000, "last_ts": T0}
    assert shop.bad_orders == 2
