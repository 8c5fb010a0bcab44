"""What the tests on a real broker share: topics of their own, a group member that notes what it is told, columns from rows."""

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from engine.records import Headers, OutputColumns, RecordBatch, TopicPartition
from engine.runtime.transport.kafka import KafkaSettings, KafkaTransport
from engine.runtime.transport.protocol import PartitionReader
from engine.topics import TopicSpec
from tests.kafka_server import KafkaServer

PATIENCE_S = 20.0
_numbers = itertools.count()

Row = tuple[bytes | None, bytes | None] | tuple[bytes | None, bytes | None, Headers]


def unique(name: str) -> str:
    """Return a name that no other test, and no other run on the same broker, uses."""
    return f"{name}-{os.getpid()}-{next(_numbers)}"


def settings_of(server: KafkaServer, **options: Any) -> KafkaSettings:
    """Return settings for the plain listener, in a group of their own unless one is given."""
    options.setdefault("group", unique("group"))
    return KafkaSettings.of(f"kafka://{server.bootstrap}", **options)


@asynccontextmanager
async def connected(settings: KafkaSettings, **arguments: Any) -> AsyncIterator[KafkaTransport]:
    """A transport that is started, and stopped at the end."""
    transport = KafkaTransport(settings, **arguments)
    await transport.start()
    try:
        yield transport
    finally:
        await transport.stop()


async def new_topic(transport: KafkaTransport, partitions: int = 1, **options: Any) -> str:
    """Create a topic and return its name."""
    name = unique("topic")
    await transport.ensure_topics([TopicSpec(name, partitions, **options)])
    return name


def columns(*rows: Row, timestamp_ms: int = 1_000) -> OutputColumns:
    """Return (key, value[, headers]) rows as columns; timestamps count up from the first."""
    made = OutputColumns()
    for at, row in enumerate(rows, timestamp_ms):
        made.append(at, *row)
    return made


async def read_to_end(transport: KafkaTransport, partition: TopicPartition, at_least: int = 0) -> list[RecordBatch]:
    """Read a partition as a restore does: from its start until the position has reached the end offset.

    The end that a transaction just committed is not at once the last stable offset: the broker acknowledges a commit before all
    its markers are written. `at_least` is what the commit returned.
    """
    begin = (await transport.begin_offsets([partition]))[partition]
    end = (await transport.end_offsets([partition]))[partition]
    reader = await transport.open_reader(partition, begin)
    try:
        return await read_until(reader, max(end, at_least))
    finally:
        await reader.close()


async def wait_committed(transport: KafkaTransport, expected: Mapping[TopicPartition, int]) -> None:
    """Ask for the group's offsets until they are as expected: they too become visible with the transaction's marker."""
    deadline = time.monotonic() + PATIENCE_S
    while (found := await transport.committed_offsets(list(expected))) != expected:
        assert time.monotonic() < deadline, f"{found} instead of {expected}"


async def read_until(reader: PartitionReader, end: int) -> list[RecordBatch]:
    """Read until the position has reached an offset."""
    batches = []
    deadline = time.monotonic() + PATIENCE_S
    while reader.position < end:
        assert time.monotonic() < deadline, f"still at {reader.position} of {end}"
        batch = await reader.read(1.0)
        if batch is not None:
            batches.append(batch)
    return batches


def values(batches: Iterable[RecordBatch]) -> list[bytes | None]:
    """Return the values of batches, in order."""
    return [value for batch in batches for value in batch.values]


class Member:
    """A group member: notes what it is told, polls on demand, and goes on from the beginning of what it gets."""

    def __init__(self, transport: KafkaTransport) -> None:
        self.transport = transport
        self.partitions: frozenset[TopicPartition] = frozenset()
        self.revoked: list[frozenset[TopicPartition]] = []
        self.assigned: list[frozenset[TopicPartition]] = []
        self.batches: list[RecordBatch] = []

    @property
    def numbers(self) -> set[int]:
        """The partition numbers that it has."""
        return {partition.partition for partition in self.partitions}

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Take note."""
        self.revoked.append(partitions)
        self.partitions = frozenset()

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Take note."""
        self.assigned.append(partitions)
        self.partitions = partitions

    async def join(self, *topics: str) -> None:
        """Subscribe and wait for the first assignment."""
        await self.transport.subscribe(topics, self)
        await self.until(lambda: bool(self.assigned))

    def go_on(self, offset: int = 0) -> None:
        """Fetch everything that it has from an offset."""
        self.transport.seek(dict.fromkeys(self.partitions, offset))
        self.transport.resume(list(self.partitions))

    async def until(self, is_done: Callable[[], bool]) -> None:
        """Poll until a condition holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not is_done():
            assert time.monotonic() < deadline, f"not within {PATIENCE_S} s; assigned {self.assigned}, got {len(self.batches)} batches"
            self.batches += await self.transport.poll(0.05)

    def is_caught_up(self) -> bool:
        """Whether the latest answer for each partition said that nothing is left."""
        states = [self.transport.fetch_state(partition) for partition in self.partitions]
        return all(state is not None and state.position >= state.high_watermark for state in states)


async def all_until(members: Iterable[Member], is_done: Callable[[], bool]) -> None:
    """Let several members poll side by side until a condition holds."""
    await asyncio.gather(*(member.until(is_done) for member in members))
