"""Random pairs of Avro schemas, one made out of the other by a few edits, as schemas evolve."""

import copy
import random
from typing import Any

_PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
_DEFAULTS: dict[str, Any] = {"null": None, "boolean": True, "int": 1, "long": 2, "float": 1.5, "double": 2.5, "bytes": "b", "string": "s"}


class SchemaMaker:
    """Makes schemas and edits them, from one seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._names = 0

    def pair(self) -> tuple[Any, Any]:
        """Return a schema and what became of it."""
        self._names = 0
        old = self._record(0) if self._random.random() < 0.8 else self._type(0)
        new = copy.deepcopy(old)
        for _ in range(self._random.choice((0, 1, 1, 1, 2, 3))):
            new = self._edited(new)
        return old, new

    def _name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}{self._names}"

    def _type(self, depth: int) -> Any:
        roll = self._random.random()
        if roll < 0.5 or depth > 2:
            return self._random.choice(_PRIMITIVES)
        if roll < 0.6:
            return {"type": "array", "items": self._type(depth + 1)}
        if roll < 0.68:
            return {"type": "map", "values": self._type(depth + 1)}
        if roll < 0.75:
            return self._enum()
        if roll < 0.8:
            return {"type": "fixed", "name": self._name("F"), "size": self._random.choice((4, 8))}
        if roll < 0.9:
            return self._union(depth)
        return self._record(depth + 1)

    def _enum(self) -> Any:
        symbols = list("ABCDE")[: self._random.randint(1, 4)]
        enum = {"type": "enum", "name": self._name("E"), "symbols": symbols}
        return {**enum, "default": symbols[0]} if self._random.random() < 0.3 else enum

    def _union(self, depth: int) -> Any:
        branches = self._random.sample(_PRIMITIVES, self._random.randint(1, 3))
        if self._random.random() < 0.3:
            branches.append(self._record(depth + 1))
        return branches

    def _record(self, depth: int) -> Any:
        name = self._name("R")
        fields = [self._field(f"f{number}", depth) for number in range(self._random.randint(0, 4))]
        record: dict[str, Any] = {"type": "record", "name": name, "fields": fields}
        if self._random.random() < 0.3:
            record["namespace"] = self._random.choice(("a", "b.c"))
        if self._random.random() < 0.15:
            fields.append({"name": "next", "type": ["null", name], "default": None})
        return record

    def _field(self, name: str, depth: int) -> Any:
        kind = self._type(depth)
        first = kind[0] if isinstance(kind, list) else kind
        field = {"name": name, "type": kind}
        if isinstance(first, str) and first in _DEFAULTS and self._random.random() < 0.4:
            field["default"] = _DEFAULTS[first]
        return field

    def _edited(self, schema: Any) -> Any:
        """Return a schema with one thing changed, somewhere in it."""
        places = [place for place in _places(schema) if isinstance(place, dict | list)]
        if not places or self._random.random() < 0.1:
            return self._changed(schema)
        place = self._random.choice(places)
        if isinstance(place, list):
            self._edit_union(place)
        elif place["type"] == "record":
            self._edit_record(place)
        elif place["type"] == "enum":
            self._edit_enum(place)
        elif place["type"] == "fixed":
            place["size"] = self._random.choice((4, 8))
        elif place["type"] == "array":
            place["items"] = self._changed(place["items"])
        else:
            place["values"] = self._changed(place["values"])
        return schema

    def _changed(self, schema: Any) -> Any:
        roll = self._random.random()
        if roll < 0.3 and not isinstance(schema, list):
            return [schema] if schema == "null" else self._random.choice((["null", schema], [schema, "null"]))
        return self._random.choice(_PRIMITIVES) if roll < 0.8 else self._enum()

    def _edit_union(self, union: list[Any]) -> None:
        present = [branch for branch in union if isinstance(branch, str)]
        missing = [name for name in _PRIMITIVES if name not in present]
        if len(union) > 1 and self._random.random() < 0.5:
            union.remove(self._random.choice(union))
        elif missing:
            union.append(self._random.choice(missing))

    def _edit_record(self, record: dict[str, Any]) -> None:
        fields, roll = record["fields"], self._random.random()
        if not fields or roll < 0.3:
            fields.append(self._field(self._random.choice(("f7", "f8", "f9")) + str(len(fields)), 1))
            return
        field = self._random.choice(fields)
        if roll < 0.45:
            fields.remove(field)
        elif roll < 0.6:
            old = field["name"]
            field["name"] = f"{old}x"
            if self._random.random() < 0.6:
                field["aliases"] = [old]
        elif roll < 0.7:
            old = record["name"]
            if not _uses(record, old):
                record["name"] = f"{old}x"
                if self._random.random() < 0.5:
                    record["aliases"] = [old]
        elif roll < 0.75:
            record["namespace"] = self._random.choice(("a", "other"))
        elif not _defines(field["type"]):
            field["type"] = self._changed(field["type"])
            field.pop("default", None)
        else:
            field.pop("default", None)

    def _edit_enum(self, enum: dict[str, Any]) -> None:
        if self._random.random() < 0.5:
            enum["symbols"] = [*enum["symbols"], "Z"] if "Z" not in enum["symbols"] else enum["symbols"]
        elif len(enum["symbols"]) > 1:
            enum["symbols"] = enum["symbols"][:-1] if enum.get("default") != enum["symbols"][-1] else enum["symbols"]


def _places(schema: Any) -> list[Any]:
    """Return a schema and all schemas inside it."""
    inner: list[Any] = []
    if isinstance(schema, list):
        inner = schema
    elif isinstance(schema, dict):
        inner = [field["type"] for field in schema.get("fields", ())] + [schema[name] for name in ("items", "values") if name in schema]
    return [schema, *(place for one in inner for place in _places(one))]


def _uses(schema: Any, name: str) -> bool:
    return any(place == name for place in _places(schema))


def _defines(schema: Any) -> bool:
    return any(isinstance(place, dict) and "name" in place for place in _places(schema))
