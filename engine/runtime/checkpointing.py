"""Checkpoints of a worker's tasks: taken at intervals, kept beside the stores and, if wanted, in another place; and begun from.

    task stands still        flush, RocksDB checkpoint by hard links          milliseconds
    task goes on             sha256 of new files, files, manifest             as long as it takes, in a thread

    <state_dir>/<app>/checkpoints/<task>/    always: for a store that turns out to be unsound
    <checkpoints=>/<app>/<task>/             if wanted: for a worker without the disk

A failure to take or keep one never stops a task: it is logged and counted, and `checkpoint_overdue` rises when the last good one is
older than three intervals. Which checkpoint may be built upon is decided like for a store (`state.changelog.judge`).
"""

import asyncio
import contextlib
import logging
import shutil
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from engine.errors import StateError
from engine.records import TopicPartition
from engine.runtime.clock import Clock
from engine.runtime.metrics import TaskMetrics
from engine.runtime.threads import in_thread
from state.changelog import Verdict
from state.checkpoint import Digests, FolderPlace, Kept, Manifest, Place, Shelf, newest_first
from state.store import Position, Store

log = logging.getLogger(__name__)

LOCAL_KEPT_MAX = 2
OVERDUE_INTERVALS = 3
_AT_ONCE = 2
_CLOSE_S = 5.0

Judge = Callable[[Position], Verdict]


