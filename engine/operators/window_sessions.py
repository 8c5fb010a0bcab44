"""Sessions without a trigger: keys at a time.

State of a key: (time of its entry in the index of closes, its open sessions by start). One entry a key stands in the index, at or
before the time at which the first of its sessions closes. A session that grows moves its close, but not the entry: when that comes
due, it is put back at the session's real close. So a record of a running session touches one cell.

Keys do not see each other, so the records of a key in a block are taken together. Unless one of its sessions may close within the
block, nothing depends on the time between them, and the watermarks before single records are not looked at. What fires is put in
order of time and key at the end: a session that a record opened or extended closes after that record, so this is the order of the
loop in `engine.block`.
"""

from collections.abc import Iterator
from typing import Any

from engine.agg.folding import Accumulators, payload_codec
from engine.block import Block
from engine.operators.base import Operator, OperatorContext
from engine.operators.window_plan import Results, WindowPlan, send_late
from engine.windows import SessionWindow, Span
from state.values import msgpack_codec, unit_codec

_Session = tuple[int, int, Accumulators]
_Fired = tuple[int, Any, _Session]  # when, key, session


class SessionWindows(Operator):
    """Session windows; `emit="close"` and `"update"`."""

    def __init__(self, context: OperatorContext, plan: WindowPlan) -> None:
        super().__init__(context)
        spec = plan.spec
        assert isinstance(spec.window, SessionWindow)
        self._plan, self._window, self._folding = plan, spec.window, plan.folding
        self._delay_ms = spec.lateness_ms - 1  # from a session's end to when it closes
        stored = payload_codec(tuple[int, tuple[tuple[int, int, plan.folding.stored], ...]])
        self._sessions = context.state.keyed(context.state_name("sessions"), plan.key, stored)
        self._closes = context.state.timed(context.state_name("closes"), plan.key, unit_codec)
        # For "update": starts of the sessions of each key that have changed since the last commit; emptied with each commit.
        changed = msgpack_codec(tuple[int, ...])
        self._changed = context.state.panes(context.state_name("changed"), plan.key, changed) if spec.emit == "update" else None
        self._watermark: int | None = None

    def process(self, block: Block, port: int = 0) -> None:
        fired: list[_Fired] = []
        late: list[tuple[int, int]] = []  # row, gap
        due = self._due(block.watermark)
        if len(block):
            self._take(block, due, fired, late)
        for key in due:
            _, sessions = self._sessions.get(key) or (0, ())
            left = list(sessions)
            self._close(key, left, block.watermark, fired)
            self._put(key, None, left)
        if late:
            self._send_late(block, late)
        self._watermark = block.watermark
        self._give(block, fired)

    def before_commit(self) -> None:
        if self._changed is None or self._watermark is None:
            return
        pane = self._changed.pane(0)
        changed = pane.items()
        if not changed:
            return
        pane.drop()
        found: list[_Fired] = []
        for key, starts in changed:
            _, sessions = self._sessions.get(key) or (0, ())
            found += [(self._watermark, key, session) for session in sessions if _holds_any(session, starts)]
        wire = self._plan.key.wire
        found.sort(key=lambda item: (item[2][1], wire(item[1])))
        block = Block((), (), (), self._watermark, self._watermark, ())
        results = Results(self, block)
        for item in found:
            self._add_result(results, item)
        results.finish()

    def inspect(self, key: Any) -> Iterator[tuple[str, Any]]:
        _, sessions = self._sessions.get(key) or (0, ())
        for start, end, accumulators in sessions:
            yield str(start), self._plan.rows.row(key, accumulators, start, end)

    # -- taking records

    def _due(self, until: int) -> dict[Any, int]:
        """Take the keys whose entry in the index is due out of it; what is left of them is entered again."""
        closes = self._closes
        first = closes.next_time()
        if first is None or first > until:
            return {}
        due = {}
        for time_ms, key, sub, _ in closes.due(until):
            closes.delete(time_ms, key, sub)
            due[key] = time_ms
        return due

    def _take(self, block: Block, due: dict[Any, int], fired: list[_Fired], late: list[tuple[int, int]]) -> None:
        keys, values, timestamps = block.keys, block.values, block.timestamps
        columns = self._folding.columns(values)
        inputs = list(zip(*columns, strict=True)) if columns else [()] * len(keys)
        gap = self._window.gap_ms
        gaps = list(map(self._window.gap_of, values)) if callable(gap) else [gap] * len(keys)
        calm = min(timestamps) + (min(gaps) if callable(gap) else gap) + self._delay_ms > block.watermark
        rows_of: dict[Any, list[int]] = {}
        for row, key in enumerate(keys):
            rows = rows_of.get(key)
            if rows is None:
                rows_of[key] = [row]
            else:
                rows.append(row)
        get, insert, update = self._sessions.get, self._insert, self._changed is not None
        for key, rows in rows_of.items():
            indexed, stored = get(key) or (None, ())
            if key in due:
                indexed = None
                del due[key]
            elif calm:
                sessions = list(stored)
                for row in rows:
                    start = timestamps[row]
                    insert(sessions, start, start + gaps[row], inputs[row])
                self._put(key, indexed, sessions)
                if update:
                    self._mark(key, [timestamps[row] for row in rows], sessions)
                continue
            sessions = list(stored)
            self._take_careful(block, key, rows, gaps, inputs, sessions, fired, late)
            self._put(key, indexed, sessions)

    def _take_careful(
        self,
        block: Block,
        key: Any,
        rows: list[int],
        gaps: list[int],
        inputs: list[tuple[Any, ...]],
        sessions: list[_Session],
        fired: list[_Fired],
        late: list[tuple[int, int]],
    ) -> None:
        """Take the records of a key one by one, and close its sessions in between."""
        before, timestamps, delay_ms = block.before, block.timestamps, self._delay_ms
        for row in rows:
            reached = before[row]
            self._close(key, sessions, reached, fired)
            start = timestamps[row]
            end = start + gaps[row]
            if end + delay_ms <= reached and not any(left <= end and start <= right for left, right, _ in sessions):
                late.append((row, gaps[row]))
                continue
            self._insert(sessions, start, end, inputs[row])
            if self._changed is not None:
                self._mark(key, [start], sessions)
        self._close(key, sessions, block.watermark, fired)

    def _insert(self, sessions: list[_Session], start: int, end: int, record: tuple[Any, ...]) -> None:
        """Add a record to the session that it touches; join those that it connects."""
        low = 0
        while low < len(sessions) and sessions[low][1] < start:
            low += 1
        high = low
        while high < len(sessions) and sessions[high][0] <= end:
            high += 1
        if low == high:
            sessions.insert(low, (start, end, self._folding.create(start, *record)))
            return
        left, right, accumulators = sessions[low]
        for other in range(low + 1, high):
            right = sessions[other][1]
            accumulators = self._folding.merge(accumulators, sessions[other][2])
        accumulators = self._folding.add(accumulators, start, *record)
        sessions[low:high] = [(start if start < left else left, end if end > right else right, accumulators)]

    def _put(self, key: Any, indexed: int | None, sessions: list[_Session]) -> None:
        """Store the sessions of a key.

        Args:
            indexed: Time of the key's entry in the index, None if it has none.
        """
        if not sessions:
            if indexed is not None:
                self._closes.delete(indexed, key)
            self._sessions.delete(key)
            return
        first = sessions[0][1] + self._delay_ms
        if indexed is None or first < indexed:
            if indexed is not None:
                self._closes.delete(indexed, key)
            self._closes.put(first, key, True)
            indexed = first
        self._sessions.put(key, (indexed, tuple(sessions)))

    def _mark(self, key: Any, starts: list[int], sessions: list[_Session]) -> None:
        """Note that the sessions which hold some times have changed since the last commit."""
        assert self._changed is not None
        pane = self._changed.pane(0)
        marks = [*(pane.get(key) or ()), *starts]
        pane.put(key, tuple(session[0] for session in sessions if _holds_any(session, marks)))

    # -- firing

    def _close(self, key: Any, sessions: list[_Session], until: int, fired: list[_Fired]) -> None:
        """Take the sessions out that are due, earliest first."""
        while sessions and sessions[0][1] + self._delay_ms <= until:
            session = sessions.pop(0)
            if self._changed is None or self._unmark(key, session):
                fired.append((session[1] + self._delay_ms, key, session))

    def _unmark(self, key: Any, session: _Session) -> bool:
        """Return whether a session has changed since the last commit, and forget that."""
        assert self._changed is not None
        pane = self._changed.pane(0)
        starts = pane.get(key) or ()
        if not _holds_any(session, starts):
            return False
        left = tuple(start for start in starts if not session[0] <= start <= session[1])
        if left:
            pane.put(key, left)
        else:
            pane.delete(key)
        return True

    def _give(self, block: Block, fired: list[_Fired]) -> None:
        results = Results(self, block)
        if fired:
            wire = self._plan.key.wire
            fired.sort(key=lambda item: (item[0], wire(item[1])))
            for item in fired:
                self._add_result(results, item)
        results.finish()

    def _add_result(self, results: Results, fired: _Fired) -> None:
        due_ms, key, (start, end, accumulators) = fired
        row = self._plan.rows.row
        results.add((key,), lambda low, high: [row(key, accumulators, start, end)], due_ms=due_ms, timestamp_ms=end - 1)

    def _send_late(self, block: Block, late: list[tuple[int, int]]) -> None:
        late.sort()
        before, timestamps = block.before, block.timestamps
        records = [
            (block.keys[row], block.values[row], timestamps[row], Span(timestamps[row], timestamps[row] + gap), before[row])
            for row, gap in late
        ]
        send_late(self.context, self._plan.spec.late_to, records)


def _holds_any(session: _Session, times: Any) -> bool:
    return any(session[0] <= time_ms <= session[1] for time_ms in times)


__all__ = ["SessionWindows"]
