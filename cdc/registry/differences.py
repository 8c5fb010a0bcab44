"""What has changed between two Avro schemas, in words, whether it breaks anything or not.

differences(old, new)    ["+ Payment.note: null | string, default null", "~ Payment.amount: int -> long", "- Payment.fee: long"]
"""

import json
from collections.abc import Iterator
from typing import Any


def differences(old: Any, new: Any) -> list[str]:
    """Return a line for each difference, in the order of the new schema, what is gone last; [] for the same schema."""
    return list(_compare(old, new, ""))


def _compare(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict) and old.get("type") == new.get("type"):
        kind = new["type"]
        if kind == "record":
            yield from _records(old, new, path or new["name"].split(".")[-1])
            return
        if kind in ("array", "map"):
            inner = "items" if kind == "array" else "values"
            yield from _compare(old[inner], new[inner], f"{path}[]" if kind == "array" else f"{path}{{}}")
            return
        if kind == "enum":
            yield from _symbols(old, new, path or new["name"])
            return
    old_record, new_record = _record_in(old), _record_in(new)
    if old_record is not None and new_record is not None and old_record["name"] == new_record["name"]:
        yield from _compare(old_record, new_record, path)
        old, new = _without(old, old_record), _without(new, new_record)
    if show(old) != show(new):
        yield f"~ {path or 'the schema'}: {show(old)} -> {show(new)}"


def _records(old: Any, new: Any, path: str) -> Iterator[str]:
    before = {field["name"]: field for field in old["fields"]}
    for field in new["fields"]:
        place = f"{path}.{field['name']}"
        name = next((name for name in (field["name"], *field.get("aliases", ())) if name in before), None)
        if name is None:
            yield f"+ {place}: {show(field['type'])}{_default(field)}"
            continue
        was = before.pop(name)
        if name != field["name"]:
            yield f"~ {place}: was called {name}"
        yield from _compare(was["type"], field["type"], place)
        if _default(was) != _default(field):
            yield f"~ {place}: {_default(was).removeprefix(', ') or 'no default'} -> {_default(field).removeprefix(', ') or 'no default'}"
    for name, field in before.items():
        yield f"- {path}.{name}: {show(field['type'])}{_default(field)}"


def _symbols(old: Any, new: Any, path: str) -> Iterator[str]:
    added = [symbol for symbol in new["symbols"] if symbol not in old["symbols"]]
    gone = [symbol for symbol in old["symbols"] if symbol not in new["symbols"]]
    if added:
        yield f"+ {path}: symbols {', '.join(added)}"
    if gone:
        yield f"- {path}: symbols {', '.join(gone)}"


def _record_in(schema: Any) -> Any:
    """Return the one record of a union, or of what is a record."""
    found = [one for one in (schema if isinstance(schema, list) else [schema]) if isinstance(one, dict) and one.get("type") == "record"]
    return found[0] if len(found) == 1 else None


def _without(schema: Any, record: Any) -> Any:
    return [record["name"] if one is record else one for one in schema] if isinstance(schema, list) else record["name"]


def _default(field: Any) -> str:
    return f", default {_json(field['default'])}" if "default" in field else ""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def show(schema: Any) -> str:
    """Return a type as people say it: "null | string", "array of long", "decimal(38, 2)"."""
    if isinstance(schema, list):
        return " | ".join(map(show, schema))
    if not isinstance(schema, dict):
        return str(schema)
    kind, logical = schema["type"], schema.get("logicalType")
    if logical == "decimal":
        return f"decimal({schema.get('precision')}, {schema.get('scale', 0)})"
    if logical is not None:
        return str(logical)
    if kind in ("record", "enum"):
        return f"{kind} {schema['name']}"
    if kind == "fixed":
        return f"fixed {schema['name']} of {schema['size']} bytes"
    if kind == "array":
        return f"array of {show(schema['items'])}"
    return f"map of {show(schema['values'])}" if kind == "map" else show(kind)
