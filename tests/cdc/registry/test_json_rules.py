"""Compatibility of JSON Schemas: Confluent's documented rules by hand, and the library jsonschema as an oracle of what is valid."""

from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.registry.json_rules import json_breaks
from tests.effort import examples

OPEN = {"type": "object", "properties": {"id": {"type": "integer"}, "note": {"type": "string"}}, "required": ["id"]}
CLOSED = {**OPEN, "additionalProperties": False}
HALF = {**OPEN, "additionalProperties": {"type": "string"}}


def with_property(schema: dict[str, Any], name: str, kind: Any, *required: str) -> dict[str, Any]:
    return {**schema, "properties": {**schema["properties"], name: kind}, "required": [*schema["required"], *required]}


def without(schema: dict[str, Any], name: str) -> dict[str, Any]:
    left = {key: kind for key, kind in schema["properties"].items() if key != name}
    return {**schema, "properties": left, "required": [key for key in schema["required"] if key != name]}


TEXT, INT = {"type": "string"}, {"type": "integer"}

# The names are those of Confluent's difference types. `None`: compatible.
CASES: dict[str, tuple[Any, Any, str | None]] = {
    "PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL": (OPEN, with_property(OPEN, "zip", TEXT), "zip is new, and written data may hold anything"),
    "PROPERTY_WITH_EMPTY_SCHEMA_ADDED_TO_OPEN_CONTENT_MODEL": (OPEN, with_property(OPEN, "zip", {}), None),
    "OPTIONAL_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL": (CLOSED, with_property(CLOSED, "zip", TEXT), None),
    "REQUIRED_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL": (CLOSED, with_property(CLOSED, "zip", TEXT, "zip"), "zip is required, and may be"),
    "REQUIRED_PROPERTY_WITH_DEFAULT_ADDED_TO_UNOPEN_CONTENT_MODEL": (
        CLOSED, with_property(CLOSED, "zip", {**TEXT, "default": ""}, "zip"), None,
    ),
    "PROPERTY_REMOVED_FROM_OPEN_CONTENT_MODEL": (OPEN, without(OPEN, "note"), None),
    "PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL": (CLOSED, without(CLOSED, "note"), "note is gone, and the content model is closed"),
    "PROPERTY_WITH_FALSE_REMOVED_FROM_CLOSED_CONTENT_MODEL": (with_property(CLOSED, "no", False), CLOSED, None),
    "PROPERTY_ADDED_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL": (HALF, with_property(HALF, "zip", TEXT), None),
    "PROPERTY_ADDED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL": (HALF, with_property(HALF, "zip", INT), "zip may be string"),
    "PROPERTY_REMOVED_IS_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL": (HALF, without(HALF, "note"), None),
    "PROPERTY_REMOVED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL": (with_property(HALF, "n", INT), HALF, "n may be integer"),
    "ADDITIONAL_PROPERTIES_REMOVED": (OPEN, CLOSED, "any other property is not allowed any more"),
    "ADDITIONAL_PROPERTIES_ADDED": (CLOSED, OPEN, None),
    "ADDITIONAL_PROPERTIES_NARROWED": (OPEN, HALF, "any other property may be null, boolean, integer"),
    "REQUIRED_ATTRIBUTE_ADDED": (OPEN, {**OPEN, "required": ["id", "note"]}, "note is required, and may be missing"),
    "REQUIRED_ATTRIBUTE_REMOVED": (OPEN, {**OPEN, "required": []}, None),
    "TYPE_EXTENDED": (INT, {"type": "number"}, None),
    "TYPE_NARROWED": ({"type": "number"}, INT, "may be number, and only integer is allowed"),
    "TYPE_CHANGED": (INT, TEXT, "may be integer, and only string is allowed"),
    "TYPE_EXTENDED to null": (INT, {"type": ["integer", "null"]}, None),
    "COMBINED_TYPE_EXTENDED": (INT, {"anyOf": [INT, {"type": "null"}]}, None),
    "SUM_TYPE_NARROWED": ({"anyOf": [INT, {"type": "null"}]}, INT, "may be null"),
    "SUM_TYPE of a list of types": ({"type": ["integer", "null"]}, {"anyOf": [{"type": "null"}, INT]}, None),
    "ENUM_ARRAY_EXTENDED": ({"enum": ["a"]}, {"enum": ["a", "b"]}, None),
    "ENUM_ARRAY_NARROWED": ({"enum": ["a", "b"]}, {"enum": ["a"]}, 'may be "b", which is no longer among the values'),
    "ENUM_ADDED": (TEXT, {"enum": ["a"]}, 'had no fixed values, and only "a" are allowed'),
    "MAXIMUM_DECREASED": ({**INT, "maximum": 9}, {**INT, "maximum": 5}, "must be at most 5 now, and was at most 9"),
    "MAXIMUM_INCREASED": ({**INT, "maximum": 5}, {**INT, "maximum": 9}, None),
    "MAXIMUM_ADDED": (INT, {**INT, "maximum": 5}, "was not limited"),
    "MINIMUM_REMOVED": ({**INT, "minimum": 5}, INT, None),
    "EXCLUSIVE_MINIMUM for MINIMUM": ({**INT, "minimum": 5}, {**INT, "exclusiveMinimum": 5}, "at least but not 5"),
    "EXCLUSIVE_MAXIMUM of draft 4": ({**INT, "maximum": 5, "exclusiveMaximum": True}, {**INT, "maximum": 5}, None),
    "MULTIPLE_OF_REDUCED": ({**INT, "multipleOf": 6}, {**INT, "multipleOf": 3}, None),
    "MULTIPLE_OF_CHANGED": ({**INT, "multipleOf": 6}, {**INT, "multipleOf": 4}, "must be a multiple of 4 now"),
    "MIN_LENGTH_INCREASED": (TEXT, {**TEXT, "minLength": 1}, "must have at least 1 characters now, and had at least 0"),
    "MAX_LENGTH_DECREASED": ({**TEXT, "maxLength": 9}, {**TEXT, "maxLength": 8}, "may have at most 8 characters now, and had 9"),
    "PATTERN_REMOVED": ({**TEXT, "pattern": "a"}, TEXT, None),
    "PATTERN_CHANGED": ({**TEXT, "pattern": "a"}, {**TEXT, "pattern": "b"}, "must match 'b' now"),
    "MIN_ITEMS_DECREASED": ({"type": "array", "minItems": 2}, {"type": "array", "minItems": 1}, None),
    "UNIQUE_ITEMS_ADDED": ({"type": "array"}, {"type": "array", "uniqueItems": True}, "must differ from each other"),
    "ITEM type narrowed": ({"type": "array", "items": {"type": "number"}}, {"type": "array", "items": INT}, "[] may be number"),
    "tuple item": ({"type": "array", "prefixItems": [INT]}, {"type": "array", "prefixItems": [TEXT]}, "[0] may be integer"),
    "MAX_PROPERTIES_ADDED": (OPEN, {**OPEN, "maxProperties": 3}, "may have at most 3 properties now"),
    "NOT_TYPE_NARROWED is not decided": (INT, {**INT, "not": {"const": 3}}, "'not' differs, and what that means"),
    "allOf of the writer": ({"allOf": [INT, {"minimum": 3}]}, {**INT, "minimum": 1}, None),
    "allOf of the reader": (INT, {"allOf": [INT, {"minimum": 3}]}, "must be at least 3 now"),
    "annotations": (INT, {**INT, "title": "n", "description": "d", "default": 3, "format": "x"}, None),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_breaks_by_the_documented_rules(name: str) -> None:
    writer, reader, reason = CASES[name]
    found = json_breaks(reader=reader, writer=writer)
    assert found == [] if reason is None else len(found) == 1 and reason in found[0], found
    if reader.get("type") == "object":
        nested = [{"type": "object", "properties": {"in": schema}, "required": ["in"]} for schema in (reader, writer)]
        assert bool(json_breaks(reader=nested[0], writer=nested[1])) is bool(found)


def test_references_are_followed_and_recursion_ends() -> None:
    def tree(kind: Any) -> dict[str, Any]:
        node = {"type": "object", "properties": {"value": kind, "next": {"$ref": "#/$defs/Node"}}}
        return {"$ref": "#/$defs/Node", "$defs": {"Node": node}}

    assert json_breaks(reader=tree({"type": "number"}), writer=tree(INT)) == []
    assert json_breaks(reader=tree(INT), writer=tree({"type": "number"})) == ["value may be number, and only integer is allowed"]
    (reason,) = json_breaks(reader={"$ref": "other.json"}, writer=INT)
    assert "the reference 'other.json' leads nowhere here" in reason or "other.json" in reason
    assert json_breaks(reader={"$ref": "other.json"}, writer=INT, known={"other.json": INT}) == []


def test_a_reader_may_trust_that_only_named_properties_are_written() -> None:
    assert json_breaks(reader=with_property(OPEN, "zip", TEXT), writer=OPEN, assume_closed=True) == []
    assert json_breaks(reader=with_property(HALF, "zip", INT), writer=HALF, assume_closed=True) != []


scalars = st.one_of(
    st.builds(lambda low, span: {"type": "integer", "minimum": low, "maximum": low + span}, st.integers(-2, 2), st.integers(0, 3)),
    st.builds(lambda kinds: {"type": sorted(kinds)}, st.sets(st.sampled_from(["integer", "number", "string", "null"]), min_size=1)),
    st.builds(lambda values: {"enum": values}, st.lists(st.sampled_from([1, 2, "a", None]), min_size=1, unique_by=repr)),
    st.builds(lambda low: {"type": "string", "minLength": low}, st.integers(0, 2)),
    st.sampled_from([True, {}, {"multipleOf": 2}, {"exclusiveMinimum": 0}, {"const": "a"}]),
)


def objects(inner: Any) -> Any:
    return st.builds(
        lambda properties, required, others: {
            "type": "object",
            "properties": properties,
            "required": [name for name in properties if name in required],
            **others,
        },
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        st.sets(st.sampled_from("abc")),
        st.sampled_from([{}, {"additionalProperties": False}, {"additionalProperties": {"type": "string"}}]),
    )


def arrays(inner: Any) -> Any:
    return st.one_of(
        st.builds(lambda items, least: {"type": "array", "items": items, "minItems": least}, inner, st.integers(0, 1)),
        st.builds(lambda first, rest: {"type": "array", "prefixItems": [first], "items": rest}, inner, inner),
    )


unions = st.builds(lambda branches: {"anyOf": branches}, st.lists(scalars, min_size=1, max_size=3))
schemas = st.one_of(scalars, unions, objects(st.one_of(scalars, unions)), arrays(scalars), objects(objects(scalars)))
values = st.recursive(
    st.sampled_from([None, 0, 1, 2, 3, -1, 1.5, "", "a", "bb", True]),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from("abcd"), inner, max_size=3)),
    max_leaves=4,
)


@settings(max_examples=examples(300), deadline=None)
@given(schemas, schemas, st.lists(values, min_size=5, max_size=20))
def test_what_is_called_compatible_never_makes_a_document_invalid(reader: Any, writer: Any, documents: list[Any]) -> None:
    assert json_breaks(reader=writer, writer=writer) == [], "a schema reads its own data"
    if json_breaks(reader=reader, writer=writer):
        return
    old, new = (jsonschema.Draft202012Validator(schema) for schema in (writer, reader))
    for document in documents:
        assert not old.is_valid(document) or new.is_valid(document), document
