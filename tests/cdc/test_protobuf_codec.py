"""Protobuf records with schema ids, against the generated classes and protoc itself."""

import base64
import enum
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

from cdc import Registry, protobuf
from cdc.protobuf_codec import read_indexes, write_indexes
from cdc.protobuf_schema import indexes_of, message_names, source_of
from cdc.protobuf_text import serialized
from cdc.registry.client import NotFoundError
from cdc.registry.server import RegistryServer
from engine.errors import ConfigError, RecordError
from engine.records import RecordBatch

MONEY = 'syntax = "proto3"; package shop.money; message Money { string currency = 1; int64 cents = 2; }'
PAYMENT = """
syntax = "proto3";
package shop;
import "money.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/wrappers.proto";
// message Fake { is in a comment }
message First { string message = 1; }
message Payment {
  message Line { string item = 1; uint32 count = 2; }
  enum State { OPEN = 0; PAID = 1; }
  string id = 1;
  shop.money.Money amount = 2;
  repeated Line lines = 3;
  map<string, int32> counts = 4;
  map<string, Line> by_name = 5;
  State state = 6;
  google.protobuf.Timestamp at = 7;
  google.protobuf.Duration took = 8;
  google.protobuf.Int64Value limit = 9;
  optional string note = 10;
  oneof how { string card = 11; string bank = 12; }
  bytes raw = 13;
  double rate = 14;
  repeated State states = 15;
  reserved 20 to 22;
  reserved "old";
}
"""
LEGACY = """
syntax = "proto2";
message Old { required string id = 1; optional int32 n = 2; repeated sint64 many = 3; }
"""


class State(enum.Enum):
    OPEN = "OPEN"
    PAID = "PAID"


class Money(msgspec.Struct, frozen=True):
    currency: str
    cents: int


class Line(msgspec.Struct, frozen=True):
    item: str
    count: int


class Payment(msgspec.Struct, frozen=True):
    id: str
    amount: Money
    state: State = State.OPEN
    lines: list[Line] = []
    counts: dict[str, int] = {}
    by_name: dict[str, Line] = {}
    at: datetime | None = None
    took: timedelta | None = None
    limit: int | None = None
    note: str | None = None
    card: str | None = None
    bank: str | None = None
    raw: bytes = b""
    rate: float = 0.0
    states: list[State] = []


FULL = Payment(
    "p1", Money("EUR", -5), State.PAID, [Line("book", 2)], {"a": 1}, {"b": Line("pen", 3)}, datetime(2025, 1, 2, 3, 4, 5, 678_901, UTC),
    timedelta(seconds=-1, microseconds=5), 0, "", None, "iban", b"\0\xff", 0.5, [State.PAID, State.OPEN],
)  # fmt: skip


def compiled(folder: Path, **files: str) -> dict[str, Any]:
    """Return the classes of some files, as protoc generates them."""
    folder.mkdir(exist_ok=True, parents=True)
    for name, text in files.items():
        (folder / f"{name}.proto").write_text(text)
    well_known = Path(protoc.__file__).parent / "_proto"
    out = folder / "set.bin"
    arguments = ["protoc", f"-I{folder}", f"-I{well_known}", f"--descriptor_set_out={out}", "--include_imports"]
    assert protoc.main([*arguments, *(f"{name}.proto" for name in files)]) == 0
    found = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    return dict(message_factory.GetMessages(found.file, pool=descriptor_pool.DescriptorPool()))


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return compiled(tmp_path_factory.mktemp("proto"), money=MONEY, payment=PAYMENT, old=LEGACY)


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    server = RegistryServer().start()
    client = Registry(server.url, attempts=1)
    yield client
    await client.close()
    server.close()


def records(*raw: bytes | None) -> RecordBatch:
    return RecordBatch("payments", 0, range(len(raw)), [0] * len(raw), [None] * len(raw), list(raw), 0, len(raw))


