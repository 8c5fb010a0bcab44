"""The transport to a `MemoryBroker`: a worker's connection and its membership in one group.

    broker = MemoryBroker()
    transport = MemoryTransport(broker, group_id="shop", client_id="worker-1")

Several transports may share a broker, each as a worker of its own. They behave as on Kafka: see `protocol`, and the modules
`memory_log`, `memory_group` and `memory_transactions` for the differences that are left. Every request may be made to fail
(`memory_connection.Faults`).
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence

from engine.errors import ConfigError, FencedError, StateError, StreamForgeError, UnavailableError
from engine.records import OutputColumns, RecordBatch, TopicPartition
from engine.runtime.assignor import WorkerAddress
from engine.runtime.clock import Clock
from engine.runtime.transport.memory_broker import MemoryBroker
from engine.runtime.transport.memory_connection import Connection, Faults
from engine.runtime.transport.memory_membership import GroupTimes, Membership
from engine.runtime.transport.memory_transactions import ProducerSession
from engine.runtime.transport.open_transactions import Decision, OpenTransaction
from engine.runtime.transport.protocol import FetchState, RebalanceListener
from engine.topics import TopicSpec

FETCH_RECORDS_MAX = 10_000
TRANSACTION_TIMEOUT_S = 10.0
RETRY_S = 0.1
CLOSE_S = 1.0


class MemoryTransport:
    """One worker's connection to a memory broker.

    Args:
        group_id: Consumer group; empty for a connection that joins none.
        clock: Stamps fetch answers and confirmations; None for the broker's.
        faults: What happens to requests; None for a perfect network.
        stored: Asked at each join for the partition numbers whose store lies on this worker's disk.
        standbys: How many copies of each task other members shall keep.
        address: Where this worker's pages are, for the others to know.
        times: Time-outs of the group membership.
        fetch_records_max: Most records in a batch.
        transaction_timeout_s: The broker aborts a transaction that is open longer.
    """

    def __init__(
        self,
        broker: MemoryBroker,
        *,
        group_id: str = "",
        client_id: str = "streamforge",
        clock: Clock | None = None,
        faults: Faults | None = None,
        stored: Callable[[], Iterable[int]] = tuple,
        standbys: int = 0,
        address: WorkerAddress | None = None,
        times: GroupTimes | None = None,
        fetch_records_max: int = FETCH_RECORDS_MAX,
        transaction_timeout_s: float = TRANSACTION_TIMEOUT_S,
    ) -> None:
        self.broker = broker
        self._connection = Connection(broker, client_id, faults)
        self._group_id = group_id
        self._clock = clock or broker.clock
        self._stored = stored
        self._standbys = standbys
        self._address = address
        self._times = times or GroupTimes()
        self._fetch_records_max = fetch_records_max
        self._transaction_timeout_s = transaction_timeout_s
        self._membership: Membership | None = None
        self._positions: dict[TopicPartition, int | None] = {}
        self._paused: set[TopicPartition] = set()
        self._fetch_states: dict[TopicPartition, FetchState] = {}

    async def start(self) -> None:
        """Check that the broker answers."""
        await self._connection.call("describe_topics", self.broker.topics)

    async def stop(self) -> None:
        """Leave the group and close everything, without committing."""
        membership, self._membership = self._membership, None
        if membership is not None:
            await membership.stop()

    # -- topics

    async def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Create the missing topics and check the others."""

        def ensure() -> None:
            for spec in specs:
                self.broker.ensure_topic(spec)

        await self._connection.call("create_topics", ensure)

    async def topics(self) -> list[str]:
        """Return the names of all topics, sorted."""
        return await self._connection.call("describe_topics", self.broker.topics)

    async def add_partitions(self, counts: Mapping[str, int]) -> None:
        """Let topics grow to these numbers of partitions."""
        await self._connection.call("create_topics", lambda: self.broker.add_partitions(counts))

    async def partition_counts(self, topics: Sequence[str]) -> dict[str, int]:
        """Return the number of partitions of each topic that exists."""
        return await self._connection.call("describe_topics", lambda: self.broker.partition_counts(topics))

    async def record_bytes_max(self, topics: Sequence[str]) -> dict[str, int]:
        """Return the size of the largest record that each of these topics takes."""
        return await self._connection.call("describe_topics", lambda: self.broker.record_bytes_max(topics))

    # -- the group

    async def subscribe(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        """Join the group; once for a transport."""
        assert self._group_id, "a transport without a group cannot subscribe"
        assert self._membership is None, "subscribe once"
        group = self.broker.group(self._group_id)
        self._membership = Membership(
            self._connection,
            group,
            topics,
            listener,
            times=self._times,
            clock=self._clock,
            hold=self._hold,
            stored=self._stored,
            standbys=self._standbys,
            address=self._address,
        )
        self._membership.start()

    def assignment(self) -> frozenset[TopicPartition]:
        """Return the partitions of this member, as far as it knows."""
        return frozenset() if self._membership is None else self._membership.partitions

    def standby_numbers(self) -> frozenset[int]:
        """Return the task numbers that this member shall keep copies of, as of the latest assignment."""
        return frozenset() if self._membership is None else frozenset(self._membership.told.standby_numbers)

    def worker_of(self, number: int) -> WorkerAddress | None:
        """Return where the pages of the worker are that has a task, as of the latest assignment; None if that is not known."""
        return None if self._membership is None else self._membership.told.worker_of(number)

    def membership_confirmed_s(self) -> float:
        """Return when the last heartbeat or join was sent that succeeded; minus infinity before the first."""
        return float("-inf") if self._membership is None else self._membership.confirmed_s

    async def poll(self, timeout_s: float) -> list[RecordBatch]:
        """Return what there is of unpaused partitions, at most one batch each; [] after the timeout.

        Raises:
            StateError: A position lies outside the log; the partition is paused.
            Exception: The listener raised it in a rebalance.
        """
        deadline_s = self._clock.monotonic_s() + timeout_s
        while True:
            if self._membership is not None:
                self._membership.check()
            seen = self.broker.appended.count
            try:
                batches = await self._fetch()
            except UnavailableError:
                self._fetch_states.clear()
                batches = []
                await asyncio.sleep(min(RETRY_S, max(0.0, deadline_s - self._clock.monotonic_s())))
            remaining_s = deadline_s - self._clock.monotonic_s()
            if batches or remaining_s <= 0:
                return batches
            await self.broker.appended.wait(seen, remaining_s)

    async def _fetch(self) -> list[RecordBatch]:
        """Ask once for all unpaused partitions; keep of the answer what still fits when it is there."""
        asked: dict[TopicPartition, int] = {}
        for partition, position in self._positions.items():
            if partition not in self._paused:
                assert position is not None, f"{partition} was resumed before it was sought"
                asked[partition] = position
        if not asked:
            await asyncio.sleep(0)
            return []
        answers = await self._connection.call("fetch", lambda: [self._answer(*one) for one in asked.items()])
        received_s = self._clock.monotonic_s()
        batches = []
        for partition, batch, high_watermark in answers:
            if partition in self._paused or self._positions.get(partition) != asked[partition]:
                continue
            if isinstance(batch, StateError):
                self.pause([partition])
                raise batch
            self._fetch_states[partition] = FetchState(batch.position, high_watermark, received_s)
            if batch.next_offset > batch.position:
                batches.append(batch)
        for batch in batches:
            self._positions[TopicPartition(batch.topic, batch.partition)] = batch.next_offset
        return batches

    def _answer(self, partition: TopicPartition, position: int) -> tuple[TopicPartition, RecordBatch | StateError, int]:
        log = self.broker.log(partition)
        try:
            return partition, log.read(position, self._fetch_records_max), log.high_watermark
        except StateError as error:
            return partition, error, log.high_watermark

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Fetch no more of partitions; those that are not this member's any more are skipped."""
        for partition in partitions:
            if partition in self._positions:
                self._paused.add(partition)
                self._fetch_states.pop(partition, None)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Fetch again; those that are not this member's any more are skipped."""
        self._paused.difference_update(partitions)
        self.broker.appended.notify()

    def seek(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Move positions; of partitions that are not this member's any more nothing is noted."""
        for partition, offset in offsets.items():
            if partition in self._positions:
                self._positions[partition] = offset
                self._fetch_states.pop(partition, None)

    def fetch_state(self, partition: TopicPartition) -> FetchState | None:
        """Return what the latest fetch answer said, None before the first since a seek, pause, assignment or error."""
        return self._fetch_states.get(partition)

    def _hold(self, partitions: frozenset[TopicPartition]) -> None:
        """Start over with these partitions, all paused, without a position."""
        self._positions = dict.fromkeys(sorted(partitions))
        self._paused = set(partitions)
        self._fetch_states.clear()

    # -- reading by position, and positions

    async def begin_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return where the logs begin."""
        return await self._connection.call("list_offsets", lambda: {p: self.broker.log(p).start for p in partitions})

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the last stable offsets."""
        return await self._connection.call("list_offsets", lambda: {p: self.broker.log(p).last_stable_offset for p in partitions})

    async def high_watermarks(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the ends of the logs, open transactions included."""
        return await self._connection.call("list_offsets", lambda: {p: self.broker.log(p).high_watermark for p in partitions})

    async def open_transactions(self, partitions: Sequence[TopicPartition], producer_id: int | None = None) -> list[OpenTransaction]:
        """Return what is open in partitions; the coordinator is the broker itself, so nothing hangs."""
        found = await self._connection.call("list_offsets", lambda: [each for p in partitions for each in self.broker.open_transactions(p)])
        return [each for each in found if producer_id in (None, each.producer_id)]

    async def end_transaction(self, transaction: OpenTransaction, decided: Decision) -> None:
        """Refuse: what is running is ended by its producer, or by its time-out."""
        raise ConfigError(f"{transaction} does not hang")

    async def committed_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the group's committed offsets; partitions without one are left out."""
        offsets = self.broker.group(self._group_id).offsets
        return await self._connection.call("offset_fetch", lambda: {p: offsets[p] for p in partitions if p in offsets})

    async def open_reader(self, partition: TopicPartition, offset: int) -> "MemoryReader":
        """Return a reader of one partition, outside the group."""
        self.broker.log(partition)
        return MemoryReader(self._connection, partition, offset, clock=self._clock, records_max=self._fetch_records_max)

    # -- writing

    async def open_producer(self, transactional_id: str) -> "MemoryProducer":
        """Begin a transactional producer's session: older ones are fenced."""
        timeout_s = self._transaction_timeout_s
        session = await self._connection.call("init_producer", lambda: self.broker.init_producer(transactional_id, timeout_s))
        return MemoryProducer(self._connection, session, self._group_id)

    async def send(self, outputs: Mapping[TopicPartition, OutputColumns]) -> None:
        """Produce outside any transaction."""
        await self._connection.call("produce", lambda: self.broker.produce(outputs))

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Purge records below the given offsets."""
        await self._connection.call("delete_records", lambda: self.broker.delete_records(before))


class MemoryReader:
    """Reads one partition outside the group, read_committed."""

    def __init__(self, connection: Connection, partition: TopicPartition, offset: int, *, clock: Clock, records_max: int) -> None:
        self._connection = connection
        self._log = connection.broker.log(partition)
        self._position = offset
        self._clock = clock
        self._records_max = records_max

    @property
    def position(self) -> int:
        """Offset of the next record; it moves past markers and compacted holes too."""
        return self._position

    async def read(self, timeout_s: float) -> RecordBatch | None:
        """Return the next batch, None after the timeout.

        Raises:
            StateError: The position lies outside the log.
            UnavailableError: Nothing but errors came until the timeout.
        """
        deadline_s = self._clock.monotonic_s() + timeout_s
        while True:
            appended = self._connection.broker.appended
            seen, failure = appended.count, None
            try:
                batch = await self._connection.call("fetch", lambda: self._log.read(self._position, self._records_max))
            except UnavailableError as error:
                failure = error
            else:
                if batch.next_offset > self._position:
                    self._position = batch.next_offset
                    return batch
            remaining_s = deadline_s - self._clock.monotonic_s()
            if remaining_s <= 0:
                if failure is not None:
                    raise failure
                return None
            await (asyncio.sleep(min(RETRY_S, remaining_s)) if failure else appended.wait(seen, remaining_s))

    async def close(self) -> None:
        """Nothing is held."""


class MemoryProducer:
    """A producer with a transactional id; of no more use after a commit that failed or was cancelled."""

    def __init__(self, connection: Connection, session: ProducerSession, group_id: str) -> None:
        self._connection = connection
        self._session = session
        self._group_id = group_id
        self._failure: StreamForgeError | None = None

    @property
    def producer_id(self) -> int:
        """What the broker calls the transactional id."""
        return self._session.producer_id

    async def commit(
        self, outputs: Mapping[TopicPartition, OutputColumns], offsets: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        """Send outputs and offsets in one transaction and commit it; see `TransactionalProducer.commit`."""
        if self._failure is not None:
            raise self._failure
        broker, session = self._connection.broker, self._session
        self._failure = UnavailableError(f"producer {session.transactional_id!r}: a commit was cancelled midway; open it anew")
        full = {partition: columns for partition, columns in outputs.items() if len(columns)}
        try:
            ends = await self._connection.call("produce", lambda: broker.produce_in_transaction(session, full))
            if offsets:
                await self._connection.call("txn_offset_commit", lambda: broker.add_offsets(session, self._group_id, offsets))
            await self._connection.call("end_txn", lambda: broker.end_transaction(session, commit=True))
        except StreamForgeError as error:
            self._failure = error
            raise
        self._failure = None
        return ends

    async def close(self) -> None:
        """Abort what a failed commit may have left open, so that no reader waits for it; bounded in time, never raises."""
        if self._failure is None:
            return
        with contextlib.suppress(UnavailableError, FencedError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._connection.call("end_txn", lambda: self._connection.broker.end_transaction(self._session, commit=False))
