"""Windows: how records of a key are grouped in event time. These are descriptions; `engine.operators.window` does the work.

    tumbling("1m")                |---0---|---1---|---2---|              fixed, back to back
    hopping("2m", every="1m")     |-------0-------|                     fixed, overlapping
                                          |-------1-------|
    sliding("1m")                 ends with each record: what lay within the last minute of it
    session("30m")                |--x-x----x--|      |--x--|            closes after a gap without records
    count(100)                    every hundred records of a key, in the order of their arrival
    everything()                  all records of a key, for ever

A window [start, end) holds a record if start <= timestamp < end. It is complete when the watermark reaches end - 1. A session is
[first record, last record + gap); two that touch (one ends where the other begins) are one, but for those with `ends_with`.

Source: Akidau et al., "The Dataflow Model", VLDB 2015, section 2.2.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from engine.durations import Duration, duration_ms
from engine.errors import ConfigError
from engine.functions import check_function


class Span(NamedTuple):
    """A stretch of time [start_ms, end_ms); a session with a gap of 0 has no length."""

    start_ms: int
    end_ms: int

    def touches(self, other: "Span") -> bool:
        """Return whether two spans overlap, or one begins where the other ends: sessions like that are one."""
        return self.start_ms <= other.end_ms and other.start_ms <= self.end_ms

    def cover(self, other: "Span") -> "Span":
        """Return the smallest span that holds both."""
        return Span(min(self.start_ms, other.start_ms), max(self.end_ms, other.end_ms))


class Window:
    """Base of the window descriptions; make one with the functions of this module."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, repr=False)
class FixedWindow(Window):
    """Windows of one size, a new one every `every_ms`, the first of them at `offset_ms` after the epoch."""

    size_ms: int
    every_ms: int
    offset_ms: int = 0

    def __repr__(self) -> str:
        every = "" if self.every_ms == self.size_ms else f", every={self.every_ms}ms"
        offset = f", offset={self.offset_ms}ms" if self.offset_ms else ""
        return f"{'hopping' if every else 'tumbling'}({self.size_ms}ms{every}{offset})"

    def assign(self, timestamp_ms: int) -> tuple[Span, ...]:
        """Return the windows that hold a record, earliest first.

        Args:
            timestamp_ms: Event time; any integer, negative included.
        """
        last = self.last_start(timestamp_ms)
        earliest = self.next_start(timestamp_ms - self.size_ms + 1)
        return tuple(Span(start, start + self.size_ms) for start in range(earliest, last + 1, self.every_ms))

    def last_start(self, timestamp_ms: int) -> int:
        """Return the start of the latest window that begins at or before a time."""
        return timestamp_ms - (timestamp_ms - self.offset_ms) % self.every_ms

    def next_start(self, timestamp_ms: int) -> int:
        """Return the start of the earliest window that begins at or after a time."""
        return timestamp_ms + (self.offset_ms - timestamp_ms) % self.every_ms


@dataclass(frozen=True, slots=True, repr=False)
class SlidingWindow(Window):
    """One window for each time at which there is a record: the `size_ms` milliseconds that end with it."""

    size_ms: int

    def __repr__(self) -> str:
        return f"sliding({self.size_ms}ms)"

    def assign(self, timestamp_ms: int) -> tuple[Span, ...]:
        """Return the window that ends with a record."""
        return (Span(timestamp_ms + 1 - self.size_ms, timestamp_ms + 1),)


@dataclass(frozen=True, slots=True, repr=False)
class SessionWindow(Window):
    """Records of a key that are no further apart than a gap.

    Attributes:
        gap_ms: The gap, or a function of a value that gives it in milliseconds (0 or more).
        ends_with: A record for which it holds is the last of its session: later ones begin a new session, gap or not.
    """

    gap_ms: int | Callable[[Any], int]
    ends_with: Callable[[Any], object] | None = None

    def __repr__(self) -> str:
        gap = f"gap of {_name(self.gap_ms)}" if callable(self.gap_ms) else f"{self.gap_ms}ms"
        return f"session({gap})" if self.ends_with is None else f"session({gap}, ends_with={_name(self.ends_with)})"

    def gap_of(self, value: Any) -> int:
        """Return the gap after a record.

        Raises:
            ValueError: The gap function gave something that is not a number of milliseconds.
        """
        if not callable(self.gap_ms):
            return self.gap_ms
        gap_ms = self.gap_ms(value)
        if type(gap_ms) is not int or gap_ms < 0:
            raise ValueError(f"the gap of a session must be a whole number of milliseconds, at least 0, not {gap_ms!r}")
        return gap_ms

    def assign(self, timestamp_ms: int, value: Any = None) -> tuple[Span, ...]:
        """Return the session that a record would be by itself."""
        return (Span(timestamp_ms, timestamp_ms + self.gap_of(value)),)


