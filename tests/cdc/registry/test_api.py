"""The embedded registry answers as Confluent's documentation says, error codes included."""

import json
from pathlib import Path
from typing import Any

import pytest

from cdc.registry.rules import LEVELS
from cdc.registry.store import SchemaStore
from tests.cdc.registry.conftest import Client

USER = json.dumps({"type": "record", "name": "User", "fields": [{"name": "id", "type": "long"}]})
USER_2 = json.dumps(
    {"type": "record", "name": "User", "fields": [{"name": "id", "type": "long"}, {"name": "n", "type": "int", "default": 0}]}
)
BAD_2 = json.dumps({"type": "record", "name": "User", "fields": [{"name": "id", "type": "long"}, {"name": "n", "type": "int"}]})


def test_register_same_schema_gives_the_same_id_everywhere(call: Client) -> None:
    first = call.register("a", USER)
    assert call.register("a", json.dumps(json.loads(USER), indent=2)) == first, "white space does not count"
    assert call.register("b", USER) == first
    second = call.register("a", USER_2)
    assert second != first
    assert call("GET", "/subjects") == ["a", "b"]
    assert call("GET", "/subjects?subjectPrefix=b") == ["b"]
    assert call("GET", "/subjects/a/versions") == [1, 2]
    assert call("GET", f"/schemas/ids/{first}") == {"schema": USER}
    assert call("GET", f"/schemas/ids/{first}/schema") == USER
    assert call("GET", f"/schemas/ids/{first}/subjects") == ["a", "b"]
    assert call("GET", f"/schemas/ids/{first}/versions") == [{"subject": "a", "version": 1}, {"subject": "b", "version": 1}]
    assert call("GET", "/subjects/a/versions/latest") == {"subject": "a", "version": 2, "id": second, "schema": USER_2}
    assert call("GET", "/subjects/a/versions/-1/schema") == USER_2
    assert call("POST", "/subjects/a", {"schema": USER})["version"] == 1
    assert len(call("GET", "/schemas")) == 3
    assert len(call("GET", "/schemas?latestOnly=true")) == 2


