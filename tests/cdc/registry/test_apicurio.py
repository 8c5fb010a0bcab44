"""The embedded registry against Apicurio, where Apicurio does as Confluent's documentation says.

Left out, since Apicurio answers otherwise there (3.3.3): the default level (NONE), the level of a subject that has none (the global one
instead of 40408), compatibility of a missing subject (true instead of 40401), versions that are no numbers (40402 instead of 42202),
HTTP 409 instead of 404 for deletes out of order, modes that are stored and not enforced, no messages with `verbose`, a missing schema
(500), compatibility checks of the level without TRANSITIVE against all versions, attributes' order and `doc` that do not count.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from cdc import Registry
from cdc.registry.client import IncompatibleError, NotFoundError, Reference
from cdc.registry.rules import LEVELS
from cdc.registry.server import RegistryServer
from tests.apicurio_server import ApicurioServer
from tests.cdc.registry.test_rules import BASE, CHANGES

pytestmark = [pytest.mark.cdc, pytest.mark.slow]

UNIQUE = f"t{os.getpid()}"
MONEY = {"type": "record", "name": "Money", "fields": [{"name": "cents", "type": "long"}]}
BILL = {"type": "record", "name": "Bill", "fields": [{"name": "total", "type": "Money"}]}


class Both:
    """Asks both registries the same, and returns what both answer."""

    def __init__(self, embedded: str, apicurio: str) -> None:
        self._clients = [httpx.Client(base_url=embedded), httpx.Client(base_url=apicurio)]
        self._ids: list[dict[int, int]] = [{}, {}]  # ids differ: they are numbered in the order in which they are first seen

    def __call__(self, method: str, path: str, body: Any = None, *, keep: tuple[str, ...] = ()) -> tuple[int, Any]:
        found = [self._ask(number, method, path, body, keep) for number in range(2)]
        assert found[0] == found[1], f"{method} {path}: embedded {found[0]}, Apicurio {found[1]}"
        return found[0]

    def _ask(self, number: int, method: str, path: str, body: Any, keep: tuple[str, ...]) -> tuple[int, Any]:
        answer = self._clients[number].request(method, path, json=body)
        found = answer.json()
        if isinstance(found, dict):
            if answer.status_code >= 400:
                return answer.status_code, found["error_code"]
            if "id" in found:
                found["id"] = self._ids[number].setdefault(found["id"], len(self._ids[number]) + 1)
            if "schema" in found:
                found["schema"] = json.loads(found["schema"])
            found = {name: value for name, value in found.items() if name in keep} if keep else found
        return answer.status_code, found

    def close(self) -> None:
        for client in self._clients:
            client.close()


@pytest.fixture
def both(apicurio: ApicurioServer) -> Iterator[Both]:
    server = RegistryServer().start()
    made = Both(server.url, apicurio.url)
    yield made
    made.close()
    server.close()


def schema(of: Any, **more: Any) -> dict[str, Any]:
    return {"schema": json.dumps(of), **more}


@pytest.mark.parametrize("level", LEVELS)
def test_both_take_and_refuse_the_same_new_versions(both: Both, level: str) -> None:
    for change, (new, backward, forward) in CHANGES.items():
        subject = f"/subjects/{UNIQUE}-{level}-{change}/versions"
        assert both("PUT", f"/config/{UNIQUE}-{level}-{change}", {"compatibility": level}, keep=("compatibility",))[0] == 200
        both("POST", subject, schema(BASE), keep=("id",))
        status, _ = both("POST", subject, schema(new), keep=("id",))
        kind = level.removesuffix("_TRANSITIVE")
        allowed = {"NONE": True, "BACKWARD": backward, "FORWARD": forward, "FULL": backward and forward}[kind]
        assert status == (200 if allowed else 409)


@pytest.mark.parametrize("level", ["BACKWARD", "BACKWARD_TRANSITIVE"])
def test_both_look_at_all_versions_only_when_told_to(both: Both, level: str) -> None:
    name = f"{UNIQUE}-all-{level}"
    both("PUT", f"/config/{name}", {"compatibility": level}, keep=("compatibility",))
    fields = [
        [{"name": "a", "type": "string"}],
        [{"name": "a", "type": "string"}, {"name": "b", "type": "int", "default": 0}],
        [{"name": "a", "type": "string"}, {"name": "b", "type": "int"}],
    ]
    answers = [
        both("POST", f"/subjects/{name}/versions", schema({"type": "record", "name": "R", "fields": f}), keep=("id",))[0] for f in fields
    ]
    assert answers == [200, 200, 200 if level == "BACKWARD" else 409]


def test_both_answer_the_same_about_versions_and_ids(both: Both) -> None:
    name = f"{UNIQUE}-versions"
    path = f"/subjects/{name}"
    both("PUT", f"/config/{name}", {"compatibility": "NONE"}, keep=("compatibility",))
    first = both("POST", f"{path}/versions", schema(BASE), keep=("id",))
    assert both("POST", f"{path}/versions", schema(BASE), keep=("id",)) == first
    assert both("POST", f"{path}-other/versions", schema(BASE), keep=("id",)) == first, "the same schema has the same id elsewhere"
    both("POST", f"{path}/versions", schema(CHANGES["rename"][0]), keep=("id",))
    assert both("GET", f"{path}/versions") == (200, [1, 2])
    for version in ("1", "2", "latest"):
        both("GET", f"{path}/versions/{version}", keep=("subject", "version", "id", "schema"))
        both("GET", f"{path}/versions/{version}/schema")
    assert both("POST", path, schema(BASE), keep=("subject", "version", "id"))[0] == 200
    assert both("POST", path, schema(CHANGES["long_to_int"][0])) == (404, 40403)
    assert both("POST", f"{path}-none", schema(BASE)) == (404, 40401)
    assert both("GET", f"{path}-none/versions") == (404, 40401)
    assert both("GET", f"{path}/versions/9") == (404, 40402)
    assert both("GET", "/schemas/ids/999999") == (404, 40403)
    assert both("POST", f"{path}/versions", {"schema": '{"type":"recrd"}'}) == (422, 42201)
    assert both("PUT", f"/config/{name}", {"compatibility": "SOMETIMES"}) == (422, 42203)


def test_both_delete_softly_then_for_good_and_keep_what_is_referred_to(both: Both) -> None:
    name = f"{UNIQUE}-money"
    both("PUT", f"/config/{UNIQUE}-bill", {"compatibility": "NONE"}, keep=("compatibility",))
    both("POST", f"/subjects/{name}/versions", schema(MONEY), keep=("id",))
    reference = {"name": "Money", "subject": name, "version": 1}
    assert both("POST", f"/subjects/{UNIQUE}-bill/versions", schema(BILL, references=[reference]), keep=("id",))[0] == 200
    unknown = {**reference, "version": 7}
    assert both("POST", f"/subjects/{UNIQUE}-bill/versions", schema(BILL, references=[unknown])) == (422, 42201)
    assert both("DELETE", f"/subjects/{name}/versions/1") == (422, 42206)
    assert both("DELETE", f"/subjects/{UNIQUE}-bill") == (200, [1])
    assert both("DELETE", f"/subjects/{UNIQUE}-bill?permanent=true") == (200, [1])
    assert both("DELETE", f"/subjects/{name}/versions/1") == (200, 1)
    assert both("GET", f"/subjects/{name}/versions/1")[0] == 404
    assert both("DELETE", f"/subjects/{name}/versions/1?permanent=true") == (200, 1)


async def test_client_speaks_to_apicurio(apicurio: ApicurioServer) -> None:
    client = Registry(apicurio.url)
    subject = f"{UNIQUE}-client"
    await client.set_level("BACKWARD", subject)
    first = await client.register(subject, json.dumps(BASE))
    assert await client.look_up(subject, json.dumps(BASE)) == first
    with pytest.raises(IncompatibleError):
        await client.register(subject, json.dumps(CHANGES["rename"][0]))
    with pytest.raises(NotFoundError):
        await client.version(f"{subject}-none")
    await client.register(f"{subject}-money", json.dumps(MONEY))
    bill = await client.register(f"{subject}-bill", json.dumps(BILL), references=[Reference("Money", f"{subject}-money", 1)])
    assert [json.loads(text) for text in (await client.get(bill)).resolved] == [MONEY]
    assert (await client.level(subject), subject in await client.subjects()) == ("BACKWARD", True)
    await client.close()
