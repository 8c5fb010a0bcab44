"""Compatibility by the Avro specification: expected answers are those of its section "Schema Resolution", worked out by hand."""

from typing import Any

import pytest

from cdc.registry.rules import LEVELS, breaks, check


def record(*fields: Any, name: str = "R", **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **more}


def field(name: str, schema: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": schema, **more}


BASE = record(field("id", "long"), field("note", ["null", "string"], default=None))

# change, its new schema: BACKWARD and FORWARD say whether new reads old, and old reads new
CHANGES: dict[str, tuple[Any, bool, bool]] = {
    "add_optional": (record(*BASE["fields"], field("more", "int", default=0)), True, True),
    "add_required": (record(*BASE["fields"], field("more", "int")), False, True),
    "drop_required": (record(BASE["fields"][1]), True, False),
    "drop_optional": (record(BASE["fields"][0]), True, True),
    "long_to_double": (record(field("id", "double"), BASE["fields"][1]), True, False),
    "long_to_int": (record(field("id", "int"), BASE["fields"][1]), False, True),
    "rename": (record(field("key", "long"), BASE["fields"][1]), False, False),
    "rename_with_alias": (record(field("key", "long", aliases=["id"]), BASE["fields"][1]), True, False),
    "string_to_bytes": (record(BASE["fields"][0], field("note", ["null", "bytes"], default=None)), True, True),
    "unchanged": (BASE, True, True),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("level", LEVELS)
def test_check_every_level_asks_for_its_directions(change: str, level: str) -> None:
    new, backward, forward = CHANGES[change]
    expected = {"NONE": True, "BACKWARD": backward, "FORWARD": forward, "FULL": backward and forward}[level.removesuffix("_TRANSITIVE")]
    assert (check(level, new, [(1, BASE)]) == []) is expected


def test_check_transitive_levels_look_at_all_versions() -> None:
    first, second = record(field("a", "int")), record(field("a", "int"), field("b", "int", default=0))
    third = record(field("a", "int"), field("b", "int"))
    assert check("BACKWARD", third, [(1, first), (2, second)]) == []
    (reason,) = check("BACKWARD_TRANSITIVE", third, [(1, first), (2, second)])
    assert reason == "version 1 cannot be read with the new schema: field R.b is not in the written data and has no default"


@pytest.mark.parametrize(
    ("writer", "reader", "reason"),
    [
        ("int", "long", None),
        ("int", "double", None),
        ("float", "double", None),
        ("double", "float", "double and would be read as float"),
        ("string", "bytes", None),
        ("string", "int", "string and would be read as int"),
        ("string", ["null", "string"], None),
        (["null", "string"], "string", "null and would be read as string"),
        (["null", "int"], ["null", "long"], None),
        ("boolean", ["null", "string"], "no branch"),
        ({"type": "array", "items": "int"}, {"type": "array", "items": "long"}, None),
        ({"type": "array", "items": "long"}, {"type": "array", "items": "int"}, "[] is long"),
        ({"type": "map", "values": "string"}, {"type": "map", "values": "int"}, "{} is string"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, {"type": "enum", "name": "E", "symbols": ["A", "B"]}, None),
        ({"type": "enum", "name": "E", "symbols": ["A", "C"]}, {"type": "enum", "name": "E", "symbols": ["A"]}, "symbols C"),
        ({"type": "enum", "name": "E", "symbols": ["A", "C"]}, {"type": "enum", "name": "E", "symbols": ["A"], "default": "A"}, None),
        ({"type": "fixed", "name": "F", "size": 4}, {"type": "fixed", "name": "F", "size": 8}, "has 4 bytes"),
        ({"type": "fixed", "name": "F", "size": 4}, "bytes", "fixed and would be read as bytes"),
        (record(name="a.R"), record(name="b.R"), None),
        (record(name="R"), record(name="S"), "record R would be read as S"),
        (record(name="a.R"), record(name="S", aliases=["a.R"]), None),
        ({"type": "long", "logicalType": "timestamp-micros"}, "long", None),
    ],
)
def test_breaks_by_the_rules_of_schema_resolution(writer: Any, reader: Any, reason: str | None) -> None:
    found = breaks(reader=reader, writer=writer)
    assert found == [] if reason is None else len(found) == 1 and reason in found[0], found


def test_breaks_a_recursive_record_ends() -> None:
    node = record(field("value", "int"), field("next", ["null", "Node"], default=None), name="Node", namespace="x")
    wider = record(field("value", "long"), field("next", ["null", "x.Node"], default=None), name="Node", namespace="x")
    assert breaks(reader=wider, writer=node) == []
    assert breaks(reader=node, writer=wider) == ["Node.value is long and would be read as int"]


def test_breaks_names_the_place_within_nested_records() -> None:
    inner = record(field("city", "string"), name="Address")
    old = record(field("home", inner), name="User")
    new = record(field("home", record(field("city", "string"), field("zip", "string"), name="Address")), name="User")
    assert breaks(reader=new, writer=old) == ["field User.home.zip is not in the written data and has no default"]
