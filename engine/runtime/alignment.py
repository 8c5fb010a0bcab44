"""Bounded skew: a source partition too far ahead of the slowest one waits for it (`max_skew=` of an app).

When a backlog is read, one partition may run hours of event time ahead of another. Nothing is wrong with the results then, since the
minimum of the watermarks counts, but everything that the fast one opens (windows, joins, timers) stays in the state until the slow
one has come so far. With a bound, the fast one is paused instead, and nothing more is fetched for it:

    max_skew 10 min      orders-0  12:00 ──────► 12:10  waits
                         orders-1  12:00 ─► 12:03       the slowest, of any worker: orders-0 goes on when this one has passed 12:00
                         clicks-1  idle                 does not count
                         quotes-0  14:00                read by other pipelines only: a group of its own

What is compared: the watermarks of the source partitions of the app whose topics some pipeline reads together. Those of other workers
come as reports (`engine.runtime.skew_reports`); what was heard last of a partition counts, whoever said it, so that one that moves to
another worker is never out of sight. This worker's own knowledge of its own partitions beats what was heard.

| a partition | counts with |
|---|---|
| is read | its watermark |
| is idle, or has never had a record | nothing: it has no time to wait for |
| is being opened, and was heard of before | its last watermark: that is where it will go on |
| is being opened, and nobody knows how far it was | the others may go on by max_skew from where they were when that began |
| is read by nobody: it moves, its task failed, its opening gets no further (as the watchdog says) | what was heard last, for 15 s |
| has not been heard of for 15 s: its worker is gone and the group has not noticed, or cannot say anything | nothing |

So the slowest partition never waits, nobody waits for one that nobody reads, and how long anybody waits is bounded by what the
slowest one has to do. A partition that came with a savepoint's larger number of partitions begins at the watermark of the others, and
may never get a record. One that is merely quiet counts until its idle time is over; `idle=None`, with which that would be for ever,
is refused where the source is declared. A bounded run (all input is there) waits for nobody.

Results do not depend on any of it: what is heard late, twice or never only lets a partition run further, or wait longer. The bound is
exceeded by the piece of work in hand (at most some 20 ms of it), by what is read while a report is on its way, and, where a worker
dies, by what the others read from 15 s after its last word until its partitions are being opened elsewhere.

Source: Flink's watermark alignment (FLIP-182, FLIP-217).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from engine.block import MAX_TIME, MIN_TIME
from engine.plan import Plan
from engine.records import TopicPartition
from engine.runtime.intake import Intake
from engine.task import Task

FORGET_S = 15.0
"""Longer than the group takes to notice that a worker is gone (10 s by default), so that no gap opens before a new owner speaks."""

_FIRST_RECORDS = 64
_NEWS = 4


@dataclass(frozen=True, slots=True)
class Said:
    """What a worker says of a partition that it reads: how far it has come, or that it is being opened, or neither: nobody need wait."""

    watermark: int | None = None
    is_opening: bool = False


@dataclass(frozen=True, slots=True)
class _Heard:
    said: Said
    at_s: float


@dataclass(frozen=True, slots=True)
class Slowest:
    """Whom a partition waits for; `watermark` is None while nobody knows how far it has come."""

    partition: TopicPartition
    watermark: int | None
    is_here: bool
    is_opening: bool = False


class Alignment:
    """Who waits for whom, as far as one worker knows.

    Args:
        max_skew_ms: How far, in event time, a source partition may be ahead of the slowest of its group.
        plan: Says which source topics are read together.

    Attributes:
        on_news: Called when this worker's partitions have come so much further that the others should hear of it soon.
    """

    def __init__(self, max_skew_ms: int, plan: Plan) -> None:
        self.on_news: Callable[[], None] = lambda: None
        self._max_skew_ms = max_skew_ms
        self._numbers = range(plan.partitions)
        self._groups = source_groups(plan)
        groups = sorted(set(self._groups.values()))
        self._here: set[TopicPartition] = set()
        self._reached: dict[int, dict[TopicPartition, int]] = {group: {} for group in groups}
        self._opening: dict[int, set[TopicPartition]] = {group: set() for group in groups}
        self._heard: dict[int, dict[TopicPartition, _Heard]] = {group: {} for group in groups}
        self._awaited: dict[int, set[TopicPartition]] = {group: set() for group in groups}
        self._others = dict.fromkeys(groups, MAX_TIME)
        self._floors = dict.fromkeys(groups, MAX_TIME)
        self._reported = dict.fromkeys(groups, MAX_TIME)
        self._is_unsure = dict.fromkeys(groups, False)
        self._bases: dict[int, dict[TopicPartition, int]] = {group: {} for group in groups}
        self._records_a_ms: dict[TopicPartition, float] = {}
        self._waiting: dict[TopicPartition, Callable[[], None]] = {}

    # -- the partitions of this worker

    def opens(self, partitions: Iterable[TopicPartition]) -> None:
        """These partitions are going to be read here."""
        for partition in self._sources(partitions):
            group = self._groups[partition.topic]
            self._here.add(partition)
            self._opening[group].add(partition)
            self._awaited[group].discard(partition)
            self._weigh(group)

    def reached(self, partition: TopicPartition, watermark: int, *, idle: bool) -> None:
        """A source partition has come so far; whoever waits is woken when the slowest has moved on."""
        group = self._groups[partition.topic]
        is_begun = partition not in self._here or partition in self._opening[group]
        if MIN_TIME < watermark < MAX_TIME and not idle:
            self._reached[group][partition] = watermark
            self._bases[group].setdefault(partition, watermark)
        else:
            self._reached[group].pop(partition, None)
        if is_begun:
            self._here.add(partition)
            self._opening[group].discard(partition)
            self._awaited[group].discard(partition)
            self._weigh(group)
        else:
            self._compare(group)

    def leave(self, partitions: Iterable[TopicPartition]) -> None:
        """These partitions are not read here, for now or for good: what was heard of them last counts until somebody else speaks."""
        for partition in self._sources(partitions):
            group = self._groups[partition.topic]
            self._waiting.pop(partition, None)
            self._records_a_ms.pop(partition, None)
            self._bases[group].pop(partition, None)
            self._reached[group].pop(partition, None)
            self._opening[group].discard(partition)
            self._here.discard(partition)
            self._weigh(group)

    # -- what others say, and are told

    def report(self) -> dict[TopicPartition, Said]:
        """Return what there is to say of each source partition of this worker."""
        said = {}
        for partition in sorted(self._here):
            group = self._groups[partition.topic]
            said[partition] = Said(self._reached[group].get(partition), partition in self._opening[group])
        for group, reached in self._reached.items():
            self._reported[group] = min(reached.values(), default=MAX_TIME)
        return said

    def listen(self) -> None:
        """Whoever has not been heard of may be anywhere: as long as that is so, nobody knows how far they are."""
        for topic, group in self._groups.items():
            everyone = {TopicPartition(topic, number) for number in self._numbers}
            self._awaited[group] |= everyone - self._here - self._heard[group].keys()
        for group in self._awaited:
            self._weigh(group)

    def wait_no_longer(self) -> None:
        """Whoever has not been heard of yet is not waited for."""
        for group, awaited in self._awaited.items():
            awaited.clear()
            self._weigh(group)

    def hear(self, report: Mapping[TopicPartition, Said], now_s: float) -> None:
        """A worker, perhaps this one, says how far its partitions are; what the app does not read is passed over."""
        touched = set()
        for partition, said in report.items():
            group = self._groups.get(partition.topic)
            if group is None or partition.partition not in self._numbers:
                continue
            before = self._heard[group].get(partition)
            if said.is_opening and before is not None:
                said = Said(before.said.watermark, is_opening=True)
            self._heard[group][partition] = _Heard(said, now_s)
            self._awaited[group].discard(partition)
            touched.add(group)
        for group in touched:
            self._weigh(group)

    def forget(self, now_s: float) -> list[TopicPartition]:
        """Wait no longer for partitions that have not been heard of for long; return those that were waited for."""
        forgotten = []
        for group, heard in self._heard.items():
            old = [partition for partition, what in heard.items() if now_s - what.at_s > FORGET_S]
            for partition in old:
                said = heard.pop(partition).said
                if partition not in self._here and (said.is_opening or said.watermark is not None):
                    forgotten.append(partition)
            if old:
                self._weigh(group)
        return forgotten

    # -- what a task asks

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

    def waits_for(self, partition: TopicPartition) -> Slowest | None:
        """Return whom a partition that must wait is waiting for, None if it need not wait."""
        if partition.topic not in self._groups or self._room_ms(partition) >= 0:
            return None
        group = self._groups[partition.topic]
        own, unknown = self._reached[group], self._unknown(group)
        known = [(watermark, other) for other, watermark in own.items()]
        known += [(heard.said.watermark, other) for other, heard in self._counting(group) if heard.said.watermark is not None]
        floor, slowest = min(known)
        if unknown and floor + self._max_skew_ms >= own[partition]:
            return self._slowest(unknown[0], None)
        return self._slowest(slowest, floor)

    def _slowest(self, partition: TopicPartition, watermark: int | None) -> Slowest:
        group = self._groups[partition.topic]
        heard, is_here = self._heard[group].get(partition), partition in self._here
        is_opening = partition in self._opening[group] or (not is_here and heard is not None and heard.said.is_opening)
        return Slowest(partition, watermark, is_here, is_opening)

    # -- how it is found out

    def _room_ms(self, partition: TopicPartition) -> int:
        """Return how much further a partition may go; negative if it is too far ahead."""
        group = self._groups[partition.topic]
        watermark = self._reached[group].get(partition)
        if watermark is None:
            return self._max_skew_ms
        floor = self._floors[group]
        if self._is_unsure[group]:
            floor = min(floor, self._bases[group][partition])
        return floor + self._max_skew_ms - watermark

    def _sources(self, partitions: Iterable[TopicPartition]) -> Sequence[TopicPartition]:
        return [partition for partition in partitions if partition.topic in self._groups]

    def _counting(self, group: int) -> list[tuple[TopicPartition, _Heard]]:
        """Return what was heard of partitions that are not read here; of those being opened here too."""
        read_here = self._here - self._opening[group]
        return [(partition, heard) for partition, heard in self._heard[group].items() if partition not in read_here]

    def _unknown(self, group: int) -> list[TopicPartition]:
        """Return the partitions that have to be waited for, and nobody knows how far they are."""
        heard = self._heard[group]
        unknown = [partition for partition in self._opening[group] if partition not in heard or heard[partition].said.watermark is None]
        unknown += self._awaited[group]
        unknown += [other for other, what in self._counting(group) if what.said.is_opening and what.said.watermark is None]
        return sorted(set(unknown))

    def _weigh(self, group: int) -> None:
        """Who counts has changed, or what was heard of others: compare anew."""
        known = [heard.said.watermark for _, heard in self._counting(group) if heard.said.watermark is not None]
        self._others[group] = min(known, default=MAX_TIME)
        was_unsure, self._is_unsure[group] = self._is_unsure[group], bool(self._unknown(group))
        if self._is_unsure[group] and not was_unsure:
            self._bases[group] = dict(self._reached[group])
        self._compare(group, is_surer=was_unsure and not self._is_unsure[group])

    def _compare(self, group: int, *, is_surer: bool = False) -> None:
        """The slowest may be another one: wake those who wait if that may let them go on, tell the others if it matters to them."""
        own = min(self._reached[group].values(), default=MAX_TIME)
        floor, before = min(own, self._others[group]), self._floors[group]
        self._floors[group] = floor
        if floor > before or is_surer:
            for wake in self._waiting.values():
                wake()
        if abs(own - self._reported[group]) > self._max_skew_ms // _NEWS:
            self.on_news()


def announce(alignment: Alignment | None, partitions: Iterable[TopicPartition]) -> None:
    """Say that partitions are going to be opened, if anybody waits for anybody."""
    if alignment is not None:
        alignment.opens(partitions)


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
