"""Count windows: the last n records of a key, after every so many, in the order of their arrival.

With every=n nothing but one tuple of accumulators is kept. Otherwise records are folded in groups of gcd(n, every), of which the
last n records' worth is kept: a result joins them.

A result's window reaches from the lowest to behind the highest event time of its records. It comes out at the record that fills it;
records left over at the end stay in the state.
"""

from collections.abc import Iterator
from math import gcd
from typing import Any

from engine.agg.aggregate import tuple_type
from engine.agg.folding import Accumulators, payload_codec
from engine.block import Block
from engine.operators.base import Operator, OperatorContext
from engine.operators.window_plan import Results, WindowPlan
from engine.windows import CountWindow
from state.overlay import KeyedCells

_Group = tuple[int, int, Accumulators]  # lowest and highest event time, accumulators


class CountWindows(Operator):
    """State of a key: (records so far, groups, oldest first)."""

    def __init__(self, context: OperatorContext, plan: WindowPlan) -> None:
        super().__init__(context)
        window = plan.spec.window
        assert isinstance(window, CountWindow)
        self._plan, self._window, self._folding = plan, window, plan.folding
        self._group_size = gcd(window.size, window.every)
        stored = payload_codec(tuple_type(int, tuple_type(tuple_type(int, int, plan.folding.stored), ...)))
        self._cells: KeyedCells[Any, tuple[int, tuple[_Group, ...]]] = context.state.keyed(context.state_name("counts"), plan.key, stored)

    def process(self, block: Block, port: int = 0) -> None:
        results = Results(self, block)
        inputs = self._folding.records(block.values)
        before = block.before
        self._cells.read(dict.fromkeys(block.keys))
        for row, (key, timestamp_ms) in enumerate(zip(block.keys, block.timestamps, strict=True)):
            full = self._take(key, timestamp_ms, inputs[row])
            if full is not None:
                self._add_result(results, key, full, before[row])
        results.finish()

    def inspect(self, key: Any) -> Iterator[tuple[str, Any]]:
        stored = self._cells.get(key)
        if stored is not None and stored[1]:
            low, high, accumulators = self._joined(stored[1])
            yield "window", self._plan.rows.row(key, accumulators, low, high + 1)

    def _take(self, key: Any, timestamp_ms: int, record: tuple[Any, ...]) -> _Group | None:
        """Add a record; return the window that it fills, if it does."""
        folding, window = self._folding, self._window
        stored = self._cells.get(key)
        number, groups = (0, ()) if stored is None else stored
        if number % self._group_size == 0:
            groups = (*groups, (timestamp_ms, timestamp_ms, folding.create(timestamp_ms, record)))
        else:
            low, high, accumulators = groups[-1]
            group = (min(low, timestamp_ms), max(high, timestamp_ms), folding.add(accumulators, timestamp_ms, record))
            groups = (*groups[:-1], group)
        number += 1
        full = None
        if number >= window.size and (number - window.size) % window.every == 0:
            full = self._joined(groups)
            groups = groups[window.every // self._group_size :]
        # The count stays small: what matters is the place within the first window, then within a hop.
        if number >= window.size + window.every:
            number -= window.every
        self._cells.put(key, (number, groups))
        return full

    def _joined(self, groups: tuple[_Group, ...]) -> _Group:
        low, high, total = groups[0]
        for other_low, other_high, accumulators in groups[1:]:
            low, high, total = min(low, other_low), max(high, other_high), self._folding.merge(total, accumulators)
        return low, high, total

    def _add_result(self, results: Results, key: Any, full: _Group, reached: int) -> None:
        low, high, accumulators = full
        row = self._plan.rows.row
        results.add((key,), lambda first, last: [row(key, accumulators, low, high + 1)], due_ms=reached + 1, timestamp_ms=high)


__all__ = ["CountWindows"]
