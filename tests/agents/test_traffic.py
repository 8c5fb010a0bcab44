"""The sample traffic: the same from the same seed, in order of arrival, with everything in it that the pipelines must cope with."""

import json
from collections import Counter, defaultdict
from itertools import islice, pairwise
from typing import Any

from agents.traffic import OUT_OF_ORDER_MS, START_MS, TrafficRecord, endless_traffic, traffic
from tests.oracle import shop

EVENTS = 20_000


def decoded(records: list[TrafficRecord]) -> list[tuple[TrafficRecord, dict[str, Any]]]:
    good = []
    for record in records:
        try:
            value = json.loads(record.value)
        except ValueError:
            continue
        if "user_id" in value and isinstance(value["ts"], int):
            good.append((record, value))
    return good


def test_traffic_of_the_same_arguments_is_the_same() -> None:
    assert list(traffic(2_000, seed=7)) == list(traffic(2_000, seed=7))
    assert list(traffic(2_000, seed=7)) != list(traffic(2_000, seed=8))


def test_traffic_has_the_number_of_records_and_arrives_in_order() -> None:
    records = list(traffic(EVENTS, seed=1))
    assert len(records) == EVENTS
    assert all(one.timestamp_ms <= other.timestamp_ms for one, other in pairwise(records))
    assert {record.topic for record in records} == {"orders", "page-views"}


def test_traffic_begins_at_the_given_epoch() -> None:
    moved = [record.timestamp_ms + 1_000_000 for record in traffic(500, seed=3)]
    assert [record.timestamp_ms for record in traffic(500, seed=3, start_ms=START_MS + 1_000_000)] == moved


def test_traffic_is_mostly_in_time_sometimes_out_of_order_and_rarely_late() -> None:
    delays = [record.timestamp_ms - value["ts"] for record, value in decoded(list(traffic(EVENTS, seed=1)))]
    assert min(delays) == 0
    assert sum(0 < delay <= OUT_OF_ORDER_MS for delay in delays) > EVENTS // 10
    assert 0 < sum(delay > OUT_OF_ORDER_MS + 5_000 for delay in delays) < EVENTS // 50


def test_traffic_holds_duplicates_and_bad_records_of_each_kind() -> None:
    records = list(traffic(EVENTS, seed=1))
    copies = Counter(value["order_id"] for record, value in decoded(records) if record.topic == "orders")
    assert max(copies.values()) == 2
    kinds: Counter[str] = Counter()
    for record in records:
        try:
            value = json.loads(record.value)
        except ValueError:
            kinds["not JSON"] += 1
            continue
        kinds["field missing"] += "user_id" not in value
        kinds["wrong type"] += not isinstance(value["ts"], int)
    assert all(kinds[kind] > 0 for kind in ("not JSON", "field missing", "wrong type"))


def test_traffic_of_some_size_gives_every_pipeline_something_to_find() -> None:
    values: dict[str, list[bytes]] = defaultdict(list)
    for record in traffic(EVENTS, seed=1):
        values[record.topic].append(record.value)
    expected = shop.compute(values["orders"], values["page-views"])
    assert sum(map(len, expected.alerts.values())) > 20
    assert sum(map(len, expected.sessions.values())) > 500
    assert max(map(len, expected.sessions.values())) > 2
    assert expected.may_be_late() and expected.late_page_views and expected.late_fraud_orders
    assert expected.bad_orders and expected.bad_page_views


def test_endless_traffic_keeps_its_rate() -> None:
    records = list(islice(endless_traffic(seed=1, users=100, records_per_second=50, start_ms=0), EVENTS))
    seconds = (records[-1].timestamp_ms - records[EVENTS // 2].timestamp_ms) / 1_000
    assert 35 < EVENTS / 2 / seconds < 70
