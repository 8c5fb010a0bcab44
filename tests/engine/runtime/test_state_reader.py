"""Looking into running workers: what is committed, from the right task, and never a "not there" that only means "not here"."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import Struct

from engine import Sink, Stream, Table, agg, bounded
from engine.errors import ConfigError, UnavailableError
from engine.records import OutputColumns, TopicPartition
from engine.runtime.shell import Limits
from engine.runtime.state_reader import NotHereError, StateReader, UnknownStateError
from engine.testing.clock import virtual_time
from engine.topology import Topology
from state.hashing import partition_of
from tests.engine.runtime.worker_world import FAST, Numbering, Worker, World, eventually

pytestmark = pytest.mark.thorough

PARTITIONS = 4
USERS = [f"user-{number:02}" for number in range(40)]


class User(Struct, frozen=True):
    """A row."""

    city: str
    score: int


def topology(**options: Any) -> Topology:
    app = Topology("app", partitions=PARTITIONS, **options)
    never = bounded("0s", idle=None)
    users = app.table("users", User, watermark=never)
    rates = app.broadcast("rates", int)
    versioned = app.table("prices", int, key_type=int, versions="1h", watermark=never)

    @app.pipeline(users, name="cities")
    def cities(users: Table[str, User]) -> list[Sink]:
        return [users.group_by("city").aggregate(users=agg.count()).to("cities"), users.join(users).to("twice")]

    @app.pipeline(app.source("clicks", User, watermark=never), rates, versioned, name="clicks")
    def clicks(clicks: Stream[str, User], rates: Table[str, int], prices: Table[int, int]) -> list[Sink]:
        return [clicks.lookup(rates).process(Numbering).to("numbers"), prices.to("out")]

    return app


def reader_of(worker: Worker) -> StateReader:
    return StateReader(lambda: worker.runner)


def put(world: World, topic: str, key: bytes, value: object, partition: int | None = None) -> None:
    to = TopicPartition(topic, partition_of(key, PARTITIONS) if partition is None else partition)
    world.broker.produce({to: OutputColumns([world.clock.now_ms()], [key], [None if value is None else json.dumps(value).encode()])})


async def settled(*workers: Worker) -> None:
    """Wait until everything that was sent is committed."""
    await eventually(lambda: sum(len(worker.runner.tasks) for worker in workers) == PARTITIONS)
    await asyncio.sleep(1)
    await eventually(lambda: all(task.is_drained() for worker in workers for task in worker.runner.tasks.values()))


@asynccontextmanager
async def shop(limits: Limits = FAST) -> AsyncIterator[tuple[World, Worker, StateReader]]:
    """One worker with forty users of four cities."""
    world = World(topology())
    worker = world.worker(limits=limits)
    for number, user in enumerate(USERS):
        put(world, "users", user.encode(), {"city": f"city-{number % 4}", "score": number})
    await settled(worker)
    try:
        yield world, worker, reader_of(worker)
    finally:
        await worker.stop()


@virtual_time
async def test_reader_finds_rows_of_every_kind_of_table() -> None:
    async with shop() as (world, worker, reader):
        put(world, "rates", b"EUR", 5, partition=0)
        put(world, "prices", b"12", 99)
        await settled(worker)
        assert [(place.pipeline, place.node.name) for place in reader.tables()] == [
            ("cities", "users"), ("cities", "aggregate"), ("cities", "join"), ("clicks", "rates"), ("clicks", "prices"),
        ]  # fmt: skip
        found = {name: reader.row(reader.table(name), key) for name, key in (
            ("users", "user-07"), ("aggregate", "city-1"), ("join", "user-07"), ("rates", "EUR"), ("prices", 12),
        )}  # fmt: skip
        row = User("city-3", 7)
        assert {name: row.value for name, row in found.items()} == {
            "users": row, "aggregate": {"key": "city-1", "users": 10}, "join": (row, row), "rates": 5, "prices": 99,
        }  # fmt: skip
        assert found["users"].partition == partition_of(b"user-07", PARTITIONS)
        assert reader.row(reader.table("users"), "nobody").value is None
        put(world, "users", b"user-07", None)
        await settled(worker)
        assert reader.row(reader.table("users"), "user-07").value is None


@virtual_time
async def test_reader_range_is_sorted_by_key_over_partitions_and_goes_on_where_it_ended() -> None:
    async with shop() as (_, _, reader):
        users = reader.table("users")
        rows = await reader.rows(users, limit=7)
        assert [key for key, _ in rows.items] == USERS[:7]
        assert (rows.partitions, rows.missing, rows.following) == ([0, 1, 2, 3], [], "user-07")
        walked, following = [key for key, _ in rows.items], rows.following
        while following is not None:
            rows = await reader.rows(users, low=following, limit=7)
            walked += [key for key, _ in rows.items]
            following = rows.following
        assert walked == USERS
        rows = await reader.rows(users, low="user-10", high="user-12")
        assert rows.items == [("user-10", User("city-2", 10)), ("user-11", User("city-3", 11))]
        for limit in (0, 10_001):
            with pytest.raises(ConfigError, match="limit="):
                await reader.rows(users, limit=limit)


@virtual_time
async def test_reader_range_of_numbers_goes_by_number_and_that_of_a_broadcast_table_has_each_row_once() -> None:
    async with shop() as (world, worker, reader):
        for number in (2, 10, 1, -3):
            put(world, "prices", b"%d" % number, number)
            put(world, "rates", b"rate%d" % number, number, partition=0)
        await settled(worker)
        assert [key for key, _ in (await reader.rows(reader.table("prices"), low=-3, high=10)).items] == [-3, 1, 2]
        rates = await reader.rows(reader.table("rates"))
        assert [value for _, value in rates.items] == [-3, 1, 10, 2]
        assert rates.missing == []


@virtual_time
async def test_reader_of_a_key_elsewhere_says_so_instead_of_not_found() -> None:
    world = World(topology())
    first, second = world.worker("w1"), world.worker("w2")
    for number, user in enumerate(USERS):
        put(world, "users", user.encode(), {"city": "c", "score": number})
    await settled(first, second)
    readers = {worker.name: reader_of(worker) for worker in (first, second)}
    for user in USERS:
        found, elsewhere = [], []
        for reader in readers.values():
            try:
                found.append(reader.row(reader.table("users"), user).value)
            except NotHereError as error:
                elsewhere.append(error)
        assert len(found) == 1 and found[0] is not None
        [away] = elsewhere
        assert away.partition == partition_of(user.encode(), PARTITIONS)
        assert away.worker is not None and f"ask {away.worker.url} on {away.worker.host}" in str(away)
        asked = readers[away.worker.host]
        assert asked.row(asked.table("users"), user).value == found[0], "the other worker is the one to ask"
    ranges = [await reader.rows(reader.table("users")) for reader in readers.values()]
    assert sorted(key for rows in ranges for key, _ in rows.items) == USERS
    assert all(sorted(rows.partitions + rows.missing) == [0, 1, 2, 3] and rows.missing for rows in ranges)
    assert [{where.host for where in rows.workers.values()} for rows in ranges] == [{"w2"}, {"w1"}]
    assert all(sorted(rows.workers) == rows.missing for rows in ranges)
    await first.stop()
    await second.stop()


@virtual_time
async def test_reader_tells_only_what_is_committed() -> None:
    async with shop(Limits(commit_interval_ms=20_000)) as (world, worker, reader):
        number = partition_of(b"user-07", PARTITIONS)
        put(world, "rates", b"user-07", 1, partition=0)
        put(world, "users", b"user-07", {"city": "new", "score": 70})
        put(world, "clicks", b"user-07", {"city": "new", "score": 70})
        await asyncio.sleep(1)
        task = worker.runner.tasks[number].questions.task
        assert task is not None and task.dirty
        assert task.inspect("cities", "user-07", "users")["value"].city == "new"
        place = reader.table("users")
        assert reader.row(place, "user-07").value == User("city-3", 7)
        assert dict((await reader.rows(place)).items)["user-07"] == User("city-3", 7)
        asked = asyncio.create_task(reader.state(reader.operator("clicks", "numbering"), "user-07"))
        await asyncio.sleep(5)
        assert not asked.done()
        assert (await asked).value == {"count": 1}
        assert reader.row(place, "user-07").value == User("new", 70)


@virtual_time
async def test_reader_of_a_task_that_is_not_open_says_to_ask_again() -> None:
    async with shop(Limits(commit_interval_ms=20_000)) as (world, worker, reader):
        place = reader.operator("clicks", "numbering")
        number = partition_of(b"user-07", PARTITIONS)
        put(world, "rates", b"user-07", 1, partition=0)
        await asyncio.sleep(0.5)
        asked = asyncio.create_task(reader.state(place, "user-07"))
        await asyncio.sleep(0)
        worker.runner.tasks[number].doubt("because the test says so")
        with pytest.raises(UnavailableError, match="let go before it could answer"):
            await asked
        with pytest.raises(UnavailableError, match="its task is "):
            reader.row(reader.table("users"), "user-07")
        rows = await reader.rows(reader.table("users"))
        assert number in rows.missing
    with pytest.raises(NotHereError):
        reader.row(reader.table("users"), "user-07")
    with pytest.raises(UnavailableError, match="is starting"):
        StateReader(lambda: None).tables()


@virtual_time
async def test_reader_unknown_names_and_keys_are_refused_with_what_there_is() -> None:
    async with shop() as (_, _, reader):
        for call, words in (
            (lambda: reader.table("user"), "there are: users \\(pipeline cities\\)"),
            (lambda: reader.table("users", "clicks"), "in pipeline 'clicks'"),
            (lambda: reader.operator("cites", "users"), "there are: cities, clicks"),
            (lambda: reader.operator("clicks", "number"), "it does in: .*numbering"),
            (lambda: reader.key(reader.table("prices"), b"x"), "not a whole number"),
        ):
            with pytest.raises(UnknownStateError, match=words):
                call()
        with pytest.raises(UnknownStateError, match="0 to 3"):
            await reader.state(reader.operator("clicks", "numbering"), "user-07", 4)


def test_reader_two_tables_of_one_name_need_a_pipeline() -> None:
    app = Topology("app", partitions=1)
    users = app.table("users", User)
    for name in ("one", "two"):
        app.pipeline(users, name=name)(lambda users, name=name: users.to(name))
    runner = type("Runner", (), {"plan": app.plan(), "tasks": {}})()
    reader = StateReader(lambda: runner)
    with pytest.raises(UnknownStateError, match="pipelines one, two each keep a table 'users'"):
        reader.table("users")
    assert reader.table("users", "two").pipeline == "two"
