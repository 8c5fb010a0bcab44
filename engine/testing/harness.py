"""`OperatorHarness`: one operator on its own, over a genuine overlay and store, for tests of operators.

    harness = OperatorHarness(window_operator(spec))
    harness.feed("EUR", 5, 1_000, watermark=999)
    harness.advance(60_000)
    assert harness.take() == [Out("EUR", {...}, 59_999, 59_998)]

It holds every emitted block to the rules of `engine.block`: time never goes back, `before` ascends between start and watermark,
and a block begins where the one before it ended. `restart` stands for a crash right after a commit: a new operator, a new overlay,
the same store. An operator must give the same output whether or not that happens between any two calls.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from engine.block import MIN_TIME, Block
from engine.keys import wire_bytes
from engine.operators.base import Operator, OperatorContext
from engine.records import Headers
from state.memory import MemoryStore
from state.overlay import TaskState
from state.store import Change, Store


class Out(NamedTuple):
    """A record that came out, and the watermark that stood before it."""

    key: Any
    value: Any
    timestamp_ms: int
    before: int


class Side(NamedTuple):
    """A record that went to a side output."""

    topic: str
    key: Any
    value: Any
    timestamp_ms: int
    headers: Headers


class Failed(NamedTuple):
    """A firing that raised in careful mode."""

    key: Any
    timestamp_ms: int
    name: str
    error: Exception


class HarnessContext:
    """The `OperatorContext` of the operator under test; `idle` holds the input ports that are idle."""

    def __init__(self, harness: "OperatorHarness", state: TaskState) -> None:
        self.pipeline = harness.pipeline
        self.name = harness.name
        self.partition = harness.partition
        self.state = state
        self.now_ms = harness.now_ms
        self.careful = harness.careful
        self.idle: set[int] = set()
        self._harness = harness

    def state_name(self, local: str) -> str:
        return f"{self.pipeline}/{self.name}/{local}"

    def count(self, counter: str, number: int = 1) -> None:
        self._harness.counters[counter] += number

    def send(
        self,
        topic: str,
        keys: Sequence[Any],
        values: Sequence[Any],
        timestamps: Sequence[int],
        headers: Sequence[Headers] | None = None,
    ) -> None:
        column = [()] * len(keys) if headers is None else headers
        self._harness.sides += [Side(topic, *row) for row in zip(keys, values, timestamps, column, strict=True)]

    def key_bytes(self, key: Any) -> bytes:
        return wire_bytes(key)

    def inputs_idle(self, port: int) -> bool:
        """Return whether an input port is idle."""
        return port in self.idle

    @contextmanager
    def firing(self, key: Any, timestamp_ms: int, name: str = "") -> Iterator[None]:
        assert self.careful, "firing is for careful mode only"
        mark = self._harness.mark()
        try:
            yield
        except Exception as error:  # noqa: BLE001  # user code may raise anything
            self._harness.rollback(mark)
            self._harness.failed.append(Failed(key, timestamp_ms, name, error))


class Mark(NamedTuple):
    """A point to roll back to."""

    state: int
    out: int
    sides: int
    counters: Counter[str]
    watermark: int


class OperatorHarness:
    """Drive one operator by hand.

    Args:
        factory: What makes the operator: what `window_operator(spec)` and its like return.
        store: Committed state to start from.
        cache_entries_max: How many decoded entries stay in memory after a commit.

    Attributes:
        operator, context, store: The parts of it.
        out, sides, failed, counters: What has come out since the start or the last `take`.
        watermark: Time that the operator has given downstream.
        careful: Set it to replay as a task does after an error.
    """

    def __init__(
        self,
        factory: Callable[[OperatorContext], Operator],
        *,
        store: Store | None = None,
        partition: int = 0,
        pipeline: str = "test",
        name: str = "op",
        now_ms: int = 0,
        cache_entries_max: int = 200_000,
    ) -> None:
        self.factory = factory
        self.store: Store = MemoryStore() if store is None else store
        self.partition, self.pipeline, self.name = partition, pipeline, name
        self.now_ms = now_ms
        self._cache_entries_max = cache_entries_max
        self.out: list[Out] = []
        self.sides: list[Side] = []
        self.failed: list[Failed] = []
        self.counters: Counter[str] = Counter()
        self.watermark = MIN_TIME
        self._careful = False
        self._reached: dict[int, int] = {}
        self._open()

    @property
    def careful(self) -> bool:
        return self._careful

    @careful.setter
    def careful(self, careful: bool) -> None:
        self._careful = self.context.careful = careful

    # -- input

    def feed(self, key: Any, value: Any, timestamp_ms: int, *, watermark: int | None = None, port: int = 0) -> None:
        """Feed one record; then, in the same block, time moves to `watermark` (None: it stays)."""
        self.feed_block([(key, value, timestamp_ms)], watermark=watermark, port=port)

    def feed_block(
        self,
        records: Sequence[tuple[Any, Any, int]],
        *,
        before: Sequence[int] | None = None,
        watermark: int | None = None,
        port: int = 0,
    ) -> None:
        """Feed records (key, value, event time) as one block.

        Args:
            before: Watermark before each record; None: the one that this port has reached.
            watermark: Watermark after the last record; None: the last of `before`.
        """
        start = self._reached.get(port, MIN_TIME)
        column = [start] * len(records) if before is None else list(before)
        end = (column[-1] if column else start) if watermark is None else watermark
        keys, values, timestamps = zip(*records, strict=True) if records else ((), (), ())
        self._reached[port] = end
        self.operator.process(Block(keys, values, timestamps, start, end, column), port)

    def advance(self, watermark: int, *, port: int = 0) -> None:
        """Feed a block without records: only time moves."""
        self.feed_block([], watermark=watermark, port=port)

    def wall_clock(self, now_ms: int) -> None:
        """Set the wall clock, and fire what is due by it."""
        self.now_ms = self.context.now_ms = now_ms
        due_ms = self.operator.next_wall_clock_ms()
        if due_ms is not None and due_ms <= now_ms:
            self.operator.on_wall_clock(now_ms)

    # -- output

    def take(self) -> list[Out]:
        """Return what has come out since the last call."""
        out, self.out = self.out, []
        return out

    def take_sides(self) -> list[Side]:
        """Return what has gone to side outputs since the last call."""
        sides, self.sides = self.sides, []
        return sides

    # -- commits, crashes, errors

    def commit(self) -> list[Change]:
        """Commit as a task does; return the changes."""
        self.operator.before_commit()
        return self._store_changes()

    def restart(self) -> None:
        """Drop what is not committed, and make the operator anew over the store. Time goes on where it was."""
        self._open()
        for port, watermark in sorted(self._reached.items()):
            self.operator.process(Block((), (), (), watermark, watermark, ()), port)

    def snapshot_and_restore(self) -> None:
        """Store everything and make the operator anew, without the end of a commit interval that `commit` is."""
        self._store_changes()
        self.restart()

    def mark(self) -> Mark:
        """Return a point to roll back to."""
        return Mark(self.context.state.mark(), len(self.out), len(self.sides), self.counters.copy(), self.watermark)

    def rollback(self, mark: Mark) -> None:
        """Undo everything since a mark, as a task does after an error. Time is not undone at the inputs."""
        self.context.state.rollback(mark.state)
        del self.out[mark.out :], self.sides[mark.sides :]
        self.counters = mark.counters.copy()
        self.watermark = mark.watermark
        self.operator.rolled_back()

    def rewind(self, mark: Mark, reached: int, *, port: int = 0) -> None:
        """Roll back, and feed an input anew from the time that it had reached."""
        self.rollback(mark)
        self._reached[port] = reached

    def reached(self, port: int = 0) -> int:
        """Return the time that an input has reached."""
        return self._reached.get(port, MIN_TIME)

    def _open(self) -> None:
        self.context = HarnessContext(self, TaskState(self.store, cache_entries_max=self._cache_entries_max))
        self.operator = self.factory(self.context)
        self.operator.emit = self._emitted

    def _store_changes(self) -> list[Change]:
        state = self.context.state
        changes = state.changes()
        self.store.apply(changes, self.store.position)
        state.committed()
        return changes

    def _emitted(self, block: Block) -> None:
        before = list(block.before)
        assert len(block.keys) == len(block.values) == len(block.timestamps) == len(before), "columns differ in length"
        assert block.start == self.watermark or self.watermark == MIN_TIME, (
            f"a block starts at {block.start}, after one up to {self.watermark}"
        )
        assert [block.start, *before, block.watermark] == sorted([block.start, *before, block.watermark]), "time goes back inside a block"
        self.out += [Out(*row) for row in zip(block.keys, block.values, block.timestamps, before, strict=True)]
        self.watermark = block.watermark


__all__ = ["Failed", "HarnessContext", "OperatorHarness", "Out", "Side"]
