"""Bounded runs: all input used up, through repartition topics, and every window (here: every timer) closed."""

import asyncio
from typing import Any

import pytest

from engine import Sink, Stream
from engine.records import OutputColumns, TopicPartition
from engine.runtime.bounded import run_to_end
from engine.runtime.runner import Runner
from engine.runtime.transport.memory import MemoryTransport
from engine.runtime.transport.memory_connection import Fault
from engine.testing.clock import virtual_time
from engine.topology import Topology
from state.memory import MemoryStore
from tests.engine.runtime.worker_world import FAST, Click, Farewell, Script, World, numbering


def farewell(partitions: int) -> Topology:
    """Return an app that counts by page behind a repartition topic, and gives the totals at the end of time."""
    topology = Topology("app", partitions=partitions, max_ahead_ms=None)
    clicks = topology.source("clicks", Click, key="user", time="ts")

    @topology.pipeline(clicks)
    def total(clicks: Stream[str, Click]) -> Sink:
        return clicks.key_by("page").process(Farewell).to("numbers")

    return topology


def runner(world: World, faults: Any = None) -> Runner:
    transport = MemoryTransport(world.broker, group_id="app", clock=world.clock, faults=faults)
    disk = {number: MemoryStore() for number in range(world.plan.partitions)}

    def open_store(number: int) -> MemoryStore:
        disk[number].reopen()
        return disk[number]

    return Runner(world.plan, transport, open_store=open_store, clock=world.clock, limits=FAST, create_sources=True)


@virtual_time
async def test_run_to_end_takes_all_input_and_returns() -> None:
    world = World(numbering(partitions=3))
    world.click("ann", times=500)
    world.click("bob", times=20)
    async with asyncio.timeout(60):
        await run_to_end(runner(world))
    assert world.numbers() == {"ann": list(range(1, 501)), "bob": list(range(1, 21))}


@virtual_time
async def test_run_to_end_without_input_returns() -> None:
    world = World(numbering(partitions=2))
    async with asyncio.timeout(60):
        await run_to_end(runner(world))
    assert world.numbers() == {}


@virtual_time
async def test_run_to_end_closes_everything_behind_a_repartition_topic() -> None:
    world = World(farewell(partitions=3))
    for number in range(30):
        world.click(f"user{number}", f"page{number % 4}", times=2)
    async with asyncio.timeout(60):
        await run_to_end(runner(world))
    assert world.numbers() == {"page0": [16], "page1": [16], "page2": [14], "page3": [14]}


@virtual_time
async def test_run_to_end_survives_a_failed_commit() -> None:
    world = World(farewell(partitions=2))
    for number in range(10):
        world.click(f"user{number}", "page", times=2)
    script = Script({("end_txn", number): Fault(lost="answer") for number in (3, 5, 6, 8)})
    async with asyncio.timeout(120):
        await run_to_end(runner(world, script))
    assert world.numbers() == {"page": [20]}


@virtual_time
async def test_run_to_end_user_error_under_fail_is_raised() -> None:
    world = World(numbering(partitions=1, on_error="fail"))
    world.broker.produce({TopicPartition("clicks", 0): OutputColumns([1], [b"ann"], [b"not json"])})
    with pytest.raises(Exception, match=r"(?i)json"):
        async with asyncio.timeout(60):
            await run_to_end(runner(world))


@virtual_time
async def test_run_to_end_waits_for_the_feeding() -> None:
    world = World(numbering(partitions=2))

    async def feed() -> None:
        for _ in range(5):
            world.click("ann")
            await asyncio.sleep(10)

    async with asyncio.timeout(120):
        await run_to_end(runner(world), feeding=feed())
    assert world.numbers() == {"ann": [1, 2, 3, 4, 5]}


@virtual_time
async def test_run_to_end_feeding_that_fails_is_raised() -> None:
    async def feed() -> None:
        raise OSError("no such file")

    with pytest.raises(OSError, match="no such file"):
        async with asyncio.timeout(60):
            await run_to_end(runner(World(numbering(partitions=1))), feeding=feed())
