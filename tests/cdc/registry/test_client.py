"""The client against the embedded registry over HTTP, and against a network that fails."""

import json
from collections.abc import Iterator

import httpx
import pytest
from click.testing import CliRunner

from cdc.registry.client import IncompatibleError, NotFoundError, Reference, Registry
from cdc.registry.server import RegistryServer, registry
from engine.errors import ConfigError, UnavailableError
from tests.cdc.registry.test_api import BAD_2, USER, USER_2


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    running = RegistryServer().start()
    yield running
    running.close()


async def test_client_registers_and_reads(server: RegistryServer) -> None:
    client = Registry(server.url)
    first = await client.register("orders-value", USER)
    assert await client.register("orders-value", USER) == first
    assert (await client.get(first)).text == USER
    assert client.schema(first).text == USER
    assert await client.look_up("orders-value", USER) == first
    assert await client.subjects() == ["orders-value"]
    second = await client.register("orders-value", USER_2)
    latest = await client.version("orders-value")
    assert (latest.version, latest.id) == (2, second)
    assert await client.versions("orders-value") == [1, 2]
    assert await client.check("orders-value", USER) == (True, [])
    compatible, reasons = await client.check("orders-value", BAD_2, version=1)
    assert not compatible
    assert "no default" in reasons[0]
    await client.set_level("FORWARD", "orders-value")
    assert (await client.level("orders-value"), await client.level()) == ("FORWARD", "BACKWARD")
    await client.delete("orders-value", 1)
    await client.delete("orders-value")
    await client.delete("orders-value", permanent=True)
    assert await client.subjects() == []
    await client.close()


async def test_client_subjects_with_odd_names_are_quoted(server: RegistryServer) -> None:
    client = Registry(server.url)
    await client.register("a/b c?d-välue", USER)
    assert await client.subjects() == ["a/b c?d-välue"]
    assert await client.versions("a/b c?d-välue") == [1]
    await client.close()


async def test_client_errors_say_who_acts(server: RegistryServer) -> None:
    client = Registry(server.url)
    await client.register("s", USER)
    with pytest.raises(IncompatibleError, match="has no default"):
        await client.register("s", BAD_2)
    with pytest.raises(NotFoundError, match="40401"):
        await client.version("none")
    with pytest.raises(ConfigError, match="42201"):
        await client.register("s", '{"type":"recrd"}')
    with pytest.raises(UnavailableError, match="has not been fetched"):
        client.schema(77)
    await client.fetch_ids([77])
    with pytest.raises(NotFoundError, match="no schema of id 77"):
        client.schema(77)
    await client.close()


async def test_client_resolves_references(server: RegistryServer) -> None:
    client = Registry(server.url)
    await client.register("city", json.dumps({"type": "record", "name": "City", "fields": []}))
    inner = Reference("City", "city", 1)
    address = json.dumps({"type": "record", "name": "Address", "fields": [{"name": "city", "type": "City"}]})
    await client.register("address", address, references=[inner])
    person = json.dumps({"type": "record", "name": "Person", "fields": [{"name": "home", "type": "Address"}]})
    outer = await client.register("person", person, references=[Reference("Address", "address", 1)])
    fresh = Registry(server.url)
    found = await fresh.get(outer)
    assert [json.loads(text)["name"] for text in found.resolved] == ["City", "Address"]
    await fresh.close()
    await client.close()