def test_register_incompatible_is_refused_with_the_reason(call: Client) -> None:
    call.register("a", USER)
    answer = call("POST", "/subjects/a/versions", {"schema": BAD_2}, status=409)
    assert answer["error_code"] == 409
    assert "field User.n is not in the written data and has no default" in answer["message"]
    call("PUT", "/config/a", {"compatibility": "none"})
    call.register("a", BAD_2)


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("GET", "/subjects/none/versions", None, 40401),
        ("GET", "/subjects/a/versions/9", None, 40402),
        ("GET", "/subjects/a/versions/0", None, 42202),
        ("GET", "/subjects/a/versions/abc", None, 42202),
        ("GET", "/schemas/ids/99", None, 40403),
        ("GET", "/schemas/ids/abc", None, 404),
        ("POST", "/subjects/a", {"schema": USER_2}, 40403),
        ("POST", "/subjects/none", {"schema": USER}, 40401),
        ("POST", "/subjects/a/versions", {}, 42201),
        ("POST", "/subjects/a/versions", None, 422),
        ("POST", "/subjects/a/versions", [], 400),
        ("POST", "/subjects/a/versions", {"schema": '{"type":"recrd"}'}, 42201),
        ("POST", "/subjects/a/versions", {"schema": "{"}, 42201),
        ("POST", "/subjects/a/versions", {"schema": "[" * 100_000}, 42201),
        ("POST", "/subjects/a/versions", {"schema": '{"type":"array","items":' * 300 + '"int"' + "}" * 300, "schemaType": "XML"}, 42201),
        ("POST", "/subjects/a/versions", {"schema": '{"not":' * 100_000, "schemaType": "JSON"}, 42201),
        ("POST", "/subjects/a/versions", {"schema": USER, "schemaType": "XML"}, 42201),
        ("POST", "/subjects/a/versions", {"schema": USER, "references": [{"name": "X", "subject": "x", "version": 1}]}, 42201),
        ("POST", "/subjects/a/versions", {"schema": USER_2, "id": 7}, 42205),
        ("GET", "/config/a", None, 40408),
        ("DELETE", "/config/a", None, 40401),
        ("DELETE", "/mode/a", None, 40401),
        ("PUT", "/config", {"compatibility": "SOMETIMES"}, 42203),
        ("GET", "/mode/a", None, 40409),
        ("PUT", "/mode", {"mode": "OFF"}, 42204),
        ("PUT", "/mode", {"mode": "IMPORT"}, 42205),
        ("POST", "/compatibility/subjects/none/versions/latest", {"schema": USER}, 40401),
        ("DELETE", "/subjects/a?permanent=true", None, 40405),
        ("DELETE", "/subjects/a/versions/1?permanent=true", None, 40407),
        ("GET", "/schemas/ids/1?format=resolved", None, 422),
        ("GET", "/subjects/a/versions/1/schema?format=resolved", None, 422),
        ("GET", "/schemas/ids/-5", None, 40403),
        ("GET", "/schemas/ids/5000000000", None, 404),
        ("GET", "/schemas/ids/99/schema", None, 40403),
        ("GET", "/schemas/ids/99/subjects", None, 40403),
        ("GET", "/schemas/ids/99/versions", None, 40403),
        ("GET", "/subjects/a/versions/-2", None, 42202),
        ("GET", "/subjects/a/versions/9/schema", None, 40402),
        ("GET", "/subjects/none/versions/1/schema", None, 40401),
        ("GET", "/subjects/a/versions/9/referencedby", None, 40402),
        ("GET", "/subjects/none/versions/1/referencedby", None, 40401),
        ("GET", "/subjects?limit=many", None, 404),
        ("POST", "/subjects/a/versions", {"schema": USER_2, "version": 7}, 42201),
        ("POST", "/subjects/a/versions", {"schema": USER_2, "id": "7"}, 400),
        ("POST", "/subjects/a/versions", {"schema": USER_2, "ruleSet": {"domainRules": []}}, 42210),
        ("POST", "/subjects/a/versions", {"schema": USER_2, "metadata": {"properties": {}}}, 42205),
        ("POST", "/subjects/a/versions", {"schema": USER_2, "schemaTagsToAdd": [{"tags": ["PII"]}]}, 42205),
        ("POST", "/subjects/a", {"schema": USER, "ruleSet": {"migrationRules": []}}, 42210),
        ("GET", "/subjects/a/metadata?key=owner&value=shop", None, 40403),
        ("GET", "/subjects/none/metadata?key=owner&value=shop", None, 40401),
        ("POST", "/subjects/__GLOBAL/versions", {"schema": USER}, 42208),
        ("POST", "/subjects/a%0Ab/versions", {"schema": USER}, 42208),
        ("POST", "/subjects/:.ctx:a/versions", {"schema": USER}, 42208),
        ("GET", "/subjects/:.ctx:a/versions", None, 40401),
        ("POST", "/subjects/a", {"schema": "{"}, 42201),
        ("POST", "/compatibility/subjects/a/versions/9", {"schema": USER}, 40402),
        ("POST", "/compatibility/subjects/a/versions/x", {"schema": USER}, 42202),
        ("POST", "/compatibility/subjects/a/versions/1", {"schema": "{"}, 42201),
        ("POST", "/compatibility/subjects/a/versions", {"schema": "{"}, 42201),
        ("PUT", "/config", {}, 42203),
        ("PUT", "/config", {"compatibility": "FULL", "alias": "b"}, 42205),
        ("PUT", "/config/a", {"compatibilityGroup": "major"}, 42205),
        ("PUT", "/config/a", {"defaultMetadata": {"properties": {}}}, 42205),
        ("PUT", "/config", {"compatibility": "FULL", "overrideRuleSet": {"domainRules": []}}, 42210),
        ("PUT", "/config/:.ctx:a", {"compatibility": "FULL"}, 42208),
        ("PUT", "/mode/:.ctx:a", {"mode": "READONLY"}, 42208),
        ("GET", "/config/:.ctx:a", None, 40408),
        ("POST", "/compatibility/subjects/:.ctx:a/versions", {"schema": USER}, 42208),
        ("POST", "/compatibility/subjects/:.ctx:a/versions/latest", {"schema": USER}, 42208),
        ("DELETE", "/subjects/none", None, 40401),
        ("DELETE", "/subjects/none/versions/1", None, 40401),
        ("DELETE", "/subjects/a/versions/9", None, 40402),
        ("DELETE", "/subjects/a/versions/x", None, 42202),
        ("DELETE", "/subjects/a/versions/latest?permanent=true", None, 40407),
        ("GET", "/nothing", None, 404),
        ("PATCH", "/subjects", None, 405),
    ],
)
def test_errors_have_their_codes(call: Client, method: str, path: str, body: Any, code: int) -> None:
    call.register("a", USER)
    assert call.code(method, path, body) == code


