"""Protobuf files as text, read into the descriptor that `protoc` would make of them, as far as records depend on it.

    parse('syntax = "proto3"; message Payment { int64 cents = 1; }')      a FileDescriptorProto

Messages, fields with their labels, maps, oneofs, enums and what is reserved; options, services and extensions are passed over. The
type of a field whose definition is in an imported file has only its name.

Limits: groups and files with editions are refused.

Source: Protocol Buffers documentation, "Protobuf Language Specification" (proto2 and proto3).
"""

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError

from engine.errors import RecordError

_Field = descriptor_pb2.FieldDescriptorProto
SCALARS: dict[str, Any] = {
    name: _Field.Type.Value(f"TYPE_{name.upper()}")
    for name in (
        "double", "float", "int64", "uint64", "int32", "fixed64", "fixed32", "bool", "string", "bytes", "uint32", "sfixed32",
        "sfixed64", "sint32", "sint64",
    )
}  # fmt: skip
_LABELS: dict[str, Any] = {"optional": _Field.LABEL_OPTIONAL, "required": _Field.LABEL_REQUIRED, "repeated": _Field.LABEL_REPEATED}
_TOKEN = re.compile(
    r"""\s+|//[^\n]*|/\*.*?\*/|([A-Za-z_.][\w.]*|[+-]?\d[\w.+-]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[{}\[\]()<>=;,:+-])""", re.DOTALL
)
_PASSED_OVER = frozenset({"option", "service", "extend", "extensions", "["})
_NUMBER_MAX = 536_870_911


def parse(schema: str) -> Any:
    """Return the FileDescriptorProto of a text, or of a serialized one in base64.

    Raises:
        RecordError: It is neither, or uses what is refused.
    """
    return _serialized(schema) or _Parser(schema).file()


def serialized(schema: str) -> str:
    """Return a text as clients of some languages register it: its descriptor in base64. What is one already stays as it is."""
    if _serialized(schema) is not None:
        return schema
    file = parse(schema)
    _hide_optionals(file.message_type)
    return base64.b64encode(file.SerializeToString()).decode()


def _hide_optionals(messages: Any) -> None:
    """Put each optional field of proto3 into a oneof of its own, as descriptors have it."""
    for message in messages:
        taken = {field.name for field in message.field} | {one.name for one in message.oneof_decl}
        for field in message.field:
            if field.proto3_optional:
                name = f"_{field.name}"
                while name in taken:
                    name = f"X{name}"
                taken.add(name)
                field.oneof_index = len(message.oneof_decl)
                message.oneof_decl.add(name=name)
        _hide_optionals(message.nested_type)


def has_options(schema: str) -> bool:
    """Return whether a text has something that `parse` passes over."""
    return _serialized(schema) is None and not _PASSED_OVER.isdisjoint(tokens_of(schema))


def _serialized(schema: str) -> Any:
    try:
        return descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(schema, validate=True))
    except (binascii.Error, ValueError, DecodeError):
        return None


