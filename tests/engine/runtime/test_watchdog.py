"""The watchdog: what stands still is reported with its stack, opened again, and in the end ends the worker."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest

from engine import Sink, Stream
from engine.codecs import Decoded
from engine.errors import ConfigError, UnavailableError
from engine.records import RecordBatch, TopicPartition
from engine.runtime.lifecycle import Phase
from engine.runtime.transport.memory import MemoryTransport
from engine.runtime.transport.protocol import TransactionalProducer
from engine.runtime.watchdog import EXIT_STATUS, LoopGuard, StalledError, Watchdog
from engine.task import Task
from engine.testing.clock import virtual_time
from engine.topology import Topology
from tests.engine.runtime.worker_world import FAST, Click, Numbering, Worker, World, eventually, numbering

LIMITS = replace(FAST, stall_ms=3_000, close_timeout_s=1.0)


class Hanging:
    """Takes batches to the pipelines; the first ones never get there."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.worker: Worker | None = None

    async def deliver(self, pipelines: Sequence[str], batch: RecordBatch, task: Task) -> None:
        if self.left:
            self.left -= 1
            await self.wait_for_godot()
        for pipeline in pipelines:
            task.process(pipeline, batch, batch.timestamps[-1])

    async def wait_for_godot(self) -> None:
        await asyncio.Event().wait()


@virtual_time
async def test_watchdog_hung_user_code_is_reported_with_its_stack_and_opened_again(caplog: pytest.LogCaptureFixture) -> None:
    world = World(numbering(1))
    worker = world.worker(limits=LIMITS, deliver=Hanging(1).deliver)
    await worker.until_running(0)
    assert worker.runner.not_ready() == []
    world.click("ann", times=3)
    await eventually(lambda: bool(worker.runner.not_ready()))
    assert "task 0" in worker.runner.not_ready()[0]
    await world.until(ann=3)
    await eventually(lambda: worker.runner.not_ready() == [])
    assert worker.runner.metrics.task(0).stalls == 1
    assert "task 0 has not moved for 3 s: a batch is in hand" in caplog.text
    assert "wait_for_godot" in caplog.text and "test_watchdog.py" in caplog.text
    await worker.stop()


@virtual_time
async def test_watchdog_task_that_hangs_each_time_ends_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    world = World(numbering(1))
    worker = world.worker(limits=LIMITS, deliver=Hanging(99).deliver)
    world.click("ann", times=3)
    with pytest.raises(StalledError, match="task 0 was opened again 2 times and does not move: a batch is in hand"):
        async with asyncio.timeout(300.0):
            await worker.running
    assert worker.runner.metrics.task(0).stalls == 3


@virtual_time
async def test_watchdog_transport_that_stops_delivering_is_noticed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(numbering(1))
    worker = world.worker(limits=LIMITS)
    await worker.until_running(0)
    deaf = True
    poll = worker.transport.poll

    async def poll_nothing(timeout_s: float) -> list[RecordBatch]:
        batches = await poll(timeout_s)
        return [] if deaf else batches

    def seek_mends(offsets: dict[TopicPartition, int]) -> None:
        nonlocal deaf
        deaf = False
        MemoryTransport.seek(worker.transport, offsets)

    monkeypatch.setattr(worker.transport, "poll", poll_nothing)
    monkeypatch.setattr(worker.transport, "seek", seek_mends)
    await asyncio.sleep(0.5)  # the poll that is under way ends
    world.click("ann", times=3)
    await world.until(ann=3)
    assert "clicks is at 0 and ends at 3, but nothing is delivered" in caplog.text
    assert worker.runner.metrics.task(0).stalls == 1
    await worker.stop()


