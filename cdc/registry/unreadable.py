"""What stands in the way of every record of a schema that is not Avro's, so that a source of it need not be started.

    unreadable("JSON", own, registered)     ["cents is string and would be read as integer"]

Compatibility asks whether all that a schema allows can be read, and a schema that allows anything fits no Struct by that; its records
may well do. So only what no record can get round counts here: another type in a field that must be there, a field that must be there
and is not written, a message that the file does not have. A JSON Schema that names properties and is silent on `additionalProperties` is
taken as all that is written: generators leave the word out, and who writes other fields too says so.
"""

import json
from typing import Any

from cdc.registry.client import RegisteredSchema
from cdc.registry.json_rules import TYPES, resolve
from cdc.registry.rules import breaks_of

_DEPTH_MAX = 20


def unreadable(kind: str, reader: str, record_name: str, writer: RegisteredSchema) -> list[str]:
    """Return why no record of a registered JSON Schema or Protobuf file can be read, nothing if some can.

    Args:
        reader: The schema of the declared type.
        record_name: Of a Protobuf message, with its package.

    Raises:
        RecordError: A Protobuf file cannot be read.
    """
    if kind == "PROTOBUF":
        return _protobuf(reader, record_name, writer.text)
    own, written = json.loads(reader), json.loads(writer.text)
    return _Never(own, written).reasons(own, written, "", 0)


def _protobuf(reader: str, record_name: str, writer: str) -> list[str]:
    from cdc.protobuf_schema import message_names  # the library is an extra of its own

    if record_name not in message_names(writer).values():
        return [f"the file has no message {record_name}"]
    name = record_name.rpartition(".")[2]
    found = breaks_of("PROTOBUF", reader=reader, writer=writer)
    return [reason for reason in found if reason.startswith(f"{name}.") and " would be read as " in reason]


class _Never:
    def __init__(self, reader: Any, writer: Any) -> None:
        self._reader, self._writer = reader, writer

    def reasons(self, reader: Any, writer: Any, path: str, depth: int) -> list[str]:
        try:
            reader, writer = resolve(reader, self._reader, {}), resolve(writer, self._writer, {})
        except LookupError:
            return []  # a part that is not here
        own, written = self._types(reader, self._reader), self._types(writer, self._writer)
        if not own & written:
            return [f"{path or 'the value'} is {_said(written)} and would be read as {_said(own)}"]
        if own != {"object"} or written != {"object"} or depth == _DEPTH_MAX or not (isinstance(reader, dict) and isinstance(writer, dict)):
            return []
        fields = writer.get("properties")
        if not isinstance(fields, dict):
            return []
        found: list[str] = []
        for name in reader.get("required", ()):
            place = f"{path}.{name}" if path else name
            if name in fields:
                found += self.reasons(reader.get("properties", {}).get(name, {}), fields[name], place, depth + 1)
            elif writer.get("additionalProperties", False) is False and "patternProperties" not in writer:
                found.append(f"{place} must be there, and is not written")
        return found

    def _types(self, schema: Any, root: Any) -> set[str]:
        """Return the types that a schema allows; all that it may allow where it does not say."""
        if isinstance(schema, bool) or not isinstance(schema, dict):
            return set(TYPES)
        for union in ("anyOf", "oneOf"):
            if union in schema:
                try:
                    return set().union(*(self._types(resolve(branch, root, {}), root) for branch in schema[union]))
                except LookupError:
                    return set(TYPES)
        kind = schema.get("type", TYPES)
        found = {kind} if isinstance(kind, str) else set(kind)
        return found | {"integer", "number"} if found & {"integer", "number"} else found


def _said(types: set[str]) -> str:
    shown = types - {"integer"} if {"integer", "number"} <= types else types
    return " or ".join(kind for kind in TYPES if kind in shown)
