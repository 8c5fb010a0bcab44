"""Sliding windows: each time at which a key has a record gives one result, about the `size` that ends with it.

    records of a key     1 at 0 s      2 at 40 s      4 at 70 s             sliding("1m"), sum
    results              1             3              6                     windows that end (inclusive) at 0, 40 and 70 s

A result fires when the watermark reaches its time + lateness. A record that comes too late for a result of its own still counts in
the results to come that reach back to it; it is late when there can be none of these.
"""

from collections.abc import Iterator
from typing import Any

from engine.agg.folding import Accumulators
from engine.block import MAX_TIME, Block
from engine.operators.base import Operator, OperatorContext
from engine.operators.window_plan import Results, WindowPlan, send_late
from engine.windows import SlidingWindow, Span
from state.keys import decode_time, encode_time
from state.values import PayloadCodec, unit_codec


class SlidingWindows(Operator):
    """State of a key: accumulators by event time; results to come, and times to drop, in order."""

    def __init__(self, context: OperatorContext, plan: WindowPlan) -> None:
        super().__init__(context)
        window = plan.spec.window
        assert isinstance(window, SlidingWindow)
        self._plan, self._folding = plan, plan.folding
        self._size_ms, self._lateness_ms = window.size_ms, plan.spec.lateness_ms
        times = PayloadCodec(encode_time, decode_time)
        self._cells = context.state.mapped(context.state_name("times"), plan.key, times, plan.folding.codec)
        self._fires = context.state.timed(context.state_name("fires"), plan.key, unit_codec)
        self._drops = context.state.timed(context.state_name("drops"), plan.key, unit_codec)

    def process(self, block: Block, port: int = 0) -> None:
        results = Results(self, block)
        folding, cells, before = self._folding, self._cells, block.before
        inputs = folding.records(block.values)
        late = []
        next_due = self._next_due()
        for row, (key, timestamp_ms) in enumerate(zip(block.keys, block.timestamps, strict=True)):
            reached = before[row]
            if reached >= next_due:
                self._advance(reached, results)
                next_due = self._next_due()
            due_ms = timestamp_ms + self._lateness_ms
            if due_ms + self._size_ms - 1 <= reached:
                late.append((key, block.values[row], timestamp_ms, Span(timestamp_ms + 1 - self._size_ms, timestamp_ms + 1), reached))
                continue
            known = cells.whole(key).get(timestamp_ms)  # when a window fires, all of it is looked at
            total = folding.create(timestamp_ms, inputs[row]) if known is None else folding.add(known, timestamp_ms, inputs[row])
            cells.put(key, timestamp_ms, total)
            if known is None:
                self._drops.put(due_ms + self._size_ms - 1, key, True)
                next_due = min(next_due, due_ms + self._size_ms - 1)
                if due_ms > reached:
                    self._fires.put(due_ms, key, True)
                    next_due = min(next_due, due_ms)
        self._advance(block.watermark, results)
        send_late(self.context, self._plan.spec.late_to, late)
        results.finish()

    def inspect(self, key: Any) -> Iterator[tuple[str, Any]]:
        for time_ms, accumulators in self._cells.items(key):
            yield str(time_ms), self._plan.rows.row(key, accumulators, time_ms, time_ms + 1)

    def _next_due(self) -> int:
        """Return the time at which the next result fires or the next content goes."""
        return min((time for time in (self._fires.next_time(), self._drops.next_time()) if time is not None), default=MAX_TIME)

    def _advance(self, until: int, results: Results) -> None:
        first = self._fires.next_time()
        if first is not None and first <= until:
            row = self._plan.rows.row
            for due_ms, key, sub, _ in self._fires.due(until):
                self._fires.delete(due_ms, key, sub)
                time_ms = due_ms - self._lateness_ms
                start = time_ms + 1 - self._size_ms
                results.add(
                    (key,),
                    lambda low, high, key=key, at=time_ms, start=start: [row(key, self._total(key, at), start, at + 1)],  # type: ignore[misc]
                    due_ms=due_ms,
                    timestamp_ms=time_ms,
                )
        first = self._drops.next_time()
        if first is not None and first <= until:
            for due_ms, key, sub, _ in self._drops.due(until, "any"):
                self._drops.delete(due_ms, key, sub)
                self._cells.delete(key, due_ms - self._lateness_ms - self._size_ms + 1)

    def _total(self, key: Any, time_ms: int) -> Accumulators:
        """Return the accumulators of the window that ends with a time."""
        total: Accumulators | None = None
        cells, low = self._cells.whole(key), time_ms - self._size_ms
        for other_ms in sorted([other_ms for other_ms in cells if low < other_ms <= time_ms]):
            accumulators = cells[other_ms]
            total = accumulators if total is None else self._folding.merge(total, accumulators)
        assert total is not None, "a window fires only where there is a record"
        return total


__all__ = ["SlidingWindows"]
