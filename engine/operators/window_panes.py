"""Fixed windows without a trigger: panes of all keys, blocks at a time.

A pane is the stretch that overlapping windows share (the greatest common divisor of size and hop; the window itself if it is
tumbling). A record is added to one pane; a window that fires joins its panes.

    hopping("3s", every="1s")        panes 1 s wide
    |  0  |  1  |  2  |  3  |        window [0, 3) = panes 0 1 2, then pane 0 is dropped

A block is cut where the watermark reaches the next time at which a window can fire, which is known beforehand; between two cuts
nothing fires, and who is late is a matter of comparing with one number, so a whole column is folded at once. Only when a block
reaches that time are the watermarks before single records looked at.
"""

from bisect import bisect_left
from collections.abc import Sequence
from functools import reduce
from itertools import compress
from math import gcd
from typing import Any

from engine.agg.folding import Accumulators
from engine.block import MAX_TIME, Block
from engine.operators.base import Operator, OperatorContext
from engine.operators.window_plan import Results, WindowPlan, send_late
from engine.windows import FixedWindow, Span
from state.overlay import Pane, PaneCells
from state.values import unit_codec

_Item = tuple[Any, Accumulators]


class PaneWindows(Operator):
    """Tumbling and hopping windows; `emit="close"` and `"update"`."""

    def __init__(self, context: OperatorContext, plan: WindowPlan) -> None:
        super().__init__(context)
        window = plan.spec.window
        assert isinstance(window, FixedWindow)
        self._plan, self._window, self._folding = plan, window, plan.folding
        self._tumbling = window.every_ms == window.size_ms
        self._pane_ms = gcd(window.size_ms, window.every_ms)
        self._delay_ms = window.size_ms - 1 + plan.spec.lateness_ms  # from a window's start to when it fires
        self._panes = context.state.panes(context.state_name("panes"), plan.key, plan.folding.codec, by_hand=True)
        # Which keys have changed since the last commit, by pane. It is emptied with each commit, so it never reaches the store.
        self._changed = context.state.panes(context.state_name("changed"), plan.key, unit_codec) if plan.spec.emit == "update" else None
        self._watermark: int | None = None

    def process(self, block: Block, port: int = 0) -> None:
        results = Results(self, block)
        at, size, reached = 0, len(block), block.start
        next_due = self._open_start(reached) + self._delay_ms
        while block.watermark >= next_due:
            before = block.before
            cut = bisect_left(before, next_due, at)
            self._add(block, at, cut, reached)
            at = cut
            new = before[cut] if cut < size else block.watermark
            self._fire(reached, new, results)
            reached = new
            next_due = self._open_start(reached) + self._delay_ms
        self._add(block, at, size, reached)
        self._watermark = block.watermark
        results.finish()

    def before_commit(self) -> None:
        if self._changed is None or self._watermark is None:
            return
        block = Block((), (), (), self._watermark, self._watermark, ())
        results = Results(self, block)
        for start in self._changed_windows():
            self._emit(start, results)
        for time_ms in self._changed.times(MAX_TIME):
            self._changed.pane(time_ms).drop()
        if results.keys:
            results.finish()

    def inspect(self, key: Any) -> Any:
        for time_ms in self._panes.times(MAX_TIME):
            accumulators = self._panes.pane(time_ms).get(key)
            if accumulators is not None:
                yield str(time_ms), self._plan.rows.row(key, accumulators, time_ms, time_ms + self._pane_ms)

    # -- taking records

    def _open_start(self, reached: int) -> int:
        """Return the start of the earliest window that is still open."""
        return self._window.next_start(reached - self._delay_ms + 1)

    def _add(self, block: Block, at: int, end: int, reached: int) -> None:
        """Take the records at, …, end - 1; nothing fires between them."""
        if at == end:
            return
        keys, values, timestamps = block.keys, block.values, block.timestamps
        if end - at < len(keys):
            keys, values, timestamps = keys[at:end], values[at:end], timestamps[at:end]
        open_start = self._open_start(reached)
        if min(timestamps) < open_start:
            in_time = [timestamp_ms >= open_start for timestamp_ms in timestamps]
            self._send_late(block, at, in_time)
            keys, values, timestamps = (list(compress(column, in_time)) for column in (keys, values, timestamps))
            if not timestamps:
                return
        columns = self._folding.columns(values)
        size, offset = self._pane_ms, self._window.offset_ms
        first = min(timestamps)
        first -= (first - offset) % size
        if max(timestamps) < first + size:
            self._fold(first, keys, timestamps, columns)
            return
        rows_of: dict[int, list[int]] = {}
        for row, timestamp_ms in enumerate(timestamps):
            start = timestamp_ms - (timestamp_ms - offset) % size
            if start in rows_of:
                rows_of[start].append(row)
            else:
                rows_of[start] = [row]
        for start in sorted(rows_of):
            rows = rows_of[start]
            self._fold(
                start,
                [keys[row] for row in rows],
                [timestamps[row] for row in rows],
                [[column[row] for row in rows] for column in columns],
            )

    def _fold(self, start: int, keys: Sequence[Any], timestamps: Sequence[int], columns: Sequence[Sequence[Any]]) -> None:
        pane = self._panes.pane(start)
        new: dict[Any, Accumulators] = {}
        pane.read(dict.fromkeys(keys))
        self._folding.fold(pane.cells.get, new, keys, timestamps, columns)
        pane.put_many(new)
        if self._changed is not None:
            self._changed.pane(start).put_many(dict.fromkeys(new, True))

    def _send_late(self, block: Block, at: int, in_time: Sequence[bool]) -> None:
        window = self._window
        late = []
        for row, kept in enumerate(in_time, at):
            if not kept:
                timestamp_ms = block.timestamps[row]
                start = window.last_start(timestamp_ms)
                late.append((block.keys[row], block.values[row], timestamp_ms, Span(start, start + window.size_ms), block.before[row]))
        send_late(self.context, self._plan.spec.late_to, late, self._plan.spec.records_in)

    # -- firing

    def _fire(self, reached: int, until: int, results: Results) -> None:
        """Fire every window that became due after `reached`, up to `until`."""
        panes, window = self._panes, self._window
        if self._tumbling:
            for start in panes.times(until - self._delay_ms):
                self._emit(start, results)
                self._drop(panes.pane(start))
            return
        start = self._open_start(reached)
        first = panes.next_time()
        while first is not None:
            start = max(start, window.next_start(first - window.size_ms + 1))
            if start + self._delay_ms > until:
                return
            self._emit(start, results)
            start += window.every_ms
            for time_ms in panes.times(start - 1):
                self._drop(panes.pane(time_ms))
            first = panes.next_time()

    def _emit(self, start: int, results: Results) -> None:
        """Tell of a window: of everything, or (update) of what has changed since the last commit."""
        end = start + self._window.size_ms
        rows = self._plan.rows.rows
        items: Sequence[_Item] = ()
        if self.context.careful:
            keys = self._keys(start)
        else:
            items = self._window_items(start) if self._changed is None else self._changed_items(start)
            keys = [key for key, _ in items]

        def make(low: int, high: int) -> Sequence[Any]:
            # To join panes may raise, where the merge= is a user's own: in careful mode that is the firing of one key.
            return rows(items[low:high] or self._joined(start, keys[low:high]), start, end)

        if keys:
            results.add(keys, make, due_ms=start + self._delay_ms, timestamp_ms=end - 1)

    def _drop(self, pane: Pane[Any, Accumulators]) -> None:
        if self._changed is not None:
            self._changed.pane(pane.time).drop()
        pane.drop()

    def _times_of(self, panes: PaneCells[Any, Any], start: int) -> list[int]:
        """Return the times of the panes of a window."""
        return [time_ms for time_ms in panes.times(start + self._window.size_ms - 1) if time_ms >= start]

    def _keys(self, start: int) -> list[Any]:
        """Return the keys that a window has to tell of, in order."""
        told: PaneCells[Any, Any] = self._panes if self._changed is None else self._changed
        keys = dict.fromkeys(key for time_ms in self._times_of(told, start) for key, _ in told.pane(time_ms).items())
        return sorted(keys, key=self._plan.key.wire)

    def _joined(self, start: int, keys: Sequence[Any]) -> list[_Item]:
        """Return what a window holds of some keys, which it has."""
        panes = [self._panes.pane(time_ms) for time_ms in self._times_of(self._panes, start)]
        merge = self._folding.merge
        return [(key, reduce(merge, [part for pane in panes if (part := pane.get(key)) is not None])) for key in keys]

    def _window_items(self, start: int) -> Sequence[_Item]:
        if self._tumbling:
            return self._panes.pane(start).items()
        times = self._times_of(self._panes, start)
        if len(times) == 1:
            return self._panes.pane(times[0]).items()
        merge = self._folding.merge
        total: dict[Any, Accumulators] = {}
        for time_ms in times:
            pane = self._panes.pane(time_ms)
            cells = pane.cells if pane.complete else dict(pane.items())
            if not total:
                total = dict(cells)
                continue
            known = total.get
            for key, accumulators in cells.items():
                earlier = known(key)
                total[key] = accumulators if earlier is None else merge(earlier, accumulators)
        wire = self._plan.key.wire
        return sorted(total.items(), key=lambda item: wire(item[0]))

    def _changed_items(self, start: int) -> Sequence[_Item]:
        return self._joined(start, self._keys(start))

    def _changed_windows(self) -> list[int]:
        """Return the starts of the open windows in which anything has changed since the last commit."""
        assert self._changed is not None and self._watermark is not None
        open_start = self._open_start(self._watermark)
        starts: set[int] = set()
        for time_ms in self._changed.times(MAX_TIME):
            starts.update(start for start, _ in self._window.assign(time_ms) if start >= open_start)
        return sorted(starts)


__all__ = ["PaneWindows"]
