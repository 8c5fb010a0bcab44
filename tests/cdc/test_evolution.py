"""Schemas that evolve under a running pipeline, and a registry that is not always there: genuine workers on the memory broker.

The registry is the embedded one, stopped and started on the same port; records are written with fastavro by schemas of their own.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest

from cdc import Registry, avro
from cdc.avro_types import Aliases
from cdc.avro_values import Writer
from cdc.registry.server import RegistryServer
from engine import App, ConfigError, Sink, Stream, Struct
from engine.errors import UnavailableError
from engine.records import OutputColumns, Record, TopicPartition
from engine.runtime.runner import Runner
from engine.runtime.shell import Limits
from engine.runtime.transport.memory import MemoryTransport
from engine.runtime.transport.memory_broker import MemoryBroker
from state.memory import MemoryStore

pytestmark = pytest.mark.thorough

PATIENCE_S = 20.0


class Payment(Struct, frozen=True):
    """What the pipeline reads; producers write their own versions of it."""

    id: str
    cents: int
    customer: Annotated[str, Aliases("client")] = "?"
    note: str = ""


OLD = {"type": "record", "name": "Pay", "fields": [{"name": "id", "type": "string"}, {"name": "cents", "type": "int"}]}
ADDED = {**OLD, "fields": [*OLD["fields"], {"name": "client", "type": "string", "default": "nobody"}]}
WIDENED = {
    **OLD,
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "cents", "type": "long"},
        {"name": "client", "type": "string", "default": "nobody"},
        {"name": "note", "type": "string", "default": ""},
    ],
}
REMOVED = {**OLD, "fields": [{"name": "id", "type": "string"}, {"name": "cents", "type": "long"}]}


class World:
    """A broker, a registry that can be taken away, and one worker."""

    def __init__(self, folder: Path) -> None:
        self.broker = MemoryBroker()
        self._file = str(folder / "schemas.sqlite")
        self.server: RegistryServer | None = RegistryServer(self._file).start()
        self.url = self.server.url
        self._port = int(self.url.rsplit(":", 1)[1])
        self.registry = Registry(self.url, attempts=2, retry_first_s=0.01, timeout_s=1.0)
        self.app = App("pay", broker="memory://", partitions=2)
        payments = self.app.source("payments", codec=avro(self.registry, Payment), key="id")

        @self.app.pipeline(payments)
        def copies(payments: Stream[str, Payment]) -> Sink:
            return payments.to("copies")

        self.plan = self.app.topology.plan()

    def registry_goes(self) -> None:
        assert self.server is not None
        self.server.close()
        self.server = None

    def registry_comes_back(self) -> None:
        self.server = RegistryServer(self._file, port=self._port).start()

    async def register(self, schema: Any, subject: str = "payments-value") -> int:
        return await self.registry.register(subject, json.dumps(schema))

    def write(self, schema_id: int, schema: Any, partition: int = 0, **value: Any) -> None:
        self.write_raw(Writer(dict(schema)).encode(value, b"\0" + schema_id.to_bytes(4, "big")), partition)

    def write_raw(self, raw: bytes, partition: int = 0) -> None:
        self.broker.produce({TopicPartition("payments", partition): OutputColumns([0], [b"k"], [raw])})

    def read(self, topic: str) -> list[Record[Any, Any]]:
        found = []
        for number in range(self.broker.partition_counts([topic]).get(topic, 0)):
            batch = self.broker.read(TopicPartition(topic, number), 0)
            found += [
                Record(key, value, ts, topic, number, offset, headers)
                for key, value, ts, offset, headers in zip(
                    batch.keys, batch.values, batch.timestamps, batch.offsets, batch.headers, strict=True
                )
            ]
        return found

    def values(self) -> list[Any]:
        return [json.loads(record.value) for record in self.read("copies")]

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():  # noqa: ASYNC110  # a registry that stops and starts has no event to wait for
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def worker(self, commit_ms: int = 20) -> AsyncIterator[Runner]:
        """Run one worker until the block ends."""
        runner = Runner(
            self.plan,
            MemoryTransport(self.broker, group_id="pay", client_id="worker"),
            open_store=lambda number: MemoryStore(),
            limits=Limits(commit_interval_ms=commit_ms, grace_s=1.0, retry_first_s=0.02, retry_max_s=0.1),
            create_sources=True,
        )
        running = asyncio.create_task(runner.run())
        try:
            await self.until(lambda: running.done() or bool(runner.tasks))
            if running.done():
                running.result()
            yield runner
        finally:
            runner.stop()
            with contextlib.suppress(ConfigError, UnavailableError):
                await running
            await self.registry.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    if made.server is not None:
        made.server.close()


async def test_pipeline_goes_on_with_old_and_new_records_mixed(world: World) -> None:
    old = await world.register(OLD)
    async with world.worker():
        world.write(old, OLD, id="a", cents=1)
        await world.until(lambda: len(world.values()) == 1)
        added, widened = await world.register(ADDED), await world.register(WIDENED)
        removed = await world.register(REMOVED)
        assert len({old, added, widened, removed}) == 4
        world.write(added, ADDED, id="b", cents=2, client="ann")
        world.write(old, OLD, id="c", cents=3)
        world.write(widened, WIDENED, partition=1, id="d", cents=2**40, client="bob", note="big")
        world.write(removed, REMOVED, id="e", cents=5)
        world.write(old, OLD, id="f", cents=6)
        await world.until(lambda: len(world.values()) == 6)
    assert sorted((value["id"], value["cents"], value["customer"], value["note"]) for value in world.values()) == [
        ("a", 1, "?", ""),
        ("b", 2, "ann", ""),
        ("c", 3, "?", ""),
        ("d", 2**40, "bob", "big"),
        ("e", 5, "?", ""),
        ("f", 6, "?", ""),
    ]
    assert world.read("pay-dlq") == []


async def test_start_is_refused_when_what_is_written_cannot_be_read(world: World) -> None:
    await world.register({**OLD, "fields": [{"name": "id", "type": "string"}, {"name": "cents", "type": "string"}]})
    with pytest.raises(
        ConfigError, match=r"source 'payments': records of version 1 of 'payments-value' .*cents is string and would be read"
    ):
        async with world.worker():
            raise AssertionError("it must not run")


async def test_registry_that_is_down_makes_the_partition_wait_and_nothing_else(world: World) -> None:
    old, added, _ = await world.register(OLD), await world.register(ADDED), await world.register(WIDENED)
    async with world.worker() as runner:
        world.write(old, OLD, id="a", cents=1)
        world.write(old, OLD, partition=1, id="b", cents=2)
        await world.until(lambda: len(world.values()) == 2)
        world.registry_goes()
        world.write(added, ADDED, id="c", cents=3, client="ann")  # its schema has not been seen
        world.write(old, OLD, partition=1, id="d", cents=4)  # known: this partition goes on
        await world.until(lambda: len(world.values()) == 3)
        await asyncio.sleep(0.3)
        assert sorted(value["id"] for value in world.values()) == ["a", "b", "d"]
        assert world.read("pay-dlq") == [] and all(task.outcome() is None for task in runner.tasks.values())
        world.registry_comes_back()
        await world.until(lambda: len(world.values()) == 4)
    assert sorted(value["id"] for value in world.values()) == ["a", "b", "c", "d"]
    assert world.read("pay-dlq") == []


async def test_worker_ends_in_time_while_it_waits_for_the_registry(world: World) -> None:
    added, _ = await world.register(ADDED), await world.register(WIDENED)  # the latest is seen at the start
    async with world.worker():
        await asyncio.sleep(0.1)
        world.registry_goes()
        world.write(added, ADDED, id="c", cents=3, client="ann")
        await asyncio.sleep(0.3)
    assert world.values() == []
    world.registry_comes_back()
    async with world.worker():
        await world.until(lambda: len(world.values()) == 1)


class Hole:
    """A registry that takes connections and answers nobody."""

    def __enter__(self) -> "Hole":
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(50)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


async def test_worker_ends_at_once_while_a_registry_keeps_it_waiting(world: World) -> None:
    old = await world.register(OLD)
    loop = asyncio.get_running_loop()
    with Hole() as hole:
        async with world.worker(commit_ms=800) as runner:
            world.write(old, OLD, id="a", cents=1)
            await world.until(lambda: len(world.values()) == 1)
            world.registry.urls[:] = [hole.url]
            world.write(old, OLD, id="b", cents=2)
            await world.until(lambda: any(task.positions.get(TopicPartition("payments", 0)) == 2 for task in runner.tasks.values()))
            world.write(old + 1, ADDED, id="c", cents=3, client="ann")
            assert len(world.values()) == 1, "its commit is not due yet"
            await world.until(lambda: len(world.values()) == 2)
            begun = loop.time()
            runner.stop()
            await runner.wait_stopped()
            assert loop.time() - begun < 0.9, "the grace period is 1 s, and the registry answers never"
    assert [value["id"] for value in world.values()] == ["a", "b"], "what came before is committed while it waits"


async def test_worker_that_waits_for_the_registry_at_its_start_ends_at_once(tmp_path: Path) -> None:
    with Hole() as hole:
        registry = Registry(hole.url, timeout_s=30.0)
        app = App("pay", broker="memory://", partitions=1)
        payments = app.source("payments", Payment, key="id")

        @app.pipeline(payments)
        def copies(payments: Stream[str, Payment]) -> Sink:
            return payments.to("copies", codec=avro(registry, Payment))

        transport = MemoryTransport(MemoryBroker(), group_id="pay", client_id="worker")
        runner = Runner(app.topology.plan(), transport, open_store=lambda number: MemoryStore(), create_sources=True)
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0.3)
        assert not running.done() and not runner.tasks
        runner.stop()
        await asyncio.wait_for(running, 1.0)
        await registry.close()


async def test_worker_starts_while_the_registry_is_down(world: World) -> None:
    added = await world.register(ADDED)
    world.registry._by_subject.clear()
    world.registry_goes()
    async with world.worker():
        world.write(added, ADDED, id="c", cents=3, client="ann")
        await asyncio.sleep(0.2)
        world.registry_comes_back()
        await world.until(lambda: len(world.values()) == 1)


async def test_bad_records_are_dead_letters_with_schema_id_and_reason(world: World) -> None:
    old = await world.register(OLD)
    good = Writer(OLD).encode({"id": "a", "cents": 1}, b"\0" + old.to_bytes(4, "big"))
    float_cents = {**OLD, "fields": [{"name": "id", "type": "string"}, {"name": "cents", "type": "double"}]}
    other = await world.register(float_cents, subject="elsewhere")
    async with world.worker():
        world.write_raw(b"\0" + (99).to_bytes(4, "big") + good[5:])
        world.write_raw(b'{"id": "a"}')
        world.write_raw(good[:-1])
        world.write_raw(good + b"!")
        world.write_raw(b"\0\0")
        world.write(other, float_cents, id="x", cents=1.5)
        world.write_raw(good)
        await world.until(lambda: len(world.values()) == 1)
        await world.until(lambda: len(world.read("pay-dlq")) == 6)
    errors = [dict(letter.headers)["error"].decode() for letter in world.read("pay-dlq")]
    for error, words in zip(
        errors,
        (
            f"schema 99: {world.url} has no schema of id 99",
            "does not begin with a zero byte and a schema id",
            f"schema {old}: the bytes do not fit the Avro schema Pay",
            f"schema {old}: 1 bytes are left over",
            "does not begin with a zero byte and a schema id",
            f"schema {other}: ",
        ),
        strict=True,
    ):
        assert words in error


async def test_id_that_comes_into_being_later_is_found(world: World) -> None:
    old = await world.register(OLD)
    async with world.worker():
        world.write(old + 1, ADDED, id="a", cents=1, client="ann")
        await world.until(lambda: len(world.read("pay-dlq")) == 1)
        assert await world.register(ADDED) == old + 1
        world.write(old + 1, ADDED, id="b", cents=1, client="ann")
        await world.until(lambda: len(world.values()) == 1)
    assert [value["id"] for value in world.values()] == ["b"]
