"""Replica identities, long values left out of every type, and the unwrapped form: applied to a table they give what SQL says.

The captures are made by `tests.cdc.chain.forms`; nothing in them was edited.
"""

import base64
import json
import lzma
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cdc import Change, Op, debezium
from tests.cdc.test_apply import rows_of, take
from tests.cdc.test_gallery import as_declared, held, same

FOLDER = Path(__file__).parent / "fixtures" / "forms"
CAPTURES = (
    "envelope.jsonschema",
    "envelope.avro",
    "plainer.jsonschema",
    "rewrite.jsonschema",
    "rewrite_tombstone.avro",
    "headers.jsonschema",
    "bare.jsonschema",
)
pytestmark = pytest.mark.thorough

KEYED = {"plain": "id", "full_rows": "id", "by_index": "code", "sealed": "id"}
NULLED = {"c_num", "c_nums", "c_doubles", "c_stamps"}
"""Left out as nulls, not as placeholders: Debezium 3.5 has none for numeric, and none for arrays of these."""


@cache
def read(name: str) -> Any:
    return json.loads(lzma.decompress((FOLDER / f"{name}.json.xz").read_bytes()))


def changes(capture: str, table: str) -> Iterator[Change[Any]]:
    """Yield the changes of a table in the order of the database; rows without a position in that of their records."""
    binary = capture.endswith(".avro")
    raw: Callable[[str], bytes] = base64.b64decode if binary else str.encode
    schemas = {int(k): v for k, v in read(f"{capture}.schemas").items()} if binary else None
    identity: Any = "full" if table in ("full_rows", "keyless") else "default"
    codec = debezium(dict, registry=schemas, replica_identity=identity, unwrapped=True if capture.startswith("bare") else None)
    found: list[tuple[Any, Change[Any]]] = []
    for line in lzma.decompress((FOLDER / f"{capture}.jsonl.xz").read_bytes()).decode().splitlines():
        record = json.loads(line)
        if record["topic"].endswith(f".{table}"):
            key, value = (None if record[part] is None else raw(record[part]) for part in ("key", "value"))
            change = codec.decode(record["topic"], key, value, [(name, raw(text)) for name, text in record["headers"]])
            if change is not None:
                found.append(((change.position, record["timestamp_ms"], record["offset"]), change))
    yield from (change for _, change in sorted(found, key=lambda pair: pair[0]))


def differing(row: dict[str, Any], told: dict[str, Any], mode: str) -> list[str]:
    """Return the columns of a row that are not what SQL says."""
    types = read("truth")["columns"].items()
    found = {column: as_declared(mode, type_, row[column]) for column, type_ in types}
    return [column for column, type_ in types if not same(found[column], held(type_, told[column]), "default", type_)]


@pytest.mark.parametrize("capture", CAPTURES)
@pytest.mark.parametrize("table", KEYED)
def test_a_table_of_the_changes_is_what_sql_says(capture: str, table: str) -> None:
    made: dict[Any, Any] = {}
    for change in changes(capture, table):
        take(made, change)
    told = {row[KEYED[table]]: row for row in read("truth")["rows"][table]}
    rows = {key: row for (key,), row in rows_of(made).items()}
    assert rows.keys() == told.keys()
    mode = "isostring" if capture.startswith("plainer") else "default"  # bytes as hex
    wrong = {(key, column) for key, row in rows.items() for column in differing(row, told[key], mode)}
    changed = {key for key in rows if told[key]["c_note"] != "new"} if table in ("plain", "by_index") else set()
    nulled = NULLED - ({"c_num"} if capture.startswith("plainer") else set())  # as a text it has a placeholder
    assert wrong == {(key, column) for key in changed for column in nulled}
    assert all(rows[key][column] is None for key, column in wrong)


@pytest.mark.parametrize("capture", ["envelope.jsonschema", "envelope.avro"])
def test_rows_without_a_key_come_and_go_by_their_content(capture: str) -> None:
    kept: list[bytes] = []
    for change in sorted(changes(capture, "keyless"), key=lambda change: change.position):
        assert change.key is None and change.unavailable == ()
        if change.op in (Op.UPDATE, Op.DELETE):
            kept.remove(encoded(change.before))
        if change.op is not Op.DELETE:
            kept.append(encoded(change.after))
    rows = read("truth")["rows"]["keyless"]
    assert sorted(msgspec.msgpack.decode(raw)["code"] for raw in kept) == sorted(row["code"] for row in rows)


def encoded(row: Any) -> bytes:
    return msgspec.msgpack.encode(row, order="deterministic", enc_hook=repr)


@pytest.mark.parametrize("capture", CAPTURES)
def test_long_values_left_out_are_named(capture: str) -> None:
    named = {"c_text", "c_bytea", "c_json", "c_jsonb", "c_xml", "c_bigints", "c_texts", "c_uuids", "c_dates", "c_hstore"}
    updates = [change for change in changes(capture, "plain") if change.after is not None and change.after["c_note"] == "changed"]
    assert len(updates) == 2
    for change in updates:
        assert set(change.unavailable) == named | ({"c_num"} if capture.startswith("plainer") else set())
