"""Time that stands still although it should go on is found, with what holds it back; time that stands for good reasons is left alone."""

import asyncio
from dataclasses import replace

import pytest

from engine import Sink, Stream, bounded
from engine.operators.repartition import RepartitionSink
from engine.records import OutputColumns, TopicPartition
from engine.runtime.transport.protocol import FetchState
from engine.runtime.watchdog import StalledError
from engine.testing.clock import virtual_time
from engine.topology import Topology
from tests.engine.runtime.test_watchdog import Hanging
from tests.engine.runtime.worker_world import FAST, Click, Numbering, Worker, World, eventually, numbering

LIMITS = replace(FAST, stall_ms=3_000, close_timeout_s=1.0)


def two_sources(idle: str | None) -> Topology:
    """Return an app that merges clicks with views, which become idle or never do."""
    topology = Topology("app", partitions=1)
    clicks = topology.source("clicks", Click, key="user", time="ts", watermark=bounded("0s", idle="5s"))
    views = topology.source("views", Click, key="user", time="ts", watermark=bounded("0s", idle=idle))

    @topology.pipeline(clicks, views)
    def number(clicks: Stream[str, Click], views: Stream[str, Click]) -> Sink:
        return clicks.merge(views).process(Numbering).to("numbers")

    return topology


def forget_answers(worker: Worker, monkeypatch: pytest.MonkeyPatch, *, until_seeks: int) -> None:
    """Let the worker's transport know nothing of what is fetched, until it has been sought so often: nothing is ever quiet then."""
    seeks = 0
    seek, fetch_state = worker.transport.seek, worker.transport.fetch_state

    def count_seeks(offsets: dict[TopicPartition, int]) -> None:
        nonlocal seeks
        seeks += 1
        seek(offsets)

    def forgotten(partition: TopicPartition) -> FetchState | None:
        return fetch_state(partition) if seeks >= until_seeks else None

    monkeypatch.setattr(worker.transport, "seek", count_seeks)
    monkeypatch.setattr(worker.transport, "fetch_state", forgotten)


@virtual_time
async def test_time_quiet_source_that_does_not_become_idle_is_reported_and_opened_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(two_sources("5s"))
    worker = world.worker(limits=LIMITS)
    await worker.until_running(0)
    forget_answers(worker, monkeypatch, until_seeks=1)
    world.click("ann")
    await eventually(lambda: bool(worker.runner.not_ready()))
    (reason, *_) = worker.runner.not_ready()
    assert reason.startswith("time does not move in task 0: clicks-0 is quiet at 1 and does not become idle (idle after 5 s)")
    assert "task 0 has not moved for 3 s: its time does not: clicks-0 is quiet at 1" in caplog.text
    assert "task_runner.py" in caplog.text  # its stack
    await eventually(lambda: worker.runner.not_ready() == [])  # opened again, it has become idle
    assert worker.runner.metrics.task(0).stalls == 1
    task = worker.runner.tasks[0].questions.task
    assert task is not None
    assert task.sources["clicks"].idle
    await worker.stop()


@virtual_time
async def test_time_that_stands_still_each_time_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(two_sources("5s"))
    worker = world.worker(limits=LIMITS)
    await worker.until_running(0)
    forget_answers(worker, monkeypatch, until_seeks=99)
    with pytest.raises(StalledError, match="task 0 was opened again 2 times and does not move: its time does not: "):
        async with asyncio.timeout(300.0):
            await worker.running
    assert worker.runner.metrics.task(0).stalls == 3


@pytest.mark.thorough
@virtual_time
@pytest.mark.parametrize("idle", [None, "5s", "90s"])
async def test_time_of_a_quiet_source_is_left_alone(idle: str | None) -> None:
    """One that never becomes idle holds the others by its declaration; one that does, lets them go."""
    world = World(two_sources(idle))
    worker = world.worker(limits=LIMITS)
    await worker.until_running(0)
    for number in range(1, 60):
        world.click("ann")
        await world.until(ann=number)
        await asyncio.sleep(4.0)
        assert worker.runner.not_ready() == []
    assert worker.runner.metrics.task(0).stalls == 0
    await worker.stop()