def test_delete_soft_then_hard(call: Client) -> None:
    first = call.register("a", USER)
    call.register("a", USER_2)
    assert call("DELETE", "/subjects/a/versions/1") == 1
    assert call.code("DELETE", "/subjects/a/versions/1") == 40406
    assert call("GET", "/subjects/a/versions") == [2]
    assert call("GET", "/subjects/a/versions?deleted=true") == [1, 2]
    assert call("GET", f"/schemas/ids/{first}") == {"schema": USER}, "an id is good for ever"
    assert call("DELETE", "/subjects/a/versions/1?permanent=true") == 1
    assert call.code("GET", "/subjects/a/versions/1?deleted=true") == 40402
    assert call("DELETE", "/subjects/a") == [2]
    assert call.code("DELETE", "/subjects/a") == 40404
    assert call("GET", "/subjects") == []
    assert call("GET", "/subjects?deletedOnly=true") == ["a"]
    assert call("DELETE", "/subjects/a?permanent=true") == [2]
    assert call("GET", "/subjects?deleted=true") == []
    assert call.code("GET", f"/schemas/ids/{first}") == 40403, "what is deleted for good takes its id along"
    assert call.register("a", USER) == first + 2, "and no id is given twice"


def test_delete_for_good_forgets_level_and_mode(call: Client) -> None:
    call.register("a", USER)
    call.register("b", USER)
    call("PUT", "/config/a", {"compatibility": "FULL"})
    call("PUT", "/mode/a", {"mode": "READWRITE"})
    call("DELETE", "/subjects/a")
    assert call("GET", "/config/a") == {"compatibilityLevel": "FULL"}
    call("DELETE", "/subjects/a/versions/1?permanent=true")
    assert (call.code("GET", "/config/a"), call.code("GET", "/mode/a")) == (40408, 40409)
    assert call("GET", "/schemas/ids/1") == {"schema": USER}, "b has it still"


def test_delete_of_a_subject_that_is_referred_to_deletes_nothing(call: Client) -> None:
    for number, text in enumerate((USER, USER_2), 1):
        call.register("a", text)
        outer = {"type": "record", "name": f"Outer{number}", "fields": [{"name": "user", "type": "User"}]}
        call.register(f"outer-{number}", json.dumps(outer), references=[{"name": "User", "subject": "a", "version": number}])
    call("DELETE", "/subjects/outer-1")
    assert call.code("DELETE", "/subjects/a") == 42206
    assert call("GET", "/subjects/a/versions") == [1, 2]
    call("DELETE", "/subjects/outer-2")
    call("DELETE", "/subjects/a")
    assert call.code("DELETE", "/subjects/a?permanent=true") == 42206, "outer-1 and outer-2 may come back"
    assert call("GET", "/subjects/a/versions/1/referencedby?deleted=true") == [2]
    assert call("GET", "/subjects/a/versions/1/referencedby") == []


