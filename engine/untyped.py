"""Values whose type nobody has declared, as bytes that keep it: for state, and for the way through a repartition topic.

MessagePack knows numbers, texts, bytes, lists and maps. Where a type is declared, anything else comes back from its text; where it is
`Any` or a plain dict it would stay text. So there such values are extensions:

    {"id": 1, "amount": Decimal("9.50")}         {"id": 1, "amount": Ext(1, "9.50")}

Values that are all plain are written as they were before there were extensions, and what was written then can be read. Only the
undeclared parts of a type are looked at: `tuple[Order, dict[str, Any] | None]` looks at the dict.

Limits: decimals, dates, times, durations, UUIDs and ints beyond 64 bits; a Struct in an undeclared place comes back as a dict (most
operators refuse it), a tuple or a set as a list. Union types with several undeclared members are looked at as a whole.
"""

from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin
from uuid import UUID

import msgspec
from msgspec.msgpack import Ext

Tag = Callable[[Any], Any]

_MICROSECOND = timedelta(microseconds=1)
_INT64 = 1 << 63
PLAIN = frozenset((str, bool, int, float, bytes, NoneType))
"""Types of values that are written as they are."""
_CONTAINERS = (dict, list, tuple)
_BUILTIN = (bytes, Decimal, datetime, date, time, timedelta, UUID)
_pack = msgspec.msgpack.Encoder(order="deterministic").encode
_pack_as_is = msgspec.msgpack.Encoder().encode


def _text(value: Any) -> bytes:
    return str(value).encode()


def _iso(value: Any) -> bytes:
    text: str = value.isoformat()
    return text.encode()


