# ruff: noqa: DTZ001  # timestamps without time zone are a type of their own
import enum
import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest

from cdc.avro_types import Aliases, schema_of, schema_text, struct_of
from cdc.avro_values import Resolver, Writer
from cdc.values import Scale
from engine.errors import ConfigError, RecordError


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Address(msgspec.Struct, frozen=True):
    city: str
    tags: list[str] = []


class Everything(msgspec.Struct, frozen=True):
    whole: int
    real: float
    yes: bool
    text: str
    raw: bytes
    amount: Annotated[Decimal, Scale(2)]
    at: datetime
    day: date
    clock: time
    ident: UUID
    color: Color
    homes: dict[str, Address]
    other: Address | None = None
    either: int | str | None = None
    note: str = "none"


def test_schema_of_a_struct_has_every_type() -> None:
    fields = {field["name"]: field for field in schema_of(Everything, namespace="shop")["fields"]}
    assert fields["whole"] == {"name": "whole", "type": "long"}
    assert fields["amount"]["type"] == {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 2}
    assert fields["at"]["type"] == {"type": "long", "logicalType": "timestamp-micros"}
    assert fields["color"]["type"] == {"type": "enum", "name": "Color", "symbols": ["red", "blue"]}
    assert fields["homes"]["type"]["values"]["fields"][1] == {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []}
    assert fields["other"] == {"name": "other", "type": ["null", "Address"], "default": None}
    assert fields["either"] == {"name": "either", "type": ["null", "long", "string"], "default": None}
    assert fields["note"] == {"name": "note", "type": "string", "default": "none"}
    assert schema_of(Everything, namespace="shop")["namespace"] == "shop"
    assert json.loads(schema_text(Everything)) == schema_of(Everything)


def test_schema_of_values_written_come_back() -> None:
    homes = {"a": {"city": "Rome", "tags": []}}
    value = {
        "whole": 2**60,
        "real": 0.1,
        "yes": True,
        "text": "é",
        "raw": b"\0\1",
        "amount": Decimal("-12345678.90"),
        "at": datetime(2026, 2, 28, 23, 59, 59, 123456, tzinfo=UTC),
        "day": date(1582, 10, 4),
        "clock": time(1, 2, 3, 4),
        "ident": UUID(int=7),
        "color": "blue",
        "homes": homes,
        "other": None,
        "either": "x",
        "note": "n",
    }
    schema = schema_of(Everything)
    raw = Writer(schema).encode(value, b"")
    assert Resolver(schema, schema).decode(raw, 0) == value
    again = struct_of(schema)
    made = msgspec.convert(Resolver(schema, None).decode(raw, 0), again)
    assert (made.amount, made.color.value, made.homes["a"].city, made.note) == (Decimal("-12345678.90"), "blue", "Rome", "n")


def test_struct_of_a_schema_gives_the_same_schema_back() -> None:
    schema = schema_of(Everything)
    assert schema_of(struct_of(schema)) == schema
    assert schema_of(struct_of(json.dumps(schema))) == schema


def test_struct_of_keeps_aliases_and_defaults() -> None:
    class User(msgspec.Struct):
        mail: Annotated[str, Aliases("email", "e_mail")] = "-"

    again = struct_of(schema_of(User))
    assert schema_of(again)["fields"] == [{"name": "mail", "type": "string", "default": "-", "aliases": ["email", "e_mail"]}]
    assert again().mail == "-"


class Unscaled(msgspec.Struct):
    amount: Decimal


class Strange(msgspec.Struct):
    what: complex


class Odd(msgspec.Struct):
    at: datetime = datetime(2026, 1, 1)


class Signs(enum.Enum):
    PLUS = "+"


class Signed(msgspec.Struct):
    sign: Signs


@pytest.mark.parametrize(
    ("struct", "reason"),
    [(Unscaled, "Scale"), (Strange, "complex has no type"), (Odd, "cannot say the default"), (Signed, "symbols")],
)
def test_schema_of_what_avro_cannot_say_is_a_config_error(struct: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        schema_of(struct)


def test_struct_of_what_is_no_record_is_a_config_error() -> None:
    for schema in ('"int"', {"type": "record", "name": "R", "fields": [{"name": "a", "type": "Missing"}]}):
        with pytest.raises(ConfigError):
            struct_of(schema)


def test_writer_refuses_a_value_that_does_not_fit() -> None:
    with pytest.raises(RecordError, match="does not fit"):
        Writer(schema_of(Address)).encode({"city": 1, "tags": []}, b"")


class Card(msgspec.Struct, tag=True):
    number: str


class Cash(msgspec.Struct):
    cents: int


class Cheque(msgspec.Struct):
    cents: int


def test_variants_that_could_not_be_read_back_are_refused_at_declaration() -> None:
    class Tagged(msgspec.Struct):
        paid: Card | None

    class Several(msgspec.Struct):
        paid: Cash | Cheque

    with pytest.raises(ConfigError, match="Card has a tag"):
        schema_of(Tagged)
    with pytest.raises(ConfigError, match=r"Several\.paid: which of several Structs"):
        schema_of(Several)
