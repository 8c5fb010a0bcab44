"""The serializers of Confluent's Python client on the embedded registry, and their records and ours read by each other.

Each kind with references, without registration, by the latest version, and normalized.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.schema_registry import ConfigCompatibilityLevel, Schema, SchemaReference, SchemaRegistryClient, ServerConfig
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from cdc import Registry, avro, jsonschema, protobuf
from cdc.registry.server import RegistryServer
from engine import Struct
from engine.records import RecordBatch
from tests.cdc.test_protobuf_codec import compiled

pytestmark = pytest.mark.thorough

VALUE = SerializationContext("bills", MessageField.VALUE)
LATEST = {"auto.register.schemas": False, "use.latest.version": True}
LOOKED_UP = {"auto.register.schemas": False}
NORMALIZED = {"auto.register.schemas": False, "normalize.schemas": True}


class Money(Struct, frozen=True):
    currency: str
    cents: int


class Bill(Struct, frozen=True):
    id: str
    total: Money
    note: str | None = None


BILL = Bill("b1", Money("EUR", 5), "hi")
PLAIN = {"id": "b1", "total": {"currency": "EUR", "cents": 5}, "note": "hi"}
MONEY_PROTO = 'syntax = "proto3"; package shop; message Money { string currency = 1; int64 cents = 2; }'
BILL_PROTO = """
syntax = "proto3";
package shop;
import "money_of.proto";
message Other { map<string, int32> counts = 1; message Inner { int32 n = 1; } }
message Bill { string id = 1; Money total = 2; optional string note = 3; }
"""


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    running = RegistryServer().start()
    yield running
    running.close()


@pytest.fixture
def client(server: RegistryServer) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": server.url}) as made:
        yield made


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("proto")
    return compiled(folder, money_of=MONEY_PROTO, bill=BILL_PROTO)


def ours(server: RegistryServer, make: Callable[[Registry], Any], *raw: bytes) -> list[Any]:
    """Read records by a codec of ours."""

    async def read() -> list[Any]:
        registry = Registry(server.url, attempts=1)
        codec, batch = make(registry), RecordBatch("bills", 0, range(len(raw)), [0] * len(raw), [None] * len(raw), list(raw), 0, len(raw))
        await codec.prepare(batch)
        found = codec.decode_batch(batch)
        await registry.close()
        assert found.errors == {}
        return list(found.values)

    return asyncio.run(read())


def written_by_us(server: RegistryServer, make: Callable[[Registry], Any], value: Any, topic: str = "bills") -> bytes:
    async def write() -> bytes:
        registry = Registry(server.url, attempts=1)
        codec = make(registry)
        await codec.prepare_sink(topic)
        await registry.close()
        return bytes(codec.encode_column([value])[0])

    return asyncio.run(write())


def avro_of(registry: Registry) -> Any:
    return avro(registry, Bill, references={Money: "money"})


@pytest.mark.parametrize("conf", [LATEST, LOOKED_UP, NORMALIZED], ids=["latest", "looked up", "normalized"])
def test_avro_without_registration_finds_what_we_registered(server: RegistryServer, client: SchemaRegistryClient, conf: Any) -> None:
    raw = written_by_us(server, avro_of, BILL)
    assert AvroDeserializer(client)(raw, VALUE) == PLAIN
    held = client.get_latest_version("bills-value").schema
    text = json.loads(held.schema_str or "")
    if conf is NORMALIZED:
        text["fields"] = [dict(reversed(field.items())) for field in text["fields"]]
        text = dict(reversed(text.items()))
    write = AvroSerializer(client, Schema(json.dumps(text), "AVRO", held.references), conf=dict(conf))
    theirs = write(PLAIN, VALUE)
    assert theirs is not None and theirs[:5] == raw[:5], "the same schema"
    assert ours(server, avro_of, raw, theirs) == [BILL, BILL]
    assert client.get_versions("bills-value") == [1]


def test_avro_without_registration_refuses_what_is_not_there(server: RegistryServer, client: SchemaRegistryClient) -> None:
    written_by_us(server, avro_of, BILL)
    other = json.dumps({"type": "record", "name": "Bill", "fields": [{"name": "id", "type": "string"}]})
    with pytest.raises(SchemaRegistryError) as caught:
        AvroSerializer(client, other, conf=dict(LOOKED_UP))({"id": "x"}, VALUE)
    assert (caught.value.http_status_code, caught.value.error_code) == (404, 40403)
    with pytest.raises(SchemaRegistryError) as caught:
        AvroSerializer(client, other, conf=dict(LOOKED_UP))({"id": "x"}, SerializationContext("none", MessageField.VALUE))
    assert (caught.value.http_status_code, caught.value.error_code) == (404, 40401)


MONEY_JSON = json.dumps({
    "$id": "money.json", "title": "Money", "type": "object", "required": ["currency", "cents"],
    "properties": {"currency": {"type": "string"}, "cents": {"type": "integer"}},
})  # fmt: skip
BILL_JSON = json.dumps({
    "title": "Bill", "type": "object", "required": ["id", "total"],
    "properties": {"id": {"type": "string"}, "total": {"$ref": "money.json"}, "note": {"type": ["string", "null"]}},
})  # fmt: skip


def json_of(registry: Registry) -> Any:
    return jsonschema(registry, Bill)


@pytest.mark.parametrize("conf", [None, LATEST, LOOKED_UP, NORMALIZED], ids=["registered", "latest", "looked up", "normalized"])
def test_json_with_references_is_read_by_us(server: RegistryServer, client: SchemaRegistryClient, conf: Any) -> None:
    client.register_schema("money", Schema(MONEY_JSON, "JSON"))
    schema = Schema(BILL_JSON, "JSON", [SchemaReference("money.json", "money", 1)])
    known = None if conf is None else client.register_schema("bills-value", schema)
    if conf is NORMALIZED:
        schema = Schema(json.dumps(dict(reversed(json.loads(BILL_JSON).items()))), "JSON", schema.references)
    theirs = JSONSerializer(schema, client, conf=None if conf is None else dict(conf))(PLAIN, VALUE)
    assert theirs is not None and known in (None, int.from_bytes(theirs[1:5], "big"))
    assert JSONDeserializer(schema, schema_registry_client=client)(theirs, VALUE) == PLAIN
    assert ours(server, json_of, theirs) == [BILL]


def test_json_of_ours_is_read_and_written_by_the_latest_version(server: RegistryServer, client: SchemaRegistryClient) -> None:
    raw = written_by_us(server, json_of, BILL)
    held = client.get_latest_version("bills-value").schema
    assert JSONDeserializer(None, schema_registry_client=client)(raw, VALUE) == PLAIN
    theirs = JSONSerializer(held, client, conf=dict(LATEST))(PLAIN, VALUE)
    assert theirs is not None and theirs[:5] == raw[:5]
    assert ours(server, json_of, theirs) == [BILL]


@pytest.mark.parametrize("conf", [None, LATEST, NORMALIZED], ids=["registered", "latest", "normalized"])
def test_protobuf_with_references_goes_both_ways(
    server: RegistryServer, client: SchemaRegistryClient, classes: dict[str, Any], conf: Any
) -> None:
    message = classes["shop.Bill"]

    def codec(registry: Registry) -> Any:
        return protobuf(registry, message, Bill)

    raw = written_by_us(server, codec, BILL)
    with SchemaRegistryClient({"url": server.url}) as other:  # a client keeps a schema in the format that it asked for first
        held = other.get_version("bills-value", 1).schema
    assert held.references == [SchemaReference("money_of.proto", "money_of.proto", 1)]
    read = ProtobufDeserializer(message, {}, client)(raw, VALUE)
    assert (read.id, read.total.cents, read.note) == ("b1", 5, "hi")
    theirs = ProtobufSerializer(message, client, conf=None if conf is None else dict(conf))(read, VALUE)
    assert theirs is not None and ours(server, codec, raw, theirs) == [BILL, BILL]
    assert (theirs[:5] == raw[:5]) == (conf is not None), "a descriptor in base64 is another text, and the same in its normal form"
    assert ProtobufDeserializer(message, {}, client)(theirs, VALUE) == read


def test_protobuf_of_theirs_first_takes_ours_as_its_next_version(
    server: RegistryServer, client: SchemaRegistryClient, classes: dict[str, Any]
) -> None:
    message, inner = classes["shop.Bill"], classes["shop.Other"].Inner
    theirs = ProtobufSerializer(message, client)(message(id="b1", total={"currency": "EUR", "cents": 5}, note="hi"), VALUE)
    assert theirs is not None
    raw = written_by_us(server, lambda registry: protobuf(registry, message, Bill), BILL)
    assert client.get_versions("bills-value") == [1, 2]
    assert ours(server, lambda registry: protobuf(registry, message, Bill), theirs, raw) == [BILL, BILL]
    nested = ProtobufSerializer(inner, client)(inner(n=3), SerializationContext("inners", MessageField.VALUE))
    assert nested is not None
    (found,) = ours(server, lambda registry: protobuf(registry, inner), nested)
    assert found.n == 3
    again = written_by_us(server, lambda registry: protobuf(registry, inner), found, "inners")
    assert (nested[5:8], again[5:8]) == (b"\x04\0\x02", b"\x04\0\0"), "they count the hidden message of the map, Java and we do not"
    assert ProtobufDeserializer(inner, {}, client)(again, SerializationContext("inners", MessageField.VALUE)) == found
    assert ours(server, lambda registry: protobuf(registry, inner), again) == [found]


def test_every_call_of_their_client_is_answered(client: SchemaRegistryClient) -> None:
    user = Schema('{"type":"record","name":"User","fields":[{"name":"id","type":"long"}]}', "AVRO")
    turned = Schema('{"name":"User","fields":[{"type":"long","name":"id"}],"type":"record"}', "AVRO")
    team = Schema('{"type":"record","name":"Team","fields":[{"name":"lead","type":"User"}]}', "AVRO", [SchemaReference("User", "user", 1)])
    first, second = client.register_schema("user", user), client.register_schema("team", team)
    assert client.register_schema("user", turned, normalize_schemas=True) == first
    assert client.lookup_schema("user", turned, normalize_schemas=True).schema_id == first
    assert client.get_schema_types() == ["AVRO", "JSON", "PROTOBUF"]
    assert client.get_subjects(subject_prefix="te") == ["team"]
    assert client.get_subjects_by_schema_id(first) == ["user"]
    assert [(found.subject, found.version) for found in client.get_schema_versions(first)] == [("user", 1)]
    assert client.get_referenced_by("user", 1) == [second]
    assert client.test_compatibility_all_versions("none", user), "it could be registered"
    client.set_config("user", ServerConfig(compatibility=ConfigCompatibilityLevel.FULL))
    assert client.get_config("user").compatibility_level == "FULL"
    assert client.delete_config("user").compatibility_level == "FULL"
    with pytest.raises(SchemaRegistryError) as caught:
        client.get_config("user")
    assert (caught.value.http_status_code, caught.value.error_code) == (404, 40408)
    assert (client.update_mode("user", "READONLY"), client.get_mode("user")) == ("READONLY", "READONLY")
    with pytest.raises(SchemaRegistryError) as caught:
        client.register_schema("user", Schema('"string"', "AVRO"))
    assert (caught.value.http_status_code, caught.value.error_code) == (422, 42205)
    assert client.delete_mode("user") == "READONLY"
    assert (client.update_global_mode("READWRITE"), client.get_global_mode()) == ("READWRITE", "READWRITE")
    assert client.get_contexts() == ["."]
    with pytest.raises(SchemaRegistryError) as caught:
        client.delete_subject("team", permanent=True)
    assert (caught.value.http_status_code, caught.value.error_code) == (404, 40405)
