"""Faust's producer over our transport: `app.topic(...).send`, and what plain agents forward."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any

from faust.transport.producer import Producer as FaustProducer
from faust.types.tuples import TP, RecordMetadata

from engine.records import Headers, OutputColumns, TopicPartition
from engine.topics import TopicSpec
from state.hashing import partition_of

if TYPE_CHECKING:
    from engine.runtime.faust_seam.side_transport import SideTransport


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
        self.transport.connection.give_up()
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
