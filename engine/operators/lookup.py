"""A stream looks into a table: `lookup` for the value of now, `as_of` for the value at the record's event time.

    table      ann: Paris (valid from 10)         ann: Rome (from 50)
    record     ann at 40, arriving after both

    lookup     Rome: what the table holds when the record comes
    as_of      Paris: what it held at 40

`lookup` follows the stream's time alone. `as_of` holds a record back until the watermark of both sides has reached its time, since
an earlier change of the table may still be under way; it gives records on by event time, ties by arrival. A side that is idle is
not waited for. A late record is looked up at once; beyond the retention of the history the answer is not known: it is counted
("before_history") and counts as no match.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from heapq import merge
from typing import TYPE_CHECKING, Any, Literal, cast

from engine.agg.folding import payload_codec
from engine.block import Block
from engine.keys import key_codec
from engine.operators.base import Operator, OperatorContext, own_time
from engine.operators.merge import MergedTime
from engine.operators.table import RowsOperator, Step, TableView
from engine.operators.undeclared import refuse_structs
from state.values import msgpack_codec

if TYPE_CHECKING:
    from engine.graph import Node
    from engine.run import NodeContext

LookupHow = Literal["inner", "left"]
_Entry = tuple[int, Any, bytes, tuple[Any]]
"""Event time, key, number of arrival, value."""
_TIME_AND_ARRIVAL = operator.itemgetter(0, 2)


class Lookup(Operator):
    """Join each record with the present row of its key, or of the key that `on` reads from it."""

    def __init__(self, context: OperatorContext, view: TableView, how: LookupHow, on: Step | None) -> None:
        super().__init__(context)
        self._view, self._inner, self._on = view, how == "inner", on

    def process(self, block: Block, port: int = 0) -> None:
        current = self._view.current
        keys = block.keys if self._on is None else list(map(self._on, block.values))
        found = [None if key is None else current(key) for key in keys]
        pairs = list(zip(block.values, found, strict=True))
        if not self._inner or None not in found:
            self.emit(block.replace(values=pairs))
            return
        matched = [index for index, row in enumerate(found) if row is not None]
        self.context.count("unmatched_records", len(pairs) - len(matched))
        self.emit(block.take(matched).replace(values=[pairs[index] for index in matched]))


class AsOf(Operator):
    """Join each record (port 0) with the row as it was at its time; port 1, the table's changes, only tells the time."""

    def __init__(self, context: OperatorContext, view: TableView, how: LookupHow, key_type: Any, value_type: Any) -> None:
        super().__init__(context)
        self._time = MergedTime(cast("NodeContext", context), 2)
        assert isinstance(view.operator, RowsOperator)
        self._table = view.operator
        self._rows = self._table.read_by(lambda: self._time.watermark)
        self._view, self._inner, self._untyped = view, how == "inner", value_type is Any
        stored = payload_codec(tuple.__class_getitem__((value_type,)))
        self.reach = own_time()
        self._held = context.state.timed(context.state_name("held"), key_codec(key_type), stored)
        self._arrivals = context.state.keyed(context.state_name("arrivals"), key_codec(str), msgpack_codec(int), merge=max)

    def process(self, block: Block, port: int = 0) -> None:
        block = self._time.merge(block, port)
        out = _Pairs()
        if port == 0:
            if self._untyped:
                refuse_structs(block.values, "is held back by as_of")
            self._take(block, out)
        self._release(block.watermark, block.start, out)
        self.emit(out.block(block.start, block.watermark))
        self._table.expire()

    def rolled_back(self) -> None:
        self._time.rolled_back()

    def _take(self, block: Block, out: "_Pairs") -> None:
        """Hold back what is not due by the end of the block, and join the rest."""
        arrival = first = self._arrivals.get("") or 0
        if any(map(operator.le, block.timestamps, block.before)):
            arrival = self._take_with_late(block, arrival, out)
        else:
            due: list[_Entry] = []
            reached, hold = block.watermark, self._held.put
            for key, value, timestamp_ms in zip(block.keys, block.values, block.timestamps, strict=True):
                arrived = arrival.to_bytes(8, "big")
                arrival += 1
                if timestamp_ms <= reached:
                    due.append((timestamp_ms, key, arrived, (value,)))
                else:
                    hold(timestamp_ms, key, (value,), arrived)
            self._release(reached, block.start, out, due)
        if arrival > first:
            self._arrivals.put("", arrival)

    def _take_with_late(self, block: Block, arrival: int, out: "_Pairs") -> int:
        """Do the same record by record: a late one comes out in its place between the others."""
        for key, value, timestamp_ms, before in zip(block.keys, block.values, block.timestamps, block.before, strict=True):
            self._release(before, block.start, out)
            if timestamp_ms > before:
                self._held.put(timestamp_ms, key, (value,), arrival.to_bytes(8, "big"))
                arrival += 1
            else:
                self._join(key, value, timestamp_ms, before, before, out)
        return arrival

    def _release(self, watermark: int, start: int, out: "_Pairs", new: "Sequence[_Entry]" = ()) -> None:
        """Join what is due: of what was held back, and of what is new."""
        first = self._held.next_time()
        if not new and (first is None or first > watermark):
            return
        due = merge(self._take_held(watermark), sorted(new, key=_TIME_AND_ARRIVAL), key=_TIME_AND_ARRIVAL)
        if self.context.careful:
            self.emit(out.block(start, start))  # a firing that is undone must not take these along
            out.clear()
        for timestamp_ms, key, _, (value,) in due:
            if not self.context.careful:
                self._join(key, value, timestamp_ms, max(start, timestamp_ms - 1), timestamp_ms, out)
                continue
            with self.context.firing(key, timestamp_ms, "as_of"):
                single = _Pairs()
                self._join(key, value, timestamp_ms, start, timestamp_ms, single)
                self.emit(single.block(start, start))

    def _take_held(self, watermark: int) -> Iterator[_Entry]:
        """Yield what has been held back up to a time, by time and arrival, and keep it no longer."""
        for entry in self._held.due(watermark, "sub"):
            self._held.delete(*entry[:3])
            yield entry

    def _join(self, key: Any, value: Any, timestamp_ms: int, before: int, reached: int, out: "_Pairs") -> None:
        if timestamp_ms < reached - self._rows.retention_ms:
            self.context.count("before_history")
            row = None
        else:
            row = self._view.shape(self._rows.at(key, timestamp_ms))
        if row is None and self._inner:
            self.context.count("unmatched_records")
            return
        out.add(key, (value, row), timestamp_ms, before)


