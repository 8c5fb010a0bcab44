"""`TestDriver`: the genuine tasks of an app in one synchronous object, for tests. No broker, no event loop, no waiting.

    with TestDriver(app) as driver:
        driver.send("orders", Order("o1", "ann", 500, "EUR", "DE", ts=1_000))
        driver.finish()
        assert driver.read("revenue")[0].value["revenue_cents"] == 500

What a worker does with transactions is done here in one step: outputs become readable, the changelog reaches the store, and
repartition topics reach their readers, all at `commit`. `crash` drops what was not committed; like a broker, the driver hands the
uncommitted input out again afterwards. The wall clock is a fake and moves only by `advance`.
"""

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import msgspec

from engine.cep import Explained, Told
from engine.control import Command, Report, encode_command, partitions_for
from engine.durations import Duration, duration_ms
from engine.errors import ConfigError
from engine.keys import wire_bytes
from engine.plan import Plan
from engine.records import Headers, OutputColumns, Record, RecordBatch, TopicPartition
from engine.replays import DeadLetter, read_letter, refusal
from engine.task import Task
from engine.testing.preparing import Preparing
from engine.testing.wire import decode_value, key_decoder, time_ms, to_wire
from engine.topology import Pipeline, Source, Topology
from state.hashing import partition_of
from state.memory import MemoryStore
from state.store import Position, Store

START_MS = 1_735_689_600_000  # 2025-01-01T00:00:00Z
_STEP_MS = 1_000
_STEPS_MAX = 10_000


