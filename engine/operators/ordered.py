"""`in_event_time_order`: hold records back until the watermark passes them, and hand them on sorted by event time.

Ties keep the order of arrival. A late record has no place in the order any more: it is counted ("late_records") and dropped.
"""

from collections.abc import Callable
from typing import Any

from engine.block import Block
from engine.keys import key_codec
from engine.operators.base import Operator, OperatorContext, own_time
from state.values import msgpack_codec


class EventTimeOrder(Operator):
    """A sorted buffer, by event time and arrival, in state."""

    def __init__(self, context: OperatorContext, key_type: Any, value_type: Any) -> None:
        super().__init__(context)
        codec = key_codec(key_type)
        self.reach = own_time(by_time=True)
        self._held = context.state.timed(context.state_name("held"), codec, msgpack_codec(value_type))
        self._arrivals = context.state.keyed(context.state_name("arrivals"), key_codec(str), msgpack_codec(int), merge=max)

    def process(self, block: Block, port: int = 0) -> None:
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
        due = self._held.due(block.watermark)
        due.sort(key=lambda entry: (entry[0], entry[2]))
        for timestamp_ms, key, arrived, _ in due:
            self._held.delete(timestamp_ms, key, arrived)
        if not self.context.careful:
            self.emit(self._sorted(due, block.start, block.watermark))
            return
        for entry in due:
            with self.context.firing(entry[1], entry[0]):
                self.emit(self._sorted([entry], block.start, block.start))
        self.emit(self._sorted([], block.start, block.watermark))

    @staticmethod
    def _sorted(due: list[tuple[int, Any, bytes, Any]], start: int, watermark: int) -> Block:
        timestamps = [entry[0] for entry in due]
        before = [max(start, timestamp_ms - 1) for timestamp_ms in timestamps]
        return Block([entry[1] for entry in due], [entry[3] for entry in due], timestamps, start, watermark, before)


def event_time_order_operator(key_type: Any, value_type: Any) -> Callable[[OperatorContext], Operator]:
    """Return what makes the operator for a task."""
    return lambda context: EventTimeOrder(context, key_type, value_type)
