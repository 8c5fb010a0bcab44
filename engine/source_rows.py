"""From the records of a source topic to columns: the good ones decoded, with key and event time, and what is wrong with the others.

    records   r0  r1  r2  r3  r4          r1 cannot be decoded, r3 is a tombstone that says nothing new
    Rows      keys, values, timestamps of r0 r2 r4;   numbers 0 2 4;   errors {1: …};   skipped {3}

Nothing is done about a bad record here: a batch may be looked at before it is taken, and is read once for both.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from engine.block import MAX_TIME
from engine.codecs import Decoded
from engine.errors import RecordError
from engine.graph import SourceSpec
from engine.keys import key_codec
from engine.records import RecordBatch

C = TypeVar("C")

ROWS = "rows"
"""Where a batch keeps what has been read of it ahead of time."""

_WHOLE = {int}


@dataclass(frozen=True, slots=True)
class Rows:
    """What a batch holds, in columns of the same length.

    Attributes:
        timestamps: Event times.
        numbers: Row in the batch of each, ascending; None: it is all rows.
        errors: Why the record of a row is bad.
        skipped: Rows that are no records of the stream and not bad either.
    """

    keys: Sequence[Any]
    values: Sequence[Any]
    timestamps: Sequence[int]
    numbers: Sequence[int] | None = None
    errors: dict[int, Exception] = field(default_factory=dict)
    skipped: set[int] = field(default_factory=set)

    def cut(self, start: int, stop: int) -> "Rows":
        """Return what the rows of the batch from `start` on, before `stop`, hold."""
        if self.numbers is None:
            return Rows(self.keys[start:stop], self.values[start:stop], self.timestamps[start:stop])
        first, end = bisect_left(self.numbers, start), bisect_left(self.numbers, stop)
        return Rows(
            self.keys[first:end],
            self.values[first:end],
            self.timestamps[first:end],
            [row - start for row in self.numbers[first:end]],
            {row - start: error for row, error in self.errors.items() if start <= row < stop},
            {row - start for row in self.skipped if start <= row < stop},
        )

    def all_times(self, batch: RecordBatch) -> Sequence[int]:
        """Return an event time for each row of their batch; one that is bad or left out has that of the row before it."""
        if self.numbers is None:
            return self.timestamps
        good = dict(zip(self.numbers, self.timestamps, strict=True))
        reached = batch.timestamps[0] if len(batch) else 0
        return [reached := good.get(row, reached) for row in range(len(batch))]


class RowReader:
    """Reads the batches of a source."""

    def __init__(self, spec: SourceSpec) -> None:
        self._spec = spec
        self._decode_key: Callable[[bytes], Any] = key_codec(spec.key_type).decode

    def read(self, batch: RecordBatch) -> Rows:
        """Return the columns of a batch; whatever is bad about a record is in them, never raised."""
        decoded = self._spec.codec.decode_batch(batch)
        if not decoded.errors:
            with suppress(Exception):  # selectors are user code: which record it was is found record by record
                return self._read_at_once(batch, decoded)
        return self._read_each(batch, decoded)

    def _read_at_once(self, batch: RecordBatch, decoded: Decoded[Any]) -> Rows:
        time = self._spec.time
        values, raw_keys, timestamps, numbers = decoded.values, batch.keys, batch.timestamps, None
        if decoded.skipped:
            numbers = [row for row in range(len(batch)) if row not in decoded.skipped]
            values, raw_keys, timestamps = _pick(values, numbers), _pick(raw_keys, numbers), _pick(timestamps, numbers)
        keys = self._keys(raw_keys, values)
        if time is not None:
            timestamps = list(map(time.get, values))
            if time.type is not int or time.field is None:  # the codec has seen to an int field; nobody to what a callable returns
                require_whole(timestamps)
        require_bounds(timestamps)
        return Rows(keys, values, timestamps, numbers, {}, decoded.skipped)

    def _keys(self, raw_keys: Sequence[bytes | None], values: list[Any]) -> list[Any]:
        if self._spec.key is not None:
            return list(map(self._spec.key.get, values))
        if None in raw_keys:
            return [None if key is None else self._decode_key(key) for key in raw_keys]
        return list(map(self._decode_key, raw_keys))  # type: ignore[arg-type]  # no None among them

    def _read_each(self, batch: RecordBatch, decoded: Decoded[Any]) -> Rows:
        keys: list[Any] = []
        values: list[Any] = []
        timestamps: list[int] = []
        numbers: list[int] = []
        errors: dict[int, Exception] = {}
        for row, value in enumerate(decoded.values):
            if row in decoded.skipped:
                continue
            deletes = self._spec.tombstones and batch.values[row] is None
            if row in decoded.errors and not deletes:
                errors[row] = decoded.errors[row]
                continue
            try:
                key, timestamp_ms = self._read_one(batch, row, value, deletes=deletes)
            except Exception as raised:  # noqa: BLE001  # selectors are user code: the record is bad
                errors[row] = raised
                continue
            keys.append(key)
            values.append(value)
            timestamps.append(timestamp_ms)
            numbers.append(row)
        return Rows(keys, values, timestamps, numbers, errors, decoded.skipped)

    def _read_one(self, batch: RecordBatch, row: int, value: Any, *, deletes: bool) -> tuple[Any, int]:
        spec, raw_key = self._spec, batch.keys[row]
        if spec.key is not None and not deletes:
            key = spec.key.get(value)
        else:
            key = None if raw_key is None else self._decode_key(raw_key)
        timestamp_ms = batch.timestamps[row] if spec.time is None or deletes else spec.time.get(value)
        require_whole((timestamp_ms,))
        require_bounds((timestamp_ms,))
        return key, timestamp_ms


def require_whole(timestamps: Sequence[Any]) -> None:
    """Raise `RecordError` for what is no whole number."""
    if set(map(type, timestamps)) <= _WHOLE:
        return
    wrong = next(timestamp_ms for timestamp_ms in timestamps if type(timestamp_ms) is not int)
    raise RecordError(f"the event time must be a whole number of milliseconds, not {wrong!r}")


def require_bounds(timestamps: Sequence[int]) -> None:
    """Raise `RecordError` for a time that is too far away: JSON knows no largest int, and Kafka's timestamps are any 64 bits."""
    if not len(timestamps):
        return
    for timestamp_ms in (min(timestamps), max(timestamps)):
        if not -(2**62) < timestamp_ms < MAX_TIME // 2:
            raise RecordError(f"the event time {timestamp_ms} is beyond what 64 bits leave room for")


def _pick(column: Sequence[C], rows: Sequence[int]) -> list[C]:
    """Return the given rows of a column."""
    return [column[row] for row in rows]
