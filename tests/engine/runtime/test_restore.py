"""Restore: by position to the end offset, trusted only as far as the changelog's identity allows."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import pytest

from engine.errors import ConfigError, FencedError, UnavailableError
from engine.records import OutputColumns, TopicPartition
from engine.runtime.metrics import TaskMetrics
from engine.runtime.restore import Restored, restore
from engine.runtime.transport.memory import MemoryTransport
from engine.runtime.transport.memory_broker import MemoryBroker
from engine.testing.clock import LoopClock, virtual_loop, virtual_time
from engine.topics import TopicSpec
from state.changelog import DELETE_RETENTION_MS, identity_record
from state.memory import MemoryStore
from state.store import Position

CHANGELOG = TopicPartition("app-changelog-1", 0)


@dataclass
class Log:
    """A changelog partition, and what a task does with it."""

    broker: MemoryBroker
    transport: MemoryTransport
    clock: LoopClock

    @classmethod
    def make(cls, fetch_records_max: int = 10_000) -> "Log":
        clock = LoopClock(virtual_loop())
        broker = MemoryBroker(clock)
        broker.create_topic(TopicSpec(CHANGELOG.topic, 1, compacted=True))
        return cls(broker, MemoryTransport(broker, group_id="app", clock=clock, fetch_records_max=fetch_records_max), clock)

    async def restore(self, store: MemoryStore, metrics: TaskMetrics | None = None) -> Restored:
        producer = await self.transport.open_producer("app-0")
        return await restore(self.transport, producer, store, CHANGELOG, clock=self.clock, metrics=metrics or TaskMetrics())

    async def commit(self, changes: dict[bytes, bytes | None]) -> int:
        """Write changes as a task's commit does; return the end of them."""
        producer = await self.transport.open_producer("app-0")
        now_ms = self.clock.now_ms()
        columns = OutputColumns([now_ms] * len(changes), list(changes), list(changes.values()))
        return (await producer.commit({CHANGELOG: columns}, {}))[CHANGELOG]

    def end(self) -> int:
        return self.broker.log(CHANGELOG).last_stable_offset


class OvertakenTransport(MemoryTransport):
    """Between its first look at the ends of the log and its reading, a newer owner writes, and the log is compacted."""

    def __init__(self, log: Log) -> None:
        super().__init__(log.broker, group_id="app", clock=log.clock, fetch_records_max=1)
        self._other: Log | None = Log(log.broker, log.transport, log.clock)

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        ends = await super().end_offsets(partitions)
        if self._other is not None:
            await self._other.commit({b"b": b"2"})
            self.broker.compact(CHANGELOG.topic)
            self._other = None
        return ends


def entries(store: MemoryStore) -> dict[bytes, bytes]:
    return dict(store.scan(b"", b"\xff" * 8))


@virtual_time
async def test_restore_empty_changelog_gets_an_identity() -> None:
    log, store = Log.make(), MemoryStore()
    first = await log.restore(store)
    assert store.position.identity == first.identity != b""
    again = await log.restore(store)
    assert (again.identity, again.entries) == (first.identity, 0)


@virtual_time
async def test_restore_new_store_is_built_from_the_start() -> None:
    log = Log.make()
    await log.restore(MemoryStore())
    await log.commit({b"a": b"1", b"b": b"2"})
    await log.commit({b"a": None, b"c": b"3"})
    store, metrics = MemoryStore(), TaskMetrics()
    restored = await log.restore(store, metrics)
    assert entries(store) == {b"b": b"2", b"c": b"3"}
    assert (restored.entries, metrics.rebuilds) == (4, 1)
    assert "there is no local state" in restored.verdict


@virtual_time
async def test_restore_store_that_is_behind_reads_only_the_tail() -> None:
    log, store, metrics = Log.make(), MemoryStore(), TaskMetrics()
    await log.restore(store)
    await log.commit({b"a": b"1"})
    await log.restore(store)
    await log.commit({b"b": b"2"})
    restored = await log.restore(store, metrics)
    assert entries(store) == {b"a": b"1", b"b": b"2"}
    assert (restored.entries, metrics.rebuilds) == (1, 0)


@virtual_time
async def test_restore_ends_behind_markers_and_compacted_holes() -> None:
    log = Log.make(fetch_records_max=2)
    await log.restore(MemoryStore())
    for number in range(20):
        await log.commit({b"k": b"%d" % number, b"gone": b"x"})
    await log.commit({b"gone": None})
    log.broker.compact(CHANGELOG.topic)
    log.broker.init_producer("other", 10.0)
    store = MemoryStore()
    async with asyncio.timeout(60):
        await log.restore(store)
    assert entries(store) == {b"k": b"19"}
    assert store.position.next_offset == log.end()


@virtual_time
async def test_restore_waits_for_a_commit_whose_markers_are_not_written_yet() -> None:
    log, store = Log.make(), MemoryStore()
    await log.restore(store)
    await log.commit({b"a": b"1"})
    session = log.broker.init_producer("acknowledged", 60.0)
    log.broker.produce_in_transaction(session, {CHANGELOG: OutputColumns([1], [b"a"], [b"2"])})
    restoring = asyncio.create_task(log.restore(store))
    await asyncio.sleep(1.0)
    assert not restoring.done()
    log.broker.end_transaction(session, commit=True)
    assert (await restoring).entries == 2
    assert entries(store) == {b"a": b"2"}


