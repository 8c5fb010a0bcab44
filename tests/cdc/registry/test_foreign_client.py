"""Confluent's own client against the embedded registry, and their records and ours read by each other."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from cdc import Registry, avro, jsonschema
from cdc.registry.rules import LEVELS
from cdc.registry.server import RegistryServer
from engine import Struct
from engine.records import RecordBatch
from tests.cdc.registry.test_rules import BASE, CHANGES

pytestmark = pytest.mark.thorough


class Payment(Struct, frozen=True):
    id: str
    cents: int
    note: str | None = None


VALUE = SerializationContext("payments", MessageField.VALUE)


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    running = RegistryServer().start()
    yield running
    running.close()


@pytest.fixture
def client(server: RegistryServer) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": server.url}) as made:
        yield made


def records(*raw: bytes | None) -> RecordBatch:
    return RecordBatch("payments", 0, range(len(raw)), [0] * len(raw), [None] * len(raw), list(raw), 0, len(raw))


def ours(server: RegistryServer, make: Any, *raw: bytes) -> list[Any]:
    """Read records by a codec of ours."""

    async def read() -> list[Any]:
        registry = Registry(server.url, attempts=1)
        codec = make(registry, Payment)
        await codec.prepare(records(*raw))
        found = codec.decode_batch(records(*raw))
        await registry.close()
        assert found.errors == {}
        return list(found.values)

    return asyncio.run(read())


def written_by_us(server: RegistryServer, make: Any, *values: Payment) -> list[bytes]:
    async def write() -> list[bytes]:
        registry = Registry(server.url, attempts=1)
        codec = make(registry, Payment)
        await codec.prepare_sink("payments")
        await registry.close()
        return list(codec.encode_column(values))

    return asyncio.run(write())


def avro_text(schema: Any) -> Schema:
    return Schema(json.dumps(schema), "AVRO")


def test_their_avro_records_are_read_by_us_and_ours_by_them(server: RegistryServer, client: SchemaRegistryClient) -> None:
    (raw,) = written_by_us(server, avro, Payment("p1", 5, "hi"))
    assert AvroDeserializer(client)(raw, VALUE) == {"id": "p1", "cents": 5, "note": "hi"}
    fields = [{"name": "id", "type": "string"}, {"name": "cents", "type": "int"}]
    write = AvroSerializer(
        client, json.dumps({"type": "record", "name": "Payment", "fields": fields}), conf={"auto.register.schemas": True}
    )
    client.set_compatibility("payments-value", "NONE")
    theirs = write({"id": "p2", "cents": 7}, VALUE)
    assert theirs is not None and ours(server, avro, raw, theirs) == [Payment("p1", 5, "hi"), Payment("p2", 7)]


def test_their_json_records_are_read_by_us_and_ours_by_them(server: RegistryServer, client: SchemaRegistryClient) -> None:
    (raw,) = written_by_us(server, jsonschema, Payment("p1", 5))
    schema = client.get_latest_version("payments-value").schema
    assert schema.schema_type == "JSON"
    inner = json.dumps({**json.loads(schema.schema_str or "")["$defs"]["Payment"], "title": "Payment"})
    read = JSONDeserializer(inner, schema_registry_client=None)
    assert read(raw, VALUE) == {"id": "p1", "cents": 5, "note": None}
    client.set_compatibility("payments-value", "NONE")
    theirs = JSONSerializer(inner, client)({"id": "p2", "cents": 7, "note": "x"}, VALUE)
    assert theirs is not None and ours(server, jsonschema, theirs) == [Payment("p2", 7, "x")]


@pytest.mark.thorough
@pytest.mark.parametrize("level", LEVELS)
def test_levels_are_kept_and_enforced_for_them(client: SchemaRegistryClient, level: str) -> None:
    subject = f"levels-{level}"
    client.register_schema(subject, avro_text(BASE))
    client.set_compatibility(subject, level)
    assert client.get_compatibility(subject) == level
    for new, backward, forward in CHANGES.values():
        allowed = {"NONE": True, "BACKWARD": backward, "FORWARD": forward, "FULL": backward and forward}[level.removesuffix("_TRANSITIVE")]
        assert client.test_compatibility(subject, avro_text(new)) is allowed
        assert client.test_compatibility_all_versions(subject, avro_text(new)) is allowed
    refused = [new for new, backward, forward in CHANGES.values() if not backward and not forward]
    if level != "NONE":
        with pytest.raises(SchemaRegistryError) as caught:
            client.register_schema(subject, avro_text(refused[0]))
        assert (caught.value.http_status_code, caught.value.error_code) == (409, 409)


def test_versions_ids_and_deletes_are_as_they_expect(client: SchemaRegistryClient) -> None:
    first = client.register_schema("s", avro_text(BASE))
    second = client.register_schema("s", avro_text(CHANGES["add_optional"][0]))
    assert client.register_schema("other", avro_text(BASE)) == first
    assert (client.get_versions("s"), client.get_subjects()) == ([1, 2], ["other", "s"])
    assert json.loads(str(client.get_schema(second).schema_str)) == CHANGES["add_optional"][0]
    found = client.lookup_schema("s", avro_text(BASE))
    assert (found.subject, found.version, found.schema_id) == ("s", 1, first)
    assert client.get_latest_version("s").version == 2
    assert client.delete_version("s", 1) == 1
    with pytest.raises(SchemaRegistryError) as caught:
        client.get_version("s", 1)
    assert (caught.value.http_status_code, caught.value.error_code) == (404, 40402)
    assert client.delete_subject("s") == [2]
    assert client.get_subjects(deleted=True) == ["other", "s"]
    assert client.delete_subject("s", permanent=True) == [1, 2]
    with pytest.raises(SchemaRegistryError) as caught:
        client.get_versions("s")
    assert (caught.value.http_status_code, caught.value.error_code) == (404, 40401)
    with pytest.raises(SchemaRegistryError) as caught:
        client.get_schema(999)
    assert (caught.value.http_status_code, caught.value.error_code) == (404, 40403)
    with pytest.raises(SchemaRegistryError) as caught:
        client.register_schema("bad", Schema('{"type":"recrd"}', "AVRO"))
    assert (caught.value.http_status_code, caught.value.error_code) == (422, 42201)


def test_references_are_resolved_for_them(client: SchemaRegistryClient) -> None:
    client.register_schema("money", avro_text({"type": "record", "name": "Money", "fields": [{"name": "cents", "type": "long"}]}))
    bill = {"type": "record", "name": "Bill", "fields": [{"name": "total", "type": "Money"}]}
    references = [SchemaReference("Money", "money", 1)]
    write = AvroSerializer(client, Schema(json.dumps(bill), "AVRO", references))
    raw = write({"total": {"cents": 3}}, SerializationContext("bills", MessageField.VALUE))
    assert AvroDeserializer(client)(raw, SerializationContext("bills", MessageField.VALUE)) == {"total": {"cents": 3}}
    with pytest.raises(SchemaRegistryError) as caught:
        client.delete_version("money", 1)
    assert (caught.value.http_status_code, caught.value.error_code) == (422, 42206)
