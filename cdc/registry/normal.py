"""The normal form of a schema: two that mean the same, written in another way, have the same one.

    normal("AVRO", '{"name": "n.R", "type": "record", "fields": []}') == normal("AVRO", '{"type": "record", "namespace": "n", ...')

The order of attributes and white space never count; in Avro neither does how a name is qualified, nor whether a primitive type is
wrapped; in Protobuf neither do comments, nor the order of fields and imports (that of messages does: records carry their indexes).
Documentation and defaults count, and in Protobuf options.
"""

import json
from typing import Any

_NAMED = frozenset({"record", "error", "enum", "fixed"})
_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


def normal(kind: str, text: str) -> str:
    """Return the normal form of a valid schema; equal texts mean equal schemas."""
    if kind == "PROTOBUF":
        return _protobuf(text)
    parsed = json.loads(text)
    return json.dumps(_avro(parsed, "") if kind == "AVRO" else parsed, sort_keys=True)


def _avro(schema: Any, space: str) -> Any:
    if isinstance(schema, str):
        return schema if schema in _PRIMITIVES or "." in schema or not space else f"{space}.{schema}"
    if isinstance(schema, list):
        return [_avro(branch, space) for branch in schema]
    found = {name: value for name, value in schema.items() if name != "namespace"}
    kind = schema.get("type")
    if kind in _NAMED:
        name = schema["name"]
        inner = name.rpartition(".")[0] if "." in name else schema.get("namespace", space)
        found["name"] = name if "." in name or not inner else f"{inner}.{name}"
        if "fields" in schema:
            found["fields"] = [{**field, "type": _avro(field["type"], inner)} for field in schema["fields"]]
        return found
    for part in ("items", "values"):
        if part in schema:
            found[part] = _avro(schema[part], space)
    if kind not in ("array", "map"):
        found["type"] = _avro(kind, space)
    return found["type"] if list(found) == ["type"] else found


def _protobuf(text: str) -> str:
    from cdc.protobuf_text import has_options, parse, tokens_of  # only where it is used: the library is an extra of its own

    file = parse(text)
    file.ClearField("name")
    file.syntax = file.syntax or "proto2"
    file.dependency.sort()
    waiting = list(file.message_type)
    while waiting:
        message = waiting.pop()
        message.field.sort(key=lambda field: field.number)
        for field in message.field:
            field.ClearField("json_name")
            if field.proto3_optional and field.HasField("oneof_index"):
                field.ClearField("oneof_index")  # descriptors hide it in a oneof of its own, behind all others
                del message.oneof_decl[-1]
            if field.type_name:
                field.ClearField("type")  # an imported one's is not known
                field.type_name = field.type_name.removeprefix(".")
        waiting += message.nested_type
    # A text is parsed without its options. So that they count, all its words do then, wherever they stand.
    words = sorted(tokens_of(text)) if has_options(text) else []
    return json.dumps([file.SerializeToString(deterministic=True).hex(), words])
