"""What an operator is at run time, and what a task hands to it.

An operator is one node of a task's graph. It is synchronous and pure: blocks in, blocks out through `emit`, state in cells of
the task's overlay, clock readings handed in. One call of `process` leads to at least one `emit`, also when nothing comes out,
since the block carries the watermark. Operators keep nothing across calls outside their cells, except caches that
`rolled_back` drops.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from engine.block import Block
from engine.records import Headers
from state.overlay import TaskState

Emit = Callable[[Block], None]


class Firing(Protocol):
    """Guard of one firing (a timer, a window's close, a match): see `OperatorContext.firing`."""

    def __call__(self, key: Any, timestamp_ms: int, name: str = "") -> AbstractContextManager[None]: ...


class OperatorContext(Protocol):
    """What a task gives to an operator when it makes it.

    Attributes:
        pipeline, name: Where the operator stands; both are part of the names of its state.
        partition: Number of the task.
        state: Overlay; `state_name(local)` gives the full name to open cells with.
        now_ms: Wall clock in UTC milliseconds, as handed to the task with the present call.
        careful: True while the task replays a batch record by record after an error. An operator then fires one firing at a
            time, each under `firing(...)`: if user code downstream raises in it, its changes and outputs are undone, it goes to
            the dead letters, and the next one goes on. Outside careful mode `firing` must not be used: the error travels up,
            the task rolls the batch back and comes again in careful mode.
    """

    pipeline: str
    name: str
    partition: int
    state: TaskState

    @property
    def now_ms(self) -> int: ...

    @property
    def careful(self) -> bool: ...

    def state_name(self, local: str) -> str:
        """Return the name of a piece of state: "pipeline/operator/local"."""
        ...

    def firing(self, key: Any, timestamp_ms: int, name: str = "") -> AbstractContextManager[None]:
        """Guard one firing in careful mode."""
        ...

    def count(self, counter: str, number: int = 1) -> None:
        """Add to a counter of this operator, such as "late_records"; undone with the rest on a roll-back."""
        ...

    def send(
        self,
        topic: str,
        keys: Sequence[Any],
        values: Sequence[Any],
        timestamps: Sequence[int],
        headers: Sequence[Headers] | None = None,
    ) -> None:
        """Send records to a topic that the operator declared as a side output (late records, timeouts, `ctx.side`)."""
        ...

    def key_bytes(self, key: Any) -> bytes:
        """Return a key as its bytes on the wire (str UTF-8, int decimal, bytes as they are, Struct JSON)."""
        ...


@dataclass(frozen=True, slots=True)
class Reach:
    """From which records the results of an operator have their trace headers (`engine.operators.traced`).

    Attributes:
        place: (event time, value) -> the place under which a record's headers are kept; None if none are.
        places: (timestamp, value) of a result -> the places to look at, best first.
        kept_ms: How far the watermark that the operator gives out may be beyond a place while a result still asks for it.
        ports: On how many inputs, from the first, records come of which results are made.
        at_commits: Results come out once a commit only, and may ask for all that is kept at it.
        by_time: All that comes out does so because time went on, or once a commit; nothing because a record came.
    """

    place: Callable[[int, Any], int] | None = None
    places: Callable[[int, Any], Iterable[int]] = lambda timestamp_ms, value: ()
    kept_ms: int = 0
    ports: int = 1
    by_time: bool = False
    at_commits: bool = False


def own_time(kept_ms: int = 0, *, ports: int = 1, by_time: bool = False) -> Reach:
    """Return the reach of an operator whose results have the time of the record that they come from."""
    return Reach(lambda timestamp_ms, value: timestamp_ms, lambda timestamp_ms, value: (timestamp_ms,), kept_ms, ports, by_time)


class Operator:
    """Base of the operators. `emit` is set when the graph is wired up.

    `reach` is set by those that hold records back or make results of many, so that traces go on.
    """

    emit: Emit
    reach: Reach | None = None

    def __init__(self, context: OperatorContext) -> None:
        self.context = context

    def process(self, block: Block, port: int = 0) -> None:
        """Take a block that came in on an input; `port` counts the inputs from 0."""
        raise NotImplementedError

    def on_wall_clock(self, now_ms: int) -> None:
        """The wall clock has moved on: fire wall-clock timers at or below it. Emits only if something fired."""

    def next_wall_clock_ms(self) -> int | None:
        """Earliest wall-clock time at which `on_wall_clock` has something to do, None for never."""
        return None

    def before_commit(self) -> None:
        """A commit is about to be prepared: emit what comes out once a commit (`emit="update"`)."""

    def rolled_back(self) -> None:
        """The overlay went back to an earlier mark: drop everything cached from it."""

    def inspect(self, key: Any) -> Iterator[tuple[str, Any]]:
        """Yield (name, value) of the state of a key, for `TestDriver.state` and people."""
        return iter(())
