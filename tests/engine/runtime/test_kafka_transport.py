"""The Kafka transport on a real broker: records both ways, transactions, fencing, readers."""

import pytest
from aiokafka import AIOKafkaProducer

from engine.errors import ConfigError, FencedError, RecordError, StateError, UnavailableError
from engine.outputs import Outputs
from engine.records import TopicPartition
from engine.topics import TopicSpec
from tests.engine.runtime.kafka_harness import (
    Member,
    columns,
    connected,
    new_topic,
    read_to_end,
    read_until,
    settings_of,
    unique,
    values,
    wait_committed,
)
from tests.kafka_server import KafkaServer

pytestmark = pytest.mark.kafka


async def test_send_of_keys_nulls_and_headers_arrives_as_it_was_sent(kafka: KafkaServer) -> None:
    async with connected(settings_of(kafka)) as transport:
        partition = TopicPartition(await new_topic(transport, 3), 2)
        sent = columns((b"k", b"v"), (None, b"no key"), (b"gone", None), (b"", b""), (b"h", b"v", [("a", b"1"), ("a", b"")]), (b"k", b"w"))
        await transport.send({partition: sent})
        (batch,) = await read_to_end(transport, partition)
    assert list(batch.offsets) == [0, 1, 2, 3, 4, 5]
    assert list(batch.timestamps) == [1_000, 1_001, 1_002, 1_003, 1_004, 1_005]
    assert list(batch.keys) == [b"k", None, b"gone", b"", b"h", b"k"]
    assert list(batch.values) == [b"v", b"no key", None, b"", b"v", b"w"]
    assert [tuple(headers) for headers in batch.headers] == [(), (), (), (), (("a", b"1"), ("a", b"")), ()]
    assert (batch.position, batch.next_offset, batch.high_watermark) == (0, 6, 6)


async def test_commit_of_outputs_and_offsets_makes_all_of_them_visible(kafka: KafkaServer) -> None:
    async with connected(settings_of(kafka)) as transport:
        topic, source = await new_topic(transport, 2), TopicPartition(await new_topic(transport), 0)
        producer = await transport.open_producer(unique("id"))
        out, more = TopicPartition(topic, 0), TopicPartition(topic, 1)
        assert await transport.committed_offsets([source]) == {}
        first = await producer.commit({out: columns((b"a", b"1"), (b"b", b"2")), more: columns((b"c", b"3"))}, {source: 7})
        second = await producer.commit({out: columns((b"d", b"4")), more: columns()}, {source: 9})
        third = await producer.commit({}, {source: 11})
        assert (first, second, third) == ({out: 2, more: 1}, {out: 4}, {})  # offset 2 holds the first transaction's marker
        assert await producer.commit({}, {}) == {}
        await wait_committed(transport, {source: 11})
        assert values(await read_to_end(transport, out, second[out])) == [b"1", b"2", b"4"]
        assert values(await read_to_end(transport, more, first[more])) == [b"3"]
        await producer.close()


async def test_read_behind_the_last_marker_ends_by_position_not_by_record(kafka: KafkaServer) -> None:
    async with connected(settings_of(kafka)) as transport:
        partition = TopicPartition(await new_topic(transport), 0)
        producer = await transport.open_producer(unique("id"))
        for number in range(3):
            await producer.commit({partition: columns((b"k", b"%d" % number))}, {})
        await producer.close()
        reader = await transport.open_reader(partition, 0)
        batches = await read_until(reader, 6)
        assert await transport.end_offsets([partition]) == {partition: 6}
        assert [offset for batch in batches for offset in batch.offsets] == [0, 2, 4]
        assert reader.position == 6
        assert await reader.read(0.05) is None
        await transport.send({partition: columns((b"k", b"next"))})
        assert values(await read_until(reader, 7)) == [b"next"]
        await reader.close()


async def test_fenced_producer_commits_nothing(kafka: KafkaServer) -> None:
    async with connected(settings_of(kafka)) as transport:
        partition, source = TopicPartition(await new_topic(transport), 0), TopicPartition(await new_topic(transport), 0)
        name = unique("id")
        older = await transport.open_producer(name)
        await older.commit({partition: columns((b"k", b"older"))}, {source: 1})
        newer = await transport.open_producer(name)
        with pytest.raises(FencedError, match=name):
            await older.commit({partition: columns((b"k", b"zombie"))}, {source: 99})
        with pytest.raises(UnavailableError, match="open a new one"):
            await older.commit({partition: columns((b"k", b"zombie"))}, {source: 99})
        committed = await newer.commit({partition: columns((b"k", b"newer"))}, {source: 2})
        assert values(await read_to_end(transport, partition, committed[partition])) == [b"older", b"newer"]
        await wait_committed(transport, {source: 2})
        await older.close()
        await newer.close()


async def test_opening_a_producer_ends_the_zombies_open_transaction(kafka: KafkaServer) -> None:
    async with connected(settings_of(kafka)) as transport:
        partition, name = TopicPartition(await new_topic(transport), 0), unique("id")
        zombie = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=name)
        await zombie.start()
        await zombie.begin_transaction()
        await zombie.send_and_wait(partition.topic, b"half", partition=0)
        assert await transport.end_offsets([partition]) == {partition: 0}
        assert await transport.high_watermarks([partition]) == {partition: 1}
        reader = await transport.open_reader(partition, 0)
        assert await reader.read(0.2) is None
        producer = await transport.open_producer(name)
        assert await transport.end_offsets([partition]) == {partition: 2}
        await producer.commit({partition: columns((b"k", b"whole"))}, {})
        assert values(await read_until(reader, 4)) == [b"whole"]
        await reader.close()
        await producer.close()
        await zombie.stop()


