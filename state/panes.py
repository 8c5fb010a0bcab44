"""Pane cells: for each time (a window's start) a group of keys. For windows that all keys share; see `state.groups`.

The times at which there are panes are kept in memory, sorted: windows are few, their keys are many. They are read from the store
once, by jumping from pane to pane.

    pane = panes.pane(60_000)
    pane.put_many({"EUR": 3, "USD": 1})
    panes.times(until_ms=60_000)            [60000]
    pane.items()                            [("EUR", 3), ("USD", 1)]
    pane.drop()
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

from state.groups import Group
from state.keys import ID_BYTES, TIME_BYTES, Codec, KeyCodec, KeyParts, decode_time, encode_time, prefix_end, split_key
from state.section import Section
from state.store import Change
from state.values import PayloadCodec, stored

K = TypeVar("K")
V = TypeVar("V")


class Pane(Group[K, V]):
    """All keys at one time: a `Group` that knows its time. A reference stays good over commits and roll-backs."""

    __slots__ = ("time",)

    time: int


class PaneCells(Generic[K, V]):
    """Panes by time. Values are never None; a pane without entries does not exist."""

    def __init__(self, section: Section, parts: KeyParts[K], key: KeyCodec[K], value: Codec[V]) -> None:
        self.section = section
        self.codec: PayloadCodec[V] = stored(value, section.name)
        self.suffix: Callable[[K], bytes] = parts.__getitem__
        self.learn: Callable[[Collection[K]], None] = parts.learn
        self.order: Callable[[K], Any] = key_order(key)
        self.key_of: Callable[[bytes], K] = _key_reader(key.decode)
        self._panes: dict[int, Pane[K, V]] = {}
        # Every pane that somebody refers to, forgotten by us or not: there must never be two of one time.
        self._alive: WeakValueDictionary[int, Pane[K, V]] = WeakValueDictionary()
        self._changed: dict[Pane[K, V], None] = {}
        self._times: list[int] | None = None

    def pane(self, time_ms: int) -> Pane[K, V]:
        """Return the pane of a time, which need not exist yet; one of modest size is read into memory as a whole."""
        pane = self._panes.get(time_ms)
        return self._open(time_ms) if pane is None else pane

    def times(self, until_ms: int) -> list[int]:
        """Return the times up to and including `until_ms` at which there are panes, ascending."""
        times, panes, exists = self._known_times(), self._panes.get, self._exists
        found = []
        for time in times[: bisect_right(times, until_ms)]:
            pane = panes(time)
            if exists(time) if pane is None or not pane.complete else pane.cells:
                found.append(time)
        return found

    def next_time(self) -> int | None:
        """Return the earliest time at which there is a pane, None if there is none."""
        times = self._known_times()
        if not times:
            return None
        first = self._panes.get(times[0])
        if first is not None and first.cells:
            return times[0]
        return next((time for time in times if self._exists(time)), None)

    def note(self, pane: Pane[K, V]) -> None:
        """Remember a pane that may differ from the store, and its time."""
        time = pane.time
        self._changed[pane] = None
        self._panes[time] = pane
        times = self._known_times()
        at = bisect_left(times, time)
        if at == len(times) or times[at] != time:
            times.insert(at, time)

    def changes(self) -> list[Change]:
        """Return what differs from the store, in key order."""
        return [change for pane in sorted(self._changed, key=_time_of) for change in pane.changes()]

    def committed(self) -> None:
        """The store holds the changes now. Panes that are no more are forgotten."""
        for pane in self._changed:
            if not pane.committed():
                self._panes.pop(pane.time, None)
                times = self._known_times()
                at = bisect_left(times, pane.time)
                if at < len(times) and times[at] == pane.time:
                    del times[at]
        self._changed.clear()

    def size(self) -> int:
        """Return how many entries are in memory."""
        return sum(len(pane.cells) for pane in self._panes.values())

    def evict(self, number: int) -> None:
        """Drop about that many entries, pane by pane, those first that came first. Nothing may be dirty."""
        for pane in list(self._panes.values()):
            if number <= 0:
                break
            entries = len(pane.cells)
            pane.evict(number)
            if entries <= number:
                self._panes.pop(pane.time, None)
            number -= entries

    def _open(self, time_ms: int) -> Pane[K, V]:
        pane = self._alive.get(time_ms)
        if pane is None:
            times = self._known_times()
            at = bisect_left(times, time_ms)
            in_store = at < len(times) and times[at] == time_ms
            pane = Pane(self, self.section.low + encode_time(time_ms), in_store=in_store)
            pane.time = time_ms
            self._alive[time_ms] = pane
        if not pane.complete:
            pane.load(self.section.chunk)
            self._panes[time_ms] = pane
        return pane

    def _exists(self, time: int) -> bool:
        pane = self._alive.get(time)
        return pane is None or pane.exists()

    def _known_times(self) -> list[int]:
        if self._times is None:
            self._times = []
            low, high = self.section.low, self.section.high
            at = low
            while (entry := next(self.section.store.scan(at, high), None)) is not None:
                self._times.append(decode_time(entry[0], ID_BYTES))
                at = prefix_end(entry[0][: ID_BYTES + TIME_BYTES])
        return self._times


def key_order(key: KeyCodec[K]) -> Callable[[K], Any]:
    """Return what keys are sorted by: their bytes on the wire, and where those may be the same for two keys, the stored ones too."""
    wire, encode = key.wire, key.encode
    return wire if wire is encode else lambda k: (wire(k), encode(k))


def _key_reader(decode: Callable[[bytes], K]) -> Callable[[bytes], K]:
    return lambda raw: decode(split_key(raw, 0)[0])


def _time_of(pane: Pane[Any, Any]) -> int:
    return pane.time
