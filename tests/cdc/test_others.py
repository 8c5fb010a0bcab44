"""Other tables under other settings than those of the other captures: keys of every type, odd names, partitions, outboxes.

The captures are made by `tests.cdc.chain.others`; nothing in them was edited. What a table holds in the end is told by PostgreSQL's own
text of each value.
"""

import base64
import json
import lzma
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
from msgspec import Struct

from cdc import Change, Encoded, OutboxEvent, Scale, Unwrapped, debezium, heartbeats, outbox, transaction_marks
from engine.errors import ConfigError, RecordError
from engine.stream import Sink, Stream
from engine.testing import TestDriver
from engine.topology import Topology
from tests.cdc.captures import decode, good
from tests.cdc.test_apply import rows_of, take

FOLDER = Path(__file__).parent / "fixtures" / "others"
WHOLE = ("eu.west-1.shop.jsonschema", "uni.avro", "plain.json", "headed.avro")
PREFIXED = Unwrapped(
    add_fields="op:operation,lsn,source.sequence:seq,table", add_fields_prefix="cdc_", add_headers="op,source.txId", add_headers_prefix="h_"
)
BARE = Unwrapped(add_fields="op,source.lsn", add_fields_prefix="")
UNWRAPPED: dict[str, Any] = {"prefixed.jsonschema": PREFIXED, "dropped.json": BARE, "old_style.avro": True}
WITHOUT_SCHEMA: dict[str, Any] = {
    "key_date": {"id": date},
    "key_composite": {"day": date},
    "key_bytea": {"id": Annotated[bytes, Encoded("base64-url-safe")]},
    "firm": {"raw": Annotated[bytes, Encoded("base64-url-safe")]},
    "generated": dict.fromkeys(("price", "twice"), Annotated[Decimal, Scale(2)]),
}
pytestmark = pytest.mark.thorough


@cache
def truth() -> Any:
    return json.loads(lzma.decompress((FOLDER / "truth.json.xz").read_bytes()))


@cache
def records(capture: str) -> list[dict[str, Any]]:
    """Return the records of a capture; their bytes as they were."""
    raw: Callable[[str], bytes] = base64.b64decode if capture.endswith((".avro", ".bytes")) else str.encode
    found = [json.loads(line) for line in lzma.decompress((FOLDER / f"{capture}.jsonl.xz").read_bytes()).decode().splitlines()]
    for record in found:
        record["key"], record["value"] = (None if record[part] is None else raw(record[part]) for part in ("key", "value"))
        record["headers"] = [(name, raw(text)) for name, text in record["headers"]]
    return found


def schemas(capture: str) -> Any:
    if not capture.endswith(".avro"):
        return None
    return json.loads(lzma.decompress((FOLDER / f"{capture}.schemas.json.xz").read_bytes()))


def topic(capture: str, table: str) -> str:
    return f"{capture}.public.{table.replace(' ', '_')}"


def tables(capture: str) -> list[str]:
    """Return the tables that a capture has records of."""
    topics = {record["topic"] for record in records(capture)}
    return [table for table in truth() if topic(capture, table) in topics]


def changes(capture: str, table: str, **options: Any) -> Iterator[Change[Any]]:
    """Yield the changes of a table in the order of the database; rows without a position in that of their records."""
    codec: Any = debezium(dict, registry=schemas(capture), **options)
    found: list[tuple[Any, Change[Any]]] = []
    for record in records(capture):
        if record["topic"] == topic(capture, table):
            change = codec.decode(record["topic"], record["key"], record["value"], record["headers"])
            if change is not None:
                place = (record["timestamp_ms"], record["offset"])  # of a tombstone nothing else is known
                found.append((place if capture in UNWRAPPED else (change.position, *place), change))
    yield from (change for _, change in sorted(found, key=lambda pair: pair[0]))


def said(value: Any) -> str | None:
    """Return a value as PostgreSQL writes it."""
    match value:
        case None | str():
            return value
        case bool():
            return str(value).lower()
        case datetime():
            text = value.isoformat(" ").replace("+00:00", "+00")
            return text.replace(".500000", ".5")
        case date():
            return value.isoformat()
        case time():
            return value.isoformat().rstrip("0")
        case timedelta():
            return f"0{value}"
        case bytes():
            return "\\x" + value.hex()
        case Decimal():
            return f"{value:f}"
        case list():
            return "{" + ",".join(map(str, value)) + "}"
    return str(value)