@virtual_time
async def test_restore_behind_a_transaction_that_does_not_end_is_unavailable() -> None:
    log, store = Log.make(), MemoryStore()
    await log.restore(store)
    end = log.end()
    session = log.broker.init_producer("hung", 60.0)
    log.broker.produce_in_transaction(session, {CHANGELOG: OutputColumns([1], [b"a"], [b"2"])})
    with pytest.raises(UnavailableError, match=f"app-changelog-1-0: a transaction behind offset {end} is still open"):
        await log.restore(store)


@virtual_time
async def test_restore_leaves_out_what_was_aborted() -> None:
    log, store = Log.make(), MemoryStore()
    await log.restore(store)
    session = log.broker.init_producer("app-0", 10.0)
    log.broker.produce_in_transaction(session, {CHANGELOG: OutputColumns([1], [b"a"], [b"aborted"])})
    restored = await log.restore(store)  # its producer fences the other, which aborts what it had open
    assert (entries(store), restored.entries) == ({}, 0)
    assert store.position.next_offset <= log.end()


@virtual_time
async def test_restore_store_of_another_changelog_is_emptied() -> None:
    other, store = Log.make(), MemoryStore()
    await other.restore(store)
    await other.commit({b"foreign": b"1"})
    await other.restore(store)
    log = Log.make()
    await log.restore(MemoryStore())
    await log.commit({b"own": b"1"})
    restored = await log.restore(store)
    assert entries(store) == {b"own": b"1"}
    assert "another changelog" in restored.verdict


@virtual_time
async def test_restore_store_of_a_deleted_changelog_is_emptied() -> None:
    other, store = Log.make(), MemoryStore()
    await other.restore(store)
    await other.commit({b"old": b"1"})
    await other.restore(store)
    log = Log.make()
    restored = await log.restore(store)
    assert entries(store) == {}
    assert store.position.identity == restored.identity


@virtual_time
async def test_restore_store_that_may_have_missed_a_deletion_is_rebuilt() -> None:
    log, store, metrics = Log.make(), MemoryStore(), TaskMetrics()
    await log.restore(store)
    await log.commit({b"deleted": b"1", b"kept": b"1"})
    await log.restore(store)
    await log.commit({b"deleted": None})
    await asyncio.sleep(2 * DELETE_RETENTION_MS / 1_000)
    await log.commit({b"more": b"1"})
    log.broker.compact(CHANGELOG.topic)
    await asyncio.sleep(2 * DELETE_RETENTION_MS / 1_000)
    log.broker.compact(CHANGELOG.topic)  # the tombstone is forgotten now
    restored = await log.restore(store, metrics)
    assert entries(store) == {b"kept": b"1", b"more": b"1"}
    assert metrics.rebuilds == 1
    assert "may forget deletions" in restored.verdict


@virtual_time
async def test_restore_cancelled_and_begun_again_comes_to_the_same_end() -> None:
    log = Log.make(fetch_records_max=1)
    await log.restore(MemoryStore())
    for number in range(30):
        await log.commit({b"k%d" % number: b"v"})
    store = MemoryStore()
    for turns in (5, 17, 40):
        attempt = asyncio.create_task(log.restore(store))
        for _ in range(turns):
            await asyncio.sleep(0)
        attempt.cancel()
        await asyncio.wait([attempt])
    await log.restore(store)
    assert entries(store) == {b"k%d" % number: b"v" for number in range(30)}


@virtual_time
async def test_restore_during_which_another_owner_writes_is_fenced() -> None:
    """Compaction may take away what this restore still had to read: what it has read then is the state of no moment."""
    log = Log.make(fetch_records_max=1)
    await log.restore(MemoryStore())
    await log.commit({b"a": b"1"})
    await log.commit({b"b": b"1"})
    store, producer = MemoryStore(), await log.transport.open_producer("app-0")
    log.transport = OvertakenTransport(log)
    with pytest.raises(FencedError, match="another owner"):
        await restore(log.transport, producer, store, CHANGELOG, clock=log.clock, metrics=TaskMetrics())
    await log.restore(store)
    assert entries(store) == {b"a": b"1", b"b": b"2"}


@virtual_time
async def test_restore_topic_that_something_else_writes_is_a_config_error() -> None:
    log = Log.make()
    log.broker.produce({CHANGELOG: OutputColumns([1], [b"a"], [b"b"])})
    with pytest.raises(ConfigError, match="not the identity of a changelog"):
        await log.restore(MemoryStore())


@virtual_time
async def test_restore_changelog_of_a_later_format_is_a_config_error() -> None:
    log = Log.make()
    key, _ = identity_record(UUID(int=1))
    log.broker.produce({CHANGELOG: OutputColumns([1], [key], [b"\xff" * 21])})
    with pytest.raises(ConfigError, match="this version reads format"):
        await log.restore(MemoryStore())


@virtual_time
async def test_restore_large_batches_go_through_a_thread_in_order() -> None:
    log = Log.make()
    await log.restore(MemoryStore())
    await log.commit({b"k%05d" % number: b"old" for number in range(3_000)})
    await log.commit({b"k%05d" % number: b"new" for number in range(3_000)})
    store = MemoryStore()
    await log.restore(store)
    assert set(entries(store).values()) == {b"new"}
    assert store.position == Position(store.position.identity, log.end(), store.position.time_ms)
