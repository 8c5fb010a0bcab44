"""The runner on the memory broker: exactly once through every failure of design rules 1 to 4 and 15."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from engine import Context, Record, Sink, Stream
from engine.errors import ConfigError, StateError
from engine.records import OutputColumns, RecordBatch, TopicPartition
from engine.runtime.lifecycle import Phase
from engine.runtime.runner import Runner
from engine.runtime.transport.memory import MemoryTransport
from engine.runtime.transport.memory_broker import MemoryBroker
from engine.runtime.transport.memory_connection import Fault
from engine.task import Task
from engine.testing.clock import LoopClock, virtual_loop, virtual_time
from engine.topics import TopicSpec
from engine.topology import Topology
from engine.watermarks import bounded
from state.hashing import partition_of
from state.memory import MemoryStore
from state.store import Position
from tests.engine.runtime.worker_world import FAST, Click, Farewell, Script, World, eventually, numbering


@virtual_time
async def test_runner_records_in_are_numbered_and_committed() -> None:
    world = World(numbering())
    worker = world.worker()
    world.click("ann", times=3)
    world.click("bob", times=2)
    await world.until(ann=3, bob=2)
    await worker.stop()
    assert world.broker.group("app").offsets == {TopicPartition("clicks", 0): 5}  # both users live in partition 0


@virtual_time
async def test_runner_restarted_goes_on_with_its_state() -> None:
    world = World(numbering())
    first = world.worker()
    world.click("ann", times=3)
    await world.until(ann=3)
    await first.stop()
    world.click("ann", times=2)
    second = world.worker("w2", disk=first.disk)
    await world.until(ann=5)
    assert second.runner.metrics.total("restored_entries") == 0
    await second.stop()


@virtual_time
async def test_runner_killed_between_commits_repeats_nothing() -> None:
    world = World(numbering())
    first = world.worker()
    world.click("ann", times=3)
    await world.until(ann=3)
    world.click("ann", times=4)
    await first.kill()
    second = world.worker("w2", disk=first.disk)
    await world.until(ann=7)
    await second.stop()


@virtual_time
async def test_runner_crash_between_transaction_and_store_restores_the_tail() -> None:
    world = World(numbering(partitions=1))
    store = FailingStore(after=2)
    worker = world.worker()
    worker.open_store = lambda number: store.reopened()
    for count in range(1, 6):
        world.click("ann")
        await world.until(ann=count)
    assert store.failures == 1
    assert worker.runner.metrics.total("restored_entries") > 0
    await worker.stop()


@virtual_time
async def test_runner_task_closed_while_it_empties_its_unreadable_store_ends_well() -> None:
    world = World(numbering(partitions=1))
    store = UnreadableStore()
    first = world.worker()
    first.open_store = lambda number: store
    world.click("ann", times=2)
    await world.until(ann=2)
    virtual_loop().thread_delay_s = 1.0
    store.broken = True
    world.click("bob")
    await eventually(lambda: store.emptied)
    task = first.runner.tasks[0]
    await task.close(5.0)
    assert task.phase is Phase.CLOSED and task.outcome() is None
    await first.stop()
    second = world.worker("w2")
    await world.until(ann=2, bob=1)
    await second.stop()


@virtual_time
async def test_runner_lost_disk_rebuilds_from_the_changelog() -> None:
    world = World(numbering())
    first = world.worker()
    world.click("ann", times=3)
    await world.until(ann=3)
    await first.kill()
    second = world.worker("w2")
    world.click("ann")
    await world.until(ann=4)
    assert second.runner.metrics.total("rebuilds") == 2
    await second.stop()


@virtual_time
async def test_runner_old_disk_catches_up_before_it_reads_input() -> None:
    world = World(numbering(partitions=1))
    first = world.worker("w1")
    world.click("ann", times=2)
    await world.until(ann=2)
    await first.stop()
    second = world.worker("w2")
    world.click("ann", times=2)
    await world.until(ann=4)
    await second.stop()
    third = world.worker("w3", disk=first.disk)
    world.click("ann")
    await world.until(ann=5)
    metrics = third.runner.metrics
    assert metrics.total("rebuilds") == 0 and metrics.total("restored_entries") > 0
    await third.stop()


@virtual_time
async def test_runner_disk_older_than_half_the_delete_retention_is_rebuilt() -> None:
    world = World(numbering(partitions=1))
    first = world.worker("w1")
    world.click("ann", times=2)
    await world.until(ann=2)
    await first.stop()
    await asyncio.sleep(4 * 86_400)
    second = world.worker("w2", disk=first.disk)
    world.click("ann")
    await world.until(ann=3)
    assert second.runner.metrics.total("rebuilds") == 1
    await second.stop()


@virtual_time
async def test_runner_disk_of_another_changelog_is_rebuilt() -> None:
    elsewhere = World(numbering(partitions=1))
    other = elsewhere.worker()
    elsewhere.click("ann", times=9)
    await elsewhere.until(ann=9)
    await other.stop()
    world = World(numbering(partitions=1))
    first = world.worker()
    world.click("ann", times=2)
    await world.until(ann=2)
    await first.stop()
    second = world.worker("w2", disk=other.disk)
    world.click("ann")
    await world.until(ann=3)
    assert second.runner.metrics.total("rebuilds") == 1
    await second.stop()


@virtual_time
async def test_runner_fenced_in_mid_transaction_commits_nothing_of_it() -> None:
    world = World(numbering(partitions=1))
    slow = Script({("end_txn", 2): Fault(delay_s=1.0)})
    worker = world.worker(faults=slow)
    await worker.until_running(0)
    world.click("ann", times=3)
    await eventually(lambda: slow.seen["end_txn"] == 2)
    world.broker.init_producer("app-0", 10.0)
    await world.until(ann=3)
    assert worker.runner.metrics.total("commit_failures") == 1
    assert worker.runner.metrics.total("opens") == 2
    await worker.stop()


@virtual_time
@pytest.mark.parametrize("half", ["request", "answer"])
async def test_runner_commit_in_doubt_is_settled_by_the_changelog(half: str) -> None:
    world = World(numbering(partitions=1))
    faults = Script({("end_txn", 2): Fault(lost=half)})  # type: ignore[arg-type]
    worker = world.worker(faults=faults)
    await worker.until_running(0)
    world.click("ann", times=3)
    await world.until(ann=3)
    world.click("ann", times=2)
    await world.until(ann=5)
    assert worker.runner.metrics.total("commit_failures") == 1
    await worker.stop()


@virtual_time
async def test_runner_after_a_failed_commit_waits_until_its_membership_is_confirmed() -> None:
    world = World(numbering(partitions=1))
    faults = Script({("end_txn", 2): Fault(lost="request")})
    worker = world.worker(faults=faults)
    await worker.until_running(0)
    world.click("ann")
    await eventually(lambda: worker.runner.metrics.total("commit_failures") == 1)
    failed_s = world.clock.monotonic_s()
    await eventually(lambda: worker.runner.metrics.total("opens") == 2)
    assert worker.transport.membership_confirmed_s() > failed_s - 0.05
    await world.until(ann=1)
    await worker.stop()


@virtual_time
async def test_runner_second_worker_joins_tasks_move_and_nothing_is_lost() -> None:
    world = World(numbering(partitions=4))
    first = world.worker("w1")
    await first.until_running(0, 1, 2, 3)
    users = {f"user{n}": 3 for n in range(8)}
    for user in users:
        world.click(user, times=2)
    second = world.worker("w2")
    for user in users:
        world.click(user)
    await world.until(**users)
    await eventually(lambda: len(first.running_numbers()) == len(second.running_numbers()) == 2)
    await second.stop()
    for user in users:
        world.click(user)
    await world.until(**dict.fromkeys(users, 4))
    await first.stop()


@virtual_time
async def test_runner_rebalance_during_a_restore_cancels_it_and_the_next_owner_finishes() -> None:
    world = World(numbering(partitions=2))
    first = world.worker("w1")
    world.click("ann", times=5)
    world.click("bob", times=5)
    await world.until(ann=5, bob=5)
    await first.stop()
    slow = SlowReads(5.0)
    second = world.worker("w2", faults=slow)
    await eventually(lambda: slow.reading)
    third = world.worker("w3")
    await eventually(lambda: second.runner.metrics.rebalances >= 2)
    assert second.runner.metrics.total("opens") == 0
    slow.delay_s = 0.0
    world.click("ann")
    world.click("bob")
    await world.until(ann=6, bob=6)
    await second.stop()
    await third.stop()


@virtual_time
async def test_runner_frozen_worker_that_wakes_up_does_not_double_anything() -> None:
    world = World(numbering(partitions=1))
    frost = Frost(world)
    zombie = world.worker("w1", faults=frost, limits=replace(FAST, stall_ms=None))  # a frozen process has no watchdog either
    world.click("ann")
    await world.until(ann=1)
    world.click("ann", times=2)
    frost.thaws_s = world.clock.monotonic_s() + 60  # its next requests, a commit among them, arrive a minute late
    other = world.worker("w2")
    world.click("ann")
    await world.until(ann=4)
    assert other.running_numbers() == [0]
    await asyncio.sleep(90)
    world.click("ann")
    await world.until(ann=5)
    assert zombie.runner.metrics.total("commit_failures") >= 1
    await zombie.stop()
    await other.stop()


@virtual_time
async def test_runner_repartitioned_records_are_numbered_once_by_their_new_key() -> None:
    world = World(numbering(partitions=3, repartition=True))
    worker = world.worker()
    for user in ("ann", "bob", "cleo", "dora"):
        world.click(user, "home", times=5)
        world.click(user, "cart", times=2)
    await world.until(home=20, cart=8)
    await worker.stop()


@virtual_time
async def test_runner_commit_of_control_records_alone_leaves_the_state_where_it_is() -> None:
    world = World(numbering(repartition=True))
    worker = world.worker()
    for second in range(3):
        world.click("ann", page="p", ts=second * 1_000)
        await asyncio.sleep(0.3)  # the watermark moves, and only the partition of the page is told at once
    changelog = [world.broker.log(TopicPartition(world.plan.changelog_topic, number)) for number in range(2)]
    await world.until(p=3)
    ends = [log.last_stable_offset for log in changelog]
    commits = worker.runner.metrics.total("commits")
    await eventually(lambda: worker.runner.metrics.total("commits") == commits + 1)  # the other one is told a second later
    assert [log.last_stable_offset for log in changelog] == ends
    await worker.stop()


@virtual_time
async def test_runner_purges_repartition_topics_behind_the_commit() -> None:
    world = World(numbering(partitions=1, repartition=True))
    worker = world.worker(limits=replace(FAST, purge_interval_s=2.0))
    world.click("ann", "home", times=5)
    await world.until(home=5)
    await asyncio.sleep(5)
    log = world.broker.log(TopicPartition(world.plan.internal_topics[0], 0))
    assert log.start >= 5
    world.click("ann", "home")
    await world.until(home=6)
    await worker.stop()


@virtual_time
async def test_runner_input_deleted_before_it_was_read_stops_the_task_with_a_message() -> None:
    world = World(numbering(partitions=1))
    first = world.worker()
    world.click("ann", times=2)
    await world.until(ann=2)
    await first.stop()
    world.click("ann", times=5)
    world.broker.delete_records({TopicPartition("clicks", 0): 5})
    second = world.worker("w2", disk=first.disk)
    await eventually(lambda: 0 in second.runner.tasks and second.runner.tasks[0].phase is Phase.FAILED)
    failure = second.runner.tasks[0].failure
    assert failure is not None and "ends at offset 2" in failure and "begins at 5" in failure
    assert world.numbers() == {"ann": [1, 2]}
    await second.stop()


@virtual_time
async def test_runner_group_offsets_that_differ_are_overridden_by_the_state() -> None:
    world = World(numbering(partitions=1))
    first = world.worker()
    world.click("ann", times=3)
    await world.until(ann=3)
    await first.stop()
    world.broker.group("app").offsets[TopicPartition("clicks", 0)] = 0
    second = world.worker("w2", disk=first.disk)
    world.click("ann")
    await world.until(ann=4)
    await second.stop()


@virtual_time
async def test_runner_full_queue_pauses_and_goes_on() -> None:
    world = World(numbering(partitions=1))
    worker = world.worker(limits=replace(FAST, queue_records_max=10, piece_records_max=16))
    await worker.until_running(0)
    for _ in range(20):
        world.click("ann", times=25)
        await asyncio.sleep(0.01)
    await world.until(ann=500)
    await worker.stop()


@virtual_time
async def test_runner_commit_of_one_task_does_not_stop_the_other() -> None:
    world = World(numbering(partitions=2))
    hang = Hang("app-0")
    worker = world.worker(faults=hang)
    await worker.until_running(0, 1)
    users = _users_by_partition(2)
    hang.on = True
    world.click(users[0])
    await eventually(lambda: hang.hung)
    world.click(users[1], times=3)
    await eventually(lambda: world.numbers().get(users[1]) == [1, 2, 3])
    assert users[0] not in world.numbers()
    hang.on = False
    await world.until(**{users[0]: 1, users[1]: 3})
    await worker.stop()


@virtual_time
async def test_runner_user_error_under_fail_ends_the_worker_after_the_others_committed() -> None:
    world = World(numbering(partitions=1, on_error="fail"))
    worker = world.worker()
    await worker.until_running(0)
    world.click("ann", times=2)
    await world.until(ann=2)
    world.broker.produce({TopicPartition("clicks", 0): OutputColumns([1], [b"ann"], [b"not json"])})
    with pytest.raises(Exception, match=r"(?i)json"):
        await worker.running
    assert world.numbers() == {"ann": [1, 2]}


@virtual_time
async def test_runner_flushes_a_changed_store_once_a_checkpoint_interval() -> None:
    world = World(numbering(partitions=1))
    store = FlushedStore()
    worker = world.worker(limits=replace(FAST, checkpoint_interval_ms=10_000))
    worker.open_store = lambda _: store
    await worker.until_running(0)
    world.click("ann")
    await asyncio.sleep(35)
    assert store.flushes == 1
    world.click("ann")
    await asyncio.sleep(35)
    assert store.flushes == 2
    await worker.stop()


@virtual_time
async def test_runner_revoked_in_a_commit_that_hangs_lets_go_within_the_bound() -> None:
    world = World(numbering(partitions=1))
    stuck = Script({("end_txn", 2): Fault(delay_s=300.0)})
    first = world.worker("w1", faults=stuck, limits=replace(FAST, close_timeout_s=2.0))
    await first.until_running(0)
    world.click("ann", times=3)
    await eventually(lambda: stuck.seen["end_txn"] == 2)
    second = world.worker("w2")
    await world.until(ann=3)
    assert world.clock.monotonic_s() < 60
    await second.stop()
    await first.stop()


@virtual_time
async def test_runner_input_deleted_under_a_running_task_stops_it_with_a_message() -> None:
    world = World(numbering(partitions=1))
    frost = Frost(world)
    worker = world.worker(faults=frost)
    world.click("ann", times=2)
    await world.until(ann=2)
    frost.thaws_s = world.clock.monotonic_s() + 3.0
    world.click("ann", times=5)
    await asyncio.sleep(1.0)
    world.broker.delete_records({TopicPartition("clicks", 0): 4})
    await eventually(lambda: worker.runner.tasks[0].failure is not None)
    assert "begins at 4" in str(worker.runner.tasks[0].failure)
    await worker.stop()


@virtual_time
async def test_runner_stop_commits_what_has_been_processed() -> None:
    world = World(numbering(partitions=1))
    worker = world.worker(limits=replace(FAST, commit_interval_ms=600_000))
    await worker.until_running(0)
    world.click("ann", times=3)
    await eventually(lambda: worker.runner.metrics.total("records") == 3)
    assert world.numbers() == {}
    await worker.stop()
    assert world.numbers() == {"ann": [1, 2, 3]}


@virtual_time
async def test_runner_missing_source_topic_is_a_config_error() -> None:
    clock = LoopClock(virtual_loop())
    transport = MemoryTransport(MemoryBroker(clock), group_id="app", clock=clock)
    runner = Runner(numbering().plan(), transport, open_store=lambda _: MemoryStore(), clock=clock)
    with pytest.raises(ConfigError, match="clicks"):
        await runner.run()


@virtual_time
async def test_runner_killed_in_mid_transaction_holds_readers_up_for_ten_seconds_at_most() -> None:
    """Nobody takes over, so nobody fences: the transaction's own time-out must end it."""
    world = World(numbering(partitions=1))
    stuck = Script({("end_txn", 2): Fault(delay_s=300.0)})
    worker = world.worker(faults=stuck)
    await worker.until_running(0)
    world.click("ann")
    await eventually(lambda: stuck.seen["end_txn"] == 2)
    await worker.kill()
    log = world.broker.log(TopicPartition("numbers", 0))
    assert log.last_stable_offset < log.high_watermark
    await asyncio.sleep(10.0)
    world.broker.expire()
    assert log.last_stable_offset == log.high_watermark


