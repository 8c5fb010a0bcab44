"""Which worker gets which partition numbers: balanced, sticky, and the same wherever it is worked out.

What is shared out is partition *numbers*, not partitions: number 3 is partition 3 of every topic of the group, since one task
works on all of them with one state. Each worker tells the group what it owned and which stores lie on its disk (`MemberData`,
carried as Kafka's user data), so that a number stays where its state is. With its share each worker also learns where the others are
(`AssignmentData`), so that it can say whom to ask about a key that it does not have.

    seven numbers; a owns them all, b joins with stores of 3 and 6 on its disk   →   a: 0 1 2 4   b: 3 5 6

Three rounds, each in a fixed order, so that equal input gives equal output:

1. every owner keeps its numbers, up to its fair share; a number claimed twice belongs to the claim of the later generation;
2. free numbers go to members that have a store of them (a maximum matching, so that as few as possible are rebuilt);
3. the rest fills up the members with the fewest.

Limits: members of a group that subscribe to different topics (a rolling upgrade) still share numbers, not topics: a topic that
the owner of a number does not know waits until the number moves on.

Sources: KIP-54 (sticky assignment), KIP-341 (claims carry a generation), KIP-441 (state before balance of restores); Kuhn,
"The Hungarian method", 1955, for the augmenting paths.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from engine.records import TopicPartition

_VERSION = b"\x01"
_ASSIGNMENT_VERSION = b"\x02"


class WorkerAddress(msgspec.Struct, frozen=True, array_like=True):
    """Where the pages of a worker are.

    Attributes:
        url: Its web server, "http://10.0.0.7:6066"; of one that only its own machine can reach, the address there.
        host: Name of its machine.
    """

    url: str
    host: str


class MemberData(msgspec.Struct, frozen=True, array_like=True):
    """What a member tells about itself when it joins.

    Attributes:
        generation: Group generation in which it owned `owned`; -1 for never.
        owned: Partition numbers that it had last.
        stored: Numbers whose store lies on its disk, whether it owned them lately or not.
        standbys: How many copies of each task it wants there to be beside the task itself; with any, it keeps copies of others.
        address: Where its pages are; None if it has none.
    """

    generation: int = -1
    owned: tuple[int, ...] = ()
    stored: tuple[int, ...] = ()
    standbys: int = 0
    address: WorkerAddress | None = None

    def encode(self) -> bytes:
        """Return the bytes to send as the member's user data: a version byte, then MessagePack."""
        return _VERSION + msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, raw: bytes) -> "MemberData":
        """Read user data. Bytes of another version tell nothing: the member counts as new, which costs restores at worst."""
        if raw[:1] != _VERSION:
            return cls()
        try:
            return msgspec.msgpack.decode(raw[1:], type=cls)
        except msgspec.DecodeError:
            return cls()


@dataclass(frozen=True, slots=True)
class Member:
    """A group member: the topics it subscribes to, and what it told about itself."""

    topics: frozenset[str]
    data: MemberData


def assign(members: Mapping[str, Member], partition_counts: Mapping[str, int]) -> dict[str, frozenset[TopicPartition]]:
    """Share all partitions out to the members of a group.

    Args:
        members: By member id.
        partition_counts: Number of partitions of each topic that exists; other topics are left out.
    Returns:
        Partitions of every member, none for a member that subscribes to nothing that exists.
    """
    taking_part = {name: member for name, member in members.items() if not member.topics.isdisjoint(partition_counts)}
    counts = [partition_counts[topic] for member in taking_part.values() for topic in member.topics if topic in partition_counts]
    shares = share({name: member.data for name, member in taking_part.items()}, max(counts, default=0))
    return {
        name: frozenset(
            TopicPartition(topic, number)
            for topic in member.topics
            for number in shares.get(name, ())
            if number < partition_counts.get(topic, 0)
        )
        for name, member in members.items()
    }


