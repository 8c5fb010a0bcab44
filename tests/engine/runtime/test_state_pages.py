"""The pages about state, asked over HTTP of the genuine app on the memory broker; and who may ask."""

import json
import socket
import urllib.error
import urllib.parse
import urllib.request
from asyncio import sleep, timeout, to_thread
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import Struct

from engine import App, Context, MapState, Record, Sink, Stream, Table, ValueState
from engine.runtime.faust_seam.state_pages import is_allowed
from engine.runtime.faust_seam.web import web_address
from engine.runtime.transport.memory_broker import MemoryBrokers
from state.hashing import partition_of
from state.memory import MemoryStore
from tests.ports import free_port

TOKEN = "a-token-of-some-length"


class User(Struct, frozen=True):
    """A row."""

    city: str
    ts: int


class Seen:
    count = ValueState(int, default=0)
    cities = MapState(int, str)

    def on_record(self, record: Record[str, User], ctx: Context) -> None:
        self.count.set(self.count.get() + 1)
        self.cities[self.count.get()] = record.value.city


def make_app(port: int, **options: Any) -> App:
    app = App("pages", broker="memory://test-pages", partitions=2, web_port=port, commit_interval="20ms", **options)
    stores: dict[int, MemoryStore] = {}
    app.open_store = lambda number: stores.setdefault(number, MemoryStore())
    users = app.table("users", User)

    @app.pipeline(users, app.source("visits", User), name="people")
    def people(users: Table[str, User], visits: Stream[str, User]) -> list[Sink]:
        return [users.to("out"), visits.process(Seen).to("none")]

    return app


class Pages:
    """The web server of a running app."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"

    async def get(self, path: str, headers: Mapping[str, str] | None = None, **query: object) -> tuple[int, Any]:
        """Return status and answer."""
        question = "" if "?" in path else "?"
        return await to_thread(self._get, f"{self.base}{path}{question}{urllib.parse.urlencode(query)}", dict(headers or {}))

    def _get(self, url: str, headers: dict[str, str]) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[tuple[App, Pages]]:
    """Run an app with its web server, with one user and a visit."""
    MemoryBrokers.drop("memory://test-pages")
    port = free_port()
    app = make_app(port, **options)
    await app.start()
    try:
        for topic in ("users", "visits"):
            await app.topic(topic, value_type=User).send(key="ann", value=User("Paris", 7))
        async with timeout(20):
            while app.runner is None or len(app.runner.tasks) < 2 or app.metrics.total("records") < 2:  # noqa: ASYNC110 - a real loop
                await sleep(0.02)
            await sleep(0.1)
        yield app, Pages(port)
    finally:
        await app.stop()
        MemoryBrokers.drop("memory://test-pages")


async def test_pages_tell_rows_ranges_and_state_and_what_is_not_there() -> None:
    async with running() as (app, pages):
        home = partition_of(b"ann", 2)
        names = {"table": "users", "pipeline": "people"}
        assert await pages.get("/tables") == (200, {"tables": [names]})
        row = {**names, "key": "ann", "partition": home}
        assert await pages.get("/tables/users", key="ann") == (200, {**row, "value": {"city": "Paris", "ts": 7}})
        assert await pages.get("/tables/users", key_hex=b"ann".hex()) == (200, {**row, "value": {"city": "Paris", "ts": 7}})
        status, answer = await pages.get("/tables/users", key="bob")
        assert status == 404 and "no row for this key" in answer["error"] and answer["partition"] == partition_of(b"bob", 2)
        status, answer = await pages.get("/tables/users", limit=5)
        assert (status, answer["rows"], answer["partitions"], answer["missing"], answer["next"]) == (
            200, [{"key": "ann", "value": {"city": "Paris", "ts": 7}}], [0, 1], [], None,
        )  # fmt: skip
        assert (await pages.get("/tables/users?from=b&"))[1]["rows"] == []
        status, answer = await pages.get("/state/people/seen", key="ann")
        assert (status, answer["state"]) == (200, {"count": 1, "cities": {"1": "Paris"}})
        for path, query, expected in (
            ("/tables/nothing", {"key": "ann"}, 404), ("/state/people/nothing", {"key": "ann"}, 404), ("/state/people/seen", {}, 400),
            ("/tables/users", {"key_hex": "xy"}, 400), ("/tables/users", {"limit": "-1"}, 400), ("/tables/users", {"limit": 0}, 400),
        ):  # fmt: skip
            status, answer = await pages.get(path, **query)
            assert status == expected and answer["error"], path
        assert app.runner is not None
        task = app.runner.tasks.pop(home)
        status, answer = await pages.get("/tables/users", key="ann")
        app.runner.tasks[home] = task
        assert (status, answer["partition"]) == (421, home)
        assert "is not on this worker" in answer["error"]
        worker = {"url": pages.base, "host": socket.gethostname()}
        assert answer["worker"] == worker and f"ask {pages.base} on " in answer["error"]


async def test_pages_with_a_token_are_for_those_who_show_it() -> None:
    async with running(web_token=TOKEN) as (_, pages):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            status, answer = await pages.get("/tables/users", headers, key="ann")
            assert status == 403 and "token" in answer["error"]
        status, _ = await pages.get("/tables/users", {"Authorization": f"Bearer {TOKEN}"}, key="ann")
        assert status == 200


@pytest.mark.parametrize(
    ("remote", "host", "headers", "allowed"),
    [
        ("127.0.0.1", "127.0.0.1:6066", {}, True),
        ("127.0.0.1", "localhost:6066", {}, True),
        ("::1", "[::1]:6066", {}, True),
        ("::ffff:127.0.0.1", "localhost", {}, True),
        ("10.0.0.7", "localhost:6066", {}, False),
        (None, "localhost:6066", {}, False),
        ("127.0.0.1", "rebound.example:6066", {}, False),
        ("127.0.0.1", "localhost:6066", {"X-Forwarded-For": "10.0.0.7"}, False),
        ("127.0.0.1", "localhost:6066", {"Forwarded": "for=10.0.0.7"}, False),
    ],
)
def test_pages_without_a_token_are_for_this_machine_only(remote: str | None, host: str, headers: dict[str, str], allowed: bool) -> None:
    assert is_allowed(remote, host, headers, None) is allowed
    assert not is_allowed(remote, host, headers, TOKEN)
    assert is_allowed(remote, host, {**headers, "Authorization": f"bearer {TOKEN}"}, TOKEN)


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({"web_port": 7000}, "http://127.0.0.1:7000"),
        ({"web_port": 7000, "web_bind": "::1"}, "http://[::1]:7000"),
        ({"web_port": 7000, "web_bind": "0.0.0.0", "web_host": "10.0.0.7"}, "http://10.0.0.7:7000"),
        ({"canonical_url": "https://shop.example/worker-3/"}, "https://shop.example/worker-3"),
        ({"web_enabled": False}, None),
        ({"web_transport": "unix:///tmp/none.sock"}, None),
    ],
)
def test_address_of_the_pages_is_one_that_can_be_asked(options: dict[str, Any], url: str | None) -> None:
    app = App("addresses", broker="memory://addresses", **options)
    address = web_address(app.conf)
    assert (None if address is None else address.url) == url
    assert address is None or address.host == socket.gethostname()