@virtual_time
async def test_watchdog_opening_that_gets_no_further_is_reported(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(numbering(1))
    worker = world.worker(limits=LIMITS)
    hanging = Hanging(1)
    open_producer = worker.transport.open_producer

    async def hang(transactional_id: str) -> TransactionalProducer:
        try:
            async with asyncio.timeout(8.0):
                await hanging.wait_for_godot()
        except TimeoutError:
            pass
        return await open_producer(transactional_id)

    monkeypatch.setattr(worker.transport, "open_producer", hang)
    await worker.until_running(0)
    assert caplog.text.count("task 0 has been opening for 3 s and gets no further; it stands at") == 2
    assert "wait_for_godot" in caplog.text
    await worker.stop()


@virtual_time
async def test_watchdog_worker_without_input_or_with_a_steady_one_is_left_alone() -> None:
    world = World(numbering(1))
    worker = world.worker(limits=LIMITS)
    await worker.until_running(0)
    for number in range(1, 20):
        world.click("ann")
        await world.until(ann=number)
        await asyncio.sleep(2.0)
    await asyncio.sleep(60.0)
    assert worker.runner.metrics.task(0).stalls == 0
    await worker.stop()


@virtual_time
async def test_watchdog_whose_questions_are_refused_still_sees_a_task_that_hangs(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(numbering(1))
    hanging = Hanging(0)
    worker = world.worker(limits=LIMITS, deliver=hanging.deliver)
    await worker.until_running(0)

    end_offsets, refusals = worker.transport.end_offsets, 0

    async def refuse(partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        nonlocal refusals
        if hanging.left == 0 and worker.runner.metrics.task(0).stalls:  # noticed: it is opened again, which asks as well
            return await end_offsets(partitions)
        refusals += 1
        raise ConfigError("Kafka refused to list offsets: TopicAuthorizationFailedError")

    with monkeypatch.context() as refused:
        refused.setattr(worker.transport, "end_offsets", refuse)
        await asyncio.sleep(5.0)
        assert refusals > 5  # asked again and again
        hanging.left = 1
        world.click("ann", times=3)
        await world.until(ann=3)
    assert worker.runner.metrics.task(0).stalls == 1
    assert caplog.text.count("the watchdog cannot ask how far the tasks are behind") == 1
    assert "TopicAuthorizationFailedError" in caplog.text
    await worker.stop()


@virtual_time
async def test_watchdog_goes_on_after_a_bug_of_its_own(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(numbering(1))
    hanging = Hanging(0)
    worker = world.worker(limits=LIMITS, deliver=hanging.deliver)
    await worker.until_running(0)

    def break_down(_watchdog: Watchdog, _task: object) -> tuple[object, ...]:
        raise LookupError("a bug")

    with monkeypatch.context() as broken:
        broken.setattr(Watchdog, "_signs", break_down)
        await asyncio.sleep(1.0)
    assert "the watchdog could not look at the tasks" in caplog.text and "LookupError: a bug" in caplog.text
    hanging.left = 1
    world.click("ann", times=3)
    await world.until(ann=3)
    assert worker.runner.metrics.task(0).stalls == 1
    await worker.stop()


@virtual_time
async def test_watchdog_that_ends_takes_the_worker_along(monkeypatch: pytest.MonkeyPatch) -> None:
    async def end(_watchdog: Watchdog) -> None:
        await asyncio.sleep(1.0)
        raise LookupError("a bug")

    monkeypatch.setattr(Watchdog, "run", end)
    worker = World(numbering(1)).worker(limits=LIMITS)
    with pytest.raises(LookupError, match="a bug"):
        async with asyncio.timeout(30.0):
            await worker.running


class DownFor:
    """A codec of clicks whose registry does not answer for a while; `hangs`: the call does not come back at all."""

    type = Click

    def __init__(self, seconds: float, *, hangs: bool = False) -> None:
        self.seconds, self.hangs = seconds, hangs
        self._until: float | None = None

    async def prepare(self, batch: RecordBatch) -> None:
        now_s = asyncio.get_running_loop().time()
        self._until = self._until or now_s + self.seconds
        if now_s < self._until:
            if self.hangs:
                await asyncio.sleep(self._until - now_s)
            raise UnavailableError("the registry does not answer")

    def decode_batch(self, batch: RecordBatch) -> Decoded[Click]:
        return Decoded([msgspec.json.decode(raw or b"", type=Click) for raw in batch.values])

    def encode_column(self, values: Sequence[Click]) -> list[bytes | None]:
        return [msgspec.json.encode(value) for value in values]


def numbering_of(codec: DownFor) -> Topology:
    topology = Topology("app", partitions=1)

    @topology.pipeline(topology.source("clicks", codec=codec, key="user", time="ts"))
    def number(clicks: Stream[str, Click]) -> Sink:
        return clicks.process(Numbering).to("numbers")

    return topology


@virtual_time
async def test_watchdog_leaves_a_task_alone_that_waits_for_a_registry(caplog: pytest.LogCaptureFixture) -> None:
    """A registry that is down for longer than three times the limit; to open the task again would not bring it back."""
    world = World(numbering_of(DownFor(30.0)))
    worker = world.worker(limits=LIMITS)
    await worker.until_running(0)
    world.click("ann", times=3)
    await world.until(ann=3)
    metrics = worker.runner.metrics.task(0)
    assert (metrics.stalls, metrics.opens) == (0, 1)
    assert metrics.preparation_failures >= 30
    assert "clicks partition 0 waits before offset 0: the registry does not answer" in caplog.text
    await worker.stop()


@virtual_time
async def test_watchdog_opens_a_task_again_whose_codec_hangs() -> None:
    world = World(numbering_of(DownFor(8.0, hangs=True)))
    worker = world.worker(limits=LIMITS)
    world.click("ann", times=3)
    await world.until(ann=3)
    assert worker.runner.metrics.task(0).stalls >= 1
    await worker.stop()


@virtual_time
async def test_not_ready_until_the_tasks_run() -> None:
    world = World(numbering(2))
    worker = world.worker(limits=LIMITS)
    assert worker.runner.not_ready() == ["the group has not assigned anything yet"]
    await eventually(lambda: len(worker.runner.tasks) == 2)
    if any(task.phase is Phase.OPENING for task in worker.runner.tasks.values()):
        assert "is opening" in worker.runner.not_ready()[0]
    await worker.until_running(0, 1)
    assert worker.runner.not_ready() == []
    await worker.stop()


@pytest.mark.thorough
async def test_loop_guard_ends_a_process_whose_loop_does_not_go_round(caplog: pytest.LogCaptureFixture) -> None:
    ended = threading.Event()
    statuses: list[int] = []

    def end(status: int) -> None:
        statuses.append(status)
        ended.set()

    guard = LoopGuard(asyncio.get_running_loop(), 300, end=end)
    guard.start()
    await asyncio.sleep(0.7)
    assert statuses == []
    user_code_that_does_not_return(ended)
    guard.stop()
    assert statuses == [EXIT_STATUS]
    assert "user_code_that_does_not_return" in caplog.text


def user_code_that_does_not_return(ended: threading.Event) -> None:
    """Hold the loop until the guard has seen enough."""
    assert ended.wait(20.0)