@virtual_time
async def test_runner_without_a_heartbeat_after_a_fence_does_not_fence_back() -> None:
    """What fenced it may be the rightful owner: only a heartbeat or join from after the error says otherwise."""
    world = World(numbering(partitions=1))
    silence = Silence()
    worker = world.worker(faults=silence)
    await worker.until_running(0)
    silence.on = True
    await asyncio.sleep(2.5)
    world.broker.init_producer("app-0", 10.0)
    world.click("ann")
    await eventually(lambda: worker.runner.metrics.total("commit_failures") == 1)
    await asyncio.sleep(4.0)
    assert worker.runner.metrics.total("opens") == 1
    silence.on = False
    await world.until(ann=1)
    await worker.stop()


@virtual_time
async def test_runner_long_batch_is_cut_and_the_loop_goes_round_between_the_pieces() -> None:
    world = World(numbering(partitions=1))
    pieces: list[int] = []
    turns: list[int] = []

    async def deliver(pipelines: Sequence[str], batch: RecordBatch, task: Task) -> None:
        pieces.append(len(batch))
        turns.append(turned)
        for pipeline in pipelines:
            task.process(pipeline, batch, world.clock.now_ms())

    turned = 0

    async def turn() -> None:
        nonlocal turned
        while True:
            turned += 1
            await asyncio.sleep(0)

    worker = world.worker(limits=replace(FAST, piece_records_max=100), deliver=deliver)
    await worker.until_running(0)
    turning = asyncio.create_task(turn())
    world.click("ann", times=1_000)
    while sum(pieces) < 1_000:  # noqa: ASYNC110  # turn by turn
        await asyncio.sleep(0)
    turning.cancel()
    assert max(pieces) == 100 and len(pieces) == 10
    assert len(set(turns)) == 10
    await world.until(ann=1_000)
    await worker.stop()


