"""The runner through failures: killed, fenced, frozen, with an old disk or none, with commits in doubt and rebalances in between."""

import asyncio
from dataclasses import replace

import pytest

from engine.records import TopicPartition
from engine.runtime.lifecycle import Phase
from engine.runtime.transport.memory_connection import Fault
from engine.testing.clock import virtual_loop, virtual_time
from tests.engine.runtime.runner_faults import (
    FailingStore,
    Frost,
    Silence,
    SlowReads,
    UnreadableStore,
)
from tests.engine.runtime.worker_world import FAST, Script, World, eventually, numbering


@virtual_time
async def test_runner_killed_between_commits_repeats_nothing() -> None:
    world = World(numbering())
    first = world.worker()
    world.click("ann", times=3)
    await world.until(ann=3)
    world.click("ann", times=4)
    await first.kill()
    second = world.worker("w2", disk=first.disk)
    await world.until(ann=7)
    await second.stop()


@virtual_time
async def test_runner_crash_between_transaction_and_store_restores_the_tail() -> None:
    world = World(numbering(partitions=1))
    store = FailingStore(after=2)
    worker = world.worker()
    worker.open_store = lambda number: store.reopened()
    for count in range(1, 6):
        world.click("ann")
        await world.until(ann=count)
    assert store.failures == 1
    assert worker.runner.metrics.total("restored_entries") > 0
    await worker.stop()


@virtual_time
async def test_runner_task_closed_while_it_empties_its_unreadable_store_ends_well() -> None:
    world = World(numbering(partitions=1))
    store = UnreadableStore()
    first = world.worker()
    first.open_store = lambda number: store
    world.click("ann", times=2)
    await world.until(ann=2)
    virtual_loop().thread_delay_s = 1.0
    store.broken = True
    world.click("bob")
    await eventually(lambda: store.emptied)
    task = first.runner.tasks[0]
    await task.close(5.0)
    assert task.phase is Phase.CLOSED and task.outcome() is None
    await first.stop()
    second = world.worker("w2")
    await world.until(ann=2, bob=1)
    await second.stop()


@virtual_time
async def test_runner_lost_disk_rebuilds_from_the_changelog() -> None:
    world = World(numbering())
    first = world.worker()
    world.click("ann", times=3)
    await world.until(ann=3)
    await first.kill()
    second = world.worker("w2")
    world.click("ann")
    await world.until(ann=4)
    assert second.runner.metrics.total("rebuilds") == 2
    await second.stop()


@virtual_time
async def test_runner_old_disk_catches_up_before_it_reads_input() -> None:
    world = World(numbering(partitions=1))
    first = world.worker("w1")
    world.click("ann", times=2)
    await world.until(ann=2)
    await first.stop()
    second = world.worker("w2")
    world.click("ann", times=2)
    await world.until(ann=4)
    await second.stop()
    third = world.worker("w3", disk=first.disk)
    world.click("ann")
    await world.until(ann=5)
    metrics = third.runner.metrics
    assert metrics.total("rebuilds") == 0 and metrics.total("restored_entries") > 0
    await third.stop()


@virtual_time
async def test_runner_disk_older_than_half_the_delete_retention_is_rebuilt() -> None:
    world = World(numbering(partitions=1))
    first = world.worker("w1")
    world.click("ann", times=2)
    await world.until(ann=2)
    await first.stop()
    await asyncio.sleep(4 * 86_400)
    second = world.worker("w2", disk=first.disk)
    world.click("ann")
    await world.until(ann=3)
    assert second.runner.metrics.total("rebuilds") == 1
    await second.stop()


@virtual_time
async def test_runner_disk_of_another_changelog_is_rebuilt() -> None:
    elsewhere = World(numbering(partitions=1))
    other = elsewhere.worker()
    elsewhere.click("ann", times=9)
    await elsewhere.until(ann=9)
    await other.stop()
    world = World(numbering(partitions=1))
    first = world.worker()
    world.click("ann", times=2)
    await world.until(ann=2)
    await first.stop()
    second = world.worker("w2", disk=other.disk)
    world.click("ann")
    await world.until(ann=3)
    assert second.runner.metrics.total("rebuilds") == 1
    await second.stop()


@virtual_time
async def test_runner_fenced_in_mid_transaction_commits_nothing_of_it() -> None:
    world = World(numbering(partitions=1))
    slow = Script({("end_txn", 2): Fault(delay_s=1.0)})
    worker = world.worker(faults=slow)
    await worker.until_running(0)
    world.click("ann", times=3)
    await eventually(lambda: slow.seen["end_txn"] == 2)
    world.broker.init_producer("app-0", 10.0)
    await world.until(ann=3)
    assert worker.runner.metrics.total("commit_failures") == 1
    assert worker.runner.metrics.total("opens") == 2
    await worker.stop()


@virtual_time
@pytest.mark.parametrize("half", ["request", "answer"])
async def test_runner_commit_in_doubt_is_settled_by_the_changelog(half: str) -> None:
    world = World(numbering(partitions=1))
    faults = Script({("end_txn", 2): Fault(lost=half)})  # type: ignore[arg-type]
    worker = world.worker(faults=faults)
    await worker.until_running(0)
    world.click("ann", times=3)
    await world.until(ann=3)
    world.click("ann", times=2)
    await world.until(ann=5)
    assert worker.runner.metrics.total("commit_failures") == 1
    await worker.stop()


