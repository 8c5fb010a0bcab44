"""A Faust transport over ours, for what is plain Faust in an app: agents on topics, and `app.topic(...).send`.

It has a connection and a consumer group of its own (`<app>-agents`), made only when something needs it, so that plain agents and
pipelines do not disturb each other's rebalances. Delivery is at least once: offsets are committed after the agents' acks, as
Faust does it. The same code serves kafka:// and memory://.
"""

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from faust.tables.manager import TableManager
from faust.transport.base import Transport as FaustTransport
from faust.transport.conductor import Conductor
from faust.transport.consumer import Consumer as FaustConsumer
from faust.transport.producer import Producer as FaustProducer
from faust.types import AppT
from faust.types.tuples import TP, ConsumerMessage, RecordMetadata
from mode import Service
from yarl import URL

from engine.errors import ConfigError, FencedError, UnavailableError
from engine.records import Headers, OutputColumns, TopicPartition
from engine.runtime.transport.protocol import TransactionalProducer, Transport
from engine.topics import TopicSpec
from state.hashing import partition_of

log = logging.getLogger(__name__)

Row = tuple[int, int, bytes | None, bytes | None, Headers]


class Connection:
    """Our transport for the plain part of an app, started when it is first needed.

    Args:
        partitions: Make missing topics with so many partitions (in memory, where nobody else could); None leaves that to others.
    """

    def __init__(self, make: Callable[[], Transport], *, partitions: int | None) -> None:
        self._make = make
        self._new_partitions = partitions
        self._starting = asyncio.Lock()
        self._transport: Transport | None = None
        self.known_partitions: dict[str, int] = {}
        self._offsets: TransactionalProducer | None = None

    @property
    def transport(self) -> Transport | None:
        """The transport once it is started."""
        return self._transport

    async def started(self) -> Transport:
        """Return the transport, started."""
        async with self._starting:
            if self._transport is None:
                transport = self._make()
                await transport.start()
                self._transport = transport
        return self._transport

    async def partitions(self, topic: str) -> int:
        """Return the number of partitions of a topic.

        Raises:
            ConfigError: There is no such topic.
        """
        if topic not in self.known_partitions:
            await self.make_topics([topic])
            counts = await (await self.started()).partition_counts([topic])
            if topic not in counts:
                raise ConfigError(f"topic {topic!r} does not exist; create it first")
            self.known_partitions.update(counts)
        return self.known_partitions[topic]

    async def make_topics(self, topics: Sequence[str]) -> None:
        """Make those that are missing, where that is ours to do."""
        if self._new_partitions is not None:
            transport = await self.started()
            there = await transport.partition_counts(topics)
            await transport.ensure_topics([TopicSpec(topic, self._new_partitions) for topic in topics if topic not in there])

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> bool:
        """Commit offsets of the group; False if it did not work this time."""
        try:
            if self._offsets is None:
                self._offsets = await (await self.started()).open_producer(f"agents-{uuid.uuid4()}")
            await self._offsets.commit({}, offsets)
        except (FencedError, UnavailableError) as error:
            log.warning("offsets of plain agents could not be committed: %s", error)
            await self._close_offsets()
            return False
        return True

    async def stop(self) -> None:
        """Leave the group and close."""
        await self._close_offsets()
        if self._transport is not None:
            transport, self._transport = self._transport, None
            await transport.stop()

    async def _close_offsets(self) -> None:
        if self._offsets is not None:
            producer, self._offsets = self._offsets, None
            await producer.close()


