"""Bounded skew over workers: what they say to each other, and that a fast one waits for a slow one, but never for one that is not there."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from engine import App, bounded
from engine.drawing import topic_role
from engine.errors import ConfigError
from engine.records import OutputColumns, TopicPartition
from engine.runtime.alignment import Said
from engine.runtime.skew_reports import SkewReports, decode, encode
from engine.runtime.transport.memory_connection import NO_FAULT, Fault, Request
from engine.testing import TestDriver
from engine.testing.clock import virtual_time
from tests.engine.runtime.test_alignment import P0, P1, apps, count, send
from tests.engine.runtime.test_savepoints import restore, take
from tests.engine.runtime.worker_world import FAST, Click, Worker, World, eventually

pytestmark = pytest.mark.thorough

FAR = range(1_000)


def reader(workers: list[Worker], partition: TopicPartition) -> Worker:
    """Return the worker that reads a partition."""
    return next(worker for worker in workers if partition.partition in worker.running_numbers())


async def two_workers(world: World, **options: Any) -> list[Worker]:
    """Start two workers, and wait until each has one of the two partitions."""
    workers = [world.worker("w1", **options), world.worker("w2", **options)]
    await eventually(lambda: all(len(worker.running_numbers()) == 1 for worker in workers))
    return workers


async def held(world: World, workers: list[Worker]) -> tuple[Worker, Worker]:
    """Let the slow partition come to second 0, and the fast one wait for it; return the reader of each, the slow one first."""
    send(world, P1, "slow", range(1))
    await eventually(lambda: count(world, "slow") == 1)
    await asyncio.sleep(2.0)  # it is heard
    send(world, P0, "fast", FAR)
    await asyncio.sleep(5.0)
    assert 61 <= count(world, "fast") <= 65
    return reader(workers, P1), reader(workers, P0)


def watermark(worker: Worker, partition: TopicPartition) -> int:
    """Return how far a worker is with a partition."""
    task = worker.runner.tasks[partition.partition].questions.task
    assert task is not None
    return task.sources[partition.topic].watermark


def alignment_of(worker: Worker) -> Any:
    return worker.runner._shell.alignment


@virtual_time
async def test_skew_fast_partition_waits_for_the_slow_one_of_another_worker() -> None:
    world = World(apps("clicks"))
    workers = await two_workers(world)
    slow, fast = await held(world, workers)
    assert slow is not fast
    assert fast.runner.metrics.task(0).held_partitions == 1
    send(world, P1, "slow", range(1, 301))
    await asyncio.sleep(5.0)
    assert count(world, "slow") == 301
    assert 361 <= count(world, "fast") <= 365
    send(world, P1, "slow", range(301, 1_000))
    await eventually(lambda: count(world, "fast") == 1_000, 5)
    assert fast.runner.metrics.task(0).held_partitions == 0
    for worker in workers:
        await worker.stop()


@virtual_time
async def test_skew_stays_within_the_bound_while_both_read_a_backlog_at_a_pace_of_their_own() -> None:
    """The backlog is 2,000 s long, the skew 60 s: without telling each other sooner than once a second that would take 33 s and more."""
    world = World(apps("clicks"))
    workers = await two_workers(world)
    send(world, P0, "fast", range(40, 41))
    send(world, P1, "slow", range(1))
    await asyncio.sleep(2)  # it is heard
    send(world, P0, "fast", range(41, 2_040))
    send(world, P1, "slow", range(1, 2_000))
    begun_s, furthest_ms, reached = world.clock.monotonic_s(), 0, [0]
    while min(reached) < 1_998_999:
        await asyncio.sleep(0.02)
        reached = [watermark(reader(workers, partition), partition) for partition in (P0, P1)]
        furthest_ms = max(furthest_ms, max(reached) - min(reached))
    assert 10_000 <= furthest_ms <= 64_000
    assert world.clock.monotonic_s() - begun_s < 15
    await eventually(lambda: (count(world, "slow"), count(world, "fast")) == (2_000, 2_000), 2)
    for worker in workers:
        await worker.stop()


@virtual_time
async def test_skew_idle_partition_of_another_worker_lets_go() -> None:
    world = World(apps("clicks", idle="20s"))
    workers = await two_workers(world)
    await held(world, workers)
    await eventually(lambda: count(world, "fast") == 1_000, 20)
    for worker in workers:
        await worker.stop()


@virtual_time
async def test_skew_partition_of_another_worker_that_never_had_a_record_holds_nobody() -> None:
    world = World(apps("clicks", idle=None))
    workers = await two_workers(world)
    await asyncio.sleep(2.0)
    send(world, P0, "fast", FAR)
    await eventually(lambda: count(world, "fast") == 1_000, 5)
    for worker in workers:
        await worker.stop()


@pytest.mark.parametrize("end", ["kill", "stop"])
@virtual_time
async def test_skew_slow_partition_that_moves_to_another_worker_is_never_out_of_sight(end: str) -> None:
    world = World(apps("clicks", idle=None))
    workers = await two_workers(world)
    slow, fast = await held(world, workers)
    await getattr(slow, end)()
    await eventually(lambda: fast.running_numbers() == [0, 1], 60)
    await asyncio.sleep(30.0)
    assert count(world, "fast") <= 65
    send(world, P1, "slow", FAR[1:])
    await eventually(lambda: (count(world, "slow"), count(world, "fast")) == (1_000, 1_000), 10)
    await fast.stop()


@pytest.mark.parametrize(("slow", "fast"), [(P0, P1), (P1, P0)])
@virtual_time
async def test_skew_worker_that_joins_waits_and_is_waited_for(slow: TopicPartition, fast: TopicPartition) -> None:
    world = World(apps("clicks", idle=None))
    first = world.worker("w1")
    await first.until_running(0, 1)
    send(world, slow, "slow", range(1))
    await eventually(lambda: count(world, "slow") == 1)
    send(world, fast, "fast", FAR)
    await asyncio.sleep(5.0)
    assert 61 <= count(world, "fast") <= 65
    second = world.worker("w2")
    await second.until_running(1)  # the fast one, and the slow one
    await first.until_running(0)
    await asyncio.sleep(30.0)
    assert count(world, "fast") <= 130  # a newcomer has once more the skew, until it has heard of the others
    send(world, slow, "slow", FAR[1:])
    await eventually(lambda: (count(world, "slow"), count(world, "fast")) == (1_000, 1_000), 10)
    await first.stop()
    await second.stop()


@virtual_time
async def test_skew_worker_that_says_nothing_any_more_holds_nobody_for_long(caplog: pytest.LogCaptureFixture) -> None:
    world = World(apps("clicks", idle=None))
    workers = await two_workers(world)
    slow, _ = await held(world, workers)
    assert isinstance(slow.runner._skew_reports, SkewReports)
    slow.runner._skew_reports.stop()
    await asyncio.sleep(9.0)
    assert count(world, "fast") <= 65
    await eventually(lambda: count(world, "fast") == 1_000, 10)
    assert "no worker has said for 15 s how far clicks-1 has come" in caplog.text
    for worker in workers:
        await worker.stop()


@virtual_time
async def test_skew_worker_without_a_bound_says_nothing_and_holds_nobody() -> None:
    world = World(apps("clicks", idle=None))
    aligned, world.plan = world.plan, replace(world.plan, max_skew_ms=None)
    other = world.worker("w2")
    await other.until_running(0, 1)
    world.plan = aligned
    worker = world.worker("w1")
    await eventually(lambda: len(worker.running_numbers()) == len(other.running_numbers()) == 1)
    send(world, P1, "slow", range(1))
    send(world, P0, "fast", FAR)
    await eventually(lambda: count(world, "fast") == 1_000, 20)
    await other.stop()
    await worker.stop()


@virtual_time
async def test_skew_apps_of_different_names_do_not_wait_for_each_other() -> None:
    blue, green = World(apps("clicks", idle=None, name="blue")), World(apps("clicks", idle=None, name="green"))
    workers = [blue.worker("b")]
    send(blue, P1, "slow", range(1))
    await eventually(lambda: count(blue, "slow") == 1)
    green.broker = blue.broker  # one cluster, and one source topic: blue has been told to wait for nothing, green begins anew
    assert blue.plan.alignment_topic != green.plan.alignment_topic
    workers.append(green.worker("g"))
    await workers[1].until_running(0, 1)
    heard = alignment_of(workers[1])._heard
    await asyncio.sleep(5.0)
    assert all(what.said.watermark in (None, -1) for of_group in heard.values() for what in of_group.values())
    assert blue.broker.log(TopicPartition("blue-alignment-1", 0)).high_watermark > 5
    assert blue.broker.log(TopicPartition("green-alignment-1", 0)).high_watermark > 4
    for worker in workers:
        await worker.stop()


# -- what goes wrong


def refuses(what: Callable[..., Any], topic: str) -> Callable[..., Any]:
    """Return a call that is not allowed for one topic."""

    async def call(first: Any, *others: Any) -> Any:
        if topic in str(first):
            raise ConfigError(f"{topic}: not allowed")
        return await what(first, *others)

    return call


@virtual_time
async def test_skew_reports_that_cannot_be_read_bound_nothing_and_are_said_in_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(apps("clicks", idle=None))
    workers = [world.worker("w1"), world.worker("w2")]
    for worker in workers:
        monkeypatch.setattr(worker.transport, "open_reader", refuses(worker.transport.open_reader, "app-alignment-1"))
    await eventually(lambda: all(len(worker.running_numbers()) == 1 for worker in workers))
    send(world, P1, "slow", range(1))
    send(world, P0, "fast", FAR)
    await eventually(lambda: count(world, "fast") == 1_000, 20)
    assert (
        "app-alignment-1: reports of how far the workers are cannot be read: ConfigError: app-alignment-1: not allowed; tried again"
        in caplog.text
    )
    for worker in workers:
        await worker.stop()


@virtual_time
async def test_skew_reports_that_cannot_be_sent_are_said_in_the_log_and_sent_later(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(apps("clicks", idle=None))
    workers = await two_workers(world)
    send(world, P1, "slow", range(1))
    await eventually(lambda: count(world, "slow") == 1)
    slow = reader(workers, P1)
    with monkeypatch.context() as patch:
        patch.setattr(slow.transport, "send", refuses(slow.transport.send, "app-alignment-1"))
        await asyncio.sleep(20.0)
    assert "app-alignment-1: reports of how far the workers are cannot be sent" in caplog.text
    assert caplog.text.count("cannot be sent") == 1
    await asyncio.sleep(6.0)
    await held(world, workers)
    for worker in workers:
        await worker.stop()


class Away:
    """A broker that is away while `until_s` lies ahead."""

    def __init__(self, world: World) -> None:
        self.until_s = 0.0
        self._clock = world.clock

    def on_request(self, request: Request, client_id: str) -> Fault:
        """Lose the request."""
        return Fault(lost="request", delay_s=0.05) if self._clock.monotonic_s() < self.until_s else NO_FAULT


@pytest.mark.parametrize("seconds", [3.0, 40.0])
@virtual_time
async def test_skew_broker_that_was_away_holds_nobody_for_ever(seconds: float) -> None:
    world = World(apps("clicks", idle=None))
    line = Away(world)
    workers = await two_workers(world, faults=line)
    await held(world, workers)
    line.until_s = world.clock.monotonic_s() + seconds
    await asyncio.sleep(seconds + 30.0)
    assert count(world, "fast") <= 200  # once more the skew, at most, for each time that it was opened anew
    send(world, P1, "slow", FAR[1:])
    await eventually(lambda: (count(world, "slow"), count(world, "fast")) == (1_000, 1_000), 20)
    for worker in workers:
        await worker.stop()


@virtual_time
async def test_skew_report_that_is_none_is_passed_over_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    world = World(apps("clicks"))
    workers = await two_workers(world)
    await held(world, workers)
    place = TopicPartition("app-alignment-1", 0)
    for value in (b"garbage", None, b'{"version":2}', b'{"version":1,"reached":{"clicks":{"0":"x"}}}'):
        world.broker.produce({place: OutputColumns([1], [None], [value])})
    await asyncio.sleep(3.0)
    assert "app-alignment-1: a report cannot be read, and is passed over: " in caplog.text
    assert all(worker.runner.not_ready() == [] for worker in workers)
    assert count(world, "fast") <= 65
    for worker in workers:
        await worker.stop()


@virtual_time
async def test_skew_report_with_a_bug_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(apps("clicks"))
    worker = world.worker()
    await worker.until_running(0, 1)
    monkeypatch.setattr(alignment_of(worker), "forget", lambda now_s: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        async with asyncio.timeout(10):
            await worker.running


# -- the topic


@virtual_time
async def test_skew_topic_is_there_only_with_a_bound_and_ends_with_its_epoch(tmp_path: Any) -> None:
    world = World(apps("clicks"))
    (spec,) = [spec for spec in world.plan.topic_specs() if spec.name == "app-alignment-1"]
    assert (spec.partitions, spec.compacted, spec.retention_ms, spec.config) == (1, False, 3_600_000, {"segment.ms": "600000"})
    assert topic_role(world.plan, spec.name) == "alignment"
    assert not [spec for spec in replace(world.plan, max_skew_ms=None).topic_specs() if "alignment" in spec.name]
    worker = world.worker()
    send(world, P0, "fast", range(10))
    await eventually(lambda: count(world, "fast") == 10)
    await take(world, tmp_path, stop=True)
    await worker.stop()
    restored = await restore(world, tmp_path, apps("clicks"))
    assert restored.old_topics == ["app-alignment-1", "app-changelog-1"]
    again = world.worker("w2")
    await again.until_running(0, 1)
    await asyncio.sleep(2.0)
    assert world.broker.log(TopicPartition("app-alignment-2", 0)).high_watermark > 1
    await again.stop()


@virtual_time
async def test_skew_reports_are_no_part_of_the_state_and_of_the_groups_offsets() -> None:
    world = World(apps("clicks"))
    workers = await two_workers(world, limits=replace(FAST, commit_interval_ms=50))
    await held(world, workers)
    assert all(partition.topic != "app-alignment-1" for partition in world.broker.group("app").offsets)
    assert not any("alignment" in str(value) for batch in world.read("app-changelog-1") for value in (*batch.keys, *batch.values))
    for worker in workers:
        await worker.stop()


def test_skew_bounds_nothing_in_a_test_driver_which_processes_what_it_is_sent_at_once() -> None:
    app = App("shop", broker="memory://", max_skew="1m")
    clicks = app.source("clicks", Click, key="user", time="ts", watermark=bounded("0s", idle="1m"))
    app.pipeline(clicks, name="pages")(lambda clicks: clicks.map(lambda click: click.page).to("pages"))
    assert app.topology.plan().max_skew_ms == 60_000
    with TestDriver(app, partitions=2) as driver:
        for partition, ts in ((1, 0), (0, 0), (0, 3_600_000)):
            driver.send("clicks", Click("ann", f"{partition}-{ts}", ts), partition=partition)
        assert sorted(record.value for record in driver.read("pages")) == ["0-0", "0-3600000", "1-0"]


def test_skew_report_is_read_as_it_was_written() -> None:
    said = {P0: Said(1_234), P1: Said(is_opening=True), TopicPartition("views", 7): Said(), TopicPartition("views", 0): Said(-5)}
    assert encode(said) == (b'{"version":1,"reached":{"clicks":{"0":1234},"views":{"0":-5}},"opening":{"clicks":[1]},"free":{"views":[7]}}')
    assert decode(encode(said)) == said
