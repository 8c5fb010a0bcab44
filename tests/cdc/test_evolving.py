"""Tables that change their shape in mid-stream, odd keys and names, deletes by tombstones alone, two tables in one topic.

The captures are made by `tests.cdc.chain.evolving`; nothing in them was edited. The engine's table and the copy end as PostgreSQL said.
"""

import json
import lzma
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cdc import Change, Unwrapped, debezium
from cdc.database import Database
from cdc.replica import Batch, Replica
from engine.records import TopicPartition
from engine.stream import Sink, Stream
from engine.testing import TestDriver
from engine.topology import Topology
from tests.cdc.captures import good
from tests.cdc.chain.evolving import ODD, SETTINGS, TABLES
from tests.cdc.test_replica_others import value_of

FOLDER = Path(__file__).parent / "fixtures" / "evolving"
OPTIONS: dict[str, Any] = {
    "plain.json": {},
    "rewritten.jsonschema": {"unwrapped": Unwrapped(add_fields="op,lsn,source.sequence")},
    "headed.jsonschema": {"unwrapped": Unwrapped(add_headers="op,source.sequence")},
    "routed.jsonschema": {},
    "bare.jsonschema": {"unwrapped": True},
}
KEYS = {"lines": ("order_id", "line"), "by_index": ("x", "y"), "enumkey": ("k", "id"), ODD: ("K",)}
TYPED = ("id", "f", "txt", "ip"), ("id", "f", "txt", "ip", "n", "d", "dec", "u")
"""What of the table of many types is one text in all modes, and in all but JSON without schemas; every type has a test of its own."""
pytestmark = pytest.mark.thorough


@cache
def truth() -> Any:
    return json.loads(lzma.decompress((FOLDER / "truth.json.xz").read_bytes()))


@cache
def records(capture: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in lzma.decompress((FOLDER / f"{capture}.jsonl.xz").read_bytes()).decode().splitlines()]
    for record in found:
        record["key"], record["value"] = (None if record[part] is None else record[part].encode() for part in ("key", "value"))
        record["headers"] = [(name, text.encode()) for name, text in record["headers"]]
    return found


def of_table(capture: str, table: str) -> list[dict[str, Any]]:
    end = ".Odd.Schema.Tab_le_1" if table == ODD else f".public.{table}"
    return [record for record in records(capture) if record["topic"] == f"{capture}{end}"]


def wanted(capture: str, table: str) -> Iterator[dict[str, Any]]:
    """Yield the rows that PostgreSQL held, as far as a capture says them."""
    names, *rows = truth()[table]
    columns = TYPED[capture != "plain.json"] if table == "typed" else names
    for row in rows:
        told = {name: value for name, value in zip(names, row, strict=True) if name in columns}
        if table == "enumkey" and capture != "plain.json":
            told["v"] = told["v"] or "dflt"  # null becomes the column's default, unless a setting keeps it
        yield told


def comparable(rows: list[dict[str, Any]], columns: Any) -> list[Any]:
    return sorted(([value_of(row.get(name)) for name in columns] for row in rows), key=repr)


def cases() -> list[tuple[str, str]]:
    return [
        (capture, table) for capture in SETTINGS for table in TABLES if not (capture.startswith("routed") and table.startswith("parts"))
    ]


@pytest.mark.parametrize(("capture", "table"), cases())
def test_a_copy_ends_as_the_table_did(database: Database, capture: str, table: str) -> None:
    replica, codec = Replica(database), debezium(dict, **OPTIONS[capture])
    for number in (0, 1):
        mine = [record for record in of_table(capture, table) if record["partition"] == number]
        for start in range(0, len(mine), 3):
            changes = good(codec, mine[start : start + 3])
            replica.apply([Batch("copied", changes, TopicPartition("t", number), start + 3)])
    rows = list(wanted(capture, table))
    names = list(database.columns("copied"))
    found = [dict(zip(names, row, strict=True)) for row in database.select("copied", names, {})]
    assert comparable(found, rows[0]) == comparable(rows, rows[0])


@pytest.mark.parametrize(("capture", "table"), cases())
def test_the_engines_table_ends_as_the_table_did(capture: str, table: str) -> None:
    app = Topology("evolving", partitions=2)

    def key(change: Change[Any]) -> str:
        assert change.key is not None
        return " ".join(str(change.key[name]) for name in KEYS.get(table, ("id",)))

    source = app.source("changes", codec=debezium(dict, **OPTIONS[capture]), key=key, key_type=str)

    @app.pipeline(source)
    def copies(changes: Stream[str, Change[Any]]) -> Sink:
        return changes.table("rows").to("copies")

    rows: dict[Any, Any] = {}
    with TestDriver(app, partitions=2) as driver:
        for record in of_table(capture, table):
            place = {name: record[name] for name in ("key", "partition", "headers")}
            driver.send("changes", record["value"], at=record["timestamp_ms"], **place)
        rows |= {record.key: record.value for record in driver.read("copies")}
        assert driver.dead_letters() == []
    told = list(wanted(capture, table))
    found = [row for row in rows.values() if row is not None]
    assert comparable(found, told[0]) == comparable(told, told[0])


def test_two_tables_in_one_topic_are_told_apart_by_what_only_their_keys_have(database: Database) -> None:
    replica, codec = Replica(database), debezium(dict)
    for number in (0, 1):
        mine = [record for record in of_table("routed.jsonschema", "parts") if record["partition"] == number]
        replica.apply([Batch("parts", good(codec, mine), TopicPartition("t", number), 9)])
    found = database.select("parts", ["__dbz__physicalTableIdentifier", "id", "v"], {})
    told = [(f"routed.jsonschema.public.{table}", int(row[0]), row[1]) for table in ("parts_a", "parts_b") for row in truth()[table][1:]]
    assert sorted(found) == sorted(told)