class Checkpoints:
    """Where this worker keeps checkpoints.

    Args:
        folder: The app's folder of stores: checkpoints by hard links must be on the same file system.
        remote: Another place for them, None for none.
        kept: How many of each task stay there; beside the stores at most two do, since they hold on to space.
    """

    def __init__(self, folder: Path, app_id: str, *, remote: Place | None = None, kept: int = 3) -> None:
        self._folder = folder / "checkpoints"
        self._app_id = app_id
        self._remote = remote
        self._kept = kept
        self._uploads = asyncio.Semaphore(_AT_ONCE)
        self._under_way: set[asyncio.Task[None]] = set()
        self._staged: set[Path] = set()

    def shelves(self, number: int) -> list[Shelf]:
        """Return where the checkpoints of a task are, the nearest first."""
        near = Shelf(FolderPlace(self._folder), str(number), kept=min(self._kept, LOCAL_KEPT_MAX), say=log.warning)
        if self._remote is None:
            return [near]
        return [near, Shelf(self._remote, f"{self._app_id}/{number}", kept=self._kept, say=log.warning)]

    def staging(self, number: int, purpose: str) -> Path:
        """Return a folder for a task that does not exist yet, on the file system of the stores; `unstage` it in the end."""
        folder = self._folder / str(number) / f"{purpose}-{uuid.uuid4().hex}"
        self._staged.add(folder)
        return folder

    def unstage(self, folder: Path) -> None:
        """Delete such a folder, if it is still there."""
        shutil.rmtree(folder, ignore_errors=True)
        self._staged.discard(folder)

    def clean(self, number: int) -> None:
        """Delete what a killed process has left half done; what this one is at work on stays (an upload outlives its task)."""
        with contextlib.suppress(OSError):
            for left in (self._folder / str(number)).glob("*-" + "[0-9a-f]" * 32):
                if left not in self._staged:
                    shutil.rmtree(left, ignore_errors=True)

    def start(self, work: Callable[[], None], name: str) -> "asyncio.Task[None]":
        """Do something slow in a thread, two at a time at most."""

        async def run() -> None:
            async with self._uploads:
                await in_thread(work)

        task = asyncio.create_task(run(), name=name)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def close(self) -> None:
        """Wait for what is under way; bounded in time."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=_CLOSE_S)


class TaskCheckpoints:
    """Takes the checkpoints of one task as long as it is open.

    Args:
        checkpoints: None where stores are only flushed (memory stores, and stores without a folder of the app).
    """

    def __init__(self, checkpoints: Checkpoints | None, number: int, interval_ms: int, clock: Clock, metrics: TaskMetrics) -> None:
        self._checkpoints = checkpoints
        self._number = number
        self._interval_s = interval_ms / 1_000
        self._clock = clock
        self._metrics = metrics
        self._shelves = [] if checkpoints is None else checkpoints.shelves(number)
        self._digests = Digests()
        self._keeping: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._is_dirty = False
        now_s = clock.monotonic_s()
        self._due_s, self._good_s = now_s + self._interval_s, now_s
        metrics.checkpoint_overdue = 0

    def changed(self) -> None:
        """Say that the store has changed."""
        self._is_dirty = True

    async def take_if_due(self, store: Store) -> None:
        """Take a checkpoint if it is time and anything has changed; called between two commits, by the only writer of the store."""
        now_s = self._clock.monotonic_s()
        if now_s < self._due_s:
            return
        self._due_s = now_s + self._interval_s
        overdue_s = OVERDUE_INTERVALS * self._interval_s
        is_kept = self._keeping is None or self._keeping.done()
        is_overdue = (self._is_dirty or not is_kept) and now_s - self._good_s >= overdue_s
        if is_overdue and not self._metrics.checkpoint_overdue:
            log.warning("task %d: the last good checkpoint is %.0f s old, the interval is %.0f s", self._number, now_s - self._good_s,
                        self._interval_s)  # fmt: skip
        self._metrics.checkpoint_overdue = int(is_overdue)
        if self._is_dirty and is_kept:
            await self._take(store)
        elif is_kept:
            self._good_s = now_s

    async def _take(self, store: Store) -> None:
        begun_s = self._clock.monotonic_s()
        if self._checkpoints is None:
            await in_thread(store.flush)
            self._is_dirty, self._good_s = False, self._clock.monotonic_s()
            return
        checkpoints, position = self._checkpoints, store.position
        folder = checkpoints.staging(self._number, "taken")
        try:
            await in_thread(_copy, store, folder)
        except BaseException as error:
            await in_thread(checkpoints.unstage, folder)
            if not isinstance(error, StateError):
                raise
            self._failed(error)
            return
        finally:
            pause_s = self._clock.monotonic_s() - begun_s
            self._metrics.checkpoint_pause_seconds += pause_s
            self._metrics.checkpoint_pause_longest_s = max(self._metrics.checkpoint_pause_longest_s, pause_s)
        self._is_dirty = False
        keep = partial(self._keep, checkpoints, folder, position, begun_s)
        self._keeping = checkpoints.start(keep, f"checkpoint of task {self._number}")

    def stop(self) -> None:
        """Take no more; one that is being sent ends with the file that is under way. What it may still finish is right, only old."""
        self._is_stopped = True

    def _keep(self, checkpoints: Checkpoints, folder: Path, position: Position, begun_s: float) -> None:
        """Keep the copy in a folder wherever it shall be; runs in a thread beside the task, and does not touch its store."""
        try:
            manifest = self._digests.describe(folder, self._number, position)
            for shelf in self._shelves:
                kept = shelf.keep(folder, manifest, is_stopped=lambda: self._is_stopped)
                if kept is None:
                    return
                self._count(kept)
            self._good_s = begun_s
            self._metrics.checkpoints += 1
            self._metrics.checkpoint_offset = position.next_offset
            self._metrics.checkpoint_overdue = 0
        except (StateError, OSError) as error:
            if not self._is_stopped:
                self._failed(error)
        finally:
            checkpoints.unstage(folder)

    def _count(self, kept: Kept) -> None:
        self._metrics.checkpoint_files += kept.files
        self._metrics.checkpoint_bytes += kept.payload_bytes

    def _failed(self, error: Exception) -> None:
        self._is_dirty = True
        self._metrics.checkpoint_failures += 1
        log.warning("task %d: no checkpoint this time: %s", self._number, error)


def _copy(store: Store, folder: Path) -> None:
    store.flush()
    store.checkpoint(folder)


async def begin_from_checkpoint(checkpoints: Checkpoints, store: Store, changelog: TopicPartition, judge: Judge) -> Verdict | None:
    """Put the newest checkpoint that may be built upon in the place of a store; return what it is worth, None if there is none.

    Each one that is refused is logged with the reason, and the one before it is tried; an older one may be whole.
    """
    number = changelog.partition
    shelves = checkpoints.shelves(number)
    await in_thread(checkpoints.clean, number)
    for shelf, manifest in newest_first(await in_thread(_list, shelves, changelog)):
        verdict = judge(manifest.position)
        if not verdict.usable:
            log.info("%s-%d: checkpoint %s is not used: the state in it %s", *changelog, manifest.name, verdict.reason)
            continue
        folder = checkpoints.staging(number, "fetched")
        try:
            await in_thread(shelf.fetch, manifest, folder)
            await in_thread(store.adopt, folder)
            if store.position != manifest.position:
                raise StateError(f"its store says it is at {store.position}, the manifest at {manifest.position}")
        except (StateError, OSError) as error:
            log.warning("%s-%d: checkpoint %s is refused: %s", *changelog, manifest.name, error)
            await in_thread(store.clear)
            continue
        finally:
            await in_thread(checkpoints.unstage, folder)
        log.info("%s-%d: begun from checkpoint %s", *changelog, manifest.name)
        return verdict
    return None


def _list(shelves: Sequence[Shelf], changelog: TopicPartition) -> list[tuple[Shelf, Manifest]]:
    """Return all checkpoints that can be read; a place that cannot be reached has none."""
    found: list[tuple[Shelf, Manifest]] = []
    for shelf in shelves:
        try:
            for name, manifest in shelf.manifests():
                if isinstance(manifest, StateError):
                    log.warning("%s-%d: checkpoint %s is refused: %s", *changelog, name, manifest)
                elif manifest.task == changelog.partition:
                    found.append((shelf, manifest))
        except StateError as error:
            log.warning("%s-%d: checkpoints cannot be looked for: %s", *changelog, error)
    return found
