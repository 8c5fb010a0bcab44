"""Our assignor, as aiokafka's group protocol wants it; what it decides is in `engine.runtime.assignor`."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from engine.runtime.assignor import AssignmentData, Member, MemberData, WorkerAddress, assign, tell

PROTOCOL_VERSION = 0


class GroupAssignor(AbstractPartitionAssignor):  # type: ignore[misc]
    """One member's side of the protocol; an object, not a class as in aiokafka, since it remembers what the member owns.

    Args:
        stored: Called at each join: the partition numbers whose store lies on this worker's disk.
        generation: Called when an assignment arrives: the group generation that it belongs to.
        standbys: How many copies of each task there shall be beside the task.
        address: Where this worker's pages are; the others learn it.

    Attributes:
        told: What came with the latest assignment: what to keep copies of, and where the others are.
    """

    name = "streamforge"

    def __init__(
        self, stored: Callable[[], Iterable[int]], generation: Callable[[], int], standbys: int = 0, address: WorkerAddress | None = None
    ) -> None:
        self.told = AssignmentData()
        self._standbys = standbys
        self._address = address
        self._stored = stored
        self._generation = generation
        self._owned: tuple[int, ...] = ()
        self._owned_generation = -1

    def metadata(self, topics: Iterable[str]) -> Any:
        """Return what this member tells about itself when it joins."""
        data = MemberData(self._owned_generation, self._owned, tuple(sorted(set(self._stored()))), self._standbys, self._address)
        return ConsumerProtocolMemberMetadata(PROTOCOL_VERSION, sorted(topics), data.encode())

    def assign(self, cluster: Any, members: Mapping[str, Any]) -> dict[str, Any]:
        """Share the partitions out; called on the member that leads the group."""
        known = {
            name: Member(frozenset(member.subscription), MemberData.decode(member.user_data or b"")) for name, member in members.items()
        }
        topics = {topic for member in known.values() for topic in member.topics}
        found = {topic: cluster.partitions_for_topic(topic) for topic in topics}
        shares = assign(known, {topic: len(partitions) for topic, partitions in found.items() if partitions})
        told = tell(known, shares)
        return {name: _assignment(share, told[name].encode()) for name, share in shares.items()}

    def on_assignment(self, assignment: Any) -> None:
        """Remember what this member owns now."""
        self._owned = tuple(sorted({partition.partition for partition in assignment.partitions()}))
        self._owned_generation = self._generation()
        self.told = AssignmentData.decode(assignment.user_data or b"")


def _assignment(share: Iterable[tuple[str, int]], user_data: bytes) -> Any:
    by_topic: dict[str, list[int]] = {}
    for topic, partition in sorted(share):
        by_topic.setdefault(topic, []).append(partition)
    return ConsumerProtocolMemberAssignment(PROTOCOL_VERSION, list(by_topic.items()), user_data)
