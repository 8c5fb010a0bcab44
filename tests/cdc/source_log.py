"""A small PostgreSQL with Debezium, for tests of guards: row locks, commits in another order than writes, snapshots, replays.

It yields the changes as the connector writes them, and knows what the table holds in the end.
"""

import random
from dataclasses import dataclass, field
from typing import Any

from cdc import Change, Op, Position

Row = dict[str, Any]


@dataclass
class _Open:
    """A transaction under way: what it wrote, as (key, row or None, LSN)."""

    writes: list[tuple[int, Row | None, int]] = field(default_factory=list)


class SourceLog:
    """One table of a few keys, written by several transactions at a time.

    Attributes:
        committed: What the table holds.
        emitted: What the connector has written so far, replays too.
    """

    def __init__(self, seed: int, keys: int = 4) -> None:
        self.committed: dict[int, Row] = {}
        self.emitted: list[Change[Row]] = []
        self._random = random.Random(seed)
        self._keys = range(1, keys + 1)
        self._lsn = 1_000
        self._open: list[_Open] = []
        self._last_commit = 0
        self._log: list[Change[Row]] = []
        self._streams = False

    def run(self, steps: int) -> None:
        """Do so much, with a snapshot after a third of it."""
        for step in range(steps):
            if step == steps // 3:
                self._snapshot()
            choice = self._random.random()
            if choice < 0.5:
                self._write()
            elif choice < 0.85:
                self._commit()
            elif choice < 0.95:
                self._read_incrementally()
            else:
                self._replay()
        while self._open:
            self._commit()

    def _tick(self) -> int:
        self._lsn += 8
        return self._lsn

    def _write(self) -> None:
        locked = {key for each in self._open for key, _, _ in each.writes}
        if len(self._open) < 3 and self._random.random() < 0.5:
            self._open.append(_Open())
        free = [key for key in self._keys if key not in locked]
        if not self._open:
            return
        transaction = self._random.choice(self._open)
        own = [key for key, _, _ in transaction.writes]
        if not free and not own:
            return
        key = self._random.choice(free + own)
        now = next((row for k, row, _ in reversed(transaction.writes) if k == key), self.committed.get(key))
        lsn = self._tick()
        row = None if now is not None and self._random.random() < 0.4 else {"id": key, "v": lsn}
        transaction.writes.append((key, row, lsn))

    def _commit(self) -> None:
        if not self._open:
            return
        transaction = self._open.pop(self._random.randrange(len(self._open)))
        for key, row, lsn in transaction.writes:
            op = Op.DELETE if row is None else Op.UPDATE if key in self.committed else Op.CREATE
            if row is None:
                self.committed.pop(key)
            else:
                self.committed[key] = row
            self._emit(Change(op=op, key={"id": key}, after=row, position=Position(self._last_commit, lsn)))
        end = self._tick()
        if self._streams:
            self._last_commit = end

    def _snapshot(self) -> None:
        """Read everything; from here on changes are streamed, those of open transactions whole."""
        at = Position(0, self._tick())
        self._streams = True
        for key, row in self.committed.items():
            self._emit(Change(op=Op.READ, key={"id": key}, after=row, position=at, snapshot="true"))

    def _read_incrementally(self) -> None:
        """Read a chunk without locks: the rows as they are when its window closes; the closing is a transaction of its own."""
        if not self._streams or not self._last_commit:
            return
        lsn = self._tick()
        for key, row in self.committed.items():
            if self._random.random() < 0.7:
                read = Change(op=Op.READ, key={"id": key}, after=row, position=Position(self._last_commit, lsn), snapshot="incremental")
                self.emitted.append(read)
        self._last_commit = self._tick()

    def _replay(self) -> None:
        """The connector was killed: it writes again what it streamed last."""
        self.emitted += self._log[len(self._log) - self._random.randint(0, min(8, len(self._log))) :]

    def _emit(self, change: Change[Row]) -> None:
        if self._streams:
            self.emitted.append(change)
            if change.op is not Op.READ:
                self._log.append(change)


def straddling(log: SourceLog) -> int:
    """Return how many streamed changes have a lower LSN than a read before them: what an order by LSN alone would lose."""
    highest, found = 0, 0
    for change in log.emitted:
        if change.op is Op.READ:
            highest = max(highest, change.position.lsn)
        elif change.position.lsn < highest and change.position.commit_lsn >= highest:
            found += 1
    return found
