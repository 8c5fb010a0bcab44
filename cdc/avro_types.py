"""Structs to Avro schemas and back.

| Python                                | Avro                                                     |
|---------------------------------------|----------------------------------------------------------|
| int, float, bool, str, bytes          | long, double, boolean, string, bytes                     |
| Annotated[Decimal, Scale(2)]          | bytes, decimal(38, 2)                                    |
| datetime, date, time                  | long timestamp-micros, int date, long time-micros        |
| UUID, an Enum of texts                | string uuid, enum                                        |
| list[T], dict[str, T], a Struct       | array, map, record                                       |
| T | None                              | ["null", T] with default null; a union with other types  |

A field's default is the Avro default. `Annotated[str, Aliases("old_name")]` reads a field that was called otherwise. Anything else
is a ConfigError: nothing is guessed.

Source: Apache Avro 1.12 specification, sections "Schema Declaration", "Aliases" and "Logical Types".
"""

import enum
import json
import types
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints
from uuid import UUID

import msgspec
from msgspec import NODEFAULT, Struct

from cdc.values import Scale
from engine.errors import ConfigError

_PLAIN: dict[Any, Any] = {
    bool: "boolean",
    int: "long",
    float: "double",
    str: "string",
    bytes: "bytes",
    type(None): "null",
    None: "null",
    datetime: {"type": "long", "logicalType": "timestamp-micros"},
    date: {"type": "int", "logicalType": "date"},
    time: {"type": "long", "logicalType": "time-micros"},
    UUID: {"type": "string", "logicalType": "uuid"},
}
_BACK: dict[str, Any] = {
    "boolean": bool,
    "int": int,
    "long": int,
    "float": float,
    "double": float,
    "string": str,
    "bytes": bytes,
    "null": None,
}
_LOGICAL: dict[str, Any] = {
    "timestamp-millis": datetime,
    "timestamp-micros": datetime,
    "local-timestamp-millis": datetime,
    "local-timestamp-micros": datetime,
    "date": date,
    "time-millis": time,
    "time-micros": time,
    "uuid": UUID,
}
DECIMAL_PRECISION = 38


class Aliases:
    """Earlier names of a field: `Annotated[str, Aliases("mail")]`."""

    def __init__(self, *names: str) -> None:
        self.names = names


def schema_of(struct: type[Struct], *, namespace: str | None = None, apart: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the Avro schema of a Struct.

    Args:
        namespace: Of its records.
        apart: Names of Structs that are defined elsewhere, each with the full name by which it is referred to.

    Raises:
        ConfigError: A field has a type that Avro has no place for.
    """
    schema: dict[str, Any] = _record(struct, namespace, dict(apart or {}))
    return schema


def schema_text(struct: type[Struct], *, namespace: str | None = None) -> str:
    """Return the Avro schema of a Struct as text, always the same for the same Struct."""
    return json.dumps(schema_of(struct, namespace=namespace), separators=(",", ":"), ensure_ascii=False)


def _record(struct: Any, namespace: str | None, defined: dict[str, str]) -> Any:
    name = struct.__name__
    if struct.__struct_config__.tag is not None:
        raise ConfigError(f"{name} has a tag, which an Avro record has no place for; give each variant a field of its own")
    if name in defined:
        return defined[name]
    defined[name] = name
    hints = get_type_hints(struct, include_extras=True)
    fields = [_field(field, hints[field.name], f"{name}.{field.name}", defined) for field in msgspec.structs.fields(struct)]
    record: dict[str, Any] = {"type": "record", "name": name}
    if namespace:
        record["namespace"] = namespace
    record["fields"] = fields
    return record


def _field(field: Any, annotation: Any, what: str, defined: dict[str, str]) -> dict[str, Any]:
    out: dict[str, Any] = {"name": field.encode_name, "type": _type(annotation, what, defined)}
    if field.default is not NODEFAULT:
        out["type"], out["default"] = _with_default(out["type"], field.default, what)
    elif field.default_factory is not NODEFAULT:
        out["type"], out["default"] = _with_default(out["type"], field.default_factory(), what)
    aliases = [name for note in _metadata(annotation) if isinstance(note, Aliases) for name in note.names]
    return {**out, "aliases": aliases} if aliases else out


def _with_default(schema: Any, default: Any, what: str) -> tuple[Any, Any]:
    """Return the type and its default; of a union the default's own type must stand first."""
    value = default.value if isinstance(default, enum.Enum) else default
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, Struct):
        value = msgspec.to_builtins(value)
    if not isinstance(value, str | int | float | bool | list | dict | tuple | None):
        raise ConfigError(f"{what}: Avro cannot say the default {default!r}; use None, or a plain value")
    if isinstance(schema, list):
        first = [member for member in schema if (member == "null") == (value is None)]
        schema = first + [member for member in schema if member not in first]
    return schema, list(value) if isinstance(value, tuple) else value


