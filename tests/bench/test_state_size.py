"""The job with much state: its orders, and what its results are compared with."""

import orjson

from tests.bench.state_size import compare_totals, totals_of, totals_orders


def test_totals_orders_take_each_key_once_before_any_comes_again() -> None:
    users = [order["user_id"] for _, order in totals_orders(200, 100)]
    assert len(set(users[:100])) == 100
    assert set(users[100:]) < set(users[:100])


def result(key: str, total: int) -> bytes:
    return orjson.dumps({"key": key, "total": total, "ts": 0})


def test_compare_totals_finds_what_is_missing_twice_or_wrong() -> None:
    want = {"a": 5, "b": 1}
    good = [result("a", 2), result("b", 1), result("a", 5)]
    assert compare_totals(good, want, 3) == (3, 0)
    assert compare_totals(good[:2], want, 3) == (2, 2)  # one is missing, and with it the end of a total
    assert compare_totals([*good, result("a", 5)], want, 3) == (4, 2)  # one too many, and it does not grow
    assert compare_totals([*good[:2], result("a", 6)], want, 3) == (3, 1)


def test_totals_of_are_sums_over_the_same_orders() -> None:
    totals = totals_of(50, 10)
    assert sum(totals.values()) == sum(int(order["amount_cents"]) for _, order in totals_orders(50, 10))
    assert len(totals) == 10
