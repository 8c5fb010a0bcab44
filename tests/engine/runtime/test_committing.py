"""Which transactions carry the group's offsets: few while there is work, and none is missing once there is none."""

import asyncio
from dataclasses import replace

import pytest

from engine.records import TopicPartition
from engine.runtime.committing import IDLE_S, REPORT_S
from engine.runtime.transport.memory_connection import Fault
from engine.testing.clock import virtual_time
from tests.engine.runtime.worker_world import FAST, Script, World, numbering

CLICKS = TopicPartition("clicks", 0)
LATENCY = replace(FAST, commit_interval_ms=0)


async def click_for(world: World, seconds: float) -> int:
    """Send ten clicks a second and return how many that were."""
    for _ in range(count := int(seconds * 10)):
        world.click("ann")
        await asyncio.sleep(0.1)
    return count


def group_offset(world: World) -> int | None:
    """Return the group's offset of the input."""
    return world.broker.group("app").offsets.get(CLICKS)


@pytest.mark.thorough
@virtual_time
async def test_group_offsets_go_along_every_few_seconds_and_the_changelog_has_them_each_time() -> None:
    world, script = World(numbering(partitions=1)), Script({})
    worker = world.worker(limits=LATENCY, faults=script)
    await worker.until_running(0)
    count = await click_for(world, 4 * REPORT_S)
    await world.until(ann=count)
    assert script.seen["end_txn"] >= count * 0.9
    assert 4 <= script.seen["txn_offset_commit"] <= 6
    await worker.kill()
    assert (group_offset(world) or 0) < count, "killed before it said where it was"
    after = world.worker("w2")
    world.click("ann")
    await world.until(ann=count + 1)
    await after.stop()


@virtual_time
async def test_group_offsets_are_exact_once_there_is_nothing_to_do() -> None:
    world, script = World(numbering(partitions=1)), Script({})
    worker = world.worker(faults=script)
    await worker.until_running(0)
    count = await click_for(world, 1.0)
    await world.until(ann=count)
    await asyncio.sleep(2 * IDLE_S)
    assert group_offset(world) == count
    await asyncio.sleep(60)  # the input becomes idle, which is committed too
    reports = script.seen["txn_offset_commit"]
    await asyncio.sleep(60)
    assert script.seen["txn_offset_commit"] == reports, "said once, not again and again"
    await worker.stop()


@virtual_time
async def test_group_offsets_are_exact_after_an_orderly_end() -> None:
    world = World(numbering(partitions=1))
    worker = world.worker(limits=LATENCY)
    await worker.until_running(0)
    count = await click_for(world, 1.0)
    await world.until(ann=count)
    await worker.stop()
    assert group_offset(world) == count


@pytest.mark.parametrize(("report_only", "says"), [(True, "closed with everything committed"), (False, "closed without a last commit")])
@virtual_time
async def test_closing_says_whether_a_commit_or_only_the_group_offsets_failed(
    caplog: pytest.LogCaptureFixture, report_only: bool, says: str
) -> None:
    world, script = World(numbering(partitions=1)), Script({})
    worker = world.worker(limits=FAST if report_only else replace(FAST, commit_interval_ms=60_000), faults=script)
    await worker.until_running(0)
    world.click("ann")
    if report_only:
        await world.until(ann=1)
        world.click("ann")
        await world.until(ann=2)  # this commit does not carry the group's offsets
    else:
        await asyncio.sleep(1)
    script.plan = {("end_txn", script.seen["end_txn"] + 1): Fault(lost="request")}
    await worker.stop()
    said = [record.getMessage() for record in caplog.records if "closed with" in record.getMessage()]
    assert [text.startswith(f"task 0: {says}") for text in said] == [True]