class TestDriver:
    """Run an app, or one of its pipelines, in a test.

    Args:
        app_or_pipeline: An `App` (all pipelines) or what `@app.pipeline` made of a function (that one).
        partitions: Number of partitions of every topic, instead of the app's own.
        store: "memory", or "rocks" for RocksDB stores in a temporary folder.
        now: Where the fake wall clock starts: UTC milliseconds or an aware datetime.
        max_ahead: Let records from the future hold back the watermark as in production; None switches that off.
    """

    __test__ = False

    def __init__(
        self,
        app_or_pipeline: Any,
        partitions: int = 1,
        store: Literal["memory", "rocks"] = "memory",
        *,
        now: int | datetime = START_MS,
        max_ahead: Duration | None = None,
    ) -> None:
        ahead_ms = None if max_ahead is None else duration_ms(max_ahead, "max_ahead")
        self._plan: Plan = replace(_plan_of(app_or_pipeline, partitions), max_ahead_ms=ahead_ms)
        if store not in ("memory", "rocks"):
            raise ConfigError(f"store={store!r} is not known; use 'memory' or 'rocks'")
        self._folder = Path(tempfile.mkdtemp(prefix="streamforge-test-")) if store == "rocks" else None
        self.now_ms = time_ms(now)
        self._logs: dict[TopicPartition, list[tuple[int, bytes | None, bytes | None, Any]]] = {}
        self._committed_order: dict[str, list[TopicPartition]] = {}
        self._read: dict[str, int] = {}
        self._commits = [0] * partitions
        self._replayed: set[str] = set()
        self._stores: list[Store] = [self._open_store(number) for number in range(partitions)]
        self._tasks: list[Task] = []
        self._preparing = Preparing(self._plan)
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the stores and remove their folder; without a commit."""
        self._preparing.close()
        for store in self._stores:
            store.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    # -- input

    def send(
        self,
        topic: str,
        value: Any,
        *,
        key: Any = None,
        at: int | datetime | None = None,
        partition: int | None = None,
        headers: Headers = (),
    ) -> None:
        """Produce one record to a source topic and process it at once.

        Args:
            value: A Struct or dict (encoded by the source's codec, a dict as JSON), raw bytes, or None for a tombstone.
            key: The record key; without it the source's key field decides.
            at: The Kafka timestamp, and the value's time field where a dict lacks it; the wall clock without it.
            partition: Where to put it instead of by its key.
            headers: Pairs of name and bytes.
        """
        self._preparing.before_send(topic, value)
        record = to_wire(self._plan, topic, value, key=key, at=at, partition=partition, now_ms=self.now_ms)
        self._log(TopicPartition(topic, record.partition)).append((record.timestamp_ms, record.key, record.value, tuple(headers)))
        self._deliver(TopicPartition(topic, record.partition))

    def command(self, command: Command) -> list[Report]:
        """Give a command (`engine.control`: an edit of state) to the tasks that it concerns, commit, and return what became of it."""
        for number in partitions_for(command, self._tasks[0].catalog(), self._plan.partitions):
            partition = TopicPartition(self._plan.control_topic, number)
            self._log(partition).append((self.now_ms, None, encode_command(command), ()))
            self._deliver(partition)
        rows = [msgspec.convert(record.value, Report) for record in self.read(self._plan.audit_topic)]
        return [row for row in rows if row.id == command.id]

    def advance(self, duration: Duration) -> None:
        """Move the wall clock on: wall-clock timers fire, inputs without records become idle. Commits before and after."""
        end_ms = self.now_ms + duration_ms(duration, "advance")
        step_ms = max(_STEP_MS, (end_ms - self.now_ms) // _STEPS_MAX)
        self.commit()
        quiet = dict.fromkeys(self._plan.sources, True)
        self._observe(quiet)
        while self.now_ms < end_ms:
            due = [due_ms for task in self._tasks if (due_ms := task.next_wall_clock_ms()) is not None]
            self.now_ms = min([end_ms, self.now_ms + step_ms, *(max(due_ms, self.now_ms + 1) for due_ms in due)])
            self._observe(quiet)
        self.commit()

    def finish(self) -> None:
        """End all inputs: the watermark goes to the end of time, every window closes and every event-time timer fires."""
        self.commit()
        for task in self._tasks:
            for topic in self._plan.sources:
                task.end_of_input(topic)
        self.commit()

    # -- output

    def commit(self) -> None:
        """Commit every task, until nothing is on its way through a repartition topic any more."""
        while any(task.dirty for task in self._tasks):
            written: set[TopicPartition] = set()
            for task in self._tasks:
                written |= self._commit(task)
            for partition in sorted(written):
                if partition.topic in self._plan.internal_topics:
                    self._deliver(partition)

    def read(self, topic: str) -> list[Record[Any, Any]]:
        """Commit, then return the records of a topic since the last read; values as JSON gives them, keys by their type."""
        self.commit()
        order = self._committed_order.get(topic, [])
        start = self._read.get(topic, 0)
        self._read[topic] = len(order)
        seen: dict[TopicPartition, int] = {}
        for partition in order[:start]:
            seen[partition] = seen.get(partition, 0) + 1
        decode_key = key_decoder(self._plan, topic)
        records = []
        for partition in order[start:]:
            offset = seen.get(partition, 0)
            seen[partition] = offset + 1
            timestamp_ms, key, value, headers = self._logs[partition][offset]
            records.append(
                Record(
                    None if key is None else decode_key(key),
                    decode_value(value),
                    timestamp_ms,
                    topic,
                    partition.partition,
                    offset,
                    tuple(headers),
                )
            )
        return records

    def state(self, pipeline: Any, key: Any, operator: str | None = None) -> dict[str, Any]:
        """Return the state of a key in a pipeline (its name, or what `@app.pipeline` gave): name and value."""
        name = pipeline if isinstance(pipeline, str) else pipeline.name
        if name not in self._plan.graphs:
            raise ConfigError(f"there is no pipeline {name!r}; there are {', '.join(self._plan.graphs)}")
        number = partition_of(wire_bytes(key), self._plan.partitions)
        return self._tasks[number].inspect(name, key, operator)

    def explain(self, pipeline: Any, key: Any, operator: str | None = None) -> list[Explained]:
        """Return the partial matches of a key that are alive: what they took, which stage each waits for, and when it dies."""
        found = self.state(pipeline, key, operator)
        return [one for name, several in found.items() if name.split(".")[-1] == "partial_matches" for one in several]

    def history(self, pipeline: Any, key: Any, operator: str | None = None) -> list[Told]:
        """Return what became of the last partial matches of a key, as far as `detect(history=…)` keeps it, oldest first."""
        found = self.state(pipeline, key, operator)
        return [one for name, several in found.items() if name.split(".")[-1] == "history" for one in several]

    def counters(self) -> dict[tuple[str, str, str], int]:
        """Return (pipeline, operator, counter) -> number, over all tasks, since the last restart."""
        total: dict[tuple[str, str, str], int] = {}
        for task in self._tasks:
            for name, number in task.counters.items():
                total[name] = total.get(name, 0) + number
        return total

    # -- dead letters

    def dead_letters(self) -> list[DeadLetter]:
        """Commit, then return the dead letters that have not been replayed, by partition and offset."""
        self.commit()
        topic = self._plan.dead_letter_topic
        rows = [(p.partition, offset, *row) for p, log in sorted(self._logs.items()) if p.topic == topic for offset, row in enumerate(log)]
        letters = [read_letter(number, offset, key, value, ts, headers) for number, offset, ts, key, value, headers in rows]
        return [letter for letter in letters if letter.name not in self._replayed]

    def replay(self, *letters: DeadLetter) -> int:
        """Send dead letters, all if none are given, back to where their records were, as `streamforge dlq replay` does.

        Returns: How many; one that was replayed before is passed over.
        Raises ConfigError for one that is given and cannot be replayed.
        """
        count = 0
        for letter in letters or self.dead_letters():
            reason = refusal(letter, self._plan)
            if reason is not None and letters:
                raise ConfigError(f"dead letter {letter.name} cannot be replayed: {reason}")
            if reason is None and letter.name not in self._replayed:
                self._replayed.add(letter.name)
                place = TopicPartition(letter.topic, letter.source_partition)
                self._log(place).append((letter.timestamp_ms, letter.key, letter.value, letter.replay_headers(self._plan.app_id)))
                self._deliver(place)
                count += 1
        return count

    # -- failures

    def crash(self) -> None:
        """Lose everything that was not committed, as a kill -9 does, and start again from the stores."""
        self._start()

    def restart(self, app_or_pipeline: Any = None) -> None:
        """Commit, stop, and start again from the stores.

        Args:
            app_or_pipeline: Another version of the app to go on with, as after a deployment: it finds the state of this one.
        """
        self.commit()
        if app_or_pipeline is not None:
            plan = replace(_plan_of(app_or_pipeline, self._plan.partitions), max_ahead_ms=self._plan.max_ahead_ms)
            if plan.app_id != self._plan.app_id:
                raise ConfigError(f"app {plan.app_id!r} has no state here: it is that of app {self._plan.app_id!r}")
            self._preparing.close()
            self._plan, self._preparing = plan, Preparing(plan)
        if self._folder is not None:
            for store in self._stores:
                store.close()
            self._stores = [self._open_store(number) for number in range(self._plan.partitions)]
        self._start()

    # -- inside

    def _start(self) -> None:
        self._tasks = [Task(self._plan, number, store, now_ms=self.now_ms) for number, store in enumerate(self._stores)]
        for task in self._tasks:
            task.prompt_watermarks = True
        for partition in self._plan.broadcast_inputs:
            self._deliver(partition)
        for partition in sorted(self._logs):
            if partition.topic in self._plan.input_topics:
                self._deliver(partition)

    def _open_store(self, number: int) -> Store:
        if self._folder is None:
            return MemoryStore()
        from state.rocks import RocksStore

        return RocksStore(self._folder / str(number))

    def _log(self, partition: TopicPartition) -> list[tuple[int, bytes | None, bytes | None, Any]]:
        return self._logs.setdefault(partition, [])

    def _deliver(self, partition: TopicPartition) -> None:
        """Hand a task what it has not taken yet of a topic partition."""
        if partition.topic in self._plan.broadcasts:
            for task in self._tasks:
                if (batch := self._batch(partition, task.broadcast_positions()[partition])) is not None:
                    task.process_broadcast(batch, self.now_ms)
            return
        task = self._tasks[partition.partition]
        batch = self._batch(partition, task.positions[partition])
        if batch is None:
            return
        for pipeline in self._plan.readers(partition.topic):
            task.process(pipeline, batch, self.now_ms)
        task.finish_batch(batch)

    def _batch(self, partition: TopicPartition, position: int | None) -> RecordBatch | None:
        """Return what a topic partition holds from a position on, None for nothing."""
        log, start = self._log(partition), position or 0
        rows = log[start:]
        if not rows:
            return None
        batch = RecordBatch(
            partition.topic,
            partition.partition,
            list(range(start, len(log))),
            [row[0] for row in rows],
            [row[1] for row in rows],
            [row[2] for row in rows],
            position=start,
            next_offset=len(log),
            high_watermark=len(log),
            read_headers=lambda: [row[3] for row in rows],
        )
        self._preparing.before_decode(batch)
        return batch

    def _observe(self, quiet: dict[str, bool]) -> None:
        for task in self._tasks:
            task.advance_clock(self.now_ms, quiet)
        self.commit()

    def _commit(self, task: Task) -> set[TopicPartition]:
        commit = task.prepare_commit(self.now_ms)
        if commit is None:
            return set()
        for partition, columns in commit.outputs.items():
            self._append(partition, columns)
        self._commits[task.number] += 1
        task.committed(Position(b"test", self._commits[task.number], self.now_ms))
        return set(commit.outputs)

    def _append(self, partition: TopicPartition, columns: OutputColumns) -> None:
        headers: Iterable[Any] = columns.headers or [()] * len(columns)
        self._log(partition).extend(zip(columns.timestamps, columns.keys, columns.values, headers, strict=True))
        self._committed_order.setdefault(partition.topic, []).extend([partition] * len(columns))


def _plan_of(app_or_pipeline: Any, partitions: int) -> Plan:
    topology, only = topology_of(app_or_pipeline)
    return topology.plan(partitions=partitions, only=only)


def topology_of(app_or_pipeline: Any) -> tuple[Topology, list[str] | None]:
    """Return the topology of an app or a pipeline, and the names of the pipelines meant, None for all."""
    if isinstance(app_or_pipeline, Topology):
        return app_or_pipeline, None
    if isinstance(app_or_pipeline, Pipeline):
        return app_or_pipeline.topology, [app_or_pipeline.name]
    topology = getattr(app_or_pipeline, "topology", None)
    if isinstance(topology, Topology) and not isinstance(app_or_pipeline, Source):
        return topology, None
    raise ConfigError(f"TestDriver needs an App or a pipeline of one, not {app_or_pipeline!r}")
