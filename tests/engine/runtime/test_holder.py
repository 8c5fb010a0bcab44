"""One holder of a task at a time on a worker, also where a cancellation is swallowed on the way."""

import asyncio
from dataclasses import replace

import pytest

from engine.records import TopicPartition
from engine.runtime.holder import Holder
from engine.runtime.transport.protocol import TransactionalProducer
from engine.testing.clock import virtual_time
from tests.engine.runtime.worker_world import FAST, Worker, World, eventually, numbering


async def swallowing(seconds: float) -> None:
    """Take a cancellation for one's own, as aiokafka's `stop` does, and go on."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + seconds
    while (left_s := end_s - loop.time()) > 0:
        try:
            await asyncio.sleep(left_s)
        except asyncio.CancelledError:
            continue


class Sticky:
    """A producer that is slow to close and hears no cancellation meanwhile."""

    def __init__(self, inner: TransactionalProducer, seconds: float) -> None:
        self._inner = inner
        self._seconds = seconds
        self.commit = inner.commit

    @property
    def producer_id(self) -> int:
        """The one that the broker gave."""
        return self._inner.producer_id

    async def close(self) -> None:
        """Let go after a while."""
        await swallowing(self._seconds)
        await self._inner.close()


def stick(worker: Worker, seconds: float) -> None:
    """Let each producer of a worker take so long to close."""
    open_producer = worker.transport.open_producer

    async def opened(transactional_id: str) -> TransactionalProducer:
        return Sticky(await open_producer(transactional_id), seconds)

    worker.transport.open_producer = opened  # type: ignore[method-assign, assignment]


def holding(number: int) -> list[asyncio.Task[object]]:
    """Return the coroutines that run a task."""
    return [task for task in asyncio.all_tasks() if task.get_name() == f"task {number}" and not task.done()]


@virtual_time
async def test_task_that_is_told_to_end_while_it_lets_go_does_not_come_back() -> None:
    """After a cut a worker loses its tasks while they close their fenced producers, and gets them again at once."""
    world = World(numbering(partitions=1))
    worker = world.worker("w1", limits=replace(FAST, close_timeout_s=2.0))
    stick(worker, seconds=6.0)
    await worker.until_running(0)
    world.broker.init_producer("app-0", 10.0)
    world.click("ann")
    await eventually(lambda: worker.runner.metrics.total("commit_failures") == 1)
    partitions = frozenset({TopicPartition("clicks", 0), TopicPartition("app-control", 0)})
    await worker.runner.on_revoked(partitions)
    assert len(holding(0)) == 1, "it has not heard the cancellation"
    await worker.runner.on_assigned(partitions)
    await world.until(ann=1)
    world.click("ann", times=2)
    await world.until(ann=3)
    await asyncio.sleep(10.0)
    assert len(holding(0)) == 1
    assert worker.runner.metrics.total("commit_failures") == 1, "nobody fences it again"
    await worker.stop()


@virtual_time
async def test_third_holder_waits_for_the_first_though_the_second_has_ended() -> None:
    world = World(numbering(partitions=1))
    worker = world.worker("w1", limits=replace(FAST, close_timeout_s=1.0))
    stick(worker, seconds=20.0)
    await worker.until_running(0)
    first = worker.runner.tasks[0]
    partitions = frozenset({TopicPartition("clicks", 0), TopicPartition("app-control", 0)})
    for _ in range(3):
        await worker.runner.on_revoked(partitions)
        await worker.runner.on_assigned(partitions)
        assert first.holder.is_unfinished
        assert worker.running_numbers() == []
    await worker.until_running(0)
    assert not first.holder.is_unfinished
    assert len(holding(0)) == 1
    world.click("ann")
    await world.until(ann=1)
    await worker.stop()


@virtual_time
async def test_holder_says_whom_it_waits_for_and_what_has_not_let_go(caplog: pytest.LogCaptureFixture) -> None:
    before, after = Holder("task 7"), Holder("task 7")
    before.start(swallowing(5.0))
    await asyncio.sleep(0)
    await before.end(1.0)
    assert before.is_unfinished
    assert "task 7: has not let go within 1.0 s" in caplog.text
    with pytest.raises(asyncio.CancelledError):
        before.check()

    async def follow() -> None:
        await after.follow(before)
        after.check()

    after.start(follow())
    await asyncio.sleep(1.0)
    assert "task 7: waits until the one before it on this worker has let go" in caplog.text
    assert after.is_unfinished
    await asyncio.sleep(5.0)
    assert not before.is_unfinished
    assert not after.is_unfinished
