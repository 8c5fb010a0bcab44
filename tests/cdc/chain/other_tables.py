"""Tables for `tests.cdc.chain.others`: keys of every type, odd names, partitions, generated columns, long values that must not be null."""

from collections.abc import Iterator
from typing import Any

LONG = "repeat('a long note ', 400)"

KEYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "uuid": ("id uuid", ("'6f1c2f0e-4a3d-4c5b-9e11-0123456789a{}'",)),
    "numeric": ("id numeric(12,2)", ("10{}.25",)),
    "free_numeric": ("id numeric", ("1{}.125",)),
    "date": ("id date", ("'2026-02-1{}'",)),
    "timestamptz": ("id timestamptz", ("'2026-02-1{} 10:00:00.000001+02'",)),
    "timestamp": ("id timestamp", ("'2026-02-1{} 10:00:00.000001'",)),
    "time": ("id time(3)", ("'10:00:0{}.5'",)),
    "bytea": ("id bytea", ("'\\x00ff0{}'",)),
    "bigint": ("id bigint", ("900719925474099{}",)),
    "bool": ("id boolean, kind int", ("true", "{}")),
    "char": ("id char(4)", ("'k{}'",)),
    "inet": ("id inet", ("'10.0.0.{}'",)),
    "mood": ("id mood", ("'mood {}'",)),
    "citext": ("id citext", ("'Key{}'",)),
    "interval": ("id interval", ("'{} hours 3 seconds'",)),
    "composite": ('code text, "day" date, n smallint', ("'ä \"q\" {}'", "'2026-03-0{}'", "-{}")),
}
"""Table `key_NAME` -> its key columns, and the value of each for the row of a number."""

PLAIN = """
create extension citext;
create type mood as enum ('mood 1', 'mood 2', 'mood 3', 'mood 4', 'mood 5', 'mood 6');
create table generated (
  id int generated always as identity primary key, price numeric(8,2) not null,
  twice numeric(8,2) generated always as (price * 2) stored, note text);
create table parted (id int, region text, note text, primary key (id, region)) partition by list (region);
create table parted_eu partition of parted for values in ('eu');
create table parted_us partition of parted for values in ('us');
create table parents (id int primary key, name text);
create table children (id int primary key, parent int references parents, name text);
create table "Odd Names" (
  "The Id" int primary key, "first name" text, "größe" numeric(4,1), "select" int, "a.b" int, "a-c" int, "2nd" date, "Op" text);
create table firm (id int primary key, n int not null, texts text[] not null, raw bytea, doc jsonb not null, note text not null);
create table bare_row (id int primary key);
create table like_a_change (id int primary key, op text, source jsonb, before text, after text, ts_ms bigint, payload text, schema text);
create table outbox_a (
  id uuid primary key, aggregatetype text, aggregateid text, type text, payload jsonb, tenant text, version int, at timestamptz);
create table outbox_b (id uuid primary key, aggregatetype text, aggregateid int, type text, payload text);
create table outbox_c (id uuid primary key, aggregatetype text, aggregateid uuid, type text, payload bytea);
create table signals (id varchar(64) primary key, type varchar(32) not null, data varchar(2048));
"""
TABLES = (
    *(f"key_{name}" for name in KEYS), "generated", "parted", "parted_eu", "parted_us", "parents", "children", "Odd Names", "firm",
    "bare_row", "like_a_change", "signals",
)  # fmt: skip

_FIRM = "(select array_agg(x order by x) from generate_series(1, 700) x)::text[], decode(repeat('00ff10', 1500), 'hex'), "
_FIRM += f"('{{\"a\": \"' || repeat('b', 5000) || '\"}}')::jsonb, {LONG}"
"""Of a long numeric, an array of numbers, and bytes as base64, that must not be null, Debezium 3.5 cannot leave a value out: it stops."""


def create() -> Iterator[str]:
    """Yield the statements that make the tables, and the rows that a snapshot reads."""
    yield PLAIN
    for name, (columns, _) in KEYS.items():
        primary = ", ".join(_names(name))
        yield f"create table key_{name} ({columns}, n_changes int, note text, primary key ({primary}))"
        yield f"alter table key_{name} alter column note set storage external"
        for number in (1, 2):
            yield f"insert into key_{name} values ({_key(name, number)}, 0, {LONG})"
    for column in ("texts", "raw", "doc", "note"):
        yield f"alter table firm alter column {column} set storage external"
    yield from _plain_rows(1)


