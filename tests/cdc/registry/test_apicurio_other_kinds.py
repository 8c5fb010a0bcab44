"""JSON Schemas and Protobuf files at all levels: the embedded registry against Apicurio, where Apicurio does as Confluent documents.

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
    ("JSON", "BACKWARD"): {
        "PROPERTY_WITH_EMPTY_SCHEMA_ADDED_TO_OPEN_CONTENT_MODEL",  # any new property
        "REQUIRED_PROPERTY_WITH_DEFAULT_ADDED_TO_UNOPEN_CONTENT_MODEL",  # any required one, default or not
        "PROPERTY_WITH_FALSE_REMOVED_FROM_CLOSED_CONTENT_MODEL",  # any that is gone
        "TYPE_EXTENDED to null",  # a list of types is another kind of schema to it, and so are the unions below
        "COMBINED_TYPE_EXTENDED",
        "allOf of the writer",
        "annotations",  # a title is a change
    },
    ("JSON", "FORWARD"): {
        "SUM_TYPE_NARROWED",
        "ENUM_ADDED",  # fixed values are another kind of schema to it too
        "allOf of the reader",
    },
    ("PROTOBUF", "BACKWARD"): {
        "field removed",  # it asks that the number be reserved
        "field renamed",
        "type within its group",
        "string to bytes",
        "enum to int",
        "enum value added and removed",
        "one to many of a text",
        "number beside what is reserved",  # any change of what is reserved
        "optional is no oneof",
        "map value widened",
        "required removed",
    },
    ("PROTOBUF", "FORWARD"): {
        "field added",  # the earlier file would have to reserve what it cannot know
        "field renamed",
        "type within its group",
        "string to bytes",
        "enum to int",
        "enum value added and removed",
        "one to many of a text",
        "reserved number taken",  # read by the earlier file, the field is merely unknown
        "reserved name taken",
        "number beside what is reserved",
        "optional is no oneof",
        "map value widened",
        "required added",
        "required from optional",
    },
}
"""Apicurio refuses them; Confluent's rules let them pass."""
LAXER = {
    ("JSON", "BACKWARD"): {"tuple item"},  # it does not look into lists of items
    ("JSON", "FORWARD"): {"tuple item"},
    ("PROTOBUF", "BACKWARD"): {"two fields into a oneof", "field into a oneof that is there"},  # nor at what a oneof takes in
    ("PROTOBUF", "FORWARD"): {"oneof dissolved"},
}
"""Apicurio lets them pass; Confluent's rules refuse them."""
FAILS = {"JSON": {"EXCLUSIVE_MINIMUM for MINIMUM"}, "PROTOBUF": set()}
"""Apicurio answers 500."""

# The first version breaks with the third, the second does not.
CHAINS = {
    ("JSON", "BACKWARD"): ("string", "integer", "number"),
    ("JSON", "FORWARD"): ("string", "number", "integer"),
    ("JSON", "FULL"): ("string", "number", "number"),
    ("PROTOBUF", "BACKWARD"): ("int32 n = 1;", "string n = 1;", "string n = 1; string s = 2;"),
    ("PROTOBUF", "FORWARD"): ("int32 n = 1;", "string n = 1; string s = 2;", "string n = 1;"),
    ("PROTOBUF", "FULL"): ("int32 n = 1;", "string n = 1;", "// again\nstring n = 1;"),
}


def whole(schema: Any) -> str:
    """Return a JSON Schema as a document of Apicurio's: an object, with any other schema as its only property."""
    if isinstance(schema, dict) and schema.get("type") == "object":
        return json.dumps(schema)
    return json.dumps({"type": "object", "properties": {"in": schema}, "required": ["in"], "additionalProperties": False})


@pytest.mark.parametrize("kind", ["JSON", "PROTOBUF"])
def test_both_take_and_refuse_the_same_but_for_what_is_named(apicurio: ApicurioServer, kind: str) -> None:
    server = RegistryServer().start()
    cases = JSON_CASES if kind == "JSON" else PROTOBUF_CASES
    found: dict[str, dict[str, tuple[int, int]]] = {}
    with httpx.Client(base_url=server.url) as ours, httpx.Client(base_url=apicurio.url, timeout=30.0) as other:
        for level in ("BACKWARD", "FORWARD", "FULL"):
            found[level] = {}
            for number, (name, (old, new, _)) in enumerate(cases.items()):
                subject = f"{kind}-{level}-{os.getpid()}-{number}"
                answers = [last_of(client, subject, kind, level, document(kind, old), document(kind, new)) for client in (ours, other)]
                found[level][name] = (answers[0], answers[1])
    server.close()
    for level in ("BACKWARD", "FORWARD"):
        assert {name for name, answer in found[level].items() if answer == (200, 409)} == STRICTER[kind, level]
        assert {name for name, answer in found[level].items() if answer == (409, 200)} == LAXER[kind, level]
        assert {name for name, (_, theirs) in found[level].items() if theirs not in (200, 409)} == FAILS[kind]
    for name, full in found["FULL"].items():
        for answer, backward, forward in zip(full, found["BACKWARD"][name], found["FORWARD"][name], strict=True):
            assert (answer == 200) == (backward == forward == 200), f"{name}: FULL is both"


@pytest.mark.parametrize(("kind", "level"), CHAINS)
def test_both_look_at_all_versions_only_when_told_to(apicurio: ApicurioServer, kind: str, level: str) -> None:
    texts = CHAINS[kind, level]
    documents = [document(kind, {"type": text} if kind == "JSON" else f'syntax = "proto3"; message M {{ {text} }}') for text in texts]
    if (kind, level) == ("JSON", "FULL"):
        documents[2] = documents[2].replace('"required"', ' "required"').replace("false", 'false, "$comment": "x"')
    server = RegistryServer().start()
    with httpx.Client(base_url=server.url) as ours, httpx.Client(base_url=apicurio.url, timeout=30.0) as other:
        for asked, status in ((level, 200), (f"{level}_TRANSITIVE", 409)):
            subject = f"chain-{kind}-{asked}-{os.getpid()}"
            answers = [last_of(client, subject, kind, asked, *documents) for client in (ours, other)]
            assert answers == [status, status], asked
    server.close()


def document(kind: str, schema: Any) -> str:
    return whole(schema) if kind == "JSON" else str(schema)


def last_of(client: httpx.Client, subject: str, kind: str, level: str, *texts: str) -> int:
    """Register versions, all but the last whatever they are, and return the status of the last."""
    for number, text in enumerate(texts):
        asked = level if number == len(texts) - 1 else "NONE"
        assert client.put(f"/config/{subject}", json={"compatibility": asked}).status_code == 200
        answer = client.post(f"/subjects/{subject}/versions", json={"schema": text, "schemaType": kind})
        assert number == len(texts) - 1 or answer.status_code == 200, answer.text
    return answer.status_code
