"""Edits of a running app on the memory broker: obeyed once, whatever a savepoint, its restore or a kill does in between."""

import asyncio
from pathlib import Path

import pytest

from engine.control import Delete, Put
from engine.records import TopicPartition
from engine.runtime.lifecycle import Phase
from engine.runtime.savepoint_taking import obey_everywhere
from engine.runtime.transport.memory import MemoryTransport
from engine.testing.clock import virtual_time
from state.hashing import partition_of
from tests.engine.runtime.test_savepoints import restore, take
from tests.engine.runtime.worker_world import World, eventually, numbering

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("partitions", [2, 3])
@virtual_time
async def test_edits_before_a_savepoint_are_not_made_again_behind_it(tmp_path: Path, partitions: int) -> None:
    world = World(numbering(2))
    worker = world.worker()
    world.click("ann")
    await world.until(ann=1)
    transport = MemoryTransport(world.broker, group_id="", client_id="cli", clock=world.clock)
    await transport.start()
    put = Put(id="e1", state="number/numbering/count", key="ann", value=41)
    await obey_everywhere(transport, world.plan, put, [partition_of(b"ann", 2)], world.clock)
    world.click("ann")
    await eventually(lambda: sorted(world.numbers()["ann"]) == [1, 42])
    await take(world, tmp_path, stop=True)
    await worker.stop()
    await restore(world, tmp_path, numbering(partitions), grow=True)
    again = world.worker("w2")
    await again.until_running(*range(partitions))
    await asyncio.sleep(1)
    world.click("ann")
    await eventually(lambda: sorted(world.numbers()["ann"]) == [1, 42, 43])
    await again.stop()
    await transport.stop()


@virtual_time
async def test_edits_behind_a_savepoint_are_made_again_behind_its_restore(tmp_path: Path) -> None:
    world = World(numbering(2))
    worker = world.worker()
    world.click("ann")
    await world.until(ann=1)
    await take(world, tmp_path)
    transport = MemoryTransport(world.broker, group_id="", client_id="cli", clock=world.clock)
    await transport.start()
    put = Put(id="e1", state="number/numbering/count", key="ann", value=41)
    await obey_everywhere(transport, world.plan, put, [partition_of(b"ann", 2)], world.clock)
    await worker.stop()
    await restore(world, tmp_path, numbering(2))
    again = world.worker("w2")
    await again.until_running(0, 1)
    await asyncio.sleep(1)
    world.click("ann")
    await eventually(lambda: sorted(world.numbers()["ann"]) == [1, 42])
    await again.stop()
    await transport.stop()


@virtual_time
async def test_edits_of_a_running_app_take_effect_and_are_reported(tmp_path: Path) -> None:
    world = World(numbering(3))
    worker = world.worker()
    world.click("ann", times=3)
    world.click("bob", times=3)
    await world.until(ann=3, bob=3)
    transport = MemoryTransport(world.broker, group_id="", client_id="cli", clock=world.clock)
    await transport.start()
    number = partition_of(b"ann", 3)
    put = Put(id="e1", state="number/numbering/count", key="ann", value=41, who="eve", why="lost a day")
    (report,) = await obey_everywhere(transport, world.plan, put, [number], world.clock)
    assert (report.kind, report.task, report.who, report.why) == ("put", number, "eve", "lost a day")
    reports = await obey_everywhere(transport, world.plan, Delete(id="e2", key=b"bob"), [0, 1, 2], world.clock)
    assert sum(report.entries for report in reports) == 1
    await worker.kill()
    again = world.worker("w2")
    world.click("ann")
    world.click("bob")
    await eventually(lambda: world.numbers() == {"ann": [1, 2, 3, 42], "bob": [1, 2, 3, 1]})
    changelog = world.broker.read(TopicPartition(world.plan.changelog_topic, partition_of(b"bob", 3)), 0)
    assert None in changelog.values  # the erasure is a tombstone in the changelog
    assert all(task.phase is Phase.RUNNING for task in again.runner.tasks.values())
    await again.stop()
    await transport.stop()
