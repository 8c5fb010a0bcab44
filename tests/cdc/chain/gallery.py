"""Captures the gallery: every type of `gallery_tables` in every mode of the connector, beside what PostgreSQL itself says of each row.

    python -m tests.cdc.chain.gallery tests/cdc/fixtures/gallery

One connector for each mode and encoding reads all tables: the rows 1... by its snapshot, the rows 101... from the log. Per capture it
writes `MODE.ENCODING.jsonl.gz` (lines as in the other fixtures), for Avro `MODE.avro.schemas.json.gz` too, and once `truth.json.gz`.
"""

import asyncio
import base64
import gzip
import json
import lzma
import sys
import urllib.request
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from engine.records import TopicPartition
from engine.runtime.transports import make_transport
from tests.apicurio_server import ApicurioServer
from tests.cdc.chain.connect import Connect, connector
from tests.cdc.chain.gallery_tables import EXTENSIONS, TABLES, TYPES, inserts, statements, truth
from tests.cdc.chain.postgres import Postgres
from tests.cdc.chain.waiting import until
from tests.kafka_server import KafkaServer

MODES: dict[str, dict[str, str]] = {
    "default": {},
    "connect": {
        "decimal.handling.mode": "string", "time.precision.mode": "connect", "interval.handling.mode": "string",
        "hstore.handling.mode": "map", "binary.handling.mode": "base64", "include.unknown.datatypes": "true",
    },
    "isostring": {
        "decimal.handling.mode": "double", "time.precision.mode": "isostring", "binary.handling.mode": "hex",
        "include.unknown.datatypes": "true", "money.fraction.digits": "3",
    },
    "adaptive_micro": {
        "time.precision.mode": "adaptive_time_microseconds", "interval.handling.mode": "string", "hstore.handling.mode": "map",
        "binary.handling.mode": "base64-url-safe",
    },
    "micro": {"time.precision.mode": "microseconds"},
    "nano": {"time.precision.mode": "nanoseconds", "interval.handling.mode": "string"},
}  # fmt: skip
ENCODINGS = {"default": ("jsonschema", "json", "avro"), "connect": ("jsonschema", "avro"), "adaptive_micro": ("jsonschema", "avro")}


def main() -> int:
    """Capture everything."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        kafka = stack.enter_context(KafkaServer())
        postgres = stack.enter_context(Postgres())
        apicurio = ApicurioServer().start()
        stack.callback(apicurio.stop)
        connect = Connect(kafka.bootstrap, heap_mb=1024)
        stack.callback(connect.stop)
        connect.start()
        _capture(folder, f"kafka://{kafka.bootstrap}", postgres, connect, apicurio)
    return 0


def _capture(folder: Path, broker: str, postgres: Postgres, connect: Connect, apicurio: ApicurioServer) -> None:
    names = {f"{mode}.{encoding}": (mode, encoding) for mode in MODES for encoding in ENCODINGS.get(mode, ("jsonschema",))}
    snapshot = sum(1 for table, columns in TABLES.items() for _ in inserts(table, columns, 1))
    with postgres.connect() as connection:
        for statement in (*(f"create extension {name}" for name in EXTENSIONS), TYPES):
            connection.execute(statement)
        for table, columns in TABLES.items():
            for statement in (*statements(table, columns), *inserts(table, columns, 1)):
                connection.execute(statement)
        for name, (mode, encoding) in names.items():
            connect.put(name, _config(postgres, name, mode, encoding, apicurio))
            connect.wait_streaming(name, postgres)
            until(f"{name} has its snapshot", lambda name=name: len(asyncio.run(records_of(broker, name))) >= snapshot)  # type: ignore[misc]
        for table, columns in TABLES.items():
            for statement in inserts(table, columns, 101):
                connection.execute(statement)
        told = {table: said(connection, truth(table, columns)) for table, columns in TABLES.items()}
    columns_of = {table: {f"c_{column.name}": column.type for column in columns} for table, columns in TABLES.items()}
    write(folder / "truth.json.gz", json.dumps({"columns": columns_of, "rows": told}, ensure_ascii=False))
    for name, (_, encoding) in names.items():
        until(f"{name} has everything", lambda name=name: len(asyncio.run(records_of(broker, name))) >= 2 * snapshot)  # type: ignore[misc]
        save(folder, name, asyncio.run(records_of(broker, name)), apicurio if encoding == "avro" else None)


def _config(postgres: Postgres, name: str, mode: str, encoding: str, apicurio: ApicurioServer) -> dict[str, str]:
    registry = apicurio.base_url if encoding == "avro" else None
    config = connector(postgres, "postgres", name, [f"public.{table}" for table in TABLES], registry=registry)
    config |= MODES[mode] | {"heartbeat.interval.ms": "0", "provide.transaction.metadata": "false"}
    return config | ({"value.converter.schemas.enable": "false"} if encoding == "json" else {})


def save(folder: Path, name: str, records: list[dict[str, Any]], apicurio: ApicurioServer | None, packed: str = "gz") -> None:
    """Write a capture; of Avro records their schemas too."""
    write(folder / f"{name}.jsonl.{packed}", "".join(_line(record, apicurio is not None) for record in records))
    if apicurio is not None:
        ids = sorted({int.from_bytes(raw[1:5], "big") for record in records for raw in (record["key"], record["value"]) if raw})
        write(folder / f"{name}.schemas.json.{packed}", json.dumps({schema_id: _schema(apicurio, schema_id) for schema_id in ids}))


def said(connection: Any, query: str) -> list[dict[str, Any]]:
    """Return the rows of a query by the names of their columns."""
    cursor = connection.execute(query)
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


async def records_of(broker: str, prefix: str, tables: Iterable[str] = TABLES) -> list[dict[str, Any]]:
    """Return the records of the topics of some tables, by partition and offset."""
    transport = make_transport(broker, group="")
    await transport.start()
    found: list[dict[str, Any]] = []
    try:
        for table in tables:
            topic = f"{prefix}.public.{table}"
            count = (await transport.partition_counts([topic])).get(topic, 0)
            partitions = [TopicPartition(topic, number) for number in range(count)]
            ends = await transport.end_offsets(partitions)
            for partition in partitions:
                reader = await transport.open_reader(partition, 0)
                while reader.position < ends[partition]:
                    batch = await reader.read(1.0)
                    if batch is None:
                        continue
                    columns = (batch.offsets, batch.timestamps, batch.keys, batch.values, batch.headers)
                    names = ("offset", "timestamp_ms", "key", "value", "headers")
                    place = {"topic": topic, "partition": partition.partition}
                    found += [place | dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
                await reader.close()
    finally:
        await transport.stop()
    return found


def _line(record: dict[str, Any], binary: bool) -> str:
    def text(raw: bytes | None) -> str | None:
        return None if raw is None else base64.b64encode(raw).decode() if binary else raw.decode()

    headers = [[name, text(value)] for name, value in record["headers"]]
    return json.dumps(record | {"key": text(record["key"]), "value": text(record["value"]), "headers": headers}, ensure_ascii=False) + "\n"


def _schema(apicurio: ApicurioServer, schema_id: int) -> Any:
    with urllib.request.urlopen(f"{apicurio.url}/schemas/ids/{schema_id}", timeout=30) as answer:
        return json.loads(json.loads(answer.read())["schema"])


def write(path: Path, text: str) -> None:
    """Write a file compressed, always alike."""
    path.write_bytes(lzma.compress(text.encode()) if path.suffix == ".xz" else gzip.compress(text.encode(), mtime=0))
    print(f"{path.name} {path.stat().st_size}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
