"""Taking a savepoint of a running app: ask all tasks, wait for their cuts, let them go on, wait for their files, write the metadata.

    savepoint ──► control topic, all partitions        audit topic ──► N cuts ──► resume ──► N written ──► _metadata.json

Whoever takes it is no part of the app: if it dies, the tasks go on by themselves after the timeout, and what is in the folder is no
savepoint, since `_metadata.json` comes last. See `engine.runtime.savepointing` for the tasks' half, and why cuts fit together.

Once `_metadata.json` stands there, nothing is taken back: with `stop` the tasks are told that it is the end, and what goes wrong from
then on (a worker that dies, a broker that is away, Ctrl-C) leaves a savepoint that the app can be restored from.
"""

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from engine.control import Abort, Command, End, Report, Resume, TakeSavepoint, encode_command
from engine.errors import ConfigError, StreamForgeError, UnavailableError
from engine.plan import Plan
from engine.records import OutputColumns, TopicPartition
from engine.runtime.clock import Clock
from engine.runtime.epochs import read_epoch
from engine.runtime.savepoint_places import open_savepoint
from engine.runtime.threads import in_thread
from engine.runtime.transport.protocol import PartitionReader, Transport
from state.remote import Folder
from state.savepoint import FORMAT, METADATA, Manifest, Part, StateNote, write_manifest

_READ_TIMEOUT_S = 0.5
_SLACK_S = 5.0
"""Tasks give up by themselves first, and say why."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What savepoint is wanted.

    Attributes:
        folder: Path or URL of the folder that holds savepoints; it must be the same place for all workers.
        stop: The app does not go on in this epoch.
        cut_timeout_s: How long the sources may be stopped.
        write_timeout_s: How long the files may take.
    """

    name: str
    folder: str
    who: str = ""
    why: str = ""
    stop: bool = False
    cut_timeout_s: float = 60.0
    write_timeout_s: float = 3_600.0


async def take_savepoint(transport: Transport, plan: Plan, wish: Wish, clock: Clock, say: Say = lambda _: None) -> Manifest:
    """Take a savepoint of an app that runs somewhere; return what was written.

    Raises:
        ConfigError: The name cannot be used, or is taken.
        UnavailableError: It did not work this time: the app goes on, and what was written is removed. Only if the message says that the
            savepoint is complete, it is kept: not every task could be told that it is the end.
    """
    epoch = await read_epoch(transport, plan)
    plan = plan if epoch is None else plan.in_epoch(epoch.epoch)
    folder = await in_thread(open_savepoint, wish.folder, wish.name)
    if await in_thread(folder.names):
        raise ConfigError(f"{folder.url} exists already: give the savepoint another name, or delete that one")
    audit = TopicPartition(plan.audit_topic, 0)
    reader = await transport.open_reader(audit, (await transport.end_offsets([audit]))[audit])
    taking = _Taking(transport, plan, wish, clock, reader, folder)
    try:
        return await taking.run(say)
    except BaseException:
        if not taking.is_complete:
            await asyncio.shield(taking.abort())
        raise
    finally:
        await reader.close()


