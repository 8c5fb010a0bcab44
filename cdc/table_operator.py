"""The operator that holds the rows of a table of changes in one task.

    change                               row             guard               handed on
    c id 1 (Ada) at 100                  Ada             100                 (None, Ada)
    u id 1 (Ada B) at 120                Ada B           120                 (Ada, Ada B)
    c id 1 (Ada) at 100 again            Ada B           120                 nothing: applied before
    d id 1 at 140                        -               140                 (Ada B, None)
    c id 1, u id 1 again                 -               140                 nothing: it stays deleted
    truncate at 200                      -               everything below 200 is gone, and what comes late of it too
    snapshot at 300, its last row                        the same for 300: what it has not read again was deleted unseen

What a change does to its row: `cdc.apply`. The guard (the position, and which columns nobody knows) is kept for every key that there
ever was, about 40 bytes each; nothing says how far back a connector may repeat itself.

With versions the history of a row is by the time of the stream (`time="source_ms"`), but the position says which row is the newest:
a change whose time is lower than that of the one before it takes that time.

Limits: a truncate, and the end of a snapshot, read all rows of the task into memory. A snapshot that leaves rows out (a blocking one
with a condition) takes them from the table; an incremental one does not. A table that is empty when a snapshot is taken anew makes
no record at all.
"""

import operator
from collections.abc import Iterator
from functools import partial, reduce
from typing import Any

from msgspec import Struct

from cdc.apply import NOWHERE, Stored, apply, fill, goes_with, is_behind, later
from cdc.change import Change, Op, Position
from cdc.keyless import Copies
from cdc.packing import row_codec
from cdc.table_changes import VERSION, Handover, Moved
from engine.block import MIN_TIME, Block, advance, one_by_one
from engine.errors import RecordError
from engine.keys import key_codec
from engine.operators.base import OperatorContext
from engine.operators.repartition import EVERYWHERE
from engine.operators.rows import Rows, VersionedRows
from engine.operators.table import RowsOperator
from engine.operators.upgrading import Upgrade, upgrading_last
from state.values import msgpack_codec

Changed = list[tuple[Any, tuple[Any, Any]]]
"""Keys with their old and new row."""


class Guard(Struct, frozen=True, array_like=True):
    """What is kept of a key beside its row, and beyond it.

    Attributes:
        missing: Columns whose value has never been seen.
        moved_at: LSN of the key change that brought the row here, if columns are missing: its old row is on the way.
        departed: That row as (LSN, row as bytes, its own missing columns), if it came before the change.
        gone_to: The key to which a row with missing columns moved on, as bytes, while its old row was on the way.
    """

    position: Position = Position()
    missing: tuple[str, ...] = ()
    moved_at: int = 0
    departed: tuple[int, bytes, tuple[str, ...]] | None = None
    gone_to: bytes | None = None


