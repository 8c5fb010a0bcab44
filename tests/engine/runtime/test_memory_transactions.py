"""Transactions of the memory transport: all or nothing, fencing, time-outs, lost answers; all in virtual time."""

import asyncio

import pytest

from engine.errors import FencedError, UnavailableError
from engine.runtime.transport.memory import MemoryTransport
from engine.runtime.transport.memory_connection import Fault
from engine.testing.clock import virtual_loop, virtual_time
from tests.engine.runtime.memory_world import (
    INPUT,
    LOST_ANSWER,
    LOST_REQUEST,
    OUTPUT,
    Script,
    columns,
    new_broker,
    new_member,
    values,
)


@virtual_time
async def test_commit_writes_outputs_and_offsets_together() -> None:
    broker = new_broker()
    transport = MemoryTransport(broker, group_id="shop")
    broker.produce({INPUT: columns(*"abc")})
    producer = await transport.open_producer("shop-0")
    assert await producer.commit({OUTPUT: columns("x", "y")}, {INPUT: 3}) == {OUTPUT: 2}
    assert values([broker.read(OUTPUT, 0)]) == [b"x", b"y"]
    assert await transport.committed_offsets([INPUT, OUTPUT]) == {INPUT: 3}
    assert await transport.end_offsets([OUTPUT]) == {OUTPUT: 3}
    assert await producer.commit({OUTPUT: columns("z")}, {}) == {OUTPUT: 4}


@virtual_time
async def test_open_producer_fences_the_older_one() -> None:
    broker = new_broker()
    transport = MemoryTransport(broker, group_id="shop")
    zombie = await transport.open_producer("shop-0")
    await zombie.commit({OUTPUT: columns("before")}, {INPUT: 1})
    owner = await transport.open_producer("shop-0")
    for _ in range(2):
        with pytest.raises(FencedError, match="shop-0"):
            await zombie.commit({OUTPUT: columns("zombie")}, {INPUT: 2})
    await owner.commit({OUTPUT: columns("owner")}, {})
    assert values([broker.read(OUTPUT, 0)]) == [b"before", b"owner"]
    assert await transport.committed_offsets([INPUT]) == {INPUT: 1}


@virtual_time
@pytest.mark.parametrize("midway", ["txn_offset_commit", "end_txn"])
async def test_open_producer_in_the_middle_of_a_commit_aborts_it(midway: str) -> None:
    broker, faults = new_broker(), Script(next={midway: [Fault(delay_s=5)]})
    transport = MemoryTransport(broker, group_id="shop", faults=faults)
    zombie = await transport.open_producer("shop-0")
    committing = asyncio.create_task(zombie.commit({OUTPUT: columns("zombie")}, {INPUT: 2}))
    await asyncio.sleep(1)
    assert await transport.end_offsets([OUTPUT]) == {OUTPUT: 0}
    await transport.open_producer("shop-0")
    assert await transport.end_offsets([OUTPUT]) == {OUTPUT: 2}
    with pytest.raises(FencedError):
        await committing
    assert len(broker.read(OUTPUT, 0)) == 0
    assert await transport.committed_offsets([INPUT]) == {}


@virtual_time
async def test_zombie_that_lost_its_membership_can_commit_nothing_once_the_new_owner_has_opened() -> None:
    broker, faults = new_broker(), Script()
    zombie = await new_member(broker, "zombie", faults=faults)
    producer = await zombie.transport.open_producer("shop-0")
    await asyncio.sleep(1)
    owner = await new_member(broker, "owner")
    faults.is_cut_off = True
    await asyncio.sleep(30)
    assert owner.owned == [0]
    await owner.transport.open_producer("shop-0")
    faults.is_cut_off = False
    with pytest.raises(FencedError):
        await producer.commit({OUTPUT: columns("late")}, {INPUT: 9})
    assert len(broker.read(OUTPUT, 0)) == 0
    for member in (zombie, owner):
        await member.transport.stop()


@virtual_time
async def test_transaction_beyond_its_timeout_is_aborted_and_its_producer_fenced() -> None:
    broker, faults = new_broker(), Script(next={"end_txn": [Fault(delay_s=10)]})
    transport = MemoryTransport(broker, group_id="shop", faults=faults)
    producer = await transport.open_producer("shop-0")
    committing = asyncio.create_task(producer.commit({OUTPUT: columns("slow")}, {INPUT: 1}))
    await asyncio.sleep(9.5)
    assert await transport.end_offsets([OUTPUT]) == {OUTPUT: 0}
    await asyncio.sleep(0.5)
    assert await transport.end_offsets([OUTPUT]) == {OUTPUT: 2}
    with pytest.raises(FencedError):
        await committing
    assert len(broker.read(OUTPUT, 0)) == 0


@virtual_time
async def test_commit_whose_answer_is_lost_is_committed_and_reported_as_unknown() -> None:
    broker, faults = new_broker(), Script(next={"end_txn": [LOST_ANSWER]})
    transport = MemoryTransport(broker, group_id="shop", faults=faults)
    producer = await transport.open_producer("shop-0")
    with pytest.raises(UnavailableError, match="may have taken effect"):
        await producer.commit({OUTPUT: columns("a")}, {INPUT: 1})
    assert values([broker.read(OUTPUT, 0)]) == [b"a"]
    assert await transport.committed_offsets([INPUT]) == {INPUT: 1}
    await producer.close()
    assert values([broker.read(OUTPUT, 0)]) == [b"a"]


@virtual_time
async def test_commit_that_got_lost_leaves_the_transaction_open_until_close() -> None:
    broker, faults = new_broker(), Script(next={"end_txn": [LOST_REQUEST]})
    transport = MemoryTransport(broker, group_id="shop", faults=faults)
    producer = await transport.open_producer("shop-0")
    for _ in range(2):
        with pytest.raises(UnavailableError):
            await producer.commit({OUTPUT: columns("a")}, {INPUT: 1})
    assert await transport.end_offsets([OUTPUT]) == {OUTPUT: 0}
    await producer.close()
    assert await transport.end_offsets([OUTPUT]) == {OUTPUT: 2}
    assert len(broker.read(OUTPUT, 0)) == 0


@virtual_time
async def test_commit_that_was_cancelled_is_not_gone_on_with() -> None:
    broker, faults = new_broker(), Script(next={"end_txn": [Fault(delay_s=5)]})
    producer = await MemoryTransport(broker, group_id="shop", faults=faults).open_producer("shop-0")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await producer.commit({OUTPUT: columns("a")}, {})
    with pytest.raises(UnavailableError, match="cancelled"):
        await producer.commit({OUTPUT: columns("b")}, {})
    assert len(broker.read(OUTPUT, 0, committed=False)) == 1


@virtual_time
async def test_close_of_a_producer_is_bounded_when_the_broker_is_away() -> None:
    broker, faults = new_broker(), Script(next={"end_txn": [LOST_REQUEST, Fault(delay_s=60)]})
    producer = await MemoryTransport(broker, group_id="shop", faults=faults).open_producer("shop-0")
    with pytest.raises(UnavailableError):
        await producer.commit({OUTPUT: columns("a")}, {})
    await producer.close()
    assert virtual_loop().time() == 1
