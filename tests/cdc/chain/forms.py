"""Captures the forms: replica identities, long values left out (TOAST) of every type, and the unwrapped form with its settings.

    python -m tests.cdc.chain.forms tests/cdc/fixtures/forms

All connectors see the same changes; `truth.json.xz` says what the tables held in the end, as PostgreSQL's own text.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from tests.cdc.chain.capture import Services, records_of, said, save, services, write
from tests.cdc.chain.gallery_tables import Held, held, truth
from tests.cdc.chain.postgres import Postgres
from tests.cdc.chain.waiting import until

_REPEATED = "(select array_agg(x order by x) from generate_series(1, 400) x)"
LONG = [
    held("text", "text", "repeat('long ü ', 900)::text"),
    held("bytea", "bytea", "decode(repeat('00ff10', 1500), 'hex')::bytea"),
    held("json", "json", "('{\"a\": \"' || repeat('j', 5000) || '\"}')::json"),
    held("jsonb", "jsonb", "('{\"a\": \"' || repeat('b', 5000) || '\"}')::jsonb"),
    held("xml", "xml", "('<a>' || repeat('x', 5000) || '</a>')::xml"),
    held("num", "numeric", "repeat('123456789', 1000)::numeric"),
    held("ints", "int[]", f"{_REPEATED}::int[]"),
    held("bigints", "bigint[]", f"{_REPEATED}::bigint[]"),
    held("texts", "text[]", f"{_REPEATED}::text[]"),
    held("nums", "numeric(8,2)[]", f"{_REPEATED}::numeric(8,2)[]"),
    held("doubles", "double precision[]", f"{_REPEATED}::float8[]"),
    held("uuids", "uuid[]", "(select array_agg(md5(x::text)::uuid order by x) from generate_series(1, 200) x)::uuid[]"),
    held("dates", "date[]", "(select array_agg(date '2026-01-01' + x order by x) from generate_series(1, 700) x)::date[]"),
    held("stamps", "timestamptz[]", "(select array_agg(timestamptz '2026-01-01 00:00Z' + x * interval '1 h') "
        "from generate_series(1, 400) x)::timestamptz[]"),
    held("hstore", "hstore", "(select hstore(array_agg('k' || x), array_agg('v' || x)) from generate_series(1, 400) x)::hstore"),
]  # fmt: skip
SHORT = [held("n", "int", "0"), held("note", "text not null", "'new'")]
COLUMNS: list[Held] = [*SHORT, *LONG]
KEYED = ("plain", "full_rows", "by_index")
TABLES = (*KEYED, "keyless", "sealed")
_NAMES = ", ".join(f"c_{column.name}" for column in COLUMNS)
_VALUES = ", ".join(column.values[0] for column in COLUMNS)

UNWRAP = {"transforms": "u", "transforms.u.type": "io.debezium.transforms.ExtractNewRecordState"}
FIELDS = "op,table,lsn,source.ts_ms,source.sequence,source.snapshot,source.txId,db,source.schema,ts_ms"
FORMS: dict[str, dict[str, str]] = {
    "envelope.jsonschema": {},
    "envelope.json": {},
    "envelope.avro": {},
    "plainer.jsonschema": {"decimal.handling.mode": "string", "hstore.handling.mode": "map", "binary.handling.mode": "hex"},
    "rewrite.jsonschema": {**UNWRAP, "transforms.u.delete.tombstone.handling.mode": "rewrite", "transforms.u.add.fields": FIELDS},
    "rewrite_tombstone.avro": {
        **UNWRAP,
        "transforms.u.delete.tombstone.handling.mode": "rewrite-with-tombstone",
        "transforms.u.add.fields": "op,source.lsn,source.sequence",
    },
    "headers.jsonschema": {
        **UNWRAP,
        "transforms.u.delete.tombstone.handling.mode": "delete-to-tombstone",
        "transforms.u.add.headers": "op,source.lsn",
        "transforms.u.add.fields": "source.lsn",
    },
    "bare.jsonschema": {**UNWRAP, "transforms.u.delete.tombstone.handling.mode": "tombstone"},
}


def main() -> int:
    """Capture everything."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with services() as running:
        _create(running.postgres)
        for name, settings in FORMS.items():
            running.put(name, name.rpartition(".")[2], TABLES, settings)
            running.connect.wait_streaming(name, running.postgres, timeout_s=300)
            until(f"{name} has its snapshot", lambda name=name: len(_records(running, name)) >= 2 * len(TABLES))  # type: ignore[misc]
        _change(running.postgres)
        with running.postgres.connect() as connection:
            rows = {table: said(connection, _truth(table)) for table in TABLES}
        columns = {f"c_{column.name}": column.type for column in COLUMNS}
        write(folder / "truth.json.xz", json.dumps({"columns": columns, "rows": rows}, ensure_ascii=False))
        for name in FORMS:
            until(f"{name} has the last change", lambda name=name: _is_complete(running, name))  # type: ignore[misc]
            save(folder, name, _records(running, name), running.apicurio, "xz")
    return 0


