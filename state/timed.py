"""Timed cells: entries by (time, key, sub), to be asked what is due: timers, ends of sessions, buffers in order of time.

There may be far more of them than fit into memory, so only the near ones are held: every entry of the store below `horizon` is
known; what lies beyond is read in chunks when time comes near, and what is put beyond is dropped from memory once it is stored.
As long as all of it fits, the horizon is infinitely far away and the store is never read.

A single time may have more entries than a chunk (a million timers for midnight). Then the horizon stays at that time, the `parted`
one, and its entries are taken from the store while they are dealt with. The store has them by hash, and they are wanted by key, so a
part of them is picked out by one look through all, the least ones first, and so on: for n entries and parts of m, n / m times. Who
does not mind the order gets them in one go. In memory is one part, and of what has been deleted since the commit only where it was.

    chunk 2    (1, a) (1, b) (2, a) (2, b) (2, c) (2, d) (3, a)       horizon 2, parted 2
                known         read as they are asked for

    live      (time, key, sub) -> value                    what is there
    dirty     (time, key, sub) -> value before, None for absent, MISSING for unknown; since the commit
    times     heap of times, by_time their entries         may name entries that are gone: those are passed over, and swept out
                                                           when they are the greater part
    front     times that `due` took from the heap          latest first; their entries are about to be deleted, as a rule
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush, merge, nsmallest
from itertools import takewhile
from operator import itemgetter
from typing import Any, Generic, Literal, TypeVar

from state.keys import ID_BYTES, TIME_BYTES, Codec, KeyCodec, KeyParts, decode_time, encode_time, prefix_end, split_key
from state.panes import key_order
from state.section import DECODE_ERRORS, KEY_OF, MISSING, Section
from state.store import Change
from state.values import stored

K = TypeVar("K")
V = TypeVar("V")

_START = -(2**63)
_END = 2**63  # above every time
_SLACK = 1_000
_CHUNKS_A_PART = 4

Order = Literal["key", "sub", "any"]
"""Of the entries of one time: by key bytes and sub; by sub and key bytes; as it comes."""


class TimedCells(Generic[K, V]):
    """Entries by time, key and sub bytes. Values are never None; times are signed 64-bit milliseconds."""

    def __init__(self, section: Section, parts: KeyParts[K], key: KeyCodec[K], value: Codec[V]) -> None:
        self._section, self._parts, self._codec, self._decode_key = section, parts, stored(value, section.name), key.decode
        self._order: Callable[[K], Any] = key_order(key)
        self._log = section.undo.entries
        self._live: dict[tuple[int, K, bytes], V] = {}
        self._dirty: dict[tuple[int, K, bytes], V | None] = {}
        self._times: list[int] = []
        self._front: list[int] = []
        self._by_time: dict[int, Any] = {}  # an entry, or a list of entries
        self._dead = 0
        self._horizon = _START
        self._parted: int | None = None  # the horizon, if its time has more entries than are read at once
        self._seen: tuple[bytes, tuple[int, K, bytes]] | None = None  # of the parted time: the first that is there, as of late
        self._part = 0  # entries of it that are in memory

    def get(self, time_ms: int, key: K, sub: bytes = b"") -> V | None:
        """Return the value of an entry, None if there is none."""
        entry = (time_ms, key, sub)
        value = self._live.get(entry)
        if value is None and time_ms >= self._horizon and entry not in self._dirty:
            raw = self._section.store.get(self._raw(entry))
            return None if raw is None else self._codec.decode(raw)
        return value

    def put(self, time_ms: int, key: K, value: V, sub: bytes = b"") -> None:
        """Set the value of an entry; OverflowError for a time beyond 64 bits (here, where the record that asks for it can be blamed)."""
        entry = (time_ms, key, sub)
        live, dirty = self._live, self._dirty
        old = live.get(entry)
        if old is None and not _START <= time_ms < _END:
            raise OverflowError(f"a time of {time_ms} ms cannot be stored: it needs more than 64 bits")
        live[entry] = value
        if entry in dirty:
            self._log.append((self, entry, old, False))
        else:
            dirty[entry] = MISSING if old is None and time_ms >= self._horizon else old
            self._log.append((self, entry, old, True))
        if old is None:
            self._index(entry)

    def delete(self, time_ms: int, key: K, sub: bytes = b"") -> None:
        """Remove an entry; nothing happens if it is not there."""
        entry = (time_ms, key, sub)
        dirty = self._dirty
        old = self._live.pop(entry, None)
        if entry in dirty:
            self._log.append((self, entry, old, False))
        elif old is not None or time_ms >= self._horizon:
            dirty[entry] = MISSING if old is None else old
            self._log.append((self, entry, old, True))
        if old is not None:
            self._dead += 1
            if self._dead > len(self._live) + _SLACK:
                self._sweep()

    def next_time(self) -> int | None:
        """Return the time of the earliest entry, None if there is none."""
        by_time, live = self._by_time, self._live
        while True:
            front, times = self._front, self._times
            in_front = bool(front) and (not times or front[-1] < times[0])
            time = front[-1] if in_front else times[0] if times else _END
            if time >= self._horizon:
                if self._horizon == _END:
                    return None
                if self._parted is None:
                    self._load()
                    continue
                if self._has_parted():
                    return self._parted
                if time > self._parted:
                    self._horizon, self._parted = self._parted + 1, None
                    continue
            at = by_time[time]
            if (any(entry in live for entry in at)) if type(at) is list else at in live:
                return time
            self._dead -= len(at) if type(at) is list else 1
            del by_time[front.pop() if in_front else heappop(times)]

    def due(self, until_ms: int, order: Order = "key") -> Iterator[tuple[int, K, bytes, V]]:
        """Yield (time, key, sub, value) of the entries up to and including `until_ms`, by time, each once.

        They stay: who has dealt with one deletes it. What is put while this goes on may be left out, and so may all that comes behind
        it; so who does that asks again, until nothing is due.
        """
        low_ms = _START  # what is below has been told
        while low_ms <= until_ms:
            if low_ms < self._horizon:
                high_ms = min(until_ms, self._horizon - 1)
                found = self._due_in_memory(high_ms, order)
                yield from found if low_ms == _START else (entry for entry in found if entry[0] >= low_ms)
                low_ms = high_ms + 1
            elif self._parted is None:
                self._load()
            else:
                time = self._parted
                if time < low_ms:
                    return  # a roll-back has brought back what has been told
                yield from self._due_parted(time, order)
                first = self.next_time()
                if first is not None and first <= time:
                    return
                low_ms = time + 1

    def _due_in_memory(self, until_ms: int, order: Order) -> list[tuple[int, K, bytes, V]]:
        by_time, live = self._by_time, self._live
        found: list[tuple[int, K, bytes, V]] = []
        kept: list[int] = []
        for time in self._take(until_ms):
            at = by_time[time]
            if type(at) is not list and (value := live.get(at)) is not None:
                kept.append(time)
                found.append((*at, value))
            elif type(at) is list and (entries := [entry for entry in dict.fromkeys(at) if entry in live]):
                kept.append(time)
                found += [(*entry, live[entry]) for entry in entries]
            else:
                self._dead -= len(at) if type(at) is list else 1
                del by_time[time]
        kept.reverse()
        self._front += kept
        if len(found) > len(kept) and order != "any":
            found.sort(key=self._rank(order))
        return found

    def _due_parted(self, time: int, order: Order) -> Iterator[tuple[int, K, bytes, V]]:
        """Yield the entries of the parted time, as they are at the beginning; what is in memory has been put since the commit."""
        live = self._live
        at = self._by_time.get(time, [])
        fresh = [(*entry, live[entry]) for entry in dict.fromkeys(at if type(at) is list else [at]) if entry in live]
        known = {entry for entry in self._dirty if entry[0] == time} | {item[:3] for item in fresh}
        if order == "any":
            decode = self._codec.decode
            yield from fresh
            yield from ((*entry, decode(raw)) for _, entry, raw in self._scan_parted(time) if entry not in known)
            return
        rank = self._rank(order)
        yield from merge(sorted(fresh, key=rank), self._sorted_parts(time, known, rank), key=rank)

    def _sorted_parts(self, time: int, known: set[tuple[int, K, bytes]], rank: Callable[[Any], Any]) -> Iterator[tuple[int, K, bytes, V]]:
        """Yield what the store has of a time beside what is known, in order."""
        most, decode = self._section.chunk * _CHUNKS_A_PART, self._codec.decode
        after: Any = None
        try:
            while True:
                ranked = ((rank(entry), entry, raw) for _, entry, raw in self._scan_parted(time) if entry not in known)
                part = nsmallest(most, (one for one in ranked if after is None or one[0] > after), key=itemgetter(0))
                self._part = len(part)
                for _, entry, raw in part:
                    yield (*entry, decode(raw))
                if len(part) < most:
                    return
                after = part[-1][0]
        finally:
            self._part = 0

    def _scan_parted(self, time: int, start: bytes = b"") -> Iterator[tuple[bytes, tuple[int, K, bytes], bytes]]:
        """Yield store key, entry and value bytes of what the store has of a time."""
        low = self._section.low + encode_time(time)
        for raw, value in self._section.store.scan(start or low, prefix_end(low)):
            yield raw, self._entry_of(raw), value

    def _has_parted(self) -> bool:
        """Return whether anything that the store has of the parted time is still there."""
        assert self._parted is not None
        if self._seen is not None and self._seen[1] not in self._dirty:
            return True
        scan = self._scan_parted(self._parted, b"" if self._seen is None else self._seen[0])
        self._seen = next(((raw, entry) for raw, entry, _ in scan if entry not in self._dirty), None)
        return self._seen is not None

    def _rank(self, order: Order) -> Callable[[Any], Any]:
        """Return what entries are sorted by; it differs for any two."""
        by_key = self._order
        if order == "sub":
            return lambda entry: (entry[0], entry[2], by_key(entry[1]))
        return lambda entry: (entry[0], by_key(entry[1]), entry[2])

    def undo(self, entry: tuple[Any, ...]) -> None:
        """Put back what a `put` or `delete` noted."""
        _, cell, old, first = entry
        if old is None:
            if self._live.pop(cell, None) is not None:
                self._dead += 1
        else:
            if cell not in self._live:
                self._index(cell)
            self._live[cell] = old
        self._seen = None
        if first and self._dirty.pop(cell) is MISSING and cell[0] < self._horizon:
            # A load since then has passed over what the store has for this entry.
            self._horizon, self._parted = cell[0], None

    def changes(self) -> list[Change]:
        """Return what differs from the store, in key order."""
        live, encode, raw_of = self._live, self._codec.encode, self._raw
        found: list[Change] = []
        unknown: list[bytes] = []
        for entry, before in self._dirty.items():
            value = live.get(entry)
            if value is not None:
                found.append((raw_of(entry), encode(value)))
            elif before is MISSING:
                unknown.append(raw_of(entry))
            elif before is not None:
                found.append((raw_of(entry), None))
        found += self._section.deletions(unknown)
        found.sort(key=KEY_OF)
        return found

    def committed(self) -> None:
        """The store holds the changes now: what lies beyond the horizon is read again when its time comes."""
        if self._horizon != _END:
            for entry in self._dirty:
                if entry[0] >= self._horizon and self._live.pop(entry, None) is not None:
                    self._dead += 1
        self._dirty.clear()
        self._seen = None
        if self._dead > len(self._live) + _SLACK:
            self._sweep()

    def size(self) -> int:
        """Return how many entries are in memory."""
        return len(self._live) + self._part

    def evict(self, number: int) -> None:
        """Drop about that many entries, the farthest first; those of the earliest time only if they are many. Nothing may be dirty."""
        live = self._live
        if number <= 0 or not live:
            return
        times = sorted(entry[0] for entry in live)
        cut = times[max(len(times) - number, 0)]
        if cut == times[0] and (following := bisect_right(times, cut)) <= self._section.chunk:
            cut = times[following] if following < len(times) else _END
        if cut < self._horizon:
            self._horizon, self._parted = cut, None
        if times[-1] >= self._horizon:
            cut = self._horizon
            self._live = {entry: value for entry, value in live.items() if entry[0] < cut}
            self._sweep()

    def _raw(self, entry: tuple[int, K, bytes]) -> bytes:
        return self._section.low + encode_time(entry[0]) + self._parts[entry[1]] + entry[2]

    def _index(self, entry: tuple[int, K, bytes]) -> None:
        time = entry[0]
        at = self._by_time.get(time)
        if at is None:
            self._by_time[time] = entry
            heappush(self._times, time)
        elif type(at) is list:
            at.append(entry)
        else:
            self._by_time[time] = [at, entry]

    def _take(self, until_ms: int) -> list[int]:
        """Remove the times up to and including `until_ms` from front and heap, and return them in order."""
        front, times = self._front, self._times
        taken: list[int] = []
        while front and front[-1] <= until_ms:
            taken.append(front.pop())
        both = bool(taken)
        while times and times[0] <= until_ms:
            taken.append(heappop(times))
        if both:
            taken.sort()
        return taken

    def _sweep(self) -> None:
        """Make the index anew from what is there."""
        by_time: dict[int, Any] = {}
        for entry in self._live:
            at = by_time.setdefault(entry[0], entry)
            if at is not entry:
                if type(at) is list:
                    at.append(entry)
                else:
                    by_time[entry[0]] = [at, entry]
        self._times, self._front, self._by_time, self._dead = list(by_time), [], by_time, 0
        heapify(self._times)

    def _load(self) -> None:
        """Read the next chunk of the store, whole times only, and move the horizon behind it; a time too large for it is parted."""
        section, live, dirty, decode = self._section, self._live, self._dirty, self._codec.decode
        start = section.low if self._horizon == _START else section.low + encode_time(self._horizon)
        read: list[tuple[tuple[int, K, bytes], bytes]] = []
        horizon = _END
        for raw, value in section.store.scan(start, section.high):
            if len(read) == section.chunk:
                horizon = decode_time(raw, ID_BYTES)
                break
            read.append((self._entry_of(raw), value))
        self._horizon = horizon
        if read and read[0][0][0] == horizon:
            self._parted, self._seen = horizon, None
            return
        for entry, value in takewhile(lambda item: item[0][0] < horizon, read):
            if entry not in dirty and entry not in live:
                live[entry] = decode(value)
                self._index(entry)

    def _entry_of(self, raw: bytes) -> tuple[int, K, bytes]:
        try:
            key_bytes, sub = split_key(raw, ID_BYTES + TIME_BYTES)
            return (decode_time(raw, ID_BYTES), self._decode_key(key_bytes), sub)
        except DECODE_ERRORS as error:
            raise self._section.foreign_key(raw, error) from error
