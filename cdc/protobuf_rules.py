"""Compatibility of Protobuf files: whether records of one can be read by another, with words about what breaks.

    protobuf_breaks(reader=new, writer=old)     []          records of the old file can be read by the new one
                                                ["Payment.cents is int64 and would be read as string"]

Records carry numbers and wire types, no names, so much fits: fields added, removed and renamed, enum values, another package, types
of one group (int32, int64, uint32, uint64, bool and enums; sint32, sint64; fixed32, sfixed32; fixed64, sfixed64; string, bytes).

What breaks: another type, another message under a number, one number or many of a scalar, a required field that may be missing, a
message that is gone, a member taken out of a oneof, fields put into one oneof that could both be set, a name that has moved to
another number, a number or name that was reserved. Confluent's registry lets the last two pass; what they lose is lost silently.

Source: Protocol Buffers documentation, "Updating A Message Type"; Confluent documentation, "Protobuf Schema Compatibility Rules".
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2

from cdc.protobuf_text import SCALARS, parse

_Field = descriptor_pb2.FieldDescriptorProto
_NAMES = {number: name for name, number in SCALARS.items()}
_GROUPS = (
    ("int32", "int64", "uint32", "uint64", "bool", "enum"),
    ("sint32", "sint64"),
    ("fixed32", "sfixed32"),
    ("fixed64", "sfixed64"),
    ("string", "bytes"),
)


def protobuf_breaks(*, reader: str, writer: str) -> list[str]:
    """Return why records of a file cannot be read by another, nothing if they can.

    Raises:
        RecordError: One of them is not a Protobuf file.
    """
    own, written = parse(reader), parse(writer)
    messages, enums = dict(_messages(own.message_type, "")), _enums(own)
    found: list[str] = []
    for name, message in _messages(written.message_type, ""):
        if name in messages:
            found += _Message(name, messages[name], message, (own.package, written.package)).breaks()
        else:
            found.append(f"message {name} is gone" + (", an enum has its name" if name in enums else ""))
    return found


class _Message:
    """One message as it is read and as it was written."""

    def __init__(self, name: str, own: Any, written: Any, packages: tuple[str, str]) -> None:
        self._name, self._own, self._written, self._packages = name, own, written, packages

    def breaks(self) -> list[str]:
        own = {field.number: field for field in self._own.field}
        written = {field.number: field for field in self._written.field}
        found: list[str] = []
        for number, field in own.items():
            if number in written:
                found += self._field(field, written[number])
            else:
                found += self._new_field(field, written)
        return found + self._oneofs(own, written)

    def _field(self, own: Any, written: Any) -> list[str]:
        place = f"{self._name}.{own.name}"
        first, second = _shown(own, self._own, self._packages[0]), _shown(written, self._written, self._packages[1])
        found = []
        if own.label == _Field.LABEL_REQUIRED and written.label != _Field.LABEL_REQUIRED:
            found.append(f"{place} is required, and may be missing")
        if first != second and not _alike(first, second):
            return [*found, f"{place} is {second} and would be read as {first}"]
        many = own.label == _Field.LABEL_REPEATED, written.label == _Field.LABEL_REPEATED
        if many[0] != many[1] and own.type not in (_Field.TYPE_STRING, _Field.TYPE_BYTES, _Field.TYPE_MESSAGE):
            words = ("one", "many")
            found.append(f"{place} holds {words[many[1]]} {second} and would be read as {words[many[0]]}")
        return found

    def _new_field(self, field: Any, written: dict[int, Any]) -> list[str]:
        place = f"{self._name}.{field.name}"
        before = next((other for other in written.values() if other.name == field.name), None)
        if before is not None and all(own.number != before.number for own in self._own.field):
            return [f"{place} has moved from number {before.number} to {field.number}: its earlier values would be lost"]
        if any(gap.start <= field.number < gap.end for gap in self._written.reserved_range):
            return [f"{place} takes number {field.number}, which was reserved: records from before may use it for something else"]
        if field.name in self._written.reserved_name:
            return [f"{place} has a name that was reserved"]
        return [f"{place} is required, and not in the written data"] if field.label == _Field.LABEL_REQUIRED else []

    def _oneofs(self, own: dict[int, Any], written: dict[int, Any]) -> list[str]:
        found: list[str] = []
        for number, field in written.items():
            oneof = _oneof(self._written, field)
            if oneof is not None and number not in own:
                found.append(f"{self._name}.{field.name} is gone from oneof {oneof}: where it was set, nothing seems to be")
        for index, oneof in enumerate(self._own.oneof_decl):
            members = [n for n, f in own.items() if f.HasField("oneof_index") and f.oneof_index == index and not f.proto3_optional]
            before = [number for number in members if number in written]
            origins = {_oneof(self._written, written[number]) for number in before}
            if len(before) > 1 and (None in origins or len(origins) > 1):
                names = ", ".join(written[number].name for number in before)
                found.append(f"{self._name}: {names} could all be set, and oneof {oneof.name} keeps only one of them")
        return found


def _messages(messages: Any, scope: str) -> Iterator[tuple[str, Any]]:
    for message in messages:
        if not message.options.map_entry:
            name = f"{scope}.{message.name}" if scope else message.name
            yield name, message
            yield from _messages(message.nested_type, name)


def _enums(file: Any) -> set[str]:
    nested = (f"{name}.{enum.name}" for name, message in _messages(file.message_type, "") for enum in message.enum_type)
    return {enum.name for enum in file.enum_type} | set(nested)


def _oneof(message: Any, field: Any) -> str | None:
    if not field.HasField("oneof_index") or field.proto3_optional:
        return None
    return str(message.oneof_decl[field.oneof_index].name)


def _shown(field: Any, message: Any, package: str) -> str:
    """Return the type of a field as people write it, without the package."""
    if field.type in _NAMES and not field.type_name:
        return _NAMES[field.type]
    name = str(field.type_name)
    entry = next((one for one in message.nested_type if one.options.map_entry and name.rpartition(".")[2] == one.name), None)
    if entry is not None:
        key, value = (_shown(part, entry, package) for part in entry.field)
        return f"map<{key}, {value}>"
    plain = name.removeprefix(f".{package}.").removeprefix(".")
    return f"enum {plain}" if field.type == _Field.TYPE_ENUM else plain


def _alike(first: str, second: str) -> bool:
    """Whether types have the same form on the wire; two enums do too, but mean something else."""
    if first.startswith("map<") and second.startswith("map<"):
        parts = [each[4:-1].split(", ") for each in (first, second)]
        return all(one == other or _alike(one, other) for one, other in zip(*parts, strict=True))
    if first.startswith("enum ") and second.startswith("enum "):
        return False
    plain = [each.partition(" ")[0] for each in (first, second)]
    return any(plain[0] in group and plain[1] in group for group in _GROUPS)


__all__ = ["protobuf_breaks"]
