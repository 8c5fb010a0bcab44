"""The Kafka transport: one worker's connection, its membership in the group, its producers and readers."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from aiokafka.errors import KafkaError

from engine.errors import ConfigError
from engine.records import OutputColumns, RecordBatch, TopicPartition
from engine.runtime.assignor import WorkerAddress
from engine.runtime.transport.kafka.admin import KafkaAdmin
from engine.runtime.transport.kafka.consumer import GroupConsumer
from engine.runtime.transport.kafka.failures import persist, probe, translate
from engine.runtime.transport.kafka.producer import KafkaSender, KafkaTransactionalProducer
from engine.runtime.transport.kafka.reader import KafkaReader
from engine.runtime.transport.kafka.repeats import leave_out_details, say_once_in_a_while
from engine.runtime.transport.kafka.settings import KafkaSettings
from engine.runtime.transport.kafka.transactions import KafkaTransactions
from engine.runtime.transport.open_transactions import Decision, OpenTransaction
from engine.runtime.transport.protocol import FetchState, RebalanceListener
from engine.topics import TopicSpec

_STOP_TIMEOUT_S = 5.0


class KafkaTransport:
    """`Transport` on a Kafka cluster.

    Args:
        stored_numbers: Asked at each join of the group: the partition numbers whose store lies on this worker's disk. They are
            given back to it where that is fair.
        standbys: How many copies of each task other workers shall keep.
        address: Where this worker's pages are, for the others to know.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        stored_numbers: Callable[[], Iterable[int]] = tuple,
        standbys: int = 0,
        address: WorkerAddress | None = None,
    ) -> None:
        self._standbys = standbys
        self._address = address
        self._settings = settings
        self._stored = stored_numbers
        self._admin_client: KafkaAdmin | None = None
        self._consumer: GroupConsumer | None = None
        self._sender: KafkaSender | None = None

    async def start(self) -> None:
        """Connect.

        Raises:
            ConfigError: Bad credentials, or a certificate that is not trusted.
            UnavailableError: No broker answered within `connect_timeout_ms`.
        """
        say_once_in_a_while("aiokafka")
        leave_out_details("aiokafka")
        await probe(self._settings)
        admin = KafkaAdmin(self._settings)
        try:
            await admin.start()
        except BaseException:
            await admin.close()
            raise
        self._admin_client = admin
        self._sender = KafkaSender(self._settings)

    async def stop(self) -> None:
        """Leave the group (a static member stays in it, for a while) and disconnect; bounded in time."""
        consumer, self._consumer = self._consumer, None
        sender, self._sender = self._sender, None
        admin, self._admin_client = self._admin_client, None
        closing = []
        if consumer is not None:
            closing.append(_leave(consumer))
        if sender is not None:
            closing.append(sender.close())
        if admin is not None:
            closing.append(_bounded(admin.close))
        await asyncio.gather(*closing)

    async def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Create the missing topics and check the others, see `Transport.ensure_topics`."""
        await self._admin.ensure_topics(specs)

    async def add_partitions(self, counts: Mapping[str, int]) -> None:
        """Let topics grow to these numbers of partitions."""
        await self._admin.add_partitions(counts)

    async def topics(self) -> list[str]:
        """Return the names of all topics of users, sorted."""
        return await self._admin.topics()

    async def partition_counts(self, topics: Sequence[str]) -> dict[str, int]:
        """Return the number of partitions of each topic that exists."""
        return await self._admin.partition_counts(topics)

    async def record_bytes_max(self, topics: Sequence[str]) -> dict[str, int]:
        """Return the size of the largest record that each of these topics takes."""
        return await self._admin.record_bytes_max(topics)

    async def subscribe(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        """Join the group; the listener hears of partitions during later `poll`s.

        Raises:
            ConfigError: The settings name no group.
            UnavailableError: No broker answered within `connect_timeout_ms`; it may be called again.
        """
        if not self._settings.group:
            raise ConfigError("a connection without a group cannot subscribe")
        assert self._consumer is None, "already subscribed"
        consumer = GroupConsumer(self._settings, self._stored, self._standbys, self._address)
        try:
            await persist(consumer.start, "join the group", self._settings.address, self._settings.connect_timeout_ms)
        except BaseException:
            await _leave(consumer)
            raise
        self._consumer = consumer
        consumer.join(topics, listener)

    def assignment(self) -> frozenset[TopicPartition]:
        """Return this member's partitions, the empty set while the group rebalances for the first time."""
        return frozenset() if self._consumer is None else frozenset(TopicPartition(*tp) for tp in self._consumer.assignment())

    def standby_numbers(self) -> frozenset[int]:
        """Return the task numbers that this member shall keep copies of, as of the latest assignment."""
        return frozenset() if self._consumer is None else frozenset(self._consumer.assignor.told.standby_numbers)

    def worker_of(self, number: int) -> WorkerAddress | None:
        """Return where the pages of the worker are that has a task, as of the latest assignment; None if that is not known."""
        return None if self._consumer is None else self._consumer.assignor.told.worker_of(number)

    async def poll(self, timeout_s: float) -> list[RecordBatch]:
        """Return what has been fetched, see `Transport.poll`.

        Raises:
            StateError: A partition's records were deleted before they were read; the partition is paused.
            UnavailableError: The group's or a partition's broker is out of reach.
        """
        try:
            return await self._member.columns(timeout_s)
        except KafkaError as error:
            raise translate(error, f"go on as a member of {self._settings.group}", self._settings.address) from error

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Stop fetching partitions; those lost in a rebalance are skipped, here as in `resume` and `seek`."""
        self._member.pause_assigned(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Go on fetching partitions."""
        self._member.resume_assigned(partitions)

    def seek(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Move positions; what was fetched before is dropped."""
        self._member.seek_assigned(offsets)

    def fetch_state(self, partition: TopicPartition) -> FetchState | None:
        """Return what the latest fetch answer said, None before the first since the last seek, pause or assignment."""
        return self._member.fetch_states.get(partition)

    def membership_confirmed_s(self) -> float:
        """Return when the latest heartbeat or join that succeeded was sent; minus infinity before the first."""
        return self._member.confirmed_s

    async def begin_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return where the logs begin."""
        return await self._admin.list_offsets(partitions, ends=False)

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the last stable offsets."""
        return await self._admin.list_offsets(partitions, ends=True)

    async def high_watermarks(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the ends of the logs, open transactions included."""
        return await self._admin.list_offsets(partitions, ends=True, committed=False)

    async def open_transactions(self, partitions: Sequence[TopicPartition], producer_id: int | None = None) -> list[OpenTransaction]:
        """Return what is open in partitions, see `Transport.open_transactions`."""
        return await KafkaTransactions(self._admin, self._settings).find(partitions, producer_id)

    async def end_transaction(self, transaction: OpenTransaction, decided: Decision) -> None:
        """Write the marker that a transaction lacks which hangs."""
        await KafkaTransactions(self._admin, self._settings).end(transaction, decided)

    async def committed_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the group's committed offsets; partitions without one are left out."""
        return await self._admin.committed_offsets(self._settings.group, partitions)

    async def open_reader(self, partition: TopicPartition, offset: int) -> KafkaReader:
        """Return a reader that begins at an offset; the offset is checked by its first `read`."""
        return KafkaReader(self._admin, self._settings, partition, offset)

    async def open_producer(self, transactional_id: str) -> KafkaTransactionalProducer:
        """Fence older producers with this id and return the new one."""
        producer = KafkaTransactionalProducer(self._settings, transactional_id)
        await producer.open()
        return producer

    async def send(self, outputs: Mapping[TopicPartition, OutputColumns]) -> None:
        """Produce outside any transaction and wait for the acknowledgements."""
        assert self._sender is not None, "not started"
        await self._sender.send(outputs)

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Purge records below the given offsets."""
        await self._admin.delete_records(before)

    @property
    def _admin(self) -> KafkaAdmin:
        assert self._admin_client is not None, "not started"
        return self._admin_client

    @property
    def _member(self) -> GroupConsumer:
        assert self._consumer is not None, "not subscribed"
        return self._consumer


async def _leave(consumer: GroupConsumer) -> None:
    await _bounded(consumer.stop)
    await consumer.abandon()


async def _bounded(close: Callable[[], Awaitable[None]]) -> None:
    """Close something of aiokafka's; whatever goes wrong, it is left behind after the bound."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await close()
