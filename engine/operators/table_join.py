"""Table to table join by key: a row of both for each key that both have (`inner`), or that one of them has.

    left  ann: Paris                        right  ann: 500
    out   (None, (Paris, 500)) when the second of them comes; ((Paris, 500), None) when the first of them goes

Each side is kept here, in the order in which its changes came in. So what goes out as old is always what went out as new before,
also when both sides come from one source (a table joined with itself).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, cast

from engine.block import Block
from engine.keys import key_codec
from engine.operators.base import OperatorContext
from engine.operators.merge import MergedTime
from engine.operators.rows import HeldRows
from engine.operators.table import TableOperator
from engine.operators.undeclared import refuse_structs
from engine.operators.upgrading import Upgrade, upgraded

if TYPE_CHECKING:
    from engine.run import NodeContext

TableHow = Literal["inner", "left", "right", "outer"]
Upgrades = tuple[Upgrade | None, Upgrade | None]
"""How rows of the left and of the right are upgraded."""

_Sides = tuple[Any, Any]


class TableJoin(TableOperator):
    """Rows of both sides by key."""

    def __init__(self, context: OperatorContext, how: TableHow, key_type: Any, types: tuple[Any, Any], upgrades: Upgrades) -> None:
        super().__init__(context)
        self._time = MergedTime(cast("NodeContext", context), 2)
        self._alone = (how in ("left", "outer"), how in ("right", "outer"))
        self._untyped = tuple(value_type is Any for value_type in types)
        kept = tuple(value_type if value_type is Any else value_type | None for value_type in types)
        self._sides = context.state.panes(context.state_name("sides"), key_codec(key_type), upgraded(kept, dict(enumerate(upgrades))))

    def current(self, key: Any) -> Any:
        return self._shown(self._sides.pane(0).get(key) or (None, None))

    def held(self) -> HeldRows:
        return HeldRows(self._sides.pane(0), lambda _, sides: self._shown(sides))

    def process(self, block: Block, port: int = 0) -> None:
        block = self._time.merge(block, port)
        pane = self._sides.pane(0)
        indexes: list[int] = []
        changes: list[tuple[Any, Any]] = []
        for index, (key, change) in enumerate(zip(block.keys, block.values, strict=True)):
            if self._untyped[port]:
                refuse_structs(change, "is kept by a join")
            before: _Sides = pane.get(key) or (None, None)
            after: _Sides = (change[1], before[1]) if port == 0 else (before[0], change[1])
            if after == (None, None):
                pane.delete(key)
            else:
                pane.put(key, after)
            shown = (self._shown(before), self._shown(after))
            if shown != (None, None):
                indexes.append(index)
                changes.append(shown)
        self.emit(block.take(indexes).replace(values=changes))

    def rolled_back(self) -> None:
        self._time.rolled_back()

    def inspect(self, key: Any) -> Iterator[tuple[str, Any]]:
        yield "value", self.current(key)

    def _shown(self, sides: _Sides) -> Any:
        left, right = sides
        if left is None and right is None:
            return None
        if (right is None and not self._alone[0]) or (left is None and not self._alone[1]):
            return None
        return sides


__all__ = ["TableHow", "TableJoin", "Upgrades"]
