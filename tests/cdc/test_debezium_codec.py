"""Captured records decode to what the database held: the values that the inserts below gave it, whatever the connector's modes."""

# ruff: noqa: DTZ001  # timestamps without time zone are a type of their own

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest

from cdc import Beyond, Change, Encoded, Interval, Op, Position, Range, Scale, Unit, debezium
from engine.codecs import Selects
from engine.errors import ConfigError, RecordError
from engine.runtime.preparing import Prepares
from tests.cdc.captures import batch, captures, decode, good, lines, of_topic, schemas

JSONB = '{"a": [1, 2.50, null], "b": 1}'


class Mood(Enum):
    HAPPY = "happy"
    SAD = "sad"


class TypesAll(msgspec.Struct, frozen=True, kw_only=True):
    """The table types_all, typed so that every mode of the connector gives the same rows."""

    id: int
    c_smallint: int | None
    c_int: int | None
    c_bigint: int | None
    c_num: Decimal | None
    c_num0: Decimal | None
    c_money: Decimal | None
    c_real: float | None
    c_double: float | None
    c_bool: bool | None
    c_text: str | None
    c_char: str | None
    c_uuid: UUID | None
    c_json: str | None
    c_jsonb: str | None
    c_date: date | Beyond | None
    c_time: time | Beyond | None
    c_timetz: time | None
    c_ts: datetime | Beyond | None
    c_tstz: datetime | Beyond | None
    c_interval: timedelta | None
    c_enum: Mood | None
    c_inta: list[int | None] | None
    c_texta: list[str | None] | None
    c_numa: list[Decimal] | None
    c_tsa: list[datetime] | None
    c_hstore: dict[str, str | None] | None
    c_int4range: Range[int] | None
    c_tsrange: Range[datetime] | None
    c_bit1: bool | None
    c_bit8: int | None
    c_intd: int | None
    c_nn: int


USUAL: dict[str, Any] = {
    "c_smallint": -32768,
    "c_int": 2147483647,
    "c_bigint": -9223372036854775808,
    "c_num": Decimal("-12345678.90"),
    "c_num0": Decimal("99999999999999999999999999999999999999"),
    "c_money": Decimal("1234.56"),
    "c_real": 1.1,
    "c_double": 0.1,
    "c_bool": True,
    "c_text": 'héllo "q" 漢字 \\ 🎈',
    "c_char": "ab   ",
    "c_uuid": UUID("6f1c2f0e-4a3d-4c5b-9e11-0123456789ab"),
    "c_json": '{"b":1, "a":[1,2.50,null]}',
    "c_jsonb": JSONB,
    "c_date": date(2026, 2, 28),
    "c_time": time(13, 14, 15, 123456),
    "c_timetz": time(11, 14, 15, 123456, tzinfo=UTC),
    "c_ts": datetime(2026, 2, 28, 23, 59, 59, 123456),
    "c_tstz": datetime(2026, 2, 28, 18, 29, 59, 123456, tzinfo=UTC),
    "c_interval": timedelta(days=14 * 30.4375 + 3, hours=4, minutes=5, seconds=6.789),
    "c_enum": Mood.HAPPY,
    "c_inta": [1, None, 3],
    "c_texta": ["a", "b,c", None, '"q"'],
    "c_numa": [Decimal("1.50"), Decimal("2.00")],
    "c_tsa": [datetime(2026, 1, 1, tzinfo=UTC)],
    "c_hstore": {"a": "1", "b": None},
    "c_int4range": Range(1, 10),
    "c_tsrange": Range(datetime(2026, 1, 1), datetime(2026, 1, 2)),
    "c_bit1": True,
    "c_bit8": 0b10110011,
    "c_intd": 1,
    "c_nn": 2,
}
NULLS: dict[str, Any] = dict.fromkeys(USUAL) | {"c_intd": 7, "c_nn": 5}
OLD: dict[str, Any] = USUAL | {
    "c_bigint": 9007199254740993,
    "c_num": Decimal("0.10"),
    "c_num0": Decimal(0),
    "c_real": float("-inf"),
    "c_double": 1e300,
    "c_json": '{"big":12345678901234567890.123}',
    "c_date": date(1582, 10, 4),
    "c_time": time(0, 0, 0, 1),
    "c_ts": Beyond("0044-03-15 12:00:00 BC"),
    "c_tstz": datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    "c_inta": [None, None],  # the array had two dimensions: Debezium loses it
    "c_nn": 4,
}
EDGES: dict[str, Any] = USUAL | {
    "c_smallint": 32767,
    "c_int": -2147483648,
    "c_bigint": 9223372036854775807,
    "c_num0": Decimal(-1),
    "c_money": Decimal("-0.01"),
    "c_double": float("inf"),
    "c_bool": False,
    "c_text": "",
    "c_char": "     ",
    "c_json": "null",
    "c_jsonb": '"s"',
    "c_date": Beyond("infinity"),
    "c_time": Beyond("24:00:00"),
    "c_timetz": time(12, tzinfo=UTC),
    "c_ts": Beyond("infinity"),
    "c_tstz": Beyond("-infinity"),
    "c_interval": timedelta(days=-30.4375, seconds=-1),
    "c_enum": Mood.SAD,
    "c_inta": [],
    "c_texta": [],
    "c_hstore": {},
    "c_int4range": Range(lower_included=False, empty=True),
    "c_tsrange": Range(lower_included=False),
    "c_nn": 3,
}


