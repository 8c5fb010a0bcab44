"""`process`: your own code on each record of a key, with state and timers.

    class FirstOrder:
        seen = ValueState(bool, default=False)

        def on_record(self, record: Record[str, Order], ctx: Context) -> Iterator[First]:
            if not self.seen.get():
                self.seen.set(True)
                ctx.timers.event_time(record.timestamp_ms + 60_000, name="remind")
                yield First(ctx.key, record.value.order_id)

        def on_timer(self, timer: Timer, ctx: Context) -> Iterator[First]:
            ...

The class is made once a task; its state declarations become state of the key that is being worked on. Records come in the order
of their arrival, and before each of them the event-time timers that the watermark has passed. A timer is (key, clock, name):
setting it again replaces it, and it fires once, over restarts too. What an `on_timer` yields has the time of the timer.
"""

import inspect
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Protocol

from engine.block import Block, advance
from engine.errors import ConfigError, RecordError
from engine.functions import refuse_async
from engine.keys import key_codec
from engine.operators.base import Operator, OperatorContext, Reach
from engine.operators.timers import NEVER, TimerQueue
from engine.records import Record
from engine.selectors import return_type
from engine.state_handles import KeyScope, StateHandle
from engine.topics import check_topic

ClockName = Literal["event_time", "wall_clock"]


@dataclass(frozen=True, slots=True)
class Timer:
    """A timer that fires: the key it was set for, its name, when it was due (ms), and on which clock."""

    key: Any
    name: str
    timestamp_ms: int
    clock: ClockName


class Timers:
    """Timers of the present key: `ctx.timers`."""

    def __init__(self, scope: KeyScope, queues: Mapping[ClockName, TimerQueue], allowed: bool) -> None:
        self._scope = scope
        self._queues = queues
        self._allowed = allowed

    def event_time(self, timestamp_ms: int, name: str = "") -> None:
        """Call `on_timer` when the watermark reaches a time; at once after this record if it already has."""
        self._set("event_time", timestamp_ms, name)

    def wall_clock(self, timestamp_ms: int, name: str = "") -> None:
        """Call `on_timer` when the wall clock reaches a time (UTC milliseconds)."""
        self._set("wall_clock", timestamp_ms, name)

    def cancel(self, name: str = "") -> None:
        """Delete the timers of this name, on both clocks; a missing one is no error."""
        for queue in self._queues.values():
            queue.cancel(self._scope.key, name)

    def _set(self, clock: ClockName, timestamp_ms: int, name: str) -> None:
        if not self._allowed:
            raise RecordError("a function has no on_timer; give process() a class with on_record and on_timer")
        if type(timestamp_ms) is not int:
            raise RecordError(f"a timer needs a time in whole milliseconds (int), not {timestamp_ms!r}")
        self._queues[clock].set(self._scope.key, name, timestamp_ms)


class Context:
    """What user code may ask and do while it works on a record or a timer; valid only during that call.

    Attributes:
        key: The key that is being worked on.
        timestamp_ms: Event time of the record, or the time of the timer.
        watermark_ms: No record at or below this time is still to come (except late ones).
        lag: Records that were left in the record's partition behind it when it was fetched, 0 for the last one; in offsets, so a
            compacted or transactional topic shows some more. None in a timer, for a record that another operator made (a window's
            result), and where the broker did not say. It is a reading, like `now_ms`: a replay may see another number.
    """

    def __init__(self, operator: OperatorContext, scope: KeyScope, timers: Timers) -> None:
        self._operator = operator
        self._scope = scope
        self.timers = timers
        self.timestamp_ms = 0
        self.watermark_ms = 0
        self.record: Record[Any, Any] | None = None
        self.high_watermark = -1
        self._sides: set[str] = set()

    @property
    def lag(self) -> int | None:
        """How far the record is behind the end of its partition."""
        record = self.record
        if record is None or record.offset < 0 or self.high_watermark < 0:
            return None
        return max(0, self.high_watermark - record.offset - 1)

    @property
    def key(self) -> Any:
        """The key that is being worked on."""
        return self._scope.key

    @property
    def now_ms(self) -> int:
        """Wall clock, UTC milliseconds."""
        return self._operator.now_ms

    def side(self, topic: str, value: Any, *, key: Any = None) -> None:
        """Send a value to another topic too, as JSON, with the present time; key None keeps the present key.

        Raises:
            RecordError: Kafka takes no topic of this name.
        """
        if topic not in self._sides:
            try:
                check_topic(topic, "ctx.side")
            except ConfigError as error:
                raise RecordError(str(error)) from error
            self._sides.add(topic)
        self._operator.send(topic, [self.key if key is None else key], [value], [self.timestamp_ms])


