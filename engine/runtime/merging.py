"""Inputs that meet are merged by event time, as far as both have records; waiting for the slower side is bounded.

    orders   10:00 10:02 10:05 …       orders.join(payments), orders.lookup(rates), orders.merge(others), table joins
    rates         10:01       10:04
    taken    10:00 10:01 10:02 10:04 10:05

What a task has fetched of inputs that reach one operator is taken in the order of event time, so that a backlog is read as it came
about: a lookup finds the row of then, and a join holds no hours of one side while it waits for the other. No result depends on it
but those that ask for the order of arrival (`lookup`, `merge` without windows), and these only as they do live.

An input that is behind in time, has nothing here, and is known to have more on the broker is waited for, but no longer than `WAIT_S`
since it last gave something, and never when it is idle or held back. What comes through a repartition topic is not waited for.

Runs of one input get longer with what is queued, so that the price of changing over stays small: up to some hundred records the
order is exact, in a long backlog it is so to within some hundred records (`python -m tests.bench.merging` measures it). Where a codec
has to get a schema before it can read, the watermark stands for the times of the records.

Source: KIP-353 and KIP-695 (`max.task.idle.ms` of Kafka Streams).
"""

from collections.abc import Sequence

from engine.block import MAX_TIME
from engine.graph import Node
from engine.plan import Plan
from engine.records import RecordBatch, TopicPartition
from engine.runtime.cutting import cut_piece
from engine.runtime.intake import EndOfInput, Intake
from engine.runtime.preparing import Prepares
from engine.runtime.transport.protocol import Transport
from engine.task import Task

WAIT_S = 0.2
CHUNK_RECORDS = 512
EXACT_RECORDS = 250  # up to so many queued records, a run ends with the first record of another input that is earlier
QUEUED_A_RECORD = 64  # so many more make a run one record longer at least


class Merging:
    """Says what a task takes next from its intake."""

    def __init__(self, plan: Plan, intake: Intake, transport: Transport) -> None:
        self._intake = intake
        self._transport = transport
        self._groups = meeting_inputs(plan)
        self._mates: dict[str, list[str]] = {
            topic: [other for other in plan.sources if other != topic and self._groups.get(other) == group]
            for topic, group in self._groups.items()
        }
        self._unread = {topic for topic, spec in plan.sources.items() if isinstance(spec.codec, Prepares)}
        self._waiting_since_s: dict[str, float] = {}

    def next(self, task: Task, now_s: float) -> RecordBatch | EndOfInput | None:
        """Take the next item, or the first part of one; None if there is nothing, or nothing that need not wait."""
        heads = self._intake.heads()
        for partition in heads:
            self._waiting_since_s.pop(partition.topic, None)
        for partition in heads:
            group = self._groups.get(partition.topic)
            if group is None:
                return self._intake.take(partition)
            mates = [head for head in heads if self._groups.get(head.topic) == group]
            if mates[0] is not partition:
                continue  # looked at already: it waits
            item = self._merge(task, mates, now_s)
            if item is not None:
                return item
        return None

    def _merge(self, task: Task, mates: Sequence[TopicPartition], now_s: float) -> RecordBatch | EndOfInput | None:
        """Take from the one of several inputs whose next record is the earliest."""
        if len(mates) == 1 and not self._candidates(task, mates[0]):
            return self._intake.take(mates[0])
        times = {partition: self._times(task, partition) for partition in mates}
        first = min(mates, key=lambda partition: times[partition][0])
        if self._must_wait(task, first, times[first][0], now_s):
            return None
        item = self._intake.pop(first)
        if isinstance(item, EndOfInput):
            return item
        limit = min((times[partition][0] for partition in mates if partition is not first), default=MAX_TIME)
        least = max(1, (self._intake.queued - EXACT_RECORDS) // QUEUED_A_RECORD)
        count = next((row for row, time_ms in enumerate(times[first]) if time_ms > limit and row >= least), len(item))
        if count < len(item):
            self._intake.set_aside(cut_piece(item, count, len(item)))
            return cut_piece(item, 0, count)
        return item

    def _times(self, task: Task, partition: TopicPartition) -> Sequence[int]:
        """Return the event times of what is queued first of an input."""
        item = self._intake.peek(partition)
        if isinstance(item, EndOfInput):
            return (MAX_TIME,)
        if len(item) > CHUNK_RECORDS:
            self._intake.pop(partition)
            self._intake.set_aside(cut_piece(item, CHUNK_RECORDS, len(item)))
            item = cut_piece(item, 0, CHUNK_RECORDS)
            self._intake.set_aside(item)
        if not len(item):
            return (-MAX_TIME,)  # nothing but an offset that moves
        source = task.sources.get(partition.topic)
        if source is None:
            return item.timestamps
        return [source.watermark] * len(item) if partition.topic in self._unread else source.times(item)

    def _candidates(self, task: Task, partition: TopicPartition) -> list[TopicPartition]:
        """Return the sources that might have to be waited for before a record of an input is taken."""
        others = [TopicPartition(topic, partition.partition) for topic in self._mates[partition.topic]]
        return [
            other
            for other in others
            if not self._intake.has(other)
            and not self._intake.is_held(other)
            and not task.sources[other.topic].idle
            and self._has_more(other)
        ]

    def _must_wait(self, task: Task, partition: TopicPartition, time_ms: int, now_s: float) -> bool:
        behind = [other.topic for other in self._candidates(task, partition) if task.sources[other.topic].watermark < time_ms]
        since_s = [self._waiting_since_s.setdefault(topic, now_s) for topic in behind]
        return any(now_s - since < WAIT_S for since in since_s)

    def _has_more(self, partition: TopicPartition) -> bool:
        """Return whether the broker is known to have more of a partition than is here, or has not answered yet."""
        state = self._transport.fetch_state(partition)
        return state is None or state.high_watermark > self._intake.expected(partition)


def meeting_inputs(plan: Plan) -> dict[str, int]:
    """Return a number for each input topic whose records meet those of others in some operator; the same for those that meet."""
    groups: dict[str, int] = {}
    for graph in plan.graphs.values():
        reaching: dict[Node, set[str]] = {}
        for node in graph.nodes:
            if node.is_broadcast:
                reaching[node] = set()
            elif node.source is not None:
                reaching[node] = {node.source.topic}
            elif node.kind == "repartition":
                reaching[node] = {plan.repartitions[node]}
            else:
                reaching[node] = {topic for read, _ in node.inputs for topic in reaching[read]}
                reaching[node] |= {topic for table in node.reads for topic in reaching[table]}
                if len(reaching[node]) > 1:
                    _unite(groups, sorted(reaching[node]))
    return groups


def _unite(groups: dict[str, int], topics: Sequence[str]) -> None:
    old = {groups[topic] for topic in topics if topic in groups}
    number = min(old, default=len(groups))
    groups.update({topic: number for topic, group in groups.items() if group in old})
    groups.update(dict.fromkeys(topics, number))


__all__ = ["Merging", "meeting_inputs"]
