"""Checkpoints of whole workers: taken beside the work, begun from without a disk, and refused when anything is wrong with them."""

import asyncio
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import StateError
from engine.records import TopicPartition
from engine.runtime.checkpointing import Checkpoints, TaskCheckpoints, begin_from_checkpoint
from engine.runtime.metrics import TaskMetrics
from engine.runtime.stores import StateFolder
from engine.testing.clock import LoopClock, virtual_loop, virtual_time
from state.changelog import Verdict
from state.checkpoint import Digests, FolderPlace, Manifest, Place, RemotePlace
from state.memory import MemoryStore
from state.remote import open_folder
from state.rocks import RocksStore
from state.store import Position
from tests.engine.runtime.worker_world import FAST, Worker, World, eventually, numbering

pytestmark = pytest.mark.thorough

LIMITS = replace(FAST, checkpoint_interval_ms=1_000)


class Site:
    """A worker's disk, and another place for its checkpoints."""

    def __init__(self, path: Path) -> None:
        self.disk = path / "disk"
        self.far = path / "far"
        self.world = World(numbering(1))

    def start(self, name: str, *, kept: int = 3) -> Worker:
        folder = StateFolder(self.disk)
        checkpoints = Checkpoints(self.disk, "app", remote=RemotePlace(open_folder(f"file://{self.far}")), kept=kept)
        worker = self.world.worker(name, limits=LIMITS, checkpoints=checkpoints)
        worker.open_store = folder.open
        return worker

    async def work(self, worker: Worker, total: int) -> None:
        """Send clicks until there are so many of ann, and wait for the checkpoint that holds them."""
        before = worker.runner.metrics.task(0).checkpoints
        had = len(self.world.numbers().get("ann", []))
        self.world.click("ann", times=total - had)
        await self.world.until(ann=total)
        await eventually(lambda: worker.runner.metrics.task(0).checkpoints > before)

    def manifests(self) -> list[Path]:
        return sorted((self.far / "app/0").glob("checkpoint-*.json"))


async def three_checkpoints(site: Site) -> None:
    worker = site.start("w1")
    for total in (10, 20, 30):
        await site.work(worker, total)
    site.world.click("ann", times=5)
    await site.world.until(ann=35)
    await worker.kill()


@virtual_time
async def test_checkpoint_worker_without_its_disk_begins_from_the_newest_and_reads_the_tail(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    site = Site(tmp_path)
    await three_checkpoints(site)
    assert len(site.manifests()) == 3
    shutil.rmtree(site.disk)
    site.world.click("ann", times=5)
    worker = site.start("w2")
    await site.world.until(ann=40)
    assert 0 < worker.runner.metrics.total("restored_entries") <= 15  # the tail alone: one commit of five records, not seven of them
    assert f"begun from checkpoint {site.manifests()[-1].name}" in caplog.text
    await worker.stop()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes() or b"\0")
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def only_of_the_newest(site: Site) -> Path:
    """Return the biggest file that the newest checkpoint alone has."""
    manifests = [Manifest.decode(path.read_bytes()) for path in site.manifests()]
    older = {entry.sha256 for manifest in manifests[:-1] for entry in manifest.files}
    own = [entry for entry in manifests[-1].files if entry.sha256 not in older]
    return site.far / "app/0/files" / max(own, key=lambda entry: entry.size_bytes).sha256


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
@pytest.mark.parametrize("what", ["manifest", "file"])
@virtual_time
async def test_checkpoint_damaged_is_refused_and_the_one_before_it_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], what: str
) -> None:
    caplog.set_level(logging.INFO)
    site = Site(tmp_path)
    await three_checkpoints(site)
    shutil.rmtree(site.disk)
    newest, before = site.manifests()[-1], site.manifests()[-2]
    damage(newest if what == "manifest" else only_of_the_newest(site))
    site.world.click("ann", times=5)
    worker = site.start("w2")
    await site.world.until(ann=40)
    if what == "file" or damage is not Path.unlink:
        assert f"checkpoint {newest.name} is refused" in caplog.text
    assert f"begun from checkpoint {before.name}" in caplog.text
    await worker.stop()


@virtual_time
async def test_checkpoints_all_damaged_the_changelog_is_read_from_its_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    site = Site(tmp_path)
    await three_checkpoints(site)
    shutil.rmtree(site.disk)
    for path in (site.far / "app/0/files").iterdir():
        flip(path)
    worker = site.start("w2")
    site.world.click("ann", times=5)
    await site.world.until(ann=40)
    assert caplog.text.count("is refused") == 3
    assert "begun from checkpoint" not in caplog.text
    await worker.stop()


