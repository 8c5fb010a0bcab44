"""Standbys: copies that follow, and are there when a task is taken over."""

import asyncio
import logging

import pytest

from engine.records import TopicPartition
from engine.runtime.assignor import Member, MemberData, assign, assign_standbys
from engine.testing.clock import virtual_time
from tests.engine.runtime.worker_world import World, eventually, numbering

TOPICS = frozenset({"clicks"})


def members(**data: MemberData) -> dict[str, Member]:
    return {name: Member(TOPICS, of_member) for name, of_member in data.items()}


def copies(known: dict[str, Member], numbers: int) -> dict[str, list[int]]:
    return assign_standbys(known, assign(known, {"clicks": numbers}))


def test_assign_standbys_gives_each_number_to_others_evenly() -> None:
    wants = MemberData(standbys=1)
    known = members(a=wants, b=wants, c=wants)
    owned = {name: {number for _, number in partitions} for name, partitions in assign(known, {"clicks": 6}).items()}
    found = copies(known, 6)
    assert sorted(number for numbers in found.values() for number in numbers) == [0, 1, 2, 3, 4, 5]
    assert [len(numbers) for numbers in found.values()] == [2, 2, 2]
    assert all(owned[name].isdisjoint(numbers) for name, numbers in found.items())


def test_assign_standbys_stay_where_a_store_is() -> None:
    known = members(a=MemberData(1, (0, 1, 2), (0, 1, 2), 1), b=MemberData(1, (), (0,), 1), c=MemberData(1, (), (1, 2), 1))
    owned = assign(known, {"clicks": 3})
    found = assign_standbys(known, owned)
    for name, numbers in found.items():
        for number in numbers:
            assert number in known[name].data.stored, (owned, found)


def test_assign_standbys_two_copies_need_two_others() -> None:
    wants = MemberData(standbys=2)
    assert copies(members(a=wants, b=wants, c=wants), 1) == {"a": [], "b": [0], "c": [0]}
    assert copies(members(a=wants, b=wants), 1) == {"a": [], "b": [0]}


def test_assign_standbys_member_that_wants_none_keeps_none() -> None:
    assert copies(members(a=MemberData(standbys=1), b=MemberData()), 2) == {"a": [1], "b": []}


@virtual_time
async def test_standby_follows_and_a_takeover_restores_only_the_tail(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = World(numbering(1))
    first = world.worker("w1", standbys=1)
    await first.until_running(0)
    second = world.worker("w2", standbys=1)
    await eventually(lambda: list(second.runner.standbys) == [0])
    for total in range(10, 101, 10):
        world.click("ann", times=10)
        await world.until(ann=total)
    log = world.broker.log(TopicPartition("app-changelog-1", 0))
    await eventually(lambda: second.disk[0].position.next_offset == log.last_stable_offset)
    assert second.runner.metrics.standby_lag == {0: 0}
    await first.kill()
    world.click("ann", times=10)
    await second.until_running(0)
    await world.until(ann=110)
    assert second.runner.metrics.total("restored_entries") == 0
    assert second.runner.metrics.total("rebuilds") == 0
    assert (second.runner.standbys, second.runner.metrics.standby_lag) == ({}, {})
    await second.stop()


@virtual_time
async def test_standby_of_a_task_that_nobody_has_opened_waits(caplog: pytest.LogCaptureFixture) -> None:
    world = World(numbering(2))
    first, second = world.worker("w1", standbys=1), world.worker("w2", standbys=1)
    await eventually(lambda: len(first.running_numbers() + second.running_numbers()) == 2)
    world.click("ann", times=3)
    world.click("zoe", times=3)
    await world.until(ann=3, zoe=3)
    for worker in (first, second):
        ((number, standby),) = worker.runner.standbys.items()
        assert standby.number == number not in worker.running_numbers()
    await asyncio.gather(first.stop(), second.stop())
    assert first.runner.standbys == second.runner.standbys == {}


@virtual_time
async def test_standby_whose_store_follows_another_changelog_begins_anew() -> None:
    other = World(numbering(1))
    stranger = other.worker("w1")
    other.click("bob", times=5)
    await other.until(bob=5)
    await stranger.stop()
    world = World(numbering(1))
    first = world.worker("w1", standbys=1)
    world.click("ann", times=5)
    await world.until(ann=5)
    second = world.worker("w2", disk=stranger.disk, standbys=1)
    log = world.broker.log(TopicPartition("app-changelog-1", 0))
    await eventually(lambda: list(second.runner.standbys) == [0])
    await eventually(lambda: second.disk[0].position.next_offset == log.last_stable_offset)
    store = first.disk[0]
    assert dict(second.disk[0].scan(b"", b"\xff" * 8)) == dict(store.scan(b"", b"\xff" * 8))
    await asyncio.gather(first.stop(), second.stop())