def counting(answers: list[httpx.Response | Exception], asked: list[httpx.Request]) -> httpx.MockTransport:
    """Return a network that gives these answers one after another."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        found = answers[min(len(asked), len(answers)) - 1]
        if isinstance(found, Exception):
            raise found
        return found

    return httpx.MockTransport(answer)


def client_of(answers: list[httpx.Response | Exception], asked: list[httpx.Request], **options: object) -> Registry:
    settings = {"retry_first_s": 0.0, "retry_max_s": 0.0, "transport": counting(answers, asked), **options}
    return Registry(["http://one", "http://two"], **settings)  # type: ignore[arg-type]  # options by name


async def test_client_tries_again_at_the_next_address() -> None:
    asked: list[httpx.Request] = []
    failures: list[httpx.Response | Exception] = [
        httpx.ConnectError("refused"),
        httpx.Response(503),
        httpx.Response(200, json={"schema": '"int"'}),
    ]
    client = client_of(failures, asked)
    assert (await client.get(5)).text == '"int"'
    assert [request.url.host for request in asked] == ["one", "two", "one"]
    await client.get(5)
    assert len(asked) == 3, "a schema of an id is asked for once"
    await client.close()


async def test_client_gives_up_after_its_attempts() -> None:
    asked: list[httpx.Request] = []
    client = client_of([httpx.ReadTimeout("slow")], asked, attempts=3)
    with pytest.raises(UnavailableError, match=r"after 3 attempts.*ReadTimeout"):
        await client.fetch_ids([1])
    assert len(asked) == 3
    await client.close()


async def test_client_an_id_that_was_unknown_is_asked_for_again() -> None:
    asked: list[httpx.Request] = []
    missing = httpx.Response(404, json={"error_code": 40403, "message": "Schema 1 not found"})
    client = client_of([missing, httpx.Response(200, json={"schema": '"int"'})], asked)
    await client.fetch_ids([1])
    with pytest.raises(NotFoundError):
        client.schema(1)
    await client.fetch_ids([1])
    assert client.schema(1).text == '"int"'
    await client.close()


@pytest.mark.parametrize("answer", [httpx.Response(404, text="<html>"), httpx.Response(404, json={"error_code": 404, "message": "no"})])
async def test_client_a_404_of_somebody_else_is_no_unknown_id(answer: httpx.Response) -> None:
    """A gateway without its registry, or a wrong address, would make a bad record of every record."""
    client = client_of([answer], [], attempts=2)
    with pytest.raises(UnavailableError, match="is this its address"):
        await client.fetch_ids([1])
    await client.close()


async def test_client_level_of_a_registry_that_knows_no_default_is_the_global_one() -> None:
    missing = httpx.Response(404, json={"error_code": 40401, "message": "Subject not found."})
    client = client_of([missing, httpx.Response(200, json={"compatibilityLevel": "FULL"})], [])
    assert await client.level("orders-value") == "FULL"
    await client.close()


async def test_client_reads_what_refers_to_a_version_deleted_softly(server: RegistryServer) -> None:
    """Records of the deleted schema may still be in a topic."""
    client = Registry(server.url)
    await client.register("users", USER)
    outer = json.dumps({"type": "record", "name": "Outer", "fields": [{"name": "user", "type": "User"}]})
    found = await client.register("outer", outer, references=[Reference("User", "users", 1)])
    await client.delete("outer")
    await client.delete("users")
    again = Registry(server.url)
    assert (await again.get(found)).resolved == (USER,)
    await client.close()
    await again.close()


@pytest.mark.parametrize(("auth", "header"), [(("me", "pw"), "Basic bWU6cHc="), ("token", "Bearer token")])
async def test_client_identifies_itself(auth: tuple[str, str] | str, header: str) -> None:
    asked: list[httpx.Request] = []
    client = client_of([httpx.Response(200, json=[])], asked, auth=auth)
    await client.subjects()
    assert asked[0].headers["Authorization"] == header
    await client.close()


@pytest.mark.parametrize(("status", "said"), [(401, "401"), (403, "403")])
async def test_client_refused_is_a_config_error(status: int, said: str) -> None:
    client = client_of([httpx.Response(status, text="no")], [])
    with pytest.raises(ConfigError, match=said):
        await client.subjects()
    await client.close()


async def test_client_an_answer_that_is_no_json_says_so() -> None:
    client = client_of([httpx.Response(200, text="<html>")], [])
    with pytest.raises(ConfigError, match="is this the address of a schema registry"):
        await client.subjects()
    await client.close()


def test_client_wrong_settings_are_a_config_error() -> None:
    with pytest.raises(ConfigError, match="http://host"):
        Registry("registry:8081")
    with pytest.raises(ConfigError, match="certificates"):
        Registry("https://registry", cafile="/nowhere/ca.pem")


def test_server_refuses_what_is_no_json(server: RegistryServer) -> None:
    answer = httpx.post(f"{server.url}/subjects/a/versions", content=b"{")
    assert (answer.status_code, answer.json()["error_code"]) == (400, 400)


@pytest.mark.parametrize("method", ["PATCH", "OPTIONS"])
def test_server_answers_other_methods_as_the_api_does(server: RegistryServer, method: str) -> None:
    answer = httpx.request(method, f"{server.url}/subjects")
    assert (answer.status_code, answer.json()["error_code"]) == (405, 405)


def test_registry_command_says_when_the_port_is_taken(server: RegistryServer) -> None:
    port = server.url.rpartition(":")[2]
    result = CliRunner().invoke(registry, ["--port", port, "--file", ":memory:"])
    assert result.exit_code == 1
    assert f"127.0.0.1:{port}" in result.output
