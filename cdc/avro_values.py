"""Avro bytes to values and back: the only module that imports fastavro.

`AvroSchema` reads what Connect wrote: schemas are stripped of their logical types before they are parsed, because what Debezium means
stands in `connect.name`, and a date such as 'infinity' does not fit the type that fastavro would make of it; `cdc.reading` gives the
values their meaning. `Resolver` reads what other producers wrote, into a schema of ours, with logical types.
"""

import io
import json
from collections.abc import Sequence
from typing import Any

import fastavro
from fastavro.schema import SchemaParseException, UnknownType

from cdc.columns import Column, from_avro
from engine.errors import RecordError

_BAD_BYTES = (EOFError, ValueError, LookupError, TypeError, MemoryError, ArithmeticError, AttributeError, RecursionError)
_BAD_SCHEMA = (SchemaParseException, UnknownType, ValueError, KeyError, TypeError, AttributeError, RecursionError)


class AvroSchema:
    """A parsed writer schema of Connect's.

    Attributes:
        column: Its types, with their meaning.
        name: Full name of a record.
    """

    def __init__(self, schema: Any, resolved: Sequence[Any] = ()) -> None:
        plain = decoded(schema)
        named: dict[str, Column] = {}
        try:
            for other in resolved:
                from_avro(decoded(other), named)
            self.column: Column = from_avro(plain, named)
            self._parsed = _parse(_without_logical_types(plain), [_without_logical_types(decoded(other)) for other in resolved])
        except _BAD_SCHEMA as error:
            raise RecordError(f"the schema is not one of Avro's: {error}") from error
        self.name: str | None = plain.get("connect.name") or plain.get("name") if isinstance(plain, dict) else None

    def decode(self, raw: bytes, start: int) -> Any:
        """Return the value that fills `raw` from `start` on.

        Raises:
            RecordError: It is cut off, or something is left over: another schema wrote it.
        """
        return _read(raw, start, self._parsed, None, self.name or "")


class Resolver:
    """Reads what one schema wrote into another: defaults, aliases, promotions, unions and logical types (Avro's schema resolution).

    Args:
        writer: The schema of the bytes; `resolved`: schemas that it refers to.
        reader: Ours; None for the writer's own.

    Attributes:
        defaulted: Fields of the reader's record that the writer does not have.
    """

    def __init__(self, writer: Any, reader: dict[str, Any] | None, resolved: Sequence[Any] = ()) -> None:
        plain = decoded(writer)
        self.name = plain.get("name", "") if isinstance(plain, dict) else str(plain)
        self.defaulted: frozenset[str] = frozenset()
        try:
            self._writer = _parse(plain, [decoded(other) for other in resolved])
            self._reader = None if reader is None else _parse({**reader, "aliases": [self.name.split(".")[-1]]}, [])
        except _BAD_SCHEMA as error:
            raise RecordError(f"the schema is not one of Avro's: {error}") from error
        if reader is not None and isinstance(plain, dict) and "fields" in plain:
            written = {field["name"] for field in plain["fields"]}
            missing = (f["name"] for f in reader["fields"] if not written & {f["name"], *f.get("aliases", ())})
            self.defaulted = frozenset(missing)

    def decode(self, raw: bytes, start: int) -> Any:
        """Return the value that fills `raw` from `start` on, as the reader's schema has it; without its `defaulted` fields."""
        value = _read(raw, start, self._writer, self._reader, self.name)
        for name in self.defaulted:
            value.pop(name, None)
        return value


class Writer:
    """Writes values by a schema."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._parsed = _parse(schema, [])

    def encode(self, value: Any, prefix: bytes) -> bytes:
        """Return prefix and Avro bytes of a value; raises RecordError if it does not fit the schema."""
        out = io.BytesIO()
        out.write(prefix)
        try:
            fastavro.schemaless_writer(out, self._parsed, value)
        except _BAD_BYTES as error:
            raise RecordError(f"the value does not fit the Avro schema: {type(error).__name__}: {error}") from error
        return out.getvalue()


def decoded(schema: Any) -> Any:
    """Return a schema as decoded JSON, given as such or as text."""
    if isinstance(schema, str) and schema.lstrip()[:1] in ("{", "[", '"'):
        try:
            return json.loads(schema)
        except ValueError as error:
            raise RecordError(f"the schema is not JSON: {error}") from error
    return schema


def check_schema(schema: Any, resolved: Sequence[Any] = ()) -> Any:
    """Return a schema as decoded JSON if it is one of Avro's; raises RecordError with the reason if it is not."""
    plain = decoded(schema)
    try:
        _parse(plain, [decoded(other) for other in resolved])
    except _BAD_SCHEMA as error:
        raise RecordError(f"the schema is not one of Avro's: {error}") from error
    return plain


def _parse(schema: Any, resolved: Sequence[Any]) -> Any:
    named: dict[str, Any] = {}
    for other in resolved:
        fastavro.parse_schema(other, named_schemas=named)
    return fastavro.parse_schema(schema, named_schemas=named)


def _read(raw: bytes, start: int, writer: Any, reader: Any, name: str) -> Any:
    source = io.BytesIO(raw)
    source.seek(start)
    try:
        value = fastavro.schemaless_reader(source, writer, reader)
    except _BAD_BYTES as error:
        raise RecordError(f"the bytes do not fit the Avro schema {name}: {type(error).__name__}: {error}") from error
    except fastavro.read.SchemaResolutionError as error:
        raise RecordError(f"the Avro schema {name} cannot be read as declared: {error}") from error
    if source.tell() != len(raw):
        raise RecordError(f"{len(raw) - source.tell()} bytes are left over behind the Avro schema {name}: another one wrote it")
    return value


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_logical_types(member) for member in schema]
    if not isinstance(schema, dict):
        return schema
    skipped = ("logicalType", "scale", "precision")
    return {name: value if name == "default" else _without_logical_types(value) for name, value in schema.items() if name not in skipped}
