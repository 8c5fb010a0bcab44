"""Undeclared values keep their types as bytes; declared ones are written as ever, and so is what is plain."""

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pytest

from engine.agg.folding import payload_codec
from engine.untyped import decoder, encode_wide, encoder, tagger, wide_decoder


class Order(msgspec.Struct, frozen=True):
    id: int
    amount: Decimal


RICH: dict[str, Any] = {
    "amount": Decimal("9.50"),
    "naive": datetime(2026, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001  # on purpose
    "aware": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    "day": date(2026, 1, 2),
    "clock": time(3, 4, 5, 6),
    "length": timedelta(days=-1, microseconds=1),
    "id": UUID(int=7),
    "wide": 2**70,
    "plain": [1, "a", None, 1.5, b"\0", True],
    "nested": {"list": [Decimal("0E+3")], "at": date(1, 1, 1)},
}


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (Any, RICH),
        (dict, RICH),
        (dict[str, Any], RICH),
        (tuple[dict[str, Any] | None, dict[str, Any] | None], (RICH, None)),
        (tuple[int, tuple[dict[str, Any], ...]], (1, (RICH, RICH))),
        (tuple[Order, Any], (Order(1, Decimal("1.0")), RICH)),
        (list[dict[str, Any]], [RICH]),
        (dict[str, list[Any]], {"a": [Decimal(1), 2]}),
        (tuple[Order | None, int | dict[str, Any] | list[Any]], (None, [RICH])),
    ],
)
def test_undeclared_values_come_back_as_they_were(declared: Any, value: Any) -> None:
    back = decoder(declared)(encoder(declared)(value))
    assert repr(back) == repr(value)


@pytest.mark.parametrize("declared", [int, str, Decimal, Order, tuple[Order, Decimal], Order | None, tuple[int, ...], dict[str, Decimal]])
def test_declared_types_need_no_tags(declared: Any) -> None:
    assert tagger(declared) is None


@pytest.mark.parametrize("value", [{"a": 1, "b": [1.5, None]}, [{"a": {"b": "c"}}], "text", 7, None])
def test_plain_values_are_written_as_ever(value: Any) -> None:
    assert encoder(Any)(value) == msgspec.msgpack.encode(value)


def test_what_was_written_before_can_be_read() -> None:
    before = msgspec.msgpack.encode({"at": datetime(2026, 1, 2, tzinfo=UTC), "amount": Decimal("9.50")})
    assert decoder(dict)(before) == {"at": datetime(2026, 1, 2, tzinfo=UTC), "amount": "9.50"}


def test_wide_int_in_a_declared_place_is_for_the_caller_to_write() -> None:
    with pytest.raises(OverflowError):
        encoder(tuple[int, int])((1, 2**70))


SETS = [frozenset({1, 2}), frozenset({"a"}), frozenset({Decimal("1.50"), "1.50", 2**70, None}), frozenset({2**70, 3}), frozenset()]


@pytest.mark.parametrize("value", SETS)
def test_sets_of_undeclared_values_come_back_and_are_always_written_alike(value: frozenset[Any]) -> None:
    raw = encoder(frozenset[Any], order="deterministic")(value)
    assert decoder(frozenset[Any])(raw) == value
    assert encoder(frozenset[Any], order="deterministic")(frozenset(sorted(value, key=repr, reverse=True))) == raw


def test_wide_ints_beside_undeclared_values_are_stored_with_them() -> None:
    stored = tuple[int, Any, frozenset[Any], dict[str, Any], Order, Decimal, bytes]
    codec = payload_codec(stored)
    for first in (1, 2**70):
        value = (first, Decimal("9.50"), frozenset({Decimal(1)}), RICH, Order(3, Decimal("1.0")), Decimal("0.10"), b"\0\xff")
        back = codec.decode(codec.encode(value))
        assert back == value
        assert {name: type(part) for name, part in back[3].items()} == {name: type(part) for name, part in RICH.items()}


@dataclass(frozen=True)
class Point:
    x: int
    y: float


class Pair(NamedTuple):
    left: int
    right: Decimal


class Tagged(msgspec.Struct, frozen=True, tag="t", rename="camel", array_like=True):
    long_name: int
    points: dict[int, Point]
    pairs: tuple[Pair, ...] = ()


def test_wide_ints_in_any_declared_place_come_back() -> None:
    value = Tagged(2**64, {2**70: Point(-(2**65), math.inf), 1: Point(3, 0.5)}, (Pair(2**64, Decimal("1.50")),))
    assert wide_decoder(Tagged)(encode_wide(value)) == value
    assert wide_decoder(tuple[Tagged | None, ...])(encode_wide((value, None))) == (value, None)


def test_accumulators_keep_infinity_and_nan_beside_wide_ints() -> None:
    codec = payload_codec(tuple[int, float, tuple[float, ...], Order])
    value = (2**70, math.inf, (-math.inf, math.nan, 0.1), Order(1, Decimal("2.50")))
    assert repr(codec.decode(codec.encode(value))) == repr(value)


def test_accumulators_written_as_json_can_be_read() -> None:
    raw = b'[1180591620717411303424,0.5,{"id":1,"amount":"2.50"}]'
    assert payload_codec(tuple[int, float, Order]).decode(raw) == (2**70, 0.5, Order(1, Decimal("2.50")))
