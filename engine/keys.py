"""Keys on the wire and in the store: str as UTF-8, int as decimal text, bytes as they are, a Struct as JSON.

`key_codec(type)` is for keys whose type is declared. Where a `key_by` callable does not say what it returns, the codec for `Any`
puts a letter in front that tells the type; such keys are for state and repartition topics only, never for a topic of the user's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from engine.errors import ConfigError, RecordError


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
        return msgspec.json.encode(key)
    if isinstance(key, str):
        return str(key).encode()
    raise RecordError(f"a key must be str, int, bytes or a Struct, not {type(key).__name__}: {key!r}")


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
    if key_type is Any or key_type is object:
        return KeyCodec(Any, wire_bytes, _encode_any, _decode_any)
    raise ConfigError(f"{what}: {getattr(key_type, '__name__', key_type)} cannot be a key; use str, int, bytes or a frozen Struct")


def _typed(expected: type) -> Callable[[Any], bytes]:
    def encode(key: Any) -> bytes:
        if not isinstance(key, expected):
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
    decoder = msgspec.json.Decoder(key_type)

    def decode(raw: bytes) -> Any:
        try:
            return decoder.decode(raw)
        except msgspec.DecodeError as error:
            raise RecordError(f"key {raw!r} is not a {key_type.__name__}: {error}") from error

    return decode


def _encode_any(key: Any) -> bytes:
    raw = wire_bytes(key)
    if isinstance(key, str):
        return b"s" + raw
    if type(key) is bytes:
        return b"b" + raw
    if type(key) is int:
        return b"i" + raw
    raise RecordError(f"a {type(key).__name__} as key needs its type declared: annotate what the key_by function returns")


def _decode_any(raw: bytes) -> Any:
    tag, rest = raw[:1], raw[1:]
    if tag == b"s":
        return _decode_str(rest)
    if tag == b"i":
        return _decode_int(rest)
    if tag == b"b":
        return rest
    raise RecordError(f"key {raw!r} was not written by this engine")
