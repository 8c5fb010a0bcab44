"""The Kafka transport's group member on a real broker: sharing, pausing, seeking, and what fetch answers say."""

import asyncio
import time

import pytest
from aiokafka import AIOKafkaProducer

from engine.records import TopicPartition
from engine.runtime.assignor import WorkerAddress
from tests.engine.runtime.kafka_harness import Member, all_until, columns, connected, new_topic, settings_of, unique, values
from tests.kafka_server import KafkaServer

pytestmark = pytest.mark.kafka


async def test_assignment_is_paused_until_it_is_sought_and_resumed(kafka: KafkaServer) -> None:
    async with connected(settings_of(kafka)) as transport:
        partition = TopicPartition(await new_topic(transport), 0)
        await transport.send({partition: columns((b"k", b"0"), (b"k", b"1"), (b"k", b"2"))})
        member = Member(transport)
        await member.join(partition.topic)
        assert transport.assignment() == member.partitions == {partition}
        assert await transport.poll(0.3) == []
        assert transport.fetch_state(partition) is None
        member.go_on(1)
        await member.until(lambda: bool(member.batches))
        assert (values(member.batches), member.batches[0].position) == ([b"1", b"2"], 1)


async def test_seek_and_pause_drop_what_was_fetched(kafka: KafkaServer) -> None:
    async with connected(settings_of(kafka)) as transport:
        partition = TopicPartition(await new_topic(transport), 0)
        await transport.send({partition: columns(*((b"k", b"%d" % number) for number in range(5)))})
        member = Member(transport)
        await member.join(partition.topic)
        member.go_on()
        await member.until(member.is_caught_up)
        member.batches.clear()
        transport.seek({partition: 3, TopicPartition("lost", 0): 1})
        assert transport.fetch_state(partition) is None
        await member.until(lambda: bool(member.batches))
        assert (values(member.batches), member.batches[0].position) == ([b"3", b"4"], 3)
        transport.pause([partition, TopicPartition("lost", 0)])
        assert transport.fetch_state(partition) is None
        await transport.send({partition: columns((b"k", b"later"))})
        assert await transport.poll(0.3) == []
        transport.resume([partition])
        member.batches.clear()
        await member.until(lambda: bool(member.batches))
        assert values(member.batches) == [b"later"]


async def test_fetch_state_of_an_empty_partition_says_caught_up_again_and_again(kafka: KafkaServer) -> None:
    async with connected(settings_of(kafka)) as transport:
        partition = TopicPartition(await new_topic(transport), 0)
        member = Member(transport)
        await member.join(partition.topic)
        member.go_on()
        await member.until(member.is_caught_up)
        first = transport.fetch_state(partition)
        assert first is not None
        assert (first.position, first.high_watermark) == (0, 0)
        since_s = time.monotonic()
        await member.until(lambda: (state := transport.fetch_state(partition)) is not None and state.received_s > since_s)
        assert member.batches == []


async def test_fetch_state_behind_an_open_transaction_shows_that_more_is_to_come(kafka: KafkaServer) -> None:
    async with connected(settings_of(kafka)) as transport:
        partition = TopicPartition(await new_topic(transport), 0)
        await transport.send({partition: columns((b"k", b"stable"))})
        writer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=unique("id"))
        await writer.start()
        await writer.begin_transaction()
        await writer.send_and_wait(partition.topic, b"open", partition=0)
        member = Member(transport)
        await member.join(partition.topic)
        member.go_on()
        await member.until(lambda: (state := transport.fetch_state(partition)) is not None and state.position == 1)
        state = transport.fetch_state(partition)
        assert state is not None
        assert (values(member.batches), member.batches[0].high_watermark, state.high_watermark) == ([b"stable"], 1, 2)
        await writer.abort_transaction()
        await member.until(lambda: member.batches[-1].next_offset == 3 and member.is_caught_up())
        assert values(member.batches) == [b"stable"]
        await writer.stop()


async def test_group_of_two_shares_numbers_and_is_sticky(kafka: KafkaServer) -> None:
    group = unique("group")
    async with connected(settings_of(kafka, group=group)) as one, connected(settings_of(kafka, group=group)) as two:
        topics = [await new_topic(one, 4), await new_topic(one, 4)]
        first, second = Member(one), Member(two)
        await first.join(*topics)
        assert first.numbers == {0, 1, 2, 3}
        confirmed_s = one.membership_confirmed_s()
        assert confirmed_s <= time.monotonic()
        await asyncio.gather(second.join(*topics), first.until(lambda: len(first.numbers) == 2))
        await all_until((first, second), lambda: len(first.numbers) == len(second.numbers) == 2)
        assert first.revoked == [frozenset(TopicPartition(topic, number) for topic in topics for number in range(4))]
        assert first.numbers | second.numbers == {0, 1, 2, 3}
        assert {partition.topic for partition in second.partitions} == set(topics)
        assert one.membership_confirmed_s() > confirmed_s
        async with connected(settings_of(kafka, group=group)) as three:
            third, had = Member(three), (first.numbers, second.numbers)
            await asyncio.gather(
                third.join(*topics), first.until(lambda: len(first.assigned) == 3), second.until(lambda: len(second.assigned) == 2)
            )
            assert first.numbers < had[0] or second.numbers < had[1]
            assert first.numbers <= had[0]
            assert second.numbers <= had[1]
            assert first.numbers | second.numbers | third.numbers == {0, 1, 2, 3}
        await two.stop()
        await first.until(lambda: first.numbers == {0, 1, 2, 3})


async def test_group_gives_numbers_to_where_their_stores_lie_and_tells_all_where_they_are(kafka: KafkaServer) -> None:
    group = unique("group")
    async with (
        connected(settings_of(kafka, group=group), address=WorkerAddress("http://one:6066", "one")) as one,
        connected(settings_of(kafka, group=group), stored_numbers=lambda: [1, 3], address=WorkerAddress("http://two:6066", "two")) as two,
    ):
        topic = await new_topic(one, 4)
        first, second = Member(one), Member(two)
        await first.join(topic)
        await asyncio.gather(second.join(topic), first.until(lambda: len(first.numbers) == 2))
        assert (first.numbers, second.numbers) == ({0, 2}, {1, 3})
        for transport in (one, two):
            assert [where.host for number in range(4) if (where := transport.worker_of(number))] == ["one", "two", "one", "two"]


async def test_listener_that_fails_fails_the_next_poll(kafka: KafkaServer) -> None:
    class Broken(Member):
        async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
            raise LookupError("our own mistake")

    async with connected(settings_of(kafka)) as transport:
        topic = await new_topic(transport)
        member = Broken(transport)
        with pytest.raises(LookupError, match="our own mistake"):
            await member.join(topic)


async def test_heartbeats_confirm_the_membership_while_nothing_is_assigned_anew(kafka: KafkaServer) -> None:
    async with connected(settings_of(kafka, session_timeout_ms=1_000)) as transport:
        member = Member(transport)
        await member.join(await new_topic(transport))
        joined_s = transport.membership_confirmed_s()
        await member.until(lambda: transport.membership_confirmed_s() > joined_s + 0.3)
        assert len(member.assigned) == 1
