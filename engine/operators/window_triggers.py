"""Windows with a trigger, and `everything()`: record by record, each window of a key with what its trigger remembers.

State of a key: the times of its entries in the two indexes (event time, wall clock), and its windows by start. As with sessions
(`window_sessions`), an entry stands at or before the first time at which one of the key's windows has something to do.

What a window does, in order of time:

    due         an early firing of `every(event_time=)` or `every(wall_clock=)`
    end - 1     the firing at its end; later records fire it at once
    closed      end - 1 + lateness: it is dropped; without a trigger this is when it fires

A jump of the watermark over many multiples of `every(event_time=)` fires at each of them, as if it had come in small steps, but for
more than 1,000 of them only at the last: such a jump is a gap in the data.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from engine.agg.aggregate import tuple_type
from engine.agg.folding import Accumulators, payload_codec
from engine.block import MAX_TIME, MIN_TIME, Block
from engine.operators.base import Operator, OperatorContext
from engine.operators.window_plan import Results, WindowPlan, send_late
from engine.triggers import Every, OnLate
from engine.windows import EverythingWindow, FixedWindow, SessionWindow, Span
from state.values import msgpack_codec, unit_codec

_JUMP_MAX = 1_000


class TriggeredWindow(msgspec.Struct, frozen=True, array_like=True):
    """A window of a key.

    Attributes:
        start, end: Its span; for `everything()` the highest event time so far, and the end of time.
        accumulators: Its contents, None if they were purged.
        records: Since its last firing.
        due: Next early firing, None for none.
        ended: It has fired at its end.
    """

    start: int
    end: int
    accumulators: Any
    records: int
    due: int | None
    ended: bool


_Windows = tuple[TriggeredWindow, ...]
_Fired = tuple[int, Any, TriggeredWindow]


class TriggeredWindows(Operator):
    """Fixed windows, sessions and `everything()`, with any trigger or none."""

    def __init__(self, context: OperatorContext, plan: WindowPlan) -> None:
        super().__init__(context)
        spec = plan.spec
        assert isinstance(spec.window, FixedWindow | SessionWindow | EverythingWindow)
        self._plan, self._window, self._folding = plan, spec.window, plan.folding
        self._trigger = spec.trigger
        self._every = spec.trigger if isinstance(spec.trigger, Every) else Every()
        self._purge = isinstance(spec.trigger, OnLate | Every) and spec.trigger.purge
        window = tuple_type(int, int, plan.folding.stored | None, int, int | None, bool)
        stored = payload_codec(tuple_type(int | None, int | None, tuple_type(window, ...)))
        self._cells = context.state.keyed(context.state_name("windows"), plan.key, stored)
        self._index = context.state.timed(context.state_name("due"), plan.key, unit_codec)
        self._wall = context.state.timed(context.state_name("wall"), plan.key, unit_codec)
        changed = msgpack_codec(tuple[int, ...])
        self._changed = context.state.panes(context.state_name("changed"), plan.key, changed) if spec.emit == "update" else None
        self._watermark = MIN_TIME

    def process(self, block: Block, port: int = 0) -> None:
        results = Results(self, block)
        folding, window = self._folding, self._window
        inputs = folding.records(block.values)
        late = []
        for row, (key, value, timestamp_ms) in enumerate(zip(block.keys, block.values, block.timestamps, strict=True)):
            reached = block.before[row]
            self._advance(reached, results)
            spans = self._spans(window, timestamp_ms, value)
            if not self._take(key, timestamp_ms, inputs[row], spans, reached, results):
                late.append((key, value, timestamp_ms, spans[-1], reached))
        self._advance(block.watermark, results)
        send_late(self.context, self._plan.spec.late_to, late)
        self._watermark = block.watermark
        results.finish()

    def on_wall_clock(self, now_ms: int) -> None:
        results = Results(self, Block((), (), (), self._watermark, self._watermark, ()))
        for time_ms, key, sub, _ in self._wall.due(now_ms):
            self._wall.delete(time_ms, key, sub)
            indexed, _, windows = self._load(key)
            fired: list[_Fired] = []
            left = []
            for window in windows:
                if window.due is not None and window.due <= now_ms:
                    window = self._fire(key, self._watermark, msgspec.structs.replace(window, due=None), fired)
                left.append(window)
            self._store(key, indexed, None, left)
            self._deliver(fired, results)
        results.finish()

    def next_wall_clock_ms(self) -> int | None:
        return self._wall.next_time()

    def before_commit(self) -> None:
        if self._changed is None:
            return
        pane = self._changed.pane(0)
        changed = pane.items()
        if not changed:
            return
        pane.drop()
        results = Results(self, Block((), (), (), self._watermark, self._watermark, ()))
        found = [
            (self._watermark, key, window) for key, starts in changed for window in self._load(key)[2] if self._holds_any(window, starts)
        ]
        wire = self._plan.key.wire
        found.sort(key=lambda item: (item[2].end, wire(item[1])))
        for item in found:
            self._add_result(results, item)
        results.finish()

    def inspect(self, key: Any) -> Iterator[tuple[str, Any]]:
        for window in self._load(key)[2]:
            if window.accumulators is not None:
                yield str(window.start), self._plan.rows.row(key, window.accumulators, window.start, window.end)

    # -- taking records

    def _spans(self, window: Any, timestamp_ms: int, value: Any) -> tuple[Span, ...]:
        if isinstance(window, FixedWindow):
            return window.assign(timestamp_ms)
        if isinstance(window, SessionWindow):
            return window.assign(timestamp_ms, value)
        return (Span(timestamp_ms, MAX_TIME),)

    def _take(self, key: Any, timestamp_ms: int, record: tuple[Any, ...], spans: tuple[Span, ...], reached: int, results: Results) -> bool:
        """Put a record into its windows; False if all of them are closed."""
        indexed, walled, stored = self._load(key)
        windows = list(stored)
        fired: list[_Fired] = []
        taken = False
        for span in spans:
            touched = [window for window in windows if self._is_one(window, span)]
            if not touched and self._closed_ms(span.end_ms) <= reached:
                continue
            taken = True
            joined = self._join(touched, span, timestamp_ms, record)
            windows = [window for window in windows if window not in touched]
            joined = self._after_record(key, joined, timestamp_ms, reached, fired)
            windows.append(joined)
            if self._changed is not None:
                self._mark(key, joined)
        if taken:
            windows.sort(key=lambda window: window.start)
            self._store(key, indexed, walled, windows)
            self._deliver(fired, results)
        return taken

    def _is_one(self, window: TriggeredWindow, span: Span) -> bool:
        """Return whether a record of a span goes into a window."""
        if isinstance(self._window, SessionWindow):
            return window.start <= span.end_ms and span.start_ms <= window.end
        return isinstance(self._window, EverythingWindow) or window.start == span.start_ms

    def _join(self, touched: list[TriggeredWindow], span: Span, timestamp_ms: int, record: tuple[Any, ...]) -> TriggeredWindow:
        """Return the window that holds a record and the windows that it connects."""
        folding = self._folding
        total: Accumulators | None = None
        for window in touched:
            if window.accumulators is not None:
                total = window.accumulators if total is None else folding.merge(total, window.accumulators)
        total = folding.create(timestamp_ms, record) if total is None else folding.add(total, timestamp_ms, record)
        if isinstance(self._window, EverythingWindow):
            start = max([span.start_ms, *(window.start for window in touched)])
        else:
            start = min([span.start_ms, *(window.start for window in touched)])
        end = max([span.end_ms, *(window.end for window in touched)])
        due = min((window.due for window in touched if window.due is not None), default=None)
        return TriggeredWindow(start, end, total, sum(window.records for window in touched) + 1, due, ended=False)

    def _after_record(self, key: Any, window: TriggeredWindow, timestamp_ms: int, reached: int, fired: list[_Fired]) -> TriggeredWindow:
        """Do what the trigger says about a window that has got a record."""
        every = self._every
        if self._end_due(window) <= reached:
            return self._fire(key, reached, msgspec.structs.replace(window, due=None, ended=True), fired)
        if every.records is not None and window.records >= every.records:
            return self._fire(key, reached, window, fired)
        if window.due is None and every.event_time_ms is not None:
            return msgspec.structs.replace(window, due=timestamp_ms - timestamp_ms % every.event_time_ms + every.event_time_ms)
        if window.due is None and every.wall_clock_ms is not None:
            now_ms = self.context.now_ms
            return msgspec.structs.replace(window, due=now_ms - now_ms % every.wall_clock_ms + every.wall_clock_ms)
        return window

    # -- time

    def _end_due(self, window: TriggeredWindow) -> int:
        """Return when a window fires at its end."""
        if window.end == MAX_TIME:
            return MAX_TIME
        return window.end - 1 if self._trigger is not None else self._closed_ms(window.end)

    def _closed_ms(self, end: int) -> int:
        """Return when a window is closed for good."""
        return MAX_TIME if end == MAX_TIME else end - 1 + self._plan.spec.lateness_ms

    def _next_action(self, window: TriggeredWindow) -> int:
        """Return when the watermark next makes a window do something."""
        if window.ended:
            return self._closed_ms(window.end)
        end_due = self._end_due(window)
        return end_due if self._every.event_time_ms is None or window.due is None else min(end_due, window.due)

    def _advance(self, until: int, results: Results) -> None:
        """Do everything that is due at or below a watermark."""
        first = self._index.next_time()
        fired: list[_Fired] = []
        if first is not None and first <= until:
            for time_ms, key, sub, _ in self._index.due(until, "any"):
                self._index.delete(time_ms, key, sub)
                self._advance_key(key, until, fired)
        if until == MAX_TIME > self._watermark:
            for key in [key for key, _ in self._cells.items(self._plan.key.decode)]:
                self._advance_key(key, until, fired)
        if fired:
            self._deliver(fired, results)

    def _advance_key(self, key: Any, until: int, fired: list[_Fired]) -> None:
        """Let the windows of a key do what is due, after its entry in the index has been taken out."""
        _, walled, windows = self._load(key)
        left = [kept for window in windows if (kept := self._advance_window(key, window, until, fired)) is not None]
        self._store(key, None, walled, left)

    def _advance_window(self, key: Any, window: TriggeredWindow, until: int, fired: list[_Fired]) -> TriggeredWindow | None:
        """Let a window do what is due; None if it is closed then."""
        interval = self._every.event_time_ms
        while (action := self._next_action(window)) <= until:
            end_due = self._end_due(window)
            if window.ended:
                return None
            if action == end_due:
                window = self._fire(key, action, msgspec.structs.replace(window, due=None, ended=True), fired)
                continue
            assert interval is not None and window.due is not None
            due = window.due
            passed = (min(until, end_due) - due) // interval
            if passed > _JUMP_MAX:
                window = msgspec.structs.replace(window, due=due + passed * interval)
                continue
            window = self._fire(key, action, msgspec.structs.replace(window, due=due + interval), fired)
        return window

    # -- firing

    def _fire(self, key: Any, due_ms: int, window: TriggeredWindow, fired: list[_Fired]) -> TriggeredWindow:
        """Note a result, if there is any content; return the window after it."""
        told = window.accumulators is None or (self._every.records is not None and window.records == 0)
        if not told and (self._changed is None or self._unmark(key, window)):
            fired.append((due_ms, key, window))
        return msgspec.structs.replace(window, accumulators=None if self._purge else window.accumulators, records=0)

    def _deliver(self, fired: list[_Fired], results: Results) -> None:
        wire = self._plan.key.wire
        fired.sort(key=lambda item: (item[0], wire(item[1]), item[2].end))
        for item in fired:
            self._add_result(results, item)

    def _add_result(self, results: Results, fired: _Fired) -> None:
        due_ms, key, window = fired
        row = self._plan.rows.row
        timestamp_ms = window.start if window.end == MAX_TIME else window.end - 1
        results.add(
            (key,), lambda low, high: [row(key, window.accumulators, window.start, window.end)], due_ms=due_ms, timestamp_ms=timestamp_ms
        )

    # -- what has changed since the last commit

    def _mark(self, key: Any, window: TriggeredWindow) -> None:
        assert self._changed is not None
        pane = self._changed.pane(0)
        starts = pane.get(key) or ()
        if not self._holds_any(window, starts):
            pane.put(key, (*starts, window.start))

    def _unmark(self, key: Any, window: TriggeredWindow) -> bool:
        assert self._changed is not None
        pane = self._changed.pane(0)
        starts = pane.get(key) or ()
        if not self._holds_any(window, starts):
            return False
        left = tuple(start for start in starts if not self._holds_any(window, (start,)))
        if left:
            pane.put(key, left)
        else:
            pane.delete(key)
        return True

    def _holds_any(self, window: TriggeredWindow, starts: tuple[int, ...]) -> bool:
        if isinstance(self._window, SessionWindow):
            return any(window.start <= start <= window.end for start in starts)
        return bool(starts) if isinstance(self._window, EverythingWindow) else window.start in starts

    # -- state

    def _load(self, key: Any) -> tuple[int | None, int | None, _Windows]:
        stored = self._cells.get(key)
        if stored is None:
            return None, None, ()
        indexed, walled, windows = stored
        return indexed, walled, tuple(TriggeredWindow(*window) for window in windows)

    def _store(self, key: Any, indexed: int | None, walled: int | None, windows: list[TriggeredWindow]) -> None:
        """Put the windows of a key, and enter it into the indexes where it must be earlier than it is.

        Args:
            indexed, walled: Times of its entries, None for none.
        """
        if not windows:
            if indexed is not None:
                self._index.delete(indexed, key)
            if walled is not None:
                self._wall.delete(walled, key)
            self._cells.delete(key)
            return
        first = min(map(self._next_action, windows))
        if first != MAX_TIME and (indexed is None or first < indexed):  # what ends with the input is found without an index
            if indexed is not None:
                self._index.delete(indexed, key)
            self._index.put(first, key, True)
            indexed = first
        by_wall = [window.due for window in windows if window.due is not None] if self._every.wall_clock_ms is not None else []
        if by_wall and (walled is None or min(by_wall) < walled):
            if walled is not None:
                self._wall.delete(walled, key)
            walled = min(by_wall)
            self._wall.put(walled, key, True)
        self._cells.put(key, (indexed, walled, tuple(msgspec.structs.astuple(window) for window in windows)))


__all__ = ["TriggeredWindow", "TriggeredWindows"]
