"""Topics on a real broker: made as wanted, and checked where they exist."""

import pytest

from engine.errors import ConfigError
from engine.records import TopicPartition
from engine.topics import TopicSpec
from tests.engine.runtime.kafka_harness import connected, new_topic, settings_of, unique
from tests.kafka_server import KafkaServer

pytestmark = pytest.mark.kafka


async def test_ensure_topics_twice_creates_once(kafka: KafkaServer) -> None:
    specs = [
        TopicSpec(unique("plain"), 3),
        TopicSpec(unique("kept"), 2, retention_ms=-1),
        TopicSpec(unique("changelog"), 4, compacted=True, config={"delete.retention.ms": "604800000"}),
    ]
    async with connected(settings_of(kafka)) as one, connected(settings_of(kafka)) as two:
        assert await one.partition_counts([spec.name for spec in specs]) == {}
        await one.ensure_topics(specs)
        await two.ensure_topics(specs)
        assert await two.partition_counts([spec.name for spec in specs]) == {spec.name: spec.partitions for spec in specs}


@pytest.mark.parametrize(
    ("made", "wanted", "message"),
    [
        ({}, {"partitions": 3}, "has 2 partitions instead of 3"),
        ({}, {"compacted": True}, "cleanup.policy=delete instead of compact"),
        ({"compacted": True}, {}, "cleanup.policy=compact instead of delete"),
        ({"retention_ms": 60_000}, {"retention_ms": -1}, "retention.ms=60000 instead of -1"),
        ({"config": {"message.timestamp.type": "LogAppendTime"}}, {}, "message.timestamp.type=LogAppendTime instead of CreateTime"),
    ],
)
async def test_ensure_topics_that_do_not_fit_raises_config_error(
    kafka: KafkaServer, made: dict[str, object], wanted: dict[str, object], message: str
) -> None:
    name = unique("topic")
    async with connected(settings_of(kafka)) as transport:
        await transport.ensure_topics([TopicSpec(name, 2, **made)])  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=f"topic '{name}' has .*"):
            await transport.ensure_topics([TopicSpec(**{"name": name, "partitions": 2, **wanted})])  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=message):
            await transport.ensure_topics([TopicSpec(**{"name": name, "partitions": 2, **wanted})])  # type: ignore[arg-type]


async def test_ensure_topics_of_somebody_elses_missing_topic_says_how_to_create_it(kafka: KafkaServer) -> None:
    name = unique("orders")
    async with connected(settings_of(kafka)) as transport:
        with pytest.raises(ConfigError, match=f"--create --topic {name} --partitions 12"):
            await transport.ensure_topics([TopicSpec(name, 12, create=False)])
        assert await transport.partition_counts([name]) == {}


async def test_ensure_topics_with_a_wrong_setting_tells_the_brokers_reason(kafka: KafkaServer) -> None:
    async with connected(settings_of(kafka)) as transport:
        with pytest.raises(ConfigError, match=r"could not be created: .*retention\.ms"):
            await transport.ensure_topics([TopicSpec(unique("t"), 1, config={"retention.ms": "soon"})])
        with pytest.raises(ConfigError, match=r"could not describe topics: .*InvalidTopicError: no/such name"):
            await transport.ensure_topics([TopicSpec("no/such name", 1)])


async def test_offsets_of_unknown_partitions_raise_config_error(kafka: KafkaServer) -> None:
    async with connected(settings_of(kafka)) as transport:
        topic = await new_topic(transport, 2)
        with pytest.raises(ConfigError, match="has no partition 2"):
            await transport.end_offsets([TopicPartition(topic, 2)])
        with pytest.raises(ConfigError, match="'nowhere' does not exist"):
            await transport.begin_offsets([TopicPartition("nowhere", 0)])
        assert await transport.end_offsets([]) == {}
