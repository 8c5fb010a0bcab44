"""Faust's consumer over our transport: it brings records to plain agents; positions, acks and commits are Faust's own."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from faust.transport.consumer import Consumer as FaustConsumer
from faust.types.tuples import TP, ConsumerMessage
from mode import Service

from engine.errors import UnavailableError
from engine.records import Headers, TopicPartition
from state.hashing import partition_of

if TYPE_CHECKING:
    from engine.runtime.faust_seam.side_transport import SideTransport

log = logging.getLogger(__name__)

_AGAIN_S = 1.0

Row = tuple[int, int, bytes | None, bytes | None, Headers]


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
            connection = self.transport.connection
            transport = await connection.started()
            await connection.through(lambda: connection.make_topics(wanted))
            await connection.through(lambda: transport.subscribe(wanted, self))
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
        """Go on from the committed offsets, unless another rebalance came in between; wait for the broker as long as it takes."""
        while generation_id == self.app.consumer_generation_id and not self.should_stop:
            try:
                await self.perform_seek()
                break
            except UnavailableError as error:
                log.warning("plain agents: offsets could not be looked up: %s; tried again in %.1f s", error, _AGAIN_S)
                await self.sleep(_AGAIN_S)
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
            try:
                records = await self._getmany(None, 0.5)
            except UnavailableError as error:
                log.warning("plain agents: poll failed: %s; tried again in %.1f s", error, _AGAIN_S)
                await self.sleep(_AGAIN_S)
                continue
            generation_id = self.app.consumer_generation_id  # from here on: a rebalance while rows wait makes them stale
            for tp, rows in records.items():
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