def held(mode: str) -> dict[int, dict[str, Any]]:
    """Return the rows of types_all by id, less what a mode of the connector cuts off."""
    rows = {1: USUAL, 2: NULLS, 3: OLD, 11: USUAL, 12: NULLS, 13: EDGES, 14: USUAL}
    lost: dict[int, dict[str, Any]] = {}
    if mode == "alt1":  # Connect's own types have milliseconds
        cut = {"c_time": time(13, 14, 15, 123000), "c_ts": datetime(2026, 2, 28, 23, 59, 59, 123000)}
        lost = {1: cut, 11: cut, 14: cut, 3: {"c_time": time(0)}}
    if mode == "alt2":  # decimals as doubles; 24:00 has no ISO text there
        imprecise = {"c_num0": Decimal("1e38")}
        lost = {1: imprecise, 11: imprecise, 14: imprecise, 3: imprecise | {"c_num0": Decimal(0)}, 13: {"c_time": time(0)}}
    return {key: row | lost.get(key, {}) for key, row in rows.items()}


@pytest.mark.parametrize("name", [name for name in captures("jsonschema", "avro") if name.startswith("types-")])
def test_debezium_every_type_in_every_mode_decodes_to_what_the_database_held(name: str) -> None:
    codec = debezium(TypesAll, registry=schemas(name) if name.endswith("avro") else None)
    expected = held(name.split(".")[0].removeprefix("types-"))
    seen = []
    for change in good(codec, lines(name)):
        if change.op in (Op.READ, Op.CREATE):
            found = {field: getattr(change.after, field) for field in USUAL}
            if change.after.id == 13:
                assert str(found.pop("c_real")) == "nan"
                found["c_real"] = 1.1
            assert found == expected[change.after.id], change.after.id
            seen.append(change.after.id)
        if change.op is Op.UPDATE:
            assert (change.after.c_num, change.after.c_texta) == (Decimal("1.50"), None)
            assert change.after.c_jsonb == '{"a": [1, 2.50, null], "b": 1, "z": 1}'
    assert sorted(seen) == [1, 2, 3, 11, 12, 13, 14]


@pytest.mark.parametrize(("name", "unit"), [("types-alt4.json", "us"), ("types-alt5.json", "ns")])
def test_debezium_without_schema_notes_on_the_types_give_the_same_rows(name: str, unit: Any) -> None:
    columns = {
        "c_num": Annotated[Decimal, Scale(2)],
        "c_num0": Annotated[Decimal, Scale(0)],
        "c_numv": Decimal,
        "c_real": float,
        "c_ts": Annotated[datetime | Beyond, Unit(unit)],
        "c_time": Annotated[time | Beyond, Unit(unit)],
        "c_date": date | Beyond,
        "c_tstz": datetime | Beyond,
        "c_interval": timedelta,
        "c_bytea": bytes,
        "c_uuid": UUID,
        "c_numa": list[Annotated[Decimal, Scale(2)]],
        "c_hstore": dict[str, str | None],
    }
    rows = {
        change.after["id"]: change.after
        for change in good(debezium(dict, columns=columns), lines(name))
        if change.op is not Op.UPDATE and change.after
    }
    assert {c: rows[1][c] for c in columns if c in USUAL} == {c: USUAL[c] for c in columns if c in USUAL}
    assert rows[1]["c_bytea"] == bytes.fromhex("00ff10deadbeef")
    assert rows[1]["c_numv"] == Decimal("12345678901234567890.0123456789")
    for column in ("c_num0", "c_ts", "c_time", "c_date", "c_tstz", "c_interval"):
        assert rows[13][column] == EDGES[column]