class _Parser:
    """Reads tokens from left to right."""

    def __init__(self, text: str) -> None:
        self._tokens = list(tokens_of(text))
        self._at = 0
        self._is_proto3 = False

    def file(self) -> Any:
        file = descriptor_pb2.FileDescriptorProto(syntax="proto2")
        while self._at < len(self._tokens):
            match self._next():
                case "syntax":
                    self._expect("=")
                    file.syntax = _unquoted(self._next())
                    self._is_proto3 = file.syntax == "proto3"
                    self._expect(";")
                case "package":
                    file.package = self._next()
                    self._expect(";")
                case "import":
                    name = self._next()
                    file.dependency.append(_unquoted(self._next() if name in ("public", "weak") else name))
                    self._expect(";")
                case "message":
                    self._message(file.message_type.add())
                case "enum":
                    self._enum(file.enum_type.add())
                case "option":
                    self._skip_statement()
                case "service" | "extend":
                    self._skip_block()
                case "edition":
                    raise RecordError("a Protobuf file with an edition; proto2 and proto3 are known")
                case ";":
                    pass
                case other:
                    raise RecordError(f"not a Protobuf file: {other!r} where a message or an enum may begin")
        _resolve(file)
        return file

    def _message(self, message: Any) -> None:
        message.name = self._next()
        self._expect("{")
        while (word := self._next()) != "}":
            match word:
                case "message":
                    self._message(message.nested_type.add())
                case "enum":
                    self._enum(message.enum_type.add())
                case "oneof":
                    self._oneof(message)
                case "reserved":
                    self._reserved(message)
                case "map" if self._peek() == "<":
                    self._map(message)
                case "option" | "extensions":
                    self._skip_statement()
                case "extend":
                    self._skip_block()
                case ";":
                    pass
                case _:
                    self._field(message, word)

    def _oneof(self, message: Any) -> None:
        message.oneof_decl.add(name=self._next())
        index = len(message.oneof_decl) - 1
        self._expect("{")
        while (word := self._next()) != "}":
            if word == "option":
                self._skip_statement()
            elif word != ";":
                self._field(message, word).oneof_index = index

    def _field(self, message: Any, word: str) -> Any:
        field = message.field.add(label=_Field.LABEL_OPTIONAL)
        if word in _LABELS and self._peek() not in ("=",):
            field.label = _LABELS[word]
            field.proto3_optional = self._is_proto3 and word == "optional"
            word = self._next()
        if word == "group":
            raise RecordError("groups of Protobuf are not known; use a message")
        self._type(field, word)
        field.name = self._next()
        self._expect("=")
        field.number = self._number()
        self._skip_statement()
        return field

    def _map(self, message: Any) -> None:
        self._expect("<")
        key = self._next()
        self._expect(",")
        value = self._next()
        self._expect(">")
        name = self._next()
        self._expect("=")
        entry = message.nested_type.add(name="".join(part[:1].upper() + part[1:] for part in name.split("_")) + "Entry")
        entry.options.map_entry = True
        for number, (part, kind) in enumerate((("key", key), ("value", value)), 1):
            self._type(entry.field.add(name=part, number=number, label=_Field.LABEL_OPTIONAL), kind)
        message.field.add(name=name, number=self._number(), label=_Field.LABEL_REPEATED, type_name=entry.name)
        self._skip_statement()

    def _type(self, field: Any, word: str) -> None:
        if word in SCALARS:
            field.type = SCALARS[word]
        elif re.fullmatch(r"\.?[A-Za-z_][\w.]*", word):
            field.type_name = word
        else:
            raise RecordError(f"not a Protobuf file: {word!r} where a type is expected")

    def _enum(self, enum: Any) -> None:
        enum.name = self._next()
        self._expect("{")
        while (word := self._next()) != "}":
            if word == "reserved":
                self._reserved(enum)
            elif word == "option":
                self._skip_statement()
            elif word != ";":
                self._expect("=")
                sign = self._next() if self._peek() == "-" else ""
                enum.value.add(name=word, number=int(f"{sign}{self._next()}", 0))
                self._skip_statement()

    def _reserved(self, within: Any) -> None:
        while True:
            word = self._next()
            if word[0] in "\"'" or not (word[0].isdigit() or word[0] == "-"):
                within.reserved_name.append(_unquoted(word))
            else:
                start = end = int(word, 0)
                if self._peek() == "to":
                    self._next()
                    last = self._next()
                    end = _NUMBER_MAX if last == "max" else int(last, 0)
                # Ranges of messages leave their end out, those of enums do not.
                within.reserved_range.add(start=start, end=end + (1 if hasattr(within, "field") else 0))
            if self._next() == ";":
                return

    def _number(self) -> int:
        word = self._next()
        try:
            return int(word, 0)
        except ValueError as error:
            raise RecordError(f"not a Protobuf file: {word!r} where the number of a field is expected") from error

    def _skip_statement(self) -> None:
        depth = 0
        while True:
            word = self._next()
            depth += (word in "{[(") - (word in "}])")
            if word == ";" and depth <= 0:
                return

    def _skip_block(self) -> None:
        depth = 0
        while True:
            word = self._next()
            depth += (word == "{") - (word == "}")
            if word == "}" and depth == 0:
                return

    def _next(self) -> str:
        if self._at >= len(self._tokens):
            raise RecordError("not a Protobuf file: it ends in the middle of a definition")
        self._at += 1
        return self._tokens[self._at - 1]

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _expect(self, wanted: str) -> None:
        found = self._next()
        if found != wanted:
            raise RecordError(f"not a Protobuf file: {found!r} where {wanted!r} is expected")


def tokens_of(text: str) -> Iterator[str]:
    """Return the words of a text, without comments and space; RecordError if it is none."""
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise RecordError(f"not a Protobuf file: {text[at : at + 20]!r}")
        at = match.end()
        if match[1]:
            yield match[1]


def _unquoted(word: str) -> str:
    return word[1:-1] if word[:1] in ("'", '"') else word


def _resolve(file: Any) -> None:
    """Give fields of types that the file defines their full names, and say which are enums."""
    kinds: dict[str, Any] = {}

    def collect(messages: Any, enums: Any, scope: str) -> None:
        for enum in enums:
            kinds[f"{scope}.{enum.name}"] = _Field.TYPE_ENUM
        for message in messages:
            kinds[f"{scope}.{message.name}"] = _Field.TYPE_MESSAGE
            collect(message.nested_type, message.enum_type, f"{scope}.{message.name}")

    def assign(messages: Any, scope: str) -> None:
        for message in messages:
            inner = f"{scope}.{message.name}"
            for field in message.field:
                if field.type_name:
                    full = _found(field.type_name, inner, kinds)
                    if full is not None:
                        field.type_name, field.type = full, kinds[full]
            assign(message.nested_type, inner)

    root = f".{file.package}" if file.package else ""
    collect(file.message_type, file.enum_type, root)
    assign(file.message_type, root)


def _found(name: str, scope: str, kinds: dict[str, Any]) -> str | None:
    """Return the full name of a type as seen from a scope, innermost first."""
    if name.startswith("."):
        return name if name in kinds else None
    while True:
        if f"{scope}.{name}" in kinds:
            return f"{scope}.{name}"
        if not scope:
            return None
        scope = scope.rpartition(".")[0]


__all__ = ["SCALARS", "has_options", "parse", "serialized", "tokens_of"]
