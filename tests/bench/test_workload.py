"""The bench's oracle and comparison, on cases small enough to do by hand."""

import orjson
import pytest

from tests.bench.throughput import compare
from tests.bench.workload import BEGIN_MS, DISORDER_MS, PARTITIONS, answers, flush_orders, minutes, orders, partition_of, patterns, sessions


def test_minutes_three_orders_two_windows() -> None:
    assert minutes({"ann": [(0, 5), (59_999, 7), (60_000, 1)]}) == {("ann", 0): (12, 2), ("ann", 60_000): (1, 1)}


def test_sessions_exactly_a_gap_apart_are_one() -> None:
    assert sessions({"ann": [(0, 5), (60_000, 7), (120_001, 1)]}) == {("ann", 0, 120_000): (12, 2), ("ann", 120_001, 180_001): (1, 1)}


def test_patterns_skip_past_the_last_and_keep_the_limit() -> None:
    at = [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (300_004, 1), (300_005, 1)]
    assert patterns({"ann": at}) == {("ann", 0, 1, 2): ()}
    assert patterns({"ann": [*at[:5], (300_003, 1)]}) == {("ann", 0, 1, 2): ()}, "exactly five minutes is not within five minutes"
    assert patterns({"ann": [*at[:5], (300_002, 1)]}) == {("ann", 0, 1, 2): (), ("ann", 3, 4, 300_002): ()}


def test_orders_are_the_same_each_time_and_late_by_a_limit() -> None:
    first, second = list(orders(2_000)), list(orders(2_000))
    assert first == second
    ahead = BEGIN_MS - DISORDER_MS
    for order in first:
        ts = order["ts"]
        assert isinstance(ts, int)
        assert ts > ahead - DISORDER_MS
        ahead = max(ahead, ts)


def test_countries_add_up_what_users_do() -> None:
    totals = answers(2_000, ["A", "A0"])
    assert sum(total for total, _ in totals["A"].values()) == sum(total for total, _ in totals["A0"].values())
    assert sum(count for _, count in totals["A"].values()) == 2_000
    first = next(orders(2_000))
    assert (first["country"], int(first["ts"]) // 60_000 * 60_000) in totals["A"]


def test_flush_orders_reach_every_partition_twice() -> None:
    placed = [(partition, partition_of(str(order["user_id"]).encode())) for partition, order in flush_orders()]
    assert placed == [(number, number) for number in range(PARTITIONS) for _ in range(2)]


ROW = {"key": "u1", "window_start": 0, "window_end": 60_000, "sum": 3, "count": 2}


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([ROW], (1, 0)),
        ([ROW, {**ROW, "key": "flush-1"}], (1, 0)),
        ([], (0, 1)),
        ([ROW, ROW], (1, 1)),
        ([{**ROW, "sum": 4}], (1, 1)),
        ([ROW, {**ROW, "window_start": 60_000}], (2, 1)),
    ],
)
def test_compare_counts_what_is_wrong(rows: list[dict[str, object]], found: tuple[int, int]) -> None:
    assert compare("A0", [orjson.dumps(row) for row in rows], {("u1", 0): (3, 2)}) == found
