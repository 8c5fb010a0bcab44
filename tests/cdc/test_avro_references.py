"""A Struct whose schema refers to schemas under subjects of their own: written, read by others, evolved, and refused."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from cdc import Registry, avro
from cdc.registry.server import RegistryServer
from engine import ConfigError, Struct
from engine.errors import RecordError
from tests.cdc.registry.test_schemas_command import schemas
from tests.cdc.test_schema_codecs import records

pytestmark = pytest.mark.thorough


class Country(Struct, frozen=True):
    code: str


class Address(Struct, frozen=True):
    city: str
    country: Country


class Order(Struct, frozen=True):
    id: str
    home: Address
    work: Address | None = None
    from_: Country | None = None


class Other(Struct, frozen=True):
    x: int


ORDER = Order("o1", Address("Rome", Country("IT")), from_=Country("FR"))
PLAIN = {
    "id": "o1",
    "home": {"city": "Rome", "country": {"code": "IT"}},
    "work": None,
    "from_": {"code": "FR"},
}
BOTH: dict[type[Struct], str] = {Address: "addresses", Country: "countries"}
VALUE = SerializationContext("orders", MessageField.VALUE)


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    running = RegistryServer().start()
    yield running
    running.close()


async def codec(server: RegistryServer, **options: Any) -> Any:
    registry = Registry(server.url, attempts=1)
    made = avro(registry, options.pop("type", Order), **{"references": BOTH, **options})
    try:
        await made.prepare_sink("orders")
    finally:
        await registry.close()
    return made


@pytest.mark.parametrize("namespace", [None, "shop.v1"])
async def test_parts_stand_under_their_subjects_and_the_whole_refers_to_them(server: RegistryServer, namespace: str | None) -> None:
    made = await codec(server, namespace=namespace)
    with SchemaRegistryClient({"url": server.url}) as client:
        held = client.get_latest_version("orders-value").schema
        prefix = f"{namespace}." if namespace else ""
        assert [(r.name, r.subject, r.version) for r in held.references] == [
            (f"{prefix}Address", "addresses", 1), (f"{prefix}Country", "countries", 1),
        ]  # fmt: skip
        fields = {field["name"]: field["type"] for field in json.loads(held.schema_str or "")["fields"]}
        assert fields["home"] == f"{prefix}Address" and fields["work"] == ["null", f"{prefix}Address"]
        address = client.get_latest_version("addresses").schema
        assert [(r.name, r.subject) for r in address.references] == [(f"{prefix}Country", "countries")]
        assert client.get_latest_version("countries").schema.references == []
        (raw,) = made.encode_column([ORDER])
        assert raw[:5] == b"\0" + client.get_latest_version("orders-value").schema_id.to_bytes(4, "big")
        assert await asyncio.to_thread(AvroDeserializer(client), raw, VALUE) == PLAIN, "read by Confluent's client"

        write = AvroSerializer(client, held, conf={"auto.register.schemas": False, "use.latest.version": True})
        theirs = await asyncio.to_thread(write, PLAIN | {"id": "o2"}, VALUE)
    registry = Registry(server.url, attempts=1)
    for reading in (avro(registry, Order, namespace=namespace), avro(registry, Order, references=BOTH)):
        both = records(raw, theirs)
        await reading.prepare(both)
        assert reading.decode_batch(both).values == [ORDER, Order("o2", ORDER.home, None, ORDER.from_)]
    await registry.close()


async def test_a_part_may_stand_inside_the_other(server: RegistryServer) -> None:
    class Shop(Struct, frozen=True):
        at: Address

    made = await codec(server, type=Shop, references={Address: "addresses"})
    with SchemaRegistryClient({"url": server.url}) as client:
        assert set(client.get_subjects()) == {"addresses", "orders-value"}
        (raw,) = made.encode_column([Shop(Address("Rome", Country("IT")))])
        assert await asyncio.to_thread(AvroDeserializer(client), raw, VALUE) == {"at": {"city": "Rome", "country": {"code": "IT"}}}


async def test_without_auto_register_parts_must_be_there(server: RegistryServer) -> None:
    with pytest.raises(ConfigError, match="not registered under 'orders-value'"):
        await codec(server, auto_register=False)
    await codec(server)
    made = await codec(server, auto_register=False)
    assert made.encode_column([ORDER]) == (await codec(server)).encode_column([ORDER])


async def test_a_part_that_evolves_makes_a_new_version_of_the_whole(server: RegistryServer) -> None:
    first = await codec(server)

    class Country(Struct, frozen=True):
        code: str
        name: str = ""

    class Address(Struct, frozen=True):
        city: str
        country: Country

    class Order(Struct, frozen=True):
        id: str
        home: Address
        work: Address | None = None
        from_: Country | None = None

    second = await codec(server, type=Order, references={Address: "addresses", Country: "countries"})
    raw = [*first.encode_column([ORDER]), *second.encode_column([Order("o3", Address("Lyon", Country("FR", "France")))])]
    assert raw[0][:5] != raw[1][:5]
    with SchemaRegistryClient({"url": server.url}) as client:
        assert client.get_versions("orders-value") == client.get_versions("countries") == [1, 2]
        assert [r.version for r in client.get_latest_version("orders-value").schema.references] == [2, 2]
        assert (await asyncio.to_thread(AvroDeserializer(client), raw[1], VALUE))["home"]["country"] == {"code": "FR", "name": "France"}
    registry = Registry(server.url, attempts=1)
    reading = avro(registry, Order)
    await reading.prepare(records(*raw))
    assert [order.home.country.name for order in reading.decode_batch(records(*raw)).values] == ["", "France"]
    await registry.close()


PROGRAM = """
from engine import App, Struct
from cdc import Registry, avro

