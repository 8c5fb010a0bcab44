"""Compatibility of JSON Schemas: whether what one schema allows is allowed by another, with words about what breaks.

    json_breaks(reader=new, writer=old)     []                     every document of the old schema is valid by the new one
                                            ["address.zip is ..."] and why not

| change seen by a reader                             | |
|------------------------------------------------------|------------------------------------------------------------------------|
| type widened, bound loosened, enum value added       | fits                                                                   |
| type narrowed, bound tightened, enum value gone      | breaks                                                                 |
| property added, written data closed                  | fits, if it is not required or has a default                           |
| property added, written data open                    | breaks: it may hold anything under that name (`assume_closed` trusts)  |
| property gone, own schema open / closed              | fits / breaks                                                          |
| property required that was not                       | breaks, unless it has a default                                        |

A content model is open unless `additionalProperties` is false, and half open where that is a schema or `patternProperties` match.
What this module cannot decide (a changed `not`, `if`, `dependencies` ...) counts as breaking, and says so.

Source: Confluent documentation, "JSON Schema Serializer and Deserializer", section "JSON Schema compatibility rules"; JSON Schema
2020-12, "Validation". As there, `oneOf` is taken for `anyOf`, and `format`, titles and defaults are no part of what is valid.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from cdc.registry.json_bounds import array_bounds, object_bounds, shown, text_bounds, value_bounds

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
_UNDECIDED = (
    "not", "if", "then", "else", "dependencies", "dependentRequired", "dependentSchemas", "contains", "minContains", "maxContains",
    "propertyNames", "unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef",
)  # fmt: skip
_NOTES = frozenset(("$schema", "$id", "id", "title", "description", "default", "examples", "$comment", "definitions", "$defs", "format"))


def json_breaks(*, reader: Any, writer: Any, known: Mapping[str, Any] | None = None, assume_closed: bool = False) -> list[str]:
    """Return why documents of one schema are not valid by another, nothing if they are.

    Args:
        known: Schemas that `$ref` may name besides parts of the schema itself.
        assume_closed: What the writer's schema does not name is not written, unless it says what else there may be.
    """
    return _Comparison(reader, writer, dict(known or {}), assume_closed).compare(reader, writer, "")


class _Comparison:
    """One comparison; pairs that are being compared are taken for compatible, so that recursion ends."""

    def __init__(self, reader: Any, writer: Any, known: dict[str, Any], assume_closed: bool) -> None:
        self._reader, self._writer, self._known = reader, writer, known
        self._others = not assume_closed
        self._open: set[tuple[str, str]] = set()

    def compare(self, reader: Any, writer: Any, path: str) -> list[str]:
        reader_name, writer_name = _reference(reader), _reference(writer)
        if reader_name is None and writer_name is None:
            return self._compare(reader, writer, path)
        pair = (reader_name or _text(reader), writer_name or _text(writer))
        if pair in self._open:
            return []
        self._open.add(pair)
        try:
            own, written = resolve(reader, self._reader, self._known), resolve(writer, self._writer, self._known)
        except LookupError as error:
            return [f"{path or 'the value'}: the reference {error.args[0]} leads nowhere here, so it cannot be decided"]
        found = self.compare(own, written, path)
        self._open.discard(pair)
        return found

    def _compare(self, reader: Any, writer: Any, path: str) -> list[str]:
        place = path or "the value"
        if writer is False or reader is True or (isinstance(reader, dict) and not reader.keys() - _NOTES):
            return []
        if reader is False:
            return [f"{place} is not allowed any more"]
        writer = {} if writer is True else writer
        for union in ("anyOf", "oneOf"):
            if union in writer:
                return self._branches(reader, writer, union, path)
        if "allOf" in writer:
            return self._parts(reader, writer, path)
        types = writer.get("type")
        if isinstance(types, list) and any(union in reader for union in ("anyOf", "oneOf")):
            return [reason for kind in types for reason in self.compare(reader, {**writer, "type": kind}, path)]
        return self._plain(reader, writer, path)

    def _branches(self, reader: Any, writer: Any, union: str, path: str) -> list[str]:
        """What is written is one of several: each must fit."""
        rest = {name: value for name, value in writer.items() if name != union and name not in _NOTES}
        found: list[str] = []
        for branch in writer[union]:
            inside = branch if not rest else {"allOf": [branch, rest]}
            found += self.compare(reader, inside, path)
        return found

    def _parts(self, reader: Any, writer: Any, path: str) -> list[str]:
        """What is written fits several schemas at once: it is enough if one of them fits, or all of them taken together."""
        rest = {name: value for name, value in writer.items() if name != "allOf" and name not in _NOTES}
        parts = [*writer["allOf"], *([rest] if rest else [])]
        found = [self.compare(reader, part, path) for part in parts]
        if any(not reasons for reasons in found):
            return []
        try:
            together = _together([resolve(part, self._writer, self._known) for part in parts])
        except LookupError:
            together = None
        return min(found, key=len) if together is None else self._compare(reader, together, path)

    def _plain(self, reader: Any, writer: Any, path: str) -> list[str]:
        place = path or "the value"
        found = [
            f"{place}: {word!r} differs, and what that means for earlier data cannot be decided"
            for word in _UNDECIDED
            if word in reader and reader[word] != writer.get(word)
        ]
        for part in reader.get("allOf", ()):
            found += self.compare(part, writer, path)
        for union in ("anyOf", "oneOf"):
            if union in reader:
                reasons = [self.compare(branch, writer, path) for branch in reader[union]]
                if all(reasons):
                    only = reasons[0] if len(reasons) == 1 else [f"{place} may be {_kinds(writer)}, which no branch of {union} allows"]
                    found += only
        written = _types(writer)
        allowed = _types(reader)
        refused = [kind for kind in written if kind not in allowed and not (kind == "integer" and "number" in allowed)]
        if refused:
            return [*found, f"{place} may be {', '.join(refused)}, and only {', '.join(allowed)} is allowed"]
        found += value_bounds(reader, writer, place, written)
        if "string" in written:
            found += text_bounds(reader, writer, place)
        if "array" in written:
            found += array_bounds(reader, writer, place) + self._items(reader, writer, path)
        if "object" in written:
            found += object_bounds(reader, writer, place) + self._properties(reader, writer, path)
        return found

    def _properties(self, reader: Any, writer: Any, path: str) -> list[str]:
        own, written = reader.get("properties", {}), writer.get("properties", {})
        found: list[str] = []
        for name in dict.fromkeys([*written, *own]):
            place = f"{path}.{name}" if path else name
            if name in own and name in written:
                found += self.compare(own[name], written[name], place)
            elif name in own:
                there = _others(writer, name, self._others)
                reasons = self.compare(own[name], there, place)
                if reasons and (there is True or there == {}):
                    reasons = [f"{place} is new, and written data may hold anything there: its content model is open"]
                found += reasons
            else:
                here = _others(reader, name, True)
                reasons = self.compare(here, written[name], place)
                found += [f"{place} is gone, and the content model is closed"] if reasons and here is False else reasons
        for name in reader.get("required", ()):
            if name not in writer.get("required", ()) and "default" not in (own.get(name) or {}):
                found.append(f"{path}.{name} is required, and may be missing" if path else f"{name} is required, and may be missing")
        return found + self._other_properties(reader, writer, path)

    def _other_properties(self, reader: Any, writer: Any, path: str) -> list[str]:
        patterns, written = reader.get("patternProperties", {}), writer.get("patternProperties", {})
        here, there = reader.get("additionalProperties", True), writer.get("additionalProperties", self._others)
        found = self.compare(here, there, f"{path}.*" if path else "any other property")
        for pattern in dict.fromkeys([*written, *patterns]):
            place = f"{path}.{pattern}" if path else pattern
            found += self.compare(patterns.get(pattern, here), written.get(pattern, there), place)
        return found

    def _items(self, reader: Any, writer: Any, path: str) -> list[str]:
        (own, own_rest), (written, written_rest) = _tuple_of(reader), _tuple_of(writer)
        found = self.compare(own_rest, written_rest, f"{path}[]")
        for at in range(max(len(own), len(written))):
            first = own[at] if at < len(own) else own_rest
            second = written[at] if at < len(written) else written_rest
            found += self.compare(first, second, f"{path}[{at}]")
        return found


def _reference(schema: Any) -> str | None:
    return schema["$ref"] if isinstance(schema, dict) and "$ref" in schema else None


def resolve(schema: Any, root: Any, known: Mapping[str, Any]) -> Any:
    """Return the schema behind a reference; raises LookupError where there is none."""
    name = _reference(schema)
    if name is None:
        return schema
    file, _, pointer = name.partition("#")
    found = root if not file else known[file]
    for part in pointer.split("/")[1:] if pointer else ():
        found = found[part.replace("~1", "/").replace("~0", "~")]
    return found


def _types(schema: Any) -> tuple[str, ...]:
    kind = schema.get("type")
    if kind is None:
        values = schema["enum"] if "enum" in schema else [schema["const"]] if "const" in schema else None
        return TYPES if values is None else tuple(dict.fromkeys(map(_type_of, values)))
    return tuple(kind) if isinstance(kind, list) else (kind,)


def _type_of(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    return {float: "number", str: "string", list: "array", dict: "object"}[type(value)]


def _kinds(schema: Any) -> str:
    return ", ".join(map(shown, schema["enum"])) if "enum" in schema else ", ".join(_types(schema))


def _others(schema: Any, name: str, default: bool) -> Any:
    """Return what a schema says of a property that it does not name."""
    for pattern, inner in schema.get("patternProperties", {}).items():
        if re.search(pattern, name):
            return inner
    return schema.get("additionalProperties", default)


def _tuple_of(schema: Any) -> tuple[list[Any], Any]:
    """Return the schemas of the first items of an array, and that of the others; both ways of writing it."""
    items = schema.get("items", True)
    if isinstance(items, list):
        return items, schema.get("additionalItems", True)
    return schema.get("prefixItems", []), items


def _together(parts: list[Any]) -> Any:
    """Return schemas as one, None where two of them say something about the same."""
    merged: dict[str, Any] = {}
    for part in parts:
        if not isinstance(part, dict):
            return None
        for name, value in part.items():
            if name == "properties" and not value.keys() & merged.get(name, {}).keys():
                merged[name] = {**merged.get(name, {}), **value}
            elif name == "required":
                merged[name] = [*merged.get(name, ()), *value]
            elif name not in _NOTES and merged.setdefault(name, value) != value:
                return None
    return merged


def _text(schema: Any) -> str:
    return json.dumps(schema, sort_keys=True)


__all__ = ["json_breaks"]
