"""Columns of Kafka's record batches, against aiokafka's own records; no broker needed."""

import struct

import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition as DriverPartition
from hypothesis import given
from hypothesis import strategies as st

from engine.records import RecordBatch, TopicPartition
from engine.runtime.transport.kafka.columns import unpack

_TP = TopicPartition("t", 3)
_GZIP, _TRANSACTIONAL, _CONTROL = 1, 0x10, 0x20
_ABORT, _COMMIT = 0, 1


def _batch(first: int, records: list[tuple[int, bytes | None, bytes | None]], producer: int = -1, *, gzip: bool = False) -> bytes:
    """Return a record batch whose (delta, key, value) records begin at an offset; deltas may leave holes, as compaction does."""
    builder = DefaultRecordBatchBuilder(2, _GZIP if gzip else 0, int(producer >= 0), producer, 0, 0, 1 << 20)
    for delta, key, value in records:
        # The first of a batch may well be the latest: times of their own go back and forth.
        builder.append(delta, 1_000 - delta * 3 % 7, key, value, [("h", b"%d" % delta), ("none", None)] if delta % 2 else [])
    return _at(bytes(builder.build()), first)


def _marker(first: int, producer: int, kind: int) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, 1, producer, 0, 0, 1 << 20)
    builder.append(0, 1_000, struct.pack(">hh", 0, kind), struct.pack(">hi", 0, 0), [])
    raw = bytearray(builder.build())
    raw[21:23] = struct.pack(">h", _TRANSACTIONAL | _CONTROL)
    return _with_checksum(_at(bytes(raw), first))


def _at(raw: bytes, first: int) -> bytes:
    return struct.pack(">q", first) + raw[8:]


def _with_checksum(raw: bytes) -> bytes:
    from aiokafka.record._crc32c import crc

    return raw[:17] + struct.pack(">I", crc(raw[21:])) + raw[21:]


def _oracle(raw: bytes, aborted: list[tuple[int, int]], position: int) -> tuple[list[tuple[object, ...]], int]:
    """Return what aiokafka itself makes of it, record by record."""
    records = PartitionRecords(DriverPartition(*_TP), MemoryRecords(raw), list(aborted), position, None, None, True, READ_COMMITTED)
    rows: list[tuple[object, ...]] = [
        (r.offset, r.timestamp, r.key, r.value, tuple((name, value or b"") for name, value in r.headers)) for r in records
    ]
    return rows, records.next_fetch_offset


def _rows(batch: RecordBatch) -> list[tuple[object, ...]]:
    return list(zip(batch.offsets, batch.timestamps, batch.keys, batch.values, map(tuple, batch.headers), strict=True))


_blocks = st.lists(
    st.tuples(
        st.sampled_from(["plain", "committed", "aborted"]),
        st.integers(0, 4),  # a hole before it
        st.lists(
            st.tuples(st.integers(0, 2), st.none() | st.binary(max_size=3), st.none() | st.binary(max_size=3)), min_size=1, max_size=5
        ),
        st.booleans(),
    ),
    max_size=6,
)


@given(_blocks, st.integers(0, 12))
def test_unpack_of_any_log_gives_what_aiokafka_gives(
    blocks: list[tuple[str, int, list[tuple[int, bytes | None, bytes | None]], bool]], skip: int
) -> None:
    raw, aborted, offset, position = b"", [], 0, 0
    for producer, (kind, hole, shape, gzip) in enumerate(blocks):
        offset += hole
        deltas = 0
        records: list[tuple[int, bytes | None, bytes | None]] = []
        for gap, key, value in shape:
            deltas += gap if records else 0
            records.append((deltas, key, value))
            deltas += 1
        raw += _batch(offset, records, -1 if kind == "plain" else producer, gzip=gzip)
        if kind == "aborted":
            aborted.append((producer, offset))
        position = min(skip, offset + deltas - 1) if producer == 0 else position  # a broker begins with the batch of the offset
        offset += deltas
        if kind != "plain":
            raw += _marker(offset, producer, _COMMIT if kind == "committed" else _ABORT)
            offset += 1
    batch = unpack(_TP, raw, aborted, position, 77)
    rows, next_offset = _oracle(raw, aborted, position)
    assert _rows(batch) == rows
    assert (batch.next_offset, batch.high_watermark, batch.position) == (next_offset, 77, position)


def test_unpack_of_markers_only_gives_no_record_but_moves_on() -> None:
    batch = unpack(_TP, _marker(5, 1, _COMMIT) + _marker(6, 2, _ABORT), [], 5, 7)
    assert (len(batch), batch.position, batch.next_offset) == (0, 5, 7)
    assert list(batch.headers) == []


def test_unpack_of_a_cut_off_last_batch_leaves_it_for_the_next_fetch() -> None:
    whole = _batch(0, [(0, b"k", b"v")])
    batch = unpack(_TP, whole + _batch(1, [(0, b"k", b"w")])[:-3], [], 0, 2)
    assert (list(batch.values), batch.next_offset) == ([b"v"], 1)


def test_unpack_of_a_damaged_batch_raises() -> None:
    raw = bytearray(_batch(0, [(0, b"k", b"value")]))
    raw[-3] ^= 0xFF
    with pytest.raises(CorruptRecordException, match=r"t\[3\] at 0"):
        unpack(_TP, bytes(raw), [], 0, 1)
