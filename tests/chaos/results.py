"""What a reader of the results sees: every committed record of the output topics, and when it became visible."""

import asyncio
import time
from collections.abc import Iterable
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.oracle.shop import PARTITIONS

OWN_PARTITION = ("sessions", "fraud-alerts", "first-orders", "user-history", "viewed-orders")
"""Topics whose records a task writes into the partition of its own number only: their key is that of its input."""

TOPICS = (*OWN_PARTITION, "revenue", "orders-late", "viewed-late", "shop-dlq")
_POLL_MS = 100


class Row(NamedTuple):
    """A result; `seen_s` is seconds since the epoch."""

    partition: int
    offset: int
    key: str
    value: bytes | None
    headers: dict[str, bytes]
    seen_s: float


class Results:
    """A read_committed reader that notes everything, in the background: use it as an `async with`."""

    def __init__(self, bootstrap: str) -> None:
        self.rows: dict[str, list[Row]] = {topic: [] for topic in TOPICS}
        self.newest_s = time.time()
        self._bootstrap = bootstrap
        self._partitions = [TopicPartition(topic, number) for topic in TOPICS for number in range(PARTITIONS)]
        self._consumer: AIOKafkaConsumer | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Results":
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=50,
        )
        await self._consumer.start()
        self._consumer.assign(self._partitions)
        self._reading = asyncio.create_task(self._read(self._consumer))
        return self

    async def __aexit__(self, *failure: object) -> None:
        assert self._reading is not None and self._consumer is not None
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._consumer.stop()

    async def to_end(self, timeout_s: float) -> bool:
        """Wait until everything committed by now has been read; return whether it was within the time."""
        assert self._reading is not None and self._consumer is not None
        ends = await self._consumer.end_offsets(self._partitions)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._reading.done():
                self._reading.result()
            positions = {partition: await self._consumer.position(partition) for partition in self._partitions}
            if all(positions[partition] >= end for partition, end in ends.items()):
                return True
            await asyncio.sleep(_POLL_MS / 1_000)
        return False

    def numbers_seen(self, since_s: float) -> dict[int, float]:
        """Return, for each task number that has shown a result since a time, when the first of these was seen."""
        first: dict[int, float] = {}
        for topic in OWN_PARTITION:
            for row in reversed(self.rows[topic]):
                if row.seen_s < since_s:
                    break
                first[row.partition] = min(row.seen_s, first.get(row.partition, row.seen_s))
        return first

    def first_seen(self, number: int, since_s: float) -> float | None:
        """Return when a result of a task was first seen since a time, None if none was."""
        return self.numbers_seen(since_s).get(number)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            found = await consumer.getmany(timeout_ms=_POLL_MS)
            seen_s = time.time()
            for partition, records in found.items():
                self.rows[partition.topic] += _rows(partition.partition, records, seen_s)
                self.newest_s = seen_s


def places(rows: Iterable[Row]) -> set[tuple[int, int]]:
    """Return partition and offset of each row."""
    return {(row.partition, row.offset) for row in rows}


def _rows(number: int, records: Iterable[object], seen_s: float) -> list[Row]:
    return [
        Row(
            number,
            record.offset,  # type: ignore[attr-defined]  # aiokafka is not typed
            (record.key or b"").decode(),  # type: ignore[attr-defined]
            record.value,  # type: ignore[attr-defined]
            dict(record.headers),  # type: ignore[attr-defined]
            seen_s,
        )
        for record in records
    ]