@virtual_time
async def test_runner_jump_of_the_wall_clock_is_no_idle_time() -> None:
    topology = Topology("app", partitions=1)
    clicks = topology.source("clicks", Click, key="user", time="ts", watermark=bounded("0s", idle="10s"))
    topology.pipeline(clicks, name="farewell")(lambda clicks: clicks.process(Farewell).to("numbers"))
    world = World(topology)
    clock = world.clock = JumpingClock(virtual_loop())
    worker = world.worker()
    await worker.until_running(0)
    world.click("ann")
    await asyncio.sleep(5.0)
    clock.offset_ms = 3_600_000
    await asyncio.sleep(50.0)
    assert world.numbers() == {}
    await asyncio.sleep(20.0)
    assert world.numbers() == {"ann": [1]}
    await worker.stop()


class JumpingClock(LoopClock):
    """A wall clock that can be set."""

    offset_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.offset_ms


class FailingStore(MemoryStore):
    """A disk that is full once: the n-th apply with changes fails after the transaction has gone through."""

    def __init__(self, *, after: int) -> None:
        super().__init__()
        self.left = after
        self.failures = 0

    def apply(self, changes, position: Position) -> None:  # type: ignore[no-untyped-def]
        changes = list(changes)
        if changes and not self.failures:
            self.left -= 1
            if self.left == 0:
                self.failures += 1
                raise StateError("disk full")
        super().apply(changes, position)

    def reopened(self) -> "FailingStore":
        self.reopen()
        return self