class SideProducer(FaustProducer):
    """Sends records outside any transaction, in order, as many at once as have come together."""

    transport: "SideTransport"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: deque[tuple[TopicPartition, int, bytes | None, bytes | None, Headers, asyncio.Future[RecordMetadata]]] = deque()
        self._sending: asyncio.Task[None] | None = None

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: Any,
        *,
        transactional_id: str | None = None,
    ) -> Awaitable[RecordMetadata]:
        """Queue a record; the future that comes back is done when the broker has it."""
        if partition is None:
            count = await self.transport.connection.partitions(topic)
            partition = 0 if key is None else partition_of(key, count)
        time_ms = int(timestamp * 1_000) if timestamp is not None else int(self.transport.now_ms())
        pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
        future: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        self._waiting.append((TopicPartition(topic, partition), time_ms, key, value, tuple(pairs), future))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_waiting(), name="plain producer")
        return future

    async def send_and_wait(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: Any,
        *,
        transactional_id: str | None = None,
    ) -> RecordMetadata:
        """Send a record and wait until the broker has it."""
        return await (await self.send(topic, key, value, partition, timestamp, headers))

    async def _send_waiting(self) -> None:
        while self._waiting:
            taken = list(self._waiting)
            self._waiting.clear()
            outputs: dict[TopicPartition, OutputColumns] = {}
            for partition, time_ms, key, value, headers, _ in taken:
                outputs.setdefault(partition, OutputColumns()).append(time_ms, key, value, headers)
            try:
                await (await self.transport.connection.started()).send(outputs)
            except Exception as error:  # noqa: BLE001  # each sender gets it
                for *_, future in taken:
                    if not future.done():
                        future.set_exception(error)
                continue
            for partition, time_ms, *_, future in taken:
                if not future.done():
                    future.set_result(RecordMetadata(*partition, TP(*partition), -1, time_ms / 1_000, 0))

    async def flush(self) -> None:
        """Wait until everything queued has been sent."""
        await self.buffer.flush()
        if self._sending is not None:
            await asyncio.wait([self._sending])

    async def on_stop(self) -> None:
        """Send what is queued, then close the connection: the producer is the last to need it."""
        await self.flush()
        await self.transport.connection.stop()

    async def create_topic(self, topic: str, partitions: int, replication: int, **options: Any) -> None:
        """Create a topic if there is none of that name."""
        transport = await self.transport.connection.started()
        if not await transport.partition_counts([topic]):
            retention_s = options.get("retention")
            retention_ms = None if retention_s is None else int(float(retention_s) * 1_000)
            compacted = bool(options.get("compacting"))
            await transport.ensure_topics([TopicSpec(topic, partitions, compacted=compacted, retention_ms=retention_ms)])

    def supports_headers(self) -> bool:
        """Return True: records keep their headers."""
        return True


