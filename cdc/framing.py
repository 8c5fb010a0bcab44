"""How a record says which schema wrote it, and the payloads that come out of JSON, JSON with schemas, and Avro.

| framing            | the record                                  | schema                                             |
|--------------------|---------------------------------------------|----------------------------------------------------|
| JSON               | an object                                   | none                                               |
| JSON with schemas  | {"schema": ..., "payload": ...}             | inline; parsed once for the same bytes             |
| Confluent          | 0, id in 4 bytes (8: Apicurio's own), Avro  | by id                                              |
| headers            | Avro                                        | id in a header of 8 bytes, `apicurio.value.contentId` |

An id is only as good as the number space that it was written in. Apicurio's converter writes global ids unless it is told
`use-id=contentId`, and its Confluent API answers content ids: another schema is found, or none. What does not fit is refused
("bytes are left over"), but that is luck.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from cdc.columns import Column, from_connect
from cdc.envelopes import envelope_decoder, header
from cdc.reading import Wire
from cdc.rows import RowPlan, RowType
from engine.codecs import BAD_JSON
from engine.errors import RecordError
from engine.records import Headers, RecordBatch

SCHEMAS_MAX = 1_000


class Schemas(Protocol):
    """Where schemas come from, by id. A registry client fetches them before a batch is decoded; decoding only looks them up."""

    def schema(self, schema_id: int) -> Any:
        """Return the schema: text, decoded JSON, or an object with `text` and the texts in `resolved` that it refers to.

        Raises:
            RecordError: There is none of that id.
            UnavailableError: It has not been fetched, and may exist.
        """
        ...


class StoredSchemas:
    """Schemas held in a mapping, by id."""

    def __init__(self, schemas: Mapping[int, Any]) -> None:
        self._schemas = {int(schema_id): schema for schema_id, schema in schemas.items()}  # JSON has no other names than texts

    def schema(self, schema_id: int) -> Any:
        if schema_id not in self._schemas:
            raise RecordError(f"there is no schema of id {schema_id}")
        return self._schemas[schema_id]


class FoundSchemas:
    """Schemas that a function gives, by id; it is asked once for each."""

    def __init__(self, look_up: Callable[[int], Any]) -> None:
        self._look_up = look_up

    def schema(self, schema_id: int) -> Any:
        return self._look_up(schema_id)


@dataclass(slots=True)
class Payload:
    """What stands in a key or value, and what is known about it.

    Attributes:
        row: Type of the row (of the whole payload where there is no envelope); None without a schema.
        version: Tells one schema from another; None without one.
    """

    value: Any
    wire: Wire = "json"
    row: Column | None = None
    version: int | None = None
    plans: "Plans | None" = None


@dataclass(slots=True)
class Plans:
    """The plans of one schema, for streamed changes and for snapshot reads.

    Attributes:
        content: How the schema says that the content of a logical message is written, None if it does not.
        direct: Reads most of its JSON without a plan.
    """

    rows: RowType
    column: Column | None
    wire: Wire
    content: str | None = None
    made: dict[bool, RowPlan] = field(default_factory=dict)
    text: "Plans | None" = None
    direct: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        if self.wire == "json" and self.rows.is_read_directly(self.column, self.wire):
            self.direct = envelope_decoder(self.rows)

    def get(self, *, julian: bool) -> RowPlan:
        """Return the plan, made when it is first used."""
        plan = self.made.get(julian)
        if plan is None:
            plan = self.made[julian] = self.rows.plan(self.column, self.wire, julian=julian)
        return plan

    def beside(self) -> "Plans":
        """Return the plans of the same schema for JSON text in a header, whatever the record itself is written in."""
        if self.wire == "json":
            return self
        if self.text is None:
            self.text = Plans(self.rows, self.column, "json")
        return self.text


class _Wrapped(msgspec.Struct):
    schema: msgspec.Raw = msgspec.Raw()
    payload: msgspec.Raw = msgspec.Raw()


_unwrap = msgspec.json.Decoder(_Wrapped).decode
_NO_SCHEMA = msgspec.Raw(b"null")
"""What JsonConverter writes as the schema of a value that has none."""


class Opener:
    """Takes keys or values out of their framing.

    Args:
        decode: Decodes a JSON payload; it may raise msgspec.DecodeError.
        schemas: For Avro; None if every record is JSON.
        part: "key" or "value": names the headers.
        id_bytes: Length of an id in the Confluent framing.
    """

    def __init__(self, rows: RowType, decode: Callable[[Any], Any], schemas: Schemas | None, part: str, id_bytes: int = 4) -> None:
        self._rows = rows
        self._decode = decode
        self._schemas = schemas
        self._id_bytes = id_bytes
        self._id_headers = (f"apicurio.{part}.contentId", f"apicurio.{part}.globalId")
        self._bare = Plans(rows, None, "json")
        self._inline: dict[bytes, tuple[Plans, int]] = {}
        self._avro: dict[int, tuple[Any, Plans]] = {}

    def open(self, raw: bytes, headers: Headers, *, direct: bool = False) -> Payload:
        """Return the payload of a key or value.

        Args:
            direct: Envelopes may come with their rows as Structs.

        Raises:
            RecordError: Another framing, a schema that nobody knows, or bytes that do not fit it.
        """
        if self._schemas is not None:
            found = self.schema_id(raw, headers)
            if found is not None:
                return self._open_avro(raw, *found)
        elif raw[:1] == b"\0":
            raise RecordError(
                "the record begins with a zero byte: it refers to a schema in a registry, and this codec has none (registry=)"
            )
        if raw[:10] == b'{"schema":':
            try:
                wrapped = _unwrap(raw)
            except BAD_JSON as error:
                raise RecordError(f"not JSON of Debezium's: {error}") from error
            if len(wrapped.schema) and len(wrapped.payload):
                if wrapped.schema == _NO_SCHEMA:
                    return self._read(wrapped.payload, self._bare, None, direct)
                plans, version = self._plans_of(bytes(wrapped.schema))
                return self._read(wrapped.payload, plans, version, direct)
        return self._read(raw, self._bare, None, direct)

    def _read(self, raw: Any, plans: Plans, version: int | None, direct: bool) -> Payload:
        value = None
        try:
            if direct and plans.direct is not None:
                value = plans.direct(raw)
            return Payload(self._decode(raw) if value is None else value, "json", plans.column, version, plans)
        except BAD_JSON as error:
            raise RecordError(f"not JSON of Debezium's: {error}") from error

    def schema_id(self, raw: bytes, headers: Headers) -> tuple[int, int] | None:
        """Return (schema id, where the Avro bytes begin), None if the record is not framed."""
        for name in self._id_headers:
            found = header(headers, name)
            if found is not None:
                return int.from_bytes(found, "big"), 0
        if raw[:1] != b"\0":
            return None
        end = 1 + self._id_bytes
        if len(raw) < end:
            raise RecordError(f"{len(raw)} bytes are too few for a magic byte and a schema id of {self._id_bytes} bytes")
        return int.from_bytes(raw[1:end], "big"), end

    def _open_avro(self, raw: bytes, schema_id: int, start: int) -> Payload:
        known = self._avro.get(schema_id)
        if known is None:
            known = self._avro[schema_id] = self._learn(schema_id)
        schema, plans = known
        try:
            value = schema.decode(raw, start)
        except RecordError as error:
            raise RecordError(f"schema {schema_id}: {error}") from error
        return Payload(value, "avro", plans.column, schema_id, plans)

    def _learn(self, schema_id: int) -> tuple[Any, Plans]:
        from cdc.avro_values import AvroSchema  # fastavro only where there is Avro

        assert self._schemas is not None
        found = self._schemas.schema(schema_id)
        schema = AvroSchema(getattr(found, "text", found), getattr(found, "resolved", ()))
        if len(self._avro) >= SCHEMAS_MAX:
            self._avro.clear()
        return schema, Plans(self._rows, _row_of(schema.column), "avro", _content_of(schema.column))

    def _plans_of(self, schema: bytes) -> tuple[Plans, int]:
        known = self._inline.get(schema)
        if known is None:
            try:
                column = from_connect(msgspec.json.decode(schema))
            except (*BAD_JSON, ValueError, KeyError, TypeError, AttributeError) as error:
                raise RecordError(f"the inline schema cannot be read: {error}") from error
            if len(self._inline) >= SCHEMAS_MAX:
                self._inline.clear()
            known = self._inline[schema] = Plans(self._rows, _row_of(column), "json", _content_of(column)), zlib.crc32(schema)
        return known


def unknown_ids(openers: Iterable[tuple[Opener, Iterable[bytes | None]]], batch: RecordBatch) -> set[int]:
    """Return the ids of the schemas that a batch refers to and that have not been used yet."""
    headers = batch.headers
    found = set()
    for opener, column in openers:
        for row, raw in enumerate(column):
            if raw is None:
                continue
            try:
                framed = opener.schema_id(raw, headers[row])
            except RecordError:
                continue
            if framed is not None and framed[0] not in opener._avro:  # its own module
                found.add(framed[0])
    return found


def _row_of(column: Column) -> Column:
    """Return the type of the row in an envelope, or of the payload itself."""
    fields = column.fields or {}
    if {"op", "source", "after"} <= fields.keys():
        return fields["after"]
    return column


def _content_of(column: Column) -> str | None:
    message = (column.fields or {}).get("message")
    content = ((message and message.fields) or {}).get("content")
    return None if content is None else content.kind