def change() -> Iterator[str]:
    """Yield what happens then."""
    for name in KEYS:
        for number in (3, 4, 5):
            yield f"insert into key_{name} values ({_key(name, number)}, 0, {LONG})"
        yield f"update key_{name} set n_changes = 1 where {_where(name, 1)}"
        yield f"update key_{name} set {_set(name, 6)} where {_where(name, 2)}"  # the key changes, the long note does not
        yield f"update key_{name} set n_changes = 2 where {_where(name, 6)}"
        yield f"delete from key_{name} where {_where(name, 3)}"
        yield f"delete from key_{name} where {_where(name, 4)}"
        yield f"insert into key_{name} values ({_key(name, 4)}, 7, {LONG})"
    yield from _plain_rows(11)
    yield "update generated set price = 3.25 where id = 1"
    yield "update parted set region = 'us', note = 'moved' where id = 1"
    yield "update parted set note = 'stays' where id = 2"
    yield "truncate parted_us"
    yield "insert into parted values (21, 'us', 'after the truncate')"
    yield "update firm set n = n + 1"
    yield 'update "Odd Names" set "größe" = 99.5, "a.b" = null where "The Id" = 1'
    yield 'delete from "Odd Names" where "The Id" = 2'
    yield "update like_a_change set op = 'd' where id = 1"
    yield "delete from like_a_change where id = 12"
    yield "truncate parents cascade"
    yield "insert into parents values (31, 'after the truncate')"
    yield "insert into children values (31, 31, 'after the truncate')"
    yield "select pg_logical_emit_message(true, 'binary', '\\x00ff10c3a9'::bytea)"
    yield "select pg_logical_emit_message(false, 'text', 'plain é')"
    yield "select pg_logical_emit_message(true, 'empty', '')"
    yield "begin; insert into bare_row values (41); insert into generated (price) values (4.5); update key_uuid set n_changes = 9; commit"
    yield from _outbox_rows()
    yield "insert into bare_row values (99)"


def _outbox_rows() -> Iterator[str]:
    """Yield events: objects, an array, a plain value, text that is no JSON, bytes, and none."""
    payloads = ('{"total": 12.50, "lines": [{"sku": "a", "n": 2}], "note": null}', '{"total": 3, "lines": [], "note": "ü"}', None)
    for number, payload in enumerate(payloads):
        row = f"gen_random_uuid(), 'Bill', 'b-{number}', 'BillSent', {_text(payload)}, 'acme', {number}, '2026-01-0{number + 1} 10:00+02'"
        yield f"insert into outbox_a values ({row})"
    for number, payload in enumerate(('{"a": 1}', "no JSON at all", "[1, 2]", "17", '"text"', "", None)):
        yield f"insert into outbox_b values (gen_random_uuid(), 'Note', {number}, 'Noted', {_text(payload)})"
    for payload in ("\\x00ff10", "\\x", None):
        yield f"insert into outbox_c values (gen_random_uuid(), 'Blob', gen_random_uuid(), 'Stored', {_text(payload)})"


def _text(value: str | None) -> str:
    return "null" if value is None else f"'{value}'"


def _plain_rows(first: int) -> Iterator[str]:
    second = first + 1
    yield f"insert into generated (price, note) values ({first}.5, 'g'), ({second}, null)"
    yield f"insert into parted values ({first}, 'eu', 'p'), ({second}, 'eu', 'p'), ({first + 2}, 'us', 'p')"
    yield f"insert into parents values ({first}, 'one'), ({second}, 'two')"
    yield f"insert into children values ({first}, {first}, 'c'), ({second}, {first}, 'd')"
    yield f"insert into \"Odd Names\" values ({first}, 'F', 1.5, {first}, 2, 3, '2026-01-01', 'x')"
    yield f'insert into "Odd Names" ("The Id", "Op") values ({second}, \'c\')'
    yield f"insert into firm values ({first}, 0, {_FIRM})"
    yield f"insert into bare_row values ({first}), ({second})"
    yield f"insert into like_a_change values ({first}, 'u', '{{\"lsn\": 1}}', 'b', 'a', {first}, 'p', 's')"
    yield f"insert into like_a_change (id, op, ts_ms) values ({second}, 'c', 5)"


def _values(name: str, number: int) -> list[str]:
    return [text.format(number) for text in KEYS[name][1]]


def _key(name: str, number: int) -> str:
    return ", ".join(_values(name, number))


def _names(name: str) -> list[str]:
    return {"composite": ["code", '"day"', "n"], "bool": ["id", "kind"]}.get(name, ["id"])


def _where(name: str, number: int) -> str:
    return " and ".join(f"{column} = {value}" for column, value in zip(_names(name), _values(name, number), strict=True))


def _set(name: str, number: int) -> str:
    return ", ".join(f"{column} = {value}" for column, value in zip(_names(name), _values(name, number), strict=True))


def truth(connection: Any) -> dict[str, list[list[Any]]]:
    """Return what each table holds in the end: its columns, then its rows as PostgreSQL's text."""
    found = {}
    for table in TABLES:
        cursor = connection.execute(f'select * from "{table}" limit 0')
        names = [column.name for column in cursor.description]
        said = ", ".join(f"{_quoted(name)}::text" for name in names)
        rows = connection.execute(f'select {said} from "{table}" order by {", ".join(map(_quoted, names[:2]))}')
        found[table] = [names, *[list(row) for row in rows.fetchall()]]
    return found


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
