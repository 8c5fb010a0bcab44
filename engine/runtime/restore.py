"""Restore: bring a store to the end of its changelog partition (design rule 4).

    changelog   [identity] e e e ▒ e ▒ ▒ e e        ▒ markers and compacted holes
                           └ store: next_offset     └ end: the last stable offset

It ends by position >= end offset, never by comparing the last record seen: what is at the end may be a marker. The store is
trusted only as far as `state.changelog.judge` allows; else it begins anew from a checkpoint that passes the same judgement, or from
the start of the log, and the log says why.
"""

import logging
import uuid
from dataclasses import dataclass
from functools import partial

from engine.errors import ConfigError, FencedError
from engine.records import OutputColumns, RecordBatch, TopicPartition
from engine.runtime.checkpointing import Checkpoints, begin_from_checkpoint
from engine.runtime.clock import Clock
from engine.runtime.following import Follower
from engine.runtime.metrics import TaskMetrics
from engine.runtime.settling import settled_end
from engine.runtime.threads import in_thread
from engine.runtime.transport.protocol import TransactionalProducer, Transport
from engine.task import Commit
from state.changelog import identity_record, judge, read_identity
from state.errors import StateError
from state.store import Position, Store

log = logging.getLogger(__name__)

READ_TIMEOUT_S = 1.0
PROGRESS_S = 5.0
LOAD_OFFSETS = 50_000
"""From so many offsets on a store is told that it is being loaded: that costs it some 50 ms."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore found and did.

    Attributes:
        identity: Identity of the changelog partition; the store's position carries it from now on.
        verdict: For the log line ("state is intact, …"): what the store was worth, and how much was read.
    """

    identity: bytes
    entries: int
    seconds: float
    verdict: str


async def restore(
    transport: Transport,
    producer: TransactionalProducer,
    store: Store,
    changelog: TopicPartition,
    *,
    clock: Clock,
    metrics: TaskMetrics,
    checkpoints: Checkpoints | None = None,
) -> Restored:
    """Bring a store to the end of its changelog partition, whose writer (`producer`) has fenced all others.

    A store that cannot be trusted is replaced by the newest checkpoint that can, or else built from the start of the changelog.
    It may be cancelled at any point and begun again: the store is always what some readers of the log have seen, and reads on.

    Raises:
        StateError, UnavailableError, FencedError: It did not work this time.
        ConfigError: The topic holds records that this engine did not write.
    """
    started_s = clock.monotonic_s()
    if checkpoints is not None:
        await in_thread(checkpoints.clean, changelog.partition)
    begin = (await transport.begin_offsets([changelog]))[changelog]
    end = await settled_end(transport, changelog, clock)
    identity = await find_identity(transport, changelog, begin, end)
    if identity is None:
        identity = await _make_identity(producer, store, changelog, clock)
        return Restored(identity, 0, clock.monotonic_s() - started_s, "state is new and empty")
    judged = partial(judge, identity=identity, begin=begin, end=end, now_ms=clock.now_ms())
    verdict = judged(store.position)
    if not verdict.usable:
        metrics.rebuilds += 1
        log.info("%s-%d: the state %s", *changelog, verdict.reason)
        await in_thread(store.clear)
        if checkpoints is not None:
            verdict = await begin_from_checkpoint(checkpoints, store, changelog, judged) or verdict
    start = store.position.next_offset if verdict.usable else begin
    entries = await _follow(transport, store, identity, changelog, start, end, clock, metrics)
    if (await transport.end_offsets([changelog]))[changelog] != end:
        # Only a newer owner can have written here, and compaction may have kept its values in the place of those that were to be
        # read: what the store holds now fits no moment until it has read on. Nothing may run on it.
        raise FencedError(f"{changelog.topic}-{changelog.partition}: another owner has written while the state was restored")
    seconds = clock.monotonic_s() - started_s
    metrics.restored_entries += entries
    metrics.restore_seconds += seconds
    reason = verdict.reason if entries or not verdict.usable else "is intact"  # all that it lacked were transaction markers
    return Restored(identity, entries, seconds, f"state {reason}; {entries} changelog entries in {seconds:.3f} s")


async def find_identity(transport: Transport, changelog: TopicPartition, begin: int, end: int) -> bytes | None:
    """Return the identity of a changelog partition: its first record; None if there is no record at all."""
    reader = await transport.open_reader(changelog, begin)
    try:
        while reader.position < end:
            batch = await reader.read(READ_TIMEOUT_S)
            if batch is not None and len(batch):
                return _identity_of(batch, changelog)
    finally:
        await reader.close()
    return None


def _identity_of(batch: RecordBatch, changelog: TopicPartition) -> bytes:
    where = f"{changelog.topic}-{changelog.partition}"
    try:
        identity = read_identity(batch.keys[0], batch.values[0])
    except StateError as error:
        raise ConfigError(f"{where}: {error}") from error
    if identity is None:
        raise ConfigError(
            f"{where} begins with a record that is not the identity of a changelog: something else writes this topic; "
            "delete it, or give the app another id"
        )
    return identity


async def _make_identity(producer: TransactionalProducer, store: Store, changelog: TopicPartition, clock: Clock) -> bytes:
    """Write the identity record of a changelog partition that has no records, and empty the store for it."""
    now_ms = clock.now_ms()
    if store.position != Position():
        log.warning("%s-%d is empty, the local state is not: it belonged to another changelog and is deleted", *changelog)
        await in_thread(store.clear)
    key, value = identity_record(uuid.uuid4())
    ends = await producer.commit({changelog: OutputColumns([now_ms], [key], [value])}, {})
    store.apply([], Position(value, ends[changelog], now_ms))
    return value


async def _follow(
    transport: Transport,
    store: Store,
    identity: bytes,
    changelog: TopicPartition,
    start: int,
    end: int,
    clock: Clock,
    metrics: TaskMetrics,
) -> int:
    """Apply the changelog from `start` on until the position has reached `end`; return the number of entries."""
    is_long = end - start >= LOAD_OFFSETS
    if is_long:
        await in_thread(store.load)
    follower = Follower(transport, store, identity, changelog, start)
    begun_s = said_s = clock.monotonic_s()
    await follower.open()
    try:
        while follower.read_up_to < end:
            metrics.restore_lag = end - follower.read_up_to
            await follower.step(READ_TIMEOUT_S)
            now_s = clock.monotonic_s()
            if follower.read_up_to > start:
                metrics.restore_seconds_left = (now_s - begun_s) * (end - follower.read_up_to) / (follower.read_up_to - start)
            if now_s - said_s >= PROGRESS_S:
                said_s = now_s
                log.info(
                    "%s-%d: restored up to %d of %d, about %.0f s left",
                    *changelog,
                    follower.read_up_to,
                    end,
                    metrics.restore_seconds_left,
                )
    finally:
        metrics.restore_lag, metrics.restore_seconds_left = 0, 0.0
        await follower.close()
    follower.check()
    if is_long:
        await in_thread(store.loaded)
    return follower.entries


def changelog_columns(commit: Commit, now_ms: int) -> OutputColumns:
    """Return the changes of a commit as changelog records."""
    if not commit.changes:
        return OutputColumns()
    keys, values = zip(*commit.changes, strict=True)
    return OutputColumns([now_ms] * len(keys), list(keys), list(values))