def options_of(capture: str, table: str) -> dict[str, Any]:
    """Return what a user has to say about a table."""
    never_set_null = {"raw"} if table == "firm" else ()
    if capture == "plain.json":
        return {"columns": WITHOUT_SCHEMA.get(table), "never_set_null": never_set_null}
    if capture.startswith("eu.west"):
        hex_ = {"key_bytea": {"id": Annotated[bytes, Encoded("hex")]}, "firm": {"raw": Annotated[bytes, Encoded("hex")]}}
        return {"columns": hex_.get(table), "placeholder": "<absent>"}
    if capture == "headed.avro":
        return {"columns": {"firm": {"raw": Annotated[bytes, Encoded("base64")]}}.get(table), "never_set_null": never_set_null}
    if capture in UNWRAPPED:
        return {"unwrapped": UNWRAPPED[capture], "columns": WITHOUT_SCHEMA.get(table) if capture == "dropped.json" else None}
    return {}


def ends_as(capture: str, table: str) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Return the rows of a table by key, as the changes make them and as the database held them."""
    made: dict[Any, Any] = {}
    for change in changes(capture, table, **options_of(capture, table)):
        take(made, change)
    names, *rows = truth()[table]
    count = len(next(iter(made)))
    adjusted = [adjusted_name(capture, name) for name in names]
    if table == "key_inet":
        rows = [[row[0].removesuffix("/32"), *row[1:]] for row in rows]  # inet::text is longer than what inet writes
    if table == "key_char":
        rows = [[row[0].ljust(4), *row[1:]] for row in rows]  # char::text loses its padding
    told = {tuple(row[:count]): dict(zip(adjusted, row, strict=True)) for row in rows}
    found = {tuple(map(said, key)): {name: said(value) for name, value in row.items()} for key, row in rows_of(made).items()}
    return found, told


def adjusted_name(capture: str, name: str) -> str:
    """Return a column's name as `field.name.adjustment.mode=avro_unicode` makes it: what Avro does not allow by its number, `_` too."""
    if capture != "uni.avro":
        return name
    text = "".join(c if c.isascii() and c.isalnum() else f"_u{ord(c):04x}" for c in name)
    return f"_u{ord(text[0]):04x}{text[1:]}" if text[0].isdigit() else text


def lost(capture: str, table: str) -> set[str]:
    """Return the columns that are null, or not there, in what Debezium reads from the log; nothing tells such a null from another."""
    if table == "generated":
        return {"twice"}  # PostgreSQL 15 has no generated columns there
    return set()


def has_all(capture: str, table: str) -> bool:
    """Whether the topic of a table has all of its changes: those of a partitioned table come as the table's or as its parts'."""
    by_root = capture not in ("uni.avro", "plain.json")
    return not (table in ("parted_eu", "parted_us") if by_root else table == "parted")


def cases(*captures: str) -> list[tuple[str, str]]:
    return [(capture, table) for capture in captures for table in tables(capture) if has_all(capture, table)]


@pytest.mark.parametrize(("capture", "table"), cases(*WHOLE, *UNWRAPPED))
def test_a_table_of_the_changes_is_what_sql_says(capture: str, table: str) -> None:
    found, told = ends_as(capture, table)
    if table == "parted":  # PostgreSQL publishes no truncate of a part as one of the whole
        assert found.keys() - told.keys() == {("1", "us"), ("3", "us"), ("13", "us")}
    elif capture == "dropped.json":  # its deletes are in no record
        assert found.keys() >= told.keys()
    else:
        assert found.keys() == told.keys()
    names = {name: adjusted_name(capture, name) for name in lost(capture, table)}
    for key, row in told.items():
        wrong = {name for name, value in row.items() if found[key].get(name) != value}
        assert wrong <= set(names.values()) and all(found[key].get(name) is None for name in wrong)


@pytest.mark.parametrize(("capture", "table"), [case for case in cases(*WHOLE) if case[1].startswith("key_")])
def test_both_halves_of_a_key_change_name_each_other(capture: str, table: str) -> None:
    """Keys in headers are of the same types as the keys themselves; the long value that did not change comes from the old row."""
    found = list(changes(capture, table, **options_of(capture, table)))
    (delete,) = [change for change in found if change.new_key is not None]
    (create,) = [change for change in found if change.old_key is not None]
    assert (repr(delete.new_key), repr(create.old_key)) == (repr(create.key), repr(delete.key))
    assert create.unavailable == ("note",)


