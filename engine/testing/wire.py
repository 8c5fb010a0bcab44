"""Between what a test writes and what stands in a topic: values, keys and times, both ways."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from engine.errors import ConfigError
from engine.graph import SourceSpec
from engine.keys import key_codec, wire_bytes
from engine.plan import Plan
from engine.records import RecordBatch
from state.hashing import partition_of


@dataclass(frozen=True, slots=True)
class WireRecord:
    """A record as it is produced."""

    partition: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


def to_wire(
    plan: Plan, topic: str, value: Any, *, key: Any = None, at: int | datetime | None = None, partition: int | None = None, now_ms: int
) -> WireRecord:
    """Return a record for a source topic.

    Args:
        value: A Struct or dict (encoded by the source's codec, a dict as JSON), raw bytes, or None for a tombstone.
        key: The record key; without it the source's key field decides.
        at: The Kafka timestamp, and the value's time field where a dict lacks it; `now_ms` without it.
        partition: Where to put it instead of by its key.
    Raises:
        ConfigError: Not a source topic, or no such partition.
    """
    source = plan.fed_topics.get(topic)
    if source is None:
        raise ConfigError(f"{topic!r} is no source topic; there are {', '.join(plan.fed_topics)}")
    partitions = source.broadcast_partitions or plan.partitions
    timestamp_ms = now_ms if at is None else time_ms(at)
    field = None if source.time is None else source.time.field
    if at is not None and field is not None and isinstance(value, dict):
        value = {field: timestamp_ms, **value}
    raw_key = None if key is None else wire_bytes(key)
    if partition is None:
        place = raw_key if raw_key is not None else _key_of(source, value)
        partition = 0 if place is None else partition_of(place, partitions)
    if not 0 <= partition < partitions:
        raise ConfigError(f"partition {partition} does not exist; there are {partitions}")
    return WireRecord(partition, timestamp_ms, raw_key, _encode(source.codec, value))


def time_ms(time: int | datetime) -> int:
    """Return UTC milliseconds; a datetime must know its zone."""
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise ConfigError(f"{time!r} has no time zone; use an aware datetime, such as datetime(2025, 1, 1, tzinfo=UTC)")
        return round(time.timestamp() * 1000)
    return time


def key_decoder(plan: Plan, topic: str) -> Callable[[bytes], Any]:
    """Return what reads the keys of a topic that a pipeline writes: by their declared type, else as text."""
    for graph in plan.graphs.values():
        for node in graph.nodes:
            if node.sink is not None and node.sink.topic == topic:
                key_type = node.key_type if node.sink.key is None else node.sink.key.type
                return text if key_type is Any else key_codec(key_type).decode
    return text


def decode_value(raw: bytes | None) -> Any:
    """Return a value as JSON gives it, else the bytes."""
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return raw


def text(raw: bytes) -> Any:
    """Return bytes as text where they are text."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _encode(codec: Any, value: Any) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, dict):
        return msgspec.json.encode(value)
    return codec.encode_column([value])[0]  # type: ignore[no-any-return]


def _key_of(source: SourceSpec, value: Any) -> bytes | None:
    """Return the key that the source will read from a value, None if it cannot."""
    if source.key is None or value is None:
        return None
    if isinstance(value, (bytes, dict)):
        raw = value if isinstance(value, bytes) else msgspec.json.encode(value)
        decoded = source.codec.decode_batch(RecordBatch("", 0, [0], [0], [None], [raw], position=0, next_offset=1))
        if decoded.errors:
            return None
        value = decoded.values[0]
    try:
        return wire_bytes(source.key.get(value))
    except Exception:  # noqa: BLE001  # the task will find the same fault and say what it is
        return None
