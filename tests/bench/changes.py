"""Speed of decoding Debezium's records, as a fraction of plain decoding of the same bytes: JSON by msgspec, Avro by fastavro.

The bytes are row changes like those of the shop (an envelope with the source block, a row before and after); both decoders work
in one process, one after the other, by CPU seconds, so the ratio does not depend on what else the machine does.
"""

import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import fastavro
import msgspec

from cdc import debezium
from engine.records import RecordBatch

BATCH = 1_000


class Order(msgspec.Struct, frozen=True):
    """The row."""

    id: int
    user_id: int
    status: str
    amount_cents: int
    note: str | None


@dataclass(frozen=True, slots=True)
class Decoding:
    """Records a CPU second: ours, and those of the plain decoder."""

    name: str
    ours: int
    plain: int

    @property
    def fraction(self) -> float:
        """Ours over plain."""
        return self.ours / self.plain


def measure(records: int) -> list[Decoding]:
    """Return the speeds of JSON and of Avro, into Structs and into dicts."""
    documents = [_envelope(number) for number in range(min(records, BATCH))]
    rounds = max(1, records // len(documents))
    text = [json.dumps(document).encode() for document in documents]
    schema = fastavro.parse_schema(_schema())
    packed = [b"\0\0\0\0\1" + _avro(schema, document) for document in documents]
    plain_json = msgspec.json.Decoder().decode

    def plain_avro() -> None:
        for raw in packed:
            fastavro.schemaless_reader(io.BytesIO(raw[5:]), schema, None)

    plain: dict[str, Callable[[], object]] = {"json": lambda: [plain_json(raw) for raw in text], "avro": plain_avro}
    found = []
    for name, values, registry in (("json", text, None), ("avro", packed, {1: _schema()})):
        for rows in (Order, dict):
            codec: Any = debezium(rows, registry=registry)
            batch = _batch(values)
            decoded = codec.decode_batch(batch)
            assert not decoded.errors and decoded.values[1].after is not None, decoded.errors
            act = lambda codec=codec, batch=batch: codec.decode_batch(batch)  # noqa: E731
            ours, theirs = _speeds((act, plain[name]), rounds, len(values))
            found.append(Decoding(f"{name} into {rows.__name__}", ours, theirs))
    return found


def _speeds(acts: Sequence[Callable[[], object]], rounds: int, records: int) -> list[int]:
    """Return records a CPU second of each: the best of all rounds, in turns, so that what else runs slows both alike."""
    best = [float("inf")] * len(acts)
    for _ in range(rounds + 1):
        for number, act in enumerate(acts):
            begun = time.process_time()
            act()
            best[number] = min(best[number], time.process_time() - begun)
    return [round(records / each) for each in best]


def _envelope(number: int) -> dict[str, Any]:
    row = {"id": number, "user_id": number % 997, "status": "paid", "amount_cents": number * 7 % 10_000, "note": None}
    source = {
        "version": "3.5.0.Final",
        "connector": "postgresql",
        "name": "pg",
        "ts_ms": 1_767_225_600_000 + number,
        "snapshot": "false",
        "db": "shop",
        "sequence": json.dumps([str(10_000 + number), str(10_001 + number)]),
        "schema": "public",
        "table": "orders",
        "txId": 700 + number,
        "lsn": 10_001 + number,
        "xmin": None,
    }
    before = {**row, "status": "new"}
    return {"before": before, "after": row, "source": source, "transaction": None, "op": "u", "ts_ms": 1_767_225_600_100 + number}


def _schema() -> dict[str, Any]:
    def optional(kind: Any) -> dict[str, Any]:
        return {"type": ["null", kind], "default": None}

    row = {
        "type": "record",
        "name": "Value",
        "fields": [
            {"name": "id", "type": "int"},
            {"name": "user_id", "type": "int"},
            {"name": "status", "type": "string"},
            {"name": "amount_cents", "type": "long"},
            {"name": "note", **optional("string")},
        ],
    }
    texts = ("version", "connector", "name", "db", "schema", "table")
    source = {
        "type": "record",
        "name": "Source",
        "namespace": "io.debezium.connector.postgresql",
        "fields": [
            *({"name": name, "type": "string"} for name in texts[:3]),
            {"name": "ts_ms", "type": "long"},
            {"name": "snapshot", **optional("string")},
            {"name": "db", "type": "string"},
            {"name": "sequence", **optional("string")},
            *({"name": name, "type": "string"} for name in texts[4:]),
            *({"name": name, **optional("long")} for name in ("txId", "lsn", "xmin")),
        ],
    }
    block = {
        "type": "record",
        "name": "block",
        "namespace": "event",
        "fields": [
            {"name": "id", "type": "string"},
            *({"name": name, "type": "long"} for name in ("total_order", "data_collection_order")),
        ],
    }
    return {
        "type": "record",
        "name": "Envelope",
        "namespace": "pg.public.orders",
        "fields": [
            {"name": "before", **optional(row)},
            {"name": "after", **optional("Value")},
            {"name": "source", "type": source},
            {"name": "transaction", **optional(block)},
            {"name": "op", "type": "string"},
            {"name": "ts_ms", **optional("long")},
        ],
    }


def _avro(schema: Any, document: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, document)
    return out.getvalue()


def _batch(values: list[bytes]) -> RecordBatch:
    count = len(values)
    keys: list[bytes | None] = [None] * count
    return RecordBatch("pg.public.orders", 0, range(count), [0] * count, keys, values, position=0, next_offset=count)
