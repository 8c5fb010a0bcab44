"""Records with schema ids, through a registry over HTTP: written by one version of a program, read by another."""

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pytest

from cdc import Op, debezium
from cdc.avro_types import Aliases, schema_text
from cdc.avro_values import Writer
from cdc.registry.client import IncompatibleError, Registry
from cdc.registry.server import RegistryServer
from cdc.schema_codecs import avro, jsonschema
from cdc.values import Scale
from engine.errors import ConfigError, RecordError, UnavailableError
from engine.records import RecordBatch
from tests.cdc.captures import batch, lines, schemas

pytestmark = pytest.mark.thorough


class Payment(msgspec.Struct, frozen=True):
    id: int
    amount: Annotated[Decimal, Scale(2)]


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    server = RegistryServer().start()
    client = Registry(server.url, attempts=1)
    yield client
    await client.close()
    server.close()


def records(*values: bytes | None) -> RecordBatch:
    size = len(values)
    return RecordBatch("payments", 0, range(size), [0] * size, [None] * size, list(values), position=0, next_offset=size)


async def decoded(codec: Any, *values: bytes | None) -> Any:
    found = records(*values)
    await codec.prepare(found)
    return codec.decode_batch(found)


async def written(codec: Any, *values: Any) -> list[bytes]:
    await codec.prepare_sink("payments")
    return list(codec.encode_column(values))


@pytest.mark.parametrize("make", [avro, jsonschema])
async def test_codec_what_is_written_is_read(registry: Registry, make: Any) -> None:
    codec = make(registry, Payment)
    values = [Payment(1, Decimal("12.50")), Payment(2, Decimal("-0.01"))]
    raw = await written(codec, *values)
    assert all(record[0] == 0 for record in raw)
    assert await registry.subjects() == ["payments-value"]
    assert (await decoded(make(registry, Payment), *raw)).values == values
    assert codec.encode_column([None]) == [None]


async def test_avro_old_and_new_records_run_through_one_reader(registry: Registry) -> None:
    class Wider(msgspec.Struct, frozen=True):
        id: float
        total: Annotated[Decimal, Scale(2), Aliases("amount")]
        currency: str = "EUR"
        tags: list[str] = []

    Wider.__name__ = "Payment"
    old = await written(avro(registry, Payment), Payment(1, Decimal("12.50")))
    new = await written(avro(registry, Wider), Wider(2.5, Decimal("1.00"), "USD", ["x"]))
    found = await decoded(avro(registry, Wider), *old, *new)
    assert not found.errors
    assert found.values == [Wider(1.0, Decimal("12.50"), "EUR", []), Wider(2.5, Decimal("1.00"), "USD", ["x"])]
    plain = await decoded(avro(registry), *old, *new)
    assert [set(value) for value in plain.values] == [{"id", "amount"}, {"id", "total", "currency", "tags"}]


async def test_avro_an_incompatible_schema_stops_the_start(registry: Registry) -> None:
    class Other(msgspec.Struct, frozen=True):
        id: str

    Other.__name__ = "Payment"
    await avro(registry, Payment).prepare_sink("payments")
    with pytest.raises(IncompatibleError, match=r"Payment.id is long and would be read as string"):
        await avro(registry, Other).prepare_sink("payments")


@pytest.mark.parametrize(
    ("subject", "expected"),
    [("topic", "payments-value"), ("record", "shop.Payment"), ("topic-record", "payments-shop.Payment"), (lambda topic, record: "x", "x")],
)
async def test_avro_subject_strategies(registry: Registry, subject: Any, expected: str) -> None:
    await avro(registry, Payment, subject=subject, namespace="shop").prepare_sink("payments")
    assert await registry.subjects() == [expected]


async def test_avro_without_auto_register_the_schema_must_be_there(registry: Registry) -> None:
    codec = avro(registry, Payment, auto_register=False)
    with pytest.raises(ConfigError, match="is not registered under 'payments-value'"):
        await codec.prepare_sink("payments")
    known = await registry.register("payments-value", schema_text(Payment))
    (raw,) = await written(codec, Payment(1, Decimal(1)))
    assert int.from_bytes(raw[1:5], "big") == known


