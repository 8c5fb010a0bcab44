"""Applying changes to a table: from what is stored for a key and a change to what is stored then. Pure: who stores, calls it.

    applied = apply(stored, change)          applied.old, applied.new     what to retract and what to add downstream
    store(key, applied.stored)               row, position, ...

**The guard.** Connect repeats changes after a crash, and what it repeats may be the whole life of a row that is gone by now. So the
position of the last change is kept with the row, and beyond its deletion: a change that lies behind it has been applied before. One
at the same place is applied again and changes nothing.

What lies behind is told by the higher of the two LSNs of a position, that of the change and that of the last commit before it:

    transaction 7   writes at 100 ........................ commits at 140     delete: commit before 131, own 100
    snapshot read   window opens at 110, closes at 130, sees the row          read:   commit before 130, own 130

The LSN of the change alone would take the delete for a replay, since a snapshot reads without locks: the row would stay for ever.
A whole snapshot knows no commit; it holds what was committed before its LSN. The first transaction that a connector sees has no
commit before it either, and it ends after the snapshot, whenever it began: so it never lies behind a row that was read (`place_of`).

**A truncate** has no key and comes through one partition only. It locks the table, so its position parts all earlier rows from all
later ones, whatever the order in which partitions are read: rows below it go (`truncate`), and so do late ones (`truncated=`).

**Values that Debezium does not have** come from the stored row. Where there is none they stay named in `missing`. A key change hands
its row over: the deletion keeps it as `departed`, and the create under the new key takes from it (`departed=`).

**Snapshot reads while writes go on** need nothing more: an incremental read has the position at which its chunk was closed, and
Debezium leaves out of the chunk what changed meanwhile.

**Without a primary key** rows are told apart by all of their columns: see `cdc.keyless`.

Limits: in the engine's tables the end of a whole snapshot counts as a truncate, so there what the first transaction after it wrote
before the snapshot's LSN is taken for older. LSNs of another database, or of the same one restored from a backup, do not compare;
such a source needs a new table.
"""

from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from cdc.change import Change, Op, Position
from engine.errors import RecordError

Row = TypeVar("Row")

NOWHERE = Position()
FIRST = 1
"""In a guard, for the commit before a change: there was none that the connector has seen. No log begins so low."""


class Stored(Struct, Generic[Row], frozen=True):
    """What a table keeps for a key.

    Attributes:
        row: None once deleted.
        position: Of the last change that was applied.
        missing: Columns whose value has never been seen; of `departed` where there is no row.
        departed: The row as it was when a key change took it away, for the create under its new key.
    """

    row: Row | None = None
    position: Position = Position()
    missing: tuple[str, ...] = ()
    departed: Row | None = None


class Applied(Struct, Generic[Row], frozen=True):
    """Outcome of a change: what to store, and the row before and after. `is_replay`: nothing changes, it was applied before."""

    stored: Stored[Row]
    old: Row | None = None
    new: Row | None = None
    is_replay: bool = False


def apply(
    stored: Stored[Row] | None, change: Change[Row], *, truncated: Position = NOWHERE, departed: Stored[Row] | None = None
) -> Applied[Row]:
    """Return the outcome of a change for the key that it is about.

    Args:
        stored: What the table keeps for the key, None for nothing.
        truncated: Position of the table's last truncate.
        departed: What is stored under `change.old_key`, for the create of a key change.

    Raises:
        RecordError: The change is about no row (a truncate, a message).
    """
    if change.op in (Op.TRUNCATE, Op.MESSAGE):
        raise RecordError(f"a {change.op.name.lower()} is about no row")
    stored = stored or Stored()
    place = place_of(change)
    if is_behind(place, stored.position) or goes_with(place, truncated):
        return Applied(stored, stored.row, stored.row, is_replay=True)
    position = later(stored.position, place)
    if change.op is Op.DELETE:
        left = (stored.row if change.new_key is not None else None) or stored.departed
        return Applied(Stored(None, position, () if left is None else stored.missing, left), stored.row, None)
    if change.after is None:
        raise RecordError(f"a {change.op.name.lower()} without a row")
    row, missing = fill(change, stored, departed)
    return Applied(Stored(row, position, missing), stored.row, row)


def truncate(stored: Stored[Row], position: Position) -> Applied[Row]:
    """Return the outcome of a truncate for one key: its row goes unless it was written after it."""
    if not goes_with(stored.position, position) and stored.position != position:
        return Applied(stored, stored.row, stored.row, is_replay=True)
    return Applied(Stored(None, later(stored.position, position)), stored.row, None)


def fill(change: Change[Row], stored: Stored[Row], departed: Stored[Row] | None) -> tuple[Row, tuple[str, ...]]:
    """Return the row after a change with its unavailable columns filled in, and the names of those that nobody knows."""
    assert change.after is not None
    if not change.unavailable:
        return change.after, ()
    known, unknown = stored.row, set(stored.missing)
    if known is None and departed is not None:
        known = departed.departed if departed.row is None else departed.row
        unknown = set(departed.missing)
    if known is None:
        return change.after, change.unavailable
    missing = tuple(name for name in change.unavailable if name in unknown or not _has(known, name))
    return _with(change.after, known, [name for name in change.unavailable if name not in missing]), missing


def place_of(change: Change[Any]) -> Position:
    """Return the position of a change as guards keep it: one of the first transaction has FIRST for the commit before it."""
    position = change.position
    if position.commit_lsn or change.op is Op.READ or not position.lsn:
        return position
    return Position(FIRST, position.lsn)


def is_behind(position: Position, guard: Position) -> bool:
    """Whether a change at a place lies before the guard. One that is not known (LSN 0) does not."""
    if not position.lsn or not guard.lsn or (position.commit_lsn == FIRST and not guard.commit_lsn):
        return False
    reached, guarded = max(position.commit_lsn, position.lsn), max(guard.commit_lsn, guard.lsn)
    return reached < guarded or (reached == guarded and position.commit_lsn == guard.commit_lsn and position.lsn < guard.lsn)


def goes_with(row: Position, truncated: Position) -> bool:
    """Whether a row of a place goes with a truncate, or with the end of a whole snapshot that has not read it."""
    return is_behind(Position(0, row.lsn) if row.commit_lsn == FIRST else row, truncated)


def later(guard: Position, position: Position) -> Position:
    """Return the guard after a change."""
    return guard if not position.lsn or is_behind(position, guard) else position


def _has(row: Any, name: str) -> bool:
    return name in row if isinstance(row, dict) else name in _attributes(type(row))


def _with(row: Any, other: Any, names: list[str]) -> Any:
    """Return a row with some columns (by their names in the database) of another."""
    if isinstance(row, dict):
        return {**row, **{name: other[name] for name in names}}
    attributes = _attributes(type(row))
    taken = {attributes[name]: getattr(other, attributes[name]) for name in names if name in attributes}
    return msgspec.structs.replace(row, **taken)


def _attributes(row_type: Any) -> dict[str, str]:
    return {field.encode_name: field.name for field in msgspec.structs.fields(row_type)}