def test_register_again_after_a_soft_delete_takes_the_place_of_the_deleted_version(call: Client) -> None:
    first = call.register("a", USER)
    call("DELETE", "/subjects/a/versions/1")
    assert call.register("a", USER) == first
    assert call("GET", "/subjects/a/versions?deleted=true") == [2]


def test_lists_are_cut_by_offset_and_limit(call: Client) -> None:
    for number, text in enumerate((USER, USER_2, '"string"')):
        call("PUT", "/config", {"compatibility": "NONE"})
        call.register("a", text)
        call.register(f"s{number}", USER)
    assert call("GET", "/subjects?offset=1&limit=2") == ["s0", "s1"]
    assert call("GET", "/subjects?subjectPrefix=:*:s&limit=-1") == ["s0", "s1", "s2"]
    assert call("GET", "/subjects/a/versions?limit=1&offset=2") == [3]
    assert [each["subject"] for each in call("GET", "/schemas?subjectPrefix=s&limit=1")] == ["s0"]
    assert call("GET", "/schemas/ids/1/subjects?limit=1") == ["a"]
    assert call("GET", "/schemas/ids/1/versions?offset=1&limit=1") == [{"subject": "s0", "version": 1}]
    call("DELETE", "/subjects/a/versions/2")
    assert call("GET", "/subjects/a/versions?deletedOnly=true") == [2]
    assert call("GET", "/schemas/ids/1?fetchMaxId=true")["maxId"] == 3


def test_the_default_context_is_the_only_one(call: Client) -> None:
    assert call("GET", "/contexts") == ["."]
    call.register(":.:a", USER)
    assert call("GET", "/subjects/a/versions") == [1]
    assert set(call("GET", "/v1/metadata/version")) == {"version", "commitId"}
    assert set(call("GET", "/v1/metadata/id")) == {"id", "scope"}


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (
            "/subjects/a/versions",
            {"schema": USER, "metadata": {"properties": {"owner": "shop"}}},
            "keeps no metadata of schemas: leave them out",
        ),
        ("/subjects/a/versions", {"schema": USER, "ruleSet": {"domainRules": []}}, "keeps no rule sets: leave them out"),
        ("/subjects/:.ctx:a/versions", {"schema": USER}, "name the subject without a context, or run a registry for each"),
    ],
)
def test_what_is_not_kept_is_refused_with_what_to_do(call: Client, path: str, body: Any, words: str) -> None:
    _, answer = call.api.handle("POST", path, {}, body)
    assert words in answer["message"]
    assert call("GET", "/subjects") == []


def test_config_of_a_subject_stands_before_the_global_one(call: Client) -> None:
    assert call("GET", "/config") == {"compatibilityLevel": "BACKWARD"}
    assert call("PUT", "/config", {"compatibility": "FULL"}) == {"compatibility": "FULL"}
    assert call("GET", "/config/a?defaultToGlobal=true") == {"compatibilityLevel": "FULL"}
    call("PUT", "/config/a", {"compatibility": "FORWARD"})
    assert call("GET", "/config/a") == {"compatibilityLevel": "FORWARD"}
    assert call("DELETE", "/config/a") == {"compatibilityLevel": "FORWARD"}
    assert call("DELETE", "/config") == {"compatibilityLevel": "FULL"}
    assert call("GET", "/config") == {"compatibilityLevel": "BACKWARD"}


