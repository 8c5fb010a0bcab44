"""What every task reads as a whole: its broadcast topics, outside the group, to the end before it opens and on from there.

    reader of each partition ──batch──► short queue ──► task        the task takes a piece between two pieces of its other input

A reader that cannot reach the broker tries again; one whose position is no longer in the log makes the task open anew.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from engine.errors import StateError, UnavailableError
from engine.records import RecordBatch, TopicPartition
from engine.runtime.cutting import cut_piece
from engine.runtime.opening_errors import OutsideLogError
from engine.runtime.preparing import Prepares, prepare_batch
from engine.runtime.shell import Shell
from engine.runtime.transport.protocol import PartitionReader
from engine.task import Task

log = logging.getLogger(__name__)

READ_TIMEOUT_S = 1.0
PIECE_RECORDS = 1_000
QUEUED_BATCHES_MAX = 4


class BroadcastFeed:
    """Feeds one task its broadcast topics; without any it does nothing.

    Args:
        on_gap: Called with the reason when records between the task's position and the log are missing.
        wake: Ends the task's wait for input.
    """

    def __init__(self, shell: Shell, task: Task, *, on_gap: Callable[[str], None], wake: Callable[[], None]) -> None:
        self._shell = shell
        self._task = task
        self._on_gap = on_gap
        self._wake = wake
        self._queue: asyncio.Queue[RecordBatch] = asyncio.Queue(QUEUED_BATCHES_MAX)
        self._came = asyncio.Event()
        self._rest: RecordBatch | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._readers: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Begin to read where the state ends.

        Raises:
            UnavailableError: The broker cannot be reached.
            OutsideLogError: Changes are missing between the state and the log.
        """
        stored = self._task.broadcast_positions()
        if not stored:
            return
        transport, partitions = self._shell.transport, list(stored)
        begins, self._ends = await transport.begin_offsets(partitions), await transport.end_offsets(partitions)
        for partition, position in stored.items():
            begin = begins[partition]
            if position is not None and not begin <= position <= self._ends[partition]:
                raise OutsideLogError(
                    f"{partition.topic}-{partition.partition}: the state ends at offset {position}, and the log goes from {begin} to "
                    f"{self._ends[partition]}: changes of the table are gone. Restore the topic, or reset the app to read it anew"
                )
            self._positions[partition] = begin if position is None else position
        for partition, position in self._positions.items():
            reading = self._read(partition, position)
            self._readers.append(asyncio.create_task(reading, name=f"broadcast {partition.topic}-{partition.partition}"))

    async def catch_up(self, is_running: Callable[[], bool], commit: Callable[[], Awaitable[None]]) -> None:
        """Take everything up to the ends that the topics had when they were opened; commit now and then."""
        uncommitted = 0
        while is_running() and any(self._positions[partition] < end for partition, end in self._ends.items()):
            records = self.take()
            uncommitted += records or 0
            if uncommitted >= self._shell.limits.commit_records_max:
                await commit()
                uncommitted = 0
            if records is None:
                self._came.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(READ_TIMEOUT_S):
                        await self._came.wait()
            else:
                await asyncio.sleep(0)

    def take(self) -> int | None:
        """Give the task a piece of what has come; return the number of records, None if there was nothing."""
        batch = self._rest
        if batch is None:
            if self._queue.empty():
                return None
            batch = self._queue.get_nowait()
        piece = cut_piece(batch, 0, PIECE_RECORDS)
        self._rest = None if piece is batch else cut_piece(batch, len(piece), len(batch))
        self._task.process_broadcast(piece, self._shell.clock.now_ms())
        self._positions[TopicPartition(piece.topic, piece.partition)] = piece.next_offset
        if self._rest is not None or not self._queue.empty():
            self._wake()
        return len(piece)

    async def close(self) -> None:
        """End the readers."""
        readers, self._readers = self._readers, []
        for reader in readers:
            reader.cancel()
        if readers:
            await asyncio.wait(readers)

    async def _read(self, partition: TopicPartition, position: int) -> None:
        """Read a partition on and on."""
        limits, reader = self._shell.limits, None
        try:
            while True:
                try:
                    if reader is None:
                        reader = await self._shell.transport.open_reader(partition, position)
                    batch = await reader.read(READ_TIMEOUT_S)
                except UnavailableError as error:
                    log.warning("%s-%d: %s; read again in %.1f s", *partition, error, limits.retry_max_s)
                    await _close(reader)
                    reader = None
                    await asyncio.sleep(limits.retry_max_s)
                    continue
                if batch is None:
                    continue
                position = batch.next_offset
                codec = self._shell.plan.broadcasts[partition.topic].codec
                if isinstance(codec, Prepares):
                    await prepare_batch(codec, batch, limits)
                await self._queue.put(batch)
                self._came.set()
                self._wake()
        except StateError as error:
            self._on_gap(f"{partition.topic}-{partition.partition}: {error}")
        finally:
            await _close(reader)


async def _close(reader: PartitionReader | None) -> None:
    if reader is not None:
        await reader.close()
