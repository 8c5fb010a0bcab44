"""Bounded skew: a source partition too far ahead of the slowest one waits for it (`max_skew=` of an app).

When a backlog is read, one partition may run hours of event time ahead of another. Nothing is wrong with the results then, since the
minimum of the watermarks counts, but everything that the fast one opens (windows, joins, timers) stays in the state until the slow
one has come so far. With a bound, the fast one is paused instead, and nothing more is fetched for it:

    max_skew 10 min      orders-0  12:00 ──────► 12:10  waits
                         orders-1  12:00 ─► 12:03       the slowest: orders-0 goes on when this one has passed 12:00
                         clicks-1  idle                 does not count
                         quotes-0  14:00                read by other pipelines only: a group of its own

What is compared: the watermarks of the source partitions *of this worker* whose topics some pipeline reads together. Those of other
workers are not known here, so two workers may drift apart by more. While a task is being opened, nobody knows how far its partitions
have come: until then the others may go on by max_skew from where they were opened themselves. Not counted are partitions of a task
that could not be opened, and those that are idle or without any record yet: they have no time to wait for (a partition that came with a
savepoint's larger number of partitions begins at the watermark of the others, and may never get a record). One that is merely quiet
does count until its idle time is over; `idle=None`, with which that would be for ever, is refused where the source is
declared. A bounded run (all input is there) waits for nobody.

The bound is not exact: a partition stops behind the piece of work (at most some 20 ms of it) in which it passed the bound.

Source: Flink's watermark alignment (FLIP-182, FLIP-217).
"""

from collections.abc import Callable, Iterable

from engine.block import MAX_TIME, MIN_TIME
from engine.plan import Plan
from engine.records import TopicPartition
from engine.runtime.intake import Intake
from engine.task import Task

_FIRST_RECORDS = 64


class Alignment:
    """Who waits for whom, in one worker.

    Args:
        max_skew_ms: How far, in event time, a source partition may be ahead of the slowest of its group.
        plan: Says which source topics are read together.
    """

    def __init__(self, max_skew_ms: int, plan: Plan) -> None:
        self._max_skew_ms = max_skew_ms
        self._groups = source_groups(plan)
        self._reached: dict[int, dict[TopicPartition, int]] = {group: {} for group in self._groups.values()}
        self._floors = dict.fromkeys(self._reached, MAX_TIME)
        self._opening: dict[int, set[TopicPartition]] = {group: set() for group in self._reached}
        self._opened_at: dict[TopicPartition, int] = {}
        self._records_a_ms: dict[TopicPartition, float] = {}
        self._waiting: dict[TopicPartition, Callable[[], None]] = {}

    def opens(self, partitions: Iterable[TopicPartition]) -> None:
        """These partitions are going to be read here."""
        for partition in partitions:
            if partition.topic in self._groups:
                self._opening[self._groups[partition.topic]].add(partition)

    def reached(self, partition: TopicPartition, watermark: int, *, idle: bool) -> None:
        """A source partition has come so far; whoever waits is woken when the slowest has moved on."""
        group = self._groups[partition.topic]
        has_time = MIN_TIME < watermark < MAX_TIME
        if has_time:
            self._opened_at.setdefault(partition, watermark)
        if has_time and not idle:
            self._reached[group][partition] = watermark
        else:
            self._reached[group].pop(partition, None)
        self._look_again(group, partition)

    def leave(self, partitions: Iterable[TopicPartition]) -> None:
        """These partitions are no longer read here, or not for the moment."""
        for partition in partitions:
            group = self._groups.get(partition.topic)
            if group is not None:
                self._waiting.pop(partition, None)
                self._records_a_ms.pop(partition, None)
                self._opened_at.pop(partition, None)
                self._reached[group].pop(partition, None)
                self._look_again(group, partition)

    def must_wait(self, partition: TopicPartition, wake: Callable[[], None]) -> bool:
        """Return whether a partition is too far ahead; if so, `wake` is called when that may have changed."""
        if self._room_ms(partition) >= 0:
            self._waiting.pop(partition, None)
            return False
        self._waiting[partition] = wake
        return True

    def went(self, partition: TopicPartition, records: int, by_ms: int) -> None:
        """So many records moved the watermark by so much."""
        if records and by_ms > 0:
            self._records_a_ms[partition] = records / by_ms

    def records(self, partition: TopicPartition) -> int:
        """Return how many records will about use up the room that the partition still has; it learns from the last ones."""
        if partition not in self._records_a_ms:
            return _FIRST_RECORDS
        return max(1, int(min(self._room_ms(partition) * self._records_a_ms[partition], 1e9)))

    def _room_ms(self, partition: TopicPartition) -> int:
        """Return how much further a partition may go; negative if it is too far ahead."""
        group = self._groups[partition.topic]
        watermark = self._reached[group].get(partition)
        if watermark is None:
            return self._max_skew_ms
        floor = min(self._floors[group], self._opened_at[partition]) if self._opening[group] else self._floors[group]
        return floor + self._max_skew_ms - watermark

    def _look_again(self, group: int, partition: TopicPartition) -> None:
        """The group knows more about a partition: it is no longer being opened, and the slowest may be another one."""
        opening, floor = self._opening[group], min(self._reached[group].values(), default=MAX_TIME)
        was_opening = partition in opening
        opening.discard(partition)
        if floor > self._floors[group] or (was_opening and not opening):
            for wake in self._waiting.values():
                wake()
        self._floors[group] = floor


def align(alignment: Alignment | None, task: Task, intake: Intake) -> None:
    """Say how far a task's sources have come; hold back those that are too far ahead of others, and let go those that are not."""
    for topic, source in task.sources.items():
        partition, must_wait = TopicPartition(topic, task.number), False
        if alignment is not None:
            watermark = source.watermark if task.positions[partition] else MIN_TIME
            alignment.reached(partition, watermark, idle=source.idle)
            must_wait = alignment.must_wait(partition, intake.wake)
        if must_wait and not intake.is_held(partition):
            intake.hold(partition)
        elif not must_wait and intake.is_held(partition):
            intake.let_go(partition)


def source_groups(plan: Plan) -> dict[str, int]:
    """Return a number for each source topic; topics that a pipeline reads together, or by way of others, have the same one."""
    groups = {topic: number for number, topic in enumerate(plan.sources)}
    for topics in plan.pipelines.values():
        joined = {groups[topic] for topic in topics if topic in groups}
        for topic, group in groups.items():
            if group in joined:
                groups[topic] = min(joined)
    return groups
