"""What a task is going to produce with its next commit: columns a topic partition, with marks to go back to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from engine.errors import RecordError
from engine.records import Headers, OutputColumns, TopicPartition
from engine.topics import RECORD_BYTES_MAX

_OVERHEAD_BYTES = 100
"""What Kafka adds to a record that stands alone in its batch: 61 bytes, and lengths and differences of at most 39."""


@dataclass(frozen=True, slots=True)
class OutputMark:
    """A point to roll back to."""

    lengths: Sequence[tuple[list[OutputColumns], Sequence[int]]]
    records: int
    payload_bytes: int


class Outputs:
    """Columns to produce, placed by the hash of their key as Java clients do.

    Args:
        partition_counts: Number of partitions of each topic; others have `partitions`.
        own_partition: Where records without a key go.
        key_hashes: Hashes of the bytes of some keys; cached here, since the same keys come again.
        bytes_max: Largest record that a topic takes; `RECORD_BYTES_MAX` for others.
        hashes_max: How many hashes are kept from one commit to the next.
    """

    def __init__(
        self,
        partition_counts: Mapping[str, int],
        *,
        partitions: int,
        own_partition: int,
        key_hashes: Callable[[Sequence[bytes]], list[int]],
        bytes_max: Mapping[str, int] | None = None,
        hashes_max: int = 200_000,
    ) -> None:
        self._partition_counts = partition_counts
        self._partitions = partitions
        self._own_partition = own_partition
        self._bytes_max = bytes_max or {}
        self._key_hashes = key_hashes
        self._hashes_max = hashes_max
        self._hashes: dict[bytes | None, int] = {None: own_partition}
        self._topics: dict[str, list[OutputColumns]] = {}
        self.records = 0
        self.payload_bytes = 0

    def add(
        self,
        topic: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps: Sequence[int],
        headers: Sequence[Headers] | None = None,
        placed_by: Sequence[bytes] | None = None,
    ) -> None:
        """Add records in order; `placed_by` gives the key bytes that decide about the partition where they are not the key.

        Raises:
            RecordError: One is larger than its topic takes; nothing was added.
        """
        sizes = list(map(len, filter(None, values)))
        half = self._bytes_max.get(topic, RECORD_BYTES_MAX) // 2
        if headers is not None or (sizes and max(sizes) > half) or _any_longer(keys, half):
            self._check_sizes(topic, keys, values, headers)
        partitions = self._columns(topic)
        count = len(partitions)
        self.records += len(keys)
        self.payload_bytes += sum(sizes)
        if headers is not None:
            for key, value, timestamp_ms, row_headers, place in zip(keys, values, timestamps, headers, placed_by or keys, strict=True):
                partitions[self._hash(place) % count].append(timestamp_ms, key, value, row_headers)
            return
        places = placed_by or keys
        hashes = list(map(self._hashes.get, places))
        if None in hashes:
            self._learn([place for place, number in zip(places, hashes, strict=True) if number is None])
            hashes = list(map(self._hashes.get, places))
        used = {number % count for number in set(hashes)}  # type: ignore[operator]  # no None among them
        if len(used) == 1:  # the rule where keys stay what they were
            _extend(partitions[used.pop()], timestamps, keys, values)
        else:
            _spread(partitions, hashes, timestamps, keys, values)

    def fits(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers = ()) -> bool:
        """Return whether a topic takes a record of this size."""
        return _record_bytes(key, value, headers) <= self._bytes_max.get(topic, RECORD_BYTES_MAX)

    def _check_sizes(
        self, topic: str, keys: Sequence[bytes | None], values: Sequence[bytes | None], headers: Sequence[Headers] | None
    ) -> None:
        for key, value, own in zip(keys, values, repeat(()) if headers is None else headers, strict=False):
            if not self.fits(topic, key, value, own):
                raise RecordError(
                    f"a record of {_record_bytes(key, value, own):,} bytes is more than topic {topic!r} takes "
                    f"({self._bytes_max.get(topic, RECORD_BYTES_MAX):,}): make it smaller, or raise max.message.bytes of the topic "
                    "and restart the worker"
                )

    def add_to(self, topic: str, partition: int, timestamp_ms: int, key: bytes | None, value: bytes | None, headers: Headers = ()) -> None:
        """Add one record to a given partition (control records)."""
        self._columns(topic)[partition].append(timestamp_ms, key, value, headers)
        self.records += 1
        self.payload_bytes += len(value or b"")

    def partitions_with_records(self, topic: str) -> list[int]:
        """Return the partitions of a topic that the next commit sends to."""
        return [number for number, columns in enumerate(self._columns(topic)) if len(columns)]

    def partition_count(self, topic: str) -> int:
        """Return the number of partitions of a topic."""
        return self._partition_counts.get(topic, self._partitions)

    def mark(self) -> OutputMark:
        """Return the present end of all columns."""
        return OutputMark(
            [(partitions, [len(columns) for columns in partitions]) for partitions in self._topics.values()],
            self.records,
            self.payload_bytes,
        )

    def rollback(self, mark: OutputMark) -> None:
        """Drop what was added since a mark."""
        kept = {id(partitions): lengths for partitions, lengths in mark.lengths}
        for partitions in self._topics.values():
            lengths = kept.get(id(partitions), [0] * len(partitions))
            for columns, length in zip(partitions, lengths, strict=True):
                del columns.timestamps[length:], columns.keys[length:], columns.values[length:]
                if columns.headers is not None:
                    del columns.headers[length:]
        self.records, self.payload_bytes = mark.records, mark.payload_bytes

    def take(self) -> dict[TopicPartition, OutputColumns]:
        """Return everything and start anew."""
        taken = {
            TopicPartition(topic, number): columns
            for topic, partitions in self._topics.items()
            for number, columns in enumerate(partitions)
            if len(columns)
        }
        self._topics = {}
        self.records = self.payload_bytes = 0
        if len(self._hashes) > self._hashes_max:
            self._hashes = {None: self._own_partition}
        return taken

    def _columns(self, topic: str) -> list[OutputColumns]:
        partitions = self._topics.get(topic)
        if partitions is None:
            partitions = self._topics[topic] = [OutputColumns() for _ in range(self.partition_count(topic))]
        return partitions

    def _hash(self, key: bytes | None) -> int:
        number = self._hashes.get(key)
        if number is None:
            self._learn([key])
            number = self._hashes[key]
        return number

    def _learn(self, places: Sequence[Any]) -> None:
        different = list(dict.fromkeys(places))
        self._hashes.update(zip(different, self._key_hashes(different), strict=True))


def _any_longer(keys: Sequence[bytes | None], length: int) -> bool:
    """Return whether one of the keys is longer; mostly all of them together are not, and that is known at once."""
    try:
        together = len(b"".join(keys))  # type: ignore[arg-type]  # a None raises
    except TypeError:
        together = len(b"".join(filter(None, keys)))
    return together > length and max(map(len, filter(None, keys))) > length


def _record_bytes(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """Return the size of a batch that holds only this record, or a little more."""
    size = _OVERHEAD_BYTES + len(key or b"") + len(value or b"")
    return size + sum(len(name) + len(content or b"") + 10 for name, content in headers) if headers else size


def _extend(columns: OutputColumns, timestamps: Sequence[int], keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> None:
    """Add records to one partition."""
    columns.timestamps += timestamps
    columns.keys += keys
    columns.values += values
    if columns.headers is not None:
        columns.headers += [()] * len(keys)


def _spread(
    partitions: Sequence[OutputColumns],
    hashes: Sequence[Any],
    timestamps: Sequence[int],
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
) -> None:
    """Add records to the partitions that their hashes give."""
    count = len(partitions)
    for number, timestamp_ms, key, value in zip(hashes, timestamps, keys, values, strict=True):
        columns = partitions[number % count]
        columns.timestamps.append(timestamp_ms)
        columns.keys.append(key)
        columns.values.append(value)
        if columns.headers is not None:
            columns.headers.append(())
