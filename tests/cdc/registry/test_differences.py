"""What has changed between two schemas, in words that a person would use."""

from typing import Any

import pytest

from cdc.registry.differences import differences, show
from tests.cdc.registry.test_rules import BASE, CHANGES, field, record

SAID = {
    "add_optional": ["+ R.more: int, default 0"],
    "add_required": ["+ R.more: int"],
    "drop_required": ["- R.id: long"],
    "drop_optional": ["- R.note: null | string, default null"],
    "long_to_double": ["~ R.id: long -> double"],
    "long_to_int": ["~ R.id: long -> int"],
    "rename": ["+ R.key: long", "- R.id: long"],
    "rename_with_alias": ["~ R.key: was called id"],
    "string_to_bytes": ["~ R.note: null | string -> null | bytes"],
    "unchanged": [],
}


@pytest.mark.parametrize("change", CHANGES)
def test_differences_of_a_record_name_the_field(change: str) -> None:
    assert differences(BASE, CHANGES[change][0]) == SAID[change]


def test_differences_inside_are_named_by_their_path() -> None:
    enum = {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}
    old = record(field("lines", {"type": "array", "items": record(field("n", "int"), name="Line")}), field("kind", enum), field("x", "int"))
    new = record(
        field("lines", {"type": "array", "items": record(field("n", "long"), name="Line")}),
        field("kind", {**enum, "symbols": ["B", "C"]}),
        field("x", "int", default=3),
    )
    assert differences(old, new) == [
        "~ R.lines[].n: int -> long",
        "+ R.kind: symbols C",
        "- R.kind: symbols A",
        "~ R.x: no default -> default 3",
    ]


def test_differences_of_a_record_that_became_optional() -> None:
    inner = record(field("n", "int"), name="Inner")
    more = record(field("n", "int"), field("m", "int"), name="Inner")
    assert differences(record(field("in", inner)), record(field("in", ["null", more]))) == [
        "+ R.in.m: int",
        "~ R.in: Inner -> null | Inner",
    ]


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 2}, "decimal(38, 2)"),
        ({"type": "long", "logicalType": "timestamp-micros"}, "timestamp-micros"),
        ({"type": "map", "values": {"type": "array", "items": "string"}}, "map of array of string"),
        ({"type": "fixed", "name": "Hash", "size": 16}, "fixed Hash of 16 bytes"),
        ({"type": {"type": "string"}}, "string"),
        (["null", BASE], "null | record R"),
    ],
)
def test_show_says_a_type_as_people_do(schema: Any, text: str) -> None:
    assert show(schema) == text
