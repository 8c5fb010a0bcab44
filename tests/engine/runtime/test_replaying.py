"""Dead letters on a broker: each replay is one transaction with its marks, so that no letter goes back twice."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from engine.dead_letters import record_headers
from engine.errors import ConfigError, FencedError, UnavailableError
from engine.plan import Plan
from engine.records import Headers, OutputColumns, TopicPartition
from engine.replays import DeadLetter
from engine.runtime import replaying
from engine.runtime.replaying import Letter, marks_topic, purge, read_letters, replay
from engine.runtime.transport.memory import MemoryTransport
from engine.runtime.transport.memory_broker import MemoryBroker
from engine.runtime.transport.memory_connection import Fault, Request
from engine.testing.clock import LoopClock, virtual_loop, virtual_time
from engine.testing.fixture import WorkerUnderTest, worker_fixture
from tests.engine.dead_letter_world import Order, Refusals, broken_app
from tests.engine.runtime.memory_world import LOST_ANSWER, LOST_REQUEST, Script

pytest_plugins = ["engine.testing.fixture"]

fault = Refusals()
worker = worker_fixture(lambda broker: broken_app(fault, broker))
NOW_MS = 1_735_689_600_000


@pytest.fixture(autouse=True)
def mended() -> Iterator[None]:
    fault.refused.clear()
    yield
    fault.refused.clear()


def everything(letter: DeadLetter) -> bool:
    return True


def attempts(one: Letter) -> int:
    return 0 if one.letter.history is None else one.letter.history.attempt


async def letters(transport: MemoryTransport, plan: Plan) -> list[Letter]:
    return [one async for one in read_letters(transport, plan)]


@asynccontextmanager
async def command(worker: WorkerUnderTest) -> AsyncIterator[MemoryTransport]:
    """A connection beside the worker's, as a command has."""
    transport = MemoryTransport(worker.broker, client_id="command")
    worker._loop.held = False
    await transport.start()
    try:
        yield transport
    finally:
        await transport.stop()
        worker._loop.held = True


async def test_worker_takes_a_replay_once_in_the_pipeline_that_refused_it(worker: WorkerUnderTest) -> None:
    fault.refused["o2"] = "not yet"
    for number, cents in enumerate((100, 20, 3), 1):
        await worker.send("orders", Order(f"o{number}", "ann", cents), at=NOW_MS - number)
    assert [record.value["cents"] for record in await worker.read("shop-totals")] == [100, 120, 123]
    assert [record.value["seen"] for record in await worker.read("shop-checked")] == [1, 2]
    fault.refused.clear()
    async with command(worker) as transport:
        (found,) = await letters(transport, worker.plan)
        assert found.letter.headers == () and found.mark is None
        done = await replay(transport, worker.plan, everything, now_ms=NOW_MS)
        assert (done.sent, done.done_before, done.refused) == (1, 0, [])
        done = await replay(transport, worker.plan, everything, now_ms=NOW_MS)
        assert (done.sent, done.done_before) == (0, 1)
    (record,) = await worker.read("shop-checked")
    assert (record.key, record.value, record.timestamp_ms) == ("ann", {"order_id": "o2", "seen": 3}, NOW_MS - 2)
    assert await worker.read("shop-totals") == []
    async with command(worker) as transport:
        assert (await replay(transport, worker.plan, everything, now_ms=NOW_MS, again=True)).sent == 1
        (found,) = await letters(transport, worker.plan)
        assert found.mark is not None and found.mark.times == 2
    assert [record.value["seen"] for record in await worker.read("shop-checked")] == [4], "asked for twice, it counts twice"


async def test_worker_sends_what_fails_again_to_a_new_letter_with_its_history(worker: WorkerUnderTest) -> None:
    fault.refused["o1"] = "not yet"
    await worker.send("orders", Order("o1", "ann", 1))
    await worker.settle()
    for _ in range(2):
        async with command(worker) as transport:
            assert (await replay(transport, worker.plan, everything, now_ms=NOW_MS)).sent == 1
        await worker.settle()
    async with command(worker) as transport:
        found = await letters(transport, worker.plan)
    assert [(attempts(one), one.mark is None) for one in found] == [
        (0, False),
        (1, False),
        (2, True),
    ]
    history = found[2].letter.history
    assert history is not None and history.origin == f"orders/{found[0].letter.source_partition}/0"
    assert history.errors == ("check: ValueError: not yet",) * 2


# -- without a worker: the transaction


PLAN = broken_app(Refusals()).topology.plan()
LETTERS = 7


def letter_headers(partition: int, offset: int) -> Headers:
    own = [("trace", b"%d" % offset)]
    error = ValueError()
    return record_headers(own, topic="orders", partition=partition, offset=offset, pipeline="checks", operator="check", error=error)


