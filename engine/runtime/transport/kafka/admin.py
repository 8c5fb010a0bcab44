"""Topics, offsets and purging: everything that is asked of the cluster outside fetching and producing."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, OffsetResetStrategy
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.structs import TopicPartition as DriverPartition

from engine.errors import ConfigError
from engine.records import TopicPartition
from engine.runtime.transport.kafka.failures import describe, persist
from engine.runtime.transport.kafka.settings import KafkaSettings
from engine.topics import RECORD_BYTES_MAX, TopicSpec

log = logging.getLogger(__name__)

_AGAIN_S = 0.05
_MAX_LONG = str(2**63 - 1)
_FUTURE = "message.timestamp.after.max.ms"


class KafkaAdmin:
    """One connection for administration. `client` is aiokafka's, for the readers: each of them opens connections of its own."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._admin = AIOKafkaAdminClient(
            **settings.client_arguments(), request_timeout_ms=settings.request_timeout_ms, metadata_max_age_ms=30_000
        )
        self.client: Any = self._admin._client

    async def start(self) -> None:
        """Connect."""
        await self._try("connect", self._admin.start)

    async def close(self) -> None:
        """Disconnect."""
        await self._admin.close()

    async def topics(self) -> list[str]:
        """Return the names of all topics of users, sorted; Kafka's own (`__consumer_offsets`, …) are left out."""
        names = await self._try("list topics", self._admin.list_topics)
        return sorted(name for name in names if not name.startswith("__"))

    async def partition_counts(self, topics: Sequence[str]) -> dict[str, int]:
        """Return the number of partitions of each topic that exists; asking creates nothing."""
        described = await self._try("describe topics", lambda: self._describe(topics))
        return {name: len(partitions) for name, partitions in described.items()}

    async def record_bytes_max(self, topics: Sequence[str]) -> dict[str, int]:
        """Return the size of the largest record that each of these topics takes (`max.message.bytes`)."""
        configs = await self._try("describe topics", lambda: self._configs(topics))
        return {topic: int(config.get("max.message.bytes") or RECORD_BYTES_MAX) for topic, config in configs.items()}

    async def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Create the missing topics and check the others, see `Transport.ensure_topics`."""
        counts = await self.partition_counts([spec.name for spec in specs])
        missing = [spec for spec in specs if spec.name not in counts]
        for spec in missing:
            if not spec.create:
                raise ConfigError(
                    f"topic {spec.name!r} does not exist; create it with {spec.partitions} partitions: streamforge topics create "
                    f"{spec.name}, or kafka-topics.sh --create --topic {spec.name} --partitions {spec.partitions}"
                )
        if missing:
            await self._create(missing)
            counts = await self.partition_counts([spec.name for spec in specs])
        for spec in specs:
            if counts.get(spec.name) != spec.partitions:
                raise ConfigError(
                    f"topic {spec.name!r} has {counts.get(spec.name)} partitions instead of {spec.partitions}: "
                    f"start the app with partitions={counts.get(spec.name)}, or create the topic anew"
                )
        configs = await self._try("describe topics", lambda: self._configs([spec.name for spec in specs]))
        for spec in specs:
            _check_config(spec, configs[spec.name])

    async def add_partitions(self, counts: Mapping[str, int]) -> None:
        """Let topics grow; returns when all partitions have a leader.

        Raises:
            ConfigError: One is not there, or has more partitions already.
        """
        before = await self.partition_counts(list(counts))
        growing = {topic: NewPartitions(count) for topic, count in counts.items() if before.get(topic) != count}
        for topic in growing:
            if before.get(topic, counts[topic] + 1) > counts[topic]:
                raise ConfigError(f"topic {topic!r} has {before.get(topic, 'no')} partitions and cannot be made to have {counts[topic]}")
        if growing:
            response = await self._try("add partitions", lambda: self._admin.create_partitions(growing))
            failed = {topic: text for topic, code, text in response.topic_errors if code}
            if failed:
                raise ConfigError(f"partitions could not be added: {failed}")
        while await self.partition_counts(list(counts)) != dict(counts):  # noqa: ASYNC110  # metadata follow after a moment
            await asyncio.sleep(_AGAIN_S)

    async def list_offsets(self, partitions: Sequence[TopicPartition], *, ends: bool, committed: bool = True) -> dict[TopicPartition, int]:
        """Return the last stable offsets of partitions (the high watermarks unless `committed`), or their log starts.

        Raises:
            ConfigError: A topic or partition does not exist.
        """
        if not partitions:
            return {}
        at = OffsetResetStrategy.LATEST if ends else OffsetResetStrategy.EARLIEST
        isolation = READ_COMMITTED if committed else READ_UNCOMMITTED
        counts = await self.partition_counts(sorted({partition.topic for partition in partitions}))
        for topic, number in partitions:
            if number >= counts.get(topic, 0):
                raise ConfigError(f"topic {topic!r} {'has no partition ' + str(number) if topic in counts else 'does not exist'}")
        offsets: dict[TopicPartition, int] = await self._try("look up offsets", lambda: self._list_offsets(partitions, at, isolation))
        return offsets

    async def committed_offsets(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the offsets that the group has committed, leaving out partitions without one."""
        if not partitions:
            return {}
        asked = [DriverPartition(*partition) for partition in partitions]
        found = await self._try("look up committed offsets", lambda: self._admin.list_consumer_group_offsets(group, partitions=asked))
        return {TopicPartition(*partition): known.offset for partition, known in found.items() if known.offset >= 0}

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Purge records below the given offsets.

        Raises:
            ConfigError: An offset lies behind the end, or the topic is only compacted.
        """
        asked = {DriverPartition(*partition): RecordsToDelete(before_offset=offset) for partition, offset in before.items()}
        try:
            await self._try("delete records", lambda: self._admin.delete_records(asked, timeout_ms=self._settings.request_timeout_ms))
        except _NotPossible as error:
            topics = ", ".join(sorted({partition.topic for partition in before}))
            raise ConfigError(f"records of {topics} cannot be deleted below {sorted(before.values())}: {error}") from error

    async def leader(self, partition: TopicPartition) -> int:
        """Return the node that leads a partition.

        Raises:
            KafkaError: None does at the moment, or the partition is unknown; another try may help.
        """
        await self.client._wait_on_metadata(partition.topic)
        node = self.client.cluster.leader_for_partition(DriverPartition(*partition))
        if node is None or node == -1:
            await self.client.force_metadata_update()
            raise errors.LeaderNotAvailableError(f"{partition.topic}[{partition.partition}] has no leader")
        return int(node)

    async def _try(self, what: str, attempt: Any) -> Any:
        async def once() -> Any:
            try:
                return await attempt()
            except _IMPOSSIBLE as error:
                raise _NotPossible(f"Kafka at {self._settings.address} could not {what}: {describe(error)}") from error

        return await persist(once, what, self._settings.address, self._settings.request_timeout_ms)

    async def _ask(self, request: Any) -> Any:
        node = self.client.get_random_node()
        if node is None:
            raise errors.NodeNotReadyError("no broker is known")
        return await self.client.send(node, request)

    async def _describe(self, topics: Sequence[str]) -> dict[str, list[Any]]:
        """Return the partitions of each topic that exists, all of them led by somebody."""
        response = (await self._ask(MetadataRequest(list(topics), False))).to_object()
        described = {}
        for topic in response["topics"]:
            error = errors.for_code(topic["error_code"])
            if error is errors.UnknownTopicOrPartitionError:
                continue
            if error is not errors.NoError:
                raise error(topic["topic"])
            if any(partition["leader"] < 0 for partition in topic["partitions"]):
                raise errors.LeaderNotAvailableError(topic["topic"])
            described[topic["topic"]] = topic["partitions"]
        return described

    async def _create(self, specs: Sequence[TopicSpec]) -> None:
        pending = {spec.name: spec for spec in specs}
        configs = {spec.name: topic_config(spec) for spec in specs}

        async def attempt() -> None:
            await self.client.force_metadata_update()
            topics = [self._new_topic(spec, configs[name]) for name, spec in pending.items()]
            response = await self._admin.create_topics(topics, timeout_ms=self._settings.request_timeout_ms)
            for name, code, *message in response.topic_errors:
                self._created(pending, configs, name, errors.for_code(code), " ".join(filter(None, message)))
            if pending:
                raise errors.UnknownTopicOrPartitionError(f"not created yet: {', '.join(pending)}")

        await self._try("create topics", attempt)
        names = [spec.name for spec in specs]
        await self._try("see the topics it created", lambda: self._all_visible(names))

    def _new_topic(self, spec: TopicSpec, config: Mapping[str, str]) -> NewTopic:
        # aiokafka refuses -1 replicas, which leaves the number to the broker, unless an assignment is given: an empty one is none.
        assignment: dict[int, list[int]] | None = {} if self._settings.replication == -1 else None
        return NewTopic(spec.name, spec.partitions, self._settings.replication, assignment, dict(config))

    def _created(
        self, pending: dict[str, TopicSpec], configs: dict[str, dict[str, str]], name: str, error: type[Exception], message: str
    ) -> None:
        """Take note of one topic's outcome."""
        if error in (errors.NoError, errors.TopicAlreadyExistsError):
            pending.pop(name, None)
            log.info("topic %s: %s", name, "created" if error is errors.NoError else "was created by another worker")
        elif error is errors.InvalidConfigurationError and _FUTURE in configs[name] and _FUTURE in message:
            del configs[name][_FUTURE]  # brokers before 3.6 do not know it, and do not need it
        elif issubclass(error, errors.KafkaError) and getattr(error, "retriable", False):
            log.info("topic %s could not be created yet: %s", name, message or error.__name__)
        else:
            raise ConfigError(f"topic {name!r} could not be created: {message or error.__name__}")

    async def _all_visible(self, names: Sequence[str]) -> None:
        missing = set(names) - set(await self._describe(names))
        if missing:
            await asyncio.sleep(0.02)
            raise errors.UnknownTopicOrPartitionError(", ".join(sorted(missing)))

    async def _configs(self, topics: Sequence[str]) -> dict[str, dict[str, str]]:
        answers = await self._admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics])
        configs = {}
        for answer in answers:
            for code, message, _, name, entries in answer.resources:
                if code:
                    raise errors.for_code(code)(message)
                configs[name] = {entry[0]: entry[1] for entry in entries}
        return configs

    async def _list_offsets(self, partitions: Sequence[TopicPartition], at: int, isolation: int) -> dict[TopicPartition, int]:
        by_node: dict[int, dict[str, list[tuple[int, int]]]] = {}
        for partition in partitions:
            by_topic = by_node.setdefault(await self.leader(partition), {})
            by_topic.setdefault(partition.topic, []).append((partition.partition, at))
        requests = [self.client.send(node, OffsetRequest(-1, isolation, list(topics.items()))) for node, topics in by_node.items()]
        offsets = {}
        for response in await asyncio.gather(*requests):
            for topic, parts in response.topics:
                for number, code, *_, offset in parts:
                    if code:
                        await self.client.force_metadata_update()
                        raise errors.for_code(code)(f"{topic}[{number}]")
                    offsets[TopicPartition(topic, number)] = offset
        return offsets


