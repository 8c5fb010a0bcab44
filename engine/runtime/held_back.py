"""Time that stands still: which watermark has to move and does not, and what holds it back.

A watermark may stand for good reasons: no input, a source partition whose records bring no later time, one that is merely quiet and
has not been so for `idle` yet (or never becomes idle, by its declaration), `max_skew`, an upstream task that has nothing to say. What
is left:

| held back by | seen by | opening again may help |
|---|---|---|
| a source partition that is quiet for `idle` and longer, and is not idle | its position, the end of the log, its idleness | yes |
| the same, with records of an open transaction behind its position | the high watermark | no: its producer has to end it |
| a source partition nearly all of whose records are too far in the future | counter `records_ahead` | no: a clock is wrong |
| a repartition whose other tasks are not told what this one has reached | what it has told each of them | yes |
| an upstream task elsewhere that does not move although it has input | the group's offsets, the ends of its log | no: its own worker does |
| the same of a slower partition elsewhere, for which one here waits (`max_skew`) | the same | no: its own worker does |

A partition that waits by `max_skew` waits on purpose: for whom, and how far behind that one is, is said in the log once in `stall`.

    clicks-3 is quiet at 120 for 3 minutes and not idle (idle after 60 s)   →  nobody's windows close  →  reported, opened again

Each has `stall` on top of what it may take anyway. The rules of idle time: `engine.runtime.quiet`.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from engine.block import MAX_TIME, MIN_TIME
from engine.operators.repartition import RepartitionSink
from engine.records import TopicPartition
from engine.runtime.alignment import Slowest
from engine.runtime.shell import Shell
from engine.runtime.task_runner import TaskRunner
from engine.task import Task

log = logging.getLogger(__name__)

_MOST = 0.5


@dataclass(frozen=True, slots=True)
class Held:
    """What holds the time of a task back.

    Attributes:
        number: The task.
        reason: For the log and for `/ready`.
        is_curable: Whether opening the task again may help.
    """

    number: int
    reason: str
    is_curable: bool


@dataclass(frozen=True, slots=True)
class _Suspect:
    """Something that must change within a time, unless it waits on purpose; `sign` shows whether it has."""

    name: str
    sign: object
    allowed_s: float
    reason: str
    is_curable: bool
    is_on_purpose: bool = False


@dataclass(slots=True)
class _Seen:
    sign: object
    since_s: float
    opens: int


@dataclass(slots=True)
class _Counts:
    """Offset, watermark and number of records too far ahead of a source, when its watermark last moved."""

    watermark: int
    position: int
    ahead: int


class TimeWatch:
    """Looks at the time of the running tasks, again and again.

    Attributes:
        standing: What holds time back at present, by task and name.
    """

    def __init__(self, shell: Shell, stall_s: float) -> None:
        self.standing: dict[tuple[int, str], Held] = {}
        self._shell = shell
        self._stall_s = stall_s
        self._seen: dict[tuple[int, str], _Seen] = {}
        self._counts: dict[TopicPartition, _Counts] = {}
        self._upstreams: dict[TopicPartition, tuple[int, float]] = {}

    def restart(self) -> None:
        """Nothing is known about the time until now: the broker could not be asked. What stands still is not forgotten."""
        self._seen = {key: seen for key, seen in self._seen.items() if key in self.standing}
        self._upstreams.clear()

    async def look(
        self, tasks: Mapping[int, TaskRunner], held_here: frozenset[int], ends: Mapping[TopicPartition, int], now_s: float
    ) -> list[Held]:
        """Return what has held time back for too long, each once in that time.

        Args:
            tasks: Those that run; `held_here` has the numbers of others too.
            ends: Where the logs of their inputs end, read_committed.
        """
        self._forget(lambda number, _: number not in held_here)
        found = []
        for number, runner in tasks.items():
            task = runner.questions.task
            if task is None:
                continue
            suspects = [*self._sources(runner, task, ends), *self._sinks(task), *await self._foreign(task, held_here, now_s)]
            suspects += await self._skewed(runner, task, now_s)
            names = {suspect.name for suspect in suspects}
            self._forget(lambda other, name, number=number, names=names: other == number and name not in names)  # type: ignore[misc]
            for suspect in suspects:
                if not self._is_due(number, suspect, now_s):
                    continue
                if suspect.is_on_purpose:
                    log.info("task %d: %s", number, suspect.reason)
                else:
                    held = self.standing[number, suspect.name] = Held(number, suspect.reason, suspect.is_curable)
                    found.append(held)
        return found

    def _forget(self, is_gone: Callable[[int, str], bool]) -> None:
        for key in [key for key in self._seen if is_gone(*key)]:
            del self._seen[key]
            self.standing.pop(key, None)

    def _is_due(self, number: int, suspect: _Suspect, now_s: float) -> bool:
        """Return whether something has not changed for too long, and count anew from here if so."""
        key, opens = (number, suspect.name), self._shell.metrics.task(number).opens
        seen = self._seen.get(key)
        if seen is None or seen.sign != suspect.sign:
            self._seen[key] = _Seen(suspect.sign, now_s, opens)
            self.standing.pop(key, None)
            return False
        if seen.opens != opens:  # it has all its time again
            seen.opens, seen.since_s = opens, now_s
        if now_s - max(seen.since_s, self._shell.pulse.restarted_s) < suspect.allowed_s:
            return False
        seen.since_s = now_s
        return True

    def _sources(self, runner: TaskRunner, task: Task, ends: Mapping[TopicPartition, int]) -> Iterator[_Suspect]:
        free = frozenset(runner.free_inputs())
        for topic, source in task.sources.items():
            partition = TopicPartition(topic, task.number)
            position, end = runner.positions.get(partition), ends.get(partition)
            if position is None or end is None or partition not in free or source.idle or source.watermark == MAX_TIME:
                continue
            name, ahead = f"{topic}-{task.number}", task.counters["", topic, "records_ahead"]
            counts = self._counts.get(partition)
            if counts is None or counts.watermark != source.watermark or counts.position > position or counts.ahead > ahead:
                counts = self._counts[partition] = _Counts(source.watermark, position, ahead)
            if ahead - counts.ahead > _MOST * (position - counts.position):
                reason = (
                    f"of the records of {name} since offset {counts.position} {ahead - counts.ahead} are too far in the future (max_ahead)"
                )
                yield _Suspect(f"ahead {topic}", source.watermark, self._stall_s, reason, is_curable=False)
            idle_ms = task.plan.sources[topic].watermark.idle_ms
            if position >= end and idle_ms is not None:
                yield self._quiet(partition, position, source.watermark, idle_ms / 1_000)

    def _quiet(self, partition: TopicPartition, position: int, watermark: int, idle_s: float) -> _Suspect:
        state = self._shell.transport.fetch_state(partition)
        name, topic = f"{partition.topic}-{partition.partition}", partition.topic
        if state is not None and state.high_watermark > position:
            reason = f"{name} ends at {state.high_watermark}, but a transaction that is open there lets nobody read beyond {position}"
            return _Suspect(f"open {topic}", (position, watermark), idle_s + self._stall_s, reason, is_curable=False)
        reason = f"{name} is quiet at {position} and does not become idle (idle after {idle_s:g} s)"
        return _Suspect(f"quiet {topic}", (position, watermark), idle_s + self._stall_s, reason, is_curable=True)

    def _sinks(self, task: Task) -> Iterator[_Suspect]:
        for run in task.runs.values():
            for name, operator in run.operators.items():
                if isinstance(operator, RepartitionSink) and (told := operator.untold()) is not None:
                    place = f"{run.name}/{name}"
                    known = "nothing yet" if told.known == MIN_TIME else f"only {told.known}"
                    reason = f"{place} has reached {told.reached} and has told partition {told.partition} {known}"
                    yield _Suspect(f"told {place}", told.known, self._stall_s, reason, is_curable=True)

    # -- other workers

    async def _skewed(self, runner: TaskRunner, task: Task, now_s: float) -> list[_Suspect]:
        """Return what waits for a slower partition, on purpose; and whether that one has input and does not move, on another worker."""
        suspects: list[_Suspect] = []
        free, alignment = frozenset(runner.free_inputs()), self._shell.alignment
        for topic, source in task.sources.items():
            partition = TopicPartition(topic, task.number)
            slowest = None if partition in free or alignment is None else alignment.waits_for(partition)
            if slowest is None:
                continue
            what = self._waiting(partition, source.watermark, slowest)
            suspects.append(_Suspect(f"waits {topic}", source.watermark, self._stall_s, what, is_curable=False, is_on_purpose=True))
            stuck = None if slowest.is_here or slowest.is_opening else await self._stuck([slowest.partition], now_s)
            if stuck is not None:
                sign = (slowest.partition, slowest.watermark)
                suspects.append(_Suspect(f"skew {topic}", sign, self._stall_s, f"{what}: {stuck}", is_curable=False))
        return suspects

    def _waiting(self, partition: TopicPartition, watermark: int, slowest: Slowest) -> str:
        """Return who waits for whom, with the distance."""
        other = f"{slowest.partition.topic}-{slowest.partition.partition}"
        address = None if slowest.is_here else self._shell.transport.worker_of(slowest.partition.partition)
        where = "this worker" if slowest.is_here else "another worker" if address is None else f"the worker at {address.url}"
        if slowest.watermark is None:
            far = "of which nobody knows yet how far it is"
        else:
            far = f"which is at {slowest.watermark}, {(watermark - slowest.watermark) / 1_000:g} s behind"
        if slowest.is_opening:
            far += ", and is being opened"
        return f"{partition.topic}-{partition.partition} waits at {watermark} (max_skew) for {other} of {where}, {far}"

    async def _foreign(self, task: Task, held_here: frozenset[int], now_s: float) -> list[_Suspect]:
        """Return the tasks of other workers that hold a repartition back, have input and do not move."""
        suspects = []
        for run in task.runs.values():
            for topic, sources in run.upstream_of.items():
                reader = run.inputs[topic]
                slowest = [number for number in reader.held_by() if number not in held_here]
                inputs = [name for name, source in run.inputs.items() if source in sources]
                for number in slowest[:3]:
                    stuck = await self._stuck([TopicPartition(name, number) for name in inputs], now_s)
                    if stuck is not None:
                        reason = f"{run.name}/{topic} is at {reader.watermark} because of task {number} on another worker: {stuck}"
                        suspects.append(_Suspect(f"upstream {topic}", reader.watermark, self._stall_s, reason, is_curable=False))
        return suspects

    async def _stuck(self, inputs: list[TopicPartition], now_s: float) -> str | None:
        """Return what a task elsewhere has not read for long although it is there, as far as the group's offsets tell."""
        transport = self._shell.transport
        begins, ends = await transport.begin_offsets(inputs), await transport.end_offsets(inputs)
        committed = await transport.committed_offsets(inputs)
        found = None
        for partition in inputs:
            offset = committed.get(partition, begins[partition])
            before, since_s = self._upstreams.get(partition, (-1, now_s))
            if before != offset:
                before, since_s = offset, now_s
            self._upstreams[partition] = (offset, since_s)
            if ends[partition] > offset and now_s - since_s >= self._stall_s / 2:
                found = f"{partition.topic}-{partition.partition} is at {offset} and ends at {ends[partition]}"
        return found
