"""Bounded skew: a partition far ahead of the slowest one waits, nothing is lost by it, and nobody waits for ever."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine import Sink, Stream, bounded
from engine.block import MAX_TIME, MIN_TIME
from engine.records import OutputColumns, TopicPartition
from engine.runtime.alignment import Alignment, source_groups
from engine.runtime.bounded import run_to_end
from engine.testing.clock import virtual_time
from engine.topology import Topology
from tests.engine.runtime.test_savepoints import restore, take
from tests.engine.runtime.worker_world import FAST, Click, Numbering, World, eventually

SKEW_MS = 60_000
P0, P1 = TopicPartition("clicks", 0), TopicPartition("clicks", 1)


def apps(*topics: str, partitions: int = 2, apart: bool = False, idle: Any = "1m", name: str = "app") -> Topology:
    """Return an app that numbers the records of each user, of all topics together or `apart`, each topic by itself."""
    topology = Topology(name, partitions=partitions, max_skew_ms=SKEW_MS)
    sources = [topology.source(topic, Click, key="user", time="ts", watermark=bounded("0s", idle=idle)) for topic in topics]
    for number, group in enumerate([[source] for source in sources] if apart else [sources]):

        @topology.pipeline(*group, name=f"number-{number}")
        def work(first: Stream[str, Click], *others: Stream[str, Click]) -> Sink:
            return (first.merge(*others) if others else first).process(Numbering).to("numbers")

    return topology


def send(world: World, partition: TopicPartition, user: str, seconds: range) -> None:
    """Send one record of a user for each second."""
    values: list[bytes | None] = [msgspec.json.encode(Click(user, "p", second * 1_000)) for second in seconds]
    world.broker.produce({partition: OutputColumns([second * 1_000 for second in seconds], [user.encode()] * len(values), values)})


def count(world: World, user: str) -> int:
    """Return how many records of a user have come out; they must be numbered without holes or doubles."""
    numbers = world.numbers().get(user, [])
    assert numbers == list(range(1, len(numbers) + 1))
    return len(numbers)


@virtual_time
async def test_alignment_partition_that_is_ahead_waits_for_the_slowest() -> None:
    world = World(apps("clicks"))
    worker = world.worker()
    send(world, P1, "slow", range(1))
    await eventually(lambda: count(world, "slow") == 1)
    send(world, P0, "fast", range(1_000))
    await asyncio.sleep(20)
    assert 61 <= count(world, "fast") <= 65  # the bound is 60 s, the piece of work in hand is done to its end
    assert worker.runner.metrics.task(0).held_partitions == 1
    assert 'streamforge_held_partitions{task="0"} 1.0' in worker.runner.metrics.render().decode()
    send(world, P1, "slow", range(1, 301))
    await asyncio.sleep(20)
    assert count(world, "slow") == 301
    assert 361 <= count(world, "fast") <= 365
    send(world, P1, "slow", range(301, 1_000))
    await eventually(lambda: count(world, "fast") == 1_000, 5)
    assert worker.runner.metrics.task(0).held_partitions == 0
    await worker.stop()


@virtual_time
async def test_alignment_idle_partition_holds_nobody_back() -> None:
    world = World(apps("clicks", idle="30s"))
    worker = world.worker()
    send(world, P1, "slow", range(1))
    await eventually(lambda: count(world, "slow") == 1)
    send(world, P0, "fast", range(1_000))
    await asyncio.sleep(20)
    assert count(world, "fast") < 100
    await eventually(lambda: count(world, "fast") == 1_000, 15)
    await worker.stop()


@virtual_time
async def test_alignment_partition_without_any_record_holds_nobody_back() -> None:
    world = World(apps("clicks", idle=None))
    worker = world.worker()
    send(world, P0, "fast", range(1_000))
    await eventually(lambda: count(world, "fast") == 1_000, 5)
    await worker.stop()


@virtual_time
async def test_alignment_partition_that_came_with_a_savepoint_and_has_no_record_holds_nobody_back(tmp_path: Path) -> None:
    world = World(apps("clicks", idle=None, partitions=1))
    worker = world.worker()
    send(world, P0, "fast", range(10))
    await eventually(lambda: count(world, "fast") == 10)
    await take(world, tmp_path, stop=True)
    await worker.stop()
    await restore(world, tmp_path, apps("clicks", idle=None, partitions=2), grow=True)
    worker = world.worker()
    send(world, TopicPartition("clicks", world.partition("fast")), "fast", range(10, 1_000))  # the other one has the watermark of second 9
    await eventually(lambda: sorted(world.numbers()["fast"]) == list(range(1, 1_001)), 20)
    await worker.stop()


@virtual_time
async def test_alignment_waiting_partition_does_not_become_idle() -> None:
    world = World(apps("clicks", idle="10s"))
    worker = world.worker()
    send(world, P0, "fast", range(1_000))
    for second in range(30):  # never idle, so the fast one waits for far longer than its own idle time
        send(world, P1, "slow", range(second, second + 1))
        await asyncio.sleep(1)
    shown = worker.runner.metrics.task(0).watermark_ms["number-0/clicks"]
    assert count(world, "fast") < 100
    assert shown < 100_000
    await worker.stop()


@virtual_time
async def test_alignment_sources_of_one_task_wait_for_each_other_even_with_a_full_queue() -> None:
    world = World(apps("clicks", "views", partitions=1))
    worker = world.worker(limits=replace(FAST, queue_records_max=50))
    send(world, TopicPartition("views", 0), "slow", range(1))
    await eventually(lambda: count(world, "slow") == 1)
    send(world, P0, "fast", range(1_000))
    await asyncio.sleep(10)
    assert count(world, "fast") <= 65
    send(world, TopicPartition("views", 0), "slow", range(1, 1_000))  # must still be read
    await eventually(lambda: (count(world, "slow"), count(world, "fast")) == (1_000, 1_000), 10)
    await worker.stop()


@virtual_time
async def test_alignment_sources_of_different_pipelines_do_not_wait() -> None:
    world = World(apps("clicks", "views", partitions=1, apart=True))
    worker = world.worker()
    send(world, TopicPartition("views", 0), "slow", range(1))
    send(world, P0, "fast", range(1_000))
    await eventually(lambda: count(world, "fast") == 1_000, 5)
    await worker.stop()


@virtual_time
async def test_alignment_worker_killed_while_one_waits_repeats_nothing() -> None:
    world = World(apps("clicks"))
    first = world.worker()
    send(world, P1, "slow", range(1))
    await eventually(lambda: count(world, "slow") == 1)
    send(world, P0, "fast", range(1_000))
    await asyncio.sleep(10)
    await first.kill()
    second = world.worker("w2", disk=first.disk)
    await second.until_running(0, 1)
    await asyncio.sleep(10)
    assert count(world, "fast") <= 130  # once more the skew, while the other task was being opened
    send(world, P1, "slow", range(1, 1_000))
    await eventually(lambda: (count(world, "slow"), count(world, "fast")) == (1_000, 1_000), 20)
    await second.stop()


@virtual_time
async def test_alignment_bounded_run_waits_for_nobody() -> None:
    world = World(apps("clicks", idle=None))
    send(world, P1, "slow", range(1))
    send(world, P0, "fast", range(1_000))
    worker = world.worker()
    worker.running.cancel()
    await run_to_end(worker.runner)
    assert count(world, "fast") == 1_000


# -- the decision alone


def test_alignment_groups_are_topics_that_pipelines_read_together() -> None:
    topology = apps("a", "b", partitions=1)
    for topic in ("c", "d"):
        topology.source(topic, Click)
    for name, topics in {"bc": "bc", "d": "d"}.items():
        sources = [topology.sources[topic] for topic in topics]
        topology.pipeline(*sources, name=name)(lambda first, *others: first.merge(*others).to("out") if others else first.to("out"))
    groups = source_groups(topology.plan())
    assert groups["a"] == groups["b"] == groups["c"]
    assert groups["d"] != groups["a"]


def two(skew_ms: int = 10) -> Alignment:
    return Alignment(skew_ms, apps("clicks").plan())


@pytest.mark.parametrize(("ahead", "waits"), [(110, False), (111, True)])
def test_alignment_bound_itself_is_allowed(ahead: int, waits: bool) -> None:
    alignment = two()
    alignment.reached(P0, 100, idle=False)
    alignment.reached(P1, ahead, idle=False)
    assert alignment.must_wait(P1, lambda: None) is waits
    assert not alignment.must_wait(P0, lambda: None)


@pytest.mark.parametrize("how", ["catches up", "idle", "ends", "leaves"])
def test_alignment_waiting_one_is_woken_when_the_slowest_moves_on(how: str) -> None:
    alignment, woken = two(), []
    alignment.reached(P0, 100, idle=False)
    alignment.reached(P1, 200, idle=False)
    assert alignment.must_wait(P1, lambda: woken.append(how))
    alignment.reached(P0, 100, idle=False)
    assert woken == []
    if how == "leaves":
        alignment.leave([P0])
    else:
        alignment.reached(P0, MAX_TIME if how == "ends" else 195, idle=how == "idle")
    assert woken == [how]
    assert not alignment.must_wait(P1, lambda: None)


def test_alignment_partition_without_time_is_not_compared() -> None:
    alignment = two()
    alignment.reached(P0, MIN_TIME, idle=False)
    alignment.reached(P1, 200, idle=False)
    assert not alignment.must_wait(P0, lambda: None)
    assert not alignment.must_wait(P1, lambda: None)


def test_alignment_partition_that_is_being_opened_limits_the_others_to_the_skew_from_where_they_began() -> None:
    alignment, woken = two(), []
    alignment.opens([P0, P1])
    alignment.reached(P1, 500, idle=False)
    assert not alignment.must_wait(P1, lambda: None)
    alignment.reached(P1, 511, idle=False)
    assert alignment.must_wait(P1, lambda: woken.append(P1))
    alignment.reached(P0, 600, idle=False)
    assert woken == [P1]
    assert not alignment.must_wait(P1, lambda: None)


def test_alignment_partition_that_cannot_be_opened_holds_nobody_back() -> None:
    alignment = two()
    alignment.opens([P0, P1])
    alignment.reached(P1, 500, idle=False)
    alignment.reached(P1, 511, idle=False)
    alignment.leave([P0])
    assert not alignment.must_wait(P1, lambda: None)


def test_alignment_piece_of_work_shrinks_to_the_room_that_is_left() -> None:
    alignment = two(1_000)
    alignment.reached(P0, 0, idle=False)
    alignment.reached(P1, 600, idle=False)
    assert alignment.records(P1) == 64  # nothing is known yet
    alignment.went(P1, 50, 500)
    assert alignment.records(P1) == 40
    alignment.reached(P1, 1_000, idle=False)
    assert alignment.records(P1) == 1