@pytest.mark.parametrize("capture", WHOLE)
def test_every_topic_is_what_it_is(capture: str) -> None:
    options: dict[str, Any] = {"registry": schemas(capture)}
    binary: Any = {"eu.west-1.shop.jsonschema": "hex", "plain.json": None, "uni.avro": None, "headed.avro": "base64"}[capture]
    messages: dict[str, bytes] = {}
    for record in records(capture):
        name = record["topic"]
        if "pulse" in name or "heartbeat" in name:
            assert debezium(dict, **options).decode(name, record["key"], record["value"], record["headers"]) is None
            (beat,) = good(heartbeats(**options), [record])
            assert beat.server == capture
        elif name.endswith((".tx.marks", ".transaction")):
            with pytest.raises(RecordError, match="a transaction mark"):
                debezium(dict, **options).decode(name, record["key"], record["value"], record["headers"])
            (mark,) = good(transaction_marks(**options), [record])
            assert mark.is_end is (mark.events is not None)
        elif name.endswith(".message"):
            (change,) = good(debezium(dict, binary=binary, **options), [record])
            messages[change.message.prefix] = change.message.content
    if capture != "headed.avro":
        assert messages == {"binary": b"\x00\xff\x10\xc3\xa9", "text": "plain é".encode(), "empty": b""}


class Line(Struct, frozen=True):
    sku: str
    n: int


class Bill(Struct, frozen=True):
    total: Decimal
    lines: list[Line] = []
    note: str | None = None


def events(capture: str, codec: Any) -> list[OutboxEvent[Any]]:
    found: list[OutboxEvent[Any]] = good(codec, [record for record in records(capture) if not record["topic"].endswith("message")])
    return sorted(found, key=lambda event: str(event.aggregate_id))


def test_outbox_with_columns_beside_the_payload() -> None:
    first, second, none = events("box_a.avro", outbox(Bill, registry=schemas("box_a.avro")))
    assert first.payload == Bill(Decimal("12.5"), [Line("a", 2)])
    assert second.payload == Bill(Decimal(3), [], "ü")
    assert none.payload is None
    assert [event.fields["tenant"] for event in (first, second, none)] == ["acme"] * 3
    assert [event.headers["v"] for event in (first, second, none)] == ["0", "1", "2"]
    assert (first.aggregate_id, first.type) == ("b-0", "BillSent")
    assert first.fields["happened_at"] == datetime(2026, 1, 1, 8, tzinfo=UTC)


def test_outbox_as_plain_text() -> None:
    found = events("box_b.text", outbox(str, raw=True))
    assert [event.payload for event in found] == ['{"a": 1}', "no JSON at all", "[1, 2]", "17", '"text"']
    assert [event.aggregate_id for event in found] == ["0", "1", "2", "3", "4"]
    read = decode(outbox(dict, raw=True), [record for record in records("box_b.text") if record["key"] == b"0"])
    assert read.values[0].payload == {"a": 1}


def test_outbox_as_bytes() -> None:
    found = events("box_c.bytes", outbox(bytes, raw=True))
    assert sorted([event.payload or b"" for event in found]) == [b"", b"\x00\xff\x10"]


def test_key_of_an_outbox_may_be_text_that_is_no_json() -> None:
    record = {**next(r for r in records("box_b.text") if r["key"] == b"0"), "key": b"order-7"}
    (event,) = good(outbox(str, raw=True), [record])
    assert event.aggregate_id == "order-7"
    with pytest.raises(ConfigError, match="raw payloads are in no framing"):
        outbox(str, raw=True, registry={})


