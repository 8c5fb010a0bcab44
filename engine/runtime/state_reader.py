"""Looking into the state of a running worker: rows of tables, and the state of a key in any operator. What it tells is committed.

    reader = StateReader(lambda: app.runner)
    reader.row(reader.table("users"), "ann")                     Found(value=User(…), partition=3)
    reader.row(reader.table("users"), "bob")                     NotHereError: partition 1 is not on this worker
    await reader.state("visits", "visit", "ann")                 Found(value={"views": 2, …}, partition=3)
    await reader.rows(reader.table("users"), limit=100)          the first hundred rows by key, of the partitions that are here

A worker holds some partition numbers, and a key lies in one of them, so "not here" is another answer than "there is no such row"; it
says which worker has the partition, as the group told at the last assignment.
A broadcast table lies in every task. A range looks at every row of the tables' partitions here (rows are stored by the hash of
their key), some thousand at a time, and keeps no more than it returns; rows that change meanwhile may be seen either way.
"""

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from engine.errors import ConfigError, RecordError, StreamForgeError, UnavailableError
from engine.graph import Node
from engine.keys import KeyCodec, key_codec
from engine.operators.rows import HeldRows
from engine.operators.table import TableOperator
from engine.runtime.assignor import WorkerAddress
from engine.runtime.lifecycle import Phase
from engine.runtime.runner import Runner
from engine.task import Task
from state.hashing import partition_of

ROWS_MAX = 10_000
_PIECE = 1_000
_TABLES = ("table", "table_aggregate", "table_join")
_Ranked = tuple[Any, Any]  # key as it is sorted, (key, value)


class UnknownStateError(ConfigError):
    """There is no such table, pipeline or operator, or the text is not a key of it: the message says what there is."""


class NotHereError(StreamForgeError):
    """The key's partition is not on this worker, so this worker cannot say anything about it.

    Attributes:
        partition: Where the key lies.
        worker: The worker that has it, None if that is not known.
    """

    def __init__(self, message: str, partition: int, worker: WorkerAddress | None) -> None:
        super().__init__(message)
        self.partition = partition
        self.worker = worker


@dataclass(frozen=True, slots=True)
class Place:
    """An operator, and how its keys are read and shared out."""

    pipeline: str
    node: Node
    codec: KeyCodec
    in_every_task: bool


