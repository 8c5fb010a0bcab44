"""Limits of single values in JSON Schemas: whether one schema's leave room for what another's let through."""

import json
from typing import Any

_EXACT = ("number", "integer")


def value_bounds(reader: Any, writer: Any, place: str, written: tuple[str, ...]) -> list[str]:
    """Compare enumerations, and the range of numbers where numbers may be written."""
    found = []
    values, allowed = _values(writer), _values(reader)
    if allowed is not None:
        if values is None:
            found.append(f"{place} had no fixed values, and only {', '.join(map(shown, allowed))} are allowed")
        else:
            gone = [value for value in values if value not in allowed]
            found += [f"{place} may be {', '.join(map(shown, gone))}, which is no longer among the values"] if gone else []
    if not any(kind in written for kind in _EXACT):
        return found
    for word, bound in (("at most", _upper(reader)), ("at least", _lower(reader))):
        other = (_upper if word == "at most" else _lower)(writer) if values is None else _of_values(values, word)
        if bound is not None and (other is None or not _within(other, bound, word)):
            limit = f"{word} {'' if not bound[1] else 'but not '}{bound[0]}"
            found.append(f"{place} must be {limit} now, and was {'not limited' if other is None else f'{word} {other[0]}'}")
    step, old = reader.get("multipleOf"), writer.get("multipleOf", 1 if "number" not in written else None)
    if step is not None and (old is None or old % step):
        found.append(f"{place} must be a multiple of {step} now")
    return found


def text_bounds(reader: Any, writer: Any, place: str) -> list[str]:
    """Compare the length and the pattern of texts."""
    if _values(writer) is not None:
        return _undecided(reader, ("minLength", "maxLength", "pattern"), writer, place)
    found = _limits(reader, writer, place, "minLength", "maxLength", "characters")
    if "pattern" in reader and reader["pattern"] != writer.get("pattern"):
        found.append(f"{place} must match {reader['pattern']!r} now")
    return found


def array_bounds(reader: Any, writer: Any, place: str) -> list[str]:
    """Compare the number of items, and whether they must differ."""
    found = _limits(reader, writer, place, "minItems", "maxItems", "items")
    if reader.get("uniqueItems") and not writer.get("uniqueItems"):
        found.append(f"items of {place} must differ from each other now")
    return found


def object_bounds(reader: Any, writer: Any, place: str) -> list[str]:
    """Compare the number of properties."""
    return _limits(reader, writer, place, "minProperties", "maxProperties", "properties")


def shown(value: Any) -> str:
    """Return a value as messages show it."""
    return json.dumps(value, ensure_ascii=False)


def _limits(reader: Any, writer: Any, place: str, least: str, most: str, what: str) -> list[str]:
    found = []
    if reader.get(least, 0) > writer.get(least, 0):
        found.append(f"{place} must have at least {reader[least]} {what} now, and had at least {writer.get(least, 0)}")
    if most in reader and (most not in writer or writer[most] > reader[most]):
        found.append(f"{place} may have at most {reader[most]} {what} now, and had {writer.get(most, 'any number')}")
    return found


def _undecided(reader: Any, words: tuple[str, ...], writer: Any, place: str) -> list[str]:
    differ = [word for word in words if word in reader and reader[word] != writer.get(word)]
    return [f"{place}: {', '.join(differ)} differs beside fixed values, which cannot be decided"] if differ and "enum" not in reader else []


def _values(schema: Any) -> list[Any] | None:
    return schema["enum"] if "enum" in schema else [schema["const"]] if "const" in schema else None


def _of_values(values: list[Any], word: str) -> tuple[Any, bool] | None:
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return None if not numbers else ((max if word == "at most" else min)(numbers), False)


def _upper(schema: Any) -> tuple[Any, bool] | None:
    return _bound(schema, "maximum", "exclusiveMaximum", min)


def _lower(schema: Any) -> tuple[Any, bool] | None:
    return _bound(schema, "minimum", "exclusiveMinimum", max)


def _bound(schema: Any, word: str, exclusive: str, tighter: Any) -> tuple[Any, bool] | None:
    """Return (limit, whether it is itself left out): both ways of writing the latter, a flag (draft 4) and a limit of its own."""
    own, other = schema.get(word), schema.get(exclusive)
    if isinstance(other, bool):
        return None if own is None else (own, other)
    if own is None or other is None:
        return (own, False) if own is not None else (other, True) if other is not None else None
    return (other, True) if tighter(own, other) == other else (own, False)


def _within(other: tuple[Any, bool], bound: tuple[Any, bool], word: str) -> bool:
    if other[0] == bound[0]:
        return other[1] or not bound[1]
    return bool(other[0] < bound[0] if word == "at most" else other[0] > bound[0])
