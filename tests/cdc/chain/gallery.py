"""Captures the gallery: every type of `gallery_tables` in every mode of the connector, beside what PostgreSQL itself says of each row.

    python -m tests.cdc.chain.gallery tests/cdc/fixtures/gallery

One connector for each mode and encoding reads all tables: the rows 1... by its snapshot, the rows 101... from the log. Per capture it
writes `MODE.ENCODING.jsonl.gz` (lines as in the other fixtures), for Avro `MODE.avro.schemas.json.gz` too, and once `truth.json.gz`.
"""

import asyncio
import json
import sys
from pathlib import Path

from tests.cdc.chain.capture import Services, records_of, said, save, services, write
from tests.cdc.chain.gallery_tables import EXTENSIONS, TABLES, TYPES, inserts, statements, truth
from tests.cdc.chain.waiting import until

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
    with services() as running:
        _capture(folder, running)
    return 0


def _capture(folder: Path, running: Services) -> None:
    broker, postgres = running.broker, running.postgres
    names = {f"{mode}.{encoding}": (mode, encoding) for mode in MODES for encoding in ENCODINGS.get(mode, ("jsonschema",))}
    snapshot = sum(1 for table, columns in TABLES.items() for _ in inserts(table, columns, 1))
    with postgres.connect() as connection:
        for statement in (*(f"create extension {name}" for name in EXTENSIONS), TYPES):
            connection.execute(statement)
        for table, columns in TABLES.items():
            for statement in (*statements(table, columns), *inserts(table, columns, 1)):
                connection.execute(statement)
        for name, (mode, encoding) in names.items():
            running.put(name, encoding, TABLES, MODES[mode])
            running.connect.wait_streaming(name, postgres)
            until(f"{name} has its snapshot", lambda name=name: len(asyncio.run(records_of(broker, name, TABLES))) >= snapshot)  # type: ignore[misc]
        for table, columns in TABLES.items():
            for statement in inserts(table, columns, 101):
                connection.execute(statement)
        told = {table: said(connection, truth(table, columns)) for table, columns in TABLES.items()}
    columns_of = {table: {f"c_{column.name}": column.type for column in columns} for table, columns in TABLES.items()}
    write(folder / "truth.json.gz", json.dumps({"columns": columns_of, "rows": told}, ensure_ascii=False))
    for name in names:
        until(f"{name} has everything", lambda name=name: len(asyncio.run(records_of(broker, name, TABLES))) >= 2 * snapshot)  # type: ignore[misc]
        save(folder, name, asyncio.run(records_of(broker, name, TABLES)), running.apicurio)


if __name__ == "__main__":
    sys.exit(main())