@dataclass(frozen=True, slots=True)
class Found:
    """What is committed for a key; of a row that is not there the value is None."""

    key: Any
    value: Any
    partition: int


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows (key, value) by key: str and bytes by their bytes, int and Decimal by number, a Struct by its JSON, others by their text.

    Attributes:
        partitions: Those that were read.
        missing: Those that are not on this worker, or not open at present: rows of theirs are not among these.
        workers: Where those are that others have, as far as that is known.
        following: Key with which the range goes on, None if this is all of it here.
    """

    items: list[tuple[Any, Any]]
    partitions: list[int]
    missing: list[int]
    workers: dict[int, WorkerAddress]
    following: Any


class StateReader:
    """Answers about the state of a worker's tasks.

    Args:
        runner: Returns the worker's runner, None as long as there is none.
    """

    def __init__(self, runner: Callable[[], Runner | None]) -> None:
        self._runner = runner

    # -- what there is

    def tables(self) -> list[Place]:
        """Return every table, in the order of pipelines and operators."""
        plan = self._started().plan
        return [_place(pipeline, node) for pipeline, graph in plan.graphs.items() for node in graph.nodes if node.kind in _TABLES]

    def table(self, name: str, pipeline: str | None = None) -> Place:
        """Return the table of a name.

        Raises:
            UnknownStateError: There is none, or several pipelines have one each and `pipeline` does not say which.
        """
        tables = self.tables()
        found = [place for place in tables if place.node.name == name and pipeline in (None, place.pipeline)]
        if not found:
            there = ", ".join(f"{place.node.name} (pipeline {place.pipeline})" for place in tables) or "no tables"
            where = "" if pipeline is None else f" in pipeline {pipeline!r}"
            raise UnknownStateError(f"there is no table {name!r}{where}; there are: {there}")
        if len(found) > 1:
            pipelines = ", ".join(place.pipeline for place in found)
            raise UnknownStateError(f"pipelines {pipelines} each keep a table {name!r}; say which pipeline")
        return found[0]

    def operator(self, pipeline: str, operator: str) -> Place:
        """Return an operator.

        Raises:
            UnknownStateError: There is none of this name.
        """
        graphs = self._started().plan.graphs
        if pipeline not in graphs:
            raise UnknownStateError(f"there is no pipeline {pipeline!r}; there are: {', '.join(graphs)}")
        nodes = {node.name: node for node in graphs[pipeline].nodes if node.make is not None and node.signature}
        if operator not in nodes:
            raise UnknownStateError(
                f"pipeline {pipeline!r} keeps no state in {operator!r}; it does in: {', '.join(nodes) or 'no operator'}"
            )
        return _place(pipeline, nodes[operator])

    def key(self, place: Place, raw: bytes) -> Any:
        """Return a key from its bytes on the wire; one of undeclared type is taken for a str.

        Raises:
            UnknownStateError: The bytes are not a key of this operator.
        """
        try:
            return place.codec.decode(b"s" + raw if place.codec.type is Any else raw)
        except RecordError as error:
            raise UnknownStateError(f"pipeline {place.pipeline!r}, {place.node.name}: {error}") from error

    # -- looking in

    def row(self, place: Place, key: Any) -> Found:
        """Return the committed row of a key.

        Raises:
            NotHereError, UnavailableError: Its partition is not on this worker, or not open at present.
        """
        number = self._number(place, key)
        return Found(key, _rows_of(self._task(number), place).committed_row(key), number)

    async def state(self, place: Place, key: Any, partition: int | None = None) -> Found:
        """Return the committed state of a key by names, as `TestDriver.state` shows it; waits until nothing is uncommitted.

        Args:
            partition: Where to look if not where Kafka's partitioner puts the key (a source that another one has filled).
        Raises:
            NotHereError, UnavailableError: Its partition is not on this worker, or not open at present.
        """
        number = self._number(place, key) if partition is None else partition
        self._task(number)
        questions = self._started().tasks[number].questions
        value = await questions.ask(lambda task: task.inspect(place.pipeline, key, place.node.name))
        return Found(key, value, number)

    async def rows(self, place: Place, low: Any = None, high: Any = None, limit: int = 100) -> Rows:
        """Return the first rows with low <= key < high, of the partitions that are on this worker.

        Args:
            low, high: None for no bound.
            limit: 1 to ROWS_MAX.
        """
        if not 1 <= limit <= ROWS_MAX:
            raise ConfigError(f"limit={limit} is not allowed; it must be 1 to {ROWS_MAX}")
        rank = _rank(place.codec)
        bounds = (None if low is None else rank(low), None if high is None else rank(high))
        here = sorted(number for number, task in self._started().tasks.items() if task.questions.task is not None)
        numbers = here[:1] if place.in_every_task else here
        kept: list[_Ranked] = []
        done = [number for number in numbers if await self._scan(number, place, rank, bounds, limit + 1, kept)]
        kept.sort(key=_of_rank)
        everywhere = [] if place.in_every_task and done else range(self._started().plan.partitions)
        missing = [number for number in everywhere if number not in done]
        following = kept[limit][1][0] if len(kept) > limit else None
        workers = {number: where for number in missing if number not in here and (where := self._worker_of(number)) is not None}
        return Rows([item for _, item in kept[:limit]], done, missing, workers, following)

    async def _scan(
        self, number: int, place: Place, rank: Callable[[Any], Any], bounds: tuple[Any, Any], limit: int, kept: list[_Ranked]
    ) -> bool:
        """Add a task's rows to the smallest ones; return whether the task was there to the end."""
        low, high = bounds
        questions = self._started().tasks[number].questions
        task, after = questions.task, b""
        before = list(kept)
        while task is not None and questions.task is task:
            items, following = _rows_of(task, place).committed_rows(after, _PIECE)
            ranked = ((rank(key), (key, value)) for key, value in items)
            kept += [row for row in ranked if (low is None or row[0] >= low) and (high is None or row[0] < high)]
            kept[:] = heapq.nsmallest(limit, kept, key=_of_rank)
            if following is None:
                return True
            after = following
            await asyncio.sleep(0)
        kept[:] = before  # half a partition is none: it counts as missing
        return False

    # -- where

    def _started(self) -> Runner:
        runner = self._runner()
        if runner is None:
            raise UnavailableError("the worker is starting; ask again in a moment")
        return runner

    def _number(self, place: Place, key: Any) -> int:
        runner = self._started()
        if place.in_every_task:
            return min((number for number, task in runner.tasks.items() if task.questions.task is not None), default=0)
        return partition_of(place.codec.wire(key), runner.plan.partitions)

    def _worker_of(self, number: int) -> WorkerAddress | None:
        return self._started().transport.worker_of(number)

    def _task(self, number: int) -> Task:
        runner = self._started()
        if not 0 <= number < runner.plan.partitions:
            raise UnknownStateError(f"there is no partition {number}; the app has 0 to {runner.plan.partitions - 1}")
        running = runner.tasks.get(number)
        if running is None or running.phase is Phase.CLOSED:
            here, worker = ", ".join(map(str, sorted(runner.tasks))) or "none", self._worker_of(number)
            whom = "the worker that has it" if worker is None else f"{worker.url} on {worker.host}"
            raise NotHereError(f"partition {number} is not on this worker (it has {here}); ask {whom}", number, worker)
        if running.questions.task is None:
            raise UnavailableError(
                f"partition {number} is on this worker, but its task is {running.phase.name.lower()}; ask again in a moment"
            )
        return running.questions.task


def _place(pipeline: str, node: Node) -> Place:
    in_every_task = all(upstream.is_broadcast for upstream, _ in node.inputs)
    return Place(pipeline, node, key_codec(node.key_type), in_every_task)


def _rows_of(task: Task, place: Place) -> HeldRows:
    operator = task.runs[place.pipeline].operators[place.node.name]
    assert isinstance(operator, TableOperator)
    return operator.held()


def _rank(codec: KeyCodec) -> Callable[[Any], Any]:
    """Return what keys are sorted by."""
    return (lambda key: key) if codec.type in (int, Decimal) else codec.wire


def _of_rank(row: _Ranked) -> Any:
    return row[0]
