"""Records in the order of their event time: what a block makes certain, key by key.

    records by arrival ──► pending (until the watermark has passed them) ──► by time, ties by arrival or by what sorts them

A record is late, counted and sent to `late_to`, when the watermark has reached its time before it comes.
"""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from engine.block import Block
from engine.kept import refuse_unstorable
from engine.keys import KeyCodec
from engine.operators.base import OperatorContext
from engine.operators.pending import Pair, PendingRecords

Ties = Callable[[Any], Any]
_TIME_OF = itemgetter(0)


class Arrivals:
    """Puts records away until they are due; `ties` sorts those of the same time, None leaves the order of arrival."""

    def __init__(self, context: OperatorContext, key: KeyCodec, value_type: Any, *, late_to: str | None, ties: Ties | None) -> None:
        self._context = context
        self._late_to = late_to
        self._untyped = value_type is Any
        self._order = _TIME_OF if ties is None else lambda pair: (pair[0], ties(pair[1]))
        self._pending = PendingRecords(context, "pending", key, value_type)

    def due(self, block: Block) -> dict[Any, list[Pair]]:
        """Put the block's records away, and return for each key the records that the watermark has passed, sorted by time."""
        watermark = block.watermark
        due = self._pending.take(watermark)
        keys, values, timestamps = block.keys, block.values, block.timestamps
        if len(keys):
            if self._untyped:
                refuse_unstorable(values, "is kept by a pattern")
            before = block.before
            if min(timestamps) <= before[-1]:
                keys, values, timestamps = self._without_late(block)
            self._pending.add(keys, values, timestamps, watermark, due)
        by_time = self._order
        for records in due.values():
            if len(records) > 1:
                records.sort(key=by_time)
        return due

    def of(self, key: Any) -> list[Pair]:
        """Return what waits for a key, by panes, then by arrival."""
        return self._pending.of(key)

    def _without_late(self, block: Block) -> tuple[Sequence[Any], Sequence[Any], Sequence[int]]:
        before, timestamps = block.before, block.timestamps
        late = [row for row, timestamp_ms in enumerate(timestamps) if timestamp_ms <= before[row]]
        if not late:
            return block.keys, block.values, timestamps
        self._context.count("late_records", len(late))
        if self._late_to is not None:
            gone = block.take(late)
            self._context.send(self._late_to, gone.keys, gone.values, gone.timestamps)
        kept = block.take([row for row, timestamp_ms in enumerate(timestamps) if timestamp_ms > before[row]])
        return kept.keys, kept.values, kept.timestamps
