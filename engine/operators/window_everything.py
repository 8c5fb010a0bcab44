"""`windows.everything()` without a trigger: all records of a key, a block at a time.

What is kept of a key is what `window_triggers` keeps, in the same place, so that a trigger may come or go over existing state. The
work is that of running totals: each key of a block is read and written once, however many of its records the block holds.

    block    a 3, b 1, a 4          fold          a (…, 7)  b (…, 1)          the end of time: every key gives its result
"""

from collections import Counter
from typing import Any

from engine.block import MAX_TIME, Block
from engine.operators.window_plan import Results
from engine.operators.window_triggers import TriggeredWindows


class EverythingWindows(TriggeredWindows):
    """One window a key, which ends when the input does."""

    def process(self, block: Block, port: int = 0) -> None:
        if block.before and block.before[-1] == MAX_TIME:
            super().process(block)  # it comes after the end, and is late
            return
        results = Results(self, block)
        if len(block):
            self._fold(block)
        self._advance(block.watermark, results)
        self._watermark = block.watermark
        results.finish()

    def _fold(self, block: Block) -> None:
        cells, held, new = self._cells, dict[Any, Any](), dict[Any, Any]()
        counts = Counter(block.keys)
        columns = self._folding.columns(block.values)
        cells.read(counts)

        def get(key: Any) -> Any:
            stored = cells.get(key)
            if stored is None:
                return None
            held[key] = stored
            return stored[2][0][2]

        self._folding.fold(get, new, block.keys, block.timestamps, columns)
        latest = dict(zip(block.keys, block.timestamps, strict=True))
        for key, timestamp_ms in zip(block.keys, block.timestamps, strict=True):
            if timestamp_ms > latest[key]:
                latest[key] = timestamp_ms
        put = {}
        for key, accumulators in new.items():
            stored = held.get(key)
            if stored is None:
                put[key] = (None, None, ((latest[key], MAX_TIME, accumulators, counts[key], None, False),))
                continue
            indexed, walled, ((start, _, _, records, due, _),) = stored
            if indexed is not None:
                self._index.delete(indexed, key)
            put[key] = (None, walled, ((max(start, latest[key]), MAX_TIME, accumulators, records + counts[key], due, False),))
        cells.put_many(put)
        if self._changed is not None:
            pane = self._changed.pane(0)
            pane.put_many({key: (0,) for key in new if pane.get(key) is None})


__all__ = ["EverythingWindows"]