def test_debezium_dict_rows_have_true_types_by_the_schema_alone() -> None:
    row = good(debezium(dict), lines("types-default.jsonschema"))[0].after
    assert row["id"] == 1
    expected = {name: value for name, value in USUAL.items() if name not in ("c_enum", "c_hstore", "c_int4range", "c_tsrange")}
    assert {name: row[name] for name in expected} == expected
    assert row["c_bytea"] == bytes.fromhex("00ff10deadbeef")
    assert row["c_numv"] == Decimal("12345678901234567890.0123456789")
    assert (row["c_bit8"], row["c_varbit"]) == (0b10110011, 0b101)
    assert (row["c_point"]["x"], row["c_point"]["y"]) == (1.5, -2.0)
    alt1 = good(debezium(dict), lines("types-alt1.jsonschema"))[0].after
    assert alt1["c_interval"] == Interval(14, 3, 14_706_789_000)
    assert alt1["c_hstore"] == {"a": "1", "b": None}


@pytest.mark.parametrize("scenario", ["core", "ddl", "txn", "types-default", "types-alt1", "unwrap"])
def test_debezium_the_encodings_of_one_scenario_agree(scenario: str) -> None:
    found = {}
    for kind in ("jsonschema", "avro"):
        name = f"{scenario}.{kind}"
        records = [r for r in lines(name) if not r["topic"].endswith("transaction")]
        changes = good(debezium(dict, registry=schemas(name) if kind == "avro" else None), records)
        found[kind] = sorted(
            repr((c.table, c.op, c.position, c.key, c.before, c.after, c.unavailable, c.transaction))
            for c in changes
            if c.op is not Op.READ
        )
    assert found["jsonschema"] == found["avro"]
    assert found["avro"]


class User(msgspec.Struct, frozen=True):
    id: int
    name: str
    email: str | None
    balance: Decimal | None
    active: bool
    created_at: datetime


def test_debezium_change_carries_what_the_envelope_says() -> None:
    created = next(c for c in good(debezium(User), of_topic("core.jsonschema", ".users")) if c.op is Op.CREATE and c.key == {"id": 4})
    assert isinstance(created.after, User)
    assert (created.after.email, created.after.active) == ("u4@example.org", False)
    assert created.after.created_at.tzinfo is UTC
    assert (created.database, created.schema, created.table) == ("shop", "public", "users")
    assert created.before is None
    assert created.snapshot is None
    assert created.position.lsn > 0
    assert created.transaction is not None
    assert created.captured_ms is not None and created.source_ms is not None and created.captured_ms >= created.source_ms
    assert created.schema_version is not None


def test_debezium_header_framing_is_recognised_by_its_headers() -> None:
    changes = good(debezium(dict, registry=schemas("avro-header-framing")), lines("avro-header-framing"))
    assert [c.op for c in changes] == ["r", "c", "u", "d", "t"]
    assert changes[1].after == {"at": datetime(2026, 1, 2, 3, 4, 5, 678901), "who": "x", "what": "login"}


def test_debezium_unwrapped_rows_become_changes() -> None:
    class Account(msgspec.Struct, frozen=True):
        id: int
        bal: Decimal | None

    for kind in ("jsonschema", "avro"):
        name = f"unwrap.{kind}"
        changes = good(debezium(Account, registry=schemas(name) if kind == "avro" else None), lines(name))
        by_key: dict[int, list[Change[Account]]] = {}
        for change in changes:
            assert change.key is not None
            by_key.setdefault(change.key["id"], []).append(change)
        assert [(c.op, c.after and c.after.bal) for c in by_key[2]] == [("c", Decimal("6.00")), ("u", Decimal("7.00")), ("d", None)]
        assert by_key[2][-1].new_key == {"id": 3}
        assert by_key[3][0].old_key == {"id": 2}
        assert by_key[3][-1].before == Account(3, None)
        assert by_key[3][-1].unavailable == ("bal",)
        assert by_key[1][0].table == "accounts"
        assert by_key[1][0].position == Position(0, by_key[1][0].position.lsn)


