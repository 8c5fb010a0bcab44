"""The Kafka transport while the broker hangs or is gone: every call ends in time, and goes on when the broker is back."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from engine.errors import UnavailableError
from engine.records import TopicPartition
from engine.runtime.transport.kafka import KafkaTransport
from tests.engine.runtime.kafka_harness import (
    Member,
    columns,
    connected,
    new_topic,
    read_until,
    settings_of,
    unique,
    values,
    wait_committed,
)
from tests.kafka_server import KafkaServer

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture(scope="module")
def broker(kafka: KafkaServer) -> Iterator[KafkaServer]:
    """A broker that these tests may stop; `kafka` has checked that there can be one."""
    with KafkaServer() as server:
        yield server


async def test_paused_broker_ends_every_call_in_time_and_the_producer_for_good(broker: KafkaServer) -> None:
    quick = settings_of(broker, connect_timeout_ms=1_000, request_timeout_ms=1_000, transaction_timeout_ms=1_500)
    transport = KafkaTransport(quick)
    await transport.start()
    partition = TopicPartition(await new_topic(transport), 0)
    name = unique("id")
    producer = await transport.open_producer(name)
    await producer.commit({partition: columns((b"k", b"before"))}, {})
    member = Member(transport)
    await member.join(partition.topic)
    broker.pause()
    try:
        started_s = time.monotonic()
        with pytest.raises(UnavailableError, match=f"Kafka at {broker.bootstrap} did not answer in time: could not commit"):
            await producer.commit({partition: columns((b"k", b"unknown"))}, {})
        for call in (
            transport.end_offsets([partition]),
            transport.open_producer(unique("id")),
            transport.send({partition: columns((b"k", b"v"))}),
        ):
            with pytest.raises(UnavailableError, match=broker.bootstrap):
                await call
        await producer.close()
        await transport.stop()
        assert time.monotonic() - started_s < 25
    finally:
        broker.resume()
    async with connected(settings_of(broker)) as again:
        producer = await again.open_producer(name)
        committed = await producer.commit({partition: columns((b"k", b"after"))}, {})
        reader = await again.open_reader(partition, 0)
        found = values(await read_until(reader, committed[partition]))
        assert [value for value in found if value != b"v"] == [b"before", b"after"]
        await reader.close()
        await producer.close()


async def test_restarted_broker_is_found_again_by_member_reader_and_producers(broker: KafkaServer) -> None:
    async with connected(settings_of(broker)) as transport:
        partition = TopicPartition(await new_topic(transport), 0)
        name = unique("id")
        producer = await transport.open_producer(name)
        committed = await producer.commit({partition: columns((b"k", b"1"))}, {partition: 1})
        await producer.close()
        member = Member(transport)
        await member.join(partition.topic)
        member.go_on()
        reader = await transport.open_reader(partition, 0)
        await read_until(reader, committed[partition])
        await member.until(lambda: values(member.batches) == [b"1"])
        await asyncio.to_thread(broker.kill)
        with pytest.raises(UnavailableError):
            await reader.read(0.3)
        await asyncio.to_thread(broker.start)
        restarted_s = time.monotonic()
        producer = await transport.open_producer(name)
        committed = await producer.commit({partition: columns((b"k", b"2"))}, {partition: 2})
        assert values(await read_until(reader, committed[partition])) == [b"2"]
        await member.until(lambda: transport.membership_confirmed_s() > restarted_s)
        if len(member.assigned) > 1:  # the group began anew: what was just assigned is paused
            member.go_on(1)
        await member.until(lambda: values(member.batches)[-1] == b"2")
        await wait_committed(transport, {partition: 2})
        await reader.close()
        await producer.close()