class UnreadableStore(MemoryStore):
    """A store that cannot be read any more once it is `broken`, until it is emptied."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = self.emptied = False

    def get(self, key: bytes) -> bytes | None:
        if self.broken:
            raise StateError("block damaged")
        return super().get(key)

    def clear(self) -> None:
        super().clear()
        self.emptied = True


class FlushedStore(MemoryStore):
    """Counts flushes."""

    def __init__(self) -> None:
        super().__init__()
        self.flushes = 0

    def flush(self) -> None:
        self.flushes += 1


class SlowReads:
    """Every read of a changelog takes long."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.reading = False

    def on_request(self, request: str, client_id: str) -> Fault:
        if request == "fetch":
            self.reading = True
            return Fault(delay_s=self.delay_s)
        return Fault()


class Frost:
    """A process that stands still: what it asks for takes effect only when it thaws."""

    def __init__(self, world: World) -> None:
        self._clock = world.clock
        self.thaws_s = 0.0

    def on_request(self, request: str, client_id: str) -> Fault:
        return Fault(delay_s=max(0.0, self.thaws_s - self._clock.monotonic_s()))


class Silence:
    """No heartbeat arrives while `on`, everything else does."""

    def __init__(self) -> None:
        self.on = False

    def on_request(self, request: str, client_id: str) -> Fault:
        return Fault(lost="request") if self.on and request in ("heartbeat", "join_group", "sync_group") else Fault()


