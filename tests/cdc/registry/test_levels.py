"""All seven levels of compatibility for JSON Schema and Protobuf, in the embedded registry, against what is worked out by hand.

BACKWARD asks whether the new schema reads what the old one wrote; the cases of both kinds say that. FORWARD asks the reverse: which of
the same pairs break then stands here. FULL asks both, the transitive ones all versions.
"""

import json
from collections.abc import Iterator
from itertools import product
from typing import Any

import httpx
import pytest

from cdc.registry.rules import LEVELS
from cdc.registry.server import RegistryServer
from tests.cdc.registry.test_json_rules import CASES as JSON_CASES
from tests.cdc.registry.test_json_rules import INT, TEXT
from tests.cdc.test_protobuf_rules import CASES as PROTOBUF_CASES
from tests.cdc.test_protobuf_rules import proto

pytestmark = pytest.mark.slow

CASES: dict[str, Any] = {"JSON": JSON_CASES, "PROTOBUF": PROTOBUF_CASES}
FORWARD_BREAKS = {
    "JSON": {
        # closed to what the new one writes
        "OPTIONAL_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL", "REQUIRED_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL",
        "REQUIRED_PROPERTY_WITH_DEFAULT_ADDED_TO_UNOPEN_CONTENT_MODEL", "ADDITIONAL_PROPERTIES_ADDED",
        # a property that the new one leaves open, or to another type
        "PROPERTY_REMOVED_FROM_OPEN_CONTENT_MODEL", "PROPERTY_ADDED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL",
        "PROPERTY_REMOVED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL", "REQUIRED_ATTRIBUTE_REMOVED",
        # wider types, values and bounds
        "TYPE_EXTENDED", "TYPE_CHANGED", "TYPE_EXTENDED to null", "COMBINED_TYPE_EXTENDED", "ENUM_ARRAY_EXTENDED", "MAXIMUM_INCREASED",
        "MINIMUM_REMOVED", "EXCLUSIVE_MAXIMUM of draft 4", "MULTIPLE_OF_REDUCED", "MULTIPLE_OF_CHANGED", "PATTERN_REMOVED",
        "PATTERN_CHANGED", "MIN_ITEMS_DECREASED", "tuple item", "allOf of the writer",
    },
    "PROTOBUF": {
        "type of another group", "type changed", "fixed to varint", "enum to another", "one to many of a scalar", "number changed",
        "member of a oneof added", "one field into a new oneof",  # the other member is gone
        "oneof dissolved", "nested message changed", "map value changed", "required removed", "imported type",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    server = RegistryServer().start()
    with httpx.Client(base_url=server.url) as made:
        yield made
    server.close()


def body(kind: str, schema: Any) -> dict[str, Any]:
    return {"schema": schema if kind == "PROTOBUF" else json.dumps(schema), "schemaType": kind}


def register(client: httpx.Client, subject: str, kind: str, schema: Any) -> int:
    return client.post(f"/subjects/{subject}/versions", json=body(kind, schema)).status_code


@pytest.mark.parametrize(("kind", "level"), list(product(CASES, LEVELS)))
def test_second_version_is_taken_or_refused(client: httpx.Client, kind: str, level: str) -> None:
    base, wrong = level.removesuffix("_TRANSITIVE"), []
    for number, (name, (old, new, backward_break)) in enumerate(CASES[kind].items()):
        backward, forward = backward_break is None, name not in FORWARD_BREAKS[kind]
        allowed = {"NONE": True, "BACKWARD": backward, "FORWARD": forward, "FULL": backward and forward}[base]
        subject = f"{kind}-{level}-{number}"
        assert client.put(f"/config/{subject}", json={"compatibility": level}).status_code == 200
        assert register(client, subject, kind, old) == 200
        asked = client.post(f"/compatibility/subjects/{subject}/versions/latest", json=body(kind, new)).json()
        status = register(client, subject, kind, new)
        if (status, asked["is_compatible"]) != ((200, True) if allowed else (409, False)):
            wrong.append(f"{name}: {status}, {asked}")
    assert not wrong, "\n".join(wrong)


FIRST = {"JSON": TEXT, "PROTOBUF": proto("string n = 1;")}
NEXT: dict[str, tuple[Any, Any]] = {"JSON": (INT, {"type": "number"}), "PROTOBUF": (proto("int32 n = 1;"), proto("int64 n = 1;"))}
"""A second and a third version: the third reads the second, none of them the first; of Protobuf, and FULL, in both directions."""


@pytest.mark.parametrize(("kind", "level"), list(product(CASES, LEVELS)))
def test_only_transitive_levels_ask_all_versions(client: httpx.Client, kind: str, level: str) -> None:
    subject = f"{kind}-three-{level}"
    second, third = reversed(NEXT[kind]) if level.startswith("FORWARD") else NEXT[kind]
    if level.startswith("FULL") and kind == "JSON":
        third = {**second, "title": "the same again"}
    client.put(f"/config/{subject}", json={"compatibility": "NONE"})
    assert [register(client, subject, kind, schema) for schema in (FIRST[kind], second)] == [200, 200]
    client.put(f"/config/{subject}", json={"compatibility": level})
    assert register(client, subject, kind, third) == (409 if level.endswith("_TRANSITIVE") else 200)
