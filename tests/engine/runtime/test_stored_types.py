"""A worker whose code no longer fits its state: it ends with the state's name, and leaves a sound store as it is."""

import asyncio

import msgspec
import pytest

from engine.errors import StoredTypeError
from engine.records import OutputColumns, TopicPartition
from engine.testing.clock import virtual_time
from engine.topology import Topology
from engine.watermarks import bounded
from state.memory import MemoryStore
from tests.engine.runtime.worker_world import World, eventually


class Old(msgspec.Struct, frozen=True):
    """A record as it was."""

    key: str
    size: str
    ts: int


class New(msgspec.Struct, frozen=True):
    """A record as it is now."""

    key: str
    size: int
    ts: int


def pairing(kept: type[msgspec.Struct]) -> Topology:
    """Return an app that joins two streams, whose records wait for each other in state."""
    topology = Topology("app", partitions=1)
    left, right = (topology.source(name, kept, key="key", time="ts", watermark=bounded("1h")) for name in ("left", "right"))
    topology.pipeline(left, right, name="work")(lambda left, right: left.join(right, within=("-1m", "1m")).to("pairs"))
    return topology


class Watched(MemoryStore):
    """A store that says when it is emptied."""

    cleared = 0

    def clear(self) -> None:
        super().clear()
        self.cleared += 1


def send(world: World, topic: str, record: msgspec.Struct) -> None:
    world.broker.produce({TopicPartition(topic, 0): OutputColumns([1_000], [b"ann"], [msgspec.json.encode(record)])})


@virtual_time
async def test_worker_with_another_type_ends_and_the_old_code_goes_on_with_the_state_that_it_had() -> None:
    world = World(pairing(Old))
    disk: dict[int, MemoryStore] = {0: Watched()}
    worker = world.worker(disk=disk)
    send(world, "left", Old("ann", "41", 1_000))
    await eventually(lambda: 0 in worker.runner.tasks and worker.runner.metrics.task(0).lag.get("left") == 0)
    await worker.stop()
    plan = world.plan
    world.plan = pairing(New).plan()
    second = world.worker("w2", disk=disk)
    send(world, "right", New("ann", 42, 1_000))
    with pytest.raises(StoredTypeError, match=r"state 'work/join/left': a stored value does not fit .*Expected `int`, got `str`"):
        await asyncio.wait_for(second.running, 60.0)
    world.plan = plan
    third = world.worker("w3", disk=disk)
    send(world, "right", Old("ann", "43", 1_000))
    await eventually(lambda: any(batch.values for batch in world.read("pairs")))
    (batch,) = world.read("pairs")
    assert [msgspec.json.decode(value or b"")[0]["size"] for value in batch.values] == ["41"]
    assert [store.cleared for store in disk.values() if isinstance(store, Watched)] == [0]
    assert world.read("app-dlq")[0].values != [], "what only the new code can read is a bad record for the old one"
    await third.stop()
