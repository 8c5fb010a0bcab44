"""Records that wait for the watermark, for operators that work in event-time order.

    pane [1_000, 2_000)   key "a": (1_700, v1) (1_200, v2)      in order of arrival
    pane [2_000, 3_000)   key "a": (2_100, v3)

A record comes in with a time above the watermark, into the pane of its second, and goes out when the watermark reaches it. Panes
that the watermark has passed go out as a whole, so that the cost of a record does not depend on how many are waiting; only the
pane in which the watermark stands is looked through.
"""

from collections.abc import Sequence
from typing import Any

from engine.block import MAX_TIME
from engine.kept import kept_codec
from engine.keys import KeyCodec
from engine.operators.base import OperatorContext

Pair = tuple[int, Any]
"""Timestamp in ms, value."""

PENDING_MS = 1_000


class PendingRecords:
    """Pending records of all keys of a task."""

    def __init__(self, context: OperatorContext, local: str, key: KeyCodec, value_type: Any) -> None:
        codec = kept_codec(tuple[tuple[int, value_type], ...])
        self._panes = context.state.panes(context.state_name(local), key, codec)

    def take(self, watermark: int) -> dict[Any, list[Pair]]:
        """Remove and return the pending records at or below the watermark, for each key in the order of panes, then of arrival."""
        due: dict[Any, list[Pair]] = {}
        for time in self._panes.times(watermark):
            pane = self._panes.pane(time)
            entries = list(pane.cells.items()) if pane.complete else pane.items()
            if time + PENDING_MS - 1 <= watermark:
                for key, pairs in entries:
                    if key in due:
                        due[key].extend(pairs)
                    else:
                        due[key] = list(pairs)
                pane.drop()
                continue
            later: dict[Any, tuple[Pair, ...]] = {}
            for key, pairs in entries:
                passed = [pair for pair in pairs if pair[0] <= watermark]
                if not passed:
                    continue
                due.setdefault(key, []).extend(passed)
                if len(passed) < len(pairs):
                    later[key] = tuple(pair for pair in pairs if pair[0] > watermark)
                else:
                    pane.delete(key)
            pane.put_many(later)
        return due

    def add(
        self, keys: Sequence[Any], values: Sequence[Any], timestamps: Sequence[int], watermark: int, due: dict[Any, list[Pair]]
    ) -> None:
        """Add new records: to what is due, or to what is pending."""
        fresh: dict[int, dict[Any, list[Pair]]] = {}
        for key, pair in zip(keys, zip(timestamps, values, strict=True), strict=True):
            timestamp_ms = pair[0]
            if timestamp_ms <= watermark:
                of_key = due
            else:
                pane_time = timestamp_ms // PENDING_MS
                if pane_time in fresh:
                    of_key = fresh[pane_time]
                else:
                    of_key = fresh[pane_time] = {}
            if key in of_key:
                of_key[key].append(pair)
            else:
                of_key[key] = [pair]
        for pane_time, gathered in fresh.items():
            pane = self._panes.pane(pane_time * PENDING_MS)
            if pane.complete and not pane.cells:
                pane.put_many({key: tuple(pairs) for key, pairs in gathered.items()})
            else:
                get = pane.get
                pane.put_many({key: (*(get(key) or ()), *pairs) for key, pairs in gathered.items()})

    def of(self, key: Any) -> list[Pair]:
        """Return what waits for a key, by panes, then by arrival."""
        return [pair for time in self._panes.times(MAX_TIME) for pair in self._panes.pane(time).get(key) or ()]