@dataclass(slots=True)
class _Taking:
    """One attempt.

    Attributes:
        is_complete: The savepoint stands in the folder: from now on nothing is taken back.
    """

    transport: Transport
    plan: Plan
    wish: Wish
    clock: Clock
    reader: PartitionReader
    folder: Folder
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:16])
    is_complete: bool = False
    _early: list[Report] = field(default_factory=list)

    async def run(self, say: Say) -> Manifest:
        wish, plan = self.wish, self.plan
        created_ms = self.clock.now_ms()
        timeout_ms = round(wish.cut_timeout_s * 1_000)
        said = self._said(created_ms)
        await self._tell(TakeSavepoint(**said, folder=self.folder.url, epoch=plan.epoch, stop=wish.stop, timeout_ms=timeout_ms))
        cuts = await self._reports("cut", wish.cut_timeout_s + _SLACK_S)
        say(f"{len(cuts)} tasks have their cut after {(self.clock.now_ms() - created_ms) / 1_000:.3f} s")
        ends = await self._ends()
        if not wish.stop:
            await self._tell(Resume(**self._said(created_ms)))
        written = await self._reports("written", wish.write_timeout_s)
        kinds: dict[str, str] = {}
        for cut in cuts.values():
            kinds |= cut.more["states"]
        manifest = Manifest(
            format=FORMAT,
            name=wish.name,
            app=plan.app_id,
            epoch=plan.epoch,
            partitions=plan.partitions,
            created_ms=created_ms,
            who=wish.who,
            why=wish.why,
            signatures=dict(plan.signatures),
            sources=ends,
            states=[StateNote(name, kind) for name, kind in sorted(kinds.items())],
            parts=[_part(number, cuts[number], written[number]) for number in range(plan.partitions)],
        )
        await self._check_files(manifest)
        await _whole(self._complete(manifest))
        if wish.stop:
            say(f"savepoint {wish.name!r} is complete, and every task is told that it is the end")
            await self._until_ended(say)
        return manifest

    async def abort(self) -> None:
        """Let the tasks go on, and remove what they have written for this attempt; the folder may be another one's too."""
        try:
            await self._tell(Abort(**self._said(self.clock.now_ms())))
        finally:
            await in_thread(self._remove)

    def _remove(self) -> None:
        names = self.folder.names()
        if METADATA in names and self.id.encode() in self.folder.read(METADATA):
            self.folder.delete(METADATA)
        for name in names:
            if name.endswith(f"-{self.id}.entries"):
                self.folder.delete(name)

    async def _check_files(self, manifest: Manifest) -> None:
        """Look whether all parts have come to the folder, before anybody is told that it is the end; a shared disk may need a moment."""
        deadline_s = self.clock.monotonic_s() + _SLACK_S
        while True:
            sizes = await in_thread(self.folder.sizes)
            if METADATA in sizes:
                raise UnavailableError(f"no savepoint was taken: another one was completed in {self.folder.url} meanwhile")
            missing = [part.number for part in manifest.parts if sizes.get(part.file) != part.file_bytes]
            if not missing:
                return
            if self.clock.monotonic_s() >= deadline_s:
                numbers = ", ".join(map(str, missing))
                raise UnavailableError(
                    f"no savepoint was taken: tasks {numbers} wrote elsewhere, their parts are not in {self.folder.url}: give a place that "
                    "all workers and this machine reach"
                )
            await asyncio.sleep(_READ_TIMEOUT_S)

    async def _complete(self, manifest: Manifest) -> None:
        """Make a savepoint of what was written; with `stop` it is the end."""
        await in_thread(write_manifest, self.folder, manifest)
        self.is_complete = True
        if not self.wish.stop:
            return
        try:
            await self._tell(End(**self._said(manifest.created_ms), name=manifest.name))
        except StreamForgeError as error:
            raise UnavailableError(
                f"savepoint {manifest.name!r} is complete and stays in {self.folder.url}, but not every task could be told that it is the "
                f"end ({error}): stop the workers and restore it"
            ) from error

    async def _until_ended(self, say: Say) -> None:
        """Wait until every task has stopped for good. One that was opened anew meanwhile finds `end` in its control topic and obeys."""
        wish, ended = self.wish, dict[int, Report]()
        why = f"within {wish.cut_timeout_s:.0f} s"
        try:
            ended = await self._collect("ended", wish.cut_timeout_s)
        except StreamForgeError as error:
            why = f"yet ({error})"
        if len(ended) < self.plan.partitions:
            say(f"tasks {self._missing(ended)} have not said {why} that they ended: they will when they run; the savepoint is complete")

    def _said(self, at_ms: int) -> dict[str, Any]:
        return {"id": self.id, "who": self.wish.who, "why": self.wish.why, "at_ms": at_ms}

    async def _tell(self, command: Command) -> None:
        await tell(self.transport, self.plan, command, range(self.plan.partitions), self.clock.now_ms())

    async def _ends(self) -> dict[str, list[int]]:
        """Return where the source topics end now."""
        numbers = range(self.plan.partitions)
        ends = await self.transport.end_offsets([TopicPartition(topic, number) for topic in self.plan.sources for number in numbers])
        return {topic: [ends[TopicPartition(topic, number)] for number in numbers] for topic in self.plan.sources}

    async def _reports(self, kind: str, timeout_s: float) -> dict[int, Report]:
        """Wait until every task has reported; a failure before the last of them counts for all."""
        found = await self._collect(kind, timeout_s)
        if len(found) < self.plan.partitions:
            missing = self._missing(found)
            raise UnavailableError(f"no savepoint was taken: tasks {missing} said nothing within {timeout_s:.0f} s; do they run?")
        return found

    async def _collect(self, kind: str, timeout_s: float) -> dict[int, Report]:
        """Return what the tasks have reported: all of them, or those that have in time."""
        found: dict[int, Report] = {}
        deadline_s = self.clock.monotonic_s() + timeout_s
        early, self._early = self._early, []
        while len(found) < self.plan.partitions:
            reports, early = early or await self._next(), []
            for report in reports:
                if report.kind in ("failed", "refused") and not self.is_complete:
                    raise UnavailableError(f"no savepoint was taken: {report.error}")
                if report.kind == kind:
                    found[report.task] = report
                else:
                    self._early.append(report)
            if self.clock.monotonic_s() >= deadline_s:
                break
        return found

    def _missing(self, found: Mapping[int, Report]) -> str:
        return ", ".join(str(number) for number in range(self.plan.partitions) if number not in found)

    async def _next(self) -> list[Report]:
        """Return the next reports of this savepoint, in order."""
        batch = await self.reader.read(_READ_TIMEOUT_S)
        values = () if batch is None else batch.values
        reports = [msgspec.json.decode(value or b"", type=Report) for value in values]
        return [report for report in reports if report.id == self.id]


