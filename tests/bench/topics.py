"""What the bench asks of the broker: topics made, orders sent, results read, all with plain aiokafka."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.bench.workload import PARTITIONS, Order, flush_orders, orders, partition_of

_BATCH_BYTES = 256 * 1024
_UNSENT_MAX = 32
_TRIES, _TRIES_APART = 1_200, 100
"""A minute; a topic is asked for every five seconds."""


async def make_topics(bootstrap: str, names: Sequence[str]) -> None:
    """Create topics that keep what they get, and wait until they can be used.

    The driver's call does not raise what a broker answers, such as that it was too busy just now: what is missing is asked for again.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    answer: object = None
    try:
        config = {"retention.ms": "-1"}
        for attempt in range(_TRIES):
            missing = set(names) - set(await admin.list_topics())
            if not missing:
                return
            if attempt % _TRIES_APART == 0:
                answer = await admin.create_topics([NewTopic(name, PARTITIONS, 1, topic_configs=config) for name in sorted(missing)])
            await asyncio.sleep(0.05)
    finally:
        await admin.close()
    raise RuntimeError(f"the broker did not make the topics {', '.join(names)}: {answer}")


async def send_orders(bootstrap: str, topic: str, number: int) -> None:
    """Write the orders and then the records that close every window."""
    placed = ((partition_of(str(order["user_id"]).encode()), order) for order in orders(number))
    await send(bootstrap, topic, chain(placed, flush_orders()))


async def send(bootstrap: str, topic: str, placed: Iterable[tuple[int, Order]]) -> None:
    """Write (partition, order), in large batches."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=_BATCH_BYTES, enable_idempotence=True)
    await producer.start()
    batches = {partition: producer.create_batch() for partition in range(PARTITIONS)}
    unsent: list[asyncio.Future[object]] = []

    async def add(partition: int, order: Order) -> None:
        key, value, ts = str(order["user_id"]).encode(), orjson.dumps(order), order["ts"]
        if batches[partition].append(key=key, value=value, timestamp=ts) is None:
            unsent.append(await producer.send_batch(batches[partition], topic, partition=partition))
            batches[partition] = producer.create_batch()
            batches[partition].append(key=key, value=value, timestamp=ts)
            while len(unsent) > _UNSENT_MAX:
                await unsent.pop(0)

    try:
        for partition, order in placed:
            await add(partition, order)
        unsent += [await producer.send_batch(batch, topic, partition=partition) for partition, batch in batches.items()]
        await asyncio.gather(*unsent)
    finally:
        await producer.stop()


class CommittedReader:
    """Reads a topic as its readers see it: committed transactions only. Use it as an `async with`."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=10,
        )

    async def __aenter__(self) -> "CommittedReader":
        await self._consumer.start()
        self._consumer.assign(self.partitions)
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._consumer.stop()

    async def stable_ends(self) -> list[int]:
        """Return the last stable offset of each partition: up to there everything can be read."""
        ends: Mapping[TopicPartition, int] = await self._consumer.end_offsets(self.partitions)
        return [ends[partition] for partition in self.partitions]

    async def poll(self) -> list[tuple[int, int, bytes]]:
        """Return what came in within 100 ms, as (partition, offset, value)."""
        found = await self._consumer.getmany(timeout_ms=100)
        return [(record.partition, record.offset, record.value) for records in found.values() for record in records]

    async def everything(self) -> tuple[list[bytes], list[int]]:
        """Return all values up to now, and the offset of the last one in each partition (-1 for none)."""
        ends = await self.stable_ends()
        values: list[bytes] = []
        last = [-1] * PARTITIONS
        await self._consumer.seek_to_beginning(*self.partitions)
        positions = [0] * PARTITIONS
        while any(position < end for position, end in zip(positions, ends, strict=True)):
            for partition, offset, value in await self.poll():
                values.append(value)
                last[partition] = max(last[partition], offset)
            positions = [await self._consumer.position(partition) for partition in self.partitions]
        return values, last
