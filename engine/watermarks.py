"""Watermarks: how far event time has come, record by record, for one source partition and for several inputs together.

A watermark w says: no record with a timestamp <= w is still to come. A source partition with bounded out-of-orderness b has

    w  =  highest timestamp so far - b - 1

    timestamps    10    75    62    80          b = 5
    before        -     4     69    69          the watermark in force when each record is handed over
    after         4     69    69    74

**Idleness.** A partition without records holds everybody back. After `idle` of quiet (its latest fetch answer shows nothing left
to read) it is idle: others no longer wait for it, and its own watermark follows the wall clock from the last activity, so that the
windows of the last records close. That advance is part of the task's state like any other.

**A class of one's own** may take the place of the bound: see `engine.watermark_generator`.

**Records from the future.** A record further ahead of the wall clock than the app's `max_ahead` keeps its timestamp and window but
moves no watermark: one bad clock must not make all later records late.

Sources: Akidau et al., "The Dataflow Model", VLDB 2015; Begoli et al., "Watermarks in Stream Processing Systems", VLDB 2021.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import msgspec

from engine.block import MAX_TIME, MIN_TIME
from engine.durations import Duration, duration_ms
from engine.errors import ConfigError, StateError
from engine.watermark_generator import DEFAULT_IDLE, Generating, WatermarkGenerator, check_generator


@dataclass(frozen=True, slots=True)
class WatermarkStrategy:
    """How a source partition's watermark follows its records.

    Attributes:
        delay_ms: How far a record may lie behind the highest timestamp and still be in time.
        idle_ms: Quiet time after which the partition is idle; None for never.
        generator: A class that decides by itself; the delay is not used then.
    """

    delay_ms: int
    idle_ms: int | None
    generator: type[WatermarkGenerator] | None = None


Watermark = WatermarkStrategy | type[WatermarkGenerator]
"""What `watermark=` of a source takes."""


def watermark_strategy(given: Watermark | None, what: str) -> WatermarkStrategy:
    """Return the strategy that `watermark=` of a source means; None means `bounded("0s")`.

    Raises:
        ConfigError: It is neither a strategy nor a watermark class that can be used.
    """
    if given is None:
        return bounded("0s")
    if isinstance(given, WatermarkStrategy):
        return given
    if isinstance(given, type):
        return WatermarkStrategy(0, check_generator(given, what), given)
    raise ConfigError(
        f"{what}: watermark={given!r} is not a watermark strategy; use bounded('30s'), monotonic(), or a class of your own "
        "(the class itself, not an object of it)"
    )


def bounded(delay: Duration, *, idle: Duration | None = DEFAULT_IDLE) -> WatermarkStrategy:
    """Return the strategy for records that come out of order by at most `delay`.

    Args:
        delay: Bound of the out-of-orderness; what comes later than that is late.
        idle: Quiet time after which the source partition no longer holds others back; None switches idleness off.
    """
    return WatermarkStrategy(duration_ms(delay, "delay of bounded()"), _idle_ms(idle, "bounded"))


def monotonic(*, idle: Duration | None = DEFAULT_IDLE) -> WatermarkStrategy:
    """Return the strategy for records whose timestamps never go down within a partition (equal ones may follow)."""
    return WatermarkStrategy(0, _idle_ms(idle, "monotonic"))


def _idle_ms(idle: Duration | None, what: str) -> int | None:
    return None if idle is None else duration_ms(idle, f"idle of {what}()", minimum_ms=1)


class SourceTime(msgspec.Struct, frozen=True, array_like=True):
    """Event time of a source partition, as it is stored."""

    watermark: int = MIN_TIME
    idle: bool = False
    generator: tuple[str, bytes] = ("", b"")


@dataclass(frozen=True, slots=True)
class Taken:
    """What the records of a batch did to time.

    Attributes:
        before: Makes the column of watermarks before each record.
        ahead: Number of records too far in the future.
        errors: What a watermark class raised, by index of the record.
    """

    before: Callable[[], Sequence[int]]
    ahead: int
    errors: dict[int, Exception]


class SourceClock:
    """Moves the time of a source partition: with records, with the wall clock while it is idle, and to the end of all time."""

    def __init__(self, strategy: WatermarkStrategy) -> None:
        self._strategy = strategy
        self._quiet_since_ms: int | None = None
        self._anchor = MIN_TIME
        self._generating: Generating | None = None
        self.time = SourceTime()

    def open(self, time: SourceTime, now_ms: int) -> None:
        """Start from a stored time; quiet time before this moment does not count."""
        self.time = time
        made_of = self._strategy.generator
        self._generating = None if made_of is None else Generating(made_of, time.generator)
        self._restart(now_ms)

    def take(self, timestamps: Sequence[int], values: Sequence[Any], now_ms: int, limit_ms: int | None) -> Taken:
        """Move time with the records of a batch.

        Args:
            limit_ms: Timestamps above it move no watermark; None for no limit.
        """
        if not len(timestamps):
            return Taken(tuple, 0, {})
        if self._generating is None:
            return self._take_bounded(timestamps, now_ms, limit_ms)
        reached = self._generating.take(timestamps, values, self.time.watermark, limit_ms)
        self.time = SourceTime(reached.watermark, generator=self._generating.stored())
        self._restart(now_ms)
        return Taken(lambda: reached.before, reached.ahead, reached.errors)

    def _take_bounded(self, timestamps: Sequence[int], now_ms: int, limit_ms: int | None) -> Taken:
        start, lag = self.time.watermark, self._strategy.delay_ms + 1
        moving, ahead = timestamps, 0
        highest = max(timestamps)
        if limit_ms is not None and highest > limit_ms:
            moving = [MIN_TIME if timestamp_ms > limit_ms else timestamp_ms for timestamp_ms in timestamps]
            ahead = moving.count(MIN_TIME)
            highest = max(moving)
        self.time = SourceTime(max(start, highest - lag))
        self._restart(now_ms)
        return Taken(partial(_bounded_before, moving, highest, start, lag), ahead, {})

    def observe(self, now_ms: int, quiet: bool) -> None:
        """Take note of the wall clock.

        Args:
            quiet: Since the last call the partition was open and unpaused and showed nothing left to read.
        """
        idle_ms = self._strategy.idle_ms
        if idle_ms is None:
            return
        if not quiet or self._quiet_since_ms is None or now_ms < self._quiet_since_ms:
            self._restart(now_ms if quiet else None)
            return
        quiet_ms = now_ms - self._quiet_since_ms
        if quiet_ms < idle_ms:
            return
        watermark = self.time.watermark
        if MIN_TIME < watermark < MAX_TIME:
            watermark = max(watermark, self._anchor + quiet_ms)
        if not self.time.idle or watermark - self.time.watermark >= _STEP_MS:
            self.time = SourceTime(watermark, idle=True, generator=self.time.generator)

    def end(self) -> None:
        """No more records will come."""
        self.time = SourceTime(MAX_TIME, generator=self.time.generator)

    def _restart(self, now_ms: int | None) -> None:
        self._quiet_since_ms = now_ms
        self._anchor = self.time.watermark


# While idle, time goes on in steps: each is a change that has to be committed.
_STEP_MS = 1_000


class ValveState(msgspec.Struct, frozen=True, array_like=True):
    """What a valve stores: the watermark of each input, whether it is idle, whether it counts, and what has been given out."""

    watermarks: tuple[int, ...]
    idle: tuple[bool, ...]
    aligned: tuple[bool, ...]
    watermark: int


class Valve:
    """The watermark of several inputs together: the minimum of those that count.

    An idle input does not count. One that comes back counts again once it has caught up with what has been given out; until then
    it neither holds the others back nor moves anything. When all are idle, the highest watermark counts. What is given out never
    goes back.

    Args:
        follow_idle: With all inputs idle, go on with the highest of them as it moves (idle inputs here follow the wall clock).
    """

    def __init__(self, inputs: int, state: ValveState | None = None, *, follow_idle: bool = True) -> None:
        stored = state or ValveState((MIN_TIME,) * inputs, (False,) * inputs, (True,) * inputs, MIN_TIME)
        self._watermarks = list(stored.watermarks)
        self._idle = list(stored.idle)
        self._aligned = list(stored.aligned)
        self._follow_idle = follow_idle
        self.watermark = stored.watermark

    @property
    def idle(self) -> bool:
        """Whether all inputs are idle."""
        return all(self._idle)

    def state(self) -> ValveState:
        """Return what to store."""
        return ValveState(tuple(self._watermarks), tuple(self._idle), tuple(self._aligned), self.watermark)

    def input(self, number: int, watermark: int, *, idle: bool = False) -> None:
        """An input has reached a watermark (lower than before: ignored), and is idle or active."""
        if watermark > self._watermarks[number] and (self._follow_idle or not (idle or self._idle[number])):
            self._watermarks[number] = watermark
        self._set_status(number, idle)
        self._advance()

    def status(self, number: int, *, idle: bool) -> None:
        """An input has become idle, or active again."""
        if idle != self._idle[number]:
            self._set_status(number, idle)
            self._advance()

    def held_by(self) -> list[int]:
        """Return the inputs that hold the others back: those that count and are behind others that count."""
        counting = {
            number: watermark for number, watermark in enumerate(self._watermarks) if self._aligned[number] and not self._idle[number]
        }
        lowest, highest = min(counting.values(), default=0), max(counting.values(), default=0)
        return [number for number, watermark in counting.items() if watermark == lowest < highest]

    def limit(self, number: int) -> int | None:
        """Return the minimum of the other inputs that count, if this one counts by itself; None if the careful way is needed.

        As long as it holds, input `number` at watermark w gives out max(watermark, min(w, limit)).
        """
        if self._idle[number] or not self._aligned[number]:
            return None
        others = [
            watermark
            for other, watermark in enumerate(self._watermarks)
            if other != number and self._aligned[other] and not self._idle[other]
        ]
        return (
            min(others, default=MAX_TIME)
            if not any(not aligned and not idle for aligned, idle in zip(self._aligned, self._idle, strict=True))
            else None
        )

    def _set_status(self, number: int, idle: bool) -> None:
        self._idle[number] = idle
        if idle:
            self._aligned[number] = False
        elif self._watermarks[number] >= self.watermark:
            self._aligned[number] = True

    def _advance(self) -> None:
        counting = [
            watermark for watermark, idle, aligned in zip(self._watermarks, self._idle, self._aligned, strict=True) if aligned and not idle
        ]
        if counting:
            reached = min(counting)
        elif self.idle:
            reached = max(self._watermarks)
        else:
            return
        if reached > self.watermark:
            self.watermark = reached


def _bounded_before(timestamps: Sequence[int], highest: int, start: int, lag: int) -> Sequence[int]:
    """Return the watermark before each record; `timestamps` are those that move it, `start` is where it stood."""
    if highest - lag <= start:
        return [start] * len(timestamps)
    reached = list(accumulate(timestamps, max, initial=start + lag))
    reached.pop()
    return [timestamp_ms - lag for timestamp_ms in reached]


def merge_times(times: Sequence[SourceTime]) -> SourceTime:
    """Return the time of a partition that takes over keys of several: the highest, so that nothing that is closed opens again.

    Raises:
        StateError: A watermark class of one's own keeps something, which nobody can join.
    """
    if len(times) > 1 and any(time.generator[1] for time in times):
        raise StateError(f"the watermark class {times[0].generator[0]} keeps state a partition, which cannot be joined")
    return SourceTime(max(time.watermark for time in times), idle=all(time.idle for time in times), generator=times[0].generator)


def merge_valves(states: Sequence[ValveState]) -> ValveState:
    """Return the state of a valve that takes over from several with the same inputs: the highest of each."""
    columns = zip(*(state.watermarks for state in states), strict=True)
    idle = tuple(map(all, zip(*(state.idle for state in states), strict=True)))
    aligned = tuple(map(any, zip(*(state.aligned for state in states), strict=True)))
    return ValveState(tuple(map(max, columns)), idle, aligned, max(state.watermark for state in states))


def merge_upstreams(states: Sequence[ValveState], *, upstreams: int) -> ValveState:
    """Return the state of a valve whose inputs are other ones than before: all of them stand where time has come to."""
    reached = max(state.watermark for state in states)
    return ValveState((reached,) * upstreams, (False,) * upstreams, (True,) * upstreams, reached)
