"""Normal forms: the same schema, written in another way, is found where a client or a subject asks for it."""

import json

import pytest

from tests.cdc.registry.conftest import Client

USER = json.dumps({"type": "record", "name": "User", "fields": [{"name": "id", "type": "long"}]})
NORMAL = {
    "AVRO": (
        {"type": "record", "name": "R", "namespace": "n", "fields": [{"name": "f", "type": {"type": "E", "x": 1}}]},
        {"fields": [{"type": {"x": 1, "type": "n.E"}, "name": "f"}], "name": "n.R", "type": "record"},
    ),
    "JSON": ({"type": "object", "required": ["a"]}, {"required": ["a"], "type": "object"}),
    "PROTOBUF": (
        'syntax = "proto3"; message M { int32 n = 1; /* that */ string s = 2; }',
        'syntax = "proto3"; message M { string s = 2; int32 n = 1; }',
    ),
}


def test_register_normalized_ignores_the_order_of_attributes(call: Client) -> None:
    turned = json.dumps({"name": "User", "fields": [{"type": "long", "name": "id"}], "type": "record"})
    first = call.register("a", USER)
    assert call("POST", "/subjects/a/versions?normalize=true", {"schema": turned})["id"] == first
    assert call.register("a", turned) != first


@pytest.mark.parametrize("kind", NORMAL)
def test_normal_forms_of_all_kinds_are_found(call: Client, kind: str) -> None:
    one, other = NORMAL[kind]
    if kind == "AVRO":
        inner = {"type": "enum", "name": "E", "symbols": ["A"]}
        one["fields"][0]["type"], other["fields"][0]["type"] = inner, {**inner, "name": "n.E"}  # type: ignore[index]
    texts = [text if isinstance(text, str) else json.dumps(text) for text in (one, other)]
    first = call.register("a", texts[0], schemaType=kind)
    body = {"schema": texts[1], "schemaType": kind}
    assert call.code("POST", "/subjects/a", body) == 40403
    assert call("POST", "/subjects/a?normalize=true", body)["id"] == first
    assert call("PUT", "/config/a", {"normalize": True}) == {"normalize": True}
    assert call("GET", "/config/a") == {"compatibilityLevel": "BACKWARD", "normalize": True}
    assert call("POST", "/subjects/a", body)["id"] == first
    assert call("POST", "/subjects/a/versions", body) == {"id": first}


def test_another_order_of_messages_is_another_schema(call: Client) -> None:
    """Records carry the index of their message."""
    texts = ['syntax = "proto3"; message A { } message B { }', 'syntax = "proto3"; message B { } message A { }']
    call.register("a", texts[0], schemaType="PROTOBUF")
    assert call.code("POST", "/subjects/a?normalize=true", {"schema": texts[1], "schemaType": "PROTOBUF"}) == 40403
