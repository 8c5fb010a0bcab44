"""A broker inside the process: topics, groups and transactions with Kafka's semantics, kept in memory.

All methods act at once and wait for nothing. A worker reaches it through a `MemoryTransport`; a test or a command may also call
it directly. What happens over time (a member falls silent, a transaction times out) takes effect in `expire`, which every request
calls first; a broker that nobody talks to stands still, and nobody could tell.

Limits: one process, one event loop at a time, nothing survives the process; records are never deleted by age (`retention.ms` is
kept with the topic and compared, like on Kafka, but a log in memory keeps everything).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

from engine.errors import ConfigError
from engine.records import OutputColumns, RecordBatch, TopicPartition
from engine.runtime.clock import Clock, SystemClock
from engine.runtime.transport.memory_group import Group
from engine.runtime.transport.memory_log import PartitionLog
from engine.runtime.transport.memory_signal import Signal
from engine.runtime.transport.memory_transactions import ProducerSession, TransactionCoordinator
from engine.runtime.transport.open_transactions import OpenTransaction
from engine.topics import RECORD_BYTES_MAX, TopicSpec

_DEFAULTS = {"retention.ms": "604800000", "delete.retention.ms": "86400000"}


@dataclass(frozen=True, slots=True)
class MemoryTopic:
    """A topic: its settings as Kafka spells them, and the logs of its partitions."""

    config: Mapping[str, str]
    logs: list[PartitionLog]


class MemoryBroker:
    """One broker, shared by all transports that are given it.

    Attributes:
        clock: Time-outs follow its monotonic clock, `LogAppendTime` its wall clock.
        appended: Notified whenever a log has grown, or its last stable offset has moved.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.appended = Signal()
        self._topics: dict[str, MemoryTopic] = {}
        self._groups: dict[str, Group] = {}
        self._transactions = TransactionCoordinator(self._store_offset)

    # -- topics

    def create_topic(self, spec: TopicSpec) -> None:
        """Create a topic.

        Raises:
            ConfigError: It exists.
        """
        if spec.name in self._topics:
            raise ConfigError(f"topic {spec.name!r} exists already")
        assert spec.partitions > 0, "a topic has at least one partition"
        config = _DEFAULTS | topic_config(spec)
        append_time = config["message.timestamp.type"] == "LogAppendTime"
        compacted = "compact" in config["cleanup.policy"]
        numbers = range(spec.partitions)
        logs = [PartitionLog(TopicPartition(spec.name, n), compacted=compacted, append_time=append_time) for n in numbers]
        self._topics[spec.name] = MemoryTopic(config, logs)

    def ensure_topic(self, spec: TopicSpec) -> None:
        """Create a topic if it is missing, else check it; see `Transport.ensure_topics`."""
        topic = self._topics.get(spec.name)
        if topic is None:
            if not spec.create:
                raise ConfigError(f"topic {spec.name!r} does not exist; create it with {spec.partitions} partitions")
            self.create_topic(spec)
            return
        if len(topic.logs) != spec.partitions:
            raise ConfigError(f"topic {spec.name!r} has {len(topic.logs)} partitions instead of {spec.partitions}")
        wanted = topic_config(spec)
        for name in ("message.timestamp.type", "cleanup.policy", "retention.ms"):
            if name in wanted and topic.config[name] != wanted[name] and not (spec.compacted and name == "retention.ms"):
                raise ConfigError(f"topic {spec.name!r} has {name}={topic.config[name]} instead of {wanted[name]}")

    def topics(self) -> list[str]:
        """Return the names of all topics, sorted."""
        return sorted(self._topics)

    def partition_counts(self, topics: Collection[str]) -> dict[str, int]:
        """Return the number of partitions of those topics that exist."""
        return {name: len(self._topics[name].logs) for name in topics if name in self._topics}

    def record_bytes_max(self, topics: Collection[str]) -> dict[str, int]:
        """Return the size of the largest record that each of these topics takes."""
        return {name: int(self._topics[name].config.get("max.message.bytes", RECORD_BYTES_MAX)) for name in topics}

    def add_partitions(self, counts: Mapping[str, int]) -> None:
        """Let topics grow; ConfigError for one that is not there or has more partitions."""
        for name, count in counts.items():
            topic = self._topics.get(name)
            if topic is None or len(topic.logs) > count:
                raise ConfigError(f"topic {name!r} cannot grow to {count} partitions")
        for name, count in counts.items():
            topic = self._topics[name]
            first = topic.logs[0]
            numbers = range(len(topic.logs), count)
            topic.logs.extend(
                PartitionLog(TopicPartition(name, n), compacted=first.compacted, append_time=first.append_time) for n in numbers
            )

    def log(self, partition: TopicPartition) -> PartitionLog:
        """Return the log of a partition.

        Raises:
            ConfigError: There is none.
        """
        topic = self._topics.get(partition.topic)
        if topic is None:
            raise ConfigError(f"topic {partition.topic!r} does not exist")
        if not 0 <= partition.partition < len(topic.logs):
            raise ConfigError(f"topic {partition.topic!r} has no partition {partition.partition}")
        return topic.logs[partition.partition]

    # -- records

    def read(self, partition: TopicPartition, position: int, records_max: int = 1 << 30, *, committed: bool = True) -> RecordBatch:
        """Return records from an offset on, see `PartitionLog.read`."""
        return self.log(partition).read(position, records_max, committed=committed)

    def produce(self, outputs: Mapping[TopicPartition, OutputColumns]) -> dict[TopicPartition, int]:
        """Append records outside any transaction, all or none; return the offset behind the last one of each partition."""
        logs = self._checked_logs(outputs)
        now_ms = self.clock.now_ms()
        ends = {partition: logs[partition].append(columns, now_ms) for partition, columns in outputs.items()}
        self.appended.notify()
        return ends

    def compact(self, topic: str) -> None:
        """Compact all partitions of a compacted topic now, see `PartitionLog.compact`."""
        now_ms = self.clock.now_ms()
        retention_ms = int(self._topics[topic].config["delete.retention.ms"])
        for log in self._topics[topic].logs:
            log.compact(now_ms, retention_ms)

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Delete records below offsets, see `PartitionLog.delete_below`."""
        for partition, offset in before.items():
            self.log(partition).delete_below(offset)

    # -- groups

    def group(self, group_id: str) -> Group:
        """Return a consumer group; it comes into being when it is first asked for."""
        if group_id not in self._groups:
            self._groups[group_id] = Group(self.partition_counts)
        return self._groups[group_id]

    def _store_offset(self, group_id: str, partition: TopicPartition, offset: int) -> None:
        self.group(group_id).offsets[partition] = offset

    # -- transactions

    def init_producer(self, transactional_id: str, timeout_s: float) -> ProducerSession:
        """Begin a producer's session: older ones are fenced, what they have open is aborted."""
        session = self._transactions.init(transactional_id, timeout_s)
        self.appended.notify()
        return session

    def produce_in_transaction(
        self, session: ProducerSession, outputs: Mapping[TopicPartition, OutputColumns]
    ) -> dict[TopicPartition, int]:
        """Append records within a session's transaction; return the offset behind the last one of each partition."""
        logs = self._checked_logs(outputs)
        ends = self._transactions.produce(session, logs, outputs, now_s=self.clock.monotonic_s(), now_ms=self.clock.now_ms())
        self.appended.notify()
        return ends

    def add_offsets(self, session: ProducerSession, group_id: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Let a session's transaction commit a group's offsets."""
        for partition in offsets:
            self.log(partition)
        self._transactions.add_offsets(session, group_id, offsets, now_s=self.clock.monotonic_s())

    def end_transaction(self, session: ProducerSession, *, commit: bool) -> None:
        """Commit or abort a session's transaction."""
        self._transactions.end(session, commit=commit)
        self.appended.notify()

    def open_transactions(self, partition: TopicPartition) -> list[OpenTransaction]:
        """Return what is open in a partition, by offset."""
        return self._transactions.open_in(partition, self.log(partition))

    def _checked_logs(self, outputs: Mapping[TopicPartition, OutputColumns]) -> dict[TopicPartition, PartitionLog]:
        logs = {partition: self.log(partition) for partition in outputs}
        for partition, columns in outputs.items():
            logs[partition].check(columns)
        return logs

    # -- time

    def expire(self) -> None:
        """Let everything happen that was due by now: silent members, transactions beyond their time-out."""
        now_s = self.clock.monotonic_s()
        if self._transactions.expire(now_s):
            self.appended.notify()
        for group in self._groups.values():
            group.expire(now_s)


def topic_config(spec: TopicSpec) -> dict[str, str]:
    """Return the settings that a topic's specification asks for, as Kafka spells them."""
    config = {"cleanup.policy": "compact" if spec.compacted else "delete", "message.timestamp.type": "CreateTime"}
    if spec.retention_ms is not None:
        config["retention.ms"] = str(spec.retention_ms)
    return config | dict(spec.config or {})


class MemoryBrokers:
    """The brokers of this process by URL, so that several workers or commands in it can share `memory://`."""

    _by_url: ClassVar[dict[str, MemoryBroker]] = {}

    @classmethod
    def open(cls, url: str, clock: Clock | None = None) -> MemoryBroker:
        """Return the broker of a URL, made with the clock at the first call."""
        if url not in cls._by_url:
            cls._by_url[url] = MemoryBroker(clock)
        return cls._by_url[url]

    @classmethod
    def drop(cls, url: str) -> None:
        """Forget a broker: the next `open` makes an empty one. Transports that hold it keep it."""
        cls._by_url.pop(url, None)