class ChangesTable(RowsOperator):
    """Rows out of `Moved` changes."""

    def __init__(self, context: OperatorContext, key_type: Any, row_type: Any, retention_ms: int | None, upgrade: Upgrade | None) -> None:
        super().__init__(context)
        codec = upgrading_last(upgrade, row_codec(row_type))
        self._packing = codec(tuple.__class_getitem__((row_type,)))
        self.rows: Rows = (
            Rows(context, key_type, row_type, codec)
            if retention_ms is None
            else VersionedRows(context, key_type, row_type, retention_ms, codec)
        )
        keys = key_codec(key_type)
        self._guards = context.state.keyed(context.state_name("guards"), keys, msgpack_codec(Guard))
        self._copies = context.state.keyed(context.state_name("copies"), keys, msgpack_codec(Copies))
        self._truncated = context.state.keyed(
            context.state_name("truncated"), key_codec(str), msgpack_codec(Position), merge=partial(reduce, later)
        )
        self._departed: list[tuple[bytes, Handover, int]] = []
        self._reached = MIN_TIME

    def process(self, block: Block, port: int = 0) -> None:
        if isinstance(self.rows, VersionedRows) and any(map(operator.le, block.timestamps, block.before)):
            # A late version changes what readers see of times that they have passed, so it must not come before they pass them.
            for piece in one_by_one(block):
                self._take(piece)
        else:
            self._take(block)

    def _take(self, block: Block) -> None:
        indexes: list[int] = []
        keys: list[Any] = []
        changes: list[tuple[Any, Any]] = []
        for index, (key, moved, timestamp_ms) in enumerate(zip(block.keys, block.values, block.timestamps, strict=True)):
            for place, change in self._apply(key, moved, timestamp_ms):
                indexes.append(index)
                keys.append(place)
                changes.append(change)
        self._reached = block.watermark
        self.expire(block.watermark)
        self.emit(block.take(indexes).replace(keys=keys, values=changes))

    def _apply(self, key: Any, moved: Moved, timestamp_ms: int) -> Changed:
        if moved.version != VERSION:
            raise RecordError(f"a change in format {moved.version}; this version reads format {VERSION}")
        if key is EVERYWHERE:
            return self._truncate(moved.position, timestamp_ms)
        if moved.is_copy:
            return self._change_copies(key, moved, timestamp_ms)
        guard = self._guards.get(key) or Guard()
        stored = Stored(self.rows.get(key), guard.position, guard.missing)
        change: Change[Any] = Change(
            op=moved.op,
            after=None if moved.row is None else self._unpack(moved.row),
            position=moved.position,
            unavailable=moved.unavailable if moved.op is not Op.DELETE else (),
        )
        departed, waiting = self._departed_for(guard, moved.position.lsn)
        applied = apply(stored, change, truncated=self._truncated.get("") or NOWHERE, departed=departed)
        after = applied.stored
        if applied.is_replay or (
            moved.position.lsn == guard.position.lsn > 0
            and after.row == stored.row
            and (after.row is None or after.missing == stored.missing)
        ):
            self.context.count("replayed_changes")
            return []
        moved_at = moved.position.lsn if moved.has_moved else guard.moved_at
        self._guards.put(key, Guard(after.position, after.missing, moved_at if after.missing else 0, waiting))
        if moved.moves_to is not None and stored.row is not None:
            handover = Handover(VERSION, moved.position, self._packing.encode((stored.row,)), stored.missing)
            self._departed.append((moved.moves_to, handover, timestamp_ms))
            if stored.missing:
                self._guards.put(key, Guard(after.position, stored.missing, guard.moved_at, waiting, moved.moves_to))
        return self._put(key, after.row, timestamp_ms)

    def _departed_for(self, guard: Guard, lsn: int) -> tuple[Stored[Any] | None, tuple[int, bytes, tuple[str, ...]] | None]:
        """Return the old row for a change that was waited for, and what is waited for after that change."""
        if guard.departed is None:
            return None, None
        at, row, missing = guard.departed
        if at and at != lsn:  # a tombstone of an unwrapped row does not say where it was written
            return None, guard.departed if at > lsn else None
        return Stored(None, Position(), missing, self._unpack(row)), None

    def _put(self, key: Any, row: Any, timestamp_ms: int) -> Changed:
        change = self.rows.supersede(key, row, timestamp_ms)
        return [] if change is None else [(key, change)]

    def _unpack(self, raw: bytes) -> Any:
        return self._packing.decode(raw)[0]

    # -- truncates

    def _truncate(self, position: Position, timestamp_ms: int) -> Changed:
        """Remove the rows that were written before a truncate, or before a snapshot that has not read them again."""
        truncated = self._truncated.get("") or NOWHERE
        if position.lsn and (position == truncated or is_behind(position, truncated)):
            self.context.count("replayed_changes")
            return []
        self._truncated.put("", later(truncated, position))
        changed: Changed = []
        contents: dict[str, None] = {}
        for key in [key for key, _ in self.rows.items()]:
            guard = self._guards.get(key)
            if guard is None:
                contents[_content_of(key)] = None
            elif goes_with(guard.position, position) or not (guard.position.lsn and position.lsn):
                changed += self._put(key, None, timestamp_ms)
        for content in contents:
            changed += self._set_copies(content, (self._copies.get(content) or Copies()).truncate(position.lsn), None, timestamp_ms)
        return changed

    # -- rows without a key

    def _change_copies(self, content: str, moved: Moved, timestamp_ms: int) -> Changed:
        """Add a copy of a row without key, or take one away."""
        lsn, truncated = moved.position.lsn, self._truncated.get("") or NOWHERE
        if lsn < truncated.lsn:
            self.context.count("replayed_changes")
            return []
        copies = self._copies.get(content) or Copies()
        assert moved.row is not None
        return self._set_copies(content, copies.remove(lsn) if moved.op is Op.DELETE else copies.add(lsn), moved.row, timestamp_ms)

    def _set_copies(self, content: str, copies: Copies, row: bytes | None, timestamp_ms: int) -> Changed:
        before = (self._copies.get(content) or Copies()).number
        self._copies.put(content, None if copies == Copies() else copies)
        changed: Changed = []
        for number in range(copies.number + 1, before + 1):
            changed += self._put(f"{content}#{number}", None, timestamp_ms)
        for number in range(before + 1, copies.number + 1):
            assert row is not None, "a truncate adds nothing"
            changed += self._put(f"{content}#{number}", self._unpack(row), timestamp_ms)
        return changed

    # -- key changes

    def take_departed(self) -> list[tuple[bytes, Handover, int]]:
        """Return the rows that left for another key since the last call: new key, what is handed over, timestamp."""
        departed, self._departed = self._departed, []
        return departed

    def arrive(self, key: Any, handover: Handover, timestamp_ms: int) -> None:
        """Take the old row of a key change for its new key: fill what is missing, or keep it until the change itself comes."""
        guard = self._guards.get(key) or Guard()
        lsn = handover.position.lsn
        row = self.rows.get(key)
        if row is not None and guard.missing and lsn in (0, guard.moved_at):
            old: Stored[Any] = Stored(None, Position(), handover.missing, self._unpack(handover.row))
            change: Change[Any] = Change(op=Op.UPDATE, after=row, unavailable=guard.missing)
            filled, missing = fill(change, Stored(), old)
            self._guards.put(key, Guard(guard.position, missing, guard.moved_at if missing else 0, guard.departed))
            for place, changed in self._put(key, filled, timestamp_ms):
                reached = self._reached
                self.emit(Block([place], [changed], [timestamp_ms], reached, reached, [reached]))
        elif row is None and guard.gone_to is not None and lsn in (0, guard.moved_at):  # it has moved on: the old row goes after it
            self._departed.append((guard.gone_to, Handover(VERSION, guard.position, handover.row, handover.missing), timestamp_ms))
            if not handover.missing:
                self._guards.put(key, Guard(guard.position, (), 0, guard.departed))
            self.emit(advance(self._reached, self._reached))
        elif not guard.position.lsn or is_behind(guard.position, handover.position):
            departed = (lsn, handover.row, handover.missing)
            self._guards.put(key, Guard(guard.position, guard.missing, guard.moved_at, departed))

    def rolled_back(self) -> None:
        self._departed = []

    def inspect(self, key: Any) -> Iterator[tuple[str, Any]]:
        yield from self.rows.inspect(key)
        guard = self._guards.get(key)
        if guard is not None:
            yield "position", guard.position
            yield "missing", guard.missing


def _content_of(key: str) -> str:
    return key.rpartition("#")[0]


__all__ = ["ChangesTable", "Guard"]
