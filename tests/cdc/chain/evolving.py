"""Captures tables that change their shape, odd keys and names, unwrapped rows whose deletes are tombstones, tables routed into one topic.

    python -m tests.cdc.chain.evolving tests/cdc/fixtures/evolving

All connectors see the same changes; `truth.json.xz` says what the tables held in the end, as PostgreSQL's text.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from tests.cdc.chain.capture import Services, read_topics, save, services, topic_names, write
from tests.cdc.chain.connect import connector
from tests.cdc.chain.waiting import until

_UNWRAP = {"transforms": "u", "transforms.u.type": "io.debezium.transforms.ExtractNewRecordState"}
_HANDLING = "transforms.u.delete.tombstone.handling.mode"
SETTINGS: dict[str, dict[str, str]] = {
    "plain.json": {
        "value.converter.schemas.enable": "false", "decimal.handling.mode": "double", "time.precision.mode": "connect",
        "hstore.handling.mode": "json", "tombstones.on.delete": "false", "binary.handling.mode": "hex",
        "value.converter.replace.null.with.default": "false", "message.key.columns": "public.lines:order_id,line",
    },
    "rewritten.jsonschema": {
        **_UNWRAP, _HANDLING: "rewrite-with-tombstone", "transforms.u.add.fields": "op,lsn,source.sequence",
        "decimal.handling.mode": "string", "hstore.handling.mode": "map", "binary.handling.mode": "base64",
    },
    "headed.jsonschema": {
        **_UNWRAP, _HANDLING: "delete-to-tombstone", "transforms.u.add.headers": "op,source.sequence", "time.precision.mode": "isostring",
    },
    "routed.jsonschema": {
        "transforms": "r", "transforms.r.type": "io.debezium.transforms.ByLogicalTableRouter",
        "transforms.r.topic.regex": "(.*)parts_(a|b)", "transforms.r.topic.replacement": "$1parts", "time.precision.mode": "nanoseconds",
    },
    "bare.jsonschema": {**_UNWRAP, _HANDLING: "tombstone"},
}  # fmt: skip
ODD = '"Odd.Schema"."Tab le$1"'
TABLES = ("lines", "evolving", "by_index", ODD, "typed", "parts_a", "parts_b", "enumkey")
_INCLUDED = [*(f"public.{table}" for table in TABLES if table != ODD), r"Odd\.Schema.Tab\ le\$1"]
_CREATE = """
create extension hstore;
create type mood as enum ('ok', 'bad');
create table lines (order_id int, line int, sku text, price numeric(8,2), primary key (order_id, line));
create table evolving (id int primary key, a int, "b c" text, gone date default '2020-01-01');
create table by_index (x int not null, y text not null, z text, unique (x, y));
alter table by_index replica identity using index by_index_x_y_key;
create schema "Odd.Schema";
create table "Odd.Schema"."Tab le$1" ("K" uuid primary key, "?what" text, "100%" int, "qu""ote" text);
create table typed (
  id int primary key, n numeric, d date, t time, ts timestamp, tz timestamptz, h hstore, raw bytea, f real, j jsonb, arr int[],
  dec numeric(10,3), iv interval, r int4range, b bit(8), ip inet, u uuid, txt text, m money);
create table parts_a (id int primary key, v text);
create table parts_b (id int primary key, v text);
create table enumkey (k mood, id bigint, v text default 'dflt', primary key (k, id));
insert into lines values (1, 1, 'a', 1.50), (1, 2, 'b', 2.25), (2, 1, 'c', null);
insert into evolving values (1, 10, 'x'), (2, 20, 'y');
insert into by_index values (1, 'a', 'first'), (2, 'b', 'second');
insert into "Odd.Schema"."Tab le$1" values
  ('6f1c2f0e-4a3d-4c5b-9e11-012345678901', 'w?', 50, 'q'), ('6f1c2f0e-4a3d-4c5b-9e11-012345678902', null, null, null);
insert into typed values (
  1, 1.25, '2026-02-01', '10:20:30.123456', '2026-02-01 10:20:30.123456', '2026-02-01 10:20:30.123456+02', 'a=>1,b=>NULL',
  '\\xdeadbeef', 1.5, '{"a": [1, null]}', '{1,NULL,3}', -12.340, '1 day 02:00', '[1,5)', '10101010', '10.0.0.1/24',
  '6f1c2f0e-4a3d-4c5b-9e11-012345678901', repeat('long ', 1000), 12.34);
