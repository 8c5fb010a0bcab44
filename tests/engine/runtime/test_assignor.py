"""The assignor: complete, balanced, sticky, and the same wherever it is worked out."""

from collections.abc import Mapping

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from engine.records import TopicPartition
from engine.runtime.assignor import AssignmentData, Member, MemberData, WorkerAddress, assign, share, tell

NAMES = st.sampled_from("abcdefgh")
CLAIMS = st.builds(
    MemberData,
    generation=st.integers(-1, 3),
    owned=st.lists(st.integers(0, 25), max_size=12).map(tuple),
    stored=st.lists(st.integers(0, 25), max_size=12).map(tuple),
)
GROUPS = st.dictionaries(NAMES, CLAIMS, min_size=1)


def owned_now(shares: Mapping[str, list[int]], generation: int = 1) -> dict[str, MemberData]:
    """Return what the members tell at the next join, when all of them stayed."""
    return {name: MemberData(generation, tuple(given), tuple(given)) for name, given in shares.items()}


def moved(before: Mapping[str, list[int]], after: Mapping[str, list[int]]) -> int:
    """Return how many numbers changed from one living member to another."""
    owner = {number: name for name, given in after.items() for number in given}
    return sum(owner[number] != name for name, given in before.items() if name in after for number in given)


@given(GROUPS, st.integers(0, 25))
def test_share_of_any_claims_is_complete_and_balanced(members: dict[str, MemberData], numbers: int) -> None:
    shares = share(members, numbers)
    assert sorted(number for given in shares.values() for number in given) == list(range(numbers))
    sizes = {len(shares[name]) for name in members}
    assert max(sizes) - min(sizes) <= 1


@given(GROUPS, st.integers(0, 25), st.randoms(use_true_random=False))
def test_share_does_not_depend_on_the_order_of_members(members: dict[str, MemberData], numbers: int, random: object) -> None:
    names = sorted(members)
    random.shuffle(names)  # type: ignore[attr-defined]  # a random.Random; hypothesis types it loosely
    assert share({name: members[name] for name in names}, numbers) == share(members, numbers)


@given(st.sets(NAMES, min_size=1), st.integers(0, 25))
def test_share_with_nothing_changed_moves_nothing(names: set[str], numbers: int) -> None:
    before = share({name: MemberData() for name in names}, numbers)
    assert share(owned_now(before), numbers) == before


@given(st.sets(NAMES, min_size=1), st.integers(0, 25))
def test_share_when_a_member_joins_moves_only_its_share(names: set[str], numbers: int) -> None:
    before = share({name: MemberData() for name in names}, numbers)
    after = share({**owned_now(before), "new": MemberData()}, numbers)
    assert moved(before, after) == len(after["new"])


@given(st.sets(NAMES, min_size=2), st.integers(0, 25), st.data())
def test_share_when_a_member_leaves_moves_nothing_between_the_others(names: set[str], numbers: int, data: st.DataObject) -> None:
    before = share({name: MemberData() for name in names}, numbers)
    gone = data.draw(st.sampled_from(sorted(names)))
    after = share({name: kept for name, kept in owned_now(before).items() if name != gone}, numbers)
    assert moved(before, after) == 0


@given(st.sets(NAMES, min_size=1), st.integers(0, 25))
def test_share_after_all_restarted_under_new_names_follows_the_disks(names: set[str], numbers: int) -> None:
    before = share({name: MemberData() for name in names}, numbers)
    after = share({f"new-{name}": MemberData(stored=tuple(given)) for name, given in before.items()}, numbers)
    assert after == {f"new-{name}": given for name, given in before.items()}


def test_share_gives_up_first_what_the_new_member_has_on_disk() -> None:
    members = {"a": MemberData(1, (0, 1, 2, 3, 4, 5, 6), ()), "b": MemberData(stored=(3, 6))}
    assert share(members, 7) == {"a": [0, 1, 2, 4], "b": [3, 5, 6]}


def test_share_gives_stored_numbers_along_augmenting_paths() -> None:
    # Whoever takes 0 first, a must end with 1 and b with 0: only so is every number where its store is.
    members = {"a": MemberData(stored=(0, 1)), "b": MemberData(stored=(0,))}
    assert share(members, 2) == {"a": [1], "b": [0]}


