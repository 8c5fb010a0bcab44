"""The unwrapped form under other names, keys in headers, and contents of messages; records by hand as Debezium's documentation says.

Source: Debezium documentation, "New Record State Extraction" and "Debezium connector for PostgreSQL", section "Message events".
"""

import base64
import json
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from cdc import Change, Message, Op, Position, Transaction, Unwrapped, debezium
from engine.errors import ConfigError, RecordError

KEY = b'{"id":1}'


def decode(codec: Any, value: Any, headers: dict[str, str] | None = None, *, key: bytes | None = KEY) -> Change[Any]:
    raw = None if value is None else json.dumps(value, separators=(",", ":")).encode()
    change: Change[Any] = codec.decode("t", key, raw, [(name, text.encode()) for name, text in (headers or {}).items()])
    return change


def test_added_fields_have_the_names_that_the_connector_gives_them() -> None:
    settings = Unwrapped(
        add_fields="op:operation,lsn, source.sequence:seq,source.ts_ms:at,table,source.version,before.id", add_fields_prefix="cdc_"
    )
    row = {"id": 1, "op": "mine", "cdc_operation": "c", "cdc_lsn": 5, "cdc_seq": '["4","5"]', "cdc_at": 9, "cdc_table": "users"}
    change = decode(debezium(dict, unwrapped=settings), {**row, "cdc_source_version": "3.5", "cdc_before_id": None})
    assert (change.op, change.after, change.table, change.source_ms) == (Op.CREATE, {"id": 1, "op": "mine"}, "users", 9)
    assert change.position == Position(4, 5)


def test_added_fields_without_a_prefix_are_those_that_are_listed() -> None:
    codec = debezium(dict, unwrapped=Unwrapped(add_fields="op,source.lsn", add_fields_prefix=""))
    change = decode(codec, {"id": 1, "lsn": "a column", "op": "r", "source_lsn": 7})
    assert (change.op, change.after, change.position) == (Op.READ, {"id": 1, "lsn": "a column"}, Position(0, 7))
    with pytest.raises(ConfigError, match="cannot be told from columns"):
        debezium(dict, unwrapped=Unwrapped(add_fields_prefix=""))


def test_what_is_added_may_stand_in_headers() -> None:
    codec = debezium(dict, unwrapped=Unwrapped(add_headers_prefix="h."))
    headers = {"h.op": '"u"', "h.source_txId": "77", "h.source_lsn": "8", "h.source_ts_ms": "9", "h.table": "users", "h.ts_ms": "null"}
    change = decode(codec, {"id": 1}, headers)
    assert (change.op, change.position, change.transaction) == (Op.UPDATE, Position(0, 8), Transaction(77))
    assert (change.source_ms, change.captured_ms, change.table) == (9, None, "users")
    gone = decode(codec, None, {**headers, "h.op": "d"})
    assert (gone.op, gone.key, gone.position) == (Op.DELETE, {"id": 1}, Position(0, 8))
    with pytest.raises(RecordError, match="txId 'seven' of an unwrapped row is not a number"):
        decode(codec, {"id": 1}, {**headers, "h.source_txId": "seven"})


def test_rows_under_other_names_are_refused_with_what_to_do() -> None:
    with pytest.raises(RecordError, match=r"unwrapped=Unwrapped\("):
        decode(debezium(dict), {"id": 1, "cdc_op": "u"})


def key_schema(**columns: Any) -> dict[str, Any]:
    return {"type": "struct", "fields": [{"field": name, **column} for name, column in columns.items()]}


DECIMAL = {"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "2"}}
DAY = {"type": "int32", "name": "io.debezium.time.Date"}


@pytest.mark.parametrize("header", ['{"n":-106.25,"day":3}', '{"n":"1n8=","day":3}'])
def test_keys_in_headers_are_read_as_the_key_is(header: str) -> None:
    """SimpleHeaderConverter writes a decimal as a number, JsonConverter as the key itself has it: -10625 is D67F."""
    n, day = base64.b64encode((10225).to_bytes(2, "big")).decode(), 1
    key = json.dumps({"schema": key_schema(n=DECIMAL, day=DAY), "payload": {"n": n, "day": day}}, separators=(",", ":")).encode()
    source = {"lsn": 5, "snapshot": "false"}
    change = decode(debezium(dict), {"op": "d", "source": source, "before": {}, "after": None}, {"__debezium.newkey": header}, key=key)
    assert change.key == {"n": Decimal("102.25"), "day": date(1970, 1, 2)}
    assert change.new_key == {"n": Decimal("-106.25"), "day": date(1970, 1, 4)}
    assert change.new_key is not None and type(change.new_key["n"]) is Decimal


def message(content: Any, kind: str | None = None) -> Any:
    value = {"op": "m", "source": {"lsn": 5}, "message": {"prefix": "p", "content": content}}
    if kind is None:
        return value
    inner = {"type": "struct", "field": "message", "fields": [{"type": "string", "field": "prefix"}, {"type": kind, "field": "content"}]}
    source = {"type": "struct", "field": "source", "fields": []}
    return {"schema": {"type": "struct", "fields": [source, {"type": "string", "field": "op"}, inner]}, "payload": value}


@pytest.mark.parametrize(
    ("value", "mode"),
    [
        (message("AP_-"), "base64-url-safe"), (message("AP/+"), None), (message("AP/+", "bytes"), None), (message("00fffe"), "hex"),
        (message("00fffe", "string"), "hex"), (message("AP/+", "string"), "base64"),
    ],
)  # fmt: skip
def test_content_of_a_message_is_read_by_the_connectors_mode(value: Any, mode: Any) -> None:
    assert decode(debezium(dict, binary=mode), value, key=None).message == Message("p", b"\0\xff\xfe")


def test_content_of_a_message_that_may_be_either_is_refused() -> None:
    with pytest.raises(RecordError, match=r"text in base64 or hex; give debezium\(binary=\.\.\.\)"):
        decode(debezium(dict), message("00fffe", "string"), key=None)
    with pytest.raises(RecordError, match=r"binary\.handling\.mode"):
        decode(debezium(dict), message("§"), key=None)
    with pytest.raises(ConfigError, match="binary='bytes' is not known"):
        debezium(dict, binary="bytes")  # type: ignore[arg-type]  # what is to be refused


def test_schemas_of_a_mapping_may_have_ids_as_texts() -> None:
    """As they are in JSON."""
    schema = {"type": "record", "name": "Key", "fields": [{"name": "id", "type": "int"}]}
    codec = debezium(dict, registry={"7": schema}, unwrapped=True)  # type: ignore[dict-item]  # as JSON has them
    change = codec.decode("t", b"\0\0\0\0\7\2", b"\0\0\0\0\7\2", ())
    assert change is not None and (change.key, change.after) == ({"id": 1}, {"id": 1})


def test_a_value_whose_schema_is_null_is_plain() -> None:
    """JsonConverter with schemas writes so what has none."""
    change = decode(debezium(dict, unwrapped=True), {"schema": None, "payload": {"id": 1}})
    assert change.after == {"id": 1}
