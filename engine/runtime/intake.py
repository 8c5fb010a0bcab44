"""What has been fetched for a task and waits for it: a bounded queue, and the rule which batches may enter it.

    poll ──batch──► position == expected?  ──yes──► queue ──► task          full: partitions paused, until half is gone
                              └──no──► dropped, fetched again from where the task is

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
from engine.runtime.metrics import TaskMetrics
from engine.runtime.transport.protocol import Transport

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EndOfInput:
    """Takes its place behind the last batches: this topic will bring no more records."""

    topic: str


class Intake:
    """The queue of one task. It is shut until `open`, and what is in it goes with `shut`."""

    def __init__(self, transport: Transport, inputs: Sequence[TopicPartition], records_max: int, metrics: TaskMetrics) -> None:
        self._transport = transport
        self._inputs = tuple(inputs)
        self._records_max = records_max
        self._metrics = metrics
        self._expected: dict[TopicPartition, int] = {}
        self._queue: deque[RecordBatch | EndOfInput] = deque()
        self._held: dict[TopicPartition, deque[RecordBatch | EndOfInput]] = {}
        self._records = 0
        self._paused = False
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._queue)

    def open(self, positions: Mapping[TopicPartition, int]) -> None:
        """Begin to fetch from these positions."""
        self._expected = dict(positions)
        self._held.clear()
        self._paused = False
        self._transport.seek(positions)
        self._transport.resume(self._inputs)

    def shut(self) -> None:
        """Drop everything and let nothing in."""
        self._expected.clear()
        self._held.clear()
        self._queue.clear()
        self._records = self._metrics.queued_records = 0

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
        if partition in self._held:  # it was on its way when the partition was paused
            self._held[partition].append(batch)
            return
        self._queue.append(batch)
        self._count(len(batch))
        self._wake.set()

    def end(self, topics: Sequence[str]) -> None:
        """Note that these topics bring no more than is here already."""
        for topic in topics:
            held = next((queue for partition, queue in self._held.items() if partition.topic == topic), self._queue)
            held.append(EndOfInput(topic))
        self._wake.set()

    def pop(self) -> RecordBatch | EndOfInput:
        """Return what is next; there must be something."""
        return self._queue.popleft()

    def done(self, records: int) -> None:
        """So many records have been processed: there is room for as many."""
        self._count(-records)

    # -- partitions that wait for others

    @property
    def held(self) -> int:
        """Number of partitions that are held back."""
        return len(self._held)

    def is_held(self, partition: TopicPartition) -> bool:
        """Return whether a partition is held back."""
        return partition in self._held

    def hold(self, partition: TopicPartition) -> None:
        """Fetch nothing more of a partition, and set aside what is queued of it."""
        self._transport.pause([partition])
        aside = [item for item in self._queue if _is_of(item, partition)]
        self._queue = deque(item for item in self._queue if not _is_of(item, partition))
        self._held[partition] = deque(aside)
        self._count(-_records(aside))

    def set_aside(self, rest: RecordBatch) -> None:
        """Put what is left of the batch in hand in front of what is queued; its partition must be held."""
        self._held[TopicPartition(rest.topic, rest.partition)].appendleft(rest)
        self._count(-len(rest))

    def let_go(self, partition: TopicPartition) -> None:
        """Go on with a partition."""
        aside = self._held.pop(partition)
        self._queue.extendleft(reversed(aside))
        if not self._paused:
            self._transport.resume([partition])
        self._count(_records(aside))

    def _count(self, records: int) -> None:
        """More or fewer records wait: pause or resume when it is time."""
        self._records += records
        self._metrics.queued_records = self._records
        free = [partition for partition in self._inputs if partition not in self._held]
        if self._records >= self._records_max and not self._paused:
            self._paused = True
            self._transport.pause(free)
        elif self._paused and self._records <= self._records_max // 2:
            self._paused = False
            self._transport.resume(free)

    def wake(self) -> None:
        """End a `wait`."""
        self._wake.set()

    async def wait(self, timeout_s: float) -> None:
        """Wait until something has come, at most so long."""
        self._wake.clear()
        if not self._queue:
            try:
                async with asyncio.timeout(max(timeout_s, 0.001)):
                    await self._wake.wait()
            except TimeoutError:
                return


def _is_of(item: RecordBatch | EndOfInput, partition: TopicPartition) -> bool:
    return item.topic == partition.topic


def _records(items: Iterable[RecordBatch | EndOfInput]) -> int:
    return sum(len(item) for item in items if isinstance(item, RecordBatch))