class SideConsumer(FaustConsumer):
    """Faust's consumer over our transport: positions, acks and commits are Faust's own."""

    transport: "SideTransport"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._latest: dict[TP, int] = {}
        self._subscribed: list[str] = []

    # -- the group: our RebalanceListener

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Join the group for these topics; nothing to do without any."""
        wanted = sorted(topics)
        if wanted and not self._subscribed:
            transport = await self.transport.connection.started()
            await self.transport.connection.make_topics(wanted)
            await transport.subscribe(wanted, self)
            self._subscribed = wanted
        elif wanted != self._subscribed:
            log.warning("plain agents read %s; a change to %s takes effect at the next start", self._subscribed, wanted)

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Commit what the agents have done, and let go."""
        if partitions:
            self.app.on_rebalance_start()
            await self.commit()
            await self.on_partitions_revoked({TP(*partition) for partition in partitions})

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Let Faust know; it seeks and resumes through `NoTables.on_rebalance`."""
        self.app.consumer_generation_id += 1
        if not self.app.rebalancing:
            self.app.on_rebalance_start()
        await self.on_partitions_assigned({TP(*partition) for partition in partitions}, self.app.consumer_generation_id)

    async def resume(self, generation_id: int) -> None:
        """Go on from the committed offsets, unless another rebalance came in between."""
        await self.perform_seek()
        if generation_id == self.app.consumer_generation_id:
            self.resume_partitions(self.assignment())
            self.app.flow_control.resume()
            self.resume_flow()
            self.app.on_rebalance_end()

    # -- fetching

    @Service.task
    async def _pump(self) -> None:
        while not self.should_stop:
            if not self._subscribed:
                await self.sleep(0.1)
                continue
            generation_id = self.app.consumer_generation_id
            for tp, rows in (await self._getmany(None, 0.5)).items():
                for row in rows:
                    if not self.flow_active or generation_id != self.app.consumer_generation_id:
                        break
                    await self._hand_over(tp, self._to_message(tp, row))
            await asyncio.sleep(0)

    async def _hand_over(self, tp: TP, message: ConsumerMessage) -> None:
        """Take a record to the agents; it waits while their queues are full."""
        read = self._read_offset[tp]
        expected = 0 if read is None else read + 1
        if message.offset > expected:  # markers and compacted records will never be acked
            await self._add_gap(tp, expected, message.offset - 1)
        await self.wait_first(self.callback(message), self.suspend_flow.wait())
        self._read_offset[tp] = message.offset

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Mapping[TP, list[Row]]:
        transport = await self.transport.connection.started()
        records: dict[TP, list[Row]] = {}
        for batch in await transport.poll(timeout):
            tp = TP(batch.topic, batch.partition)
            self._latest[tp] = batch.high_watermark
            records[tp] = list(zip(batch.offsets, batch.timestamps, batch.keys, batch.values, batch.headers, strict=True))
        return records

    def _to_message(self, tp: TP, record: Row) -> ConsumerMessage:
        offset, time_ms, key, value, headers = record
        generation_id = self.app.consumer_generation_id
        return ConsumerMessage(*tp, offset, time_ms / 1_000, 0, list(headers), key, value, None, tp=tp, generation_id=generation_id)

    # -- positions

    def assignment(self) -> set[TP]:
        """Return the partitions of this member."""
        transport = self.transport.connection.transport
        return set() if transport is None else {TP(*partition) for partition in transport.assignment()}

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        return await self.transport.connection.commit({TopicPartition(*tp): offset for tp, offset in offsets.items()})

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Go back to the committed offsets, or to the end that `consumer_auto_offset_reset` names; return them."""
        transport = await self.transport.connection.started()
        partitions = [TopicPartition(*tp) for tp in self.assignment()]
        from_start = self.app.conf.consumer_auto_offset_reset == "earliest"
        first = await (transport.begin_offsets(partitions) if from_start else transport.end_offsets(partitions))
        offsets = {**first, **await transport.committed_offsets(partitions)}
        transport.seek(offsets)
        return {TP(*partition): offset - 1 for partition, offset in offsets.items()}

    async def _seek(self, partition: TP, offset: int) -> None:
        (await self.transport.connection.started()).seek({TopicPartition(*partition): offset})

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Go to the given offsets."""
        for tp, offset in partitions.items():
            await self.seek(tp, offset)

    async def position(self, tp: TP) -> int | None:
        """Return the next offset to fetch, as far as known."""
        transport = self.transport.connection.transport
        state = None if transport is None else transport.fetch_state(TopicPartition(*tp))
        return None if state is None else state.position

    def highwater(self, tp: TP) -> int:
        """Return the end of a partition as the latest fetch answer gave it."""
        return self._latest.get(tp, 0)

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """Return where the partitions begin."""
        transport = await self.transport.connection.started()
        offsets = await transport.begin_offsets([TopicPartition(*tp) for tp in partitions])
        return {TP(*partition): offset for partition, offset in offsets.items()}

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """Return where the partitions end."""
        transport = await self.transport.connection.started()
        offsets = await transport.end_offsets([TopicPartition(*tp) for tp in partitions])
        return {TP(*partition): offset for partition, offset in offsets.items()}

    def pause_partitions(self, tps: Iterable[TP]) -> None:
        """Stop fetching."""
        paused = set(tps)
        super().pause_partitions(paused)
        if self.transport.connection.transport is not None:
            self.transport.connection.transport.pause([TopicPartition(*tp) for tp in paused & self.assignment()])

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Fetch again."""
        resumed = set(tps)
        super().resume_partitions(resumed)
        if self.transport.connection.transport is not None:
            self.transport.connection.transport.resume([TopicPartition(*tp) for tp in resumed & self.assignment()])

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    def topic_partitions(self, topic: str) -> int | None:
        """Return the number of partitions of a topic, None while it is not known here."""
        return self.transport.connection.known_partitions.get(topic)

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        """Return the partition of a key, None while the topic is not known here."""
        count = self.topic_partitions(topic)
        return partition if partition is not None or count is None or key is None else partition_of(key, count)

    async def create_topic(self, topic: str, partitions: int, replication: int, **options: Any) -> None:
        """Create a topic if there is none of that name."""
        await self.app.producer.create_topic(topic, partitions, replication, **options)


class NoTables(TableManager):
    """The table manager of an app whose tables are ours: what is left is to resume plain agents after a rebalance."""

    async def on_start(self) -> None:
        """Start nothing: there is nothing to recover."""

    async def wait_until_tables_registered(self) -> None:
        """Return at once: there are none."""

    async def on_rebalance(self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0) -> None:
        """Resume plain agents, outside the rebalance callback."""
        consumer = self.app.consumer
        assert isinstance(consumer, SideConsumer)
        consumer.add_future(consumer.resume(generation_id))


class SideTransport(FaustTransport):
    """The Faust transport of an app."""

    Consumer = SideConsumer
    Producer = SideProducer
    Conductor = Conductor
    driver_version = "streamforge"

    def __init__(self, url: Sequence[URL], app: AppT, *, connection: Connection, now_ms: Callable[[], int]) -> None:
        super().__init__(list(url), app)
        self.connection = connection
        self.now_ms = now_ms
