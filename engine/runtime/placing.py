"""From record lines to the columns of a topic: which key, which time, which partition.

What a line leaves open is taken from the value where a source says how to read it, because records that belong together must
meet in one partition:

| | first | then | else |
|---|---|---|---|
| place | the source's key field | the line's key | the line's partition, 0 without one |
| record key | the line's key | the source's key field | none |
| timestamp | the line's `timestamp_ms` | the source's time field | that of the line before |
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine.errors import RecordError
from engine.graph import SourceSpec
from engine.keys import key_codec
from engine.records import OutputColumns, RecordBatch, TopicPartition
from engine.runtime.record_lines import LineRecord, parse_line
from state.hashing import partition_of

LINES_AT_ONCE = 10_000


class BadLine:
    """A line that is no record line."""

    __slots__ = ("error", "line", "number", "path")

    def __init__(self, path: Path, number: int, line: bytes, error: RecordError) -> None:
        self.path = path
        self.number = number
        self.line = line
        self.error = error

    def __str__(self) -> str:
        return f"{self.path}, line {self.number}: {self.error}"


def bury(bad_lines: Iterable[BadLine], timestamp_ms: int = 0) -> OutputColumns:
    """Return the dead letters of lines that are no records: the line as value, file, line number and error as headers."""
    columns = OutputColumns()
    for bad in bad_lines:
        headers = [("file", str(bad.path).encode()), ("line", b"%d" % bad.number), ("error", str(bad.error).encode())]
        columns.append(timestamp_ms, None, bad.line, headers)
    return columns


def read_lines(path: Path) -> Iterator[tuple[list[LineRecord], list[BadLine]]]:
    """Yield the records of a file and the lines that are none, some thousand lines at a time; empty lines are skipped."""
    records: list[LineRecord] = []
    bad: list[BadLine] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            stripped = line.strip()
            if not stripped:
                continue
            try:
                records.append(parse_line(stripped))
            except RecordError as error:
                bad.append(BadLine(path, number, stripped, error))
            if len(records) + len(bad) >= LINES_AT_ONCE:
                yield records, bad
                records, bad = [], []
    yield records, bad


class Placer:
    """Makes columns of the lines for one topic.

    Args:
        source: How the values are read; None where nobody says.
        first_timestamp_ms: Timestamp of records at the beginning that have none and whose value tells none.

    Attributes:
        records: Number of records placed.
        undecodable: The reasons why the source could not read some of them, counted; these go on all the same, as they are.
    """

    def __init__(self, topic: str, partitions: int, source: SourceSpec | None, first_timestamp_ms: int) -> None:
        self.topic = topic
        self.records = 0
        self.undecodable: Counter[str] = Counter()
        self._partitions = partitions
        self._partition_of = lru_cache(maxsize=100_000)(lambda key: partition_of(key, partitions))
        self._source = source
        self._wire = None if source is None else key_codec(source.key_type).wire
        self._timestamp_ms = first_timestamp_ms

    def place(self, lines: Sequence[LineRecord]) -> dict[TopicPartition, OutputColumns]:
        """Return the columns of each partition, in the order of the lines."""
        columns: dict[TopicPartition, OutputColumns] = {}
        self.records += len(lines)
        for line, (declared, time_ms) in zip(lines, self._read(lines), strict=True):
            key = declared if line.key is None else line.key
            place = declared if declared is not None else line.key
            number = (line.partition or 0) % self._partitions if place is None else self._partition_of(place)
            if line.timestamp_ms is not None:
                self._timestamp_ms = line.timestamp_ms
            elif time_ms is not None:
                self._timestamp_ms = time_ms
            partition = TopicPartition(self.topic, number)
            if partition not in columns:
                columns[partition] = OutputColumns()
            columns[partition].append(self._timestamp_ms, key, line.value, line.headers)
        return columns

    def _read(self, lines: Sequence[LineRecord]) -> Iterable[tuple[bytes | None, int | None]]:
        """Return the key's bytes and the event time as the source reads them, None where it does not."""
        source = self._source
        if source is None:
            return [(None, None)] * len(lines)
        decoded = source.codec.decode_batch(_batch(self.topic, lines))
        self.undecodable.update(str(error) for error in decoded.errors.values())
        bad = decoded.errors
        return [(None, None) if row in bad else self._fields(value) for row, value in enumerate(decoded.values)]

    def _fields(self, value: Any) -> tuple[bytes | None, int | None]:
        source = self._source
        assert source is not None and self._wire is not None
        try:
            key = None if source.key is None else source.key.get(value)
            time_ms = None if source.time is None else source.time.get(value)
            return None if key is None else self._wire(key), time_ms if type(time_ms) is int else None
        except Exception as error:  # noqa: BLE001  # the user's callable refuses the value: the task will find the same
            self.undecodable[str(error)] += 1
            return None, None


def _batch(topic: str, lines: Sequence[LineRecord]) -> RecordBatch:
    return RecordBatch(
        topic,
        0,
        range(len(lines)),
        [line.timestamp_ms or 0 for line in lines],
        [line.key for line in lines],
        [line.value for line in lines],
        position=0,
        next_offset=len(lines),
        read_headers=lambda: [line.headers for line in lines],
    )
