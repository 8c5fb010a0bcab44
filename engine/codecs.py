"""Codecs: between the bytes of a topic and the values of a pipeline.

A codec decodes whole batches, because that is where the time goes: one call a batch at C speed while every record is good, one
record at a time only to find the bad ones. Codecs with more to read than the value (a framing in headers, a schema id) get the
whole batch for that reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import msgspec

from engine.errors import ConfigError, RecordError
from engine.records import RecordBatch
from engine.selectors import Compiled

BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding JSON raises for a bad record; one that is nested too deeply is bad too, and would else stop its task for ever."""

V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)


@dataclass(slots=True)
class Decoded(Generic[V]):
    """Values of a batch, one a record; where `errors` has an entry for a row, its value is None and the record is bad.

    Rows in `skipped` are no records of the stream and not bad either (a tombstone behind a delete): counted, and passed over.
    """

    values: list[Any]
    errors: dict[int, Exception] = field(default_factory=dict)
    skipped: set[int] = field(default_factory=set)


class Codec(Protocol[V]):
    """Decodes the batches of a source, encodes the values of a sink."""

    @property
    def type(self) -> Any:
        """The Python type of the values, `Any` if nothing is known."""
        ...

    def decode_batch(self, batch: RecordBatch) -> Decoded[V]:
        """Return the value of each record; bad records are reported, never raised."""
        ...

    def encode_column(self, values: Sequence[V]) -> list[bytes | None]:
        """Return the bytes of each value; None makes a tombstone. Raises for a value that cannot be encoded."""
        ...


@runtime_checkable
class Selects(Protocol):
    """A codec whose values are not what people name fields of: a change event, where "id" means the row's column."""

    def select(self, name: str) -> Compiled:
        """Return the selector of a field name. Raises ConfigError for a name that does not exist."""
        ...


class JsonCodec(Generic[V]):
    """JSON to and from a type that msgspec knows: Struct, dataclass, dict, list and the plain types.

    Unknown fields are ignored; a missing or mistyped one makes the record bad.
    """

    def __init__(self, value_type: Any, what: str = "codec") -> None:
        self.type = value_type
        self._encoder = msgspec.json.Encoder(enc_hook=_encode_other)
        try:
            self._decoder = msgspec.json.Decoder(value_type)
        except TypeError as error:
            raise ConfigError(f"{what}: JSON cannot be decoded into {value_type!r}: {error}") from error

    def decode_batch(self, batch: RecordBatch) -> Decoded[V]:
        decode = self._decoder.decode
        try:
            return Decoded(list(map(decode, batch.values)))  # type: ignore[arg-type]  # a None raises and is found below
        except (*BAD_JSON, TypeError):
            pass
        decoded: Decoded[V] = Decoded([])
        for row, raw in enumerate(batch.values):
            value = None
            try:
                if raw is None:
                    raise RecordError("the record has no value (a tombstone), and this source has none")
                value = decode(raw)
            except BAD_JSON as error:
                decoded.errors[row] = RecordError(f"not a valid {_name(self.type)}: {error}")
            except RecordError as error:
                decoded.errors[row] = error
            decoded.values.append(value)
        return decoded

    def encode_column(self, values: Sequence[V]) -> list[bytes | None]:
        encode = self._encoder.encode
        if None in values:
            return [None if value is None else encode(value) for value in values]
        return list(map(encode, values))


def _encode_other(value: Any) -> Any:
    """Encode what msgspec does not know but knows how to present itself."""
    as_json = getattr(value, "as_json", None)
    if as_json is None:
        raise NotImplementedError(f"a {type(value).__name__} has no JSON form; map it to a Struct or a dict first")
    return as_json()


def _name(value_type: Any) -> str:
    return getattr(value_type, "__name__", str(value_type))
