"""What each of the seven levels asks for, and the compatibility of Avro schemas, with words about what breaks.

    breaks(reader=new, writer=old)     []                        data of the old schema can be read by the new one
                                       ["field Order.note ..."]  and why not

| level      | the new schema can read data of | data of the new schema can be read by |
|------------|---------------------------------|---------------------------------------|
| BACKWARD   | the latest version              |                                       |
| FORWARD    |                                 | the latest version                    |
| FULL       | the latest version              | the latest version                    |
| *_TRANSITIVE | the same with all versions    |                                       |
| NONE       |                                 |                                       |

Names of records are compared without their namespace, as Avro's Java library does. JSON Schemas: `cdc.registry.json_rules`;
Protobuf: `cdc.protobuf_rules`.

Source: Apache Avro 1.12 specification, section "Schema Resolution"; Confluent documentation, "Schema Evolution and Compatibility".
"""

from collections.abc import Sequence
from typing import Any

from cdc.avro_values import check_schema
from cdc.registry.json_rules import json_breaks

LEVELS = ("NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE")
DEFAULT_LEVEL = "BACKWARD"

_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}


def check(
    level: str, new: Any, versions: Sequence[tuple[int, Any]], resolved: dict[str, Any] | None = None, *, kind: str = "AVRO"
) -> list[str]:
    """Return what breaks when a schema comes behind others, nothing if it is compatible.

    Args:
        level: One of LEVELS.
        versions: (number, schema) of the earlier ones, ascending; as text for Protobuf, decoded for the others.
        resolved: Schemas that the new one refers to, by full name.
        kind: AVRO, JSON or PROTOBUF.

    Raises:
        RecordError: A Protobuf file cannot be read.
    """
    found: list[str] = []
    if level == "NONE" or not versions:
        return found
    for number, old in versions if level.endswith("_TRANSITIVE") else versions[-1:]:
        asked = level.removesuffix("_TRANSITIVE")
        if asked in ("BACKWARD", "FULL"):
            reasons = breaks_of(kind, reader=new, writer=old, known=resolved)
            found += [f"version {number} cannot be read with the new schema: {reason}" for reason in reasons]
        if asked in ("FORWARD", "FULL"):
            reasons = breaks_of(kind, reader=old, writer=new, known=resolved)
            found += [f"the new schema's data cannot be read with version {number}: {reason}" for reason in reasons]
    return found


def breaks_of(kind: str, *, reader: Any, writer: Any, known: dict[str, Any] | None = None) -> list[str]:
    """Return why data of one schema cannot be read by another of the same kind, nothing if it can."""
    if kind == "JSON":
        return json_breaks(reader=reader, writer=writer, known=known)
    if kind == "PROTOBUF":
        from cdc.protobuf_rules import protobuf_breaks  # the library is an extra of its own

        return protobuf_breaks(reader=reader, writer=writer)
    return breaks(reader=reader, writer=writer, known=known)


def breaks(*, reader: Any, writer: Any, known: dict[str, Any] | None = None) -> list[str]:
    """Return why data of one schema cannot be read by another, nothing if it can."""
    return _Comparison(named_types(reader, dict(known or {})), named_types(writer, dict(known or {}))).compare(reader, writer, "", "", "")


def reader_breaks(reader: Any, writer: Any, named: dict[str, Any] | None = None) -> list[str]:
    """Return why records of a schema cannot be read as a Struct's; what the outermost record is called does not count."""
    if isinstance(writer, dict) and "name" in writer:
        reader = {**reader, "aliases": [writer["name"].split(".")[-1], *reader.get("aliases", ())], "name": writer["name"]}
    return breaks(reader=reader, writer=writer, known=named)


def names_of(texts: Sequence[str]) -> dict[str, Any]:
    """Return the named types of schemas by full name; each may build on those before it."""
    found: dict[str, Any] = {}
    for number, text in enumerate(texts):
        named_types(check_schema(text, texts[:number]), found)
    return found


