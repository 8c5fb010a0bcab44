"""The connection of what is plain Faust in an app: our transport, in a group of its own (`<app>-agents`), made when it is needed."""

import asyncio
import logging
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from engine.errors import ConfigError, FencedError, UnavailableError
from engine.records import TopicPartition
from engine.runtime.broker_wait import BrokerWait
from engine.runtime.shell import Limits
from engine.runtime.transport.protocol import TransactionalProducer, Transport
from engine.topics import TopicSpec

log = logging.getLogger(__name__)


class Connection:
    """Our transport for the plain part of an app, started when it is first needed.

    Args:
        limits: How long it waits at the start for a broker that does not answer (`engine.runtime.broker_wait`).
        partitions: Make missing topics with so many partitions (in memory, where nobody else could); None leaves that to others.
    """

    def __init__(self, make: Callable[[], Transport], *, partitions: int | None, limits: Limits) -> None:
        self._make = make
        self._gave_up = asyncio.Event()
        self._broker_wait = BrokerWait(
            limits.broker_wait_ms, self._gave_up, retry_first_s=limits.retry_first_s, retry_max_s=limits.retry_max_s
        )
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
        """Return the transport, started; while no broker answers it waits, as long as a worker may.

        Raises:
            UnavailableError: No broker answered in that time, or the worker ends.
        """
        async with self._starting:
            if self._transport is None:
                transport = self._make()
                await self.through(transport.start)
                self._transport = transport
        return self._transport

    async def through(self, step: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Take a step of the start that needs a broker, again and again until it succeeds.

        Raises:
            UnavailableError: It did not in the time that a worker waits, or the worker ends.
        """
        if not await self._broker_wait.through(step):
            raise UnavailableError(self._broker_wait.reason)

    def give_up(self) -> None:
        """Wait no longer for a broker that does not answer: the worker ends."""
        if self._broker_wait.reason:
            self._gave_up.set()

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
