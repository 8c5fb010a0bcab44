"""Sample payments for the sample traffic's orders: most are paid soon, some too late, some never, and a few cards are tried out first.

    traffic ──► orders ──► with_payments ──► the traffic and its payments, in order of arrival

They follow from the orders and a seed of their own, so the traffic itself is the same with or without them.
"""

import heapq
from collections.abc import Iterable, Iterator
from random import Random

import msgspec

from agents.records import Order
from agents.traffic import TrafficRecord
from agents.watch.records import Payment

PAYMENTS = "payments"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Order).decode


def payments_for(records: Iterable[TrafficRecord], *, seed: int) -> Iterator[TrafficRecord]:
    """Yield only the payments of `with_payments`."""
    return (record for record in with_payments(records, seed=seed) if record.topic == PAYMENTS)


def with_payments(records: Iterable[TrafficRecord], *, seed: int) -> Iterator[TrafficRecord]:
    """Yield records, and payments for the orders among them; both in order of arrival. What is still to be paid comes at the end.

    Of a hundred orders 90 are paid within 20 minutes, 4 after 31 to 90 minutes, 6 never. With one in twenty a payment of less than two
    euros comes within half a minute after the order, by which a card is tried out; now and then a large order of the user follows.
    """
    random = Random(seed)
    waiting: list[tuple[int, int, TrafficRecord]] = []
    number = 0
    seen: set[str] = set()
    for record in records:
        while waiting and waiting[0][0] <= record.timestamp_ms:
            yield heapq.heappop(waiting)[2]
        yield record
        order = _order(record)
        if order is None or order.order_id in seen:
            continue
        seen.add(order.order_id)
        for payment in _payments(random, order):
            # Never before the order that it is for; it is as late as that order.
            arrival_ms = max(payment.ts, record.timestamp_ms)
            number += 1
            heapq.heappush(waiting, (arrival_ms, number, TrafficRecord(PAYMENTS, record.key, _encode(payment), arrival_ms)))
    while waiting:
        yield heapq.heappop(waiting)[2]


def _payments(random: Random, order: Order) -> Iterator[Payment]:
    if random.random() < 0.05:
        cents, ts = random.randint(1, 199), order.ts + random.randint(1_000, 30_000)
        yield Payment(f"{order.order_id}-test", order.order_id, order.user_id, cents, ts)
    luck = random.random()
    if luck < 0.94:
        delay_ms = random.randint(5_000, 1_200_000) if luck < 0.9 else random.randint(1_860_000, 5_400_000)
        yield Payment(f"{order.order_id}-paid", order.order_id, order.user_id, order.amount_cents, order.ts + delay_ms)


def _order(record: TrafficRecord) -> Order | None:
    if record.topic != "orders":
        return None
    try:
        return _decode(record.value)
    except msgspec.MsgspecError:
        return None
