"""`in_event_time_order`: hold records back until the watermark passes them, and hand them on sorted by event time.

Ties keep the order of arrival. A late record has no place in the order any more: it is counted ("late_records") and dropped.
"""

from collections.abc import Callable
from typing import Any

from engine.block import Block
from engine.kept import kept_codec, refuse_unstorable
from engine.keys import key_codec
from engine.operators.base import Operator, OperatorContext, own_time
from state.values import msgpack_codec

_Entry = tuple[int, Any, Any]
"""Event time, key, value."""

_MOST = 10_000
"""So many records go on at once."""


class EventTimeOrder(Operator):
    """A sorted buffer, by event time and arrival, in state."""

    def __init__(self, context: OperatorContext, key_type: Any, value_type: Any) -> None:
        super().__init__(context)
        codec = key_codec(key_type)
        self.reach = own_time(by_time=True)
        self._untyped = value_type is Any
        self._held = context.state.timed(context.state_name("held"), codec, kept_codec(value_type))
        self._arrivals = context.state.keyed(context.state_name("arrivals"), key_codec(str), msgpack_codec(int), merge=max)

    def process(self, block: Block, port: int = 0) -> None:
        if self._untyped:
            refuse_unstorable(block.values, "is held back by in_event_time_order")
        arrival = self._arrivals.get("") or 0
        held = 0
        for key, value, timestamp_ms, before in zip(block.keys, block.values, block.timestamps, block.before, strict=True):
            if timestamp_ms <= before:
                self.context.count("late_records")
                continue
            self._held.put(timestamp_ms, key, value, arrival.to_bytes(8, "big"))
            arrival += 1
            held += 1
        if held:
            self._arrivals.put("", arrival)
        self._release(block)

    def _release(self, block: Block) -> None:
        start, careful = block.start, self.context.careful
        due: list[_Entry] = []
        for timestamp_ms, key, arrived, value in self._held.due(block.watermark, "sub"):
            self._held.delete(timestamp_ms, key, arrived)
            if careful:
                with self.context.firing(key, timestamp_ms):
                    self.emit(self._sorted([(timestamp_ms, key, value)], start, start))
                continue
            due.append((timestamp_ms, key, value))
            if len(due) == _MOST:
                reached = max(start, timestamp_ms - 1)
                self.emit(self._sorted(due, start, reached))
                start, due = reached, []
        self.emit(self._sorted(due, start, block.watermark))

    @staticmethod
    def _sorted(due: list[_Entry], start: int, watermark: int) -> Block:
        timestamps = [entry[0] for entry in due]
        before = [max(start, timestamp_ms - 1) for timestamp_ms in timestamps]
        return Block([entry[1] for entry in due], [entry[2] for entry in due], timestamps, start, watermark, before)


def event_time_order_operator(key_type: Any, value_type: Any) -> Callable[[OperatorContext], Operator]:
    """Return what makes the operator for a task."""
    return lambda context: EventTimeOrder(context, key_type, value_type)
