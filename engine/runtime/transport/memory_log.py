"""One partition's log in memory: columns in, columns out, with the offsets that Kafka would give.

A log is a row of segments; a segment is what one produce request brought, or a marker that ends a transaction. Markers take an
offset, so a transactional log has holes from the start, and compaction makes more:

    offset     0 1 2   3        4 5   6        7 8
    segment    a a a   commit   b b   abort    c c          c's transaction is open: last stable offset 7, high watermark 9
    committed  0 1 2                                        read at 0: records 0 1 2, next_offset 7

Reading and writing copy slices of lists; no object is made for a record.

Limits: nothing is ever deleted by age or size, only by `delete_below` and `compact`. Every append is durable at once.

Sources: KIP-98 (transactions, last stable offset), KIP-107 (delete records), KIP-534 (delete horizon of tombstones).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TypeVar

from engine.errors import ConfigError, StateError
from engine.records import HeaderColumn, Headers, OutputColumns, RecordBatch, TopicPartition

T = TypeVar("T")

NO_PRODUCER = -1
_SEGMENT_RECORDS = 4_096


@dataclass(slots=True)
class Segment:
    """Columns of neighbouring records, in offset order.

    Attributes:
        base, end: Offsets that it covers; after compaction it may hold fewer records than that.
        producer: Id of the producer whose transaction it belongs to, NO_PRODUCER for none.
        is_marker: It ends a transaction and holds no records.
        is_aborted: Its transaction was aborted: read_committed leaves it out.
    """

    base: int
    end: int
    offsets: Sequence[int]
    timestamps: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Headers] | None
    producer: int = NO_PRODUCER
    is_marker: bool = False
    is_aborted: bool = False

    def extend(self, columns: OutputColumns, timestamps: Sequence[int]) -> None:
        """Add records behind the last one."""
        if self.headers is not None or columns.headers is not None:
            self.headers = list(chain(self.headers or [()] * len(self.offsets), columns.headers or [()] * len(columns)))
        self.end += len(columns)
        self.offsets = range(self.base, self.end)
        self.timestamps += timestamps
        self.keys += columns.keys
        self.values += columns.values


Piece = tuple[Segment, int, int]


class PartitionLog:
    """The log of one partition.

    Args:
        compacted: Records must have keys, and `compact` works.
        append_time: The broker's time replaces the records' own (`message.timestamp.type=LogAppendTime`).
    """

    def __init__(self, partition: TopicPartition, *, compacted: bool = False, append_time: bool = False) -> None:
        self.partition = partition
        self.start = 0
        self.high_watermark = 0
        self.compacted = compacted
        self.append_time = append_time
        self._segments: list[Segment] = []
        self._ends: list[int] = []
        self._open: dict[int, int] = {}
        self._horizons_ms: dict[int, int] = {}

    @property
    def last_stable_offset(self) -> int:
        """Offset of the first record of the oldest open transaction, the high watermark if none is open."""
        return max(self.start, min(self._open.values(), default=self.high_watermark))

    def open_since(self, producer: int) -> int | None:
        """Return the offset of the first record of a producer's open transaction, None if it has none here."""
        return self._open.get(producer)

    # -- writing

    def check(self, columns: OutputColumns) -> None:
        """Refuse columns that could not be appended.

        Raises:
            ConfigError: A record without a key for a compacted topic, as Kafka refuses it.
        """
        assert len(columns.keys) == len(columns.values) == len(columns), "columns must have the same length"
        assert columns.headers is None or len(columns.headers) == len(columns), "columns must have the same length"
        if self.compacted and None in columns.keys:
            raise ConfigError(f"topic {self.partition.topic!r} is compacted: a record without a key cannot be sent to it")

    def append(self, columns: OutputColumns, now_ms: int, producer: int = NO_PRODUCER) -> int:
        """Append records (copied) and return the offset behind the last one; `check` came before.

        Args:
            producer: Its transaction is opened here if this is its first append.
        """
        if not len(columns):
            return self.high_watermark
        timestamps = [now_ms] * len(columns) if self.append_time else columns.timestamps
        last = self._segments[-1] if self._segments else None
        if producer == NO_PRODUCER and last is not None and self._is_growing(last):
            last.extend(columns, timestamps)
            self._ends[-1] = self.high_watermark = last.end
            return last.end
        base, end = self.high_watermark, self.high_watermark + len(columns)
        headers = None if columns.headers is None else list(columns.headers)
        self._add(Segment(base, end, range(base, end), list(timestamps), list(columns.keys), list(columns.values), headers, producer))
        if producer != NO_PRODUCER:
            self._open.setdefault(producer, base)
        return end

    def end_transaction(self, producer: int, *, commit: bool) -> None:
        """Write the marker that ends a producer's open transaction; nothing happens if it has none here."""
        base = self._open.pop(producer, None)
        if base is None:
            return
        if not commit:
            for segment in self._segments[bisect_right(self._ends, base) :]:
                segment.is_aborted = segment.is_aborted or segment.producer == producer
        offset = self.high_watermark
        self._add(Segment(offset, offset + 1, (), [], [], [], None, producer, is_marker=True))

    def _is_growing(self, last: Segment) -> bool:
        return (
            last.producer == NO_PRODUCER
            and len(last.offsets) < _SEGMENT_RECORDS
            and last.end == self.high_watermark
            and isinstance(last.offsets, range)
        )

    def _add(self, segment: Segment) -> None:
        self._segments.append(segment)
        self._ends.append(segment.end)
        self.high_watermark = segment.end

    # -- reading

    def read(self, position: int, records_max: int, *, committed: bool = True) -> RecordBatch:
        """Return the next records from an offset on, at most `records_max`; perhaps none, and only a later `next_offset`.

        Args:
            committed: Stop at the last stable offset and leave out aborted records; otherwise only markers are left out.
        Raises:
            StateError: The position lies outside the log.
        """
        if not self.start <= position <= self.high_watermark:
            topic, number = self.partition
            bounds = f"from {self.start} to {self.high_watermark}"
            raise StateError(f"{topic}[{number}]: offset {position} is outside the log, which goes {bounds}")
        limit = self.last_stable_offset if committed else self.high_watermark
        pieces: list[Piece] = []
        next_offset = max(position, limit)
        for index in range(bisect_right(self._ends, position), len(self._segments)):
            segment = self._segments[index]
            if segment.base >= limit:
                break
            if segment.is_marker or (committed and segment.is_aborted):
                continue
            first = bisect_left(segment.offsets, position)
            last = min(first + records_max, len(segment.offsets))
            if first < last:
                pieces.append((segment, first, last))
            records_max -= last - first
            if records_max == 0:
                next_offset = segment.offsets[last - 1] + 1
                break
        return self._batch(pieces, position, next_offset, limit)

    def _batch(self, pieces: Sequence[Piece], position: int, next_offset: int, limit: int) -> RecordBatch:
        if not pieces:  # of many partitions that are asked together, most have nothing new
            topic, number = self.partition
            return RecordBatch(topic, number, [], [], [], [], position=position, next_offset=next_offset, high_watermark=limit)
        has_headers = any(segment.headers is not None for segment, _, _ in pieces)
        return RecordBatch(
            self.partition.topic,
            self.partition.partition,
            _joined_offsets([segment.offsets[first:last] for segment, first, last in pieces]),
            _joined([segment.timestamps[first:last] for segment, first, last in pieces]),
            _joined([segment.keys[first:last] for segment, first, last in pieces]),
            _joined([segment.values[first:last] for segment, first, last in pieces]),
            position=position,
            next_offset=next_offset,
            high_watermark=limit,
            read_headers=(lambda: _headers(pieces)) if has_headers else None,
        )

    # -- deleting

    def delete_below(self, offset: int) -> None:
        """Move the log's start up to an offset; -1 stands for the high watermark.

        Raises:
            ConfigError: The offset lies behind the end, or the topic is compacted: Kafka refuses both.
        """
        topic, number = self.partition
        if self.compacted:
            raise ConfigError(f"topic {topic!r} is compacted: its records cannot be deleted by offset")
        if offset > self.high_watermark:
            raise ConfigError(f"{topic}[{number}]: records cannot be deleted below {offset}: the log ends at {self.high_watermark}")
        self.start = max(self.start, self.high_watermark if offset == -1 else offset)
        gone = bisect_right(self._ends, self.start)
        del self._segments[:gone]
        del self._ends[:gone]

    def compact(self, now_ms: int, delete_retention_ms: int) -> None:
        """Keep the newest record of each key below the last stable offset; offsets stay, so holes appear.

        Aborted records and markers go. A tombstone goes too, but only by a compaction that comes at least
        `delete_retention_ms` after the first one that met it: readers need the time to see it.
        """
        assert self.compacted, "only compacted topics are compacted"
        stable = bisect_right(self._ends, self.last_stable_offset)
        data = [segment for segment in self._segments[:stable] if not segment.is_marker and not segment.is_aborted]
        newest: dict[bytes | None, int] = {}
        for segment in data:
            newest.update(zip(segment.keys, segment.offsets, strict=True))
        horizons_ms: dict[int, int] = {}
        kept = []
        for segment in data:
            rows = []
            for row, (key, offset) in enumerate(zip(segment.keys, segment.offsets, strict=True)):
                if newest[key] != offset:
                    continue
                if segment.values[row] is None:
                    horizon_ms = self._horizons_ms.get(offset, now_ms + delete_retention_ms)
                    if now_ms >= horizon_ms:
                        continue
                    horizons_ms[offset] = horizon_ms
                rows.append(row)
            if rows:
                kept.append(_take(segment, rows))
        self._horizons_ms = horizons_ms
        self._segments[:stable] = kept
        self._ends[:stable] = [segment.end for segment in kept]


def _joined(columns: Sequence[list[T]]) -> list[T]:
    """Return columns as one; a single one as it is, since it is a copy already."""
    return columns[0] if len(columns) == 1 else list(chain.from_iterable(columns))


def _joined_offsets(columns: Sequence[Sequence[int]]) -> Sequence[int]:
    """Return offsets as one column, a range where they have no holes."""
    if len(columns) == 1:
        return columns[0]
    if columns and all(isinstance(column, range) for column in columns) and all(a[-1] + 1 == b[0] for a, b in pairwise(columns)):
        return range(columns[0][0], columns[-1][-1] + 1)
    return list(chain.from_iterable(columns))


def _headers(pieces: Sequence[Piece]) -> HeaderColumn:
    column: list[Headers] = []
    for segment, first, last in pieces:
        column += [()] * (last - first) if segment.headers is None else segment.headers[first:last]
    return column


def _take(segment: Segment, rows: Sequence[int]) -> Segment:
    return Segment(
        segment.base,
        segment.end,
        [segment.offsets[row] for row in rows],
        [segment.timestamps[row] for row in rows],
        [segment.keys[row] for row in rows],
        [segment.values[row] for row in rows],
        None if segment.headers is None else [segment.headers[row] for row in rows],
        segment.producer,
    )
