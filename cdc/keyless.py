"""Rows without a primary key: a table counts equal rows, and a change takes one away or adds one.

    READ a, READ a                  a, a          all rows of a snapshot share one position
    d (before a)                    a             REPLICA IDENTITY FULL gives the row that goes; without it PostgreSQL refuses deletes
    READ a at another position      a             the snapshot was begun anew: it replaces what there was

**Replays.** Without a key there is no row to hold a position, so the guard is that of the partition: positions of streamed changes
go back only on a replay. At one position there may be several changes (a COPY writes many rows at once), so they are counted; a
replay begins with a position that goes back or with another run of the connector (`Change.run`), and what was counted is passed
over once more.

**Order.** Connect writes records without a key to any partition, so a row may go before it came, as seen by the table. `Copies`
counts them whatever comes first: a removal takes the newest copy below its position, and one that finds none waits.

Limits: after ALTER TABLE rows that were read in the old shape do not equal their `before` in the new one; a new snapshot puts that
right. Debezium makes no incremental snapshot of such a table.
"""

from typing import Any, Generic, TypeVar

from msgspec import Struct

from cdc.change import Change, Op, Position
from engine.errors import RecordError

Row = TypeVar("Row")

NOWHERE = Position()


class KeylessGuard(Struct, frozen=True, array_like=True):
    """How far the changes of a table without a primary key have been applied in one partition.

    Attributes:
        snapshot: Position of the snapshot that the rows are from.
        run: Of the connector, as its last change said.
        seen: Changes at `position`; `again`: how many of them came again in a replay that is under way, None if there is none.
    """

    position: Position = Position()
    snapshot: Position = Position()
    run: str | None = None
    seen: int = 0
    again: int | None = None


class KeylessApplied(Struct, Generic[Row], frozen=True):
    """What a change does to a table without keys: rows to remove (one each) and to add. `clears`: all rows go first."""

    guard: KeylessGuard
    removed: tuple[Row, ...] = ()
    added: tuple[Row, ...] = ()
    clears: bool = False
    is_replay: bool = False


def apply_without_key(guard: KeylessGuard, change: Change[Any]) -> KeylessApplied[Any]:
    """Return what a change does to a table whose rows have no key.

    Raises:
        RecordError: The change is about no row, or of an incremental snapshot.
    """
    position = change.position
    if change.op is Op.MESSAGE:
        raise RecordError("a message is about no row")
    if change.snapshot == "incremental":
        raise RecordError("an incremental snapshot reads by primary key, and this table has none: its rows cannot be told from others")
    again = 0 if change.run is not None and guard.run is not None and change.run != guard.run else guard.again
    run = change.run or guard.run
    if position != NOWHERE and position < guard.position:
        return KeylessApplied(KeylessGuard(guard.position, guard.snapshot, run, guard.seen, 0), is_replay=True)
    seen = 1
    if position == guard.position:
        if again is not None and again < guard.seen:
            return KeylessApplied(KeylessGuard(position, guard.snapshot, run, guard.seen, again + 1), is_replay=True)
        seen = guard.seen + 1
    if change.op is Op.READ:
        clears = position != guard.snapshot
        return KeylessApplied(KeylessGuard(position, position, run, seen), added=(change.after,), clears=clears)
    moved = KeylessGuard(position, guard.snapshot, run, seen)
    if change.op is Op.TRUNCATE:
        return KeylessApplied(moved, clears=True)
    removed = () if change.before is None else (change.before,)
    return KeylessApplied(moved, removed, () if change.after is None else (change.after,))


class Copies(Struct, frozen=True, array_like=True):
    """Equal rows, by the LSN at which each was written, ascending; and removals for which no row has come yet."""

    added: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()

    @property
    def number(self) -> int:
        """How many rows there are."""
        return max(0, len(self.added) - len(self.removed))

    def add(self, lsn: int) -> "Copies":
        """Return the copies with one more, unless its removal was there before it."""
        waiting = next((other for other in self.removed if other > lsn), None)
        if waiting is not None:
            return Copies(self.added, _without(self.removed, waiting))
        return Copies(tuple(sorted((*self.added, lsn))), self.removed)

    def remove(self, lsn: int) -> "Copies":
        """Return the copies without the newest one that was written before an LSN."""
        newest = next((other for other in reversed(self.added) if other < lsn), None)
        if newest is not None:
            return Copies(_without(self.added, newest), self.removed)
        return Copies(self.added, tuple(sorted((*self.removed, lsn))))

    def truncate(self, lsn: int) -> "Copies":
        """Return the copies that were written at or after an LSN."""
        return Copies(tuple(at for at in self.added if at >= lsn), tuple(at for at in self.removed if at >= lsn))


def _without(numbers: tuple[int, ...], number: int) -> tuple[int, ...]:
    at = numbers.index(number)
    return numbers[:at] + numbers[at + 1 :]


__all__ = ["Copies", "KeylessApplied", "KeylessGuard", "apply_without_key"]