class Handler(Protocol):
    """A class for `process`; `on_timer(self, timer, ctx)` is optional."""

    def on_record(self, record: Any, ctx: Any) -> Iterable[Any] | None:
        """Take a record."""
        ...


ProcessFunction = Callable[[Any, Any], Iterable[Any] | None]


class Process(Operator):
    """Run a handler over the records of a task."""

    def __init__(self, context: OperatorContext, handler: ProcessFunction | type[Any], key_type: Any) -> None:
        super().__init__(context)
        codec = key_codec(key_type)
        self.reach = Reach()
        self._scope = KeyScope()
        self._queues: dict[ClockName, TimerQueue] = {
            "event_time": TimerQueue(context, "event-timers", codec),
            "wall_clock": TimerQueue(context, "clock-timers", codec),
        }
        self._watermark = -(2**63)
        self._handles: dict[str, StateHandle] = {}
        if isinstance(handler, type):
            instance = handler()
            self._on_record: ProcessFunction = instance.on_record
            self._on_timer: ProcessFunction | None = getattr(instance, "on_timer", None)
            for name, declared in state_declarations(handler).items():
                self._handles[name] = declared.bind(context, name, codec, self._scope, self._reached, self._time)
                setattr(instance, name, self._handles[name])
        else:
            self._on_record, self._on_timer = handler, None
        timers = Timers(self._scope, self._queues, allowed=self._on_timer is not None)
        self._user = Context(context, self._scope, timers)

    def process(self, block: Block, port: int = 0) -> None:
        """Fire and take as `engine.block` says, record by record."""
        out = _Results()
        event_timers = self._queues["event_time"]
        batch = block.batch
        user, scope, on_record = self._user, self._scope, self._on_record
        headers = () if batch is None or batch.read_headers is None else batch.headers
        user.high_watermark = -1 if batch is None else batch.high_watermark
        for index, before in enumerate(block.before):
            if event_timers.next_ms <= before:
                self._fire("event_time", before, block.start, out)
            key, timestamp_ms = block.keys[index], block.timestamps[index]
            if batch is None:
                record = Record(key, block.values[index], timestamp_ms)
            else:
                row = block.row(index)
                record = Record(
                    key,
                    block.values[index],
                    timestamp_ms,
                    batch.topic,
                    batch.partition,
                    batch.offsets[row],
                    headers[row] if headers else (),
                )
            scope.key, user.timestamp_ms, user.watermark_ms, self._watermark = key, timestamp_ms, before, before
            user.record = record
            results = on_record(record, user)
            if results is not None:
                out.extend(key, _checked(results), timestamp_ms, before)
        if event_timers.next_ms <= block.watermark:
            self._fire("event_time", block.watermark, block.start, out)
        self._watermark = block.watermark
        self._expire(block.watermark)
        self.emit(out.block(block.start, block.watermark))

    def before_commit(self) -> None:
        for handle in self._handles.values():
            handle.enter_old()

    def on_wall_clock(self, now_ms: int) -> None:
        out = _Results()
        self._fire("wall_clock", now_ms, self._watermark, out)
        self.emit(out.block(self._watermark, self._watermark))
        if self._queues["event_time"].next_ms <= self._watermark:
            self.process(advance(self._watermark, self._watermark))

    def next_wall_clock_ms(self) -> int | None:
        next_ms = self._queues["wall_clock"].next_ms
        return None if next_ms == NEVER else next_ms

    def rolled_back(self) -> None:
        for queue in self._queues.values():
            queue.rolled_back()

    def inspect(self, key: Any) -> Iterator[tuple[str, Any]]:
        self._scope.key = key
        for name, handle in self._handles.items():
            yield name, handle.snapshot()
        for clock, queue in self._queues.items():
            pending = queue.pending(key)
            if pending:
                yield f"timers.{clock}", pending

    def _fire(self, clock: ClockName, until_ms: int, start: int, out: "_Results") -> None:
        """Fire what is due in the order of time, then key bytes and name.

        A firing may set more that is due: that comes when all timers of the present time that were there have fired.
        """
        queue = self._queues[clock]
        if self.context.careful and out.keys:
            self.emit(out.block(start, start))  # a firing that is undone must not take these along
            out.clear()
        while queue.next_ms <= until_ms:
            at_ms = -NEVER
            for due_ms, key, name in queue.due(until_ms):
                if queue.set_ms < due_ms or (queue.set_ms == due_ms > at_ms):
                    break  # one that comes before this has been set by a firing: take stock again
                at_ms = due_ms
                if not queue.take(due_ms, key, name):
                    continue  # cancelled or replaced by a firing before it
                if self.context.careful:
                    with self.context.firing(key, due_ms, name):
                        single = _Results()
                        self._call_timer(Timer(key, name, due_ms, clock), start, single)
                        self.emit(single.block(start, start))
                else:
                    self._call_timer(Timer(key, name, due_ms, clock), start, out)

    def _call_timer(self, timer: Timer, start: int, out: "_Results") -> None:
        user = self._user
        before = max(start, timer.timestamp_ms - 1) if timer.clock == "event_time" else start
        self._scope.key, user.timestamp_ms, user.record = timer.key, timer.timestamp_ms, None
        reached = before if timer.clock == "wall_clock" else timer.timestamp_ms
        user.watermark_ms = self._watermark = max(reached, self._watermark)  # a timer that was set for the past does not turn time back
        assert self._on_timer is not None
        results = self._on_timer(timer, user)
        if results is not None:
            out.extend(timer.key, _checked(results), timer.timestamp_ms, before)

    def _reached(self) -> int:
        return self._watermark

    def _time(self) -> int:
        return self._user.timestamp_ms

    def _expire(self, watermark: int) -> None:
        for handle in self._handles.values():
            handle.expire(watermark)


