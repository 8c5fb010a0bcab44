"""Columns in Kafka's record format: aiokafka's batches, filled by its C builder.

`AIOKafkaProducer.send` would cost a future and three calls of Python for each record. Records without headers, nearly all, go from the
columns into the builder without any Python between two records; the careful way, record by record, is for the others.

    refused = None in map(builder.append, offsets, timestamps, keys, values, …)      stops at the first record that has no room

tests/engine/runtime/test_kafka_batches.py compares the two.
"""

from itertools import count, repeat
from typing import Any

from engine.records import OutputColumns

_NO_HEADERS: list[tuple[str, bytes | None]] = []


def build_batches(driver: Any, columns: OutputColumns) -> list[Any]:
    """Return columns as batches of a producer, closed; a record larger than a batch gets one of its own."""
    batches = _fill(driver, columns) if columns.headers is None else _fill_carefully(driver, columns)
    for batch in batches:
        batch.close()
    return batches


def _fill(driver: Any, columns: OutputColumns) -> list[Any]:
    timestamps, keys, values = columns.timestamps, columns.keys, columns.values
    rows = (iter(timestamps), iter(keys), iter(values), repeat(_NO_HEADERS))
    batch = driver.create_batch()
    batches, offsets, begin = [batch], count(), 0
    while None in map(batch._builder.append, offsets, *rows):
        batch._relative_offset = next(offsets) - 1
        begin += batch._relative_offset
        batch = driver.create_batch()
        batches.append(batch)
        batch._builder.append(0, timestamps[begin], keys[begin], values[begin], _NO_HEADERS)  # the first one always has room
        offsets = count(1)
    batch._relative_offset = len(columns) - begin
    return batches


def _fill_carefully(driver: Any, columns: OutputColumns) -> list[Any]:
    batch = driver.create_batch()
    batches = [batch]
    headers = columns.headers if columns.headers is not None else repeat(())
    for timestamp, key, value, header in zip(columns.timestamps, columns.keys, columns.values, headers, strict=False):
        if batch.append(timestamp=timestamp, key=key, value=value, headers=list(header)) is None:
            batch = driver.create_batch()
            batches.append(batch)
            batch.append(timestamp=timestamp, key=key, value=value, headers=list(header))
    return batches
