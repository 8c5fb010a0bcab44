"""How soon a transaction asks again: at once at first, patiently later.

While the broker still writes the markers of the transaction before, it refuses partitions (CONCURRENT_TRANSACTIONS) and batches
(NOT_ENOUGH_REPLICAS, KIP-890). That takes a few milliseconds, and aiokafka waits for 20, or for `retry_backoff_ms`. Commits that follow
one another meet it each third time. Whoever has waited for longer waits for something else, such as a leader.

    0 ms ──── every FIRST_S ────► PATIENCE_S ──── every LATER_S ────► the transaction's timeout

Sources: KIP-98; KIP-890; KAFKA-5477 (why the client retries).
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from aiokafka.client import CoordinationType
from aiokafka.producer.sender import AddPartitionsToTxnHandler

FIRST_S = 0.004
LATER_S = 0.05
PATIENCE_S = 0.1


class _AddPartitions(AddPartitionsToTxnHandler):  # type: ignore[misc]
    """aiokafka's, whose wait for the transaction before is fixed."""

    def handle_response(self, response: Any) -> float | None:
        """Return how long to wait before asking again, None if all partitions are in."""
        wait_s: float | None = super().handle_response(response)
        return None if wait_s is None else min(wait_s, self._default_backoff)


def hasten(driver: Any) -> None:
    """Let a started transactional producer ask for its partitions as often as `eager` says."""
    driver._sender._do_add_partitions_to_txn = partial(_add_partitions, driver._sender)


@contextmanager
def eager(driver: Any) -> Iterator[None]:
    """Within it the producer asks again soon, and after a while less often."""
    sender = driver._sender

    def set_wait(wait_s: float) -> None:
        sender._retry_backoff = wait_s

    set_wait(FIRST_S)
    later = asyncio.get_running_loop().call_later(PATIENCE_S, set_wait, LATER_S)
    try:
        yield
    finally:
        later.cancel()
        set_wait(LATER_S)


async def _add_partitions(sender: Any, partitions: Any) -> Any:
    node = await sender._find_coordinator(CoordinationType.TRANSACTION, sender._txn_manager.transactional_id)
    return await _AddPartitions(sender, partitions).do(node)
