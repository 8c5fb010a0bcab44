"""Checkpoints in an object store that fails: the worker goes on, the alarm rises, and nothing that is torn is ever built upon."""

import asyncio
import logging
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.runtime.checkpointing import Checkpoints, TaskCheckpoints
from engine.runtime.clock import SystemClock
from engine.runtime.metrics import TaskMetrics
from engine.runtime.stores import StateFolder
from engine.testing.clock import virtual_time
from state.checkpoint import RemotePlace
from state.remote import open_folder
from state.rocks import RocksStore
from state.store import Position
from tests.engine.runtime.worker_world import FAST, Worker, World, eventually, numbering
from tests.state.far_filesystem import FarFileSystem, HttpError

LIMITS = replace(FAST, checkpoint_interval_ms=1_000)
FILES, MANIFESTS = "/app/0/files/", "/app/0/checkpoint-"


@pytest.fixture(autouse=True)
def sound_service(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.INFO)
    FarFileSystem.anew()
    yield
    FarFileSystem.anew()


class Site:
    """A worker with a disk, and checkpoints in a bucket."""

    def __init__(self, path: Path) -> None:
        self.disk = path / "disk"
        self.world = World(numbering(1))

    def start(self, name: str) -> Worker:
        folder = StateFolder(self.disk)
        checkpoints = Checkpoints(self.disk, "app", remote=RemotePlace(open_folder("far://bucket/shop")))
        worker = self.world.worker(name, limits=LIMITS, checkpoints=checkpoints)
        worker.open_store = folder.open
        return worker

    async def click(self, total: int) -> None:
        had = len(self.world.numbers().get("ann", []))
        self.world.click("ann", times=total - had)
        await self.world.until(ann=total)

    async def kept(self, worker: Worker, total: int) -> None:
        """Send clicks until there are so many, and wait for the checkpoint that holds them."""
        before = worker.runner.metrics.task(0).checkpoints
        await self.click(total)
        await eventually(lambda: worker.runner.metrics.task(0).checkpoints > before)

    async def without_disk(self, total: int) -> Worker:
        """Start a worker whose disk is lost; it must go on rightly."""
        shutil.rmtree(self.disk)
        worker = self.start("again")
        await self.click(total)
        return worker


def away(request: str, name: str) -> None:
    raise HttpError(f"503 for {request}")


@virtual_time
async def test_worker_goes_on_while_the_bucket_is_away_and_the_alarm_for_age_rises_and_falls(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(tmp_path)
    worker = site.start("w")
    metrics = worker.runner.metrics.task(0)
    await site.kept(worker, 10)
    FarFileSystem.on_request = away
    for total in range(20, 70, 10):
        await site.click(total)
        await asyncio.sleep(1.0)
    assert metrics.checkpoint_failures >= 3 and metrics.checkpoint_overdue == 1
    assert "503 for list" in caplog.text and "the last good checkpoint is" in caplog.text
    assert 'streamforge_checkpoint_overdue{task="0"} 1.0' in worker.runner.metrics.render().decode()
    FarFileSystem.on_request = None
    await site.kept(worker, 80)
    assert metrics.checkpoint_overdue == 0
    assert len(FarFileSystem.names(MANIFESTS)) == 2
    await worker.stop()


@virtual_time
async def test_upload_that_is_torn_with_an_error_is_sent_again_and_no_checkpoint_meanwhile(tmp_path: Path) -> None:
    site = Site(tmp_path)
    worker = site.start("w")
    FarFileSystem.torn = ("/files/", False)
    await site.click(10)
    await eventually(lambda: worker.runner.metrics.task(0).checkpoint_failures > 0)
    assert FarFileSystem.names(FILES) and not FarFileSystem.names(MANIFESTS)
    FarFileSystem.torn = None
    await site.kept(worker, 20)
    await worker.kill()
    again = await site.without_disk(25)
    assert again.runner.metrics.task(0).restored_entries < 10, "the tail only"
    await again.stop()


@virtual_time
async def test_upload_that_arrives_by_half_without_a_word_is_refused_and_the_one_before_it_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(tmp_path)
    worker = site.start("w")
    await site.kept(worker, 10)
    first = FarFileSystem.names(MANIFESTS)
    FarFileSystem.torn = ("/files/", True)
    await site.kept(worker, 20)
    (second,) = set(FarFileSystem.names(MANIFESTS)) - set(first)
    await worker.kill()
    FarFileSystem.torn = None
    again = await site.without_disk(25)
    assert f"checkpoint {Path(second).name} is refused: its file" in caplog.text
    assert f"begun from checkpoint {Path(first[0]).name}" in caplog.text
    await site.kept(again, 30)
    await again.stop()


@virtual_time
async def test_object_that_somebody_deleted_refuses_its_checkpoint_and_the_changelog_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(tmp_path)
    worker = site.start("w")
    await site.kept(worker, 10)
    await worker.kill()
    for name in FarFileSystem.names(FILES)[:1]:
        del FarFileSystem.store[name]
    again = await site.without_disk(15)
    assert "there is no file" in caplog.text and "begun from checkpoint" not in caplog.text
    assert again.runner.metrics.task(0).restored_entries > 0
    await again.stop()


@virtual_time
async def test_worker_without_a_disk_begins_from_the_changelog_where_the_bucket_cannot_be_reached(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(tmp_path)
    worker = site.start("w")
    await site.kept(worker, 10)
    await worker.kill()
    FarFileSystem.on_request = away
    again = await site.without_disk(15)
    assert "checkpoints cannot be looked for: " in caplog.text and "503 for list" in caplog.text
    await again.stop()


async def test_upload_that_hangs_holds_up_no_commit_and_raises_the_alarm_even_if_nothing_more_comes(tmp_path: Path) -> None:
    metrics, store = TaskMetrics(), RocksStore(tmp_path / "s/0")
    checkpoints = Checkpoints(tmp_path / "s", "app", remote=RemotePlace(open_folder("far://bucket/shop")))
    taker = TaskCheckpoints(checkpoints, 0, 50, SystemClock(), metrics)
    FarFileSystem.gate = threading.Event()
    store.apply([(b"k", b"v")], Position(b"id", 1, 1))
    taker.changed()

    async def until_overdue_is(wanted: int) -> None:
        async with asyncio.timeout(20.0):
            while metrics.checkpoint_overdue != wanted:
                await taker.take_if_due(store)
                await asyncio.sleep(0.01)

    await until_overdue_is(1)
    assert metrics.checkpoints == 0 and not FarFileSystem.names(MANIFESTS)
    store.apply([(b"k", b"w")], Position(b"id", 2, 1))
    FarFileSystem.gate.set()
    await until_overdue_is(0)
    assert metrics.checkpoints >= 1 and metrics.checkpoint_failures == 0
    taker.stop()
    await checkpoints.close()
    store.close()
