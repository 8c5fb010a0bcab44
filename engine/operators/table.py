"""Tables: keyed state that hands on what changes in it. A record between the operators of a table is a pair (old, new).

    records    ann: Paris        ann: Rome          ann: None
    changes    (None, Paris)     (Paris, Rome)      (Rome, None)

Because the old value goes along, whoever comes after can take back what it did with it: a filter sees a row leave, a count goes
down. Whatever holds a table (`TableOperator`) can also be asked for the value of a key, by a join in the same task.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from engine.block import MIN_TIME, Block, one_by_one
from engine.operators.base import Operator, OperatorContext
from engine.operators.rows import HeldRows, Rows, VersionedRows, oldest_reader
from engine.operators.undeclared import refuse_structs
from engine.operators.upgrading import Upgrade, upgrading_last

if TYPE_CHECKING:
    from engine.graph import Node
    from engine.run import NodeContext

Step = Callable[[Any], Any]
"""Makes the value of a row from what stands before it; None: there is no row."""


class TableOperator(Operator):
    """An operator that holds the rows of a table. What it emits are changes (old, new) in which a value follows on the one before."""

    def current(self, key: Any) -> Any:
        """Return the present value of a key, None if there is no row."""
        raise NotImplementedError

    def held(self) -> HeldRows:
        """Return where the rows lie, for those who read what is committed."""
        raise NotImplementedError


class RowsOperator(TableOperator):
    """A table whose rows are kept as they are."""

    rows: Rows

    def __init__(self, context: OperatorContext) -> None:
        super().__init__(context)
        self._readers: list[Callable[[], int]] = []
        self._watermark = MIN_TIME

    def current(self, key: Any) -> Any:
        return self.rows.get(key)

    def held(self) -> HeldRows:
        return self.rows.held()

    def read_by(self, reader: Callable[[], int]) -> VersionedRows:
        """Return the versions for one more reader, which says by calling `reader` how far its time has come."""
        assert isinstance(self.rows, VersionedRows), "as_of is refused for a table without versions"
        self._readers.append(reader)
        return self.rows

    def expire(self, watermark: int | None = None) -> None:
        """The time of the table has come to a watermark, or that of a reader has moved: drop what nobody can ask for any more."""
        if watermark is not None:
            self._watermark = watermark
        self.rows.expire(oldest_reader(self._watermark, self._readers))

    def inspect(self, key: Any) -> Iterator[tuple[str, Any]]:
        return self.rows.inspect(key)


class TableFromStream(RowsOperator):
    """A stream as a table: each record sets the value of its key, None deletes the row."""

    def __init__(
        self, context: OperatorContext, key_type: Any, value_type: Any, retention_ms: int | None, upgrade: Upgrade | None = None
    ) -> None:
        super().__init__(context)
        codec = upgrading_last(upgrade)
        if retention_ms is None:
            self.rows = Rows(context, key_type, value_type, codec)
        else:
            self.rows = VersionedRows(context, key_type, value_type, retention_ms, codec)
        self._untyped = value_type is Any

    def process(self, block: Block, port: int = 0) -> None:
        if self._untyped:
            refuse_structs(block.values, "is kept in a table")
        if isinstance(self.rows, VersionedRows) and any(map(operator.le, block.timestamps, block.before)):
            # A late version changes what readers see of times that they have passed, so it must not come before they pass them.
            for piece in one_by_one(block):
                self._take(piece)
        else:
            self._take(block)

    def _take(self, block: Block) -> None:
        put = self.rows.put
        indexes: list[int] = []
        changes: list[tuple[Any, Any]] = []
        for index, (key, value, timestamp_ms) in enumerate(zip(block.keys, block.values, block.timestamps, strict=True)):
            change = put(key, value, timestamp_ms)
            if change is not None:
                indexes.append(index)
                changes.append(change)
        self.expire(block.watermark)
        self.emit(block.take(indexes).replace(values=changes))


class StepChanges(Operator):
    """`filter` and `map` of a table: the same step for the old and the new value."""

    def __init__(self, context: OperatorContext, step: Step) -> None:
        super().__init__(context)
        self._step = step

    def process(self, block: Block, port: int = 0) -> None:
        step = self._step
        indexes: list[int] = []
        changes: list[tuple[Any, Any]] = []
        for index, (old, new) in enumerate(block.values):
            change = (None if old is None else step(old), None if new is None else step(new))
            if change != (None, None):
                indexes.append(index)
                changes.append(change)
        self.emit(block.take(indexes).replace(values=changes))


class Regroup(Operator):
    """`group_by` of a table: a row that moves to another group is taken from the old one and added to the new one."""

    def __init__(self, context: OperatorContext, selector: Step, *, untyped: bool) -> None:
        super().__init__(context)
        self._selector = selector
        self._untyped = untyped

    def process(self, block: Block, port: int = 0) -> None:
        select = self._selector
        indexes: list[int] = []
        keys: list[Any] = []
        changes: list[tuple[Any, Any]] = []
        for index, change in enumerate(block.values):
            old, new = change
            if self._untyped:
                refuse_structs(change, "crosses a group_by")
            old_key = None if old is None else select(old)
            new_key = None if new is None else select(new)
            moved = [(new_key, change)] if old_key == new_key else [(old_key, (old, None)), (new_key, (None, new))]
            for key, part in moved:
                if part != (None, None):
                    indexes.append(index)
                    keys.append(key)
                    changes.append(part)
        self.emit(block.take(indexes).replace(keys=keys, values=changes))


class TableView:
    """The rows of a table as others in the same task see them: what the operator holds, through the table's steps."""

    def __init__(self, context: OperatorContext, origin: "Node", steps: Sequence[Step]) -> None:
        # Who looks into a table stands in a graph, behind it.
        table = cast("NodeContext", context).run.operators[origin.name]
        assert isinstance(table, TableOperator)
        self.operator = table
        self._steps = tuple(steps)

    def current(self, key: Any) -> Any:
        """Return the present value of a key, None if there is no row."""
        return self.shape(self.operator.current(key))

    def shape(self, value: Any) -> Any:
        """Return what the table's steps make of a value that its operator holds."""
        for step in self._steps:
            if value is None:
                return None
            value = step(value)
        return value
