"""The input of a round: the shop's sample traffic, spread over the time that the faults take, then closing records.

Where the faults take longer than that, an order a second in every partition keeps the tasks at work: without input there are no
results by which to see that a task has recovered.

A closing record is an order, or a page view, of a user of its own in every partition, three hours of event time later than
anything before: it closes all windows and patterns, so that a round needs no minute of quiet. They are ordinary records to the
shop, and to the oracle; what they open themselves (a window that nothing closes) must not come out.
"""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import count, islice

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from agents.records import Order, PageView
from agents.traffic import TrafficRecord, traffic
from tests.oracle.shop import PARTITIONS, murmur2

SOURCES = ("orders", "page-views")
CLOSING_USER = "closing-"
_LATER_MS = 3 * 3_600_000
_TICK_S = 0.05
_SHARE_S = 15.0
_UNSENT_MAX = 5_000


def partition_of(key: bytes) -> int:
    """Return where a key goes."""
    return (murmur2(key) & 0x7FFFFFFF) % PARTITIONS


def closing_records(after_ms: int) -> Iterator[TrafficRecord]:
    """Yield an order and a page view for each partition, long after a time."""
    ts = after_ms + _LATER_MS
    for user in users_everywhere(CLOSING_USER):
        yield _order(f"order-of-{user}", user, ts)
        yield TrafficRecord("page-views", user.encode(), msgspec.json.encode(PageView(user, "home", ts)), ts)


def users_everywhere(prefix: str) -> list[str]:
    """Return a user for each partition."""
    names = (f"{prefix}{number}" for number in count())
    users: dict[int, str] = {}
    while len(users) < PARTITIONS:
        name = next(names)
        users.setdefault(partition_of(name.encode()), name)
    return list(users.values())


def _order(order_id: str, user: str, ts: int) -> TrafficRecord:
    order = Order(order_id, user, 100, "EUR", "DE", 1, ts)
    return TrafficRecord("orders", user.encode(), msgspec.json.encode(order), ts)


class Feed:
    """Sends a round's input, so that there is always some traffic while faults go on: a share of what is left, then the rest.

    Attributes:
        sent: Records acknowledged by the broker, closing records too.
        closing_ms: Event time of the closing records, once they are sent.
    """

    def __init__(self, bootstrap: str, events: int, seed: int) -> None:
        self._bootstrap = bootstrap
        self._records = list(traffic(events, seed=seed))
        self._hurry = asyncio.Event()
        self._failures: list[BaseException] = []
        self._unacknowledged = 0
        self.sent = 0
        self.closing_ms = max(record.timestamp_ms for record in self._records) + _LATER_MS

    def finish(self) -> None:
        """Let `run` send what is left at once, and end."""
        self._hurry.set()

    async def run(self) -> None:
        """Send everything; returns when it is acknowledged."""
        producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap, enable_idempotence=True, linger_ms=5, request_timeout_ms=60_000)
        await producer.start()
        try:
            records = iter(self._records)
            left = len(self._records)
            while left and not self._hurry.is_set():
                share = max(1, int(left * _TICK_S / _SHARE_S))
                await self._send(producer, list(islice(records, share)))
                left -= share
                await asyncio.sleep(_TICK_S)
            await self._keep_busy(producer)
            await self._send(producer, list(records))
            await self._drain(producer, 0)
            await self._send(producer, list(closing_records(self.closing_ms - _LATER_MS)))
            await self._drain(producer, 0)
        finally:
            await producer.stop()

    async def _keep_busy(self, producer: AIOKafkaProducer) -> None:
        """Send an order a second to every partition until `finish`; event time goes on from what was sent."""
        users = users_everywhere("regular-")
        for second in count():
            try:
                async with asyncio.timeout(1.0):
                    await self._hurry.wait()
                    return
            except TimeoutError:
                self.closing_ms += 1_000
            await self._send(producer, [_order(f"{user}-{second}", user, self.closing_ms - _LATER_MS) for user in users])

    async def _send(self, producer: AIOKafkaProducer, records: Sequence[TrafficRecord]) -> None:
        for topic, key, value, timestamp_ms in records:
            sent = await producer.send(topic, value, key, partition=partition_of(key), timestamp_ms=timestamp_ms)
            sent.add_done_callback(self._acknowledged)
            self._unacknowledged += 1
        await self._drain(producer, _UNSENT_MAX)

    def _acknowledged(self, sent: "asyncio.Future[object]") -> None:
        self._unacknowledged -= 1
        failure = sent.exception()
        if failure is None:
            self.sent += 1
        else:
            self._failures.append(failure)

    async def _drain(self, producer: AIOKafkaProducer, most: int) -> None:
        """Wait until at most so many records are not acknowledged yet."""
        while self._unacknowledged > most:  # noqa: ASYNC110 - looked at rarely
            await asyncio.sleep(_TICK_S)
        if self._failures:
            raise self._failures[0]


class Input:
    """What lies in the source topics, as it lies there: the oracle computes from this, not from what was meant to be sent.

    Attributes:
        values: Values of each topic, by partition and in the order of the log.
        places: (partition, offset) of each, in the same order.
    """

    def __init__(self) -> None:
        self.values: dict[str, list[bytes]] = {topic: [] for topic in SOURCES}
        self.places: dict[str, list[tuple[int, int]]] = {topic: [] for topic in SOURCES}

    def __len__(self) -> int:
        return sum(map(len, self.values.values()))


async def read_input(bootstrap: str) -> Input:
    """Read the source topics to their ends."""
    found = Input()
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        for topic in SOURCES:
            for number in range(PARTITIONS):
                partition = TopicPartition(topic, number)
                consumer.assign([partition])
                end = (await consumer.end_offsets([partition]))[partition]
                while await consumer.position(partition) < end:
                    for record in (await consumer.getmany(partition, timeout_ms=500)).get(partition, []):
                        found.values[topic].append(record.value)
                        found.places[topic].append((number, record.offset))
    finally:
        await consumer.stop()
    return found
