"""The memory transport in a group: sharing, revocation, members cut off, confirmation; all in virtual time."""

import asyncio
import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.records import TopicPartition
from engine.runtime.transport.memory import MemoryTransport
from engine.runtime.transport.memory_connection import Fault
from engine.testing.clock import run_virtual, virtual_loop, virtual_time
from tests.effort import examples
from tests.engine.runtime.memory_world import (
    INPUT,
    LOST_ANSWER,
    LOST_REQUEST,
    Member,
    Script,
    columns,
    new_broker,
    new_member,
    values,
)


@virtual_time
async def test_two_members_share_and_are_told_of_revocation_before_assignment() -> None:
    broker = new_broker(4)
    first = await new_member(broker, "a")
    await asyncio.sleep(1)
    second = await new_member(broker, "b")
    await asyncio.sleep(1)
    assert first.told == [("assigned", [0, 1, 2, 3]), ("revoked", [0, 1, 2, 3]), ("assigned", [0, 1])]
    assert second.told == [("assigned", [2, 3])]
    assert (first.owned, second.owned) == ([0, 1], [2, 3])
    await first.transport.stop()
    await asyncio.sleep(1)
    assert second.owned == [0, 1, 2, 3]
    await second.transport.stop()


@virtual_time
async def test_member_is_delivered_nothing_of_what_it_lost() -> None:
    broker = new_broker(2)
    members = [await new_member(broker, name) for name in "ab"]
    await asyncio.sleep(1)
    broker.produce({TopicPartition("orders", number): columns(str(number)) for number in (0, 1)})
    assert [values(await member.transport.poll(1)) for member in members] == [[b"0"], [b"1"]]
    for member in members:
        await member.transport.stop()


@virtual_time
async def test_revocation_that_takes_long_keeps_the_membership() -> None:
    broker = new_broker(2)
    first = await new_member(broker, "a")
    await asyncio.sleep(1)
    first.revoke_takes_s = 12
    second = await new_member(broker, "b")
    await asyncio.sleep(11)
    assert second.owned == []
    await asyncio.sleep(2)
    assert (first.owned, second.owned) == ([0], [1])
    for member in (first, second):
        await member.transport.stop()


@virtual_time
async def test_nothing_is_fetched_during_a_revocation() -> None:
    broker = new_broker(1)
    member = await new_member(broker, "a")
    await member.transport.poll(1)
    member.revoke_takes_s = 5
    other = await new_member(broker, "b")
    await asyncio.sleep(1)
    broker.produce({INPUT: columns("a")})
    assert await member.transport.poll(2) == []
    assert member.owned == [0]
    for each in (member, other):
        await each.transport.stop()


@virtual_time
async def test_member_cut_off_loses_its_partitions_after_the_session_timeout() -> None:
    broker, faults = new_broker(2), Script()
    zombie, other = await new_member(broker, "zombie", faults=faults), await new_member(broker, "other")
    await asyncio.sleep(1)
    faults.is_cut_off = True
    await asyncio.sleep(7)
    assert other.owned != [0, 1]
    await asyncio.sleep(6)
    assert other.owned == [0, 1]
    assert zombie.owned != [], "a zombie does not know"
    faults.is_cut_off = False
    await asyncio.sleep(1)
    assert zombie.told[-2][0] == "revoked"
    assert broker.group("shop").members == ["other-2", "zombie-3"], "it joins under a new id"
    assert sorted(zombie.owned + other.owned) == [0, 1]
    for member in (zombie, other):
        await member.transport.stop()


@virtual_time
async def test_membership_is_confirmed_by_heartbeats_and_not_while_cut_off() -> None:
    broker, faults = new_broker(), Script()
    member = await new_member(broker, "a", faults=faults)
    assert member.transport.membership_confirmed_s() == float("-inf")
    await asyncio.sleep(20)
    assert 17 < member.transport.membership_confirmed_s() <= 20
    faults.is_cut_off = True
    await asyncio.sleep(20)
    assert member.transport.membership_confirmed_s() <= 20
    faults.is_cut_off = False
    await asyncio.sleep(1)
    assert member.transport.membership_confirmed_s() >= 40
    await member.transport.stop()


