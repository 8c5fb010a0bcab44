"""Keys of each type: equal keys have equal bytes, bytes come back as the key, and what others wrote in another way is refused."""

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from engine.errors import ConfigError, RecordError
from engine.keys import key_codec, wire_bytes

ZONES: st.SearchStrategy[Any] = st.sampled_from([None, UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-11))])
INNER = datetime.fromisoformat("0002-01-01"), datetime.fromisoformat("9998-12-31")  # a day from the ends, which no other zone has
KEYS: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(),
    int: st.integers(),
    bytes: st.binary(),
    UUID: st.uuids(),
    date: st.dates(),
    time: st.times(),
    datetime: st.datetimes(*INNER, timezones=ZONES),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False),
}


@pytest.mark.parametrize("key_type", KEYS)
@given(data=st.data())
def test_a_key_comes_back_from_its_bytes_declared_or_not(key_type: Any, data: st.DataObject) -> None:
    key = data.draw(KEYS[key_type])
    declared, undeclared = key_codec(key_type), key_codec(Any)
    assert declared.decode(declared.encode(key)) == key
    assert declared.encode(key) == declared.wire(key) == undeclared.wire(key), "what decides about the partition is the same"
    found = undeclared.decode(undeclared.encode(key))
    assert (found, type(found)) == (key, key_type)


class Place(Struct, frozen=True):
    code: str
    level: int | None = None


class Reading(Struct, frozen=True):
    amount: Decimal
    at: datetime | None = None
    places: tuple[Place, ...] = ()
    weight: float = 0.0
    counts: dict[str, Decimal] = {}


class Moved(Struct, frozen=True, array_like=True, tag="moved"):
    reading: Reading
    after: timedelta


@given(amount=KEYS[Decimal], at=KEYS[datetime], zeros=st.integers(0, 5), zone=ZONES, weight=st.integers(-(2**53), 2**53))
def test_equal_structs_have_equal_bytes_and_come_back(amount: Decimal, at: datetime, zeros: int, zone: Any, weight: int) -> None:
    sign, digits, exponent = amount.as_tuple()
    same_amount = Decimal((sign, (*digits, *[0] * zeros), int(exponent) - zeros))
    same_at = at if at.tzinfo is None or zone is None else at.astimezone(zone)
    key = Reading(amount, at, (Place("a"),), float(weight), {"x": amount, "y": same_amount})
    same = Reading(same_amount, same_at, (Place("a"),), weight, {"y": amount, "x": same_amount})
    for one, other in ((key, same), (Moved(key, timedelta(1)), Moved(same, timedelta(hours=24)))):
        assert one == other and wire_bytes(one) == wire_bytes(other)
        codec = key_codec(type(one))
        assert codec.decode(codec.encode(other)) == one


@pytest.mark.parametrize(
    ("key", "raw"),
    [
        (Place("a", 1), b'{"code":"a","level":1}'),
        (Reading(Decimal("1.50")), b'{"amount":"1.5","at":null,"places":[],"weight":0.0,"counts":{}}'),
        (
            Reading(Decimal("1E+2"), datetime(2026, 2, 28, 10, 20, tzinfo=timezone(timedelta(hours=1))), weight=-0.0),
            b'{"amount":"100","at":"2026-02-28T09:20:00Z","places":[],"weight":0.0,"counts":{}}',
        ),
    ],
)
def test_bytes_of_a_struct_are_json_in_one_way(key: Any, raw: bytes) -> None:
    assert wire_bytes(key) == raw
    assert key_codec(type(key)).decode(raw) == key


def test_a_struct_in_another_way_of_writing_is_refused_where_it_could_be_another_key() -> None:
    assert key_codec(Place).decode(b'{"level": 1, "code": "a"}') == Place("a", 1)
    with pytest.raises(RecordError, match="is not written as keys of Reading are here"):
        key_codec(Reading).decode(b'{"amount":"1.50"}')


@pytest.mark.parametrize("key_type", [Decimal, datetime])
@given(data=st.data())
def test_equal_keys_have_equal_bytes(key_type: Any, data: st.DataObject) -> None:
    key = data.draw(KEYS[key_type])
    if key_type is Decimal:
        zeros = data.draw(st.integers(0, 5))
        sign, digits, exponent = key.as_tuple()
        same: Any = Decimal((sign, (*digits, *[0] * zeros), int(exponent) - zeros))
    else:
        same = key if key.tzinfo is None else key.astimezone(data.draw(ZONES.filter(lambda zone: zone is not None)))
    assert same == key and wire_bytes(same) == wire_bytes(key)


@pytest.mark.parametrize(
    ("key", "raw"),
    [
        (UUID("0F0E0D0C-0B0A-4908-8706-050403020100"), b"0f0e0d0c-0b0a-4908-8706-050403020100"),
        (date(45, 3, 15), b"0045-03-15"),
        (time(10, 20, 30, 1), b"10:20:30.000001"),
        (datetime.fromisoformat("2026-02-28 10:20:30"), b"2026-02-28T10:20:30"),
        (datetime(2026, 2, 28, 10, 20, 30, tzinfo=timezone(timedelta(hours=1))), b"2026-02-28T09:20:30+00:00"),
        (Decimal("1.50"), b"1.5"),
        (Decimal("1E+2"), b"100"),
        (Decimal("100"), b"100"),
        (Decimal("-0.00"), b"0"),
        (Decimal("-1E-3"), b"-0.001"),
    ],
)
def test_bytes_are_those_of_the_table(key: Any, raw: bytes) -> None:
    assert wire_bytes(key) == raw
    assert key_codec(type(key)).decode(raw) == key


@pytest.mark.parametrize(
    ("key_type", "raw"),
    [
        (UUID, b"0F0E0D0C-0B0A-4908-8706-050403020100"),
        (UUID, b"0f0e0d0c0b0a49088706050403020100"),
        (date, b"20260228"),
        (datetime, b"2026-02-28T10:20:30Z"),
        (datetime, b"2026-02-28T10:20:30+01:00"),
        (Decimal, b"1.50"),
        (Decimal, b"1E+2"),
    ],
)
def test_a_key_in_another_way_of_writing_is_refused(key_type: Any, raw: bytes) -> None:
    with pytest.raises(RecordError, match="is not written as keys of"):
        key_codec(key_type).decode(raw)


@pytest.mark.parametrize("key_type", [UUID, date, time, datetime, Decimal])
@pytest.mark.parametrize("raw", [b"", b"x", b"\xff", b"NaN"])
def test_a_key_that_is_none_is_refused(key_type: Any, raw: bytes) -> None:
    with pytest.raises(RecordError):
        key_codec(key_type).decode(raw)


EAST = timezone(timedelta(hours=2))
NONE = (
    time(12, tzinfo=EAST),
    datetime(1, 1, 1, tzinfo=EAST),
    Reading(Decimal("NaN")),
    Reading(Decimal(1), weight=float("nan")),
    Reading(Decimal(1), datetime(1, 1, 1, tzinfo=EAST)),
    Reading("many"),  # type: ignore[arg-type]  # nothing checks it
)


@pytest.mark.parametrize("key", [Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), *NONE, 1.5, True, None, (1,), timedelta(1)])
def test_what_cannot_be_a_key_is_refused(key: Any) -> None:
    with pytest.raises(RecordError):
        wire_bytes(key)


def test_a_datetime_is_no_date() -> None:
    with pytest.raises(RecordError, match="must be date here, not datetime"):
        key_codec(date).encode(datetime.fromisoformat("2026-01-01"))
    with pytest.raises(ConfigError, match="timedelta cannot be a key"):
        key_codec(timedelta)