class Hang:
    """The first commit while `on` hangs until `on` is switched off (up to 9 s)."""

    def __init__(self, transactional_id: str) -> None:
        self.on = self.hung = False

    def on_request(self, request: str, client_id: str) -> Fault:
        if request == "end_txn" and self.on and not self.hung:
            self.hung = True
            return Fault(delay_s=5.0)
        return Fault()


def _users_by_partition(partitions: int) -> dict[int, str]:
    found: dict[int, str] = {}
    for n in range(100):
        found.setdefault(partition_of(f"user{n}".encode(), partitions), f"user{n}")
    return found


@virtual_time
async def test_runner_creates_a_side_topic_that_no_declaration_names() -> None:
    topology = Topology("app", partitions=2)
    clicks = topology.source("clicks", Click, key="user", time="ts")

    def aside(record: Record[str, Click], ctx: Context) -> None:
        ctx.side("pages", record.value.page)

    @topology.pipeline(clicks)
    def number(clicks: Stream[str, Click]) -> Sink:
        return clicks.process(aside).to("numbers")

    world = World(topology)
    worker = world.worker()
    world.click("ann", "home")
    await eventually(lambda: "pages" in world.broker.topics())
    assert [value for batch in world.read("pages") for value in batch.values] == [b'"home"']
    await worker.stop()