async def test_commit_that_a_record_is_refused_in_shows_none_of_its_outputs(kafka: KafkaServer) -> None:
    async with connected(settings_of(kafka)) as transport:
        topic = await new_topic(transport, 2)
        good, bad = TopicPartition(topic, 0), TopicPartition(topic, 1)
        producer = await transport.open_producer(unique("id"))
        with pytest.raises(ConfigError, match=rf"2000003 bytes to {topic}\[1\], key b'big'.*max\.message\.bytes"):
            await producer.commit({good: columns((b"k", b"aborted")), bad: columns((b"small", b"v"), (b"big", b"x" * 2_000_000))}, {})
        await producer.close()  # aborts: readers need not wait for the transaction's timeout
        await transport.send({good: columns((b"k", b"after"))})
        assert values(await read_to_end(transport, good, 3)) == [b"after"]
        assert values(await read_to_end(transport, bad)) == []


async def test_record_larger_than_a_batch_goes_alone(kafka: KafkaServer) -> None:
    async with connected(settings_of(kafka, batch_bytes=20_000, fetch_bytes=20_000)) as transport:
        partition = TopicPartition(await new_topic(transport), 0)
        producer = await transport.open_producer(unique("id"))
        rows = [(b"small", b"1"), (b"large", b"x" * 900_000), (b"small", b"2"), *((b"many", b"y" * 1_000) for _ in range(50))]
        assert await producer.commit({partition: columns(*rows)}, {}) == {partition: 53}
        await producer.close()
        assert values(await read_to_end(transport, partition, 53)) == [value for _, value in rows]


async def test_record_that_fits_by_its_size_is_taken_at_the_very_limit(kafka: KafkaServer) -> None:
    """A task calls a larger record bad before it is sent, so what it calls good the broker must take, headers and all."""
    headers = [("a", b"1" * 200), ("b" * 100, b"")]
    async with connected(settings_of(kafka)) as transport:
        topic = unique("small")
        await transport.ensure_topics([TopicSpec(topic, 1, config={"max.message.bytes": "9999"})])
        limits = await transport.record_bytes_max([topic])
        assert limits == {topic: 9_999}
        outputs = Outputs({}, partitions=1, own_partition=0, key_hashes=lambda keys: [len(key) for key in keys], bytes_max=limits)
        lengths = [n for n in range(9_000, 10_000) if outputs.fits(topic, b"key", b"v" * n, headers)]
        assert 9_400 < lengths[-1] < 9_700, "neither generous nor mean"
        partition = TopicPartition(topic, 0)
        await transport.send({partition: columns((b"key", b"v" * lengths[-1], headers))})
        (batch,) = await read_to_end(transport, partition)
        with pytest.raises(RecordError, match="more than topic"):
            outputs.add(topic, [b"key"], [b"v" * (lengths[-1] + 1)], [0], [headers])
    assert [len(value or b"") for value in batch.values] == lengths[-1:]


async def test_record_far_in_the_future_is_accepted_by_a_topic_of_ours(kafka: KafkaServer) -> None:
    async with connected(settings_of(kafka)) as transport:
        partition = TopicPartition(await new_topic(transport), 0)
        await transport.send({partition: columns((b"k", b"v"), timestamp_ms=32_503_680_000_000)})
        (batch,) = await read_to_end(transport, partition)
        assert list(batch.timestamps) == [32_503_680_000_000]
        strict = TopicPartition(await new_topic(transport, config={"message.timestamp.after.max.ms": "3600000"}), 0)
        with pytest.raises(ConfigError, match=r"timestamp 32503680000000.*message\.timestamp\.after\.max\.ms"):
            await transport.send({strict: columns((b"k", b"v"), timestamp_ms=32_503_680_000_000)})
        await transport.send({strict: columns((b"k", b"v"))})


async def test_send_to_what_does_not_exist_raises_config_error(kafka: KafkaServer) -> None:
    async with connected(settings_of(kafka, request_timeout_ms=500)) as transport:
        topic = await new_topic(transport)
        with pytest.raises(ConfigError, match="has no partition 1"):
            await transport.send({TopicPartition(topic, 1): columns((b"k", b"v"))})
        with pytest.raises(ConfigError, match="'nowhere' does not exist"):
            await transport.send({TopicPartition("nowhere", 0): columns((b"k", b"v"))})
        await transport.send({TopicPartition(topic, 0): columns((b"k", b"v"))})


async def test_delete_records_makes_older_positions_a_state_error(kafka: KafkaServer) -> None:
    async with connected(settings_of(kafka)) as transport:
        partition = TopicPartition(await new_topic(transport), 0)
        await transport.send({partition: columns(*((b"k", b"%d" % number) for number in range(10)))})
        await transport.delete_records({partition: 6})
        assert await transport.begin_offsets([partition]) == {partition: 6}
        assert values(await read_to_end(transport, partition)) == [b"6", b"7", b"8", b"9"]
        reader = await transport.open_reader(partition, 5)
        with pytest.raises(StateError, match=rf"{partition.topic}\[0\]: offset 5 is outside the log"):
            await reader.read(5)
        await reader.close()
        with pytest.raises(ConfigError, match="cannot be deleted"):
            await transport.delete_records({partition: 11})
        member = Member(transport)
        await member.join(partition.topic)
        member.go_on(2)
        with pytest.raises(StateError, match="offset 2 is outside the log"):
            await member.until(lambda: bool(member.batches))
        member.go_on(6)
        await member.until(lambda: bool(member.batches))
        assert values(member.batches) == [b"6", b"7", b"8", b"9"]
