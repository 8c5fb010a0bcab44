"""Broadcast topics in a worker: read to the end before anything else, followed from there, and gone on with after a restart."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.errors import UnavailableError
from engine.records import OutputColumns, TopicPartition
from engine.runtime import broadcast_feed
from engine.runtime.file_run import run_files
from engine.runtime.lifecycle import Phase
from engine.testing.clock import virtual_time
from engine.topics import TopicSpec
from engine.topology import Topology
from state.hashing import partition_of
from state.memory import MemoryStore
from tests.engine.runtime.worker_world import FAST, Worker, World, eventually


class Rate(msgspec.Struct, frozen=True):
    """A row of the broadcast table."""

    currency: str
    cents: int


class Sale(msgspec.Struct, frozen=True):
    """A record that looks into it."""

    user: str
    currency: str


def market() -> Topology:
    topology = Topology("app", partitions=3)
    sales = topology.source("sales", Sale, key="user")
    rates = topology.broadcast("rates", Rate, key="currency", partitions=2)
    topology.pipeline(sales, rates, name="work")(lambda sales, rates: sales.lookup(rates, "currency", how="left").map(cents).to("out"))
    return topology


def cents(found: Any) -> list[Any]:
    sale, rate = found
    return [sale.user, rate and rate.cents]


def produce(world: World, topic: str, key: str, value: Any, partitions: int) -> None:
    raw = None if value is None else msgspec.json.encode(value)
    partition = TopicPartition(topic, partition_of(key.encode(), partitions))
    world.broker.produce({partition: OutputColumns([world.clock.now_ms()], [key.encode()], [raw])})


def rate(world: World, currency: str, amount: int) -> None:
    produce(world, "rates", currency, Rate(currency, amount), 2)


def sale(world: World, user: str, currency: str) -> None:
    produce(world, "sales", user, Sale(user, currency), 3)


def out(world: World) -> dict[str, Any]:
    rows = [json.loads(value or b"") for batch in world.read("out") for value in batch.values]
    assert len({user for user, _ in rows}) == len(rows), "a record came out twice"
    return dict(rows)


USERS = [f"user-{number}" for number in range(8)]


async def all_see(world: World, currency: str, amount: int | None, wave: str) -> None:
    """Check that sales of users of every partition find a rate."""
    for user in USERS:
        sale(world, f"{user}-{wave}", currency)
    await eventually(lambda: all(f"{user}-{wave}" in out(world) for user in USERS))
    assert {out(world)[f"{user}-{wave}"] for user in USERS} == {amount}


@virtual_time
async def test_broadcast_is_read_to_its_end_before_other_input_and_followed_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast_feed, "PIECE_RECORDS", 7)
    world = World(market())
    for number in range(100):
        rate(world, f"C{number % 10}", number)
    for user in USERS:
        sale(world, f"{user}-early", "C9")
    worker = world.worker()
    await eventually(lambda: len(out(world)) == len(USERS))
    assert set(out(world).values()) == {99}
    rate(world, "C9", 5)
    await eventually(lambda: committed(worker, 101))
    await all_see(world, "C9", 5, "later")
    produce(world, "rates", "C9", None, 2)
    await eventually(lambda: committed(worker, 102))
    await all_see(world, "C9", None, "deleted")
    await worker.stop()


def committed(worker: Worker, records: int) -> bool:
    """Return whether every task has taken and committed so many records of the broadcast topic."""
    opened = [task._opened for task in worker.runner.tasks.values() if task.phase is Phase.RUNNING and task._opened is not None]
    positions = [sum(position or 0 for position in one.task.broadcast_positions().values()) for one in opened]
    return len(opened) == 3 and set(positions) == {records} and not any(one.task.dirty for one in opened)


@virtual_time
async def test_broadcast_after_a_restart_goes_on_where_the_state_ends() -> None:
    world = World(market())
    rate(world, "EUR", 1)
    first = world.worker()
    await all_see(world, "EUR", 1, "first")
    await first.stop()
    rate(world, "EUR", 2)
    second = world.worker("w2", disk=first.disk)
    await all_see(world, "EUR", 2, "second")
    await second.kill()
    disk: dict[int, MemoryStore] = {}
    third = world.worker("w3", disk=disk)  # an empty disk: the rows come out of the changelog
    await all_see(world, "EUR", 2, "third")
    await third.stop()


@virtual_time
async def test_broadcast_large_table_is_committed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast_feed, "PIECE_RECORDS", 10)
    world = World(market())
    for number in range(200):
        rate(world, f"C{number}", number)
    worker = world.worker(limits=replace(FAST, commit_records_max=50))
    await all_see(world, "C150", 150, "all")
    assert worker.runner.metrics.total("commits") >= 3 * 4
    await worker.stop()


@virtual_time
async def test_broadcast_topic_made_anew_stops_the_task_with_a_message() -> None:
    world = World(market())
    rate(world, "EUR", 1)
    first = world.worker()
    await all_see(world, "EUR", 1, "first")
    await first.stop()
    del world.broker._topics["rates"]
    world.broker.create_topic(TopicSpec("rates", 2))
    second = world.worker("w2", disk=first.disk)
    await eventually(lambda: any(task.failure is not None for task in second.runner.tasks.values()))
    assert "changes of the table are gone" in str(next(task.failure for task in second.runner.tasks.values() if task.failure))
    await second.stop()


@virtual_time
async def test_broadcast_reader_that_cannot_reach_the_broker_tries_again() -> None:
    world = World(market())
    worker = world.worker()
    await worker.until_running(0, 1, 2)
    failures: list[TopicPartition] = []

    async def failing(partition: TopicPartition, offset: int) -> Any:
        if partition.topic == "rates" and len(failures) < 4:
            failures.append(partition)
            raise UnavailableError("not now")
        return await opened(partition, offset)

    await worker.stop()
    again = world.worker("w2", disk=worker.disk)
    opened = again.transport.open_reader
    again.transport.open_reader = failing  # type: ignore[method-assign]
    rate(world, "EUR", 3)
    await all_see(world, "EUR", 3, "again")
    assert len(failures) == 4
    await again.stop()


def test_broadcast_in_a_run_over_files_is_complete_before_the_other_input(tmp_path: Path) -> None:
    (tmp_path / "sales.jsonl").write_text("".join(json.dumps({"value": {"user": user, "currency": "EUR"}}) + "\n" for user in USERS))
    (tmp_path / "rates.jsonl").write_text(json.dumps({"value": {"currency": "EUR", "cents": 4}}) + "\n")
    run_files(market(), [("sales", tmp_path / "sales.jsonl"), ("rates", tmp_path / "rates.jsonl")], tmp_path / "out")
    lines = [json.loads(line)["value"] for line in (tmp_path / "out" / "out.jsonl").read_text().splitlines()]
    assert sorted(lines) == [[user, 4] for user in USERS]
