"""The group coordinator of the memory broker: one consumer group, with Kafka's classic protocol and eager rebalances.

    STABLE ──join, leave, silence──► JOINING ──all members have joined, or the time is up──► STABLE, generation + 1
                                        members that have joined wait; the others learn of it by their heartbeats

The coordinator is a plain state machine: every call gets the time, nothing waits here. `changed` tells those who wait outside.
Differences from Kafka: the coordinator itself shares the partitions out (there the first member does), with the same assignor,
and a member is woken when a rebalance begins (there it has to wait for its next heartbeat).

Sources: KIP-62 (session and rebalance time-outs), KIP-394 (a member has its id before it joins), KIP-54.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum

from engine.errors import StreamForgeError
from engine.records import TopicPartition
from engine.runtime.assignor import AssignmentData, Member, MemberData, assign, tell
from engine.runtime.transport.memory_signal import Signal


class UnknownMemberError(StreamForgeError):
    """The group does not know the member (any more): it must join anew, under a new id."""


class Heartbeat(Enum):
    """Answer to a heartbeat of a known member."""

    OK = "ok"
    REJOIN = "rejoin"


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a member gets when a rebalance is complete."""

    generation: int
    partitions: frozenset[TopicPartition]
    told: AssignmentData = field(default_factory=AssignmentData)


@dataclass(slots=True)
class _Joined:
    member: Member
    session_timeout_s: float
    rebalance_timeout_s: float
    heard_s: float
    is_waiting: bool = True
    answer: Assignment | None = None

    @property
    def expires_s(self) -> float:
        return float("inf") if self.is_waiting else self.heard_s + self.session_timeout_s


class Group:
    """One consumer group: members, generation, committed offsets.

    Args:
        partition_counts: Returns the number of partitions of those of the given topics that exist.
    """

    def __init__(self, partition_counts: Callable[[Collection[str]], Mapping[str, int]]) -> None:
        self.offsets: dict[TopicPartition, int] = {}
        self.generation = 0
        self.changed = Signal()
        self._partition_counts = partition_counts
        self._members: dict[str, _Joined] = {}
        self._ids = 0
        self._join_deadline_s: float | None = None

    @property
    def members(self) -> list[str]:
        """Ids of the members, in the order in which they came."""
        return list(self._members)

    @property
    def deadline_s(self) -> float:
        """When `expire` has something to do next if nothing else happens."""
        join_s = float("inf") if self._join_deadline_s is None else self._join_deadline_s
        return min([join_s, *(joined.expires_s for joined in self._members.values())])

    def new_member_id(self, client_id: str) -> str:
        """Return an id for a new member, which is to join with it."""
        self._ids += 1
        return f"{client_id}-{self._ids}"

    def join(
        self,
        member_id: str,
        topics: Collection[str],
        data: MemberData,
        *,
        session_timeout_s: float,
        rebalance_timeout_s: float,
        now_s: float,
    ) -> None:
        """Join, or join again: a rebalance begins or goes on, and the member waits for its `answer`."""
        member = Member(frozenset(topics), data)
        if self._join_deadline_s is None:
            self._begin(now_s, rebalance_timeout_s)
        self._members[member_id] = _Joined(member, session_timeout_s, rebalance_timeout_s, now_s)
        self._complete_if_all_wait(now_s)

    def answer(self, member_id: str) -> Assignment | None:
        """Return what a waiting member got, None while the rebalance is under way.

        Raises:
            UnknownMemberError: It was thrown out meanwhile.
        """
        return self._known(member_id).answer

    def heartbeat(self, member_id: str, generation: int, *, now_s: float) -> Heartbeat:
        """Note that a member lives.

        Raises:
            UnknownMemberError: It was thrown out, or speaks of another generation.
        """
        joined = self._known(member_id)
        if joined.answer is not None and joined.answer.generation != generation:
            raise UnknownMemberError(f"member {member_id} speaks of generation {generation}, this is {self.generation}")
        joined.heard_s = now_s
        return Heartbeat.OK if self._join_deadline_s is None else Heartbeat.REJOIN

    def leave(self, member_id: str, *, now_s: float) -> None:
        """Take a member out; the others share its partitions."""
        if self._members.pop(member_id, None) is not None:
            self._lost_members(now_s)

    def expire(self, now_s: float) -> None:
        """Throw out members that are silent for too long, or do not join a rebalance in time."""
        if now_s < self.deadline_s:
            return
        join_is_over = self._join_deadline_s is not None and now_s >= self._join_deadline_s
        gone = [name for name, joined in self._members.items() if now_s >= joined.expires_s or (join_is_over and not joined.is_waiting)]
        for name in gone:
            del self._members[name]
        self._lost_members(now_s)

    def _known(self, member_id: str) -> _Joined:
        if member_id not in self._members:
            raise UnknownMemberError(f"member {member_id} is not in the group")
        return self._members[member_id]

    def _begin(self, now_s: float, timeout_s: float) -> None:
        for joined in self._members.values():
            joined.is_waiting = False
        timeouts_s = [joined.rebalance_timeout_s for joined in self._members.values()]
        self._join_deadline_s = now_s + max([timeout_s, *timeouts_s])
        self.changed.notify()

    def _lost_members(self, now_s: float) -> None:
        if self._join_deadline_s is None and self._members:
            self._begin(now_s, 0.0)
        self._complete_if_all_wait(now_s)

    def _complete_if_all_wait(self, now_s: float) -> None:
        if not all(joined.is_waiting for joined in self._members.values()):
            return
        self._join_deadline_s = None
        self.generation += 1
        members = {name: joined.member for name, joined in self._members.items()}
        counts = self._partition_counts({topic for member in members.values() for topic in member.topics})
        shares = assign(members, counts)
        told = tell(members, shares)
        for name, partitions in shares.items():
            joined = self._members[name]
            joined.answer = Assignment(self.generation, partitions, told[name])
            joined.is_waiting = False
            joined.heard_s = now_s
        self.changed.notify()
