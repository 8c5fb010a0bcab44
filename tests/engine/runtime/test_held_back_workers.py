"""A partition that waits for one of another worker waits on purpose, and says for whom; that the other does not move is found here too."""

import asyncio
import logging
from dataclasses import replace

import pytest

from engine.records import TopicPartition
from engine.testing.clock import virtual_time
from tests.engine.runtime.test_alignment import P0, P1, apps, count, send
from tests.engine.runtime.test_skew_reports import FAR, held, two_workers
from tests.engine.runtime.worker_world import FAST, World, eventually

pytestmark = pytest.mark.thorough

LIMITS = replace(FAST, stall_ms=6_000)


@virtual_time
async def test_waiting_for_another_worker_is_on_purpose_and_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "engine.runtime.held_back")
    world = World(apps("clicks", idle=None))
    workers = await two_workers(world, limits=LIMITS)
    slow, fast = await held(world, workers)
    await asyncio.sleep(20.0)
    assert fast.runner.not_ready() == slow.runner.not_ready() == []
    assert fast.runner.metrics.total("stalls") == slow.runner.metrics.total("stalls") == 0
    said = [record.message for record in caplog.records if "waits at" in record.message]
    at_ms = (count(world, "fast") - 1) * 1_000 - 1  # bounded("0s"): a millisecond before the newest record
    where = f"the worker at http://{slow.name}:6066"
    line = f"task 0: clicks-0 waits at {at_ms} (max_skew) for clicks-1 of {where}, which is at -1, {(at_ms + 1) / 1_000:g} s behind"
    assert said and set(said) == {line}
    assert len(said) <= 4  # once in 6 s
    send(world, P1, "slow", FAR[1:])
    await eventually(lambda: count(world, "fast") == 1_000, 10)
    for worker in workers:
        await worker.stop()


@virtual_time
async def test_waiting_for_a_partition_of_another_worker_that_has_input_and_does_not_move_is_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(apps("clicks", idle=None))
    # The one that will be slow has no watchdog of its own, so that only the other one can notice.
    first = world.worker("w1", limits=replace(LIMITS, stall_ms=None))
    await first.until_running(0, 1)
    second = world.worker("w2", limits=LIMITS)
    await eventually(lambda: len(first.running_numbers()) == len(second.running_numbers()) == 1)
    (slow_number,), (fast_number,) = first.running_numbers(), second.running_numbers()
    slow, fast = TopicPartition("clicks", slow_number), TopicPartition("clicks", fast_number)
    send(world, slow, "slow", range(1))
    await eventually(lambda: count(world, "slow") == 1)
    await asyncio.sleep(2.0)
    send(world, fast, "fast", FAR)
    first.transport.pause([slow])
    send(world, slow, "slow", range(1, 10))
    await eventually(lambda: bool(second.runner.not_ready()), 30)
    (reason,) = second.runner.not_ready()
    assert reason.startswith(f"time does not move in task {fast_number}: clicks-{fast_number} waits at ")
    assert f"(max_skew) for clicks-{slow_number} of the worker at http://w1:6066, which is at -1, " in reason
    assert reason.endswith(f" s behind: clicks-{slow_number} is at 1 and ends at 10")
    assert second.runner.metrics.total("stalls") == 0  # it is the other one's to open again
    first.transport.resume([slow])
    await eventually(lambda: count(world, "slow") == 10 and not second.runner.not_ready(), 30)
    await first.stop()
    await second.stop()


@virtual_time
async def test_waiting_for_a_partition_that_is_being_opened_on_another_worker_is_no_fault_however_long_that_takes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "engine.runtime.held_back")
    world = World(apps("clicks", idle=None))
    workers = await two_workers(world, limits=LIMITS)
    slow, fast = await held(world, workers)
    restored, goes_on = asyncio.Event(), slow.transport.open_reader

    async def open_reader(partition: TopicPartition, offset: int) -> object:
        while partition.topic == world.plan.changelog_topic and not restored.is_set():
            slow.runner.metrics.task(1).restored_entries += 1  # it gets on
            await asyncio.sleep(0.5)
        return await goes_on(partition, offset)

    slow.transport.open_reader = open_reader  # type: ignore[method-assign,assignment]
    send(world, P1, "slow", FAR[1:])
    slow.disk[1].clear()
    slow.runner.tasks[1].doubt("it is to be opened again")
    await asyncio.sleep(60.0)
    assert fast.runner.not_ready() == [] and count(world, "fast") <= 65
    assert "s behind, and is being opened" in caplog.text
    restored.set()
    await eventually(lambda: (count(world, "slow"), count(world, "fast")) == (1_000, 1_000), 20)
    for worker in workers:
        await worker.stop()


@virtual_time
async def test_opening_that_gets_no_further_holds_nobody_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    world = World(apps("clicks", idle=None))
    worker = world.worker(limits=LIMITS)
    hangs, opened = asyncio.Event(), worker.transport.open_reader
    closed = world.plan.changelog_topic

    async def open_reader(partition: TopicPartition, offset: int) -> object:
        if partition == TopicPartition(closed, 1):
            await hangs.wait()
        return await opened(partition, offset)

    worker.transport.open_reader = open_reader  # type: ignore[method-assign,assignment]
    await eventually(lambda: worker.running_numbers() == [0])
    send(world, P0, "fast", range(1))
    await eventually(lambda: count(world, "fast") == 1)
    send(world, P0, "fast", FAR[1:])
    await asyncio.sleep(3.0)
    assert count(world, "fast") <= 65
    await eventually(lambda: count(world, "fast") == 1_000, 30)
    assert "task 1 has been opening for 6 s and gets no further" in caplog.text
    hangs.set()
    await worker.until_running(0, 1)
    send(world, P1, "slow", range(10))
    await eventually(lambda: count(world, "slow") == 10)
    await worker.stop()
