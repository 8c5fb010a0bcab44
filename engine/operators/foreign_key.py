"""Table to table join on a foreign key: the rows of the left name rows of the right, which lie in other partitions.

    left, by its key            right, by its own                         left again
    ForeignKeys ─────────────── asks ──► Subscriptions ── answers ──────► ForeignKeyJoin
         └────────────────────────────────────────────────────────────────────┘

- `ForeignKeys` numbers each new foreign key of a row: the version of its subscription. Asks, by the foreign key: "subscribe row k,
  version 7", and in the same transaction "end the subscription of row k" to the partition of the foreign key before.
- `Subscriptions` keeps who has asked, and answers with the right row: at once, and whenever that row changes.
- `ForeignKeyJoin` keeps the left rows with the answer. One whose version is not the row's (the foreign key has changed while it was
  under way) is dropped and counted ("stale_answers").

A row that changes without its foreign key keeps its subscription, and comes out at once with the answer that it has. While a new
foreign key waits for its answer, what was given out before stays; then one change goes from the old pair to the new one.

Source: KIP-213, "Support non-key joining in KTable", whose versions are hashes of the left row.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from engine.block import Block
from engine.keys import key_codec
from engine.operators.base import Operator, OperatorContext
from engine.operators.lookup import LookupHow
from engine.operators.merge import MergedTime
from engine.operators.rows import HeldRows
from engine.operators.table import Step, TableOperator, TableView
from engine.operators.table_join import Upgrades
from engine.operators.undeclared import refuse_structs
from engine.operators.upgrading import pair_upgrade, upgraded
from state.values import fitting, msgpack_codec, raw_codec

if TYPE_CHECKING:
    from engine.run import NodeContext

KEPT, NO_KEY, ENDS = 0, -1, 0
"""For a left row: the foreign key is the same as before; there is none. For an ask: the subscription ends."""


class ForeignKeys(Operator):
    """Left changes (old, new) become (old, new, version)."""

    def __init__(self, context: OperatorContext, on: Step, *, untyped: bool) -> None:
        super().__init__(context)
        self._on, self._untyped = on, untyped
        self._versions = context.state.keyed(context.state_name("version"), key_codec(str), msgpack_codec(int), merge=max)

    def process(self, block: Block, port: int = 0) -> None:
        on = self._on
        version = first = self._versions.get("") or 0
        values = []
        for old, new in block.values:
            if self._untyped:
                refuse_structs((old, new), "is kept by a join")
            foreign = None if new is None else on(new)
            if foreign is None:
                values.append((old, new, NO_KEY))
            elif old is not None and on(old) == foreign:
                values.append((old, new, KEPT))
            else:
                version += 1
                values.append((old, new, version))
        if version > first:
            self._versions.put("", version)
        self.emit(block.replace(values=values))


class Asks(Operator):
    """What the left asks of the right, by foreign key: (bytes of the left key, version), version 0 to end a subscription."""

    def __init__(self, context: OperatorContext, on: Step, left_key_type: Any) -> None:
        super().__init__(context)
        self._on, self._encode = on, key_codec(left_key_type).encode

    def process(self, block: Block, port: int = 0) -> None:
        on = self._on
        indexes: list[int] = []
        keys: list[Any] = []
        values: list[tuple[bytes, int]] = []
        for index, (key, (old, new, version)) in enumerate(zip(block.keys, block.values, strict=True)):
            if version == KEPT:
                continue
            asks = [] if old is None else [(on(old), ENDS)]
            if version > 0:
                asks.append((on(new), version))
            for foreign, number in asks:
                if foreign is not None:
                    indexes.append(index)
                    keys.append(foreign)
                    values.append((self._encode(key), number))
        self.emit(block.take(indexes).replace(keys=keys, values=values))


class Subscriptions(Operator):
    """Who has asked (port 0) for which row of the right (its changes: port 1). Emits (version, row), by left key."""

    def __init__(self, context: OperatorContext, view: TableView, key_type: Any, left_key_type: Any, *, untyped: bool) -> None:
        super().__init__(context)
        self._time = MergedTime(cast("NodeContext", context), 2)
        self._view, self._untyped = view, untyped
        self._decode = fitting(key_codec(left_key_type).decode, context.state_name("subscriptions"))
        self._asked = context.state.mapped(context.state_name("subscriptions"), key_codec(key_type), raw_codec, msgpack_codec(int))

    def process(self, block: Block, port: int = 0) -> None:
        block = self._time.merge(block, port)
        indexes: list[int] = []
        keys: list[Any] = []
        answers: list[tuple[int, Any]] = []
        for index, (key, value) in enumerate(zip(block.keys, block.values, strict=True)):
            if port == 0:
                asker, version = value
                asking = self._take(key, asker, version)
                row = self._view.current(key) if asking else None
            else:
                asking, row = list(self._asked.items(key)), value[1]
            if self._untyped and asking:
                refuse_structs((row,), "crosses a join on a foreign key")
            for asker, version in asking:
                indexes.append(index)
                keys.append(self._decode(asker))
                answers.append((version, row))
        self.emit(block.take(indexes).replace(keys=keys, values=answers))

    def rolled_back(self) -> None:
        self._time.rolled_back()

    def inspect(self, key: Any) -> Iterator[tuple[str, Any]]:
        yield "subscriptions", {self._decode(asker): version for asker, version in self._asked.items(key)}

    def _take(self, key: Any, asker: bytes, version: int) -> list[tuple[bytes, int]]:
        if version == ENDS:
            self._asked.delete(key, asker)
            return []
        self._asked.put(key, asker, version)
        return [(asker, version)]


_Row = tuple[int, Any, bool, Any, Any]
"""Version, left value, whether it has been answered, the answer, and what was given out before it was asked anew."""


class ForeignKeyJoin(TableOperator):
    """Left rows (port 0) with the answers of the right (port 1)."""

    def __init__(self, context: OperatorContext, how: LookupHow, key_type: Any, types: tuple[Any, Any], upgrades: Upgrades) -> None:
        super().__init__(context)
        self._time = MergedTime(cast("NodeContext", context), 2)
        self._inner = how == "inner"
        left, right = (one if one is Any else one | None for one in types)
        row = (int, left, bool, right, tuple.__class_getitem__((left, right)) | None)
        codec = upgraded(row, {1: upgrades[0], 3: upgrades[1], 4: pair_upgrade(*upgrades)})
        self._rows = context.state.panes(context.state_name("rows"), key_codec(key_type), codec)

    def current(self, key: Any) -> Any:
        return self._shown(self._rows.pane(0).get(key))

    def held(self) -> HeldRows:
        return HeldRows(self._rows.pane(0), lambda _, row: self._shown(row))

    def process(self, block: Block, port: int = 0) -> None:
        block = self._time.merge(block, port)
        pane, follow = self._rows.pane(0), self._answered if port else self._left_changed
        indexes: list[int] = []
        changes: list[tuple[Any, Any]] = []
        for index, (key, value) in enumerate(zip(block.keys, block.values, strict=True)):
            row: _Row | None = pane.get(key)
            after = follow(row, *value)
            if after is row:
                continue
            if after is None:
                pane.delete(key)
            else:
                pane.put(key, after)
            change = (self._shown(row), self._shown(after))
            if change[0] != change[1]:
                indexes.append(index)
                changes.append(change)
        self.emit(block.take(indexes).replace(values=changes))

    def rolled_back(self) -> None:
        self._time.rolled_back()

    def inspect(self, key: Any) -> Iterator[tuple[str, Any]]:
        yield "value", self.current(key)

    def _left_changed(self, row: _Row | None, old: Any, new: Any, version: int) -> _Row | None:
        if new is None:
            return None
        if version == NO_KEY:
            return (0, new, True, None, None)
        if version == KEPT:
            assert row is not None, "a row with a subscription is kept"
            return (row[0], new, *row[2:])
        return (version, new, False, None, self._shown(row))

    def _answered(self, row: _Row | None, version: int, answer: Any) -> _Row | None:
        if row is None or row[0] != version:
            self.context.count("stale_answers")
            return row
        return (version, row[1], True, answer, None)

    def _shown(self, row: _Row | None) -> Any:
        if row is None:
            return None
        if not row[2]:
            return row[4]
        return None if row[3] is None and self._inner else (row[1], row[3])


__all__ = ["Asks", "ForeignKeyJoin", "ForeignKeys", "Subscriptions"]