@virtual_time
async def test_runner_after_a_failed_commit_waits_until_its_membership_is_confirmed() -> None:
    world = World(numbering(partitions=1))
    faults = Script({("end_txn", 2): Fault(lost="request")})
    worker = world.worker(faults=faults)
    await worker.until_running(0)
    world.click("ann")
    await eventually(lambda: worker.runner.metrics.total("commit_failures") == 1)
    failed_s = world.clock.monotonic_s()
    await eventually(lambda: worker.runner.metrics.total("opens") == 2)
    assert worker.transport.membership_confirmed_s() > failed_s - 0.05
    await world.until(ann=1)
    await worker.stop()


@virtual_time
async def test_runner_second_worker_joins_tasks_move_and_nothing_is_lost() -> None:
    world = World(numbering(partitions=4))
    first = world.worker("w1")
    await first.until_running(0, 1, 2, 3)
    users = {f"user{n}": 3 for n in range(8)}
    for user in users:
        world.click(user, times=2)
    second = world.worker("w2")
    for user in users:
        world.click(user)
    await world.until(**users)
    await eventually(lambda: len(first.running_numbers()) == len(second.running_numbers()) == 2)
    await second.stop()
    for user in users:
        world.click(user)
    await world.until(**dict.fromkeys(users, 4))
    await first.stop()


@virtual_time
async def test_runner_rebalance_during_a_restore_cancels_it_and_the_next_owner_finishes() -> None:
    world = World(numbering(partitions=2))
    first = world.worker("w1")
    world.click("ann", times=5)
    world.click("bob", times=5)
    await world.until(ann=5, bob=5)
    await first.stop()
    slow = SlowReads(5.0)
    second = world.worker("w2", faults=slow)
    await eventually(lambda: slow.reading)
    third = world.worker("w3")
    await eventually(lambda: second.runner.metrics.rebalances >= 2)
    assert second.runner.metrics.total("opens") == 0
    slow.delay_s = 0.0
    world.click("ann")
    world.click("bob")
    await world.until(ann=6, bob=6)
    await second.stop()
    await third.stop()


@virtual_time
async def test_runner_frozen_worker_that_wakes_up_does_not_double_anything() -> None:
    world = World(numbering(partitions=1))
    frost = Frost(world)
    zombie = world.worker("w1", faults=frost, limits=replace(FAST, stall_ms=None))  # a frozen process has no watchdog either
    world.click("ann")
    await world.until(ann=1)
    world.click("ann", times=2)
    frost.thaws_s = world.clock.monotonic_s() + 60  # its next requests, a commit among them, arrive a minute late
    other = world.worker("w2")
    world.click("ann")
    await world.until(ann=4)
    assert other.running_numbers() == [0]
    await asyncio.sleep(90)
    world.click("ann")
    await world.until(ann=5)
    assert zombie.runner.metrics.total("commit_failures") >= 1
    await zombie.stop()
    await other.stop()


@virtual_time
async def test_runner_revoked_in_a_commit_that_hangs_lets_go_within_the_bound() -> None:
    world = World(numbering(partitions=1))
    stuck = Script({("end_txn", 2): Fault(delay_s=300.0)})
    first = world.worker("w1", faults=stuck, limits=replace(FAST, close_timeout_s=2.0))
    await first.until_running(0)
    world.click("ann", times=3)
    await eventually(lambda: stuck.seen["end_txn"] == 2)
    second = world.worker("w2")
    await world.until(ann=3)
    assert world.clock.monotonic_s() < 60
    await second.stop()
    await first.stop()


@virtual_time
async def test_runner_killed_in_mid_transaction_holds_readers_up_for_ten_seconds_at_most() -> None:
    """Nobody takes over, so nobody fences: the transaction's own time-out must end it."""
    world = World(numbering(partitions=1))
    stuck = Script({("end_txn", 2): Fault(delay_s=300.0)})
    worker = world.worker(faults=stuck)
    await worker.until_running(0)
    world.click("ann")
    await eventually(lambda: stuck.seen["end_txn"] == 2)
    await worker.kill()
    log = world.broker.log(TopicPartition("numbers", 0))
    assert log.last_stable_offset < log.high_watermark
    await asyncio.sleep(10.0)
    world.broker.expire()
    assert log.last_stable_offset == log.high_watermark


@virtual_time
async def test_runner_without_a_heartbeat_after_a_fence_does_not_fence_back() -> None:
    """What fenced it may be the rightful owner: only a heartbeat or join from after the error says otherwise."""
    world = World(numbering(partitions=1))
    silence = Silence()
    worker = world.worker(faults=silence)
    await worker.until_running(0)
    silence.on = True
    await asyncio.sleep(2.5)
    world.broker.init_producer("app-0", 10.0)
    world.click("ann")
    await eventually(lambda: worker.runner.metrics.total("commit_failures") == 1)
    await asyncio.sleep(4.0)
    assert worker.runner.metrics.total("opens") == 1
    silence.on = False
    await world.until(ann=1)
    await worker.stop()
