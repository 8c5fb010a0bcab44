"""Protobuf schemas: the text of a generated class's file, and which message stands where in a file.

    source_of(Payment.DESCRIPTOR.file)        'syntax = "proto3"; package shop; message Payment { … }'
    message_names(text)                       {(0,): "shop.Payment", (0, 1): "shop.Payment.Line"}

A record names its message by a path of indexes in the file of its schema. A registry may give that file as text, or as a
serialized descriptor in base64, which clients of some languages register.

Limits: options, extensions and groups are left out of the text; files with editions are refused.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError

from engine.errors import ConfigError, RecordError

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    _Field.TYPE_DOUBLE: "double", _Field.TYPE_FLOAT: "float", _Field.TYPE_INT64: "int64", _Field.TYPE_UINT64: "uint64",
    _Field.TYPE_INT32: "int32", _Field.TYPE_FIXED64: "fixed64", _Field.TYPE_FIXED32: "fixed32", _Field.TYPE_BOOL: "bool",
    _Field.TYPE_STRING: "string", _Field.TYPE_BYTES: "bytes", _Field.TYPE_UINT32: "uint32", _Field.TYPE_SFIXED32: "sfixed32",
    _Field.TYPE_SFIXED64: "sfixed64", _Field.TYPE_SINT32: "sint32", _Field.TYPE_SINT64: "sint64",
}  # fmt: skip
_TOKENS = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|\bpackage\s+([\w.]+)\s*;|\bmessage\s+(\w+)\s*\{|([{}])', re.DOTALL
)


def source_of(file: Any) -> str:
    """Return the .proto text of a file descriptor.

    Raises:
        ConfigError: It has a syntax that this does not write.
    """
    found = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(found)
    if found.syntax not in ("", "proto2", "proto3"):
        raise ConfigError(f"protobuf: {found.name} has syntax {found.syntax!r}; proto2 and proto3 can be registered")
    lines = [f'syntax = "{found.syntax or "proto2"}";']
    if found.package:
        lines.append(f"package {found.package};")
    public = set(found.public_dependency)
    lines += [f'import {"public " if number in public else ""}"{name}";' for number, name in enumerate(found.dependency)]
    for message in found.message_type:
        lines += _message(message, found.syntax == "proto3")
    for enum in found.enum_type:
        lines += _enum(enum)
    return "\n".join(lines) + "\n"


def _message(message: Any, is_proto3: bool) -> Iterator[str]:
    yield f"message {message.name} {{"
    maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    oneofs: dict[int, list[Any]] = {}
    for field in message.field:
        if field.HasField("oneof_index") and not field.proto3_optional:
            oneofs.setdefault(field.oneof_index, []).append(field)
        else:
            yield f"  {_field(field, maps, is_proto3)}"
    for number, fields in oneofs.items():
        yield f"  oneof {message.oneof_decl[number].name} {{"
        yield from (f"    {_type(field)} {field.name} = {field.number};" for field in fields)
        yield "  }"
    for nested in message.nested_type:
        if nested.name not in maps:
            yield from (f"  {line}" for line in _message(nested, is_proto3))
    for enum in message.enum_type:
        yield from (f"  {line}" for line in _enum(enum))
    for gap in message.reserved_range:
        yield f"  reserved {gap.start} to {gap.end - 1};"
    for name in message.reserved_name:
        yield f'  reserved "{name}";'
    yield "}"


def _field(field: Any, maps: dict[str, Any], is_proto3: bool) -> str:
    entry = maps.get(field.type_name.rpartition(".")[2]) if field.type == _Field.TYPE_MESSAGE else None
    if entry is not None:
        key, value = entry.field
        return f"map<{_type(key)}, {_type(value)}> {field.name} = {field.number};"
    label = ""
    if field.label == _Field.LABEL_REPEATED:
        label = "repeated "
    elif field.label == _Field.LABEL_REQUIRED:
        label = "required "
    elif field.proto3_optional or not is_proto3:
        label = "optional "
    return f"{label}{_type(field)} {field.name} = {field.number};"


def _type(field: Any) -> str:
    return _SCALARS[field.type] if field.type in _SCALARS else str(field.type_name)


def _enum(enum: Any) -> Iterator[str]:
    yield f"enum {enum.name} {{"
    if enum.options.allow_alias:
        yield "  option allow_alias = true;"
    yield from (f"  {value.name} = {value.number};" for value in enum.value)
    yield "}"


def indexes_of(descriptor: Any) -> tuple[int, ...]:
    """Return where a message stands in its file: its index, that of the one it is nested in first; map entries do not count."""
    outer = descriptor.containing_type
    if outer is None:
        return (list(descriptor.file.message_types_by_name).index(descriptor.name),)
    nested = [one.name for one in outer.nested_types if not one.GetOptions().map_entry]
    return (*indexes_of(outer), nested.index(descriptor.name))


def message_names(schema: str) -> dict[tuple[int, ...], str]:
    """Return the full name of each message of a schema, by its indexes.

    Whether the hidden messages of map fields count is not agreed on: for Confluent's Java client they do not, for its Python client,
    which registers descriptors, they do, and others register texts and count them. So they count in a descriptor and not in a text,
    and a path that names nothing is tried the other way.

    Raises:
        RecordError: The schema has no message.
    """
    try:
        file = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(schema, validate=True))
        names = {**dict(_described(file, skip_maps=True)), **dict(_described(file, skip_maps=False))}
    except (binascii.Error, ValueError, DecodeError):
        names = dict(_written(schema))
        if "map<" in schema.replace(" ", ""):
            names = {**dict(_described(_parsed(schema), skip_maps=False)), **names}
    if not names:
        raise RecordError("the schema is not one of Protobuf's: it has no message")
    return names


def _parsed(text: str) -> Any:
    from cdc.protobuf_text import parse  # it builds on this module's like

    try:
        return parse(text)
    except RecordError:
        return descriptor_pb2.FileDescriptorProto()


def _described(file: Any, *, skip_maps: bool) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield the messages of a descriptor but for the hidden ones of map fields, which take an index or do not."""

    def walk(messages: Sequence[Any], path: tuple[int, ...], scope: str) -> Iterator[tuple[tuple[int, ...], str]]:
        counted = [one for one in messages if not (skip_maps and one.options.map_entry)]
        for number, message in enumerate(counted):
            if not message.options.map_entry:
                name = f"{scope}.{message.name}" if scope else message.name
                yield (*path, number), name
                yield from walk(message.nested_type, (*path, number), name)

    return walk(file.message_type, (), file.package)


def _written(text: str) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield the messages of a text; whatever else has braces only has to end where it ends."""
    package = ""
    open_blocks: list[tuple[tuple[int, ...], str] | None] = []
    counts: dict[tuple[int, ...], int] = {}
    for token in _TOKENS.finditer(text):
        if token[1]:
            package = token[1]
        elif token[2]:
            inside = [block for block in open_blocks if block is not None]
            parent, scope = inside[-1] if inside else ((), package)
            counts[parent] = counts.get(parent, -1) + 1
            block = ((*parent, counts[parent]), f"{scope}.{token[2]}" if scope else token[2])
            open_blocks.append(block)
            yield block
        elif token[3] == "{":
            open_blocks.append(None)
        elif token[3] == "}" and open_blocks:
            open_blocks.pop()
