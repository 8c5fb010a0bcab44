"""Sessions that a record can end: `windows.session(gap, ends_with=...)`.

Which records come before and after the one that ends a session must not depend on their order of arrival, so records are held back
until the watermark reaches them, and taken in order of event time. A key has at most one open session then.

    session("30m", ends_with=is_logout)        x--x----L  x--x              two sessions, the first [x, L + 1 ms)

Records with the time of the one that ends a session are part of it. Unlike sessions without `ends_with`, two that only touch stay
apart: the first is closed when the watermark has passed all of its times, before the record at its end can have come.
"""

from collections.abc import Iterator
from typing import Any

from engine.agg.aggregate import tuple_type
from engine.agg.folding import Accumulators, payload_codec
from engine.block import Block
from engine.kept import kept_codec, refuse_unstorable
from engine.keys import key_codec
from engine.operators.base import Operator, OperatorContext
from engine.operators.window_plan import Results, SpanResult, WindowPlan, send_late
from engine.windows import SessionWindow, Span
from state.overlay import KeyedCells
from state.values import msgpack_codec, unit_codec

_Session = tuple[int, int, bool, Accumulators]  # start, end, whether a record has ended it, contents


class EndedSessions(Operator):
    """Records held back, and the open session of each key with its place in the index of closes."""

    def __init__(self, context: OperatorContext, plan: WindowPlan) -> None:
        super().__init__(context)
        window = plan.spec.window
        assert isinstance(window, SessionWindow)
        self._plan, self._window, self._folding = plan, window, plan.folding
        self._held = context.state.timed(context.state_name("held"), plan.key, kept_codec(plan.spec.value_type))
        self._arrivals = context.state.keyed(context.state_name("arrivals"), key_codec(str), msgpack_codec(int), merge=max)
        stored = payload_codec(tuple_type(int, tuple_type(int, int, bool, plan.folding.stored)))
        self._sessions: KeyedCells[Any, tuple[int, _Session]] = context.state.keyed(context.state_name("sessions"), plan.key, stored)
        self._closes = context.state.timed(context.state_name("closes"), plan.key, unit_codec)

    def process(self, block: Block, port: int = 0) -> None:
        self._hold(block)
        fired: list[SpanResult] = []
        self._release(block.watermark, fired)
        for time_ms, key, sub, _ in self._closes.due(block.watermark, "any"):
            self._closes.delete(time_ms, key, sub)
            _, session = self._sessions.get(key) or (0, None)
            if session is None:
                continue
            if _due_ms(session) <= block.watermark:
                self._fire(key, session, fired)
                self._sessions.delete(key)
            else:
                self._closes.put(_due_ms(session), key, True)
                self._sessions.put(key, (_due_ms(session), session))
        results = Results(self, block)
        results.add_spans(fired, self._plan.rows)
        results.finish()

    def inspect(self, key: Any) -> Iterator[tuple[str, Any]]:
        stored = self._sessions.get(key)
        if stored is not None:
            _, (start, end, _, accumulators) = stored
            yield str(start), self._plan.rows.row(key, accumulators, start, end)

    def _hold(self, block: Block) -> None:
        """Keep the records of a block until the watermark reaches them."""
        if self._plan.spec.value_type is Any:
            refuse_unstorable(block.values, "is held back by a session with ends_with=")
        self._folding.records(block.values)  # what raises for a record raises as it comes, not when its turn comes
        arrival = self._arrivals.get("") or 0
        held, late = 0, []
        for key, value, timestamp_ms, reached in zip(block.keys, block.values, block.timestamps, block.before, strict=True):
            if timestamp_ms <= reached:
                late.append((key, value, timestamp_ms, Span(timestamp_ms, timestamp_ms + self._window.gap_of(value)), reached))
                continue
            self._ends(value)
            self._window.gap_of(value)
            self._held.put(timestamp_ms, key, value, (arrival + held).to_bytes(8, "big"))
            held += 1
        if held:
            self._arrivals.put("", arrival + held)
        send_late(self.context, self._plan.spec.late_to, late)

    def _release(self, until: int, fired: list[SpanResult]) -> None:
        """Take the records up to a time into sessions, in order of event time and arrival."""
        careful = self.context.careful
        for timestamp_ms, key, arrival, value in self._held.due(until):
            self._held.delete(timestamp_ms, key, arrival)
            if not careful:
                self._take(key, timestamp_ms, value, fired)
                continue
            with self.context.firing(key, timestamp_ms, "record"):
                due: list[SpanResult] = []
                self._take(key, timestamp_ms, value, due)
                fired += due

    def _take(self, key: Any, timestamp_ms: int, value: Any, fired: list[SpanResult]) -> None:
        """Take one record whose turn it is."""
        end = timestamp_ms + self._window.gap_of(value)
        ends = self._ends(value)
        record = self._folding.records((value,))[0]
        indexed, session = self._sessions.get(key) or (None, None)
        if session is not None and timestamp_ms > _due_ms(session):
            self._fire(key, session, fired)
            session = None
        if session is None:
            session = (timestamp_ms, end, False, self._folding.create(timestamp_ms, record))
        else:
            accumulators = self._folding.add(session[3], timestamp_ms, record)
            session = (session[0], session[1] if session[2] else max(end, session[1]), session[2], accumulators)
        if ends and not session[2]:
            session = (session[0], timestamp_ms + 1, True, session[3])
        due_ms = _due_ms(session)
        if indexed is None or due_ms < indexed:
            if indexed is not None:
                self._closes.delete(indexed, key)
            indexed = due_ms
            self._closes.put(indexed, key, True)
        self._sessions.put(key, (indexed, session))

    def _ends(self, value: Any) -> bool:
        assert self._window.ends_with is not None
        return bool(self._window.ends_with(value))

    def _fire(self, key: Any, session: _Session, fired: list[SpanResult]) -> None:
        start, end, _, accumulators = session
        fired.append((_due_ms(session), self._plan.key.wire(key), key, start, end, accumulators))


def _due_ms(session: _Session) -> int:
    """Return the last time that is part of a session: it closes there."""
    return max(session[1] - 1, session[0])


__all__ = ["EndedSessions"]
