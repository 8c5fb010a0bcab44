"""Columns out of aiokafka's fetch answers, without an object for each record that outlives the call.

aiokafka would turn each record into a `ConsumerRecord` in a Python generator, at three times the cost. Here a Kafka record batch
is decoded by its C loop (`list(batch)`), its fields become four columns, and the same rules apply as in
`PartitionRecords._unpack_records`: aborted transactions and control batches are left out, and the position moves past them.

Sources: Kafka protocol, record batch v2; KIP-98 (read_committed and the aborted transactions in a fetch answer).
"""

from collections.abc import Sequence
from typing import Any

from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition as DriverPartition

from engine.records import HeaderColumn, RecordBatch, TopicPartition


def unpack(
    partition: TopicPartition,
    message_set: bytes,
    aborted: Sequence[tuple[int, int]] | None,
    position: int,
    high_watermark: int,
) -> RecordBatch:
    """Return the committed records of one partition's part of a fetch answer.

    Args:
        message_set: The record batches, as they came; the last one may be cut off.
        aborted: (producer id, first offset) of the aborted transactions in it.
        position: The offset that was asked for; earlier records of the first batch are left out.
    """
    driver_partition = DriverPartition(partition.topic, partition.partition)
    records = PartitionRecords(driver_partition, MemoryRecords(message_set), aborted, position, None, None, True, READ_COMMITTED)
    return drain(records, high_watermark)


def drain(records: Any, high_watermark: int) -> RecordBatch:
    """Return everything that an aiokafka `PartitionRecords` holds; it is used up by it, and its position moved to the end.

    Raises:
        CorruptRecordException: A batch's checksum is wrong; what came before it is lost for this call, the position is not.
    """
    tp, start = records._tp, records.next_fetch_offset
    source = records._records
    committed_only = records._isolation_level == READ_COMMITTED
    offsets: list[int] = []
    timestamps: list[int] = []
    keys: list[bytes | None] = []
    values: list[bytes | None] = []
    headers: list[Any] = []
    position = start
    while source.has_next():
        batch = source.next_batch()
        if records._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"wrong checksum in {tp.topic}[{tp.partition}] at {batch.base_offset}")
        position = batch.next_offset
        if committed_only and batch.producer_id is not None and _is_aborted(records, batch):
            continue
        if batch.is_control_batch:
            continue
        found = list(batch)
        count = len(found)
        if count and found[0].offset < start:
            found = [record for record in found if record.offset >= start]
        if len(found) == position - batch.base_offset:
            offsets.extend(range(batch.base_offset, position))
        else:
            offsets += [record.offset for record in found]
        timestamps += [record.timestamp for record in found]
        keys += [record.key for record in found]
        values += [record.value for record in found]
        found_headers = [record.headers for record in found]
        if headers or any(found_headers):  # almost always none: the column begins with the first batch that has some
            headers += [[]] * (len(offsets) - len(found) - len(headers))
            headers += found_headers
    records.next_fetch_offset = position
    records._records_iterator = None
    return RecordBatch(
        tp.topic,
        tp.partition,
        offsets,
        timestamps,
        keys,
        values,
        position=start,
        next_offset=position,
        high_watermark=high_watermark,
        read_headers=(lambda: _headers(headers)) if headers else None,
    )


def _is_aborted(records: Any, batch: Any) -> bool:
    """Follow the transactions that begin or end with this batch; return whether it belongs to an aborted one."""
    records._consume_aborted_up_to(batch.base_offset)
    if batch.is_control_batch and records._contains_abort_marker(batch):
        records._aborted_producers.discard(batch.producer_id)
    return bool(batch.is_transactional and batch.producer_id in records._aborted_producers)


def _headers(raw: Sequence[Sequence[tuple[str, bytes | None]]]) -> HeaderColumn:
    """Return the headers of each record; a header without a value has an empty one."""
    return [tuple((name, b"" if value is None else value) for name, value in headers) if headers else () for headers in raw]
