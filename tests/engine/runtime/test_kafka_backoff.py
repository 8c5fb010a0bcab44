"""A transaction that is refused because of the one before asks again soon, and less often after a while."""

import asyncio
from types import SimpleNamespace
from typing import Any

from aiokafka import errors

from engine.runtime.transport.kafka.backoff import FIRST_S, LATER_S, PATIENCE_S, _AddPartitions, eager, hasten
from engine.testing.clock import virtual_time


def driver() -> Any:
    """Return what is asked of a producer whose coordinator refuses all partitions."""
    manager = SimpleNamespace(transactional_id="t", txn_partitions=set())
    return SimpleNamespace(_sender=SimpleNamespace(_retry_backoff=0.02, _txn_manager=manager))


def answer(error: type[Exception]) -> Any:
    """Return the coordinator's answer for one partition."""
    return SimpleNamespace(errors=[("topic", [(0, error.errno)])])  # type: ignore[attr-defined]


@virtual_time
async def test_add_partitions_asks_again_as_soon_as_the_producer_says() -> None:
    producer = driver()
    with eager(producer):
        assert _AddPartitions(producer._sender, set()).handle_response(answer(errors.ConcurrentTransactions)) == FIRST_S
        await asyncio.sleep(PATIENCE_S + 0.01)
        assert _AddPartitions(producer._sender, set()).handle_response(answer(errors.CoordinatorLoadInProgressError)) == LATER_S
    assert producer._sender._retry_backoff == LATER_S


@virtual_time
async def test_eager_leaves_nothing_behind_that_slows_the_next_transaction() -> None:
    producer = driver()
    with eager(producer):
        pass
    await asyncio.sleep(PATIENCE_S / 2)
    with eager(producer):
        await asyncio.sleep(PATIENCE_S * 0.9)
        assert producer._sender._retry_backoff == FIRST_S


def test_hasten_puts_our_request_in_place_of_aiokafkas() -> None:
    producer = driver()
    hasten(producer)
    assert producer._sender._do_add_partitions_to_txn.args == (producer._sender,)
