"""The way of changes to the partition of their row, and what each says there.

    topic, placed by Debezium's key           table, placed by the key of the stream
    users-0: c {"id":1}, t (truncate)         0: c of 2, t
    users-1: c {"id":2}                       1: c of 1, t

- Debezium places a record by the bytes of its key (JSON, or Avro with a schema id in front), which are not those of the stream's
  key: so every table of changes reads a repartition topic.
- A truncate has no key and comes in one partition; it goes on to every partition of the table.
- The last row of a snapshot does the same: what the snapshot has not read again was deleted while nobody listened.
- A key change hands the old row to the partition of the new key (`Departures`, `Arrivals`), since the create there may leave out
  values that did not change.
- A row without primary key has no key at all. Replays are seen here, where the records of the source partition are in their order;
  then the row's own content is its key, so that equal rows meet.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast

import msgspec
from msgspec import Struct

from cdc.apply import place_of
from cdc.change import Change, Op, Position
from cdc.keyless import KeylessGuard, apply_without_key
from cdc.packing import row_codec
from engine.block import Block, advance, one_by_one
from engine.errors import RecordError, StateError
from engine.graph import SourceSpec
from engine.keys import key_codec
from engine.operators.base import Operator, OperatorContext
from engine.operators.repartition import EVERYWHERE
from state.values import PayloadCodec, msgpack_codec

if TYPE_CHECKING:
    from cdc.table_operator import ChangesTable
    from engine.graph import Node
    from engine.run import NodeContext

_content = msgspec.json.Encoder(order="deterministic").encode


class Moved(Struct, frozen=True, array_like=True):
    """A change on its way to the partition of its row.

    Attributes:
        op: Debezium's letter. For a row without key "c" adds a copy and "d" takes one away.
        row: The row as bytes: after the change, for a row without key also the one that goes.
        is_copy: The row has no key; its content is the key of this record.
        moves_to: For the delete of a key change: the new key as bytes.
        has_moved: This create is the other half of a key change.
    """

    version: int
    op: Op
    position: Position
    row: bytes | None = None
    unavailable: tuple[str, ...] = ()
    is_copy: bool = False
    moves_to: bytes | None = None
    has_moved: bool = False


class Handover(Struct, frozen=True, array_like=True):
    """A row that leaves its key, on its way to the new one."""

    version: int
    position: Position
    row: bytes
    missing: tuple[str, ...] = ()


VERSION = 1


class Spread(Operator):
    """Changes become `Moved`, by the key of their row."""

    def __init__(self, context: OperatorContext, row_type: Any, key_type: Any, source: SourceSpec | None) -> None:
        super().__init__(context)
        self._rows: PayloadCodec[Any] = row_codec(row_type)(tuple.__class_getitem__((row_type,)))
        self._encode_key = key_codec(key_type).encode
        self._takes_text = key_type in (str, Any)
        self._select = None if source is None or source.key is None else source.key.get
        self._keyless = context.state.keyed(context.state_name("keyless"), key_codec(str), msgpack_codec(KeylessGuard), merge=_refuse_merge)

    def process(self, block: Block, port: int = 0) -> None:
        indexes: list[int] = []
        keys: list[Any] = []
        moved: list[Moved] = []
        for index, (key, change) in enumerate(zip(block.keys, block.values, strict=True)):
            for place, record in self._moved(key, change):
                indexes.append(index)
                keys.append(place)
                moved.append(record)
        self.emit(block.take(indexes).replace(keys=keys, values=moved))

    def _moved(self, key: Any, change: Change[Any]) -> list[tuple[Any, Moved]]:
        op = change.op
        if op is Op.MESSAGE:
            self.context.count("messages")
            return []
        if op is Op.TRUNCATE:
            self._keyless_changes(change)
            return [(EVERYWHERE, Moved(VERSION, op, place_of(change)))]
        if key is None and change.key is None:
            return self._keyless_changes(change)
        if key is None:
            raise RecordError("the change has no key for the table; give the source key=...")
        row = None if change.after is None or op is Op.DELETE else self._rows.encode((change.after,))
        moves_to = None if change.new_key is None else self._new_key(change.new_key)
        moved: list[tuple[Any, Moved]] = [
            (key, Moved(VERSION, op, change.position, row, change.unavailable, False, moves_to, change.old_key is not None))
        ]
        if change.ends_snapshot:
            moved.append((EVERYWHERE, Moved(VERSION, Op.TRUNCATE, change.position)))
        return moved

    def _new_key(self, columns: dict[str, Any]) -> bytes | None:
        """Return the stream's key of a row whose key columns are known; None where the stream's key is not made of columns."""
        if self._select is None:
            self.context.count("moves_without_source_key")
            return None
        return self._encode_key(self._select(Change(op=Op.DELETE, key=columns)))

    def _keyless_changes(self, change: Change[Any]) -> list[tuple[Any, Moved]]:
        guard = self._keyless.get("") or KeylessGuard()
        if change.op is Op.TRUNCATE and guard == KeylessGuard():
            return []  # as far as is known the rows of this table have keys, and a truncate needs no guard then
        if not self._takes_text:
            raise RecordError("the row has no primary key, and the table's keys are not text; give the source key=... to say what they are")
        applied = apply_without_key(guard, change)
        self._keyless.put("", applied.guard)
        if applied.is_replay:
            self.context.count("replayed_changes")
        moved: list[tuple[Any, Moved]] = []
        if applied.clears:
            moved.append((EVERYWHERE, Moved(VERSION, Op.TRUNCATE, change.position)))
        for op, rows in ((Op.DELETE, applied.removed), (Op.CREATE, applied.added)):
            for row in rows:
                packed = self._rows.encode((row,))
                moved.append((self._content_key(row), Moved(VERSION, op, change.position, packed, is_copy=True)))
        return moved

    def _content_key(self, row: Any) -> str:
        return blake2b(_content(row), digest_size=16).hexdigest()


class Departures(Operator):
    """What rows leave behind when their key changes, by the new key; reads the table's own output, for the time."""

    def __init__(self, context: OperatorContext, table: "Node", key_type: Any) -> None:
        super().__init__(context)
        self._table = cast("ChangesTable", cast("NodeContext", context).run.operators[table.name])
        self._decode_key = key_codec(key_type).decode

    def process(self, block: Block, port: int = 0) -> None:
        departed = self._table.take_departed()
        if not departed:
            self.emit(advance(block.start, block.watermark))
            return
        keys = [self._decode_key(place) for place, _, _ in departed]
        values = [handover for _, handover, _ in departed]
        times = [timestamp_ms for _, _, timestamp_ms in departed]
        self.emit(Block(keys, values, times, block.start, block.watermark, [block.start] * len(keys)))


class Arrivals(Operator):
    """Gives the table what its rows need from where they were before."""

    def __init__(self, context: OperatorContext, table: "Node") -> None:
        super().__init__(context)
        self._table = cast("ChangesTable", cast("NodeContext", context).run.operators[table.name])

    def process(self, block: Block, port: int = 0) -> None:
        for piece in one_by_one(block):
            if len(piece):
                self._table.arrive(piece.keys[0], piece.values[0], piece.timestamps[0])
        self.emit(advance(block.start, block.watermark))


__all__ = ["Arrivals", "Departures", "Handover", "Moved", "Spread"]


def _refuse_merge(guards: Sequence[KeylessGuard]) -> KeylessGuard:
    """Refuse to make one guard of those of several source partitions: rows without a key cannot be told apart."""
    if len(guards) > 1:
        raise StateError("rows without a primary key are guarded by the source partition that they came in, and cannot change partitions")
    return guards[0]
