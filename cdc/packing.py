"""Rows as bytes, so that they come back as they were: for state, and for the way to the partition of their key.

A row of a Struct is MessagePack as any value of a declared type. A dict row says nothing about its types, so values that
MessagePack does not know are extensions of it:

    {"id": 1, "amount": Decimal("9.50")}         {"id": 1, "amount": Ext(1, "9.50")}

Limits: the types are those that `cdc.debezium` gives. Other operators (a `group_by`, a join) keep the same types by `engine.untyped`,
but for `Beyond`, `Interval` and `Range`: declare a Struct for rows with these that go there.
"""

from collections.abc import Callable
from typing import Any, get_origin

import msgspec
from msgspec.msgpack import Ext

from cdc.values import Beyond, Interval, Range
from engine.agg.folding import payload_codec
from engine.errors import RecordError
from engine.untyped import EXTENSIONS, READERS
from state.values import PayloadCodec

_INT64 = 1 << 63

_pack = msgspec.msgpack.Encoder().encode  # a set is in no row, and columns keep their order


def row_codec(row_type: Any) -> Callable[[Any], PayloadCodec[Any]]:
    """Return what gives the codec of a tuple type that holds rows of a type."""
    return _dict_codec if (get_origin(row_type) or row_type) is dict else payload_codec


def _dict_codec(stored: Any) -> PayloadCodec[Any]:
    unpack = msgspec.msgpack.Decoder(stored, ext_hook=_untag).decode
    return PayloadCodec(lambda value: _pack(tuple(map(_tag, value))), unpack)


def _tag(value: Any) -> Any:
    """Return a value as MessagePack knows it."""
    kind = type(value)
    if kind in _PLAIN or (kind is int and -_INT64 <= value < 2 * _INT64):
        return value
    if kind is dict:
        return {_tag_key(name): _tag(part) for name, part in value.items()}
    if kind in (list, tuple):
        return list(map(_tag, value))
    extension = _EXTENSIONS.get(kind)
    if extension is None:
        raise RecordError(f"a {kind.__name__} in a row that is a dict cannot be kept; declare a Struct for the rows")
    code, write = extension
    return Ext(code, write(value))


def _tag_key(name: Any) -> Any:
    if type(name) not in (str, int):
        raise RecordError(f"{name!r} is the name of no column")
    return name


def _untag(code: int, data: memoryview) -> Any:
    return _READERS[code](bytes(data))


def _read_range(raw: bytes) -> Range[Any]:
    return Range(*_unpack_any(raw))


_PLAIN = frozenset((str, bool, float, bytes, type(None)))
_unpack_any = msgspec.msgpack.Decoder(ext_hook=_untag).decode
_EXTENSIONS: dict[type, tuple[int, Callable[[Any], bytes]]] = {
    **EXTENSIONS,
    Beyond: (7, lambda value: str(value).encode()),
    Interval: (8, lambda value: b"%d %d %d" % (value.months, value.days, value.microseconds)),
    Range: (9, lambda value: _pack(list(map(_tag, (getattr(value, name) for name in value.__struct_fields__))))),
}
_READERS: dict[int, Callable[[bytes], Any]] = {
    **READERS,
    7: lambda raw: Beyond(raw.decode()),
    8: lambda raw: Interval(*map(int, raw.split())),
    9: _read_range,
}

__all__ = ["row_codec"]
