"""A source is not started where no record that is written now could be read, and started where some could."""

import asyncio
import json
from typing import Any

import pytest
from msgspec import Struct

from cdc import Registry, avro, jsonschema, protobuf
from engine.errors import ConfigError
from tests.cdc.test_protobuf_codec import compiled


class Money(Struct, frozen=True):
    cents: int


class Payment(Struct, frozen=True):
    id: str
    total: Money
    rate: float | None = None
    note: str | None = None


OBJECT: dict[str, Any] = {"type": "object"}
TOTAL = {**OBJECT, "properties": {"cents": {"type": "integer"}}}
WRITTEN = {**OBJECT, "properties": {"id": {"type": "string"}, "total": {"$ref": "#/$defs/T"}}, "$defs": {"T": TOTAL}}


def start(name: str, kind: str, text: str, make: Any) -> None:
    async def run() -> None:
        registry = Registry(f"memory://unreadable-{kind}-{name}")
        await registry.register("payments-value", text, kind=kind)
        await make(registry).prepare_source("payments")

    asyncio.run(run())


def with_field(name: str, kind: Any) -> dict[str, Any]:
    return {**WRITTEN, "properties": {**WRITTEN["properties"], name: kind}}


READABLE = {
    "as it is": WRITTEN,
    "anything": {},
    "true": True,
    "a field of anything": with_field("id", {}),
    "a field that may be absent, of another type": with_field("note", {"type": "integer"}),
    "one type of several": with_field("id", {"type": ["string", "integer"]}),
    "one of a union": with_field("id", {"anyOf": [{"type": "null"}, {"type": "string"}]}),
    "numbers": with_field("total", {**OBJECT, "properties": {"cents": {"type": "number"}}}),
    "a reference to elsewhere": with_field("total", {"$ref": "money.json"}),
    "open, and says so": {**OBJECT, "properties": {}, "additionalProperties": True},
    "no properties named": OBJECT,
}
UNREADABLE = {
    "another type": (with_field("id", {"type": "integer"}), "id is number and would be read as string"),
    "another type inside": (with_field("total", {**OBJECT, "properties": {"cents": {"type": "string"}}}), "total.cents is string"),
    "no object": ({"type": "array"}, "the value is array and would be read as object"),
    "not written": ({**OBJECT, "properties": {"id": {"type": "string"}}}, "total must be there, and is not written"),
    "no branch": (with_field("id", {"anyOf": [{"type": "null"}, {"type": "boolean"}]}), "id is null or boolean"),
}


@pytest.mark.parametrize("name", READABLE)
def test_json_of_which_some_records_can_be_read_starts(name: str) -> None:
    start(name, "JSON", json.dumps(READABLE[name]), lambda registry: jsonschema(registry, Payment))


@pytest.mark.parametrize("name", UNREADABLE)
def test_json_of_which_no_record_can_be_read_does_not_start(name: str) -> None:
    schema, words = UNREADABLE[name]
    with pytest.raises(ConfigError) as caught:
        start(name, "JSON", json.dumps(schema), lambda registry: jsonschema(registry, Payment))
    assert "source 'payments': records of version 1 of 'payments-value' cannot be read as Payment: " in str(caught.value)
    assert words in str(caught.value)


def test_json_of_our_own_starts() -> None:
    text = jsonschema({}, Payment).schema
    start("own", "JSON", text, lambda registry: jsonschema(registry, Payment))


PROTO = 'syntax = "proto3"; package shop; message First { int32 n = 1; } message Payment { string id = 1; int64 cents = 2; }'
PROTOS = {
    "as it is": (PROTO, None),
    "wider, and more": (PROTO.replace("int64 cents = 2;", "int32 cents = 2; string note = 3;"), None),
    "another message changed": (PROTO.replace("int32 n", "string n"), None),
    "another type": (PROTO.replace("int64 cents", "string cents"), "Payment.cents is string and would be read as int64"),
    "no such message": (PROTO.replace("message Payment", "message Bill"), "the file has no message shop.Payment"),
}


@pytest.mark.parametrize("name", PROTOS)
def test_protobuf_starts_if_its_message_can_be_read(name: str, tmp_path: Any) -> None:
    text, words = PROTOS[name]
    message = compiled(tmp_path, payment=PROTO)["shop.Payment"]
    if words is None:
        start(name, "PROTOBUF", text, lambda registry: protobuf(registry, message))
        return
    with pytest.raises(ConfigError) as caught:
        start(name, "PROTOBUF", text, lambda registry: protobuf(registry, message))
    assert words in str(caught.value)


@pytest.mark.parametrize("make", [avro, jsonschema])
def test_another_kind_of_schema_does_not_start(make: Any) -> None:
    with pytest.raises(ConfigError, match="version 1 of 'payments-value' is PROTOBUF, and its codec reads"):
        start(f"kind {make.__name__}", "PROTOBUF", PROTO, lambda registry: make(registry, Payment))