@pytest.mark.parametrize("name", ["shop.Payment", "Old", "shop.money.Money"])
def test_source_is_what_protoc_understands_the_same_way(classes: dict[str, Any], tmp_path: Path, name: str) -> None:
    file = classes[name].DESCRIPTOR.file
    imported = {} if name == "shop.money.Money" else {"money": MONEY}
    again = compiled(tmp_path, **imported, again=source_of(file))
    original, copy = descriptor_pb2.FileDescriptorProto(), descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(original)
    again[name].DESCRIPTOR.file.CopyToProto(copy)
    for each in (original, copy):
        each.name = ""
        for message in each.message_type:
            ordered = sorted(message.field, key=lambda field: field.number)
            del message.field[:]
            message.field.extend(ordered)
            nested = sorted(message.nested_type, key=lambda inner: inner.name)
            del message.nested_type[:]
            message.nested_type.extend(nested)
    assert original == copy


def test_messages_are_found_by_their_indexes(classes: dict[str, Any]) -> None:
    expected = {(0,): "shop.First", (1,): "shop.Payment", (1, 0): "shop.Payment.Line"}
    assert message_names(PAYMENT) == expected
    file = descriptor_pb2.FileDescriptorProto()
    classes["shop.Payment"].DESCRIPTOR.file.CopyToProto(file)
    described = message_names(base64.b64encode(file.SerializeToString()).decode())
    assert {path: described[path] for path in expected} == expected
    assert indexes_of(classes["shop.Payment"].DESCRIPTOR) == (1,)
    nested = classes["shop.Payment"].DESCRIPTOR.nested_types_by_name["Line"]
    assert message_names(source_of(nested.file))[indexes_of(nested)] == "shop.Payment.Line"
    with pytest.raises(RecordError, match="it has no message"):
        message_names("hello")


def test_hidden_messages_of_maps_count_in_descriptors_and_elsewhere_if_nothing_else_fits() -> None:
    """Clients do not agree on them: Confluent's for Java leaves them out, those for Python and Go do not."""
    text = 'syntax = "proto3"; message O { map<string, int32> m = 1; message A { } message B { } }'
    assert message_names(text) == {(0,): "O", (0, 0): "O.A", (0, 1): "O.B", (0, 2): "O.B"}
    assert message_names(serialized(text)) == {(0,): "O", (0, 0): "O.A", (0, 1): "O.A", (0, 2): "O.B"}


@pytest.mark.parametrize(("indexes", "raw"), [((0,), b"\0"), ((1,), b"\2\2"), ((0, 0), b"\4\0\0"), ((300, 2), b"\4\xd8\4\4")])
def test_indexes_on_the_wire_are_zigzag_varints(indexes: tuple[int, ...], raw: bytes) -> None:
    assert write_indexes(indexes) == raw
    assert read_indexes(b"xx" + raw + b"rest", 2) == (indexes, 2 + len(raw))


async def test_protobuf_of_a_struct_is_written_and_read(registry: Registry, classes: dict[str, Any]) -> None:
    codec = protobuf(registry, classes["shop.Payment"], Payment)
    await codec.prepare_sink("payments")
    least = Payment("p2", Money("", 0))
    full, small = codec.encode_column([FULL, least])
    assert full is not None and full[:7] == b"\0\0\0\0\2\2\2", "id 2 (the import is 1), second message of the file"
    message = classes["shop.Payment"].FromString(full[7:])
    assert (message.id, message.amount.cents, message.lines[0].count, message.bank) == ("p1", -5, 2, "iban")
    assert not message.HasField("card") and message.HasField("note") and message.limit.value == 0
    reader = protobuf(registry, classes["shop.Payment"], Payment)
    await reader.prepare(records(full, small))
    found = reader.decode_batch(records(full, small))
    assert found.errors == {} and found.values == [FULL, least]
    schema = await registry.get(2)
    assert schema.kind == "PROTOBUF" and [(r.name, r.subject, r.version) for r in schema.references] == [("money.proto", "money.proto", 1)]


