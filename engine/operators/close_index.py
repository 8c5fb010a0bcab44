"""When to look at the sessions of a key: an index that need not follow each of them.

A key stands in the index under a time at or before the one at which its first session closes, rounded down to a pane. A session that
grows moves its close, but not the entry: when that comes due, it is put back where the session then closes.

    panes 15 s wide, watermark 70 s       … [45, 60)  [60, 75)  [75, 90) …
                                          passed: all of it comes out at once, a dict of keys
                                                    reached: who is due comes out, the others stay

Sessions open and close by the thousand in a block, so what counts is that a key costs a place in a dict, and nothing else. The keys of
the pane that time has reached also lie in a heap, made when it is reached, so that a small block looks at those that are due only.

As stored, an entry is the same as one of an exact time (`state.timed`); a time that is no multiple of the width is a pane of its own.
"""

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any

from state.overlay import PaneCells

_WIDTH_MAX_MS = 15_000
_WIDTH_UNKNOWN_MS = 5_000
_HEAP_SPARE = 1_000


class CloseIndex:
    """Keys by the time at which to look at them.

    Args:
        read: Called with keys whose sessions are going to be looked at, to read them together.

    Attributes:
        width_ms: Of a pane.
    """

    def __init__(self, panes: PaneCells[Any, bool], width_ms: int, read: Callable[[Iterable[Any]], None]) -> None:
        self._panes, self._read = panes, read
        self.width_ms = width_ms
        self._reached: int | None = None  # the pane that time has reached, if its keys are in the heap
        self._heap: list[tuple[int, int, Any]] = []  # when to look at a key, which may be early, and may be said more than once
        self._heap_max = 0  # beyond it the heap is made anew: while time stands still nothing else takes out what is said twice
        self._ties = count()

    def forget(self) -> None:
        """Drop what is not state; after a roll-back."""
        self._reached = None
        self._heap = []

    def pane_of(self, time_ms: int) -> int:
        """Return the place of an entry for a time."""
        return time_ms // self.width_ms * self.width_ms

    def passed_before(self, until: int) -> int:
        """Return the start of the earliest pane that `until` has not passed: entries of multiples of the width below it are gone."""
        return (until + 1) // self.width_ms * self.width_ms

    def is_passed(self, pane: int, until: int) -> bool:
        """Return whether `take` for this time has taken the pane as a whole."""
        return pane < self.passed_before(until) or (pane <= until and pane % self.width_ms != 0)

    def enter(self, panes: dict[int, list[Any]]) -> None:
        """Put keys into panes; OverflowError for a time beyond 64 bits."""
        for pane in sorted(panes):
            keys = panes[pane]
            self._panes.pane(pane).put_many(dict.fromkeys(keys, True))
            if pane == self._reached:
                for key in keys:
                    heappush(self._heap, (pane, next(self._ties), key))

    def look_at(self, pane: int, key: Any, close_ms: int) -> None:
        """A key that stays where it is may close earlier than was known: it has one more session."""
        if pane == self._reached:
            heappush(self._heap, (close_ms, next(self._ties), key))

    def delete(self, pane: int, key: Any) -> None:
        """Take a key out of a pane."""
        self._panes.pane(pane).delete(key)

    def take(self, until: int, close_of: Callable[[Any], int]) -> Iterable[Any]:
        """Take out the keys of the panes that `until` has passed, and of the one that it has reached those that close by then.

        Args:
            close_of: When the first session of a key closes.
        Returns:
            The keys, each once.
        """
        first = self._panes.next_time()
        if first is None or first > until:
            return ()
        found: dict[Any, None] = {}
        for time_ms in self._panes.times(until):
            if self.is_passed(time_ms, until):
                pane = self._panes.pane(time_ms)
                found |= dict.fromkeys(pane.cells if pane.complete else [key for key, _ in pane.items()])
                pane.drop()
            else:
                self._take_reached(time_ms, until, close_of, found)
        return found

    def _take_reached(self, time_ms: int, until: int, close_of: Callable[[Any], int], found: dict[Any, None]) -> None:
        """Take those who are due out of the pane that time has reached."""
        pane, ties = self._panes.pane(time_ms), self._ties
        if self._reached != time_ms or len(self._heap) > self._heap_max:
            self._reached = time_ms
            keys = pane.cells if pane.complete else dict(pane.items())
            self._read(keys)
            self._heap = [(close_of(key), next(ties), key) for key in keys]
            heapify(self._heap)
            self._heap_max = 2 * len(self._heap) + _HEAP_SPARE
        heap = self._heap
        while heap and heap[0][0] <= until:
            _, _, key = heappop(heap)
            if key in found or pane.get(key) is None:
                continue
            close_ms = close_of(key)
            if close_ms <= until:
                pane.delete(key)
                found[key] = None
            elif close_ms < time_ms + self.width_ms:
                heappush(heap, (close_ms, next(ties), key))


def pane_width_ms(gap_ms: Any) -> int:
    """Return how wide panes are for a gap between records, which may be a function of the value."""
    return _WIDTH_UNKNOWN_MS if callable(gap_ms) else max(1, min(gap_ms // 4, _WIDTH_MAX_MS))


__all__ = ["CloseIndex", "pane_width_ms"]
