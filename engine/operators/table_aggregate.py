"""Aggregates over the rows of a table, by group: what a row adds is taken back when it changes, moves to another group, or goes.

change of ann's row            groups by country, count()
(None, FR)                     FR (None, 1)
(FR, IT)                       FR (1, None)     IT (None, 1)        a group without rows has no result
"""

from collections.abc import Iterator
from typing import Any

from engine.agg.folding import payload_codec
from engine.agg.retracting import RetractingFolding
from engine.block import Block
from engine.errors import RecordError
from engine.keys import key_codec
from engine.operators.base import OperatorContext
from engine.operators.rows import HeldRows
from engine.operators.table import TableOperator
from state.values import msgpack_codec, raw_codec


class TableAggregate(TableOperator):
    """Groups: (number of rows, accumulators)."""

    def __init__(self, context: OperatorContext, folding: RetractingFolding, key_type: Any) -> None:
        super().__init__(context)
        codec = key_codec(key_type)
        stored = payload_codec(tuple.__class_getitem__((int, folding.stored)))
        self._folding = folding
        self._groups = context.state.panes(context.state_name("groups"), codec, stored)
        self._values = context.state.mapped(context.state_name("values"), codec, raw_codec, msgpack_codec(int))

    def current(self, key: Any) -> Any:
        group = self._groups.pane(0).get(key)
        return None if group is None else self._folding.row(key, group[1])

    def held(self) -> HeldRows:
        return HeldRows(self._groups.pane(0), lambda key, group: self._folding.row(key, group[1]))

    def process(self, block: Block, port: int = 0) -> None:
        pane, folding, cells = self._groups.pane(0), self._folding, self._values
        indexes: list[int] = []
        changes: list[tuple[Any, Any]] = []
        for index, (key, (old, new)) in enumerate(zip(block.keys, block.values, strict=True)):
            group = pane.get(key)
            number, accumulators = group or (0, folding.empty)
            if old is not None:
                if not number:
                    raise RecordError("a row leaves a group that it was never added to: adding it must have failed before")
                number, accumulators = number - 1, folding.change(accumulators, old, False, cells, key)
            if new is not None:
                number, accumulators = number + 1, folding.change(accumulators, new, True, cells, key)
            before = None if group is None else folding.row(key, group[1])
            after = folding.row(key, accumulators) if number else None
            if number:
                pane.put(key, (number, accumulators))
            else:
                pane.delete(key)
            if before != after:
                indexes.append(index)
                changes.append((before, after))
        self.emit(block.take(indexes).replace(values=changes))

    def inspect(self, key: Any) -> Iterator[tuple[str, Any]]:
        yield "value", self.current(key)


__all__ = ["TableAggregate"]
