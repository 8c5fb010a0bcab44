"""What has been fetched for a task and waits for it: a bounded queue for each input, and the rule which batches may enter it.

    poll ──batch──► position == expected?  ──yes──► queue ──► task          full: the partition is paused, until half is gone
                              └──no──► dropped, fetched again from where the task is

Each input has its share of the room, so that one that runs ahead does not keep out those that it has to wait for; which queue is next
is decided by `engine.runtime.merging`.

A partition that is held back (it is too far ahead of others: `engine.runtime.alignment`) is paused, and what is queued of it stands
aside until it is let go, so that it takes no room from those it waits for.

A batch that was fetched while its task was being opened, or before a seek, is not lost by dropping it only because of that second
step: the transport's own position has moved past it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from engine.records import RecordBatch, TopicPartition
from engine.runtime.cutting import join_batches
from engine.runtime.metrics import TaskMetrics
from engine.runtime.transport.protocol import Transport

log = logging.getLogger(__name__)

JOINED_RECORDS = 1_024


@dataclass(frozen=True, slots=True)
class EndOfInput:
    """Takes its place behind the last batches: this topic will bring no more records."""

    topic: str


@dataclass(frozen=True, slots=True)
class _Queued:
    arrival: int
    item: RecordBatch | EndOfInput


class Intake:
    """The queues of one task, one an input. They are shut until `open`, and what is in them goes with `shut`."""

    def __init__(self, transport: Transport, inputs: Sequence[TopicPartition], records_max: int, metrics: TaskMetrics) -> None:
        self._transport = transport
        self._inputs = tuple(inputs)
        self._share_max = max(1, records_max // max(1, len(self._inputs)))
        self._metrics = metrics
        self._expected: dict[TopicPartition, int] = {}
        self._queues: dict[TopicPartition, deque[_Queued]] = {partition: deque() for partition in self._inputs}
        self._records = dict.fromkeys(self._inputs, 0)
        self._arrivals = 0
        self._held: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return sum(len(queue) for partition, queue in self._queues.items() if partition not in self._held)

    @property
    def queued(self) -> int:
        """Number of records that wait, those of held partitions left out."""
        return sum(self._records.values())

    def open(self, positions: Mapping[TopicPartition, int]) -> None:
        """Begin to fetch from these positions."""
        self.shut()
        self._expected = dict(positions)
        self._held.clear()
        self._paused.clear()
        self._transport.seek(positions)
        self._transport.resume(self._inputs)

    def shut(self) -> None:
        """Drop everything and let nothing in."""
        self._expected.clear()
        self._held.clear()
        for queue in self._queues.values():
            queue.clear()
        self._records = dict.fromkeys(self._inputs, 0)
        self._metrics.queued_records = 0

    def offer(self, batch: RecordBatch) -> None:
        """Take a batch from the poll loop, or drop it."""
        partition = TopicPartition(batch.topic, batch.partition)
        expected = self._expected.get(partition)
        if expected is None:
            return  # the task is not open: a seek will come
        if batch.position != expected:
            self._metrics.stale_batches += 1
            log.info("%s-%d: a batch begins at %d instead of %d; fetched again", *partition, batch.position, expected)
            self._transport.seek({partition: expected})
            return
        self._expected[partition] = batch.next_offset
        self._append(partition, batch)
        if partition not in self._held:  # else it was on its way when the partition was paused
            self._count(partition, len(batch))
            self._wake.set()

    def end(self, topics: Sequence[str]) -> None:
        """Note that these topics bring no more than is here already."""
        for partition in self._inputs:
            if partition.topic in topics:
                self._append(partition, EndOfInput(partition.topic))
        self._wake.set()

    def heads(self) -> list[TopicPartition]:
        """Return the inputs of which something waits, by the arrival of what is first; held ones left out."""
        waiting = [partition for partition, queue in self._queues.items() if queue and partition not in self._held]
        waiting.sort(key=lambda partition: self._queues[partition][0].arrival)
        return waiting

    def has(self, partition: TopicPartition) -> bool:
        """Return whether anything of an input is here."""
        return bool(self._queues[partition])

    def peek(self, partition: TopicPartition) -> RecordBatch | EndOfInput:
        """Return what is first of an input; there must be something."""
        return self._queues[partition][0].item

    def pop(self, partition: TopicPartition | None = None) -> RecordBatch | EndOfInput:
        """Remove and return what is first of an input, or of all of them by arrival; there must be something."""
        return self._queues[self.heads()[0] if partition is None else partition].popleft().item

    def take(self, partition: TopicPartition) -> RecordBatch | EndOfInput:
        """Remove and return what is first of an input; small batches come together with those right behind them."""
        queue = self._queues[partition]
        item = queue.popleft().item
        if isinstance(item, EndOfInput) or item.attached:
            return item
        batches, count = [item], len(item)
        while queue and isinstance(follower := queue[0].item, RecordBatch):
            count += len(follower)
            if count > JOINED_RECORDS or follower.attached:
                break
            batches.append(follower)
            queue.popleft()
        return join_batches(batches)

    def expected(self, partition: TopicPartition) -> int:
        """Return the offset with which an input goes on."""
        return self._expected[partition]

    def done(self, partition: TopicPartition, records: int) -> None:
        """So many records of an input have been processed: there is room for as many."""
        self._count(partition, -records)

    # -- partitions that wait for others

    @property
    def held(self) -> int:
        """Number of partitions that are held back."""
        return len(self._held)

    def is_held(self, partition: TopicPartition) -> bool:
        """Return whether a partition is held back."""
        return partition in self._held

    def hold(self, partition: TopicPartition) -> None:
        """Fetch nothing more of a partition, and set aside what is queued of it; the batch in hand goes on to count."""
        self._transport.pause([partition])
        self._held.add(partition)
        self._count(partition, -_records(self._queues[partition]))

    def set_aside(self, rest: RecordBatch) -> None:
        """Put what is left of the batch in hand in front of what is queued, of other inputs too."""
        partition = TopicPartition(rest.topic, rest.partition)
        self._queues[partition].appendleft(_Queued(0, rest))
        if partition in self._held:
            self._count(partition, -len(rest))

    def let_go(self, partition: TopicPartition) -> None:
        """Go on with a partition."""
        self._held.remove(partition)
        self._paused.discard(partition)
        self._transport.resume([partition])
        self._count(partition, _records(self._queues[partition]))

    def _append(self, partition: TopicPartition, item: RecordBatch | EndOfInput) -> None:
        self._arrivals += 1
        self._queues[partition].append(_Queued(self._arrivals, item))

    def _count(self, partition: TopicPartition, records: int) -> None:
        """More or fewer records of an input wait: pause or resume it when it is time."""
        waiting = self._records[partition] = self._records[partition] + records
        self._metrics.queued_records = self.queued
        if partition in self._held:
            return
        if waiting >= self._share_max and partition not in self._paused:
            self._paused.add(partition)
            self._transport.pause([partition])
        elif partition in self._paused and waiting <= self._share_max // 2:
            self._paused.discard(partition)
            self._transport.resume([partition])

    def wake(self) -> None:
        """End a `wait`."""
        self._wake.set()

    async def wait(self, timeout_s: float) -> None:
        """Wait until something comes, at most so long."""
        self._wake.clear()
        try:
            async with asyncio.timeout(max(timeout_s, 0.001)):
                await self._wake.wait()
        except TimeoutError:
            return


def _records(items: Iterable[_Queued]) -> int:
    return sum(len(queued.item) for queued in items if isinstance(queued.item, RecordBatch))
