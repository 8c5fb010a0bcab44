"""The registry over HTTP: content types, bodies that are no JSON, methods."""

import http.client
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from cdc.registry.server import CONTENT_TYPES, RegistryServer, content_type, registry

V1, PLAIN, JSON = CONTENT_TYPES


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    server = RegistryServer().start()
    with httpx.Client(base_url=server.url) as made:
        yield made
    server.close()


@pytest.mark.parametrize(
    ("accept", "found"),
    [
        (None, V1),
        ("*/*", V1),
        ("application/json", JSON),
        (f"{JSON}; q=0.5, {PLAIN}; q=0.9, {V1}", V1),
        (f"{V1};q=0.1, application/json", JSON),
        ("application/*;q=0.5, text/html", V1),
        (f"{V1};q=0, application/json;q=0", None),
        ("text/plain", None),
    ],
)
def test_answers_are_of_the_type_that_the_client_likes_best(accept: str | None, found: str | None) -> None:
    assert content_type(accept) == found


@pytest.mark.parametrize("sent", [*CONTENT_TYPES, "application/octet-stream", "application/json; charset=utf-8", None])
def test_requests_may_be_of_every_type_of_the_api(client: httpx.Client, sent: str | None) -> None:
    headers = {} if sent is None else {"Content-Type": sent}
    answer = client.post("/subjects/a/versions", content=b'{"schema": "\\"string\\""}', headers=headers)
    assert (answer.status_code, answer.json(), answer.headers["content-type"]) == (200, {"id": 1}, V1)


def test_other_types_are_refused(client: httpx.Client) -> None:
    answer = client.post("/subjects/a/versions", content=b"schema=string", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (answer.status_code, answer.json()["error_code"]) == (415, 415)
    answer = client.get("/subjects", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.json()["error_code"]) == (406, 406)
    answer = client.post("/subjects/a/versions", content=b"{", headers={"Content-Type": JSON})
    assert (answer.status_code, answer.json()["error_code"]) == (400, 400)


def test_bodies_without_a_length_are_refused_and_the_connection_is_closed(client: httpx.Client) -> None:
    answer = client.post("/subjects/a/versions", content=iter([b"{}"]))
    assert (answer.status_code, answer.json()["error_code"]) == (411, 411)
    connection = http.client.HTTPConnection(client.base_url.host, client.base_url.port or 0, timeout=10)
    connection.request("GET", "/subjects", headers={"Content-Length": "-1"})
    assert connection.getresponse().status == 400
    connection.close()
    assert client.get("/subjects").json() == [], "and the next one is a new one"


def test_a_store_that_fails_is_error_50001(tmp_path: Path) -> None:
    server = RegistryServer(str(tmp_path / "schemas.sqlite")).start()
    other = sqlite3.connect(tmp_path / "schemas.sqlite")
    other.execute("drop table versions")
    answer = httpx.get(f"{server.url}/subjects")
    assert (answer.status_code, answer.json()["error_code"]) == (500, 50001)
    other.close()
    server.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--file", "{tmp}/bad.sqlite"], "bad.sqlite cannot hold the schemas: file is not a database"),
        (["--file", "{tmp}"], "cannot hold the schemas: unable to open database file"),
        (["--file", "{tmp}/bad.sqlite/x"], "--file"),
        (["--port", "99999"], "0<=x<=65535"),
        (["--host", "203.0.113.9", "--file", ":memory:"], "203.0.113.9:8081: "),
    ],
)
def test_command_says_what_is_in_its_way(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "bad.sqlite").write_bytes(bytes(range(256)) * 20)
    done = CliRunner().invoke(registry, [argument.replace("{tmp}", str(tmp_path)) for argument in arguments])
    assert (done.exit_code in (1, 2), words in done.output) == (True, True), done.output


def test_errors_and_heads_have_the_type_too(client: httpx.Client) -> None:
    answer = client.get("/schemas/ids/1", headers={"Accept": JSON})
    assert (answer.status_code, answer.headers["content-type"], answer.json()["error_code"]) == (404, JSON, 40403)
    answer = client.head("/subjects")
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "2")


def test_subjects_with_slashes_and_spaces_are_one_part_of_the_path(client: httpx.Client) -> None:
    assert client.post("/subjects/a%2Fb%20c%2Bd/versions", json={"schema": '"string"'}).status_code == 200
    assert client.get("/subjects").json() == ["a/b c+d"]
    assert client.get("/subjects", params={"subjectPrefix": "a/b c+"}).json() == ["a/b c+d"]
