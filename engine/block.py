"""Blocks: what flows between operators. A block is columns of decoded records plus the watermark that goes with them.

**Time inside a block.** Event time advances record by record, whatever the size of a block, so each record has a watermark
*before* it: the one in force when an operator is handed that record. An operator must behave as if it did this, in order:

    for each record i:  fire everything due at or below before[i] (in order of time, then key bytes);  then take record i
    at the end:         fire everything due at or below `watermark`

    records      r0 (ts 10)   r1 (ts 75)   r2 (ts 62)          bounded out-of-orderness 5
    before       -inf         4            69                  watermark (after r2) 69: a window [0, 60) fires before r2

A result that fires at event time t goes downstream with `before` = t - 1: the operator has nothing left below t. So what comes
out does not depend on how the input was cut into blocks (tests/engine/test_cuts.py holds every operator to it).

An operator may work a whole block at a time (group by key, touch state once a key) as long as its output, in order, is what
the loop above gives. Ties between results of the same firing point: by time, then by key bytes on the wire.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from engine.records import RecordBatch

MIN_TIME = -(2**63)
MAX_TIME = 2**63 - 1


@dataclass(slots=True)
class Block:
    """Decoded columns of the same length, in processing order. Columns are shared between operators: never change one in place.

    Attributes:
        start: Watermark in force when the block begins (`before[0]` is at least this).
        watermark: Watermark in force after the last record; never below `start`. A block without records only advances time.
        read_before: The `before` column, or how to make it; ask through `before`.
        batch: Where the records came from, None for records that an operator made.
        rows: Index into `batch` for each record; None when record i is row i.
    """

    keys: Sequence[Any]
    values: Sequence[Any]
    timestamps: Sequence[int]
    start: int
    watermark: int
    read_before: Sequence[int] | Callable[[], Sequence[int]]
    batch: RecordBatch | None = None
    rows: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def before(self) -> Sequence[int]:
        """Watermark in force when each record is handed over, ascending."""
        if callable(self.read_before):
            self.read_before = self.read_before()
        return self.read_before

    def row(self, index: int) -> int:
        """Row of record `index` in `batch`."""
        return index if self.rows is None else self.rows[index]

    def take(self, indexes: Sequence[int]) -> "Block":
        """Return the block of the given records, in their order; time goes on as it did."""
        keys, values, timestamps, rows = self.keys, self.values, self.timestamps, self.rows
        return Block(
            [keys[i] for i in indexes],
            [values[i] for i in indexes],
            [timestamps[i] for i in indexes],
            self.start,
            self.watermark,
            lambda: [before[i] for i in indexes] if (before := self.before) else [],
            self.batch,
            indexes if rows is None else [rows[i] for i in indexes],
        )

    def replace(self, *, keys: Sequence[Any] | None = None, values: Sequence[Any] | None = None) -> "Block":
        """Return the block with other keys or values for the same records."""
        return Block(
            self.keys if keys is None else keys,
            self.values if values is None else values,
            self.timestamps,
            self.start,
            self.watermark,
            lambda: self.before,
            self.batch,
            self.rows,
        )


def advance(start: int, watermark: int) -> Block:
    """Return a block that only moves time."""
    return Block((), (), (), start, watermark, ())


def one_by_one(block: Block) -> Iterator[Block]:
    """Yield a block as blocks of one record, in which time stands still, and others that only move it."""
    reached = block.start
    for index, before in enumerate(block.before):
        if before > reached:
            yield advance(reached, before)
            reached = before
        rows = None if block.batch is None else (block.row(index),)
        yield Block(
            (block.keys[index],), (block.values[index],), (block.timestamps[index],), reached, reached, (reached,), block.batch, rows
        )
    if block.watermark > reached:
        yield advance(reached, block.watermark)
