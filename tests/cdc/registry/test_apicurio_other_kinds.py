"""JSON Schemas and Protobuf files under BACKWARD: the embedded registry against Apicurio, where Apicurio does as Confluent documents.

Apicurio 3.3.3 judges both kinds by rules of its own; where they differ the cases are named here, with what Confluent's documentation
says. Sources: Confluent documentation, "JSON Schema Serializer and Deserializer" and "Protobuf Schema Serializer and Deserializer",
sections on compatibility rules.
"""

import json
import os
from typing import Any

import httpx
import pytest

from cdc.registry.server import RegistryServer
from tests.apicurio_server import ApicurioServer
from tests.cdc.registry.test_json_rules import CASES as JSON_CASES
from tests.cdc.test_protobuf_rules import CASES as PROTOBUF_CASES

pytestmark = [pytest.mark.cdc, pytest.mark.slow]

STRICTER = {
    "JSON": {
        "PROPERTY_WITH_EMPTY_SCHEMA_ADDED_TO_OPEN_CONTENT_MODEL",
        "REQUIRED_PROPERTY_WITH_DEFAULT_ADDED_TO_UNOPEN_CONTENT_MODEL",
        "PROPERTY_WITH_FALSE_REMOVED_FROM_CLOSED_CONTENT_MODEL",
        "TYPE_EXTENDED to null",
        "COMBINED_TYPE_EXTENDED",
        "allOf of the writer",
        "annotations",
    },
    "PROTOBUF": {
        "field removed",
        "field renamed",
        "type within its group",
        "string to bytes",
        "enum to int",
        "enum value added and removed",
        "one to many of a text",
        "number beside what is reserved",
        "optional is no oneof",
        "map value widened",
        "required removed",
    },
}
"""Apicurio refuses them; Confluent's rules let them pass."""
LAXER: dict[str, set[str]] = {
    "JSON": {
        "tuple item",
    },
    "PROTOBUF": {
        "two fields into a oneof",
        "field into a oneof that is there",
    },
}
"""Apicurio lets them pass; Confluent's rules refuse them."""
FAILS = {"JSON": {"EXCLUSIVE_MINIMUM for MINIMUM"}, "PROTOBUF": set()}
"""Apicurio answers 500."""


def whole(schema: Any) -> str:
    """Return a JSON Schema as a document of Apicurio's: an object, with any other schema as its only property."""
    if isinstance(schema, dict) and schema.get("type") == "object":
        return json.dumps(schema)
    return json.dumps({"type": "object", "properties": {"in": schema}, "required": ["in"], "additionalProperties": False})


@pytest.mark.parametrize("kind", ["JSON", "PROTOBUF"])
def test_both_take_and_refuse_the_same_but_for_what_is_named(apicurio: ApicurioServer, kind: str) -> None:
    server = RegistryServer().start()
    found: dict[str, tuple[int, int]] = {}
    with httpx.Client(base_url=server.url) as ours, httpx.Client(base_url=apicurio.url, timeout=30.0) as other:
        cases = JSON_CASES if kind == "JSON" else PROTOBUF_CASES
        for number, (name, (old, new, _)) in enumerate(cases.items()):
            answers = [second_of(client, f"{kind}-{os.getpid()}-{number}", kind, old, new) for client in (ours, other)]
            found[name] = (answers[0], answers[1])
    server.close()
    assert {name for name, answer in found.items() if answer == (200, 409)} == STRICTER[kind]
    assert {name for name, answer in found.items() if answer == (409, 200)} == LAXER[kind]
    assert {name for name, (_, theirs) in found.items() if theirs not in (200, 409)} == FAILS[kind]


def second_of(client: httpx.Client, subject: str, kind: str, old: Any, new: Any) -> int:
    """Register two versions and return the status of the second."""
    assert client.put(f"/config/{subject}", json={"compatibility": "BACKWARD"}).status_code == 200
    for number, schema in enumerate((old, new)):
        text = whole(schema) if kind == "JSON" else schema
        answer = client.post(f"/subjects/{subject}/versions", json={"schema": text, "schemaType": kind})
        if number == 0:
            assert answer.status_code == 200, answer.text
    return answer.status_code
