"""Opening a task: fence, restore, take the offsets, seek, run; in that order (design rule 2).

    fence     open the producer: a zombie with the same transactional id can commit nothing from here on
    settle    what older producers with the id have open is ended, everywhere
    restore   the changelog, read to its end, is the state, and the input offsets are part of it
    offsets   out of the restored state; the group's own offsets only serve lag tools, and are overridden where they differ

The caller seeks and resumes. Any step may fail or be cancelled; then everything that was opened is let go.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.errors import StateError
from engine.records import TopicPartition
from engine.runtime.epochs import check_epoch
from engine.runtime.opening_errors import EndedError, OutsideLogError
from engine.runtime.restore import restore
from engine.runtime.savepointing import ended_message
from engine.runtime.settling import settle
from engine.runtime.shell import Shell
from engine.runtime.threads import in_thread
from engine.runtime.transport.protocol import TransactionalProducer
from engine.task import Task
from state.store import Store

log = logging.getLogger(__name__)

_SETTLE_S = 10.0


@dataclass(slots=True)
class Opened:
    """What a task holds while it runs."""

    producer: TransactionalProducer
    store: Store
    task: Task
    identity: bytes
    positions: dict[TopicPartition, int]

    async def close(self) -> None:
        """Let go of the producer and the store."""
        await _let_go(self.producer, self.store)


async def open_task(shell: Shell, number: int, inputs: Sequence[TopicPartition]) -> Opened:
    """Open a task up to the point where it can be fed.

    Raises:
        FencedError, UnavailableError, StateError, OSError: It did not work this time.
        OutsideLogError, EndedError: It will not work without a person.
    """
    plan, transport, clock = shell.plan, shell.transport, shell.clock
    started_s = clock.monotonic_s()
    producer = await transport.open_producer(plan.transactional_id(number))
    store: Store | None = None
    try:
        fenced_s = clock.monotonic_s()
        await check_epoch(transport, plan)
        store = await open_store(shell, number)
        changelog = TopicPartition(plan.changelog_topic, number)
        await settle(transport, producer, [changelog, *_written(shell)], clock)
        restored = await restore(
            transport, producer, store, changelog, clock=clock, metrics=shell.metrics.task(number), checkpoints=shell.checkpoints
        )
        task = await _make_task(shell, number, store)
        mark = task.control.mark
        if mark is not None and mark.phase == "ended":
            raise EndedError(ended_message(plan.app_id, plan.epoch, mark.name))
        positions = await _positions(shell, inputs, task.positions)
    except BaseException:
        await _let_go(producer, store)
        raise
    log.info(
        "task %d: open after %.3f s (fence %.3f s), %s, at %s",
        number,
        clock.monotonic_s() - started_s,
        fenced_s - started_s,
        restored.verdict,
        ", ".join(f"{partition.topic}={position}" for partition, position in positions.items()),
    )
    return Opened(producer, store, task, restored.identity, positions)


def _written(shell: Shell) -> list[TopicPartition]:
    """Return the partitions of the topics that any task writes to, as far as they are known."""
    return [TopicPartition(topic, number) for topic, count in sorted(shell.output_partitions.items()) for number in range(count)]


async def open_store(shell: Shell, number: int) -> Store:
    """Open the store in a thread; if the task is cancelled meanwhile, the thread's store is closed when it comes."""
    opening = asyncio.ensure_future(asyncio.to_thread(shell.open_store, number))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(lambda done: None if done.cancelled() or done.exception() else done.result().close())
        raise


async def _make_task(shell: Shell, number: int, store: Store) -> Task:
    """Make the task over the restored store; a store that cannot be read is emptied for the next attempt."""
    try:
        return Task(
            shell.plan,
            number,
            store,
            now_ms=shell.clock.now_ms(),
            partition_counts=shell.output_partitions,
            record_bytes_max=shell.record_bytes_max,
            cache_entries_max=max(1, shell.limits.cache_entries_max // max(1, shell.metrics.held())),
        )
    except StateError:
        await in_thread(store.clear)
        raise


async def _positions(
    shell: Shell, inputs: Sequence[TopicPartition], known: Mapping[TopicPartition, int | None]
) -> dict[TopicPartition, int]:
    """Return where to read on: the state's offsets; the log's start only for what the state has never seen."""
    transport = shell.transport
    begins, ends = await transport.begin_offsets(inputs), await _settled_ends(shell, inputs, known)
    group = await transport.committed_offsets(inputs)
    positions = {}
    for partition in inputs:
        position = known.get(partition)
        begin, end = begins[partition], ends[partition]
        committed = group.get(partition)
        if position is None:
            position = begin
            if committed is not None:
                log.warning("%s-%d: the state has never seen the topic; read from %d, not the group's %d", *partition, begin, committed)
        elif position < begin:
            raise OutsideLogError(
                f"{partition.topic}-{partition.partition}: the state ends at offset {position}, but the log now begins at {begin}: "
                f"{begin - position} offsets were deleted before they were read. Restore a savepoint, or reset the app to accept the loss"
            )
        elif position > end:
            raise OutsideLogError(
                f"{partition.topic}-{partition.partition}: the state ends at offset {position}, but the log ends at {end}: the topic was "
                "made anew or truncated. Restore the topic, or reset the app to read the new one from its start"
            )
        elif committed != position:  # behind by some seconds is what a worker leaves that was killed
            level = logging.INFO if committed is None or committed < position else logging.WARNING
            log.log(level, "%s-%d: the group's offset is %s, the state's is %d; the state's counts", *partition, committed, position)
        positions[partition] = position
    return positions


async def _settled_ends(
    shell: Shell, inputs: Sequence[TopicPartition], known: Mapping[TopicPartition, int | None]
) -> dict[TopicPartition, int]:
    """Return the ends of the inputs; a broker that has just come up may say less than there is, so it is asked again for a while."""
    deadline_s = shell.clock.monotonic_s() + _SETTLE_S
    while True:
        ends = await shell.transport.end_offsets(inputs)
        behind = any((known.get(partition) or 0) > end for partition, end in ends.items())
        if not behind or shell.clock.monotonic_s() >= deadline_s:
            return ends
        await asyncio.sleep(shell.limits.retry_first_s)


async def _let_go(producer: TransactionalProducer, store: Store | None) -> None:
    """Close both, whatever the first one raises: a store left open keeps its lock."""
    try:
        await producer.close()
    finally:
        if store is not None:
            await in_thread(store.close)
