"""Records with anything anywhere: each is decoded or refused, and never an error that would stop its task."""

import json
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import pytest
from google.protobuf.empty_pb2 import Empty
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from cdc import Change, Scale, avro, debezium, heartbeats, jsonschema, outbox, protobuf, transaction_marks
from cdc.avro_form import AvroForm
from engine.errors import RecordError
from engine.records import RecordBatch
from tests.cdc.captures import lines, schemas
from tests.cdc.test_debezium_codec import TypesAll
from tests.effort import examples

pytestmark = pytest.mark.thorough

CAPTURES = ("core.json", "types-default.jsonschema", "types-alt1.jsonschema", "types-alt2.jsonschema", "txn.json", "unwrap.jsonschema")
AVRO = ("core.avro", "types-default.avro", "txn.avro", "unwrap.avro", "outbox.avro")
CUT = object()
JUNK = st.one_of(
    st.sampled_from([CUT, [], {}, {"scale": 1, "value": "AQ=="}, {"scale": "x", "value": 3}, "NaN", "AA==", "2026-01-01", 10**30, -1]),
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=2)),
)


def codecs(registry: Any = None) -> list[Any]:
    whole = [debezium(dict, registry=registry), debezium(TypesAll, registry=registry), debezium(dict, unwrapped=True, registry=registry)]
    return [*whole, transaction_marks(registry=registry), heartbeats(registry=registry), outbox(dict, registry=registry)]


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield from paths(part, (*path, name))


def put(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    """Return a value with something else at a place, or nothing."""
    if not path:
        return None if junk is CUT else junk
    copy = dict(value) if isinstance(value, dict) else list(value)
    if junk is CUT and len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = put(value[path[0]], path[1:], junk)
    return copy


def check(codec: Any, topic: str, key: bytes | None, value: bytes, headers: Any) -> None:
    found = codec.decode_batch(RecordBatch(topic, 0, range(1), [0], [key], [value], 0, 1, read_headers=lambda: [headers]))
    assert len(found.values) == 1
    assert all(isinstance(error, RecordError) for error in found.errors.values())
    for change in (value for value in found.values if isinstance(value, Change)):
        numbers = (change.position.lsn, change.position.commit_lsn, change.source_ms, change.captured_ms)
        assert {type(number) for number in numbers} <= {int, type(None)}, "what compares positions and times would stop its task"


@pytest.mark.parametrize("capture", CAPTURES)
@given(data=st.data())
@settings(max_examples=examples(60))
def test_json_is_decoded_or_refused(capture: str, data: st.DataObject) -> None:
    record = data.draw(st.sampled_from([record for record in lines(capture) if record["value"] is not None]))
    value = json.loads(record["value"])
    broken = put(value, data.draw(st.sampled_from(list(paths(value)))), data.draw(JUNK))
    for codec in codecs():
        check(codec, record["topic"], record["key"], json.dumps(broken).encode(), record["headers"])


@pytest.mark.parametrize("capture", AVRO)
@given(data=st.data())
@settings(max_examples=examples(60))
def test_avro_is_decoded_or_refused(capture: str, data: st.DataObject) -> None:
    record = data.draw(st.sampled_from([record for record in lines(capture) if record["value"] is not None]))
    raw = bytearray(record["value"])
    at = data.draw(st.integers(5, len(raw)))
    raw[at : data.draw(st.integers(at, len(raw)))] = data.draw(st.binary(max_size=12))
    for codec in codecs(schemas(capture)):
        check(codec, record["topic"], record["key"], bytes(raw), record["headers"])


@pytest.mark.parametrize(
    "broken",
    [
        {"source": {"lsn": "x"}}, {"source": {"lsn": 1.5}}, {"source": {"ts_ms": "now"}}, {"source": {"txId": [1]}}, {"ts_ms": True},
        {"source": {"sequence": "[1, 2"}}, {"source": {"sequence": 5}}, {"transaction": {"id": "1:2", "total_order": "a"}},
    ],
)  # fmt: skip
def test_what_is_no_number_where_debezium_puts_one_is_refused(broken: Any) -> None:
    whole: dict[str, Any] = {"op": "c", "after": {"id": 1}, "source": {"lsn": 5}, **broken}
    for codec in codecs()[:2]:
        found = codec.decode_batch(
            RecordBatch("t", 0, range(1), [0], [b'{"id":1}'], [json.dumps(whole).encode()], 0, 1, read_headers=lambda: [[]])
        )
        assert isinstance(found.errors[0], RecordError)


DEEP = b'{"a":' * 100_000


@pytest.mark.parametrize("deep", [DEEP, b"[" * 100_000, b'{"schema":' + DEEP, b'{"op":"c","source":{},"after":' + DEEP])
def test_what_is_nested_too_deeply_is_refused(deep: bytes) -> None:
    """msgspec raises RecursionError then, which is no error of decoding by its type."""
    for codec in (*codecs(), jsonschema({1: "{}"})):
        check(codec, "t", b"{}", deep, [])
        check(codec, "t", deep, b'{"op":"c","source":{},"after":{"a":1}}', [])
        check(codec, "t", b"{}", b"\0\0\0\0\1" + deep, [])


class Payment(Struct, frozen=True):
    id: str
    cents: int
    at: datetime | None = None
    rate: Annotated[Decimal, Scale(2)] | None = None
    lines: list[str] = []


PAYMENT = AvroForm(Payment, None, {}).schema
EMPTY = 'syntax = "proto3"; package google.protobuf; message Empty { }'


@given(st.binary(max_size=60))
@settings(max_examples=examples(150))
def test_records_with_ids_are_decoded_or_refused(raw: bytes) -> None:
    for codec in (avro({1: PAYMENT}, Payment), avro({1: PAYMENT}), jsonschema({1: "{}"}, Payment), protobuf({1: EMPTY}, Empty)):
        check(codec, "t", None, b"\0\0\0\0\1" + raw, [])
        check(codec, "t", None, raw, [])
