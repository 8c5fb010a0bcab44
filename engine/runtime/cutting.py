"""How large a piece of a batch may be so that nothing holds the event loop for long (heartbeats share it).

The size follows the measured time: towards the aim, at most doubled in one step, cut at once when a piece took too long.

    aim 20 ms    1,024 records in 4 ms  → 2,048    2,048 in 70 ms  → 585

It is the working time of the thread that counts, as long as the wall clock shows no more than STRETCH times as much. What other
processes take on a busy machine is no reason for smaller pieces: each has a price of its own, so that the machine would only become
busier (300,000 orders beside a load of ten processes went through in pieces of 127 records).

Producers that send often make batches of a few records, and each of those has its price too: those that wait are joined.

Results never depend on either (design rule 5).
"""

from collections.abc import Callable, Sequence
from itertools import chain

from engine.records import HeaderColumn, RecordBatch
from engine.source_rows import ROWS

FIRST_RECORDS = 1_024
LEAST_RECORDS = 16
STRETCH = 3


class PieceSize:
    """Records of the next piece."""

    def __init__(self, aim_s: float, records_max: int) -> None:
        self._aim_s = aim_s
        self._records_max = records_max
        self.records = min(FIRST_RECORDS, records_max)

    def took(self, records: int, working_s: float, wall_s: float = 0.0) -> None:
        """A piece of so many records took so long, by the work and by the wall clock: adapt the size."""
        seconds = max(working_s, wall_s / STRETCH)
        if records < self.records and seconds < self._aim_s:
            return
        fitting = self.records * 2 if seconds <= 0 else int(records * self._aim_s / seconds)
        self.records = max(LEAST_RECORDS, min(fitting, self.records * 2, self._records_max))


def cut_piece(batch: RecordBatch, start: int, size: int) -> RecordBatch:
    """Return the records from index `start` on, at most `size`, as a batch of their own; the last piece carries `next_offset`."""
    stop = min(start + size, len(batch))
    if start == 0 and stop == len(batch):
        return batch
    piece = RecordBatch(
        batch.topic,
        batch.partition,
        batch.offsets[start:stop],
        batch.timestamps[start:stop],
        batch.keys[start:stop],
        batch.values[start:stop],
        position=batch.position if start == 0 else batch.offsets[start - 1] + 1,
        next_offset=batch.next_offset if stop == len(batch) else batch.offsets[stop - 1] + 1,
        high_watermark=batch.high_watermark,
        read_headers=None if batch.read_headers is None else (lambda: batch.headers[start:stop]),
    )
    rows = batch.attached.get(ROWS)
    if rows is not None:
        piece.attached[ROWS] = rows.cut(start, stop)
    return piece


def join_batches(batches: Sequence[RecordBatch]) -> RecordBatch:
    """Return batches of one partition, each of which goes on where the one before ends, as one; nothing may be attached to them."""
    first, last = batches[0], batches[-1]
    if len(batches) == 1:
        return first
    read_headers: Callable[[], HeaderColumn] | None = None
    if any(batch.read_headers is not None for batch in batches):
        read_headers = lambda: list(chain.from_iterable(batch.headers for batch in batches))  # noqa: E731  # typed above
    return RecordBatch(
        first.topic,
        first.partition,
        list(chain.from_iterable(batch.offsets for batch in batches)),
        list(chain.from_iterable(batch.timestamps for batch in batches)),
        list(chain.from_iterable(batch.keys for batch in batches)),
        list(chain.from_iterable(batch.values for batch in batches)),
        position=first.position,
        next_offset=last.next_offset,
        high_watermark=last.high_watermark,
        read_headers=read_headers,
    )
