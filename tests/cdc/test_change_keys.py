"""Keys of which the connector leaves one column (ExtractField$Key): named by the codec, read as the column is."""

import json
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from msgspec import Struct

from cdc import Change, Op, debezium
from engine import Sink, Stream
from engine.errors import RecordError
from engine.testing import TestDriver
from engine.topology import Topology

SOURCE = {"lsn": 10, "sequence": '["9","10"]', "ts_ms": 1, "snapshot": "false", "table": "users"}


class User(Struct, frozen=True):
    id: str
    n: int = 0


def row(kind: str, name: str | None = None, **more: Any) -> dict[str, Any]:
    return {"type": kind, "name": name, "field": "id", "optional": False, **more}


def record(field: dict[str, Any], value: Any) -> bytes:
    """Return an update with its schema."""
    rows = {"type": "struct", "fields": [field]}
    fields = [{**rows, "field": "before", "optional": True}, {**rows, "field": "after", "optional": True}]
    source = {"type": "struct", "field": "source", "fields": [{"type": "int64", "field": "lsn"}]}
    schema = {"type": "struct", "fields": [*fields, source, {"type": "string", "field": "op"}]}
    payload = {"before": None, "after": {"id": value}, "source": {"lsn": 10}, "op": "u"}
    return json.dumps({"schema": schema, "payload": payload}).encode()


DAY = row("int32", "io.debezium.time.Date")
PRICE = row("bytes", "org.apache.kafka.connect.data.Decimal", parameters={"scale": "2"})
NAME = "6f1c2f0e-4a3d-4c5b-9e11-0123456789ab"


@pytest.mark.parametrize(
    ("field", "value", "key", "column"),
    [
        (row("int32"), 7, b"7", 7),
        (row("string"), "a b", b'"a b"', "a b"),
        (row("string"), "a b", b"a b", "a b"),  # StringConverter
        (row("string", "io.debezium.data.Uuid"), NAME, NAME.encode(), UUID(NAME)),
        (DAY, 20_000, b"20000", date(2024, 10, 4)),
        (DAY, 20_000, b'{"schema":{"type":"int32","name":"io.debezium.time.Date"},"payload":20000}', date(2024, 10, 4)),
        (PRICE, "AJY=", b'"AJY="', Decimal("1.50")),
    ],
)
def test_the_key_is_the_column_in_the_types_of_the_row(field: dict[str, Any], value: Any, key: bytes, column: Any) -> None:
    codec: Any = debezium(dict, key_column="id")
    change = codec.decode("users", key, record(field, value), [])
    assert (change.key, change.after) == ({"id": column}, {"id": column})


def test_without_its_name_it_is_refused_with_what_helps() -> None:
    value = json.dumps({"op": "c", "after": {"id": "a"}, "source": SOURCE}).encode()
    with pytest.raises(RecordError, match=r"the key 7 does not hold columns.*key_column="):
        debezium(User).decode("users", b"7", value, [])


def test_a_text_column_stays_text_and_deletes_find_their_row() -> None:
    app = Topology("keys", partitions=1)
    users = app.source("users", codec=debezium(User, key_column="id"), key="id")

    @app.pipeline(users)
    def copies(changes: Stream[str, Change[User]]) -> Sink:
        return changes.table("users").to("copies")

    def envelope(op: str, lsn: int, **images: Any) -> bytes:
        return json.dumps({"op": op, **images, "source": {**SOURCE, "lsn": lsn, "sequence": f'["{lsn - 1}","{lsn}"]'}}).encode()

    with TestDriver(app) as driver:
        driver.send("users", envelope("c", 10, after={"id": "007", "n": 1}), key=b"007")
        driver.send("users", envelope("c", 20, after={"id": "8", "n": 1}), key=b"8")
        driver.send("users", envelope("d", 30, before={"id": "8", "n": 0}), key=b"8")
        assert {record.key: record.value is not None for record in driver.read("copies")} == {"007": True, "8": False}
        assert driver.dead_letters() == []
    found = debezium(User, key_column="id").decode("users", b"8", envelope("d", 30, before={"id": "8", "n": 0}), [])
    assert found is not None and (found.op, found.key) == (Op.DELETE, {"id": "8"})
