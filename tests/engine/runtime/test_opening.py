"""Opening a task: the fence comes first, so that whoever had the task before can commit nothing any more (design rule 2)."""

from collections.abc import Sequence

from engine.errors import FencedError
from engine.records import OutputColumns, TopicPartition
from engine.runtime.transport.memory import MemoryTransport
from engine.runtime.transport.open_transactions import OpenTransaction
from engine.testing.clock import virtual_time
from tests.engine.runtime.worker_world import World, numbering


@virtual_time
async def test_owner_before_commits_nothing_while_the_next_one_opens() -> None:
    world = World(numbering(partitions=1))
    first = world.worker()
    world.click("ann", times=2)
    await world.until(ann=2)
    await first.stop()
    zombie = MemoryTransport(world.broker, group_id="app", client_id="zombie", clock=world.clock)
    producer = await zombie.open_producer(world.plan.transactional_id(0))
    second = world.worker("w2", disk=first.disk)
    last_step = second.transport.committed_offsets
    outcomes: list[str] = []

    async def with_zombie(partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        answer: dict[TopicPartition, int] = await last_step(partitions)
        if not outcomes:
            row = OutputColumns([world.clock.now_ms()], [b"ann"], [b'{"key": "ann", "number": 3}'])
            try:
                await producer.commit({TopicPartition("numbers", 0): row}, {})
                outcomes.append("committed")
            except FencedError:
                outcomes.append("fenced")
        return answer

    second.transport.committed_offsets = with_zombie  # type: ignore[method-assign]  # the last thing that is asked before the task runs
    world.click("ann")
    await world.until(ann=3)
    assert outcomes == ["fenced"]
    await second.stop()


@virtual_time
async def test_changelog_and_every_output_are_looked_at_for_what_hangs() -> None:
    world = World(numbering(partitions=2))
    worker = world.worker()
    looks = worker.transport.open_transactions
    looked: dict[int, set[TopicPartition]] = {}

    async def noting(partitions: Sequence[TopicPartition], producer_id: int | None = None) -> list[OpenTransaction]:
        number = next(partition.partition for partition in partitions if partition.topic == world.plan.changelog_topic)
        looked.setdefault(number, set()).update(partitions)
        return await looks(partitions, producer_id)

    worker.transport.open_transactions = noting  # type: ignore[method-assign]
    world.click("ann")
    await world.until(ann=1)
    await worker.stop()
    outputs = {TopicPartition(topic, number) for topic in ("numbers", world.plan.dead_letter_topic) for number in range(2)}
    assert set(looked) == {0, 1}
    for number, partitions in looked.items():
        assert outputs | {TopicPartition(world.plan.changelog_topic, number)} <= partitions