def test_share_gives_the_odd_number_to_the_fuller_disk() -> None:
    members = {"a": MemberData(stored=(0, 1)), "b": MemberData(stored=(2, 3, 4))}
    assert share(members, 5) == {"a": [0, 1], "b": [2, 3, 4]}


def test_share_with_a_number_claimed_twice_believes_the_later_generation() -> None:
    members = {"a": MemberData(4, (0, 1)), "b": MemberData(5, (0, 1, 2, 3)), "c": MemberData(4, (2, 3))}
    shares = share(members, 4)
    assert set(shares["b"]) <= {0, 1, 2, 3}
    assert len(shares["b"]) == 2


def test_share_of_fewer_numbers_than_members_leaves_some_without() -> None:
    assert share({name: MemberData() for name in "abc"}, 2) == {"a": [0], "b": [1], "c": []}


def test_assign_keeps_the_partitions_of_a_number_together() -> None:
    members = {name: Member(frozenset({"orders", "users"}), MemberData()) for name in "ab"}
    given = assign(members, {"orders": 3, "users": 2, "unasked": 9})
    assert given["a"] == {TopicPartition(topic, number) for topic in ("orders", "users") for number in (0, 1)}
    assert given["b"] == {TopicPartition("orders", 2)}


def test_assign_with_a_member_that_subscribes_to_nothing_known_gives_it_nothing() -> None:
    members = {"a": Member(frozenset({"orders"}), MemberData()), "b": Member(frozenset({"missing"}), MemberData(1, (0,)))}
    assert assign(members, {"orders": 2}) == {"a": {TopicPartition("orders", 0), TopicPartition("orders", 1)}, "b": frozenset()}


@given(CLAIMS)
def test_member_data_encoded_comes_back(data: MemberData) -> None:
    assert MemberData.decode(data.encode()) == data


def test_member_data_of_an_unknown_version_counts_as_new() -> None:
    raw = MemberData(3, (1, 2), (1,)).encode()
    assert MemberData.decode(b"\x02" + raw[1:]) == MemberData()
    assert MemberData.decode(raw[:-1]) == MemberData()
    assert MemberData.decode(b"") == MemberData()


def test_tell_says_to_all_members_which_numbers_are_where() -> None:
    here, there = WorkerAddress("http://10.0.0.7:6066", "node-7"), WorkerAddress("http://127.0.0.1:6067", "node-8")
    data = {"a": MemberData(1, (0, 2), address=here), "b": MemberData(1, (1, 3), standbys=1, address=there), "c": MemberData(1, (4,))}
    members = {name: Member(frozenset({"clicks"}), of_member) for name, of_member in data.items()}
    told = tell(members, assign(members, {"clicks": 5}))
    assert [told["c"].worker_of(number) for number in range(6)] == [here, there, here, there, None, None]
    assert told["a"].workers == told["b"].workers == told["c"].workers
    assert [told[name].standby_numbers for name in "abc"] == [(), (0, 2, 4), ()]


def test_member_data_of_before_there_were_addresses_is_read() -> None:
    before = b"\x01" + msgspec.msgpack.encode((3, (0, 1), (0, 1, 2), 1))
    assert MemberData.decode(before) == MemberData(3, (0, 1), (0, 1, 2), 1, None)
    assert MemberData.decode(MemberData(address=WorkerAddress("u", "h")).encode()).address == WorkerAddress("u", "h")


def test_assignment_data_survives_the_wire_and_foreign_bytes_tell_nothing() -> None:
    data = AssignmentData((1, 3), ((WorkerAddress("http://h:1", "h"), (0, 2)),))
    assert AssignmentData.decode(data.encode()) == data
    assert AssignmentData.decode(b"\x01" + msgspec.msgpack.encode([1, 3])) == AssignmentData((1, 3)), "numbers alone, as in version 1"
    for raw in (b"", b"\x03zz", b"\x01\xc1", b"\x02\xc1", b"\x02" + msgspec.msgpack.encode(7)):
        assert AssignmentData.decode(raw) == AssignmentData()
