r"""Stored values: a header that carries the format from day one, then the payload that a codec made.

    version 1 | flags 1 | schema id 4 (flag 1) | write time 8 (flag 2) | time to live 8 (flag 4) | payload

    stored(json_codec(int)).encode(7)                                     b"\x01\x00" b"7"
    stored(dated_codec(json_codec(int), ttl_ms=60_000)).encode((7, t))    b"\x01\x06" write time, 60000, b"7"

Cells put the header on by themselves (`stored`): a codec only knows payloads. A payload of another type than is declared now is a
`StoredTypeError`, and no reason to empty a store; bytes that nobody can have written are a `StateError`.

`dated_codec` is for state with a time to live: its values are pairs of a value and the event time at which it was written; who
reads decides by the task's watermark whether it has expired, for the store never removes anything on its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct as Layout
from typing import Any, Generic, TypeVar

import msgspec

from state.errors import StateError, StoredTypeError, StreamForgeError
from state.keys import Codec

V = TypeVar("V")

VERSION = 1
_SCHEMA, _WRITTEN, _TTL = 1, 2, 4
_PLAIN = bytes((VERSION, 0))
_DATED = Layout(">BBqq")
MEND = "Give what was added a default, or bring the old type back"
# What a codec's decode may raise on bytes that it did not write.
DECODE_ERRORS = (msgspec.MsgspecError, StreamForgeError, ValueError, TypeError, LookupError)


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before a payload: schema of the payload, when it was written (event time), how long it lives; None for unsaid."""

    schema_id: int | None = None
    written_ms: int | None = None
    ttl_ms: int | None = None


def frame(payload: bytes, header: Header) -> bytes:
    """Return header and payload as they are stored."""
    flags, fields = 0, b""
    if header.schema_id is not None:
        flags, fields = flags | _SCHEMA, fields + header.schema_id.to_bytes(4, "big")
    if header.written_ms is not None:
        flags, fields = flags | _WRITTEN, fields + header.written_ms.to_bytes(8, "big", signed=True)
    if header.ttl_ms is not None:
        flags, fields = flags | _TTL, fields + header.ttl_ms.to_bytes(8, "big", signed=True)
    return bytes((VERSION, flags)) + fields + payload


def unframe(raw: bytes) -> tuple[Header, bytes]:
    """Return header and payload of a stored value.

    Raises:
        StateError: Another format version, unknown flags, or cut off.
    """
    if len(raw) < 2:
        raise StateError("a stored value is cut off")
    version, flags = raw[0], raw[1]
    if version != VERSION or flags & ~(_SCHEMA | _WRITTEN | _TTL):
        raise StateError(f"a stored value has format {version} with flags {flags}; this version reads format {VERSION}")
    at = 2
    fields: list[int | None] = []
    for flag, size in ((_SCHEMA, 4), (_WRITTEN, 8), (_TTL, 8)):
        if flags & flag:
            if len(raw) < at + size:
                raise StateError("a stored value is cut off")
            fields.append(int.from_bytes(raw[at : at + size], "big", signed=flag != _SCHEMA))
            at += size
        else:
            fields.append(None)
    return Header(*fields), raw[at:]


@dataclass(frozen=True, slots=True)
class PayloadCodec(Generic[V]):
    """Both ways between a value and its payload.

    Attributes:
        type: What values are, where people may write them (None: only its operator).
        mend: What to do when stored values no longer fit.
    """

    encode: Callable[[V], bytes]
    decode: Callable[[bytes], V]
    type: Any = None
    mend: str = MEND


@dataclass(frozen=True, slots=True)
class DatedCodec(Generic[V]):
    """Values with a time to live; see `dated_codec`."""

    inner: Codec[V]
    ttl_ms: int

    def encode(self, dated: tuple[V, int]) -> bytes:
        """Return the stored form, header included, of (value, event time of writing)."""
        value, written_ms = dated
        return _DATED.pack(VERSION, _WRITTEN | _TTL, written_ms, self.ttl_ms) + self.inner.encode(value)

    def decode(self, raw: bytes) -> tuple[V, int]:
        """Return (value, event time of writing)."""
        header, payload = unframe(raw)
        if header.written_ms is None:
            raise StateError("a stored value has no write time")
        return self.inner.decode(payload), header.written_ms


def json_codec(value_type: Any) -> PayloadCodec[Any]:
    """Return the codec that stores values of a type as JSON: readable, and the choice for what people look at."""
    return PayloadCodec(msgspec.json.Encoder().encode, msgspec.json.Decoder(value_type).decode, value_type)


def msgpack_codec(value_type: Any) -> PayloadCodec[Any]:
    """Return the codec that stores values of a type as MessagePack: smaller and faster, and bytes inside stay bytes."""
    return PayloadCodec(msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(value_type).decode, value_type)


def dated_codec(inner: Codec[V], *, ttl_ms: int) -> DatedCodec[V]:
    """Return the codec for (value, event time of writing), which also notes in the header how long values live."""
    return DatedCodec(inner, ttl_ms)


def _same(raw: bytes) -> bytes:
    return raw


def _decode_unit(raw: bytes) -> bool:
    if raw:
        raise ValueError("a unit has no payload")
    return True


def _encode_unit(value: bool) -> bytes:
    assert value is True, "the only value of a unit is True"
    return b""


raw_codec: PayloadCodec[bytes] = PayloadCodec(_same, _same)
"""Values that are bytes already."""

unit_codec: PayloadCodec[bool] = PayloadCodec(_encode_unit, _decode_unit)
"""For entries that say all by being there: the only value is True."""


def fitting(decode: Callable[[bytes], V], name: str) -> Callable[[bytes], V]:
    """Return a function that decodes a part of what a state holds, with a StoredTypeError that names the state where it does not fit."""

    def read(raw: bytes) -> V:
        try:
            return decode(raw)
        except DECODE_ERRORS as error:
            raise StoredTypeError(f"state {name!r}: what is stored does not fit the type that is declared now: {error}. {MEND}") from error

    return read


def stored(codec: Codec[V], name: str) -> PayloadCodec[V]:
    """Return the codec of whole stored values, header included.

    Its `decode` names the state in what it raises:
        StoredTypeError: The value was written as another type.
        StateError: The bytes are no stored value.
    """
    payload_decode = codec.decode
    mend = getattr(codec, "mend", MEND)

    if isinstance(codec, DatedCodec):
        encode: Callable[[V], bytes] = codec.encode
    else:
        payload_encode = codec.encode

        def encode(value: V) -> bytes:
            return _PLAIN + payload_encode(value)

    framed = isinstance(codec, DatedCodec)

    def decode(raw: bytes) -> V:
        try:
            if framed:
                return payload_decode(raw)
            return payload_decode(raw[2:] if raw[:2] == _PLAIN else unframe(raw)[1])
        except StoredTypeError as error:
            raise StoredTypeError(f"state {name!r}: {error}") from error
        except msgspec.ValidationError as error:
            raise StoredTypeError(f"state {name!r}: a stored value does not fit the type that is declared now: {error}. {mend}") from error
        except DECODE_ERRORS as error:
            raise StateError(f"state {name!r}: a stored value cannot be read: {error}") from error

    return PayloadCodec(encode, decode)