class _Results:
    """Columns of what user code yielded."""

    __slots__ = ("before", "keys", "timestamps", "values")

    def __init__(self) -> None:
        self.clear()

    def extend(self, key: Any, results: Iterable[Any], timestamp_ms: int, before: int) -> None:
        for value in results:
            self.keys.append(key)
            self.values.append(value)
            self.timestamps.append(timestamp_ms)
            self.before.append(before)

    def clear(self) -> None:
        """Begin new columns; the old ones have been given out."""
        self.keys: list[Any] = []
        self.values: list[Any] = []
        self.timestamps: list[int] = []
        self.before: list[int] = []

    def block(self, start: int, watermark: int) -> Block:
        return Block(self.keys, self.values, self.timestamps, start, watermark, self.before)


def process_operator(handler: ProcessFunction | type[Any], *, key_type: Any, what: str) -> Callable[[OperatorContext], Operator]:
    """Check a handler at declaration and return what makes its operator.

    Raises:
        ConfigError: Neither a function of (record, ctx) nor a class with `on_record`.
    """
    if isinstance(handler, type):
        on_record = getattr(handler, "on_record", None)
        if not callable(on_record):
            raise ConfigError(f"{what}: {handler.__name__} has no method on_record(self, record, ctx)")
        refuse_async(on_record, f"{what}: {handler.__name__}.on_record")
        _check_parameters(on_record, 3, f"{what}: {handler.__name__}.on_record", "(self, record, ctx)")
        if hasattr(handler, "on_timer"):
            refuse_async(handler.on_timer, f"{what}: {handler.__name__}.on_timer")
            _check_parameters(handler.on_timer, 3, f"{what}: {handler.__name__}.on_timer", "(self, timer, ctx)")
        try:
            handler()
        except TypeError as error:
            raise ConfigError(f"{what}: {handler.__name__}() is made once a task, without arguments: {error}") from error
    elif callable(handler):
        refuse_async(handler, what)
        _check_parameters(handler, 2, f"{what}: {getattr(handler, '__name__', handler)}", "(record, ctx)")
    else:
        raise ConfigError(f"{what}: {handler!r} is neither a function of (record, ctx) nor a class with on_record")
    return lambda context: Process(context, handler, key_type)


def state_declarations(handler: type[Any]) -> dict[str, StateHandle]:
    """Return the state that a class declares, by attribute name, base classes included."""
    return {name: member for owner in reversed(handler.__mro__) for name, member in vars(owner).items() if isinstance(member, StateHandle)}


def result_type(function: Callable[..., Any]) -> Any:
    """Return X of a function annotated to give Iterator[X], Iterable[X], Generator[X, …] or list[X]; Any otherwise."""
    annotated = return_type(function)
    members = typing.get_args(annotated) if typing.get_origin(annotated) in (typing.Union, UnionType) else (annotated,)
    for member in members:
        origin, arguments = typing.get_origin(member), typing.get_args(member)
        if arguments and isinstance(origin, type) and issubclass(origin, Iterable):
            return arguments[0]
    return Any


def _checked(results: Any) -> Iterable[Any]:
    if isinstance(results, (str, bytes, Mapping)) or not isinstance(results, Iterable):
        raise RecordError(f"process code must yield its results (or return None), not return a {type(results).__name__}")
    return results


def _check_parameters(function: Callable[..., Any], count: int, what: str, wanted: str) -> None:
    try:
        inspect.signature(function).bind(*range(count))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what} must take {wanted}: {error}") from error