def test_compatibility_is_answered_with_words(call: Client) -> None:
    call.register("a", USER)
    assert call("POST", "/compatibility/subjects/a/versions/latest", {"schema": USER_2}) == {"is_compatible": True}
    answer = call("POST", "/compatibility/subjects/a/versions/1?verbose=true", {"schema": BAD_2})
    assert answer["is_compatible"] is False
    assert "has no default" in answer["messages"][0]
    call.register("a", USER_2)
    assert call("POST", "/compatibility/subjects/a/versions", {"schema": BAD_2}) == {"is_compatible": True}, "the latest has the field"
    call("PUT", "/config/a", {"compatibility": "BACKWARD_TRANSITIVE"})
    assert call("POST", "/compatibility/subjects/a/versions", {"schema": BAD_2}) == {"is_compatible": False}
    assert call("POST", "/compatibility/subjects/a/versions/2", {"schema": BAD_2}) == {"is_compatible": True}
    assert call("POST", "/compatibility/subjects/none/versions", {"schema": USER}) == {"is_compatible": True}, "it could be registered"
    answer = call("POST", "/compatibility/subjects/a/versions/2?verbose=true", {"schema": "{"})
    assert answer["is_compatible"] is False and answer["messages"][0].startswith("Invalid schema")


def test_a_subject_that_changed_its_kind_is_held_to_the_new_one(call: Client) -> None:
    call("PUT", "/config/a", {"compatibility": "NONE"})
    call.register("a", USER)
    call.register("a", '{"type":"integer"}', schemaType="JSON")
    call("PUT", "/config/a", {"compatibility": "BACKWARD"})
    call.register("a", '{"type":"number"}', schemaType="JSON")
    call("PUT", "/config/a", {"compatibility": "BACKWARD_TRANSITIVE"})
    assert call.code("POST", "/subjects/a/versions", {"schema": "{}", "schemaType": "JSON"}) == 409


def test_mode_is_enforced(call: Client) -> None:
    call("PUT", "/mode", {"mode": "IMPORT"})
    assert call.register("a", BAD_2, id=42, version=7) == 42
    assert call("GET", "/subjects/a/versions/7")["id"] == 42
    assert call.code("POST", "/subjects/a/versions", {"schema": USER, "id": 42}) == 42205
    assert call.code("POST", "/subjects/a/versions", {"schema": USER}) == 42205, "without an id"
    call("PUT", "/mode/a", {"mode": "READONLY"})
    assert call.code("POST", "/subjects/a/versions", {"schema": USER_2}) == 42205
    assert call.code("DELETE", "/subjects/a") == 42205
    assert call.code("DELETE", "/subjects/a/versions/7") == 42205
    assert call.code("PUT", "/config/a", {"compatibility": "FULL"}) == 42205
    assert call("GET", "/mode/a") == {"mode": "READONLY"}
    assert call("DELETE", "/mode/a") == {"mode": "READONLY"}
    assert call("GET", "/mode/a?defaultToGlobal=true") == {"mode": "IMPORT"}
    assert call("DELETE", "/mode") == {"mode": "IMPORT"}
    assert call.register("b", USER) == 43
    call("PUT", "/mode", {"mode": "READONLY_OVERRIDE"})
    call("PUT", "/mode/b", {"mode": "READWRITE"})
    assert call.code("POST", "/subjects/b/versions", {"schema": USER_2}) == 42205


def test_references_are_resolved_and_protected(call: Client) -> None:
    address = json.dumps({"type": "record", "name": "Address", "namespace": "x", "fields": [{"name": "city", "type": "string"}]})
    home = [{"name": "x.Address", "subject": "address", "version": 1}]
    person = {"type": "record", "name": "Person", "fields": [{"name": "home", "type": "x.Address"}]}
    inner = call.register("address", address)
    outer = call.register("person", json.dumps(person), references=home)
    assert call("GET", f"/schemas/ids/{outer}")["references"] == home
    assert call("GET", "/subjects/address/versions/1/referencedby") == [outer]
    assert call.code("DELETE", "/subjects/address/versions/1") == 42206
    assert call.code("DELETE", "/subjects/address") == 42206
    wider = json.dumps({**person, "fields": [*person["fields"], {"name": "n", "type": "int", "default": 1}]})
    assert call("POST", "/compatibility/subjects/person/versions/latest", {"schema": wider, "references": home}) == {"is_compatible": True}
    newest = [{**home[0], "version": -1}]
    again = {"schema": json.dumps({**person, "doc": "d"}), "references": newest}
    assert call("POST", "/subjects/person/versions", again)["id"] != outer
    assert call("GET", "/subjects/person/versions/latest")["references"] == home, "the latest of now"
    call("DELETE", "/subjects/person")
    call("DELETE", "/subjects/address")
    assert call("GET", f"/schemas/ids/{inner}")["schema"] == address