@virtual_time
async def test_checkpoint_beside_the_stores_serves_a_store_that_cannot_be_opened(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    site = Site(tmp_path)
    await three_checkpoints(site)
    shutil.rmtree(site.far)
    for manifest in (site.disk / "0").glob("MANIFEST-*"):
        manifest.write_bytes(b"torn")
    worker = site.start("w2")
    site.world.click("ann", times=5)
    await site.world.until(ann=40)
    assert "begun from checkpoint" in caplog.text
    await worker.stop()


@virtual_time
async def test_checkpoint_of_another_changelog_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    site = Site(tmp_path)
    await three_checkpoints(site)
    shutil.rmtree(site.disk)
    site.world = World(numbering(1))  # the same app on a new broker
    worker = site.start("w2")
    site.world.click("bob", times=2)
    await site.world.until(bob=2)
    await worker.stop()
    site.world.click("bob", times=2)
    shutil.rmtree(site.disk)
    worker = site.start("w3")
    await site.world.until(bob=4)
    assert "follows another changelog" in caplog.text
    assert "begun from checkpoint" not in caplog.text
    await worker.stop()


class FailingPlace(FolderPlace):
    """A place that takes nothing."""

    def write(self, name: str, content: bytes) -> None:
        raise StateError("the bucket is gone")


async def taken(checkpoints: Checkpoints, taker: TaskCheckpoints, store: RocksStore) -> None:
    taker.changed()
    await asyncio.sleep(1.5)
    await taker.take_if_due(store)
    await checkpoints.close()


@virtual_time
async def test_checkpoint_that_cannot_be_kept_is_counted_and_tried_again_and_overdue_rises(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, metrics, store = LoopClock(virtual_loop()), TaskMetrics(), RocksStore(tmp_path / "s/0")
    place: Place = FailingPlace(tmp_path / "far")
    checkpoints = Checkpoints(tmp_path / "s", "app", remote=place)
    taker = TaskCheckpoints(checkpoints, 0, 1_000, clock, metrics)
    for n in range(4):
        store.apply([(b"k", b"v")], Position(b"id", n, 1))
        await taken(checkpoints, taker, store)
    assert (metrics.checkpoints, metrics.checkpoint_failures, metrics.checkpoint_overdue) == (0, 4, 1)
    assert "the bucket is gone" in caplog.text and "the last good checkpoint is 3 s old" in caplog.text
    assert list((tmp_path / "s/checkpoints/0").glob("taken-*")) == []
    store.close()


@virtual_time
async def test_checkpoint_whose_store_is_not_where_the_manifest_says_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints, store = Checkpoints(tmp_path, "app"), RocksStore(tmp_path / "0")
    store.apply([(b"k", b"v")], Position(b"id", 7, 1))
    store.checkpoint(tmp_path / "copy")
    checkpoints.shelves(0)[0].keep(tmp_path / "copy", Digests().describe(tmp_path / "copy", 0, Position(b"id", 8, 1)))
    found = await begin_from_checkpoint(checkpoints, store, TopicPartition("log", 0), lambda _: Verdict(True, "is fine"))
    assert (found, store.position, store.get(b"k")) == (None, Position(), None)
    assert "its store says it is at" in caplog.text
    store.close()


@virtual_time
async def test_checkpoint_nothing_changed_nothing_taken_and_not_overdue(tmp_path: Path) -> None:
    clock, metrics = LoopClock(virtual_loop()), TaskMetrics()
    taker = TaskCheckpoints(Checkpoints(tmp_path, "app"), 0, 1_000, clock, metrics)
    for _ in range(5):
        await asyncio.sleep(1.5)
        await taker.take_if_due(MemoryStore())  # it would raise
    assert (metrics.checkpoint_failures, metrics.checkpoint_overdue) == (0, 0)


@virtual_time
async def test_checkpoint_left_half_done_by_a_killed_process_is_removed(tmp_path: Path) -> None:
    left, checkpoints = Checkpoints(tmp_path, "app").staging(0, "taken"), Checkpoints(tmp_path, "app")
    mine = checkpoints.staging(0, "taken")
    for folder in (left, mine):
        folder.mkdir(parents=True)
    checkpoints.clean(0)
    assert not left.exists() and mine.exists()  # what this process is at work on stays
    checkpoints.unstage(mine)
    assert not mine.exists()


@virtual_time
async def test_checkpoint_left_half_done_is_removed_although_the_store_is_sound(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    site = Site(tmp_path)
    await three_checkpoints(site)
    left = Checkpoints(site.disk, "app").staging(0, "taken")
    left.mkdir(parents=True)
    (left / "1.sst").write_bytes(b"table")
    caplog.clear()
    worker = site.start("w2")
    await worker.until_running(0)
    assert "begun from checkpoint" not in caplog.text and worker.runner.metrics.task(0).rebuilds == 0
    assert not left.exists()
    await worker.stop()