@virtual_time
async def test_answer_that_was_long_on_its_way_confirms_the_membership_as_of_the_request() -> None:
    broker, faults = new_broker(), Script()
    member = await new_member(broker, "a", faults=faults)
    await asyncio.sleep(1)
    faults.next["heartbeat"] = [Fault(answer_delay_s=6)]
    await asyncio.sleep(8)
    assert member.transport.membership_confirmed_s() == pytest.approx(2)
    await member.transport.stop()


@virtual_time
async def test_lost_join_answer_is_tried_again_without_a_second_member() -> None:
    broker, faults = new_broker(2), Script(next={"join_group": [LOST_ANSWER, LOST_REQUEST], "sync_group": [LOST_ANSWER]})
    member = await new_member(broker, "a", faults=faults)
    await asyncio.sleep(1)
    assert member.owned == [0, 1]
    assert len(broker.group("shop").members) == 1
    await member.transport.stop()


@virtual_time
async def test_join_follows_the_stores_on_disk() -> None:
    broker = new_broker(4)
    disks = {"a": (1, 3), "b": (0, 2)}
    members = []
    for name, disk in disks.items():
        member = Member(MemoryTransport(broker, group_id="shop", client_id=name, stored=functools.partial(tuple, disk)))
        await member.transport.subscribe(["orders"], member)
        members.append(member)
    await asyncio.sleep(1)
    assert [member.owned for member in members] == [[1, 3], [0, 2]]
    for member in members:
        await member.transport.stop()


@virtual_time
async def test_error_of_the_listener_reaches_the_poll() -> None:
    broker = new_broker()
    member = await new_member(broker, "a")
    await asyncio.sleep(1)

    def fail() -> None:
        raise RuntimeError("cannot let go")

    member.on_revoke = fail
    other = await new_member(broker, "b")
    with pytest.raises(RuntimeError, match="cannot let go"):
        await member.transport.poll(5)
    for each in (member, other):
        await each.transport.stop()


@virtual_time
async def test_stop_leaves_the_group_and_is_bounded_when_the_broker_is_away() -> None:
    broker, faults = new_broker(), Script()
    member = await new_member(broker, "a", faults=faults)
    await asyncio.sleep(1)
    faults.next["leave_group"] = [Fault(delay_s=60)]
    await member.transport.stop()
    assert virtual_loop().time() == 2
    assert member.told == [("assigned", [0])]
    assert member.owned == []
    await asyncio.sleep(20)
    broker.expire()
    assert broker.group("shop").members == []


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["start", "stop", "cut", "heal", "sleep"]), st.integers(0, 3)), max_size=20))
def test_group_after_any_troubles_shares_everything_and_nothing_twice(troubles: list[tuple[str, int]]) -> None:
    async def scenario() -> None:
        broker = new_broker(7)
        members: dict[int, tuple[Member, Script]] = {}
        for what, number in [*troubles, ("start", 0)]:
            if what == "start" and number not in members:
                faults = Script()
                members[number] = (await new_member(broker, f"m{number}", faults=faults), faults)
            elif what == "stop" and number in members:
                await members.pop(number)[0].transport.stop()
            elif what in ("cut", "heal") and number in members:
                members[number][1].is_cut_off = what == "cut"
            await asyncio.sleep(number * 4 if what == "sleep" else 0.05)
        for _, faults in members.values():
            faults.is_cut_off = False
        await asyncio.sleep(60)
        shares = [member.owned for member, _ in members.values()]
        assert sorted(number for share in shares for number in share) == list(range(7))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        for member, _ in members.values():
            await member.transport.stop()

    run_virtual(scenario())