registry = Registry("{url}", attempts=1)

class Country(Struct, frozen=True):
    code: str
    {field}

class Order(Struct, frozen=True):
    id: str
    country: Country

app = App("orders", broker="memory://")
orders = app.source("orders", Order, key="id")

@app.pipeline(orders)
def copies(orders):
    return orders.to("copies", codec=avro(registry, Order, references={{Country: "countries"}}))
"""


def test_schemas_command_judges_the_parts(server: RegistryServer, tmp_path: Path) -> None:
    def program(field: str) -> str:
        path = tmp_path / f"p{len(list(tmp_path.iterdir()))}.py"
        path.write_text(PROGRAM.format(url=server.url, field=field))
        return str(path)

    first = program("")
    assert "new, nothing to break" in schemas("check", first)
    assert "copies-value: version 1" in schemas("register", first)
    assert "copies-value (sink copies, AVRO, BACKWARD): version 1" in schemas("check", first)
    better = program('name: str = ""')
    assert "compatible with version 1" in schemas("check", better)
    broken = program("name: str")
    said = schemas("check", broken, status=1)
    assert "Country, to which it refers (countries): version 1 cannot be read with the new schema: field Country.name" in said
    assert "incompatible" in schemas("register", broken, status=1)
    assert "version 2" in schemas("register", better)


class Left(Struct, frozen=True):
    right: "Right | None" = None


class Right(Struct, frozen=True):
    left: Left | None = None


class Three(Struct, frozen=True):
    left: Left


@pytest.mark.parametrize(
    ("row", "references", "words"),
    [
        (Order, {Other: "others"}, "Other, which is no part of Order"),
        (Order, {Order: "orders"}, "Order, which is no part of Order"),
        (dict, {Other: "others"}, "Other, which is no part of dict"),
        (Order, {Address: "addresses"}, "Country stands in Order and in Address; give it a subject of its own"),
        (Left, {Right: "rights"}, "Left stands in Left and in Right"),
        (Three, {Left: "lefts", Right: "rights"}, "Left, Right refer to each other"),
    ],
)
def test_wrong_references_are_a_config_error(row: Any, references: dict[type[Struct], str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        avro({}, row, references=references)


async def test_a_value_that_does_not_fit_is_refused(server: RegistryServer) -> None:
    with pytest.raises(RecordError, match="does not fit the Avro schema"):
        (await codec(server)).encode_column([Order("o1", None)])  # type: ignore[arg-type]