insert into parts_a values (1, 'a1'), (2, 'a2');
insert into parts_b values (1, 'b1'), (2, 'b2');
insert into enumkey values ('ok', 1), ('bad', 9007199254740993);
"""
_CHANGE = """
update lines set price = 9.99 where order_id = 1 and line = 1;
update lines set line = 7 where order_id = 1 and line = 2;
delete from lines where order_id = 2;
insert into lines values (3, 1, 'z', 0);
alter table evolving rename column a to alpha;
update evolving set "b c" = 'after rename' where id = 1;
alter table evolving alter column alpha type bigint;
update evolving set alpha = 9007199254740993 where id = 2;
alter table evolving alter column alpha type text using alpha::text;
insert into evolving values (3, 'text now', 'n');
alter table evolving drop column gone;
alter table evolving add column extra int not null default 5;
insert into evolving values (4, 't', 'm');
update evolving set alpha = alpha;
update by_index set y = 'bb' where x = 2;
delete from by_index where x = 1;
insert into by_index values (3, 'c', null);
update "Odd.Schema"."Tab le$1" set "?what" = 'changed', "100%" = 100 where "K" = '6f1c2f0e-4a3d-4c5b-9e11-012345678902';
delete from "Odd.Schema"."Tab le$1" where "K" = '6f1c2f0e-4a3d-4c5b-9e11-012345678901';
insert into typed (id, n) values (2, 4.5);
insert into typed select 3, n, d, t, ts, tz, h, raw, f, j, arr, dec, iv, r, b, ip, u, txt, m from typed where id = 1;
update typed set f = 2.5 where id = 1;
update typed set id = 30 where id = 3;
update parts_a set v = 'a1+' where id = 1;
delete from parts_b where id = 2;
update enumkey set v = null where k = 'ok';
update enumkey set k = 'ok' where k = 'bad';
insert into enumkey values ('ok', 99, 'end');
"""


def main() -> int:
    """Capture everything."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with services() as running:
        with running.postgres.connect() as connection:
            _run(connection, _CREATE)
        for name, settings in SETTINGS.items():
            running.connect.put(name, connector(running.postgres, "postgres", name, _INCLUDED) | _common() | settings)
            running.connect.wait_streaming(name, running.postgres, timeout_s=300)
            until(f"{name} has its snapshot", lambda name=name: _keys(running, name) >= 2)  # type: ignore[misc]
        with running.postgres.connect() as connection:
            _run(connection, _CHANGE)
            write(folder / "truth.json.xz", json.dumps({table: _truth(connection, table) for table in TABLES}, ensure_ascii=False))
        for name in SETTINGS:
            until(f"{name} has the last change", lambda name=name: _is_complete(running, name))  # type: ignore[misc]
            save(folder, name, _records(running, name), running.apicurio, "xz")
    return 0


def _common() -> dict[str, str]:
    return {"heartbeat.interval.ms": "0", "provide.transaction.metadata": "false", "topic.creation.default.partitions": "2"}


def _run(connection: Any, statements: str) -> None:
    for statement in statements.strip().split(";\n"):
        connection.execute(statement.rstrip(";\n").encode())


def _truth(connection: Any, table: str) -> list[list[Any]]:
    """Return the columns of a table, then its rows as text."""
    names = [column.name for column in connection.execute(f"select * from {table} limit 0".encode()).description]
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    rows = connection.execute(f"select {', '.join(f'{name}::text' for name in quoted)} from {table} order by 1, 2".encode())
    return [names, *[list(row) for row in rows.fetchall()]]


def _records(running: Services, name: str) -> list[dict[str, Any]]:
    topics = [topic for topic in asyncio.run(topic_names(running.broker)) if topic.startswith(f"{name}.")]
    return asyncio.run(read_topics(running.broker, topics))


def _keys(running: Services, name: str) -> int:
    """Return how many records there are of the last table."""
    return sum(record["topic"].endswith("enumkey") for record in _records(running, name))


def _is_complete(running: Services, name: str) -> bool:
    return any(record["topic"].endswith("enumkey") and b'"end"' in (record["value"] or b"") for record in _records(running, name))


if __name__ == "__main__":
    sys.exit(main())