@virtual_time
async def test_time_of_records_that_bring_no_later_time_is_left_alone() -> None:
    world = World(numbering(1, repartition=True))
    worker = world.worker(limits=LIMITS)
    await worker.until_running(0)
    at_ms = world.clock.now_ms()
    for number in range(1, 20):
        world.click("ann", page="p", ts=at_ms)
        await world.until(p=number)
        await asyncio.sleep(1.0)
    assert worker.runner.not_ready() == [] and worker.runner.metrics.task(0).stalls == 0
    await worker.stop()


@virtual_time
async def test_time_of_records_from_the_future_is_reported_and_not_opened_again(caplog: pytest.LogCaptureFixture) -> None:
    world = World(numbering(1))
    worker = world.worker(limits=LIMITS)
    await worker.until_running(0)
    for number in range(1, 12):
        world.click("ann", ts=world.clock.now_ms() + 7_200_000)
        await world.until(ann=number)
        await asyncio.sleep(1.0)
    (reason,) = worker.runner.not_ready()
    assert "of the records of clicks-0 since offset" in reason and "are too far in the future (max_ahead)" in reason
    assert "task 0 moves, but its time does not: of the records" in caplog.text
    assert worker.runner.metrics.task(0).stalls == 0
    world.click("ann")
    await eventually(lambda: worker.runner.not_ready() == [])
    await worker.stop()


@virtual_time
async def test_time_that_the_other_tasks_are_not_told_is_reported_and_opened_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(numbering(2, repartition=True))
    worker = world.worker(limits=LIMITS)
    await worker.until_running(0, 1)
    tell = RepartitionSink.before_commit
    monkeypatch.setattr(RepartitionSink, "before_commit", lambda sink: None)
    for _ in range(12):
        world.click("ann")
        await asyncio.sleep(0.5)
    await eventually(lambda: worker.runner.metrics.total("stalls") > 0)
    assert "number/numbering-repartition has reached" in caplog.text and "has told partition 0 nothing yet" in caplog.text
    monkeypatch.setattr(RepartitionSink, "before_commit", tell)
    await eventually(lambda: worker.runner.not_ready() == [])
    assert worker.runner.metrics.total("stalls") == 1
    await worker.stop()


@virtual_time
async def test_time_held_by_an_upstream_task_that_hangs_elsewhere_names_it(caplog: pytest.LogCaptureFixture) -> None:
    world = World(numbering(2, repartition=True))
    workers = {"w1": world.worker("w1", limits=LIMITS)}
    hanging = Hanging(99)
    workers["w2"] = world.worker("w2", limits=replace(LIMITS, stall_ms=None), deliver=hanging.deliver)
    await eventually(lambda: all(len(worker.running_numbers()) == 1 for worker in workers.values()))
    (stuck,), (other,) = workers["w2"].running_numbers(), workers["w1"].running_numbers()
    users = {number: next(u for u in map(str, range(99)) if world.partition(u) == number) for number in (stuck, other)}
    world.click(users[stuck])
    for _ in range(10):
        world.click(users[other])
        await asyncio.sleep(1.0)
    reasons = " ".join(workers["w1"].runner.not_ready())
    assert f"because of task {stuck} on another worker: clicks-{stuck} is at 0 and ends at 1" in reasons
    assert f"task {other} moves, but its time does not: number/" in caplog.text
    assert workers["w1"].runner.metrics.total("stalls") == 0
    for worker in workers.values():
        await worker.kill()


@virtual_time
async def test_time_held_by_an_open_transaction_of_a_producer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(two_sources("5s"))
    worker = world.worker(limits=LIMITS)
    await worker.until_running(0)
    fetch_state = worker.transport.fetch_state

    def with_more_behind(partition: TopicPartition) -> FetchState | None:
        state = fetch_state(partition)
        return None if state is None else replace(state, high_watermark=state.high_watermark + 5)

    monkeypatch.setattr(worker.transport, "fetch_state", with_more_behind)
    world.broker.produce({TopicPartition("clicks", 0): OutputColumns([1], [b"ann"], [b'{"user":"ann","page":"p","ts":1}'])})
    await eventually(lambda: bool(worker.runner.not_ready()))
    assert "clicks-0 ends at 6, but a transaction that is open there lets nobody read beyond 1" in " ".join(worker.runner.not_ready())
    assert worker.runner.metrics.task(0).stalls == 0
    await worker.stop()