EXTENSIONS: Mapping[type, tuple[int, Callable[[Any], bytes]]] = {
    Decimal: (1, _text),
    datetime: (2, _iso),
    date: (3, _iso),
    time: (4, _iso),
    timedelta: (5, lambda value: b"%d" % (value // _MICROSECOND)),
    UUID: (6, _text),
    int: (10, _text),
}
"""Code and text of each type; codes 7 to 9 are those of `cdc.packing`, 11 is a map with ints beyond 64 bits among its keys."""
_PAIRS = 11
READERS: Mapping[int, Callable[[bytes], Any]] = {
    1: lambda raw: Decimal(raw.decode()),
    2: lambda raw: datetime.fromisoformat(raw.decode()),
    3: lambda raw: date.fromisoformat(raw.decode()),
    4: lambda raw: time.fromisoformat(raw.decode()),
    5: lambda raw: timedelta(microseconds=int(raw)),
    6: lambda raw: UUID(raw.decode()),
    10: int,
    _PAIRS: lambda raw: dict(msgspec.msgpack.decode(raw, type=list[tuple[Any, Any]], ext_hook=untag)),
}


def encoder(value_type: Any, *, order: Any = None) -> Callable[[Any], bytes]:
    """Return the function from values of a type to bytes.

    Raises (the function):
        OverflowError: An int beyond 64 bits in a declared place.
    """
    pack = msgspec.msgpack.Encoder(order=order).encode
    narrow, wide = tagger(value_type), tagger(value_type, tag_wide)
    if narrow is None or wide is None:
        return pack

    def encode(value: Any) -> bytes:
        try:
            return pack(narrow(value))
        except OverflowError:
            return pack(wide(value))

    return encode


def decoder(value_type: Any) -> Callable[[Any], Any]:
    """Return the function from bytes to values of a type."""
    return msgspec.msgpack.Decoder(value_type, ext_hook=untag).decode


def encode_wide(value: Any, *, order: Literal["deterministic"] | None = "deterministic") -> bytes:
    """Return the bytes of a value with ints beyond 64 bits in any place, a declared one too; `wide_decoder` reads them."""
    return (_pack_as_is if order is None else _pack_ordered)(_tag_everywhere(value))


def wide_decoder(value_type: Any) -> Callable[[Any], Any]:
    """Return the function from such bytes to values of a type."""
    unpack = msgspec.msgpack.Decoder(Any, ext_hook=untag).decode
    return lambda raw: msgspec.convert(unpack(raw), value_type, builtin_types=_BUILTIN)


def untag(code: int, data: memoryview) -> Any:
    """Return the value of an extension."""
    return READERS[code](bytes(data))


def tagger(value_type: Any, leaf: Tag | None = None) -> Tag | None:
    """Return what makes extensions of the undeclared parts of values by `leaf` (`tag`), None where everything is declared."""
    leaf = leaf or tag
    if value_type is Any or value_type is object or value_type in _CONTAINERS:
        return leaf
    origin, arguments = get_origin(value_type), get_args(value_type)
    if origin in (Union, UnionType):
        return _of_union([tagger(member, leaf) for member in arguments if member is not NoneType], leaf)
    if origin is dict:
        return _of_items(tagger(arguments[1], leaf), lambda values, inner: {name: inner(value) for name, value in values.items()})
    if origin in (frozenset, set):
        return None if tagger(arguments[0], leaf) is None else lambda values: _of_set(values, leaf)
    if origin is list or (origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis):
        return _of_items(tagger(arguments[0], leaf), lambda values, inner: [inner(value) for value in values])
    if origin is tuple:
        return _of_places([tagger(argument, leaf) for argument in arguments])
    return None


def tag(value: Any) -> Any:
    """Return a value as MessagePack knows it; the same object where nothing is to be done."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is dict:
        return value if PLAIN.issuperset(map(type, value.values())) else {name: tag(part) for name, part in value.items()}
    if kind is list or kind is tuple:
        return value if PLAIN.issuperset(map(type, value)) else [tag(part) for part in value]
    extension = EXTENSIONS.get(kind)
    return value if extension is None else Ext(extension[0], extension[1](value))


def tag_wide(value: Any) -> Any:
    """Return a value as `tag` does, its ints beyond 64 bits as extensions too."""
    if type(value) is int:
        return value if -_INT64 <= value < 2 * _INT64 else Ext(10, _text(value))
    if type(value) is dict:
        return {name: tag_wide(part) for name, part in value.items()}
    return [tag_wide(part) for part in value] if type(value) in (list, tuple) else tag(value)


def _pack_ordered(value: Any) -> bytes:
    """Return the bytes in an order of their own; maps whose keys are not all text, which msgspec does not order, as they come."""
    try:
        return _pack(value)
    except TypeError:
        return _pack_as_is(value)


def _tag_everywhere(value: Any) -> Any:
    kind = type(value)
    if kind is set or kind is frozenset:
        return sorted(map(_tag_everywhere, value), key=_pack_ordered)
    if kind is list or kind is tuple:
        return list(map(_tag_everywhere, value))
    if kind is dict:
        parts = {name: _tag_everywhere(part) for name, part in value.items()}
        if any(type(name) is int and type(tag_wide(name)) is Ext for name in parts):
            return Ext(_PAIRS, _pack_ordered([(tag_wide(name), part) for name, part in parts.items()]))
        return parts
    if kind in PLAIN or kind in EXTENSIONS:
        return tag_wide(value)
    plain = msgspec.to_builtins(value, builtin_types=_BUILTIN)  # a Struct, a dataclass, a named tuple, a member of an enum
    return plain if type(plain) is kind else _tag_everywhere(plain)


def _of_items(inner: Tag | None, each: Callable[[Any, Tag], Any]) -> Tag | None:
    return None if inner is None else lambda values: each(values, inner)


def _of_set(values: Any, leaf: Tag) -> Any:
    """Return a set as it is where its values are plain and of one type, else as a list in an order of its own."""
    kinds = set(map(type, values))
    if leaf is tag and len(kinds) <= 1 and kinds <= PLAIN:
        return values
    return sorted(map(leaf, values), key=_pack_ordered)


def _of_union(taggers: list[Tag | None], leaf: Tag) -> Tag | None:
    if all(one is None for one in taggers):
        return None
    only = taggers[0] if len(taggers) == 1 else None

    def tag_one(value: Any) -> Any:
        if value is None:
            return None
        return only(value) if only is not None else leaf(value) if type(value) in _CONTAINERS else value

    return tag_one


def _of_places(taggers: list[Tag | None]) -> Tag | None:
    if all(one is None for one in taggers):
        return None
    return lambda values: [value if one is None else one(value) for value, one in zip(values, taggers, strict=True)]


__all__ = ["EXTENSIONS", "READERS", "decoder", "encode_wide", "encoder", "tag", "tagger", "untag", "wide_decoder"]