class _Comparison:
    """One comparison; pairs of records that are being compared are taken for compatible, so that recursion ends."""

    def __init__(self, readers: dict[str, Any], writers: dict[str, Any]) -> None:
        self._readers = readers
        self._writers = writers
        self._open: set[tuple[str, str]] = set()

    def compare(self, reader: Any, writer: Any, reader_space: str, writer_space: str, path: str) -> list[str]:
        reader, reader_space = _resolve(reader, self._readers, reader_space)
        writer, writer_space = _resolve(writer, self._writers, writer_space)
        if isinstance(writer, list):
            found = []
            for branch in writer:
                found += self.compare(reader, branch, reader_space, writer_space, path)
            return found
        if isinstance(reader, list):
            if any(not self.compare(branch, writer, reader_space, writer_space, path) for branch in reader):
                return []
            return [f"{path or 'the value'} may be {_kind(writer)}, which no branch of the union {_shown(reader)} takes"]
        return self._plain(reader, writer, reader_space, writer_space, path)

    def _plain(self, reader: Any, writer: Any, reader_space: str, writer_space: str, path: str) -> list[str]:
        kind, written = _kind(reader), _kind(writer)
        if kind != written:
            promoted = kind in _PROMOTIONS.get(written, ())
            return [] if promoted else [f"{path or 'the value'} is {written} and would be read as {kind}"]
        if kind == "array":
            return self.compare(reader["items"], writer["items"], reader_space, writer_space, f"{path}[]")
        if kind == "map":
            return self.compare(reader["values"], writer["values"], reader_space, writer_space, f"{path}{{}}")
        if kind in ("record", "error", "enum", "fixed"):
            if not _same_name(reader, writer, reader_space, writer_space):
                return [f"{path or 'the value'}: {kind} {writer['name']} would be read as {reader['name']}"]
            if kind == "enum":
                return _enum(reader, writer, path)
            if kind == "fixed":
                same = reader["size"] == writer["size"]
                return [] if same else [f"{path or reader['name']} has {writer['size']} bytes and would be read as {reader['size']}"]
            return self._records(reader, writer, reader_space, writer_space, path)
        return []

    def _records(self, reader: Any, writer: Any, reader_space: str, writer_space: str, path: str) -> list[str]:
        pair = (_full_name(reader, reader_space), _full_name(writer, writer_space))
        if pair in self._open:
            return []
        self._open.add(pair)
        reader_space, writer_space = _space(reader, reader_space), _space(writer, writer_space)
        written = {field["name"]: field for field in writer["fields"]}
        found = []
        for field in reader["fields"]:
            place = f"{path}.{field['name']}" if path else f"{reader['name'].split('.')[-1]}.{field['name']}"
            other = next((written[name] for name in (field["name"], *field.get("aliases", ())) if name in written), None)
            if other is not None:
                found += self.compare(field["type"], other["type"], reader_space, writer_space, place)
            elif "default" not in field:
                found.append(f"field {place} is not in the written data and has no default")
        self._open.discard(pair)
        return found


def _enum(reader: Any, writer: Any, path: str) -> list[str]:
    missing = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
    if not missing or "default" in reader:
        return []
    return [f"{path or reader['name']}: symbols {', '.join(missing)} are unknown to the reader, whose enum has no default"]


def _same_name(reader: Any, writer: Any, reader_space: str, writer_space: str) -> bool:
    if reader["name"].split(".")[-1] == writer["name"].split(".")[-1]:
        return True
    space = _space(reader, reader_space)
    aliases = [alias if "." in alias or not space else f"{space}.{alias}" for alias in reader.get("aliases", ())]
    return _full_name(writer, writer_space) in aliases


def named_types(schema: Any, found: dict[str, Any], space: str = "") -> dict[str, Any]:
    """Return the named types of a schema by full name."""
    if isinstance(schema, list):
        for branch in schema:
            named_types(branch, found, space)
    elif isinstance(schema, dict):
        kind = schema.get("type")
        if kind in ("record", "error", "enum", "fixed"):
            found[_full_name(schema, space)] = schema
            for field in schema.get("fields", ()):
                named_types(field["type"], found, _space(schema, space))
        elif kind == "array":
            named_types(schema["items"], found, space)
        elif kind == "map":
            named_types(schema["values"], found, space)
        else:
            named_types(kind, found, space)
    return found


def _resolve(schema: Any, named: dict[str, Any], space: str) -> tuple[Any, str]:
    """Return the schema behind a name, and the namespace that it stands in."""
    while isinstance(schema, dict) and isinstance(schema.get("type"), dict | list):
        schema = schema["type"]
    name = schema if isinstance(schema, str) else schema["type"] if isinstance(schema, dict) else ""
    if isinstance(name, str) and name not in _PRIMITIVES:
        for full in (f"{space}.{name}" if space and "." not in name else name, name):
            if full in named:
                return named[full], full.rpartition(".")[0]
    return schema, space


def _space(schema: Any, space: str) -> str:
    name = schema["name"]
    return str(name.rpartition(".")[0] if "." in name else schema.get("namespace", space))


def _full_name(schema: Any, space: str) -> str:
    name = str(schema["name"])
    inner = _space(schema, space)
    return name if "." in name or not inner else f"{inner}.{name}"


def _kind(schema: Any) -> str:
    return str(schema["type"] if isinstance(schema, dict) else schema)


def _shown(union: list[Any]) -> str:
    return (
        "[" + ", ".join(_kind(branch) if not isinstance(branch, dict) or "name" not in branch else branch["name"] for branch in union) + "]"
    )
