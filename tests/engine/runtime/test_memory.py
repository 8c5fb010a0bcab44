"""The memory transport: topics, polling, what it says about the latest answer, reading by position; all in virtual time."""

import asyncio
from collections.abc import Mapping

import pytest

from engine.errors import ConfigError, StateError, UnavailableError
from engine.records import TopicPartition
from engine.runtime.transport.memory import MemoryTransport
from engine.runtime.transport.memory_broker import MemoryBroker, MemoryBrokers
from engine.runtime.transport.memory_connection import Fault
from engine.runtime.transport.protocol import FetchState, Transport
from engine.testing.clock import virtual_loop, virtual_time
from engine.topics import TopicSpec
from tests.engine.runtime.memory_world import (
    INPUT,
    LOST_ANSWER,
    OUTPUT,
    Member,
    Script,
    columns,
    new_broker,
    new_member,
    values,
)

# -- topics


@virtual_time
async def test_ensure_topics_creates_what_is_missing() -> None:
    transport = MemoryTransport(new_broker())
    await transport.ensure_topics([TopicSpec("new", 3, compacted=True)])
    assert await transport.partition_counts(["new", "orders", "missing"]) == {"new": 3, "orders": 1}


@virtual_time
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (TopicSpec("orders", 2), "1 partitions instead of 2"),
        (TopicSpec("orders", 1, compacted=True), "cleanup.policy=delete instead of compact"),
        (TopicSpec("orders", 1, retention_ms=-1), "retention.ms=604800000 instead of -1"),
        (TopicSpec("orders", 1, config={"message.timestamp.type": "LogAppendTime"}), "message.timestamp.type"),
        (TopicSpec("missing", 1, create=False), "does not exist"),
    ],
)
async def test_ensure_topics_that_do_not_fit_is_a_config_error(spec: TopicSpec, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        await MemoryTransport(new_broker()).ensure_topics([spec])


@virtual_time
async def test_topic_with_append_time_carries_the_brokers_clock() -> None:
    broker = new_broker()
    broker.create_topic(TopicSpec("log", 1, config={"message.timestamp.type": "LogAppendTime"}))
    await asyncio.sleep(5)
    log = TopicPartition("log", 0)
    await MemoryTransport(broker).send({log: columns("a")})
    assert broker.read(log, 0).timestamps == [broker.clock.now_ms()]


@virtual_time
async def test_send_to_an_unknown_partition_sends_nothing() -> None:
    broker = new_broker()
    with pytest.raises(ConfigError, match="no partition 5"):
        await MemoryTransport(broker).send({OUTPUT: columns("a"), TopicPartition("revenue", 5): columns("b")})
    assert len(broker.read(OUTPUT, 0)) == 0


# -- polling


@virtual_time
async def test_poll_returns_at_most_one_batch_a_partition_of_limited_size() -> None:
    broker = new_broker(2)
    broker.produce({TopicPartition("orders", number): columns(*"abcde") for number in (0, 1)})
    member = Member(MemoryTransport(broker, group_id="shop", fetch_records_max=3))
    await member.transport.subscribe(["orders"], member)
    sizes = []
    for _ in range(4):
        sizes += [(batch.partition, len(batch), batch.position) for batch in await member.transport.poll(1)]
    assert sizes == [(0, 3, 0), (1, 3, 0), (0, 2, 3), (1, 2, 3)]
    await member.transport.stop()


@virtual_time
async def test_poll_waits_for_records_and_returns_when_they_come() -> None:
    broker = new_broker()
    member = await new_member(broker, "a")
    assert await member.transport.poll(1) == []
    assert virtual_loop().time() == 1
    polling = asyncio.create_task(member.transport.poll(60))
    await asyncio.sleep(2)
    broker.produce({INPUT: columns("a")})
    assert values(await polling) == [b"a"]
    assert virtual_loop().time() == 3
    await member.transport.stop()


@virtual_time
async def test_poll_of_an_empty_answer_that_moves_the_position_returns_an_empty_batch() -> None:
    broker = new_broker()
    producer = await MemoryTransport(broker).open_producer("p")
    await producer.commit({INPUT: columns("a")}, {})
    member = await new_member(broker, "a")
    first = await member.transport.poll(1)
    assert [(batch.next_offset, len(batch)) for batch in first] == [(2, 1)]
    session = broker.init_producer("q", 10)
    broker.produce_in_transaction(session, {INPUT: columns("x")})
    broker.end_transaction(session, commit=False)
    (batch,) = await member.transport.poll(1)
    assert (len(batch), batch.position, batch.next_offset) == (0, 2, 4)
    await member.transport.stop()


@virtual_time
async def test_pause_stops_a_partition_and_resume_wakes_the_poll() -> None:
    broker = new_broker()
    member = await new_member(broker, "a")
    await member.transport.poll(1)
    member.transport.pause([INPUT])
    broker.produce({INPUT: columns("a")})
    assert await member.transport.poll(1) == []
    polling = asyncio.create_task(member.transport.poll(60))
    await asyncio.sleep(1)
    member.transport.resume([INPUT])
    assert values(await polling) == [b"a"]
    assert virtual_loop().time() == 3
    await member.transport.stop()


@virtual_time
async def test_seek_while_a_fetch_is_under_way_drops_its_answer() -> None:
    broker, faults = new_broker(), Script()
    broker.produce({INPUT: columns("a", "b", "c")})
    member = await new_member(broker, "a", faults=faults)
    await asyncio.sleep(1)
    faults.next["fetch"] = [Fault(answer_delay_s=5)]
    polling = asyncio.create_task(member.transport.poll(60))
    await asyncio.sleep(1)
    member.transport.seek({INPUT: 2})
    (batch,) = await polling
    assert (batch.position, values([batch])) == (2, [b"c"])
    await member.transport.stop()


@virtual_time
async def test_poll_at_a_position_outside_the_log_raises_once_and_pauses_the_partition() -> None:
    broker = new_broker()
    broker.produce({INPUT: columns("a", "b")})
    broker.delete_records({INPUT: 1})
    member = await new_member(broker, "a")
    await asyncio.sleep(1)
    with pytest.raises(StateError, match="offset 0 is outside"):
        await member.transport.poll(1)
    assert await member.transport.poll(1) == []
    await member.transport.stop()


@virtual_time
async def test_poll_without_an_answer_keeps_the_position_and_forgets_the_fetch_state() -> None:
    broker, faults = new_broker(), Script()
    member = await new_member(broker, "a", faults=faults)
    await member.transport.poll(1)
    assert member.transport.fetch_state(INPUT) is not None
    faults.next["fetch"] = [LOST_ANSWER] * 100
    broker.produce({INPUT: columns("a")})
    assert await member.transport.poll(1) == []
    assert member.transport.fetch_state(INPUT) is None
    faults.next.clear()
    assert values(await member.transport.poll(1)) == [b"a"]
    await member.transport.stop()


# -- what the latest answer said


@virtual_time
async def test_fetch_state_reaches_the_end_only_with_an_answer_after_the_last_record() -> None:
    broker = new_broker()
    broker.produce({INPUT: columns("a")})
    member = await new_member(broker, "a")
    await member.transport.poll(1)
    assert member.transport.fetch_state(INPUT) == FetchState(0, 1, 0.0)
    await member.transport.poll(1)
    assert member.transport.fetch_state(INPUT) == FetchState(1, 1, 1.0)
    await member.transport.stop()


@virtual_time
async def test_fetch_state_with_an_open_transaction_is_not_at_the_end() -> None:
    broker = new_broker()
    broker.produce_in_transaction(broker.init_producer("p", 60), {INPUT: columns("open")})
    member = await new_member(broker, "a")
    assert await member.transport.poll(1) == []
    assert member.transport.fetch_state(INPUT) == FetchState(0, 1, 1.0)
    await member.transport.stop()


@virtual_time
async def test_fetch_state_behind_a_marker_is_at_the_end() -> None:
    broker = new_broker()
    await (await MemoryTransport(broker).open_producer("p")).commit({INPUT: columns("a")}, {})
    member = await new_member(broker, "a")
    await member.transport.poll(1)
    await member.transport.poll(1)
    assert member.transport.fetch_state(INPUT) == FetchState(2, 2, 1.0)
    await member.transport.stop()


@virtual_time
@pytest.mark.parametrize("what", ["pause", "seek", "rebalance"])
async def test_fetch_state_after_a_change_is_unknown_until_the_next_answer(what: str) -> None:
    broker = new_broker()
    member = await new_member(broker, "a")
    await member.transport.poll(1)
    assert member.transport.fetch_state(INPUT) is not None
    if what == "pause":
        member.transport.pause([INPUT])
    elif what == "seek":
        member.transport.seek({INPUT: 0})
    else:
        other = await new_member(broker, "b")
        await asyncio.sleep(1)
        await other.transport.stop()
    assert member.transport.fetch_state(INPUT) is None
    await member.transport.stop()


# -- reading by position


@virtual_time
async def test_reader_reads_committed_records_to_the_end_by_position() -> None:
    broker = new_broker()
    transport = MemoryTransport(broker, group_id="shop")
    producer = await transport.open_producer("shop-0")
    await producer.commit({OUTPUT: columns("a")}, {})
    await producer.commit({OUTPUT: columns("b")}, {})
    end = (await transport.end_offsets([OUTPUT]))[OUTPUT]
    reader = await transport.open_reader(OUTPUT, 0)
    found: list[bytes | None] = []
    while reader.position < end:
        batch = await reader.read(1)
        assert batch is not None
        found += batch.values
    assert (found, end, reader.position) == ([b"a", b"b"], 4, 4)
    await reader.close()


@virtual_time
async def test_reader_at_the_end_waits_and_wakes_when_a_transaction_ends() -> None:
    broker = new_broker()
    reader = await MemoryTransport(broker).open_reader(OUTPUT, 0)
    assert await reader.read(2) is None
    assert virtual_loop().time() == 2
    session = broker.init_producer("p", 60)
    broker.produce_in_transaction(session, {OUTPUT: columns("a")})
    reading = asyncio.create_task(reader.read(60))
    await asyncio.sleep(1)
    assert not reading.done()
    broker.end_transaction(session, commit=True)
    batch = await reading
    assert batch is not None
    assert (list(batch.values), virtual_loop().time()) == ([b"a"], 3)


@virtual_time
async def test_reader_of_compacted_records_moves_past_the_holes() -> None:
    broker = new_broker()
    broker.create_topic(TopicSpec("users", 1, compacted=True))
    users = TopicPartition("users", 0)
    broker.produce({users: columns("old", "older", "new")})
    broker.compact("users")
    reader = await MemoryTransport(broker).open_reader(users, 0)
    batch = await reader.read(1)
    assert batch is not None
    assert (list(batch.offsets), batch.next_offset, reader.position) == ([2], 3, 3)


@virtual_time
async def test_reader_below_the_log_start_is_a_state_error() -> None:
    broker = new_broker()
    transport = MemoryTransport(broker)
    broker.produce({OUTPUT: columns("a", "b")})
    await transport.delete_records({OUTPUT: 1})
    assert await transport.begin_offsets([OUTPUT]) == {OUTPUT: 1}
    reader = await transport.open_reader(OUTPUT, 0)
    with pytest.raises(StateError):
        await reader.read(1)


@virtual_time
async def test_reader_that_gets_nothing_but_errors_raises_after_the_timeout() -> None:
    broker, faults = new_broker(), Script(is_cut_off=True)
    reader = await MemoryTransport(broker, faults=faults).open_reader(OUTPUT, 0)
    with pytest.raises(UnavailableError):
        await reader.read(1)
    faults.is_cut_off = False
    assert await reader.read(1) is None


# -- brokers


def test_brokers_of_one_url_are_one_until_dropped() -> None:
    first = MemoryBrokers.open("memory://test-brokers")
    assert MemoryBrokers.open("memory://test-brokers") is first
    assert MemoryBrokers.open("memory://test-brokers-2") is not first
    MemoryBrokers.drop("memory://test-brokers")
    MemoryBrokers.drop("memory://test-brokers-2")
    second = MemoryBrokers.open("memory://test-brokers")
    assert second is not first
    MemoryBrokers.drop("memory://test-brokers")


def test_broker_outlives_an_event_loop() -> None:
    broker = MemoryBroker()
    broker.create_topic(TopicSpec("orders", 1))

    async def wait_in_vain() -> Mapping[TopicPartition, int]:
        reader = await MemoryTransport(broker).open_reader(INPUT, 0)
        assert await reader.read(0.001) is None
        return await MemoryTransport(broker).end_offsets([INPUT])

    assert asyncio.run(wait_in_vain()) == asyncio.run(wait_in_vain()) == {INPUT: 0}


def test_memory_transport_speaks_the_protocol() -> None:
    transport: Transport = MemoryTransport(MemoryBroker())
    assert transport.assignment() == frozenset()
