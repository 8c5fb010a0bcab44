"""Quiet partitions: only what a fetch answer after the last activity has shown."""

import asyncio

import pytest

from engine import Sink, Stream, bounded
from engine.records import TopicPartition
from engine.runtime.quiet import FRESH_S, GAP_S, STALE_S, Pulse, Steadiness, is_quiet
from engine.runtime.transport.memory_connection import NO_FAULT, Fault, Request
from engine.runtime.transport.protocol import FetchState
from engine.testing.clock import virtual_time
from engine.topology import Topology
from tests.engine.runtime.worker_world import Click, Farewell, World, eventually, numbering

CAUGHT_UP = FetchState(position=5, high_watermark=5, received_s=10.0)


@pytest.mark.parametrize(
    ("state", "position", "since_s", "now_s", "expected"),
    [
        (CAUGHT_UP, 5, 9.0, 10.1, True),
        (None, 5, 9.0, 10.1, False),
        (FetchState(4, 5, 10.0), 4, 9.0, 10.1, False),
        (CAUGHT_UP, 3, 9.0, 10.1, False),
        (CAUGHT_UP, 5, 10.05, 10.1, False),
        (CAUGHT_UP, 5, 9.0, 10.0 + STALE_S + 0.1, False),
    ],
    ids=["caught-up", "no-answer", "more-to-read", "still-queued", "answer-before-the-activity", "broker-silent"],
)
def test_is_quiet_only_if_nothing_can_be_left(
    state: FetchState | None, position: int, since_s: float, now_s: float, expected: bool
) -> None:
    assert is_quiet(state, position, since_s, now_s) is expected


@pytest.mark.parametrize(("idle_s", "longest_s"), [(0.2, FRESH_S), (1.0, FRESH_S), (3.0, 3.0), (60.0, STALE_S)])
def test_is_quiet_only_by_an_answer_that_came_in_the_idle_time(idle_s: float, longest_s: float) -> None:
    assert is_quiet(CAUGHT_UP, 5, 9.0, 9.99 + longest_s, idle_s)
    assert not is_quiet(CAUGHT_UP, 5, 9.0, 10.01 + longest_s, idle_s)


def test_pulse_gap_of_the_loop_starts_anew() -> None:
    pulse = Pulse(0.0)
    pulse.beat(0.5)
    assert pulse.restarted_s == 0.0
    pulse.beat(0.5 + GAP_S + 0.1)
    assert pulse.restarted_s == 0.5 + GAP_S + 0.1


def test_steadiness_ends_with_a_jump_of_the_wall_clock_or_an_interruption() -> None:
    steadiness = Steadiness(10.0, 1_000_000)
    assert steadiness.restarted_s(15.0, 1_005_000) == 0.0, "both clocks went on alike"
    assert steadiness.restarted_s(15.1, 1_007_000) == 15.1
    assert steadiness.restarted_s(15.2, 1_007_100) == 0.0
    steadiness.interrupt()
    assert [steadiness.restarted_s(15.3, 1_007_200), steadiness.restarted_s(15.4, 1_007_300)] == [15.3, 0.0]


class SlowFetches:
    """Answers to fetches take so long."""

    def __init__(self) -> None:
        self.delay_s = 0.0

    def on_request(self, request: Request, client_id: str) -> Fault:
        """Delay the answer."""
        return Fault(delay_s=self.delay_s) if request == "fetch" else NO_FAULT


@virtual_time
async def test_input_does_not_become_idle_by_an_answer_from_before_its_idle_time() -> None:
    topology, line = Topology("app", partitions=1), SlowFetches()
    clicks = topology.source("clicks", Click, key="user", time="ts", watermark=bounded("0s", idle="2500ms"))
    topology.pipeline(clicks, name="number")(lambda clicks: clicks.process(Farewell).to("numbers"))
    world = World(topology)
    worker = world.worker(faults=line)
    await worker.until_running(0)
    world.click("ann")
    await eventually(lambda: worker.runner.tasks[0].positions[TopicPartition("clicks", 0)] == 1)
    task = worker.runner.tasks[0].questions.task
    assert task is not None
    line.delay_s = 4.0  # what is sent now is seen in four seconds at the earliest
    await asyncio.sleep(0.5)
    world.click("ann")
    for _ in range(70):
        await asyncio.sleep(0.05)
        assert not task.sources["clicks"].idle
    line.delay_s = 0.0
    await eventually(lambda: task.sources["clicks"].idle, 20.0)
    assert worker.runner.tasks[0].positions[TopicPartition("clicks", 0)] == 2
    await worker.stop()


class SlowCommits:
    """Transactions take longer than a gap of the loop to be committed."""

    def on_request(self, request: Request, client_id: str) -> Fault:
        """Delay the answer."""
        return Fault(answer_delay_s=2 * GAP_S) if request == "end_txn" else NO_FAULT


@virtual_time
async def test_input_becomes_idle_although_every_commit_takes_longer_than_a_gap_of_the_loop() -> None:
    topology = Topology("app", partitions=1)
    clicks = topology.source("clicks", Click, key="user", time="ts", watermark=bounded("0s", idle=None))
    views = topology.source("views", Click, key="user", time="ts", watermark=bounded("0s", idle="10s"))

    @topology.pipeline(clicks, views)
    def number(clicks: Stream[str, Click], views: Stream[str, Click]) -> Sink:
        return clicks.merge(views).process(Farewell).to("numbers")

    world = World(topology)
    worker = world.worker(faults=SlowCommits())
    await worker.until_running(0)
    begun_s = world.clock.monotonic_s()
    for second in range(60):  # there is always something to commit
        world.click("ann", ts=second * 10_000)
        await asyncio.sleep(1.0)
        if world.numbers():
            break
    assert 10.0 <= world.clock.monotonic_s() - begun_s < 20.0, "views are quiet from the start, and idle ten seconds later"
    await worker.stop()


@virtual_time
async def test_process_that_stood_still_during_a_commit_counts_no_quiet_time_from_before() -> None:
    world = World(numbering(partitions=1))
    worker = world.worker(faults=SlowCommits())
    await worker.until_running(0)
    pulse = worker.runner._shell.pulse
    before_s = pulse.restarted_s
    pulse.last_s -= 10 * GAP_S  # as after SIGCONT, whoever looks first: the poll loop or the task
    worker.runner.tasks[0]._tick(world.clock.monotonic_s())
    assert pulse.restarted_s == world.clock.monotonic_s() > before_s
    await worker.stop()
