"""`protobuf(registry, Message)`: the codec of Protobuf records with schema ids.

    payments = app.source("payments", codec=protobuf(registry, payment_pb2.Payment, Payment), key="user_id")

A record is a zero byte, the id of its schema in 4 bytes, the path of the message in its file (zigzag varints: how many, then each;
one zero byte for the first message), and the payload. Values are Structs, or the generated messages themselves where no Struct is
given; those cannot go through a repartition (`map` them first). The schema of a sink is the file of the generated class; what it
imports is registered before it, each under its own name, and referred to.

Source: Confluent documentation, "Protobuf Schema Serializer and Deserializer", wire format.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, overload

import msgspec
from google.protobuf.message import DecodeError, EncodeError, Message

from cdc.framing import Schemas
from cdc.protobuf_schema import indexes_of, message_names, source_of
from cdc.protobuf_values import fill, to_dict
from cdc.registry.client import Reference, Registry, SubjectStrategy
from cdc.schema_codecs import SchemaCodec
from cdc.schema_form import HEADER_BYTES, Part, plain
from engine.errors import ConfigError, RecordError

V = TypeVar("V")
M = TypeVar("M", bound=Message)
_WELL_KNOWN = "google/protobuf/"
_DEPTH_MAX = 64

Source = Schemas | Mapping[int, Any] | Callable[[int], Any]


@overload
def protobuf(
    registry: Source, message: type[Message], row_type: type[V], *, subject: str | SubjectStrategy = "topic", auto_register: bool = True
) -> SchemaCodec[V]: ...
@overload
def protobuf(
    registry: Source, message: type[M], row_type: None = None, *, subject: str | SubjectStrategy = "topic", auto_register: bool = True
) -> SchemaCodec[M]: ...
def protobuf(
    registry: Source,
    message: type[Message],
    row_type: Any = None,
    *,
    subject: str | SubjectStrategy = "topic",
    auto_register: bool = True,
) -> SchemaCodec[Any]:
    """Return the codec of Protobuf records with schema ids.

    Args:
        registry: A `Registry`; for sources a mapping or a function by id will do.
        message: The generated class.
        row_type: A Struct with fields of the same names; without it values are messages.
        subject, auto_register: As of `avro`.
    """
    form = _Protobuf(message, row_type)
    return SchemaCodec(form, message if row_type is None else row_type, registry, subject, auto_register)


class _Protobuf:
    kind = "PROTOBUF"
    parts: Sequence[Part] = ()

    def __init__(self, message: type[Message], row_type: Any) -> None:
        if not (isinstance(message, type) and issubclass(message, Message)):
            raise ConfigError(f"protobuf: {message!r} is not a generated message class")
        if row_type is not None and not (isinstance(row_type, type) and issubclass(row_type, msgspec.Struct)):
            raise ConfigError(f"protobuf: rows of {row_type!r}; use a Struct, or None for the messages themselves")
        self._message = message
        self._row_type = row_type
        self._file = message.DESCRIPTOR.file
        self.record_name = message.DESCRIPTOR.full_name
        self.schema = self.whole = source_of(self._file)
        self.references: Sequence[Reference] = ()
        self._indexes = write_indexes(indexes_of(message.DESCRIPTOR))

    async def refer(self, registry: Registry, *, register: bool) -> None:
        """Register what the file imports, or look it up, deepest first."""
        self.references = await _refer(registry, self._file, register)

    def reader(self, found: Any) -> Callable[[bytes], Any]:
        names = message_names(getattr(found, "text", found))
        wanted, parse, row_type = self.record_name, self._message.FromString, self._row_type

        def read(raw: bytes) -> Any:
            indexes, start = read_indexes(raw, HEADER_BYTES)
            name = names.get(indexes)
            if name != wanted:
                raise RecordError(f"the record is a {name or f'message {list(indexes)}, which its schema does not have'}, not a {wanted}")
            try:
                message = parse(raw[start:])
            except DecodeError as error:
                raise RecordError(f"not a valid {wanted}: {error}") from error
            if row_type is None:
                return message
            try:
                return msgspec.convert(to_dict(message), row_type)
            except (msgspec.MsgspecError, ValueError, OverflowError) as error:
                raise RecordError(f"not a valid {row_type.__name__}: {error}") from error

        return read

    def encode(self, value: Any, prefix: bytes) -> bytes:
        if self._row_type is None:
            message = value
            if not isinstance(value, self._message):
                raise RecordError(f"a {type(value).__name__} where {self.record_name} is declared")
        else:
            if type(value) is not self._row_type:
                raise RecordError(f"a {type(value).__name__} where {self._row_type.__name__} is declared")
            message = self._message()
            fill(message, plain(value))
        try:
            return prefix + self._indexes + bytes(message.SerializeToString())
        except EncodeError as error:
            raise RecordError(f"the value does not fit {self.record_name}: {error}") from error


async def _refer(registry: Registry, file: Any, register: bool) -> Sequence[Reference]:
    found = []
    for imported in file.dependencies:
        if imported.name.startswith(_WELL_KNOWN):
            continue
        inner, text = await _refer(registry, imported, register), source_of(imported)
        if register:
            await registry.register(imported.name, text, kind="PROTOBUF", references=inner)
        version = (await registry.find(imported.name, text, kind="PROTOBUF", references=inner)).version
        found.append(Reference(imported.name, imported.name, version))
    return found


def write_indexes(indexes: Sequence[int]) -> bytes:
    """Return a path of message indexes as records have it."""
    if tuple(indexes) == (0,):
        return b"\0"
    return b"".join(_varint(number << 1) for number in (len(indexes), *indexes))


def read_indexes(raw: bytes, start: int) -> tuple[tuple[int, ...], int]:
    """Return the path of message indexes, and where the payload begins.

    Raises:
        RecordError: The record ends before, or the numbers make no sense.
    """
    count, start = _read_varint(raw, start)
    if count == 0:
        return (0,), start
    if not 0 < count <= _DEPTH_MAX:
        raise RecordError(f"a path of {count} message indexes")
    indexes = []
    for _ in range(count):
        index, start = _read_varint(raw, start)
        indexes.append(index)
    return tuple(indexes), start


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _read_varint(raw: bytes, start: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if start >= len(raw) or shift > 63:
            raise RecordError("the record ends within its message indexes")
        byte = raw[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value >> 1 ^ -(value & 1), start
        shift += 7
