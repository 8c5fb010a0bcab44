"""Sample traffic of the shop: people who look around, some who buy, a few who cheat, and the mess of real delivery.

    journeys ──► page views and orders with an event time ──► delivery ──► records in order of arrival, over both topics

- A few users come often, most of them rarely. A visit is some page views, seconds to minutes apart, perhaps with an order.
- Fraud is a burst of three to seven orders within a few minutes.
- Delivery: most records arrive at once, a fifth up to 30 s late (out of order, but in time for `bounded("30s")`), one in 200
  minutes to hours late. One order in 200 arrives twice. One record in 1,000 is bad: not JSON, a field missing, a wrong type.

Everything follows from the arguments: same (events, seed, start_ms), same records. Records have arrival as their Kafka
timestamp and the user as their key, bad ones too.
"""

import heapq
from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import NamedTuple

import msgspec

from agents.records import Order, PageView

START_MS = 1_767_225_600_000
"""2026-01-01T00:00:00Z, the default epoch of the traffic."""

SPAN_MS = 6 * 3_600_000
OUT_OF_ORDER_MS = 30_000
_USERS_MIN, _EVENTS_PER_USER = 20, 40
_RECORDS_PER_JOURNEY = 4
_PAGES = ["home", "search", "cart", "help", *(f"product-{number}" for number in range(40))]
_CURRENCIES = ["EUR", "USD", "GBP", "JPY", "CHF", "SEK"]
_CURRENCY_WEIGHTS = [40, 30, 12, 8, 6, 4]
_COUNTRIES = ["DE", "FR", "US", "GB", "JP", "CH", "SE", "IT"]

_encode = msgspec.json.Encoder().encode


class TrafficRecord(NamedTuple):
    """One record as a producer would send it; `timestamp_ms` is the time of arrival."""

    topic: str
    key: bytes
    value: bytes
    timestamp_ms: int


def traffic(events: int, *, seed: int, start_ms: int = START_MS) -> Iterator[TrafficRecord]:
    """Yield the given number of records, about six hours of event time whatever the number, in order of arrival."""
    users = max(_USERS_MIN, events // _EVENTS_PER_USER)
    return islice(_deliver(Random(seed), users=users, interval_ms=SPAN_MS / max(events, 1), start_ms=start_ms), events)


def endless_traffic(*, seed: int, users: int, records_per_second: float, start_ms: int) -> Iterator[TrafficRecord]:
    """Yield records for ever; their event times advance so that on average `records_per_second` fall into each second."""
    return _deliver(Random(seed), users=users, interval_ms=1_000 / records_per_second, start_ms=start_ms)


def _deliver(random: Random, *, users: int, interval_ms: float, start_ms: int) -> Iterator[TrafficRecord]:
    """Yield records in order of arrival; a record waits in the heap until no journey can bring an earlier one."""
    waiting: list[tuple[int, int, TrafficRecord]] = []
    number = 0
    for begin_ms, journey in _journeys(random, users, interval_ms, start_ms):
        while waiting and waiting[0][0] <= begin_ms:
            yield heapq.heappop(waiting)[2]
        for record in journey:
            for arrival_ms, delivered in _arrivals(random, record):
                number += 1
                heapq.heappush(waiting, (arrival_ms, number, delivered))


def _journeys(random: Random, users: int, interval_ms: float, start_ms: int) -> Iterator[tuple[int, list[Order | PageView]]]:
    """Yield (time of its first record, records) of each journey, by that time."""
    clock_ms = float(start_ms)
    orders = 0
    while True:
        clock_ms += random.expovariate(1 / (interval_ms * _RECORDS_PER_JOURNEY))
        begin_ms = int(clock_ms)
        user_id = f"user-{int(users * random.random() ** 3)}"
        if random.random() < 0.02:
            journey: list[Order | PageView] = list(_burst(random, user_id, begin_ms, orders))
        else:
            journey = list(_visit(random, user_id, begin_ms, orders))
        orders += len(journey)
        yield begin_ms, journey


def _visit(random: Random, user_id: str, begin_ms: int, number: int) -> Iterator[Order | PageView]:
    ts = begin_ms
    for step in range(random.randint(1, 5)):
        yield PageView(user_id, "home" if step == 0 and random.random() < 0.6 else random.choice(_PAGES), ts)
        ts += random.randint(1_000, 180_000) if random.random() < 0.97 else random.randint(1_200_000, 2_400_000)
    for bought in range(random.choices((0, 1, 2), (35, 50, 15))[0]):
        yield _order(random, user_id, ts, number + bought)
        ts += random.randint(30_000, 600_000)


def _burst(random: Random, user_id: str, begin_ms: int, number: int) -> Iterator[Order]:
    ts = begin_ms
    for step in range(random.randint(3, 7)):
        yield _order(random, user_id, ts, number + step)
        ts += random.randint(500, 90_000)


def _order(random: Random, user_id: str, ts: int, number: int) -> Order:
    currency = random.choices(_CURRENCIES, _CURRENCY_WEIGHTS)[0]
    return Order(f"order-{number}", user_id, random.randint(199, 49_999), currency, random.choice(_COUNTRIES), random.randint(1, 6), ts)


def _arrivals(random: Random, record: Order | PageView) -> Iterator[tuple[int, TrafficRecord]]:
    """Yield what arrives of one record: once, or an order twice, or something broken."""
    luck = random.random()
    delay_ms = 0 if luck < 0.795 else random.randint(0, OUT_OF_ORDER_MS) if luck < 0.995 else random.randint(60_000, 7_200_000)
    arrival_ms = record.ts + delay_ms
    topic = "orders" if isinstance(record, Order) else "page-views"
    key = record.user_id.encode()
    value = _encode(record) if random.random() >= 0.001 else _broken(random, record)
    yield arrival_ms, TrafficRecord(topic, key, value, arrival_ms)
    if topic == "orders" and random.random() < 0.005:
        again_ms = arrival_ms + random.randint(1, 5_000)
        yield again_ms, TrafficRecord(topic, key, value, again_ms)


def _broken(random: Random, record: Order | PageView) -> bytes:
    fields = msgspec.to_builtins(record)
    kind = random.randrange(3)
    if kind == 0:
        return _encode(record)[:-7]
    if kind == 1:
        del fields["user_id"]
    else:
        fields["ts"] = "yesterday"
    return _encode(fields)