def test_debezium_plain_rows_need_to_be_declared() -> None:
    record = {
        "topic": "t",
        "partition": 0,
        "offset": 0,
        "timestamp_ms": 0,
        "key": b'{"id":1}',
        "value": b'{"id":1,"bal":"1.5"}',
        "headers": [],
    }
    assert "unwrapped=True" in str(decode(debezium(dict), [record]).errors[0])
    codec = debezium(dict, unwrapped=True, columns={"bal": Decimal})
    upsert, deleted = good(codec, [record, {**record, "value": None}])
    assert (upsert.op, upsert.after) == ("u", {"id": 1, "bal": Decimal("1.5")})
    assert (deleted.op, deleted.key, deleted.before) == ("d", {"id": 1}, None)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\x00\x00\x00\x00\x01abc", "registry="),
        (b"not json", "not JSON"),
        (b"null", "null or not an object"),
        (b'{"op":"x","source":{}}', "not known"),
        (b'{"schema":{"type":"odd"},"payload":{}}', "inline schema"),
        (b'{"op":"c","source":{"sequence":"[1]"},"after":{"id":1,"bal":null}}', "pair of LSNs"),
        (b'{"op":"c","source":{},"after":{"id":"x"}}', "column 'id'"),
        (b'{"op":"c","source":{},"after":{"bal":null}}', "'id' of Account is not in the record"),
        (b'{"op":"c","source":{},"after":{"id":null,"bal":null}}', "declares it without None"),
    ],
)
def test_debezium_a_bad_record_is_refused_with_its_reason(value: bytes, reason: str) -> None:
    class Account(msgspec.Struct, frozen=True):
        id: int
        bal: Decimal | None

    record = {"topic": "t", "partition": 0, "offset": 0, "timestamp_ms": 0, "key": None, "value": value, "headers": []}
    decoded = decode(debezium(Account), [record])
    assert isinstance(decoded.errors[0], RecordError)
    assert reason in str(decoded.errors[0])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\x00\x00\x00\x00\x63a", "no schema of id 99"),
        (b"\x00\x00", "too few"),
        (b"\x00\x00\x00\x00\x02\x00", "schema 2: the bytes do not fit"),
    ],
)
def test_debezium_bad_avro_is_refused_with_the_schema_id(value: bytes, reason: str) -> None:
    record = {"topic": "t", "partition": 0, "offset": 0, "timestamp_ms": 0, "key": None, "value": value, "headers": []}
    assert reason in str(decode(debezium(dict, registry=schemas("core.avro")), [record]).errors[0])


def test_debezium_select_reads_the_column_wherever_it_is() -> None:
    codec = debezium(User)
    assert isinstance(codec, Selects)
    assert isinstance(codec, Prepares)
    key = codec.select("id")
    assert key.type is int
    for change in good(codec, of_topic("core.jsonschema", ".users")):
        assert key.get(change) == (change.after or change.before).id
    assert key.get(Change(op=Op.TRUNCATE)) is None
    assert codec.select("email").type is str
    assert codec.select("source_ms").get(Change(op=Op.READ, source_ms=5)) == 5
    with pytest.raises(ConfigError, match="no field 'nme'"):
        codec.select("nme")
    deleted = Change(op=Op.DELETE, key={"id": 1}, before=User(1, "", None, None, True, datetime(1970, 1, 1)), unavailable=("name",))
    with pytest.raises(RecordError, match="REPLICA IDENTITY DEFAULT"):
        codec.select("name").get(deleted)


def test_debezium_encoded_changes_come_back() -> None:
    codec = debezium(TypesAll)
    changes = [c for c in good(codec, lines("types-default.jsonschema")) if c.op in (Op.READ, Op.CREATE) and c.after.id in (1, 2)]
    encoded = codec.encode_column(changes)
    records = [{**lines("types-default.jsonschema")[0], "value": raw, "key": None} for raw in encoded]
    for sent, came in zip(changes, good(debezium(TypesAll), records), strict=True):
        assert came.after == sent.after
        assert (came.op, came.position, came.table, came.source_ms) == (sent.op, sent.position, sent.table, sent.source_ms)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: debezium(int), "use a Struct"),
        (lambda: debezium(User, columns={"id": int}), "write the types into User"),
        (lambda: debezium(User, replica_identity="nothing"), "'default' or 'full'"),  # type: ignore[arg-type]
        (lambda: debezium(User, id_bytes=5), "4 bytes"),  # type: ignore[arg-type]
        (lambda: debezium(User, registry="http://x"), "neither a registry"),  # type: ignore[arg-type]
    ],
)
def test_debezium_wrong_arguments_are_a_config_error(make: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        make()


def test_debezium_batch_of_text_encoded_bytes_needs_the_encoding() -> None:
    columns = {
        "alt1": Annotated[bytes, Encoded("base64")],
        "alt2": Annotated[bytes, Encoded("hex")],
        "alt3": Annotated[bytes, Encoded("base64-url-safe")],
    }
    for mode, declared in columns.items():
        changes = good(debezium(dict, columns={"c_bytea": declared}), lines(f"types-{mode}.jsonschema"))
        assert next(c.after for c in changes if c.after and c.after["id"] == 1)["c_bytea"] == bytes.fromhex("00ff10deadbeef")
    decoded = debezium(dict, columns={"c_bytea": bytes}).decode_batch(batch(lines("types-alt2.jsonschema")))
    assert "base64 or hex" in str(decoded.errors[0])