@virtual_time
async def test_runner_output_that_does_not_fit_its_topic_stops_the_task_with_a_message() -> None:
    topology = Topology("app", partitions=2)
    clicks = topology.source("clicks", Click, key="user", time="ts")
    topology.pipeline(clicks, name="number")(lambda s: s.process(lambda record, ctx: ctx.side("pages", 1)).to("numbers"))
    world = World(topology)
    world.broker.ensure_topic(TopicSpec("pages", 5))
    worker = world.worker()
    world.click("ann", "home")
    number = partition_of(b"ann", 2)
    await eventually(lambda: number in worker.runner.tasks and worker.runner.tasks[number].phase is Phase.FAILED)
    assert "pages" in str(worker.runner.tasks[number].failure)
    await worker.stop()


@virtual_time
async def test_runner_metrics_show_lag_and_watermark_of_each_task_also_right_after_a_restart() -> None:
    world = World(numbering())
    first = world.worker()
    world.click("ann", ts=5_000, times=3)
    await world.until(ann=3)
    await eventually(lambda: first.runner.metrics.task(0).lag == {"clicks": 0, "app-control": 0})
    shown = first.runner.metrics.render().decode()
    assert 'streamforge_watermark_ms{input="number/clicks",task="0"} 4999.0' in shown
    assert 'streamforge_lag{task="0",topic="clicks"} 0.0' in shown
    assert 'streamforge_watermark_ms{input="number/clicks",task="1"}' not in shown  # no record yet: it has no time
    await first.stop()
    second = world.worker("w2", disk=first.disk)
    await second.until_running(0, 1)
    assert second.runner.metrics.task(0).watermark_ms == {"number/clicks": 4_999}
    await second.stop()