class _NotPossible(ConfigError):
    """Another try would say the same."""


_IMPOSSIBLE = (errors.OffsetOutOfRangeError, errors.PolicyViolationError, errors.InvalidTopicError, errors.InvalidConfigurationError)


def topic_config(spec: TopicSpec) -> dict[str, str]:
    """Return a new topic's settings.

    Results carry event times: the end of a long window lies in the future, and Kafka 3.6 and later refuse records that lie more
    than an hour ahead, unless the topic allows it.
    """
    config = {"cleanup.policy": "compact" if spec.compacted else "delete", "message.timestamp.type": "CreateTime", _FUTURE: _MAX_LONG}
    if spec.retention_ms is not None:
        config["retention.ms"] = str(spec.retention_ms)
    return config | dict(spec.config or {})


def _check_config(spec: TopicSpec, found: Mapping[str, str]) -> None:
    """Compare an existing topic with what is wanted.

    Raises:
        ConfigError: Records would be lost, or get another time.
    """
    wanted = topic_config(spec)
    vital = ["message.timestamp.type", "cleanup.policy"]
    if spec.retention_ms is not None and not spec.compacted:
        vital.append("retention.ms")
    for name in vital:
        if name in found and found[name] != wanted[name]:
            raise ConfigError(
                f"topic {spec.name!r} has {name}={found[name]} instead of {wanted[name]}; change it: kafka-configs.sh --alter "
                f"--entity-type topics --entity-name {spec.name} --add-config {name}={wanted[name]}"
            )
    for name, value in (spec.config or {}).items():
        if name not in vital and found.get(name, value) != value:
            log.warning("topic %s has %s=%s instead of %s", spec.name, name, found[name], value)
