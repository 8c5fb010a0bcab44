"""A task: everything of an app on one partition number. Pure: batches and clock readings in, one commit out.

    process(pipeline, batch)…  finish_batch(batch)      input, batch by batch; the offset moves when all pipelines took it
    process_broadcast(batch)                            the same for a topic that every task reads as a whole
    advance_clock(now, quiet)                           idle inputs, wall-clock timers
    prepare_commit()  ->  Commit                        outputs + state changes + offsets, for one transaction
    committed(position)                                 the transaction is through: the same changes go to the store

Between `prepare_commit` and `committed` nothing else may be called. After any failure a task is dropped and made anew from the
store: there is no way back inside.

The state holds, beside that of the operators, the input offsets (they are the truth, not the group's), the watermark and idleness
of each source, and the signatures of the stateful operators, so that a graph that does not fit the state is noticed at the start.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.block import Block
from engine.broadcasts import BroadcastPositions
from engine.control import ControlInput
from engine.dead_letters import record_headers, without_payload
from engine.errors import ConfigError
from engine.inputs import SourceState
from engine.key_types import check_key_types
from engine.keys import key_codec
from engine.outputs import OutputMark, Outputs
from engine.plan import Plan
from engine.records import Headers, OutputColumns, RecordBatch, TopicPartition
from engine.run import PipelineRun
from engine.topics import OWN_RECORD_BYTES_MAX
from state.catalog import Catalog
from state.hashing import key_hashes
from state.memory import MemoryStore
from state.overlay import TaskState
from state.store import Change, Position, Store
from state.values import msgpack_codec


@dataclass(frozen=True, slots=True)
class Commit:
    """What one transaction takes: records to produce, store changes for the changelog (offsets among them), group offsets."""

    outputs: dict[TopicPartition, OutputColumns]
    changes: list[Change]
    offsets: dict[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class TaskMark:
    """A point to roll back to."""

    state: int
    outputs: OutputMark
    counters: Counter[tuple[str, str, str]]


class Task:
    """One partition number of an app.

    Args:
        number: The partition number.
        store: Restored to the end of the changelog.
        now_ms: Wall clock, UTC milliseconds.
        partition_counts: Partitions of output topics that do not have the app's number of partitions.
        record_bytes_max: Largest record that each topic takes (looked into as it runs): what makes a larger one is a bad record.

    Attributes:
        positions: Next offset of each input; None for a topic that the state has never seen.
        counters: (pipeline, operator, counter) -> number since this task was made.
        dirty: There is something to commit.
        prompt_watermarks: Tell every repartition partition the watermark with each commit (tests, bounded runs), instead of
            at most once a second where there is no data.

    Raises:
        ConfigError: The state was made by a graph that this one does not fit.
    """

    def __init__(
        self,
        plan: Plan,
        number: int,
        store: Store,
        *,
        now_ms: int,
        partition_counts: Mapping[str, int] | None = None,
        record_bytes_max: Mapping[str, int] | None = None,
        cache_entries_max: int = 200_000,
    ) -> None:
        self.plan = plan
        self.number = number
        self.store = store
        self.now_ms = now_ms
        self.state = TaskState(store, cache_entries_max=cache_entries_max)
        self.outputs = Outputs(
            partition_counts or {},
            partitions=plan.partitions,
            own_partition=number,
            key_hashes=key_hashes,
            bytes_max=_default_limits(plan) if record_bytes_max is None else record_bytes_max,
            hashes_max=cache_entries_max,
        )
        self.counters: Counter[tuple[str, str, str]] = Counter()
        self.dirty = False
        self.prompt_watermarks = False
        self._commit: Commit | None = None
        names = key_codec(str)
        self._offsets = self.state.keyed("_task/offsets", names, msgpack_codec(int))
        self._check_graph()
        self.positions: dict[TopicPartition, int | None] = {
            TopicPartition(topic, number): self._offsets.get(topic) for topic in plan.input_topics
        }
        self._broadcasts = BroadcastPositions(self)
        self.control = ControlInput(self)
        self.sources = {topic: SourceState(self, spec) for topic, spec in plan.sources.items()}
        self.runs = {name: PipelineRun(self, graph) for name, graph in plan.graphs.items()}
        check_key_types(plan.app_id, number, self.state)
        for run in self.runs.values():
            run.start()
        self.state.forget()

    # -- input

    def process(self, pipeline: str, batch: RecordBatch, now_ms: int) -> None:
        """Let one pipeline work on a batch; what is bad goes to the dead letters (`on_error="fail"` raises)."""
        assert self._commit is None, "a commit is on its way"
        self.now_ms = now_ms
        self.dirty = True
        run = self.runs[pipeline]
        source = run.inputs[batch.topic]
        if len(batch):
            run.feed(source, source.block(batch, now_ms))

    def finish_batch(self, batch: RecordBatch) -> None:
        """Every pipeline that reads the topic has worked on the batch: its offset moves. Commands are obeyed here."""
        self.dirty = True
        if batch.topic == self.plan.control_topic:
            self.control.take(batch)
        self._offsets.put(batch.topic, batch.next_offset)
        self.positions[TopicPartition(batch.topic, batch.partition)] = batch.next_offset
        batch.attached.clear()  # what is attached refers to the batch: only the collector would free both
        self.state.forget()

    def process_broadcast(self, batch: RecordBatch, now_ms: int) -> None:
        """Take a batch of a broadcast topic, into every pipeline that reads it; its position moves."""
        assert self._commit is None, "a commit is on its way"
        self.now_ms = now_ms
        self.dirty = True
        for name in self.broadcast_readers(batch.topic):
            run = self.runs[name]
            source = run.broadcasts[batch.topic]
            run.feed(source, source.block(batch, now_ms))
        batch.attached.clear()
        self._broadcasts.move(batch)
        self.state.forget()

    def broadcast_positions(self) -> dict[TopicPartition, int | None]:
        """Return the next offset of each partition of the broadcast topics; None for one that the state has never seen."""
        return self._broadcasts.all()

    def broadcast_readers(self, topic: str) -> list[str]:
        """Return the names of the pipelines that read a broadcast topic."""
        return [name for name, run in self.runs.items() if topic in run.broadcasts]

    def advance_clock(self, now_ms: int, quiet: Mapping[str, bool]) -> None:
        """The wall clock has moved on.

        Args:
            quiet: For each source topic whether the latest fetch answer since the last call showed nothing left to read, with
                the partition open and unpaused. Anything else starts the idle time again.
        """
        assert self._commit is None, "a commit is on its way"
        self.now_ms = now_ms
        for topic, source in self.sources.items():
            moved = source.observe(now_ms, quiet.get(topic, False))
            if moved is not None:
                self._feed_source(topic, moved)
        for run in self.runs.values():
            due_ms = run.next_wall_clock_ms()
            if due_ms is not None and due_ms <= now_ms:
                self.dirty = True
                run.on_wall_clock(now_ms)

    def next_wall_clock_ms(self) -> int | None:
        """Return when the next wall-clock timer is due."""
        return min((due for run in self.runs.values() if (due := run.next_wall_clock_ms()) is not None), default=None)

    def end_of_input(self, topic: str) -> None:
        """No more records will come on a source topic: its watermark goes to the end of time (bounded runs)."""
        self.prompt_watermarks = True
        moved = self.sources[topic].end()
        if moved is not None:
            self._feed_source(topic, moved)

    def _feed_source(self, topic: str, block: Block) -> None:
        self.dirty = True
        for name in self.plan.readers(topic):
            run = self.runs[name]
            run.feed(run.inputs[topic], block)

    # -- commit

    def prepare_commit(self, now_ms: int) -> Commit | None:
        """Return everything since the last commit, None if there is nothing."""
        assert self._commit is None, "a commit is on its way"
        if not self.dirty:
            return None
        self.now_ms = now_ms
        for run in self.runs.values():
            run.before_commit()
        offsets = {partition: offset for partition, offset in self.positions.items() if offset is not None}
        self._commit = Commit(self.outputs.take(), self.state.changes(), offsets)
        return self._commit

    def committed(self, position: Position) -> None:
        """The transaction is through: write the same changes to the store.

        Raises:
            StateError: The store did not take them; drop this task and make it anew.
        """
        assert self._commit is not None, "no commit is on its way"
        self.store.apply(self._commit.changes, position)
        self.state.committed()
        self._commit = None
        self.dirty = False

    # -- what operators and runs need

    def mark(self) -> TaskMark:
        """Return a point to roll back to."""
        return TaskMark(self.state.mark(), self.outputs.mark(), self.counters.copy())

    def rollback(self, mark: TaskMark) -> None:
        """Undo everything since a mark."""
        self.state.rollback(mark.state)
        self.outputs.rollback(mark.outputs)
        self.counters = mark.counters.copy()
        for run in self.runs.values():
            for operator in run.operators.values():
                operator.rolled_back()

    def dead_letter(self, batch: RecordBatch, row: int, pipeline: str, operator: str, error: BaseException) -> None:
        """Send a bad record to the dead-letter topic."""
        self.counters[pipeline, operator, "dead_letters"] += 1
        key, value = batch.keys[row], batch.values[row]
        headers = record_headers(
            batch.headers[row],
            topic=batch.topic,
            partition=batch.partition,
            offset=batch.offsets[row],
            pipeline=pipeline,
            operator=operator,
            error=error,
        )
        self.add_dead_letter(key, value, batch.timestamps[row], headers, own=len(batch.headers[row]))

    def add_dead_letter(self, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Headers, own: int = 0) -> None:
        """Produce a dead letter, of which `own` headers are the record's; it may be too large, or from before Kafka's time."""
        topic = self.plan.dead_letter_topic
        if not self.outputs.fits(topic, key, value, headers):
            key, value, headers = without_payload(key, value, headers, own)
        self.outputs.add(topic, [key], [value], [max(0, timestamp_ms)], [headers])

    # -- looking in

    def watermarks(self) -> dict[str, int]:
        """Return the watermark of each input, by "pipeline/topic"."""
        return {f"{name}/{topic}": source.watermark for name, run in self.runs.items() for topic, source in run.inputs.items()}

    def catalog(self) -> Catalog:
        """Return what the entries of the store are."""
        return self.state.catalog(frozenset(f"{name}/{operator}" for name, run in self.runs.items() for operator in run.held_whole()))

    def inspect(self, pipeline: str, key: Any, operator: str | None = None) -> dict[str, Any]:
        """Return the state of a key in a pipeline: name and value; names that two operators share have the operator in front."""
        run = self.runs[pipeline]
        if operator is not None and operator not in run.operators:
            raise ConfigError(f"pipeline {pipeline!r} has no operator {operator!r}; it has {', '.join(run.operators)}")
        found = [
            (name, local, value) for name, node in run.operators.items() if operator in (None, name) for local, value in node.inspect(key)
        ]
        shared = Counter(local for _, local, _ in found)
        return {local if shared[local] == 1 else f"{name}.{local}": value for name, local, value in found}

    def _check_graph(self) -> None:
        cells = self.state.keyed("_task/signatures", key_codec(str), msgpack_codec(dict[str, str]))
        stored: dict[str, str] = cells.get("") or {}
        wanted = dict(self.plan.signatures)
        changes = [
            f"{name} was {signature!r} and is now {wanted[name]!r}" if name in wanted else f"{name} ({signature!r}) is gone"
            for name, signature in sorted(stored.items())
            if wanted.get(name) != signature
        ]
        if changes:
            raise ConfigError(
                f"app {self.plan.app_id!r}: the state of partition {self.number} was made by another graph: {'; '.join(changes)}. "
                "Bring the old declaration back (the name= of an operator must stay), or start anew under another app id."
            )
        if stored != wanted:
            cells.put("", wanted)


def _default_limits(plan: Plan) -> Mapping[str, int]:
    """Return the largest record of the topics that this engine makes for itself, as they are made."""
    return dict.fromkeys((*plan.internal_topics, plan.dead_letter_topic), OWN_RECORD_BYTES_MAX)


def catalog_of(plan: Plan) -> Catalog:
    """Return what the entries of a store of this plan are."""
    return Task(plan, 0, MemoryStore(), now_ms=0).catalog()
