"""The runner on the memory broker: exactly once by design rules 1 to 4 and 15; its failures are in test_runner_failures."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from engine import Context, Record, Sink, Stream
from engine.errors import ConfigError
from engine.records import OutputColumns, RecordBatch, TopicPartition
from engine.runtime.lifecycle import Phase
from engine.runtime.runner import Runner
from engine.runtime.transport.memory import MemoryTransport
from engine.runtime.transport.memory_broker import MemoryBroker
from engine.task import Task
from engine.testing.clock import LoopClock, virtual_loop, virtual_time
from engine.topics import TopicSpec
from engine.topology import Topology
from engine.watermarks import bounded
from state.hashing import partition_of
from state.memory import MemoryStore
from tests.engine.runtime.runner_faults import (
    FlushedStore,
    Frost,
    Hang,
    JumpingClock,
    users_by_partition,
)
from tests.engine.runtime.worker_world import FAST, Click, Farewell, World, eventually, numbering


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
    users = users_by_partition(2)
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