@dataclass(frozen=True, slots=True, repr=False)
class CountWindow(Window):
    """The last `size` records of a key, looked at after every `every` records."""

    size: int
    every: int

    def __repr__(self) -> str:
        return f"count({self.size})" if self.size == self.every else f"count({self.size}, every={self.every})"


@dataclass(frozen=True, slots=True, repr=False)
class EverythingWindow(Window):
    """All records of a key."""

    def __repr__(self) -> str:
        return "everything()"


def tumbling(size: Duration, offset: Duration = "0s") -> FixedWindow:
    """Return windows of one size, back to back.

    Args:
        offset: Moves the boundaries from whole multiples of the size since the epoch (UTC); signed, smaller than the size.
    """
    return _fixed("tumbling", size, size, offset)


def hopping(size: Duration, every: Duration, offset: Duration = "0s") -> FixedWindow:
    """Return windows of one size that overlap: a new one begins at every multiple of `every`, which is at most the size."""
    return _fixed("hopping", size, every, offset)


def sliding(size: Duration) -> SlidingWindow:
    """Return windows that end with a record: each tells about the time `size` up to and including a record of the key."""
    return SlidingWindow(duration_ms(size, "size of windows.sliding", minimum_ms=1))


def session(gap: Duration | Callable[[Any], int], ends_with: Callable[[Any], object] | None = None) -> SessionWindow:
    """Return windows that close after a gap without records.

    Args:
        gap: A duration, or a function of a value that gives milliseconds. What it gives is known only with the value: a record for
            which it is no whole number, or less than 0, is a bad record, and goes to the dead letters with that reason (`on_error="fail"`
            ends the worker instead).
        ends_with: Predicate of a value. The record that fulfils it is the last of its session, which then is
            [first record, that record + 1 ms) and does not wait for the gap. Records are put in order of event time for it, so that a
            session has closed when the next record comes that is as far away as the gap: sessions that only touch stay apart here.
    """
    if ends_with is not None:
        check_function(ends_with, "ends_with of windows.session")
    if callable(gap):
        check_function(gap, "gap of windows.session", "a duration, or a function of the value that gives milliseconds")
        return SessionWindow(gap, ends_with)
    return SessionWindow(duration_ms(gap, "gap of windows.session", minimum_ms=1), ends_with)


def count(n: int, every: int | None = None) -> CountWindow:
    """Return windows of `n` records of a key each; with `every`, the last `n` records after every so many (at most `n`)."""
    every = n if every is None else every
    for number, what in ((n, "n"), (every, "every")):
        if type(number) is not int or number < 1:
            raise ConfigError(f"windows.count: {what}={number!r} is not allowed; it must be a whole number, at least 1")
    if every > n:
        raise ConfigError(f"windows.count: every={every} is more than n={n}, so that records would be in no window")
    return CountWindow(n, every)


def everything() -> EverythingWindow:
    """Return the one window that holds all records of a key; it needs a trigger, or emit="update", or an end of the input."""
    return EverythingWindow()


def merge_spans(spans: Iterable[Span]) -> list[tuple[Span, list[Span]]]:
    """Merge spans that touch, as sessions do.

    Returns:
        Each merged span with those it is made of, by start; the latter sorted too.
    """
    merged: list[tuple[Span, list[Span]]] = []
    for span in sorted(spans):
        if merged and merged[-1][0].touches(span):
            whole, parts = merged[-1]
            merged[-1] = (whole.cover(span), [*parts, span])
        else:
            merged.append((span, [span]))
    return merged


def _fixed(kind: str, size: Duration, every: Duration, offset: Duration) -> FixedWindow:
    size_ms = duration_ms(size, f"size of windows.{kind}", minimum_ms=1)
    every_ms = duration_ms(every, f"every of windows.{kind}", minimum_ms=1)
    offset_ms = duration_ms(offset, f"offset of windows.{kind}", minimum_ms=None)
    if every_ms > size_ms:
        raise ConfigError(f"windows.{kind}: every={every!r} is longer than the size {size!r}, so that records would be in no window")
    if abs(offset_ms) >= every_ms:
        raise ConfigError(f"windows.{kind}: the offset {offset!r} is not smaller than {every!r}")
    return FixedWindow(size_ms, every_ms, offset_ms)


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)


__all__ = [
    "CountWindow",
    "EverythingWindow",
    "FixedWindow",
    "SessionWindow",
    "SlidingWindow",
    "Span",
    "Window",
    "count",
    "everything",
    "hopping",
    "merge_spans",
    "session",
    "sliding",
    "tumbling",
]
