"""Sessions without a trigger: keys at a time.

State of a key: (pane of its entry in the index of closes, its open sessions by start). One entry a key stands in the index, at or
before the time at which the first of its sessions closes (`engine.operators.close_index`). So a record of a running session touches
one cell.

Blocks whose records cannot touch a closed session, which is nearly all, are worked on as a whole (`engine.operators.session_blocks`).
What follows is for the others, and for `emit="update"`. Keys do not see each other. As long as no session of its key can close
within the block, a record is taken without a look at the watermark before it. What fires is put in order of time and key at the
end: a session that a record opened or extended closes after that record, so this is the order of the loop in `engine.block`.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from operator import add, itemgetter
from typing import Any

from engine.agg.aggregate import tuple_type
from engine.agg.folding import payload_codec
from engine.block import Block
from engine.operators.base import Operator, OperatorContext
from engine.operators.close_index import CloseIndex, pane_width_ms
from engine.operators.session_blocks import Session, SessionBlocks, StoredSessions, is_quick
from engine.operators.window_plan import Results, SpanResult, WindowPlan, send_late
from engine.windows import SessionWindow, Span
from state.overlay import KeyedCells
from state.values import msgpack_codec, unit_codec

_NEVER = -(2**70)


class SessionWindows(Operator):
    """Session windows; `emit="close"` and `"update"`."""

    def __init__(self, context: OperatorContext, plan: WindowPlan) -> None:
        super().__init__(context)
        spec = plan.spec
        assert isinstance(spec.window, SessionWindow)
        self._plan, self._window, self._folding = plan, spec.window, plan.folding
        self._delay_ms = spec.lateness_ms - 1  # from a session's end to when it closes
        accumulators = plan.folding.stored
        stored = payload_codec(tuple_type(int, int, int, accumulators, tuple_type(tuple_type(int, int, accumulators), ...)))
        self._sessions: KeyedCells[Any, StoredSessions] = context.state.keyed(context.state_name("sessions"), plan.key, stored)
        closes = context.state.panes(context.state_name("closes"), plan.key, unit_codec)
        self._closes = CloseIndex(closes, pane_width_ms(spec.window.gap_ms), self._sessions.read)
        # For "update": starts of the sessions of each key that have changed since the last commit; emptied with each commit.
        changed = msgpack_codec(tuple[int, ...])
        self._changed = context.state.panes(context.state_name("changed"), plan.key, changed) if spec.emit == "update" else None
        self._watermark: int | None = None
        self._blocks = SessionBlocks(self._sessions, self._closes, plan.folding, self._insert, plan.key.wire, self._delay_ms)

    def process(self, block: Block, port: int = 0) -> None:
        if self._changed is None and is_quick(block, self._delay_ms):
            fired = self._blocks.process(block, list(map(add, block.timestamps, self._gaps(block.values))))
        else:
            fired = self._process_carefully(block)
        self._watermark = block.watermark
        results = Results(self, block)
        results.add_spans(fired, self._plan.rows)
        results.finish()

    def _process_carefully(self, block: Block) -> list[SpanResult]:
        """Look at the watermark before each record that it may matter to."""
        fired: list[SpanResult] = []
        touched: dict[Any, StoredSessions] = {}
        unsettled: dict[Any, None] = {}
        if len(block):
            self._take(block, touched, unsettled, fired)
        self._settle(block.watermark, touched, unsettled, fired)
        self._store(touched)
        return fired

    def before_commit(self) -> None:
        if self._changed is None or self._watermark is None:
            return
        pane = self._changed.pane(0)
        changed = pane.items()
        if not changed:
            return
        pane.drop()
        wire, watermark = self._plan.key.wire, self._watermark
        found = [
            (watermark, wire(key), key, *session)
            for key, starts in changed
            for session in _sessions_of(self._sessions.get(key))
            if _holds_any(session, starts)
        ]
        found.sort(key=itemgetter(4, 1))
        results = Results(self, Block((), (), (), watermark, watermark, ()))
        results.add_spans(found, self._plan.rows, ordered=True)
        results.finish()

    def rolled_back(self) -> None:
        self._closes.forget()

    def inspect(self, key: Any) -> Iterator[tuple[str, Any]]:
        for start, end, accumulators in _sessions_of(self._sessions.get(key)):
            yield str(start), self._plan.rows.row(key, accumulators, start, end)

    # -- taking records

    def _take(self, block: Block, touched: dict[Any, StoredSessions], unsettled: dict[Any, None], fired: list[SpanResult]) -> None:
        """Take the records of a block in the order of their arrival.

        Args:
            touched: Takes what is to be stored for each key.
            unsettled: Takes the keys of which a session may close within this block and need not have an entry that is due.
        """
        timestamps = block.timestamps
        gaps = self._gaps(block.values)
        rows = enumerate(zip(block.keys, timestamps, gaps, self._folding.records(block.values), strict=True))
        late: list[tuple[int, int]] = []
        safe = block.watermark - self._delay_ms  # a session that ends later does not close within this block
        known, get, create, mark = touched.get, self._sessions.get, self._folding.create, self._changed is not None
        include = self._folding.add
        for row, (key, start, gap, record) in rows:
            end = start + gap
            stored = known(key) or get(key)
            if stored is not None and stored[2] > safe:
                indexed, left, right, accumulators, others = stored
                if left <= end and start <= right and not others:
                    left, right = start if start < left else left, end if end > right else right
                    touched[key] = (indexed, left, right, include(accumulators, start, record), others)
                    if mark:
                        self._mark(key, start, _sessions_of(touched[key]))
                    continue
            elif stored is None and end > safe:
                touched[key] = (None, start, end, create(start, record), ())
                if mark:
                    self._mark(key, start, _sessions_of(touched[key]))
                continue
            sessions = _sessions_of(stored)
            indexed = None if stored is None else stored[0]
            if end <= safe or (sessions and sessions[0][1] <= safe):
                reached = block.before[row]
                if self._close(key, sessions, reached, fired):
                    self._leave_index(indexed, key)
                    indexed = None
                unsettled[key] = None
                if end + self._delay_ms <= reached and not any(left <= end and start <= right for left, right, _ in sessions):
                    late.append((row, gap))
                    touched[key] = _stored(indexed, sessions)
                    continue
            self._insert(sessions, start, end, record)
            touched[key] = _stored(indexed, sessions)
            if mark:
                self._mark(key, start, _sessions_of(touched[key]))
        self._send_late(block, late)

    def _gaps(self, values: Sequence[Any]) -> Iterable[int]:
        gap_ms = self._window.gap_ms
        return list(map(self._window.gap_of, values)) if callable(gap_ms) else repeat(gap_ms, len(values))

    def _settle(self, until: int, touched: dict[Any, StoredSessions], unsettled: dict[Any, None], fired: list[SpanResult]) -> None:
        """Close what is due at the end of a block, and take the entries that are due out of the index."""

        def close_of(key: Any) -> int:
            return _sessions_of(touched.get(key) or self._sessions.get(key))[0][1] + self._delay_ms

        for key in self._closes.take(until, close_of):
            touched[key] = _stored(None, _sessions_of(touched.get(key) or self._sessions.get(key)))
            unsettled[key] = None
        for key in unsettled:
            sessions = _sessions_of(touched[key])
            indexed = touched[key][0]
            if self._close(key, sessions, until, fired):
                self._leave_index(indexed, key)
                indexed = None
            touched[key] = _stored(indexed, sessions)

    def _leave_index(self, indexed: int | None, key: Any) -> None:
        """Take a key out of the index where its entry was for a session that has closed."""
        if indexed is not None:
            self._closes.delete(indexed, key)

    def _store(self, touched: dict[Any, StoredSessions]) -> None:
        """Store the sessions of keys, and enter them into the index where their entry must be earlier than it is."""
        put, closes, delay_ms = self._sessions.put, self._closes, self._delay_ms
        entered: dict[int, list[Any]] = {}
        for key, stored in touched.items():
            indexed, end = stored[0], stored[2]
            if end == _NEVER:
                assert indexed is None, "its last session has closed, and the entry has gone with it"
                put(key, None)
                continue
            pane = closes.pane_of(end + delay_ms)
            if indexed is None or pane < indexed:
                self._leave_index(indexed, key)
                entered.setdefault(pane, []).append(key)
                put(key, (pane, *stored[1:]))
            else:
                if stored[4]:
                    closes.look_at(indexed, key, end + delay_ms)
                put(key, stored)
        closes.enter(entered)

    def _insert(self, sessions: list[Session], start: int, end: int, record: tuple[Any, ...]) -> None:
        """Add a record to the session that it touches; join those that it connects."""
        low = 0
        while low < len(sessions) and sessions[low][1] < start:
            low += 1
        high = low
        while high < len(sessions) and sessions[high][0] <= end:
            high += 1
        if low == high:
            sessions.insert(low, (start, end, self._folding.create(start, record)))
            return
        left, right, accumulators = sessions[low]
        for other in range(low + 1, high):
            right = sessions[other][1]
            accumulators = self._folding.merge(accumulators, sessions[other][2])
        accumulators = self._folding.add(accumulators, start, record)
        sessions[low:high] = [(start if start < left else left, end if end > right else right, accumulators)]

    def _mark(self, key: Any, time_ms: int, sessions: Sequence[Session]) -> None:
        """Note that the session which holds a time has changed since the last commit."""
        assert self._changed is not None
        pane = self._changed.pane(0)
        marks = (*(pane.get(key) or ()), time_ms)
        pane.put(key, tuple(session[0] for session in sessions if _holds_any(session, marks)))

    # -- firing

    def _close(self, key: Any, sessions: list[Session], until: int, fired: list[SpanResult]) -> bool:
        """Take the sessions out that are due, earliest first; return whether there were any."""
        before = len(sessions)
        while sessions and sessions[0][1] + self._delay_ms <= until:
            session = sessions.pop(0)
            if self._changed is None or self._unmark(key, session):
                fired.append((session[1] + self._delay_ms, self._plan.key.wire(key), key, *session))
        return len(sessions) < before

    def _unmark(self, key: Any, session: Session) -> bool:
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

    def _send_late(self, block: Block, late: list[tuple[int, int]]) -> None:
        if not late:
            return
        before, timestamps = block.before, block.timestamps
        records = [
            (block.keys[row], block.values[row], timestamps[row], Span(timestamps[row], timestamps[row] + gap), before[row])
            for row, gap in late
        ]
        send_late(self.context, self._plan.spec.late_to, records)


def _sessions_of(stored: StoredSessions | None) -> list[Session]:
    """Return the sessions that are stored."""
    return [] if stored is None or stored[2] == _NEVER else [(stored[1], stored[2], stored[3]), *stored[4]]


def _stored(indexed: int | None, sessions: Sequence[Session]) -> StoredSessions:
    """Return what is to be stored; a session that ends never stands for none."""
    return (indexed, *sessions[0], tuple(sessions[1:])) if sessions else (indexed, 0, _NEVER, (), ())


def _holds_any(session: Session, times: Any) -> bool:
    return any(session[0] <= time_ms <= session[1] for time_ms in times)


__all__ = ["SessionWindows"]
