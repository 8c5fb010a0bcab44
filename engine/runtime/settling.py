"""Before a task reads anything: what was begun under its transactional id is ended, in every partition.

Fencing ends the transaction that the coordinator knows. What is left open after that has lost its marker (KAFKA-20734: the broker had no
leader for the partition at that moment, as after a kill or under overload), and would do two kinds of harm:

| lost in | decided | without this |
|---|---|---|
| the changelog | | the task waits before it for ever |
| an output | commit | readers wait, until the task writes there again |
| an output | abort | the next commit of the task there commits it too: results that come twice |

So what hangs is ended as the coordinator decided, which is what it was to do itself: the producer is ours and fenced, nothing has begun
since, and its log says how. Where that is not allowed, or the log does not say, the task stays closed and names it.
"""

import asyncio
import logging
from collections.abc import Sequence

from engine.errors import ConfigError, UnavailableError
from engine.records import TopicPartition
from engine.runtime.clock import Clock
from engine.runtime.transport.open_transactions import OpenTransaction
from engine.runtime.transport.protocol import TransactionalProducer, Transport

log = logging.getLogger(__name__)

SETTLED_S, SETTLED_AGAIN_S = 10.0, 0.05
_HANGS_S, _LOOK_AGAIN_S = 1.0, 0.25


async def settle(transport: Transport, producer: TransactionalProducer, partitions: Sequence[TopicPartition], clock: Clock) -> None:
    """Return when a producer that was just opened has nothing open in partitions, from older ones of its id.

    Raises:
        UnavailableError: Something hangs there that cannot be ended from here.
    """
    begun_s = clock.monotonic_s()
    while True:
        try:
            found = await transport.open_transactions(partitions, producer.producer_id)
        except ConfigError as error:
            log.info("whether transactions hang cannot be seen: %s", error)  # what hangs in the changelog is seen by its offsets
            return
        if not found:
            return
        if clock.monotonic_s() - begun_s >= (_HANGS_S if all(each.hangs for each in found) else SETTLED_S):
            break
        await asyncio.sleep(_LOOK_AGAIN_S)
    for each in found:
        await _end(transport, each)


async def settled_end(transport: Transport, changelog: TopicPartition, clock: Clock) -> int:
    """Return the end of a changelog partition once every transaction in it is ended.

    A commit is acknowledged before its markers are written. Until then the last stable offset lies below what was committed, and a
    restore up to there would do the same input again.

    Raises:
        UnavailableError: A transaction is still open after the time that one may take.
    """
    high = (await transport.high_watermarks([changelog]))[changelog]
    begun_s, behind = clock.monotonic_s(), None
    while (end := (await transport.end_offsets([changelog]))[changelog]) < high:
        behind = end
        if clock.monotonic_s() - begun_s >= SETTLED_S:
            raise UnavailableError(
                f"{changelog.topic}-{changelog.partition}: a transaction behind offset {end} is still open, though its producer is fenced. "
                "If it stays so, the broker has lost the transaction's end: `streamforge transactions list` names it, and `end` ends it"
            )
        await asyncio.sleep(SETTLED_AGAIN_S)
    if behind is not None:
        log.info("%s-%d: waited %.3f s for the end of a transaction, from %d to %d", *changelog, clock.monotonic_s() - begun_s, behind, end)
    return end


async def _end(transport: Transport, transaction: OpenTransaction) -> None:
    way = f"A person with the right to alter the cluster can end it: streamforge transactions end {transaction.place}"
    if not transaction.hangs:
        raise UnavailableError(f"{transaction}, though its producer is fenced")
    if transaction.decided is None:
        raise UnavailableError(f"{transaction}. {way} --unknown commit, or abort")
    try:
        await transport.end_transaction(transaction, transaction.decided)
    except ConfigError as error:
        raise UnavailableError(f"{transaction}, and it could not be ended: {error}. {way}") from error
    log.warning("the broker had lost the end of a transaction, %s; it is ended", transaction)
