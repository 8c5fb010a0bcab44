"""Savepoints on the memory broker: taken while workers run, restored into the same app, changed code, other numbers of partitions."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.errors import ConfigError, FencedError, StateError, UnavailableError
from engine.operators.repartition import BARRIER_HEADERS, Barrier, Control
from engine.records import TopicPartition
from engine.restoring import Words
from engine.runtime.savepoint_restoring import Restored, restore_savepoint
from engine.runtime.savepoint_taking import Wish, take_savepoint
from engine.runtime.transport.memory import MemoryTransport
from engine.task import catalog_of
from engine.testing.clock import virtual_time
from engine.topology import Topology
from state.catalog import Entry, entries_of
from state.hashing import partition_of
from state.remote import open_folder
from state.savepoint import Manifest, read_entries, verify_savepoint
from tests.engine.runtime.worker_world import Worker, World, eventually, numbering

pytestmark = pytest.mark.thorough


async def take(world: World, folder: Path, name: str = "one", **options: Any) -> Manifest:
    """Take a savepoint with a client of its own."""
    transport = MemoryTransport(world.broker, group_id="", client_id="cli", clock=world.clock)
    await transport.start()
    try:
        return await take_savepoint(transport, world.plan, Wish(name, str(folder), **options), world.clock)
    finally:
        await transport.stop()


async def restore(world: World, folder: Path, topology: Topology, name: str = "one", **options: Any) -> Restored:
    """Restore a savepoint with a client of its own; the world goes on with the app as it is then."""
    transport = MemoryTransport(world.broker, group_id="", client_id="cli", clock=world.clock)
    await transport.start()
    try:
        restored = await restore_savepoint(transport, topology.plan(), open_folder(folder / name), world.clock, **options)
    finally:
        await transport.stop()
    world.plan = topology.plan()
    return restored


def entries(world: World, folder: Path, manifest: Manifest) -> list[Entry]:
    """Return what keys have in a savepoint."""
    catalog, place = catalog_of(world.plan), open_folder(folder / manifest.name)
    return [entry for part in manifest.parts for entry in entries_of(catalog, read_entries(place, part))]


async def numbered(world: World, expected: dict[str, int]) -> None:
    """Wait until each key has been numbered up to its count; its numbers may lie in several partitions of a topic that has grown."""
    wanted = {key: list(range(1, count + 1)) for key, count in expected.items()}

    def found() -> dict[str, list[int]]:
        return {key: sorted(numbers) for key, numbers in world.numbers().items()}

    try:
        await eventually(lambda: found() == wanted)
    except TimeoutError:
        assert found() == wanted


def failures(worker: Worker) -> list[str]:
    return [task.failure for _, task in sorted(worker.runner.tasks.items()) if task.failure is not None]


@virtual_time
async def test_savepoint_of_a_running_app_is_taken_and_the_app_goes_on(tmp_path: Path) -> None:
    world = World(numbering(3, repartition=True))
    workers = [world.worker("w1"), world.worker("w2")]
    users = [f"user-{n}" for n in range(20)]
    for user in users:
        world.click(user, page=f"page-{user[-1]}")
    await asyncio.sleep(1)
    taking = asyncio.create_task(take(world, tmp_path, who="eve", why="before the upgrade"))
    for user in users:
        world.click(user, page=f"page-{user[-1]}")
        await asyncio.sleep(0.05)
    manifest = await taking
    assert (manifest.who, manifest.why, manifest.partitions, manifest.epoch) == ("eve", "before the upgrade", 3, 1)
    assert manifest.pause_ms < 2_000
    assert verify_savepoint(open_folder(tmp_path / "one")) == manifest
    assert all(part.offsets.keys() == {"clicks", "app-control"} for part in manifest.parts)
    await world.until(**{f"page-{n}": 4 for n in range(10)})
    counts = [entry.shown() for entry in entries(world, tmp_path, manifest) if entry.spec.name == "number/numbering/count"]
    assert sum(counts) == sum(part.offsets["clicks"] for part in manifest.parts) < 40  # what was read has arrived, and nothing more
    for worker in workers:
        await worker.stop()


@virtual_time
async def test_savepoint_restored_goes_on_where_it_was_taken(tmp_path: Path) -> None:
    topology = numbering(3, repartition=True)
    world = World(topology)
    worker = world.worker()
    for n in range(20):
        world.click(f"user-{n}", page=f"page-{n % 5}")
    await world.until(**{f"page-{n}": 4 for n in range(5)})
    await take(world, tmp_path, stop=True)
    await eventually(lambda: len(failures(worker)) == 3)
    assert "epoch 1 of app 'app' ended with savepoint 'one': restore it" in failures(worker)[0]
    for n in range(20):  # what comes meanwhile waits
        world.click(f"user-{n}", page=f"page-{n % 5}")
    await worker.stop()
    restored = await restore(world, tmp_path, topology)
    assert (restored.epoch.epoch, restored.epoch.savepoint) == (2, "one")
    assert restored.old_topics == ["app-changelog-1", "app-number-numbering-repartition-1"]
    again = world.worker("w2")
    await world.until(**{f"page-{n}": 8 for n in range(5)})
    assert again.runner.plan.changelog_topic == "app-changelog-2"
    await again.stop()


@virtual_time
async def test_savepoint_watermarks_stand_before_the_barriers(tmp_path: Path) -> None:
    """Told behind them, a watermark would close windows behind the cut, and the restored app would close them again."""
    world = World(numbering(3, repartition=True))
    worker = world.worker()
    for n in range(20):
        world.click(f"user-{n}", page=f"page-{n % 5}")
        await asyncio.sleep(0.05)
    await take(world, tmp_path, stop=True)
    barriers = 0
    for batch in world.read("app-number-numbering-repartition-1"):
        ended: set[int] = set()
        for key, value, headers in zip(batch.keys, batch.values, batch.headers, strict=True):
            if headers == BARRIER_HEADERS:
                ended.add(msgspec.json.decode(value or b"", type=Barrier).upstream)
            elif key is None:
                assert msgspec.json.decode(value or b"", type=Control).upstream not in ended
        barriers += len(ended)
    assert barriers == 9
    await worker.stop()


@pytest.mark.parametrize("repartition", [False, True])
@virtual_time
async def test_savepoint_of_2_partitions_restored_on_5_and_then_on_7_numbers_on(tmp_path: Path, repartition: bool) -> None:
    world = World(numbering(2, repartition=repartition))
    expected = {f"page-{n}" if repartition else f"user-{n}": 0 for n in range(11)}

    def click_all() -> None:
        for n in range(11):
            world.click(f"user-{n}", page=f"page-{n}")
            expected[f"page-{n}" if repartition else f"user-{n}"] += 1

    worker = world.worker()
    for partitions in (5, 7):
        for _ in range(3):
            click_all()
        await numbered(world, expected)
        await take(world, tmp_path, name=f"to-{partitions}", stop=True)
        await worker.stop()
        restored = await restore(world, tmp_path, numbering(partitions, repartition=repartition), name=f"to-{partitions}", grow=True)
        assert len(restored.entries) == partitions
        worker = world.worker(f"on-{partitions}")
        click_all()
        await numbered(world, expected)
        assert len(worker.runner.tasks) == partitions
    await worker.stop()


@virtual_time
async def test_savepoint_restore_refuses_what_does_not_fit_and_touches_nothing(tmp_path: Path) -> None:
    world = World(numbering(2))
    worker = world.worker()
    for n in range(8):
        world.click(f"user-{n}")
    await world.until(**{f"user-{n}": 1 for n in range(8)})
    await take(world, tmp_path)
    world.click("user-1", times=2)
    await world.until(**{f"user-{n}": 3 if n == 1 else 1 for n in range(8)})
    await worker.stop()
    topics = world.broker.topics()

    async def refused(topology: Topology, **options: Any) -> str:
        with pytest.raises((ConfigError, StateError)) as caught:
            await restore(world, tmp_path, topology, **options)
        assert world.broker.topics() == topics
        assert world.broker.partition_counts(["clicks"]) == {"clicks": 2}
        return str(caught.value)

    message = await refused(numbering(4))
    assert "topics app-audit" not in message and "clicks, numbers have fewer than 4 partitions; say --grow" in message
    number = partition_of(b"user-1", 2)
    misplaced = partition_of(b"user-1", 5) != number
    assert misplaced, "choose another user"
    assert f"clicks-{number} holds 2 records behind the savepoint that were placed" in await refused(numbering(5), grow=True)
    assert "cannot have fewer partitions" in await refused(numbering(1))
    other = Topology("other", partitions=2)
    assert "of app 'app', not of 'other'" in await refused(adopt(other))
    assert "operator number/numbering was 'process" in await refused(renamed(), words=Words())
    assert "--drop number/none: it had no state" in await refused(numbering(2), words=Words(drop=frozenset({"number/none"})))
    message = await refused(of_bytes())
    assert "state 'number/numbering/" in message and "the type of keys was str, and is bytes now" in message
    damaged = tmp_path / "one" / verify_savepoint(open_folder(tmp_path / "one")).parts[1].file
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\0")
    assert ".entries is damaged: its checksum" in await refused(numbering(2))
    (tmp_path / "one" / "_metadata.json").unlink()
    assert "is no savepoint" in await refused(numbering(2))


def adopt(topology: Topology) -> Topology:
    """Return another app with the same pipeline."""
    topology.sources, topology.pipelines = (like := numbering(2)).sources, like.pipelines
    return topology


def of_bytes() -> Topology:
    """Return the app with keys of another type."""
    from tests.engine.runtime.worker_world import Click, Numbering

    topology = Topology("app", partitions=2)
    clicks = topology.source("clicks", Click, key=lambda click: click.user.encode(), key_type=bytes, time="ts")
    topology.pipeline(clicks, name="number")(lambda clicks: clicks.process(Numbering, name="numbering").to("numbers"))
    return topology


def renamed() -> Topology:
    """Return the app with its operator called something else."""
    from tests.engine.runtime.worker_world import Click, Numbering

    topology = Topology("app", partitions=2)
    clicks = topology.source("clicks", Click, key="user", time="ts")

    @topology.pipeline(clicks)
    def number(clicks: Any) -> Any:
        return clicks.process(Numbering, name="other").to("numbers")

    return topology


@virtual_time
async def test_savepoint_restored_into_changed_code_with_a_word(tmp_path: Path) -> None:
    world = World(numbering(2))
    worker = world.worker()
    world.click("ann", times=3)
    await world.until(ann=3)
    await take(world, tmp_path, stop=True)
    await worker.stop()
    await restore(world, tmp_path, renamed(), words=Words(drop=frozenset({"number/numbering"})))
    again = world.worker("w2")
    world.click("ann")
    await eventually(lambda: world.numbers()["ann"] == [1, 2, 3, 1])  # its state was given up, its place in the input was not
    await again.stop()


@virtual_time
async def test_savepoint_with_a_new_source_topic_goes_on_with_the_state(tmp_path: Path) -> None:
    from tests.engine.runtime.worker_world import Click, Numbering

    world = World(numbering(2))
    worker = world.worker()
    world.click("ann", times=3)
    await world.until(ann=3)
    await take(world, tmp_path, stop=True)
    await worker.stop()
    topology = Topology("app", partitions=1)
    clicks = topology.source("clicks-1", Click, key="user", time="ts")

    @topology.pipeline(clicks)
    def number(clicks: Any) -> Any:
        return clicks.process(Numbering).to("numbers-1")

    world.broker.create_topic(next(spec for spec in topology.plan().topic_specs(create_sources=True) if spec.name == "clicks-1"))
    with pytest.raises(ConfigError, match="source clicks is not read any more"):
        await restore(world, tmp_path, topology)
    with pytest.raises(ConfigError, match="app-control has 2 partitions, more than 1"):
        await restore(world, tmp_path, topology, words=Words(replace={"clicks": "clicks-1"}))


@virtual_time
async def test_savepoint_is_given_up_when_a_task_is_not_there_and_the_app_goes_on(tmp_path: Path) -> None:
    world = World(numbering(2))
    with pytest.raises(UnavailableError, match="tasks 0, 1 said nothing within"):
        await take(world, tmp_path, cut_timeout_s=5)
    worker = world.worker()
    world.click("ann", times=3)
    await world.until(ann=3)  # the tasks find the request, wait for nobody, and find that it was given up
    await eventually(lambda: all(task.is_drained() for task in worker.runner.tasks.values()))
    assert not (tmp_path / "one").exists() or not (tmp_path / "one" / "_metadata.json").exists()
    await take(world, tmp_path, name="two")
    await worker.stop()


@virtual_time
async def test_savepoint_fails_when_a_worker_dies_meanwhile_and_nothing_is_lost(tmp_path: Path) -> None:
    world = World(numbering(4, repartition=True))
    first, second = world.worker("w1"), world.worker("w2")
    await eventually(lambda: len(first.running_numbers()) == len(second.running_numbers()) == 2)
    for n in range(40):
        world.click(f"user-{n}", page=f"page-{n % 8}")
    taking = asyncio.create_task(take(world, tmp_path))
    await asyncio.sleep(0.1)
    await second.kill()
    for n in range(40):
        world.click(f"user-{n}", page=f"page-{n % 8}")
    with pytest.raises(UnavailableError, match="no savepoint was taken"):
        await taking
    await world.until(**{f"page-{n}": 10 for n in range(8)})
    await take(world, tmp_path, name="two")
    await first.stop()


@virtual_time
async def test_savepoint_restore_is_fenced_by_a_worker_that_runs(tmp_path: Path) -> None:
    topology = numbering(2)
    world = World(topology)
    worker = world.worker()
    world.click("ann", times=2)
    await world.until(ann=2)
    await take(world, tmp_path)
    fenced = ""
    try:
        await restore(world, tmp_path, topology)
    except FencedError as error:
        fenced = str(error)
    if fenced:
        assert "stop all of them" in fenced
    else:  # the restore was faster than the worker, which then finds that its epoch is over
        await eventually(lambda: len(failures(worker)) == 2)
        assert "is in epoch 2, this worker runs epoch 1: restart it" in failures(worker)[0]
    await worker.stop()


@virtual_time
async def test_savepoint_older_than_its_sources_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    world = World(numbering(2))
    worker = world.worker()
    world.click("ann", times=3)
    await world.until(ann=3)
    manifest = await take(world, tmp_path)
    world.click("ann", times=3)
    await world.until(ann=6)
    await worker.stop()
    number = partition_of(b"ann", 2)
    clicks = TopicPartition("clicks", number)
    assert manifest.parts[number].offsets["clicks"] == 3
    world.broker.delete_records({clicks: 5})
    topics = set(world.broker.topics())
    with pytest.raises(
        ConfigError, match=rf"clicks-{number} begins at offset 5 now, the savepoint goes on at 3: 2 offsets were deleted unread"
    ):
        await restore(world, tmp_path, numbering(2))
    assert set(world.broker.topics()) == topics


@virtual_time
async def test_savepoint_of_another_topic_of_the_same_name_is_refused(tmp_path: Path) -> None:
    world = World(numbering(2))
    worker = world.worker()
    world.click("ann", times=3)
    await world.until(ann=3)
    await take(world, tmp_path, stop=True)
    await worker.stop()
    other = World(numbering(2))
    with pytest.raises(ConfigError, match="ends at offset 0, before 3, where the savepoint goes on: the topic was made anew"):
        await restore(other, tmp_path, numbering(2))