def broker_with_letters() -> MemoryBroker:
    """A broker with letters in both partitions, written by nobody's worker."""
    broker = MemoryBroker(LoopClock(virtual_loop()))
    for spec in PLAN.topic_specs(create_sources=True):
        broker.create_topic(spec)
    for offset in range(LETTERS):
        columns = OutputColumns([offset], [b"k"], [b"v%d" % offset], [letter_headers(offset % 2, offset)])
        broker.produce({TopicPartition(PLAN.dead_letter_topic, offset % 2): columns})
    return broker


def sent_back(broker: MemoryBroker) -> list[bytes]:
    return sorted(value or b"" for number in (0, 1) for value in broker.read(TopicPartition("orders", number), 0).values)


async def connect(broker: MemoryBroker, faults: Script | None = None) -> MemoryTransport:
    transport = MemoryTransport(broker, client_id="command", faults=faults)
    await transport.start()
    return transport


@pytest.mark.parametrize("kind", ["produce", "end_txn"])
@pytest.mark.parametrize("lost", [LOST_REQUEST, LOST_ANSWER])
@virtual_time
async def test_replay_that_is_cut_off_is_run_again_and_sends_nothing_twice(
    kind: Request, lost: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "LETTERS_AT_ONCE", 2)
    broker = broker_with_letters()

    script = Script()
    transport = await connect(broker, script)
    script.next[kind] = [lost] * 40
    with pytest.raises(UnavailableError):
        await replay(transport, PLAN, everything, now_ms=NOW_MS)
    script.next.clear()
    before = len(sent_back(broker))
    done = await replay(transport, PLAN, everything, now_ms=NOW_MS)
    assert done.sent + done.done_before == LETTERS and done.done_before == before
    assert sent_back(broker) == [b"v%d" % n for n in range(LETTERS)]


@virtual_time
async def test_second_replay_at_the_same_time_fences_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "LETTERS_AT_ONCE", 2)
    broker = broker_with_letters()

    first, second = await connect(broker), await connect(broker)
    looked = 0

    def wanted(letter: DeadLetter) -> bool:
        nonlocal looked
        looked += 1
        return True

    old_open = first.open_producer

    async def open_and_be_overtaken(name: str) -> object:
        made = await old_open(name)
        await replay(second, PLAN, everything, now_ms=NOW_MS)
        return made

    monkeypatch.setattr(first, "open_producer", open_and_be_overtaken)
    done = await replay(first, PLAN, wanted, now_ms=NOW_MS)
    assert (done.sent, done.done_before, looked) == (0, LETTERS, LETTERS), "it reads the marks after it was overtaken"
    monkeypatch.undo()

    def overtaken(letter: DeadLetter) -> bool:
        broker.init_producer(f"{PLAN.app_id}-dlq-replay", 10.0)
        return True

    with pytest.raises(FencedError, match="a newer producer"):
        await replay(first, PLAN, overtaken, now_ms=NOW_MS, again=True)
    assert sent_back(broker) == [b"v%d" % n for n in range(LETTERS)]


@virtual_time
async def test_marks_of_a_topic_that_was_made_anew_do_not_count() -> None:
    broker = broker_with_letters()

    transport = await connect(broker)
    await replay(transport, PLAN, everything, now_ms=NOW_MS)
    place = TopicPartition(marks_topic(PLAN), 0)
    marks = broker.read(place, 0)
    other = broker_with_letters()
    second = await connect(other)
    other.produce({TopicPartition(PLAN.dead_letter_topic, 0): OutputColumns([9], [b"k"], [b"new"], [letter_headers(0, 0)])})
    await replay(second, PLAN, lambda letter: False, now_ms=NOW_MS)
    wrong = OutputColumns([0] * len(marks), [b"0/%d" % (LETTERS // 2 + 1)] * len(marks), list(marks.values))
    other.produce({place: wrong})
    assert (await replay(second, PLAN, lambda letter: letter.value == b"new", now_ms=NOW_MS)).sent == 1


@virtual_time
async def test_purge_stops_at_the_first_letter_that_was_not_replayed() -> None:
    broker = broker_with_letters()

    transport = await connect(broker)
    assert await purge(transport, PLAN, everything=False) == 0
    await replay(transport, PLAN, lambda letter: letter.value in (b"v0", b"v2", b"v6", b"v3"), now_ms=NOW_MS)
    assert await purge(transport, PLAN, everything=False) == 2, "v0 and v2; v4 stands before v6, v1 before v3"
    found = await letters(transport, PLAN)
    assert [(one.letter.value, one.mark is not None) for one in found] == [
        (b"v4", False), (b"v6", True), (b"v1", False), (b"v3", True), (b"v5", False),
    ]  # fmt: skip
    assert await purge(transport, PLAN, everything=True) == 5
    assert await letters(transport, PLAN) == []


@virtual_time
async def test_app_that_never_ran_here_has_no_letters_to_replay() -> None:
    broker = MemoryBroker(LoopClock(virtual_loop()))

    with pytest.raises(ConfigError, match="'shop' has not run on this broker"):
        await replay(await connect(broker), PLAN, everything, now_ms=NOW_MS)