async def test_avro_bad_records_are_dead_letters_that_name_the_id(registry: Registry) -> None:
    codec = avro(registry, Payment)
    (raw,) = await written(codec, Payment(1, Decimal("12.50")))
    unknown = b"\0" + (99).to_bytes(4, "big") + raw[5:]
    found = await decoded(avro(registry, Payment), None, b"{}", unknown, raw[:-1], raw + b"x", raw)
    reasons = [str(found.errors[row]) for row in range(5)]
    for reason, part in zip(
        reasons, ("tombstone", "zero byte", "no schema of id 99", "schema 1: the bytes do not fit", "left over"), strict=True
    ):
        assert part in reason
    assert found.values[5] == Payment(1, Decimal("12.50"))


async def test_avro_while_the_registry_is_down_nothing_is_called_bad() -> None:
    codec = avro(Registry("http://127.0.0.1:9", attempts=1, timeout_s=0.5), Payment)
    with pytest.raises(UnavailableError, match="does not answer"):
        await codec.prepare(records(b"\0\0\0\0\1x"))
    with pytest.raises(UnavailableError):
        codec.decode_batch(records(b"\0\0\0\0\1x"))


async def test_avro_a_writer_without_logical_types_is_refused_not_guessed() -> None:
    class Visit(msgspec.Struct, frozen=True):
        at: Annotated[Decimal, Scale(2)]

    plain = {"type": "record", "name": "Visit", "fields": [{"name": "at", "type": "bytes"}]}
    raw = Writer(plain).encode({"at": b"\1"}, b"\0\0\0\0\7")
    found = avro({7: json.dumps(plain)}, Visit).decode_batch(records(raw))
    assert "not a valid Visit" in str(found.errors[0])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: avro({}, Payment, subject="sometimes"), "'topic', 'record', 'topic-record'"),
        (lambda: avro({}, int), "use a Struct or dict"),
        (lambda: jsonschema({}, complex), "no JSON schema"),
    ],
)
def test_codec_wrong_arguments_are_a_config_error(make: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        make()


async def test_sink_needs_a_registry_and_a_struct(registry: Registry) -> None:
    with pytest.raises(ConfigError, match="give a Registry"):
        await avro({}, Payment).prepare_sink("payments")
    with pytest.raises(ConfigError, match="declare a Struct"):
        await avro(registry).prepare_sink("payments")
    with pytest.raises(ConfigError, match="has not been registered"):
        avro(registry, Payment).encode_column([Payment(1, Decimal(1))])
    codec = avro(registry, Payment)
    await codec.prepare_sink("payments")
    with pytest.raises(RecordError, match="a dict where Payment is declared"):
        codec.encode_column([{"id": 1}])  # type: ignore[list-item]  # on purpose


async def test_jsonschema_a_record_that_does_not_fit_is_refused(registry: Registry) -> None:
    await jsonschema(registry, Payment).prepare_sink("payments")
    found = await decoded(jsonschema(registry, Payment), b"\0\0\0\0\1" + b'{"id":"x","amount":"1"}')
    assert "schema 1: not a valid Payment" in str(found.errors[0])


@pytest.mark.thorough
async def test_debezium_fetches_its_schemas_before_a_batch_is_decoded(registry: Registry) -> None:
    """Schemas of the capture are registered anew; ids differ from the captured ones, so the records are given the new ids."""
    ids = {}
    for old, schema in schemas("core.avro").items():
        ids[old] = await registry.register(f"s{old}", json.dumps(schema))
    moved = []
    for record in lines("core.avro"):
        again = {part: _renumbered(record[part], ids) for part in ("key", "value")}
        moved.append({**record, **again})
    codec = debezium(dict, registry=registry)
    await codec.prepare(batch(moved))
    found = codec.decode_batch(batch(moved))
    assert not found.errors
    expected = debezium(dict, registry=schemas("core.avro")).decode_batch(batch(lines("core.avro")))
    assert [value and value.after for value in found.values] == [value and value.after for value in expected.values]
    assert sum(value is not None and value.op is Op.READ for value in found.values) == 12


def _renumbered(raw: bytes | None, ids: dict[int, int]) -> bytes | None:
    return None if raw is None else b"\0" + ids[int.from_bytes(raw[1:5], "big")].to_bytes(4, "big") + raw[5:]