def rows_in_a_pipeline(capture: str, table: str, row: Any, key: Any = "id", **typed: Any) -> dict[Any, Any]:
    """Return the rows that a table of changes holds, by the keys of the stream."""
    app = Topology("others", partitions=3)
    options = {name: value for name, value in options_of(capture, table).items() if name != "columns" or row is dict}
    codec: Any = debezium(row, registry=schemas(capture), **options)
    source = app.source(topic(capture, table), codec=codec, key=key, **typed, time="source_ms")

    @app.pipeline(source)
    def copies(changes: Stream[Any, Change[Any]]) -> Sink:
        return changes.table("rows").to("copies")

    with TestDriver(app, partitions=3) as driver:
        for record in records(capture):
            if record["topic"] == topic(capture, table):
                place = {name: record[name] for name in ("key", "partition", "headers")}
                driver.send(record["topic"], record["value"], at=record["timestamp_ms"], **place)
        rows = {record.key: record.value for record in driver.read("copies")}
        assert driver.dead_letters() == []
    return {key: value for key, value in rows.items() if value is not None}


class Keyed(Struct, frozen=True):
    id: str
    n_changes: int
    note: str


@pytest.mark.parametrize("row", [dict, Keyed])
@pytest.mark.parametrize(
    ("capture", "table"),
    [
        ("eu.west-1.shop.jsonschema", "key_uuid"), ("headed.avro", "key_uuid"), ("prefixed.jsonschema", "key_uuid"),
        ("plain.json", "key_uuid"), ("eu.west-1.shop.jsonschema", "key_timestamptz"), ("old_style.avro", "key_timestamptz"),
    ],
)  # fmt: skip
def test_a_table_in_a_pipeline_follows_its_keys(capture: str, table: str, row: Any) -> None:
    """Changes of the key between partitions, with the long value handed over; deletes by tombstone; rows without a time of their own."""
    rows = rows_in_a_pipeline(capture, table, row)
    found = sorted((said_of_key(key), value["n_changes"], value["note"]) for key, value in rows.items())
    assert found == sorted((said_of_key(key), int(number), note) for key, number, note in truth()[table][1:])


KEY_TYPES = {"key_uuid": UUID, "key_date": date, "key_timestamptz": datetime, "key_timestamp": datetime, "key_numeric": Decimal}


@pytest.mark.parametrize("declared", [False, True], ids=["dict", "declared"])
@pytest.mark.parametrize(
    ("capture", "table"),
    [
        (capture, table)
        for capture in ("eu.west-1.shop.jsonschema", "headed.avro", "prefixed.jsonschema", "old_style.avro", "plain.json")
        for table in KEY_TYPES
        if table in tables(capture)
    ],
)  # fmt: skip
def test_a_table_follows_keys_that_are_neither_text_nor_whole_numbers(capture: str, table: str, declared: bool) -> None:
    key_type: Any = KEY_TYPES[table]
    fields = [("id", key_type), ("n_changes", int), ("note", str)]
    rows = rows_in_a_pipeline(capture, table, msgspec.defstruct("Keyed", fields, frozen=True) if declared else dict)
    read: Any = datetime.fromisoformat if key_type is datetime else key_type.fromisoformat if key_type is date else key_type
    if declared:
        assert {type(key) for key in rows} == {key_type}
    found = {key if isinstance(key, key_type) else read(key): (row["n_changes"], row["note"]) for key, row in rows.items()}
    assert found == {read(key): (int(number), note) for key, number, note in truth()[table][1:]}


class LineKey(Struct, frozen=True):
    code: str
    day: date
    n: int


class KeyedLine(Struct, frozen=True):
    code: str
    day: date
    n: int
    n_changes: int
    note: str


@pytest.mark.parametrize("row", [dict, KeyedLine])
@pytest.mark.parametrize("capture", ["eu.west-1.shop.jsonschema", "uni.avro", "plain.json"])
def test_a_table_follows_keys_of_several_columns(capture: str, row: Any) -> None:
    if capture == "uni.avro" and row is KeyedLine:
        pytest.skip("its columns have other names there")

    def key(change: Change[Any]) -> LineKey:
        assert change.key is not None
        return LineKey(*change.key.values())

    rows = rows_in_a_pipeline(capture, "key_composite", row, key, key_type=LineKey)
    found = {(key.code, key.day, key.n): key for key in rows}
    assert found.keys() == {(code, date.fromisoformat(day), int(n)) for code, day, n, *_ in truth()["key_composite"][1:]}
    notes = {row["note"] for row in rows.values()}
    assert notes == {row[4] for row in truth()["key_composite"][1:]}


def said_of_key(key: str) -> Any:
    return key if "-4c5b-" in key else datetime.fromisoformat(key)
