"""What a schema says about a column: one model for Connect's JSON schemas and for Avro.

Debezium's meaning is in the schema's name ("io.debezium.time.MicroTimestamp"), which Avro carries as `connect.name`; the plain type
below it only says how the value is written.
"""

from typing import Any, Literal

from msgspec import Struct

Kind = Literal["int", "float", "float32", "bool", "string", "bytes", "array", "map", "struct", "any"]

_CONNECT: dict[str, Kind] = {
    "int8": "int",
    "int16": "int",
    "int32": "int",
    "int64": "int",
    "float": "float32",
    "float32": "float32",
    "float64": "float",
    "double": "float",
    "boolean": "bool",
    "string": "string",
    "bytes": "bytes",
    "array": "array",
    "map": "map",
    "struct": "struct",
}
_AVRO: dict[str, Kind] = {
    "int": "int",
    "long": "int",
    "float": "float32",
    "double": "float",
    "boolean": "bool",
    "string": "string",
    "enum": "string",
    "bytes": "bytes",
    "fixed": "bytes",
    "array": "array",
    "map": "map",
    "record": "struct",
}
_AVRO_LOGICAL = {
    "decimal": "org.apache.kafka.connect.data.Decimal",
    "date": "org.apache.kafka.connect.data.Date",
    "time-millis": "org.apache.kafka.connect.data.Time",
    "time-micros": "io.debezium.time.MicroTime",
    "timestamp-millis": "org.apache.kafka.connect.data.Timestamp",
    "timestamp-micros": "io.debezium.time.MicroTimestamp",
    "local-timestamp-millis": "org.apache.kafka.connect.data.Timestamp",
    "local-timestamp-micros": "io.debezium.time.MicroTimestamp",
    "uuid": "io.debezium.data.Uuid",
}


class Column(Struct, frozen=True):
    """Type of a column, or of a part of one.

    Attributes:
        kind: How the value is written.
        meaning: Name of the semantic type, None for a plain one.
        scale: Digits behind the point of a decimal.
        length: Number of bits of a bit string.
        items: Of an array; of the values of a map.
        fields: Of a struct, by name.
    """

    kind: Kind
    meaning: str | None = None
    scale: int | None = None
    length: int | None = None
    items: "Column | None" = None
    fields: "dict[str, Column] | None" = None


def from_connect(schema: dict[str, Any]) -> Column:
    """Return the column of a schema as Connect's JsonConverter writes it.

    Raises:
        ValueError: Not such a schema.
    """
    kind = _CONNECT.get(schema.get("type", ""))
    if kind is None:
        raise ValueError(f"a schema of type {schema.get('type')!r} is not known")
    parameters = schema.get("parameters") or {}
    items = schema.get("items") if kind == "array" else schema.get("values") if kind == "map" else None
    return Column(
        kind,
        schema.get("name"),
        _number(parameters.get("scale")),
        _number(parameters.get("length")),
        None if items is None else from_connect(items),
        {field["field"]: from_connect(field) for field in schema.get("fields") or ()} if kind == "struct" else None,
    )


def from_avro(schema: Any, named: dict[str, Column] | None = None, namespace: str = "") -> Column:
    """Return the column of an Avro schema; a union with null is what stands beside the null.

    Args:
        named: Named types met so far; they are used by name further on.

    Raises:
        ValueError: Not a schema.
    """
    named = {} if named is None else named
    if isinstance(schema, list):
        members = [member for member in schema if member != "null"]
        return from_avro(members[0], named, namespace) if len(members) == 1 else Column("any")
    if isinstance(schema, str):
        if schema in _AVRO:
            return Column(_AVRO[schema])
        found = named.get(schema) or named.get(f"{namespace}.{schema}")
        if found is None:
            raise ValueError(f"the Avro type {schema!r} is not defined")
        return found
    kind = schema["type"]
    if not isinstance(kind, str) or (kind not in _AVRO and kind != "null"):
        return from_avro(kind, named, namespace)
    if kind == "null":
        return Column("any")
    parameters = schema.get("connect.parameters") or {}
    scale = schema.get("scale", 0 if schema.get("logicalType") == "decimal" else None)
    inner = schema.get("namespace", namespace)
    items = schema.get("items") if kind == "array" else schema.get("values") if kind == "map" else None
    fields = {field["name"]: from_avro(field["type"], named, inner) for field in schema["fields"]} if kind == "record" else None
    column = Column(
        _AVRO[kind],
        schema.get("connect.name") or _AVRO_LOGICAL.get(schema.get("logicalType", "")),
        _number(scale),
        _number(parameters.get("length")),
        None if items is None else from_avro(items, named, inner),
        fields,
    )
    if "name" in schema:
        name = schema["name"]
        named[name if "." in name or not inner else f"{inner}.{name}"] = column
        named.setdefault(name, column)
    return column


def _number(value: Any) -> int | None:
    return None if value is None else int(value)
