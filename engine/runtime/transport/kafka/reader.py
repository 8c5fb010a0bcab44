"""Readers of one partition outside the group: restore, standbys, `tail`.

A reader sends its own fetch requests on a connection of its own, so that one that waits at the end of its partition holds up
nobody, and it asks for the next answer while the caller works on the last. It ends nowhere by itself: a restore reads until
`position` has reached the end offset, since transaction markers and compaction leave offsets without records.
"""

import asyncio
import contextlib
import time
from typing import Any

from aiokafka import errors
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.protocol.fetch import FetchRequest

from engine.errors import StateError, UnavailableError
from engine.records import RecordBatch, TopicPartition
from engine.runtime.transport.kafka.admin import KafkaAdmin
from engine.runtime.transport.kafka.columns import unpack
from engine.runtime.transport.kafka.failures import translate
from engine.runtime.transport.kafka.settings import KafkaSettings

_WAIT_MS = 500
_RETRY_AFTER_S = 0.1


class KafkaReader:
    """Reads one partition, read_committed. `read` may be cancelled at any time; nothing is lost by it."""

    def __init__(self, admin: KafkaAdmin, settings: KafkaSettings, partition: TopicPartition, offset: int) -> None:
        self._admin = admin
        self._settings = settings
        self._partition = partition
        self._position = offset
        self._answer: asyncio.Task[RecordBatch] | None = None
        self._connections: set[Any] = set()

    @property
    def position(self) -> int:
        """Offset of the next record; it moves past transaction markers and compacted holes too."""
        return self._position

    async def read(self, timeout_s: float) -> RecordBatch | None:
        """Return the next batch, see `PartitionReader.read`.

        Raises:
            StateError: The position lies outside the log.
            ConfigError: Reading is not allowed.
            UnavailableError: Nothing but errors came until the timeout.
        """
        deadline = time.monotonic() + timeout_s
        failure: Exception | None = None
        while True:
            if self._answer is None:
                self._answer = asyncio.create_task(self._fetch(self._position))
            await asyncio.wait([self._answer], timeout=max(0.0, deadline - time.monotonic()))
            if not self._answer.done():
                self._raise(failure)
                return None
            answer, self._answer = self._answer, None
            try:
                batch = answer.result()
            except (errors.KafkaError, OSError, UnavailableError) as error:
                failure = error
                await self._recover(deadline)
            else:
                failure = None
                if batch.next_offset != self._position:
                    self._position = batch.next_offset
                    self._answer = asyncio.create_task(self._fetch(self._position))
                    return batch
            if time.monotonic() >= deadline:
                self._raise(failure)
                return None

    async def close(self) -> None:
        """Let go of the connection."""
        if self._answer is not None:
            self._answer.cancel()
            await asyncio.wait([self._answer])
            if not self._answer.cancelled():
                self._answer.exception()
            self._answer = None
        for key in self._connections:
            connection = self._admin.client._conns.pop(key, None)
            if connection is not None:
                connection.close()

    def _raise(self, failure: Exception | None) -> None:
        if failure is not None:
            raise translate(failure, f"read {self._name()}", self._settings.address) from failure

    def _name(self) -> str:
        return f"{self._partition.topic}[{self._partition.partition}]"

    async def _recover(self, deadline: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + max(0.0, deadline - time.monotonic())):
                await self._admin.client.force_metadata_update()
                await asyncio.sleep(_RETRY_AFTER_S)

    async def _fetch(self, offset: int) -> RecordBatch:
        topic, number = self._partition
        node = await self._admin.leader(self._partition)
        self._connections.add((node, self))
        asked = [(topic, [(number, offset, self._settings.fetch_bytes)])]
        request = FetchRequest(_WAIT_MS, 1, self._settings.fetch_bytes, READ_COMMITTED, asked)
        response = await self._admin.client.send(node, request, group=self)
        for _, parts in response.topics:
            for _, code, _, stable, *others in parts:
                return self._take(offset, errors.for_code(code), stable, others)
        raise errors.KafkaError(f"an empty answer for {self._name()}")

    def _take(self, offset: int, error: type[Exception], stable: int, others: list[Any]) -> RecordBatch:
        """Make columns of the partition's part of an answer; `others` ends with the records.

        Its layout: log start (from version 5), aborted transactions, preferred replica (from version 11), records.
        """
        if error is errors.OffsetOutOfRangeError:
            raise StateError(f"{self._name()}: offset {offset} is outside the log: its records were deleted")
        if error is not errors.NoError:
            raise error(self._name())
        aborted = next((part for part in others[:-1] if isinstance(part, list)), None)
        return unpack(self._partition, others[-1], aborted, offset, stable)
