"""Captured records: from Debezium 3.5.0.Final on PostgreSQL 15.18, through Kafka Connect 4.3.1; nothing in them was edited."""

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

from engine.codecs import Decoded
from engine.records import RecordBatch

FOLDER = Path(__file__).parent / "fixtures"


@cache
def lines(name: str) -> list[dict[str, Any]]:
    """Return the records of a capture, ordered by topic, partition and offset; keys, values and headers as bytes."""
    binary = ".avro" in name or name.startswith("avro")

    def raw(text: str | None) -> bytes | None:
        return None if text is None else base64.b64decode(text) if binary else text.encode()

    found = [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text().splitlines()]
    return [{**r, "key": raw(r["key"]), "value": raw(r["value"]), "headers": [(h, raw(v)) for h, v in r["headers"]]} for r in found]


def schemas(name: str) -> dict[int, Any]:
    """Return the Avro schemas of a capture by id."""
    return {int(key): value for key, value in json.loads((FOLDER / f"{name}.schemas.json").read_text()).items()}


def batch(records: list[dict[str, Any]]) -> RecordBatch:
    """Return records as a batch (their topics may differ: the last one names it)."""
    return RecordBatch(
        records[-1]["topic"],
        records[-1]["partition"],
        [r["offset"] for r in records],
        [r["timestamp_ms"] for r in records],
        [r["key"] for r in records],
        [r["value"] for r in records],
        position=0,
        next_offset=len(records),
        read_headers=lambda: [r["headers"] for r in records],
    )


def of_topic(name: str, end: str) -> list[dict[str, Any]]:
    """Return the records of the topics whose name ends so."""
    return [record for record in lines(name) if record["topic"].endswith(end)]


def decode(codec: Any, records: list[dict[str, Any]]) -> Decoded[Any]:
    """Return what a codec makes of records."""
    decoded: Decoded[Any] = codec.decode_batch(batch(records))
    return decoded


def good(codec: Any, records: list[dict[str, Any]]) -> list[Any]:
    """Return the values of records that must all be good; skipped ones left out."""
    decoded = decode(codec, records)
    assert not decoded.errors, {row: str(error) for row, error in decoded.errors.items()}
    return [value for row, value in enumerate(decoded.values) if row not in decoded.skipped]


def captures(*kinds: str) -> list[str]:
    """Return the names of all captures of the given encodings ("json", "jsonschema", "avro")."""
    return sorted(path.name[: -len(".jsonl")] for path in FOLDER.glob("*.jsonl") if path.name[: -len(".jsonl")].rsplit(".", 1)[-1] in kinds)