def _metadata(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()


def _type(annotation: Any, what: str, defined: dict[str, str], notes: tuple[Any, ...] = ()) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0], what, defined, (*notes, *arguments[1:]))
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if origin in (Union, types.UnionType):
        members = [_type(member, what, defined, notes) for member in arguments]
        if sum(isinstance(member, type) and issubclass(member, Struct) for member in arguments) > 1:
            raise ConfigError(f"{what}: which of several Structs a record is, cannot be told when it is read; give each a field of its own")
        return sorted(members, key=lambda member: member != "null")
    if annotation is Decimal:
        scale = next((note.digits for note in notes if isinstance(note, Scale)), None)
        if scale is None:
            raise ConfigError(f"{what}: a decimal in Avro has a scale; declare Annotated[Decimal, Scale(digits)]")
        return {"type": "bytes", "logicalType": "decimal", "precision": DECIMAL_PRECISION, "scale": scale}
    if origin in (list, tuple, set, frozenset) and arguments:
        return {"type": "array", "items": _type(arguments[0], what, defined)}
    if origin in (dict, Mapping) and arguments and arguments[0] is str:
        return {"type": "map", "values": _type(arguments[1], what, defined)}
    if origin is Literal and all(isinstance(value, str) for value in arguments):
        return "string"
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return _record(annotation, None, defined)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _enum(annotation, what, defined)
    raise ConfigError(f"{what}: {getattr(annotation, '__name__', annotation)} has no type in Avro")


def _enum(annotation: type[enum.Enum], what: str, defined: dict[str, str]) -> Any:
    symbols = [member.value for member in annotation]
    if not all(isinstance(symbol, str) and symbol.isidentifier() for symbol in symbols):
        raise ConfigError(f"{what}: symbols of an Avro enum are names, unlike {symbols}")
    if annotation.__name__ in defined:
        return defined[annotation.__name__]
    defined[annotation.__name__] = annotation.__name__
    return {"type": "enum", "name": annotation.__name__, "symbols": symbols}


def struct_of(schema: Any) -> Any:
    """Return the Struct of an Avro record schema (decoded JSON or text), made anew.

    Raises:
        ConfigError: Not a record, or a type that Python has no place for.
    """
    found = _python(json.loads(schema) if isinstance(schema, str) else schema, {})
    if not (isinstance(found, type) and issubclass(found, Struct)):
        raise ConfigError("only a record has a Struct")
    return found


def _python(schema: Any, named: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return Union[tuple(_python(member, named) for member in schema)]  # noqa: UP007  # of a number known only now
    if isinstance(schema, str):
        if schema in _BACK:
            return _BACK[schema]
        if schema not in named:
            raise ConfigError(f"the Avro type {schema!r} is not defined")
        return named[schema]
    kind, logical = schema["type"], schema.get("logicalType")
    if logical in _LOGICAL:
        return _LOGICAL[logical]
    if logical == "decimal":
        return Annotated[Decimal, Scale(schema.get("scale", 0))]
    match kind:
        case "record":
            fields = [_python_field(field, named) for field in schema["fields"]]
            made = msgspec.defstruct(schema["name"].split(".")[-1], fields, frozen=True, kw_only=True)
            named[schema["name"]] = made
            return made
        case "enum":
            named[schema["name"]] = enum.Enum(schema["name"].split(".")[-1], {symbol: symbol for symbol in schema["symbols"]})
            return named[schema["name"]]
        case "array":
            return list[_python(schema["items"], named)]  # type: ignore[misc]  # made at run time
        case "map":
            return dict[str, _python(schema["values"], named)]  # type: ignore[misc]  # made at run time
        case "fixed":
            return bytes
    return _python(kind, named)


def _python_field(field: Mapping[str, Any], named: dict[str, Any]) -> Any:
    annotation = _python(field["type"], named)
    if field.get("aliases"):
        annotation = Annotated[annotation, Aliases(*field["aliases"])]
    if "default" not in field:
        return field["name"], annotation
    default = field["default"]
    if isinstance(default, list | dict):
        return field["name"], annotation, msgspec.field(default_factory=lambda: type(default)(default))
    members = get_args(annotation) if get_origin(annotation) is Union else (annotation,)
    symbols = next((m for m in members if isinstance(m, type) and issubclass(m, enum.Enum)), None)
    return field["name"], annotation, symbols(default) if symbols is not None and default is not None else default
