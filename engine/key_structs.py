"""Struct keys as JSON, such that equal keys have equal bytes.

A Struct of texts, whole numbers, UUIDs and dates has one JSON. With other fields equal Structs may have several, and then one key would
lie in several partitions and be several rows of a state:

| field                     | equal                          | written                                          |
|---------------------------|--------------------------------|--------------------------------------------------|
| Decimal                   | 1.0, 1.00, 1E+0                | "1"                                              |
| datetime with a zone      | 11:20+02:00, 09:20Z            | in UTC: "2026-02-28T09:20:00Z"                   |
| float                     | 1, 1.0; 0.0, -0.0              | 1.0; 0.0                                         |
| map, set                  | in any order                   | in order                                         |

What is no key is refused: NaN and infinities, and a time with a zone other than UTC (its own zone is part of what it says).
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, time
from decimal import Decimal
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from engine.errors import RecordError

Write = Callable[[Any], bytes]

_KEPT = (Decimal, datetime, time)
_PLAIN = (
    inspect.StrType, inspect.IntType, inspect.BoolType, inspect.BytesType, inspect.UUIDType, inspect.DateType, inspect.TimeDeltaType,
    inspect.NoneType, inspect.EnumType, inspect.LiteralType,
)  # fmt: skip


@cache
def has_one_json(kind: type[msgspec.Struct]) -> bool:
    """Return whether equal values of a Struct have one JSON by their types alone."""
    seen: set[type] = set()

    def is_plain(found: inspect.Type) -> bool:
        match found:
            case inspect.Metadata():
                return is_plain(found.type)
            case inspect.UnionType():
                return all(map(is_plain, found.types))
            case inspect.ListType() | inspect.VarTupleType():
                return is_plain(found.item_type)
            case inspect.TupleType():
                return all(map(is_plain, found.item_types))
            case inspect.StructType():
                if found.cls in seen:
                    return True
                seen.add(found.cls)
                return all(is_plain(field.type) for field in found.fields)
        return isinstance(found, _PLAIN)

    return is_plain(inspect.type_info(kind))


@cache
def struct_writer(kind: type[msgspec.Struct]) -> Write:
    """Return the function from keys of a Struct to their bytes; it raises RecordError for what is no key."""
    encode = msgspec.json.encode
    if has_one_json(kind):
        return encode
    decode = msgspec.json.Decoder(kind).decode

    def write(key: Any) -> bytes:
        try:
            read = decode(encode(key))  # a whole number in a float's place becomes one
        except msgspec.ValidationError as error:
            raise RecordError(f"{key!r} cannot be a key: {error}") from error
        return encode(_one_way(msgspec.to_builtins(read, builtin_types=_KEPT, order="deterministic")))

    return write


def moment(key: datetime) -> datetime:
    """Return a datetime as keys have it: with a zone in UTC.

    Raises:
        RecordError: It has no place in UTC.
    """
    try:
        return key if key.tzinfo is None else key.astimezone(UTC)
    except OverflowError as error:
        raise RecordError(f"{key} cannot be a key: in UTC it lies beyond the years 1 to 9999") from error


def clock(key: time) -> time:
    """Return a time as keys have it.

    Raises:
        RecordError: It has a zone other than UTC.
    """
    if key.utcoffset():
        raise RecordError(f"{key} cannot be a key: a time with a zone is one only in UTC")
    return key


def digits(key: Decimal) -> str:
    """Return a number in digits, without zeros at its end.

    Raises:
        RecordError: It is none.
    """
    if not key.is_finite():
        raise RecordError(f"{key} cannot be a key")
    text = format(key, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _one_way(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return {_one_way(name): _one_way(part) for name, part in value.items()}
    if kind is list or kind is tuple:
        return list(map(_one_way, value))
    write = _WAYS.get(kind)
    return value if write is None else write(value)


_WAYS: Mapping[type, Callable[[Any], Any]] = {
    Decimal: digits,
    datetime: moment,
    time: clock,
    float: lambda value: value + 0.0,  # of two zeros one
}

__all__ = ["clock", "digits", "has_one_json", "moment", "struct_writer"]