class _Pairs:
    """Columns of what comes out."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin new columns; the old ones have been given out."""
        self._keys: list[Any] = []
        self._values: list[Any] = []
        self._timestamps: list[int] = []
        self._before: list[int] = []

    def add(self, key: Any, value: Any, timestamp_ms: int, before: int) -> None:
        """Add one record."""
        self._keys.append(key)
        self._values.append(value)
        self._timestamps.append(timestamp_ms)
        self._before.append(before)

    def block(self, start: int, watermark: int) -> Block:
        """Return the records as a block."""
        return Block(self._keys, self._values, self._timestamps, start, watermark, self._before)


def lookup_operator(origin: "Node", steps: Sequence[Step], how: LookupHow, on: Step | None) -> Callable[[OperatorContext], Operator]:
    """Return what makes a `Lookup` for a task."""
    return lambda context: Lookup(context, TableView(context, origin, steps), how, on)


def as_of_operator(
    origin: "Node", steps: Sequence[Step], how: LookupHow, key_type: Any, value_type: Any
) -> Callable[[OperatorContext], Operator]:
    """Return what makes an `AsOf` for a task."""
    return lambda context: AsOf(context, TableView(context, origin, steps), how, key_type, value_type)


__all__ = ["AsOf", "Lookup", "LookupHow", "as_of_operator", "lookup_operator"]