async def test_protobuf_of_messages_hands_them_on(registry: Registry, classes: dict[str, Any]) -> None:
    money = classes["shop.money.Money"]
    codec = protobuf(registry, money, subject="record")
    await codec.prepare_sink("amounts")
    assert await registry.subjects() == ["shop.money.Money"]
    (raw,) = codec.encode_column([money(currency="EUR", cents=3)])
    assert raw is not None and raw[:6] == b"\0\0\0\0\1\0"
    await codec.prepare(records(raw))
    assert codec.decode_batch(records(raw)).values == [money(currency="EUR", cents=3)]
    with pytest.raises(RecordError, match=r"a dict where shop.money.Money"):
        codec.encode_column([{}])


async def test_protobuf_bad_records_say_what_is_wrong(registry: Registry, classes: dict[str, Any]) -> None:
    codec = protobuf(registry, classes["shop.Payment"], Payment)
    await codec.prepare_sink("payments")
    (good,) = codec.encode_column([FULL])
    assert good is not None
    bad = [
        good[:5] + b"\0" + good[7:],  # First
        good[:5] + b"\2\x08" + good[7:],
        good[:5] + b"\x80",
        good[:5] + b"\x81\x01" + good[7:],
        good[:-3],
        good[:7] + b"\x0a\1x",  # no amount
        b"\0\0\0\0\x63" + good[5:],
    ]
    await codec.prepare(records(*bad))
    errors = codec.decode_batch(records(*bad)).errors
    for row, words in enumerate(
        (
            "schema 2: the record is a shop.First, not a shop.Payment",
            "message [4], which its schema does not have",
            "ends within its message indexes",
            "a path of -65 message indexes",
            "not a valid shop.Payment",
            "missing required field `amount`",
            "no schema of id 99",
        )
    ):
        assert words in str(errors[row])


async def test_protobuf_only_looks_up_without_auto_register(registry: Registry, classes: dict[str, Any]) -> None:
    strict = protobuf(registry, classes["shop.Payment"], Payment, auto_register=False)
    with pytest.raises(ConfigError, match="is not registered under 'payments-value'"):
        await strict.prepare_sink("payments")
    await protobuf(registry, classes["shop.Payment"], Payment).prepare_sink("payments")
    await strict.prepare_sink("payments")
    (raw,) = strict.encode_column([FULL])
    assert raw is not None and raw[:7] == b"\0\0\0\0\2\2\2"


async def test_protobuf_values_that_do_not_fit_are_refused(registry: Registry, classes: dict[str, Any]) -> None:
    codec = protobuf(registry, classes["shop.Payment"], Payment)
    await codec.prepare_sink("payments")
    changes: list[tuple[dict[str, Any], str]] = [
        ({"at": datetime(2025, 1, 1)}, "time zone"),  # noqa: DTZ001  # on purpose
        ({"counts": {"a": 2**40}}, "shop.Payment.counts"),
        ({"lines": [Line("x", -1)]}, "shop.Payment"),
    ]
    for change, words in changes:
        with pytest.raises(RecordError, match=words):
            codec.encode_column([msgspec.structs.replace(FULL, **change)])
    with pytest.raises(ConfigError, match="not a generated message class"):
        protobuf(registry, dict)
    with pytest.raises(ConfigError, match="use a Struct, or None"):
        protobuf(registry, classes["shop.Payment"], dict)


async def test_registry_compares_versions_of_a_protobuf_file(registry: Registry) -> None:
    await registry.register("p", MONEY, kind="PROTOBUF")
    with pytest.raises(ConfigError, match=r"Money\.cents is int64 and would be read as string"):
        await registry.register("p", MONEY.replace("int64 cents", "string cents"), kind="PROTOBUF")
    with pytest.raises(NotFoundError):
        await registry.find("p", MONEY.replace("cents", "amount"), kind="PROTOBUF")
    await registry.register("p", MONEY.replace("cents", "amount"), kind="PROTOBUF")
    assert await registry.versions("p") == [1, 2]