def assign_standbys(members: Mapping[str, Member], assigned: Mapping[str, frozenset[TopicPartition]]) -> dict[str, list[int]]:
    """Return the numbers that each member keeps a copy of: never of its own, evenly, and rather where a store of them is already.

    Args:
        assigned: What `assign` gave.
    """
    owned = {name: {partition.partition for partition in partitions} for name, partitions in assigned.items()}
    keepers = [name for name in sorted(members) if members[name].data.standbys > 0]
    copies: dict[str, list[int]] = {name: [] for name in members}
    wanted = max((members[name].data.standbys for name in keepers), default=0)
    numbers = sorted(set().union(*owned.values())) if wanted else []
    most = -(-len(numbers) * wanted // max(len(keepers), 1))
    for number in numbers:
        others = [name for name in keepers if number not in owned[name]]
        stored = {name for name in others if number in members[name].data.stored}
        others.sort(key=lambda name: (len(copies[name]) >= most, name not in stored, len(copies[name]), name))
        for name in others[:wanted]:
            copies[name].append(number)
    return copies


class AssignmentData(msgspec.Struct, frozen=True, array_like=True):
    """What a member is told beside its partitions.

    Attributes:
        standby_numbers: What it keeps copies of.
        workers: Which numbers are where, by address; those of members without an address are left out.
    """

    standby_numbers: tuple[int, ...] = ()
    workers: tuple[tuple[WorkerAddress, tuple[int, ...]], ...] = ()

    def encode(self) -> bytes:
        """Return the bytes to send as the user data of an assignment: a version byte, then MessagePack."""
        return _ASSIGNMENT_VERSION + msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, raw: bytes) -> "AssignmentData":
        """Read user data. Version 1 was the numbers alone; bytes of another version, or none, tell nothing."""
        try:
            if raw[:1] == _VERSION:
                return cls(msgspec.msgpack.decode(raw[1:], type=tuple[int, ...]))
            return msgspec.msgpack.decode(raw[1:], type=cls) if raw[:1] == _ASSIGNMENT_VERSION else cls()
        except msgspec.DecodeError:
            return cls()

    def worker_of(self, number: int) -> WorkerAddress | None:
        """Return where a number is, None if that is not known."""
        return next((address for address, numbers in self.workers if number in numbers), None)


def tell(members: Mapping[str, Member], assigned: Mapping[str, frozenset[TopicPartition]]) -> dict[str, AssignmentData]:
    """Return what each member is told when partitions are shared out as `assign` did."""
    copies = assign_standbys(members, assigned)
    workers = []
    for name in sorted(assigned):
        address, numbers = members[name].data.address, sorted({partition.partition for partition in assigned[name]})
        if address is not None and numbers:
            workers.append((address, tuple(numbers)))
    return {name: AssignmentData(tuple(sorted(copies[name])), tuple(workers)) for name in members}


def share(members: Mapping[str, MemberData], numbers: int) -> dict[str, list[int]]:
    """Share the numbers 0 to `numbers` - 1 out; sizes differ by at most one.

    Returns:
        Numbers of each member, ascending.
    """
    if not members:
        return {}
    owners = _owners(members, numbers)
    claims: dict[str, list[int]] = {name: [] for name in sorted(members)}
    for number, owner in sorted(owners.items()):
        claims[owner].append(number)
    quotas = _quotas(claims, members, numbers)
    holders = _holders(members, numbers)
    shares = {name: _keep(name, claimed, quotas[name], holders) for name, claimed in claims.items()}
    free = sorted(set(range(numbers)).difference(*shares.values()))
    taken = _match(free, holders, {name: quotas[name] - len(shares[name]) for name in claims})
    for number, name in taken.items():
        shares[name].append(number)
    for number in free:
        if number not in taken:
            least = min(claims, key=lambda name: (len(shares[name]) - quotas[name], name))
            shares[least].append(number)
    return {name: sorted(given) for name, given in shares.items()}


def _owners(members: Mapping[str, MemberData], numbers: int) -> dict[int, str]:
    """Return who owned each number, by the claim of the latest generation."""
    owners: dict[int, str] = {}
    for name in sorted(members, key=lambda name: (-members[name].generation, name)):
        for number in members[name].owned:
            if 0 <= number < numbers:
                owners.setdefault(number, name)
    return owners


def _quotas(claims: Mapping[str, list[int]], members: Mapping[str, MemberData], numbers: int) -> dict[str, int]:
    """Return how many numbers each member gets; the odd ones go to those that would have to give one up, then to full disks."""
    least, extra = divmod(numbers, len(claims))
    ranked = sorted(claims, key=lambda name: (len(claims[name]) <= least, -len(members[name].stored), name))
    return {name: least + (rank < extra) for rank, name in enumerate(ranked)}


def _holders(members: Mapping[str, MemberData], numbers: int) -> dict[int, list[str]]:
    """Return the members that have a store of each number, in order of their names."""
    holders: dict[int, list[str]] = {number: [] for number in range(numbers)}
    for name in sorted(members):
        for number in sorted(set(members[name].stored)):
            if number in holders:
                holders[number].append(name)
    return holders


def _keep(name: str, claimed: list[int], quota: int, holders: Mapping[int, list[str]]) -> list[int]:
    """Return what an owner keeps; it gives up first what others have a store of, then the highest numbers."""
    reluctance = sorted(claimed, key=lambda number: (any(holder != name for holder in holders[number]), number))
    return reluctance[:quota]


def _match(free: list[int], holders: Mapping[int, list[str]], room: dict[str, int]) -> dict[int, str]:
    """Give as many free numbers as possible to members that have a store of them (augmenting paths)."""
    taken: dict[int, str] = {}

    def place(number: int, tried: set[str]) -> bool:
        for name in holders[number]:
            if name in tried:
                continue
            tried.add(name)
            mine = [other for other, holder in taken.items() if holder == name]
            if len(mine) < room[name] or any(place(other, tried) for other in mine):
                taken[number] = name
                return True
        return False

    for number in free:
        place(number, set())
    return taken
