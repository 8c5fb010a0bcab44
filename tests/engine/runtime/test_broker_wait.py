"""A worker that starts while the broker is away waits for it; what only one of its steps could not do is done again."""

import asyncio

import pytest

from engine.errors import ConfigError, UnavailableError
from engine.runtime.broker_wait import BrokerWait
from engine.runtime.faust_seam.side_connection import Connection
from engine.runtime.shell import Limits
from engine.runtime.transport.memory import MemoryTransport
from engine.runtime.transport.memory_broker import MemoryBroker
from engine.runtime.transport.memory_connection import NO_FAULT, Fault, Request
from engine.testing.clock import LoopClock, virtual_loop, virtual_time
from tests.engine.runtime.worker_world import FAST, Script, World, eventually, numbering

LOST = Fault(delay_s=3.0, lost="request")


class Away:
    """A broker that answers nobody until a time; a request takes a while to fail."""

    def __init__(self, until_s: float, *, first_answers: int = 0) -> None:
        self.until_s = virtual_loop().time() + until_s
        self.first_answers = first_answers

    def on_request(self, request: Request, client_id: str) -> Fault:
        """Lose the request while the broker is away."""
        self.first_answers -= 1
        return LOST if self.first_answers < 0 and virtual_loop().time() < self.until_s else NO_FAULT


def broker_wait(wait_ms: int | None, stopping: asyncio.Event | None = None) -> BrokerWait:
    return BrokerWait(wait_ms, stopping or asyncio.Event(), retry_first_s=0.1, retry_max_s=5.0)


@pytest.mark.parametrize("answers", range(8))
@virtual_time
async def test_worker_started_while_the_broker_is_away_waits_and_then_works(answers: int) -> None:
    world = World(numbering())
    world.click("ann", times=3)
    worker = world.worker(faults=Away(40.0, first_answers=answers))
    await asyncio.sleep(20.0)
    assert not worker.running.done()
    (reason,) = worker.runner.not_ready()
    assert reason.startswith("waits for the broker: ") or answers > 5, "what comes after the start is retried elsewhere"
    await world.until(ann=3)
    assert worker.runner.not_ready() == []
    await worker.stop()


@virtual_time
async def test_worker_gives_up_after_its_broker_wait_and_says_in_one_sentence_why() -> None:
    world = World(numbering())
    begun_s = virtual_loop().time()
    worker = world.worker(faults=Away(10_000.0))
    with pytest.raises(UnavailableError) as raised:
        await worker.running
    assert str(raised.value) == (
        "no broker within 300 s (broker_wait), so the worker ends: describe_topics: the memory broker could not be reached"
    )
    assert 290.0 < virtual_loop().time() - begun_s < 310.0


@virtual_time
async def test_worker_told_to_end_while_it_waits_for_the_broker_ends_at_once() -> None:
    world = World(numbering())
    worker = world.worker(faults=Away(10_000.0))
    await asyncio.sleep(31.5)
    stopped_s = virtual_loop().time()
    await worker.stop()
    assert virtual_loop().time() - stopped_s < 0.1


@virtual_time
async def test_worker_whose_topic_does_not_fit_does_not_wait() -> None:
    world = World(numbering())
    other = numbering(partitions=3)
    world.plan = other.plan()
    worker = world.worker(faults=Script({("describe_topics", 1): LOST}))
    with pytest.raises(ConfigError):
        await worker.running
    assert virtual_loop().time() < 10.0


@virtual_time
async def test_broker_wait_of_none_goes_on_for_ever_and_of_nothing_tries_once() -> None:
    tries = 0

    async def step() -> None:
        nonlocal tries
        tries += 1
        if tries < 1_000:
            raise UnavailableError("away")

    waiting = broker_wait(None)
    assert await waiting.through(step)
    assert (tries, waiting.reason) == (1_000, "")
    tries = 0
    with pytest.raises(UnavailableError, match=r"no broker within 0 s \(broker_wait\), so the worker ends: away"):
        await broker_wait(0).through(step)
    assert tries == 1


@virtual_time
async def test_broker_wait_is_one_over_all_steps() -> None:
    begun_s = virtual_loop().time()

    async def slow() -> None:
        await asyncio.sleep(7.0)

    async def away() -> None:
        raise UnavailableError("away")

    waiting = broker_wait(10_000)
    assert await waiting.through(slow)
    with pytest.raises(UnavailableError):
        await waiting.through(away)
    assert virtual_loop().time() - begun_s <= 10.0


@virtual_time
async def test_plain_part_of_an_app_waits_for_the_broker_too_until_the_worker_ends() -> None:
    broker = MemoryBroker(LoopClock(virtual_loop()))

    def connection(until_s: float, limits: Limits = FAST) -> Connection:
        faults = Away(until_s)
        return Connection(lambda: MemoryTransport(broker, group_id="agents", faults=faults), partitions=1, limits=limits)

    first = connection(40.0)
    assert await (await first.started()).topics() == []
    await first.stop()
    second = connection(10_000.0)
    starting = asyncio.create_task(second.started())
    await asyncio.sleep(10.0)
    second.give_up()
    with pytest.raises(UnavailableError, match="waits for the broker"):
        await asyncio.wait_for(starting, 1.0)
    third = connection(10_000.0, Limits(broker_wait_ms=5_000))
    with pytest.raises(UnavailableError, match="no broker within 5 s"):
        await third.started()
    await eventually(lambda: not asyncio.all_tasks() - {asyncio.current_task()})
