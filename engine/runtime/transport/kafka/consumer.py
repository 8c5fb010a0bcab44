"""The group's consumer: aiokafka's, with columns instead of records, and with what it knows but does not tell.

Three hooks, each put on one object after `start`, because aiokafka offers no other way:

- `Fetcher._proc_fetch_request`: every fetch answer, also an empty one, is noted as a `FetchState`. An answer that holds records
  says position < high watermark; once they are consumed, the next answer, an empty one, says that the end is reached.
- `GroupCoordinator._send_req`: a heartbeat or a sync that succeeds confirms the membership *as of the moment it was sent*. A
  process that was stopped in between must not believe an old answer that waited in its socket.
- the drain of `Fetcher._records` instead of `getmany`.

A partition whose assignment just arrived is paused, with a position of its own, before anybody is told: aiokafka would otherwise
look for a committed offset and begin to fetch.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.protocol.group import HeartbeatRequest, SyncGroupRequest
from aiokafka.structs import TopicPartition as DriverPartition

from engine.errors import StateError
from engine.records import RecordBatch, TopicPartition
from engine.runtime.assignor import WorkerAddress
from engine.runtime.transport.kafka.assignor import GroupAssignor
from engine.runtime.transport.kafka.columns import drain
from engine.runtime.transport.kafka.settings import KafkaSettings
from engine.runtime.transport.protocol import FetchState, RebalanceListener

_FETCH_WAIT_MS = 100
_FETCH_ANSWER_BYTES = 16 << 20


class GroupConsumer(AIOKafkaConsumer):  # type: ignore[misc]
    """A member of the group that hands out columns.

    Args:
        stored: Partition numbers whose store lies on this worker's disk, asked at each join.
        standbys: How many copies of each task there shall be.
        address: Where this worker's pages are, for the others to know.
    """

    def __init__(
        self, settings: KafkaSettings, stored: Callable[[], Iterable[int]], standbys: int = 0, address: WorkerAddress | None = None
    ) -> None:
        self.assignor = GroupAssignor(stored, lambda: int(self._coordinator.generation), standbys, address)
        super().__init__(
            **settings.client_arguments(),
            group_id=settings.group,
            group_instance_id=settings.instance_id,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="none",
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            fetch_max_bytes=_FETCH_ANSWER_BYTES,
            max_partition_fetch_bytes=settings.fetch_bytes,
            request_timeout_ms=settings.rebalance_timeout_ms + settings.request_timeout_ms,  # a join waits for the others
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=max(100, settings.session_timeout_ms // 10),
            rebalance_timeout_ms=settings.rebalance_timeout_ms,
            metadata_max_age_ms=30_000,
            partition_assignment_strategy=[self.assignor],
        )
        self.confirmed_s = float("-inf")
        self.fetch_states: dict[TopicPartition, FetchState] = {}
        self._listener_failure: BaseException | None = None

    async def start(self) -> None:
        """Connect, and put the hooks in."""
        await super().start()
        fetcher, coordinator = self._fetcher, self._coordinator
        self._fetch = fetcher._proc_fetch_request
        fetcher._proc_fetch_request = self._note_fetch
        self._send = coordinator._send_req
        coordinator._send_req = self._note_membership

    def join(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        """Subscribe; the listener hears of every assignment from now on."""
        self.subscribe(list(topics), listener=_ListenerBridge(self, listener))

    async def columns(self, timeout_s: float) -> list[RecordBatch]:
        """Return what has been fetched of unpaused partitions, at most one batch each; [] after the timeout.

        Raises:
            StateError: A position lies outside the log; the partition is paused.
            KafkaError: The membership or the fetching ended with an error.
        """
        fetcher = self._fetcher
        deadline = time.monotonic() + timeout_s
        while True:
            self._check()
            with self._subscription.fetch_context():  # tells aiokafka that somebody consumes, else it leaves the group
                batches = [] if self._subscription.reassignment_in_progress else self._drain()
            remaining_s = deadline - time.monotonic()
            if batches or remaining_s <= 0:
                return batches
            waiter = fetcher._create_fetch_waiter()
            done, _ = await asyncio.wait([waiter], timeout=remaining_s)
            if not done:
                waiter.cancel()
                return []
            waiter.result()

    def pause_assigned(self, partitions: Iterable[TopicPartition]) -> None:
        """Pause partitions, skipping those that are not this member's any more."""
        for partition in self._mine(partitions):
            self.fetch_states.pop(partition, None)
            self.pause(_driver(partition))

    def resume_assigned(self, partitions: Iterable[TopicPartition]) -> None:
        """Resume partitions, skipping those that are not this member's any more."""
        for partition in self._mine(partitions):
            self.fetch_states.pop(partition, None)
            self.resume(_driver(partition))

    def seek_assigned(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Move positions, skipping partitions that are not this member's any more; what was fetched before is dropped."""
        for partition in self._mine(offsets):
            self.fetch_states.pop(partition, None)
            self.seek(_driver(partition), offsets[partition])

    def hold(self, partitions: Iterable[TopicPartition]) -> None:
        """Pause what was just assigned, at a position of its own, so that nothing is looked up or fetched."""
        self.fetch_states.clear()
        for partition in partitions:
            self.pause(_driver(partition))
            self._subscription.seek(_driver(partition), 0)

    def fail(self, failure: BaseException) -> None:
        """Let the next `columns` raise what a listener raised: aiokafka would only log it."""
        self._listener_failure = self._listener_failure or failure

    async def abandon(self) -> None:
        """End what `stop` could not end in time: tasks that still wait for the broker, and the connections."""
        tasks = [self._coordinator and self._coordinator._coordination_task, self._fetcher and self._fetcher._fetch_task]
        left = [task for task in tasks if task is not None and not task.done()]
        if not left:
            return
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=1.0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._client.close()

    def _mine(self, partitions: Iterable[TopicPartition]) -> list[TopicPartition]:
        assigned = self.assignment()
        return [partition for partition in partitions if partition in assigned]

    def _check(self) -> None:
        failure, self._listener_failure = self._listener_failure, None
        if failure is not None:
            raise failure
        self._coordinator.check_errors()
        if self._fetcher.error_future.done():
            self._fetcher.error_future.result()
            raise KafkaError("fetching ended")

    def _drain(self) -> list[RecordBatch]:
        fetcher = self._fetcher
        batches: list[RecordBatch] = []
        for tp in list(fetcher._records):
            result = fetcher._records[tp]
            if type(result) is not FetchResult:
                if batches:
                    break  # its turn comes with the next call
                del fetcher._records[tp]
                self._raise_fetch_error(result)
            del fetcher._records[tp]
            if result.check_assignment(tp) and result.has_more():
                state = result._assignment.state_value(tp)
                batches.append(drain(result._partition_records, -1 if state.lso is None else state.lso))
                result._update_position()
        fetcher._notify(fetcher._wait_consume_future)
        return batches

    def _raise_fetch_error(self, result: Any) -> None:
        try:
            result.check_raise()
        except OffsetOutOfRangeError as error:
            (tp, offset), *_ = error.args[0].items()
            self.pause_assigned([TopicPartition(*tp)])
            raise StateError(
                f"{tp.topic}[{tp.partition}]: offset {offset} is outside the log: its records were deleted before they were read"
            ) from error

    async def _note_fetch(self, assignment: Any, node_id: int, request: Any) -> Any:
        """Fetch, and note for each partition what the answer said; an error, or no answer, unsays what was known."""
        asked = [(TopicPartition(topic, partition), offset) for topic, partitions in request.topics for partition, offset, _ in partitions]
        states = [(partition, offset, assignment.state_value(_driver(partition))) for partition, offset in asked]
        for _, _, state in states:
            state.timestamp = None
        woke = await self._fetch(assignment, node_id, request)
        received_s = time.monotonic()
        for partition, offset, state in states:
            if state.timestamp is None or state.paused or not assignment.active:
                self.fetch_states.pop(partition, None)
            else:
                self.fetch_states[partition] = FetchState(offset, state.highwater, received_s)
        return woke

    async def _note_membership(self, request: Any) -> Any:
        sent_s = time.monotonic()
        response = await self._send(request)
        if isinstance(request, HeartbeatRequest | SyncGroupRequest) and response.error_code == 0:
            self.confirmed_s = max(self.confirmed_s, sent_s)
        return response


class _ListenerBridge(ConsumerRebalanceListener):  # type: ignore[misc]
    """aiokafka's listener in front of ours: own types, paused partitions, and failures that reach the poll loop."""

    def __init__(self, consumer: GroupConsumer, listener: RebalanceListener) -> None:
        self._consumer = consumer
        self._listener = listener

    async def on_partitions_revoked(self, revoked: Iterable[DriverPartition]) -> None:
        partitions = _ours(revoked)
        self._consumer.fetch_states.clear()
        if not partitions:
            return
        try:
            await self._listener.on_revoked(partitions)
        except Exception as error:  # noqa: BLE001 - the poll loop raises it
            self._consumer.fail(error)

    async def on_partitions_assigned(self, assigned: Iterable[DriverPartition]) -> None:
        partitions = _ours(assigned)
        self._consumer.hold(partitions)
        try:
            await self._listener.on_assigned(partitions)
        except Exception as error:  # noqa: BLE001 - the poll loop raises it
            self._consumer.fail(error)


def _ours(partitions: Iterable[DriverPartition]) -> frozenset[TopicPartition]:
    return frozenset(TopicPartition(*partition) for partition in partitions)


def _driver(partition: TopicPartition) -> DriverPartition:
    return DriverPartition(partition.topic, partition.partition)
