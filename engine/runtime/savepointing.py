"""A task's part in a savepoint: it holds its sources back, reaches its cut, writes its state, and goes on when all have their cut.

    command ─ sources held ─ drained (engine.cut) ─ cut: commit, report ─ … ─ resume: sources go on
                                                      └ snapshot ─────────── written in the background ── report

The pause lasts from the command to `resume`, which whoever takes the savepoint sends when all tasks have reported their cut
(`engine.runtime.savepoint_taking`). Meanwhile the task is told no wall clock: what is due then is due afterwards. Edits are still
obeyed; those behind the cut are not in the savepoint.

Everything that a task says goes to one partition of the audit topic, in its transactions. A task that goes on before it is told to (it
has waited too long, or was opened anew) says `failed` there first, and nothing that it does afterwards can reach another task before
that is committed. So N cuts there without a `failed` before the last of them are cuts that fit together. After a savepoint that is to
be the end (`stop`) nobody goes on by himself once he has his cut: only when told to.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from engine.block import MIN_TIME
from engine.control import Abort, End, Mark, Request, Resume, TakeSavepoint
from engine.cut import Cut
from engine.errors import UnavailableError
from engine.records import TopicPartition
from engine.runtime.intake import Intake
from engine.runtime.opening_errors import EndedError
from engine.runtime.shell import Shell
from engine.runtime.threads import in_thread
from engine.task import Task
from state.remote import open_folder
from state.savepoint import EntriesWriter
from state.store import Store

log = logging.getLogger(__name__)

_CHUNK_ENTRIES = 2_000
_END = b"\xff" * 16
"""Above every store key: a store id of nothing but 0xFF bytes with a time at the end of time is not one."""


@dataclass(slots=True)
class _Active:
    """A savepoint that is being taken: the task takes no input from its sources."""

    command: TakeSavepoint
    cut: Cut
    begun_s: float
    is_cut: bool = False


@dataclass(slots=True)
class _Writing:
    """A part that is being written, or written and not reported yet."""

    command: TakeSavepoint
    work: asyncio.Task[dict[str, Any]]
    pause_ms: int = 0


@dataclass(slots=True)
class TaskSavepoints:
    """Savepoints of one opened task.

    Args:
        commit: Commits the task.
    """

    shell: Shell
    task: Task
    store: Store
    intake: Intake
    commit: Callable[[], Awaitable[None]]
    _active: _Active | None = None
    _writing: _Writing | None = None
    _sources: list[TopicPartition] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._sources = [TopicPartition(topic, self.task.number) for topic in self.task.plan.sources]
        control = self.task.control
        control.has_shell = True
        mark = control.mark
        if mark is None:
            return
        control.report(Abort(id=mark.id), "failed", error=f"task {self.task.number} was opened anew meanwhile")
        if mark.stop and mark.phase == "cut":
            command = TakeSavepoint(id=mark.id, folder="", epoch=self.task.plan.epoch, stop=True)
            self._active = _Active(command, Cut(self.task, mark.id), self.shell.clock.monotonic_s(), is_cut=True)
        else:
            control.set_mark(None)

    @property
    def is_stopped(self) -> bool:
        """Whether the task takes no input from its sources at the moment."""
        return self._active is not None

    def hold(self) -> None:
        """Hold the sources back as long as that is needed; call it when the intake was opened."""
        if self._active is not None:
            for partition in self._sources:
                if not self.intake.is_held(partition):
                    self.intake.hold(partition)

    async def turn(self) -> None:
        """Obey what has come, and do what is due.

        Raises:
            EndedError: The savepoint is complete and was to be the end.
        """
        control = self.task.control
        requests, control.requests = control.requests, []
        for request in requests:
            await self._obey(request)
        if self._active is not None:
            await self._advance(self._active)
        self._tell_written()

    async def close(self) -> None:
        """Let go of the store."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.work.cancel()
            await asyncio.wait([writing.work])

    async def _obey(self, request: Request) -> None:
        active, control = self._active, self.task.control
        if isinstance(request, TakeSavepoint):
            if active is not None or self._writing is not None:
                control.report(request, "failed", error="another savepoint is being taken")
                return
            self._active = _Active(request, Cut(self.task, request.id), self.shell.clock.monotonic_s())
            control.set_mark(Mark(request.id, "begun", request.stop))
            self.hold()
            return
        if isinstance(request, Abort):
            await self._drop_writing(request.id)
            if active is None and self._writing is None:
                control.set_mark(None)
        if active is None or request.id not in (active.command.id, "*"):
            return
        if isinstance(request, Resume | Abort):
            self._go_on(active)
        elif isinstance(request, End) and active.is_cut:
            control.set_mark(Mark(request.id, "ended", True, request.name))
            control.report(request, "ended")
            await self.commit()
            raise EndedError(ended_message(self.task.plan.app_id, self.task.plan.epoch, request.name))

    async def _advance(self, active: _Active) -> None:
        if active.is_cut:
            if not active.command.stop:
                await self._give_up_if_late(active, "the other tasks did not get there")
            return
        while True:
            if self.task.dirty:
                await self.commit()
            done = active.cut.step()
            if done:
                await self._reach(active)
                return
            if not self.task.dirty:
                await self._give_up_if_late(active, "what is on its way to this task has not arrived")
                return

    async def _reach(self, active: _Active) -> None:
        """The task has its cut: say so, and begin to write what its state is at this moment."""
        task, command = self.task, active.command
        topics = (*task.plan.sources, task.plan.control_topic)
        offsets = {topic: offset for topic in topics if (offset := task.positions[TopicPartition(topic, task.number)]) is not None}
        watermarks = {name: watermark for name, watermark in task.watermarks().items() if watermark > MIN_TIME}
        more = {"offsets": offsets, "watermarks": watermarks, "states": task.catalog().kinds()}
        task.control.set_mark(Mark(command.id, "cut", command.stop))
        task.control.report(command, "cut", more=more)
        await self.commit()
        active.is_cut = True
        entries = self.store.scan(b"\0", _END)
        work = asyncio.create_task(self._write(command, entries), name=f"savepoint of task {task.number}")
        work.add_done_callback(lambda _: self.intake.wake())
        self._writing = _Writing(command, work)

    async def _give_up_if_late(self, active: _Active, why: str) -> None:
        waited_ms = self._pause_ms(active)
        if waited_ms < active.command.timeout_ms:
            return
        self.task.control.report(active.command, "failed", error=f"task {self.task.number} waited {waited_ms / 1000:.1f} s: {why}")
        await self._drop_writing(active.command.id)
        self._go_on(active)

    def _go_on(self, active: _Active) -> None:
        """Take input again. What the task has reported goes out before, or with, whatever comes of it."""
        self._active = None
        active.cut.forget()
        self.task.control.set_mark(None if self._writing is None else Mark(active.command.id, "writing"))
        for partition in self._sources:
            if self.intake.is_held(partition):
                self.intake.let_go(partition)
        pause_ms = self._pause_ms(active)
        if self._writing is not None:
            self._writing.pause_ms = pause_ms
        log.info("task %d: went on after a pause of %d ms for a savepoint", self.task.number, pause_ms)

    def _pause_ms(self, active: _Active) -> int:
        return round((self.shell.clock.monotonic_s() - active.begun_s) * 1_000)

    def _tell_written(self) -> None:
        """Report a part that is written; not before the pause is over, unless there is no going on."""
        writing = self._writing
        if writing is None or not writing.work.done() or (self._active is not None and not writing.command.stop):
            return
        self._writing = None
        if self._active is None:
            self.task.control.set_mark(None)
        error = writing.work.exception()
        if error is not None:
            self.task.control.report(writing.command, "failed", error=f"task {self.task.number} could not write its part: {error}")
            return
        self.task.control.report(writing.command, "written", more={**writing.work.result(), "pause_ms": writing.pause_ms})

    async def _drop_writing(self, savepoint: str) -> None:
        if self._writing is not None and savepoint in (self._writing.command.id, "*"):
            await self.close()

    async def _write(self, command: TakeSavepoint, entries: Iterator[tuple[bytes, bytes]]) -> dict[str, Any]:
        """Write a snapshot; the store is read here, a little at a time, and the file is written in threads."""
        name = f"{self.task.number}-{command.id}.entries"  # two attempts at once never write over each other's files
        try:
            folder = await in_thread(open_folder, command.folder)
            creating = folder.create(name)
            file = await in_thread(creating.__enter__)
            try:
                writer = EntriesWriter(file)
                while chunk := list(islice(entries, _CHUNK_ENTRIES)):
                    await in_thread(writer.add, chunk)
            except BaseException as error:
                await in_thread(creating.__exit__, type(error), error, error.__traceback__)
                raise
            await in_thread(creating.__exit__, None, None, None)
        except OSError as error:
            raise UnavailableError(f"{command.folder}: {error}") from error
        return {"file": name, "entries": writer.entries, "file_bytes": writer.file_bytes, "sha256": writer.digest()}


def ended_message(app: str, epoch: int, savepoint: str) -> str:
    """Return what to tell whoever runs an epoch that is over."""
    return (
        f"epoch {epoch} of app {app!r} ended with savepoint {savepoint!r}: restore it (streamforge savepoint restore), then start workers"
    )
