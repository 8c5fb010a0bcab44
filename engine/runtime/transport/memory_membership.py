"""A transport's membership in a consumer group: join, heartbeat, let go, join again.

    join_group ─► wait for the others ─► sync_group ─► on_assigned ─► heartbeats … "rebalance" ─► on_revoked ─┐
        ▲                                                              (they go on during on_revoked)         │
        └─────────────────────────────────────────────────────────────────────────────────────────────────────┘

A member that cannot reach the broker keeps its partitions until it hears otherwise: meanwhile the group may have given them
away. Only the epoch of the producers keeps such a zombie from writing.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from engine.errors import UnavailableError
from engine.records import TopicPartition
from engine.runtime.assignor import AssignmentData, MemberData, WorkerAddress
from engine.runtime.clock import Clock
from engine.runtime.transport.memory_connection import Connection
from engine.runtime.transport.memory_group import Assignment, Group, Heartbeat, UnknownMemberError
from engine.runtime.transport.protocol import RebalanceListener

RETRY_S = 0.1
LEAVE_S = 1.0


@dataclass(frozen=True, slots=True)
class GroupTimes:
    """How a member keeps in touch with its group; Kafka's names, in seconds."""

    session_timeout_s: float = 10.0
    heartbeat_interval_s: float = 2.0
    rebalance_timeout_s: float = 15.0


class Membership:
    """One member of one group.

    Args:
        hold: Called with the partitions that may be fetched from now on: at an assignment, and with none at a revocation.
        stored: Asked at each join for the partition numbers whose store lies on this worker's disk.
        standbys: How many copies of each task other members shall keep.
        address: Where this worker's pages are, for the others to know.

    Attributes:
        partitions: What the member owns as far as it knows.
        told: What came with the latest assignment: what to keep copies of, and where the others are.
        confirmed_s: When the last request was made that the group answered as to a member in good standing.
    """

    def __init__(
        self,
        connection: Connection,
        group: Group,
        topics: Iterable[str],
        listener: RebalanceListener,
        *,
        times: GroupTimes,
        clock: Clock,
        hold: Callable[[frozenset[TopicPartition]], None],
        stored: Callable[[], Iterable[int]],
        standbys: int = 0,
        address: WorkerAddress | None = None,
    ) -> None:
        self.partitions: frozenset[TopicPartition] = frozenset()
        self.confirmed_s = float("-inf")
        self._connection = connection
        self._group = group
        self._topics = frozenset(topics)
        self._listener = listener
        self._times = times
        self._clock = clock
        self._hold = hold
        self._stored = stored
        self._standbys = standbys
        self._address = address
        self.told = AssignmentData()
        self._member_id = ""
        self._owned = Assignment(-1, frozenset())
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to join."""
        self._running = asyncio.create_task(self._run(), name=f"membership {self._connection.client_id}")

    def check(self) -> None:
        """Raise what ended the membership, such as an error of the listener."""
        if self._running is not None and self._running.done() and not self._running.cancelled():
            self._running.result()

    async def stop(self) -> None:
        """Leave the group at once; the listener is told nothing."""
        if self._running is None:
            return
        self._running.cancel()
        await asyncio.wait([self._running])
        self._hold(frozenset())
        self.partitions = frozenset()
        with contextlib.suppress(UnavailableError, TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                now_s = self._group_now_s
                await self._connection.call("leave_group", lambda: self._group.leave(self._member_id, now_s=now_s()))

    async def _run(self) -> None:
        while True:
            assignment = await self._join()
            self._owned = assignment
            self.partitions = assignment.partitions
            self.told = assignment.told
            self._hold(assignment.partitions)
            await self._listener.on_assigned(assignment.partitions)
            await self._stay(assignment)

    async def _join(self) -> Assignment:
        """Join until it works; return what the member got."""
        while True:
            try:
                await self._connection.call("join_group", self._join_group)
                await self._wait_for_others()
                sent_s = self._clock.monotonic_s()
                answer = await self._connection.call("sync_group", lambda: self._group.answer(self._member_id))
            except UnknownMemberError:
                self._member_id = ""
            except UnavailableError:
                await asyncio.sleep(RETRY_S)
            else:
                if answer is not None:
                    self.confirmed_s = sent_s
                    return answer

    def _join_group(self) -> None:
        owned = tuple(sorted({partition.partition for partition in self._owned.partitions}))
        data = MemberData(self._owned.generation, owned, tuple(sorted(set(self._stored()))), self._standbys, self._address)
        self._member_id = self._member_id or self._group.new_member_id(self._connection.client_id)
        self._group.join(
            self._member_id,
            self._topics,
            data,
            session_timeout_s=self._times.session_timeout_s,
            rebalance_timeout_s=self._times.rebalance_timeout_s,
            now_s=self._group_now_s(),
        )

    async def _wait_for_others(self) -> None:
        """Return when the rebalance is complete, which may need others to be thrown out when their time is up."""
        while True:
            seen = self._group.changed.count
            self._group.expire(self._group_now_s())
            if self._group.answer(self._member_id) is not None:
                return
            await self._group.changed.wait(seen, self._group.deadline_s - self._group_now_s())

    async def _stay(self, assignment: Assignment) -> None:
        """Keep the membership until the next rebalance, then let everything go."""
        told = asyncio.Event()
        beating = asyncio.create_task(self._beat(assignment.generation, told), name=f"heartbeat {self._connection.client_id}")
        try:
            await told.wait()
            self._hold(frozenset())
            if self.partitions:
                await self._listener.on_revoked(self.partitions)
            self.partitions = frozenset()
        finally:
            beating.cancel()
            await asyncio.wait([beating])
        if not beating.cancelled():
            beating.result()

    async def _beat(self, generation: int, told: asyncio.Event) -> None:
        """Send heartbeats, set `told` when the member must join again; go on with it until cancelled or thrown out."""
        try:
            while True:
                seen = self._group.changed.count
                sent_s = self._clock.monotonic_s()
                try:
                    answer = await self._connection.call("heartbeat", lambda: self._heartbeat(generation))
                except UnavailableError:
                    await asyncio.sleep(RETRY_S)
                    continue
                if answer is Heartbeat.OK:
                    self.confirmed_s = sent_s
                else:
                    told.set()
                await self._group.changed.wait(seen, self._times.heartbeat_interval_s)
        except UnknownMemberError:
            self._member_id = ""
        finally:
            told.set()

    def _heartbeat(self, generation: int) -> Heartbeat:
        return self._group.heartbeat(self._member_id, generation, now_s=self._group_now_s())

    def _group_now_s(self) -> float:
        return self._connection.broker.clock.monotonic_s()