def _records(running: Services, name: str) -> list[dict[str, Any]]:
    return asyncio.run(records_of(running.broker, name, TABLES))


def _truth(table: str) -> str:
    return truth(table, COLUMNS).replace("select id, ", f"select {_key_column(table)}, ").replace("order by id", "order by 1")


def _is_complete(running: Services, name: str) -> bool:
    return any(b"the last" in (record["value"] or b"") for record in _records(running, name))


def _create(postgres: Postgres) -> None:
    columns = ", ".join(f"c_{column.name} {column.type}" for column in COLUMNS)
    with postgres.connect() as connection:
        connection.execute("create extension hstore")
        for table in TABLES:
            key = {"by_index": "code text not null", "keyless": "code text"}.get(table, "id int primary key")
            connection.execute(f"create table {table} ({key}, {columns})")
            for column in LONG:
                connection.execute(f"alter table {table} alter column c_{column.name} set storage external")
            for number in (1, 2):
                connection.execute(f"insert into {table} ({_key_column(table)}, {_NAMES}) values ('{number}', {_VALUES})")
        connection.execute("create unique index by_code on by_index (code)")
        for table, identity in (("full_rows", "full"), ("keyless", "full"), ("by_index", "using index by_code"), ("sealed", "nothing")):
            connection.execute(f"alter table {table} replica identity {identity}")


def _key_column(table: str) -> str:
    return "code" if table in ("by_index", "keyless") else "id"


def _change(postgres: Postgres) -> None:
    with postgres.connect() as connection:
        for table in TABLES:
            for number in (3, 4, 5, 6):
                connection.execute(f"insert into {table} ({_key_column(table)}, {_NAMES}) values ('{number}', {_VALUES})")
        for table in (*KEYED, "keyless"):
            key = _key_column(table)
            connection.execute(f"update {table} set c_n = {key}::int * 10, c_note = 'changed' where {key} in ('1', '3')")
            connection.execute(f"update {table} set c_text = 'short now', c_ints = null where {key} = '2'")
            connection.execute(f"update {table} set c_note = 'again' where {key} = '2'")
            connection.execute(f"update {table} set {key} = '40' where {key} = '4'")
            connection.execute(f"update {table} set c_note = 'moved and changed' where {key} = '40'")
            connection.execute(f"delete from {table} where {key} = '5'")
            connection.execute(f"delete from {table} where {key} = '6'")
            connection.execute(f"insert into {table} ({key}, {_NAMES}) values ('6', {_VALUES})")
            connection.execute(f"update {table} set c_note = 'back' where {key} = '6'")
        connection.execute("insert into sealed (id, c_note) values (99, 'the last')")


if __name__ == "__main__":
    sys.exit(main())
