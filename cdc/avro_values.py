"""Avro bytes to plain values and back: the only module that imports fastavro.

`writer` schemas are stripped of their logical types before they are parsed: what Debezium means stands in `connect.name`, and a
date such as 'infinity' does not fit the type that fastavro would make of it. `cdc.reading` gives the values their meaning.
"""

import io
import json
from typing import Any

import fastavro
from fastavro.schema import SchemaParseException

from cdc.columns import Column, from_avro
from engine.errors import RecordError


class AvroSchema:
    """A parsed writer schema.

    Attributes:
        column: Its types, with their meaning.
        name: Full name of a record.
    """

    def __init__(self, schema: Any) -> None:
        try:
            plain = json.loads(schema) if isinstance(schema, str) and schema.lstrip()[:1] in ("{", "[", '"') else schema
            self.column: Column = from_avro(plain)
            self._parsed = fastavro.parse_schema(_without_logical_types(plain))
        except (SchemaParseException, ValueError, KeyError, TypeError) as error:
            raise RecordError(f"the schema is not one of Avro's: {error}") from error
        self.name: str | None = plain.get("connect.name") or plain.get("name") if isinstance(plain, dict) else None

    def decode(self, raw: bytes, start: int) -> Any:
        """Return the value that fills `raw` from `start` on.

        Raises:
            RecordError: It is cut off, or something is left over: another schema wrote it.
        """
        source = io.BytesIO(raw)
        source.seek(start)
        try:
            value = fastavro.schemaless_reader(source, self._parsed, None)
        except (EOFError, ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError, UnicodeDecodeError) as error:
            raise RecordError(f"the bytes do not fit the Avro schema {self.name or ''}: {type(error).__name__}: {error}") from error
        if source.tell() != len(raw):
            raise RecordError(
                f"{len(raw) - source.tell()} bytes are left over behind the Avro schema {self.name or ''}: another one wrote it"
            )
        return value


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_logical_types(member) for member in schema]
    if not isinstance(schema, dict):
        return schema
    skipped = ("logicalType", "scale", "precision")
    return {name: value if name == "default" else _without_logical_types(value) for name, value in schema.items() if name not in skipped}