async def _whole(work: Coroutine[Any, Any, None]) -> None:
    """Do something wholly: whoever is cancelled meanwhile ends when it is done."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # looked at: what ends the caller is that it was cancelled
        raise


async def tell(transport: Transport, plan: Plan, command: Command, numbers: range | list[int], now_ms: int) -> None:
    """Send a command to partitions of the control topic."""
    value = encode_command(command)
    key = command.id.encode()
    await transport.send({TopicPartition(plan.control_topic, number): OutputColumns([now_ms], [key], [value]) for number in numbers})


async def obey_everywhere(
    transport: Transport, plan: Plan, command: Command, numbers: list[int], clock: Clock, timeout_s: float = 30.0
) -> list[Report]:
    """Give a command to tasks of a running app, and return what each of them made of it.

    Raises:
        UnavailableError: Not all have said so in time; the command stands in the topic and will be obeyed.
    """
    audit = TopicPartition(plan.audit_topic, 0)
    reader = await transport.open_reader(audit, (await transport.end_offsets([audit]))[audit])
    deadline_s = clock.monotonic_s() + timeout_s
    found: list[Report] = []
    try:
        await tell(transport, plan, command, numbers, clock.now_ms())
        while len(found) < len(numbers):
            if clock.monotonic_s() >= deadline_s:
                raise UnavailableError(
                    f"{len(found)} of {len(numbers)} tasks have obeyed within {timeout_s:.0f} s; the others will when they run "
                    f"({plan.audit_topic} says so)"
                )
            batch = await reader.read(_READ_TIMEOUT_S)
            reports = [msgspec.json.decode(value or b"", type=Report) for value in (() if batch is None else batch.values)]
            found += [report for report in reports if report.id == command.id]
    finally:
        await reader.close()
    return found


def _part(number: int, cut: Report, written: Report) -> Part:
    more = written.more
    return Part(
        number=number,
        file=more["file"],
        entries=more["entries"],
        file_bytes=more["file_bytes"],
        sha256=more["sha256"],
        offsets=cut.more["offsets"],
        watermarks=cut.more["watermarks"],
        pause_ms=more["pause_ms"],
    )


__all__ = ["Wish", "obey_everywhere", "take_savepoint", "tell"]
