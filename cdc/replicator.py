"""Applies topics of Debezium's to a replica: reads them itself, from the offsets that the database holds.

    reader of each partition ──batch──► queue (bounded) ──► one transaction with all that has come

A record that cannot be decoded stops it with its place: to go on without it would make the copy differ.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cdc.change import Change
from cdc.debezium_codec import DebeziumCodec
from cdc.replica import Batch, Replica
from engine.errors import ConfigError, RecordError, StreamForgeError, UnavailableError
from engine.records import RecordBatch, TopicPartition
from engine.runtime.transport.protocol import Transport

log = logging.getLogger(__name__)

RECORDS_MAX = 20_000
"""Records in one transaction, about; a batch is not cut."""
_QUEUED_BATCHES_MAX = 16
_WAIT_S = 0.5
_RETRY_S = 2.0


class Replicator:
    """Applies topics to a replica until it is stopped.

    Args:
        tables: Topic -> name of the table.
        codecs: Topic -> what decodes its records into dict rows.
    Attributes:
        applied: Number of changes that were no replays; `positions`: the next offset of each partition.
    """

    def __init__(
        self, transport: Transport, replica: Replica, tables: Mapping[str, str], codecs: Mapping[str, DebeziumCodec[dict[str, Any]]]
    ) -> None:
        self._transport, self._replica, self._tables, self._codecs = transport, replica, tables, codecs
        self._queue: asyncio.Queue[RecordBatch] = asyncio.Queue(_QUEUED_BATCHES_MAX)
        self.applied = 0
        self.positions: dict[TopicPartition, int] = {}

    async def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Apply what comes, until `until` says so (asked after each transaction and twice a second).

        Raises:
            RecordError: A record cannot be decoded or applied.
            UnavailableError: The database does not answer.
            StateError: The log no longer holds what comes next.
        """
        try:
            await self._run(until)
        except* StreamForgeError as errors:
            first: BaseException = errors
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            stopped = first
        else:
            return
        raise stopped

    async def _run(self, until: Callable[[], bool]) -> None:
        self.positions = await asyncio.to_thread(self._replica.positions)
        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(self._read_topic(topic), name=f"replicate {topic}") for topic in self._tables]
            while not until():
                batches = await self._take()
                if batches:
                    await self._apply(batches)
            for reader in readers:
                reader.cancel()

    async def run_to_end(self) -> None:
        """Apply what the topics hold now, and return.

        Raises:
            ConfigError: A topic does not exist.
        """
        ends: dict[TopicPartition, int] = {}
        counts = await self._transport.partition_counts(list(self._tables))
        for topic in self._tables:
            if topic not in counts:
                raise ConfigError(f"topic {topic!r} does not exist")
        for topic, count in counts.items():
            ends |= await self._transport.end_offsets([TopicPartition(topic, number) for number in range(count)])
        await self.run(lambda: all(self.positions.get(partition, 0) >= end for partition, end in ends.items()))

    async def _read_topic(self, topic: str) -> None:
        waits = False
        while topic not in (counts := await self._transport.partition_counts([topic])):
            if not waits:
                log.warning("topic %r does not exist yet: waiting for it", topic)
            waits = True
            await asyncio.sleep(_WAIT_S)
        partitions = [TopicPartition(topic, number) for number in range(counts[topic])]
        begins = await self._transport.begin_offsets(partitions)
        async with asyncio.TaskGroup() as group:
            for partition in partitions:
                group.create_task(self._read(partition, self.positions.get(partition, begins[partition])))

    async def _read(self, partition: TopicPartition, position: int) -> None:
        reader, codec = await self._transport.open_reader(partition, position), self._codecs[partition.topic]
        try:
            while True:
                try:
                    batch = await reader.read(_WAIT_S)
                    if batch is not None:
                        await codec.prepare(batch)
                except UnavailableError as error:  # broker or registry; also a topic that was just made and has no leader yet
                    log.warning("%s-%d: %s; read again in %.1f s", *partition, error, _RETRY_S)
                    await reader.close()
                    await asyncio.sleep(_RETRY_S)
                    reader = await self._transport.open_reader(partition, position)
                    continue
                if batch is not None:
                    position = batch.next_offset
                    await self._queue.put(batch)
        finally:
            await reader.close()

    async def _take(self) -> list[RecordBatch]:
        """Return what has come, in the order of each partition; [] after a while."""
        try:
            async with asyncio.timeout(_WAIT_S):
                batches = [await self._queue.get()]
        except TimeoutError:
            return []
        records = len(batches[0])
        while records < RECORDS_MAX and not self._queue.empty():
            batches.append(self._queue.get_nowait())
            records += len(batches[-1])
        return batches

    async def _apply(self, batches: Sequence[RecordBatch]) -> None:
        decoded = [self._decode(batch) for batch in batches]
        self.applied += await asyncio.to_thread(self._replica.apply, decoded)
        self.positions |= {batch.partition: batch.next_offset for batch in decoded}

    def _decode(self, batch: RecordBatch) -> Batch:
        decoded = self._codecs[batch.topic].decode_batch(batch)
        for row, error in decoded.errors.items():
            raise RecordError(f"{batch.topic}-{batch.partition} offset {batch.offsets[row]}: {error}") from error
        changes: list[Change[dict[str, Any]]] = [value for row, value in enumerate(decoded.values) if row not in decoded.skipped]
        return Batch(self._tables[batch.topic], changes, TopicPartition(batch.topic, batch.partition), batch.next_offset)


__all__ = ["Replicator"]
