"""The group coordinator: join barrier, generations, silence, leaving."""

import pytest

from engine.records import TopicPartition
from engine.runtime.assignor import MemberData
from engine.runtime.transport.memory_group import Group, Heartbeat, UnknownMemberError


class World:
    """A group on topic orders with four partitions, and a clock."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.group = Group(lambda topics: {topic: 4 for topic in topics if topic == "orders"})

    def join(self, member: str, *owned: int, generation: int = -1) -> None:
        data = MemberData(generation, owned)
        self.group.join(member, ["orders"], data, session_timeout_s=10, rebalance_timeout_s=30, now_s=self.now_s)

    def beat(self, member: str, generation: int | None = None) -> Heartbeat:
        generation = self.group.generation if generation is None else generation
        return self.group.heartbeat(member, generation, now_s=self.now_s)

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.group.expire(self.now_s)

    def numbers(self, member: str) -> list[int] | None:
        """Return the partition numbers that a member got, None while it waits."""
        answer = self.group.answer(member)
        return None if answer is None else sorted(partition.partition for partition in answer.partitions)

    @classmethod
    def of_two(cls) -> "World":
        """Return a group in which a and b have two partitions each, generation 2."""
        world = cls()
        world.join("a")
        world.join("b")
        world.join("a", 0, 1, 2, 3, generation=1)
        return world


def test_join_of_the_first_member_gives_it_everything_at_once() -> None:
    world = World()
    world.join("a")
    answer = world.group.answer("a")
    assert answer is not None
    assert (answer.generation, answer.partitions) == (1, frozenset(TopicPartition("orders", number) for number in range(4)))


def test_join_of_a_second_member_waits_until_the_first_has_joined_again() -> None:
    world = World()
    world.join("a")
    world.join("b")
    assert world.numbers("b") is None
    assert world.beat("a") is Heartbeat.REJOIN
    world.join("a", 0, 1, 2, 3, generation=1)
    assert (world.numbers("a"), world.numbers("b"), world.group.generation) == ([0, 1], [2, 3], 2)
    assert world.beat("a") is Heartbeat.OK


def test_join_during_a_rebalance_takes_part_in_it() -> None:
    world = World()
    world.join("a")
    world.join("b")
    world.join("c")
    world.join("a", 0, 1, 2, 3, generation=1)
    assert [len(world.numbers(member) or ()) for member in "abc"] == [2, 1, 1]
    assert world.group.generation == 2


def test_silent_member_is_thrown_out_after_the_session_timeout() -> None:
    world = World.of_two()
    world.pass_time(9)
    world.beat("a")
    world.pass_time(1)
    assert world.group.members == ["a"]
    assert world.beat("a") is Heartbeat.REJOIN
    world.join("a", 0, 1, generation=2)
    assert world.numbers("a") == [0, 1, 2, 3]
    with pytest.raises(UnknownMemberError):
        world.beat("b")


def test_silent_member_holds_a_rebalance_up_until_its_session_timeout() -> None:
    world = World.of_two()
    world.pass_time(4)
    world.beat("a")
    world.join("c")
    world.join("a", 0, 1, generation=2)
    world.pass_time(5.9)
    assert world.numbers("c") is None
    world.pass_time(0.1)
    assert (world.numbers("a"), world.numbers("c")) == ([0, 1], [2, 3])


def test_member_that_beats_but_does_not_join_is_thrown_out_after_the_rebalance_timeout() -> None:
    world = World.of_two()
    world.join("c")
    world.join("a", 0, 1, generation=2)
    for _ in range(29):
        world.pass_time(1)
        assert world.beat("b") is Heartbeat.REJOIN
    assert world.numbers("a") is None
    world.pass_time(1)
    assert (world.numbers("a"), world.numbers("c")) == ([0, 1], [2, 3])
    with pytest.raises(UnknownMemberError):
        world.beat("b")


def test_waiting_member_needs_no_heartbeats() -> None:
    world = World.of_two()
    world.join("c")
    for _ in range(20):
        world.pass_time(1)
        world.beat("a")
        world.beat("b")
    assert world.group.members == ["a", "b", "c"]


def test_heartbeat_of_an_older_generation_is_refused() -> None:
    world = World.of_two()
    with pytest.raises(UnknownMemberError, match="generation 1"):
        world.beat("a", 1)


def test_leave_lets_the_others_share() -> None:
    world = World.of_two()
    world.group.leave("b", now_s=world.now_s)
    assert world.beat("a") is Heartbeat.REJOIN
    world.join("a", 0, 1, generation=2)
    assert world.numbers("a") == [0, 1, 2, 3]


def test_leave_of_the_last_member_leaves_an_empty_group_that_can_be_joined() -> None:
    world = World()
    world.join("a")
    world.group.leave("a", now_s=0)
    world.join("b")
    assert world.numbers("b") == [0, 1, 2, 3]


def test_deadline_of_an_empty_group_is_never() -> None:
    assert World().group.deadline_s == float("inf")