def test_json_schemas_are_kept_and_compared(call: Client) -> None:
    first = call.register("j", '{"type":"integer"}', schemaType="JSON")
    assert call("GET", f"/schemas/ids/{first}") == {"schemaType": "JSON", "schema": '{"type":"integer"}'}
    assert call.code("POST", "/subjects/j/versions", {"schema": '{"type":"array"}', "schemaType": "JSON"}) == 409
    call.register("j", '{"type":"number"}', schemaType="JSON")
    assert call.code("POST", "/subjects/j/versions", {"schema": "[1]", "schemaType": "JSON"}) == 42201
    assert call("GET", "/schemas/types") == ["AVRO", "JSON", "PROTOBUF"]


KINDS = {
    "JSON": ('{"type":"integer"}', '{"type":"number"}', '{"type":"string"}'),
    "PROTOBUF": (
        'syntax = "proto3"; message M { int32 n = 1; }',
        'syntax = "proto3"; message M { int32 n = 1; string s = 2; }',
        'syntax = "proto3"; message M { string n = 1; }',
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", LEVELS)
def test_levels_hold_for_json_schemas_and_protobuf_files(call: Client, kind: str, level: str) -> None:
    first, wider, other = KINDS[kind]
    call("PUT", "/config", {"compatibility": level})
    call.register("s", first, schemaType=kind)
    path = "/compatibility/subjects/s/versions/latest"
    grows_both_ways = kind == "PROTOBUF" or level.startswith(("NONE", "BACKWARD"))
    assert call("POST", path, {"schema": wider, "schemaType": kind}) == {"is_compatible": grows_both_ways}
    assert call("POST", path, {"schema": other, "schemaType": kind}) == {"is_compatible": level == "NONE"}
    if level != "NONE":
        assert call.code("POST", "/subjects/s/versions", {"schema": other, "schemaType": kind}) == 409
        assert call.code("POST", "/subjects/s/versions", {"schema": '"string"'}) == 409, "another kind of schema"
    else:
        call.register("s", '"string"')


def test_references_of_json_schemas_are_followed(call: Client) -> None:
    call.register("money", '{"type":"integer"}', schemaType="JSON")
    there = [{"name": "money.json", "subject": "money", "version": 1}]
    order = {"type": "object", "properties": {"cents": {"$ref": "money.json"}}}
    call.register("order", json.dumps(order), schemaType="JSON", references=there)
    order["properties"] = {"cents": {"type": "number"}}
    call.register("order", json.dumps(order), schemaType="JSON")
    order["properties"] = {"cents": {"type": "string"}}
    assert call.code("POST", "/subjects/order/versions", {"schema": json.dumps(order), "schemaType": "JSON"}) == 409


def test_store_reopened_holds_everything(tmp_path: Path) -> None:
    path = str(tmp_path / "schemas.sqlite")
    store = SchemaStore(path)
    first = Client(store).register("a", USER)
    Client(store)("PUT", "/config", {"compatibility": "FULL"})
    store.close()
    again = SchemaStore(path)
    call = Client(again)
    assert call("GET", "/subjects/a/versions/latest")["id"] == first
    assert call("GET", "/config") == {"compatibilityLevel": "FULL"}
    assert call.register("a", USER_2) == first + 1
    again.close()
