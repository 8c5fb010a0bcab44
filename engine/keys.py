"""Keys on the wire and in the store: str as UTF-8, int as decimal text, bytes as they are, a Struct as JSON, others as their text.

| UUID                | `0f0e0d0c-0b0a-4908-8706-050403020100`                                             |
| date, time          | `2026-02-28`, `10:20:30.000001`                                                    |
| datetime            | `2026-02-28T10:20:30`; with a zone in UTC: `2026-02-28T09:20:30+00:00`             |
| Decimal             | in digits, without zeros at its end: `1.5` for 1.50, `100` for 1E+2                |
| Struct              | its JSON, with numbers and times as above (`engine.key_structs`)                   |

Equal keys have equal bytes, so a key that was written in another way by somebody else is refused: its record may lie in another
partition than the same key in the way of this engine.

`key_codec(type)` is for keys whose type is declared. Where a `key_by` callable does not say what it returns, the codec for `Any`
puts a letter in front that tells the type; such keys are for state and repartition topics only, never for a topic of the user's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

import msgspec

from engine.errors import ConfigError, RecordError
from engine.key_structs import clock, digits, has_one_json, moment, struct_writer


@dataclass(frozen=True, slots=True)
class KeyCodec:
    """Both ways between a key and its bytes.

    `wire` gives the bytes that decide about the partition and stand in topics; `encode`/`decode` are for state and repartition
    topics. They differ only for keys of undeclared type. All raise RecordError for a key that does not fit.
    """

    type: Any
    wire: Callable[[Any], bytes]
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


def wire_bytes(key: Any) -> bytes:
    """Return the bytes on the wire of a key of any supported type."""
    if type(key) is str:
        return key.encode()
    if type(key) is bytes:
        return key
    if type(key) is int:
        return b"%d" % key
    if isinstance(key, msgspec.Struct):
        return struct_writer(type(key))(key)
    if isinstance(key, str):
        return str(key).encode()
    for kind, text in _TEXTS.items():
        if type(key) is kind or (kind is Decimal and isinstance(key, Decimal)):
            return text.write(key).encode()
    raise RecordError(f"a key must be {_KINDS} or a Struct, not {type(key).__name__}: {key!r}")


def key_codec(key_type: Any, what: str = "key") -> KeyCodec:
    """Return the codec for a declared key type, or for `Any`.

    Raises:
        ConfigError: The type cannot be a key.
    """
    if key_type is str:
        return KeyCodec(str, _typed(str), _typed(str), _decode_str)
    if key_type is int:
        return KeyCodec(int, _typed(int), _typed(int), _decode_int)
    if key_type is bytes:
        return KeyCodec(bytes, _typed(bytes), _typed(bytes), bytes)
    if isinstance(key_type, type) and issubclass(key_type, msgspec.Struct):
        return KeyCodec(key_type, _typed(key_type), _typed(key_type), _decode_struct(key_type))
    if isinstance(key_type, type) and key_type in _TEXTS:
        return KeyCodec(key_type, _typed(key_type), _typed(key_type), _decode_text(key_type))
    if key_type is Any or key_type is object:
        return KeyCodec(Any, wire_bytes, _encode_any, _decode_any)
    raise ConfigError(f"{what}: {getattr(key_type, '__name__', key_type)} cannot be a key; use {_KINDS} or a frozen Struct")


def _typed(expected: type) -> Callable[[Any], bytes]:
    def encode(key: Any) -> bytes:
        if not isinstance(key, expected) or (expected is date and isinstance(key, datetime)):
            raise RecordError(f"a key must be {expected.__name__} here, not {type(key).__name__}: {key!r}")
        return wire_bytes(key)

    return str.encode if expected is str else encode  # the C method refuses other types by itself


def _decode_str(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise RecordError(f"key {raw!r} is not UTF-8") from error


def _decode_int(raw: bytes) -> int:
    try:
        return int(raw)
    except ValueError as error:
        raise RecordError(f"key {raw!r} is not a whole number") from error


def _decode_struct(key_type: type[msgspec.Struct]) -> Callable[[bytes], Any]:
    decoder, is_one = msgspec.json.Decoder(key_type), has_one_json(key_type)

    def decode(raw: bytes) -> Any:
        try:
            key = decoder.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RecordError(f"key {raw!r} is not a {key_type.__name__}: {error}") from error
        if not is_one:
            _refuse_other(raw, wire_bytes(key).decode(), key_type)
        return key

    return decode


def _encode_any(key: Any) -> bytes:
    raw = wire_bytes(key)
    if isinstance(key, str):
        return b"s" + raw
    if type(key) is bytes:
        return b"b" + raw
    if type(key) is int:
        return b"i" + raw
    text = _TEXTS.get(type(key))
    if text is not None:
        return text.letter + raw
    raise RecordError(f"a {type(key).__name__} as key needs its type declared: annotate what the key_by function returns")


def _decode_any(raw: bytes) -> Any:
    tag, rest = raw[:1], raw[1:]
    if tag == b"s":
        return _decode_str(rest)
    if tag == b"i":
        return _decode_int(rest)
    if tag == b"b":
        return rest
    for kind, text in _TEXTS.items():
        if tag == text.letter:
            return _decode_text(kind)(rest)
    raise RecordError(f"key {raw!r} was not written by this engine")


@dataclass(frozen=True, slots=True)
class _Text:
    """How a type is written and read; the letter tells it where it is not declared."""

    letter: bytes
    write: Callable[[Any], str]
    read: Callable[[str], Any]


_TEXTS: Mapping[Any, _Text] = {
    UUID: _Text(b"u", str, UUID),
    date: _Text(b"d", date.isoformat, date.fromisoformat),
    time: _Text(b"t", lambda key: clock(key).isoformat(), time.fromisoformat),
    datetime: _Text(b"m", lambda key: moment(key).isoformat(), datetime.fromisoformat),
    Decimal: _Text(b"n", digits, Decimal),
}
_KINDS = "str, int, bytes, UUID, date, time, datetime, Decimal"


def _decode_text(key_type: Any) -> Callable[[bytes], Any]:
    text = _TEXTS[key_type]

    def decode(raw: bytes) -> Any:
        try:
            key = text.read(raw.decode())
        except (ValueError, InvalidOperation) as error:
            raise RecordError(f"key {raw!r} is not a {key_type.__name__}: {error}") from error
        _refuse_other(raw, text.write(key), key_type)
        return key

    return decode


def _refuse_other(raw: bytes, written: str, key_type: Any) -> None:
    """Refuse a key that somebody has written in another way: its record may lie in another partition."""
    if written.encode() != raw:
        raise RecordError(f"key {raw!r} is not written as keys of {key_type.__name__} are here, {written!r}; read it as str")
