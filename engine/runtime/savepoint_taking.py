"""Taking a savepoint of a running app: ask all tasks, wait for their cuts, let them go on, wait for their files, write the metadata.

    savepoint ──► control topic, all partitions        audit topic ──► N cuts ──► resume ──► N written ──► _metadata.json

Whoever takes it is no part of the app: if it dies, the tasks go on by themselves after the timeout, and what is in the folder is no
savepoint, since `_metadata.json` comes last. See `engine.runtime.savepointing` for the tasks' half, and why cuts fit together.
"""

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from engine.control import Abort, Command, End, Report, Resume, TakeSavepoint, encode_command
from engine.errors import ConfigError, UnavailableError
from engine.plan import Plan
from engine.records import OutputColumns, TopicPartition
from engine.runtime.clock import Clock
from engine.runtime.epochs import read_epoch
from engine.runtime.threads import in_thread
from engine.runtime.transport.protocol import PartitionReader, Transport
from state.remote import Folder, open_folder
from state.savepoint import FORMAT, Manifest, Part, StateNote, write_manifest

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
        UnavailableError: It did not work this time: the app goes on, and what was written is removed.
    """
    epoch = await read_epoch(transport, plan)
    plan = plan if epoch is None else plan.in_epoch(epoch.epoch)
    if not wish.name or wish.name.startswith(".") or "/" in wish.name:
        raise ConfigError(f"savepoint name {wish.name!r} cannot be used: it names a folder")
    folder = (await in_thread(open_folder, wish.folder)).child(wish.name)
    if await in_thread(folder.names):
        raise ConfigError(f"{folder.url} exists already: give the savepoint another name, or delete that one")
    audit = TopicPartition(plan.audit_topic, 0)
    reader = await transport.open_reader(audit, (await transport.end_offsets([audit]))[audit])
    taking = _Taking(transport, plan, wish, clock, reader, folder)
    try:
        return await taking.run(say)
    except BaseException:
        await asyncio.shield(taking.abort())
        raise
    finally:
        await reader.close()


@dataclass(slots=True)
class _Taking:
    """One attempt."""

    transport: Transport
    plan: Plan
    wish: Wish
    clock: Clock
    reader: PartitionReader
    folder: Folder
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:16])
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
        await in_thread(write_manifest, self.folder, manifest)
        if wish.stop:
            await self._tell(End(**self._said(created_ms), name=wish.name))
            await self._reports("ended", wish.cut_timeout_s)
        return manifest

    async def abort(self) -> None:
        """Let the tasks go on, and remove what they have written."""
        await self._tell(Abort(**self._said(self.clock.now_ms())))
        await in_thread(self.folder.remove)

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
        found: dict[int, Report] = {}
        deadline_s = self.clock.monotonic_s() + timeout_s
        early, self._early = self._early, []
        while len(found) < self.plan.partitions:
            reports, early = early or await self._next(), []
            for report in reports:
                if report.kind in ("failed", "refused"):
                    raise UnavailableError(f"no savepoint was taken: {report.error}")
                if report.kind == kind:
                    found[report.task] = report
                else:
                    self._early.append(report)
            if self.clock.monotonic_s() >= deadline_s and len(found) < self.plan.partitions:
                missing = ", ".join(str(number) for number in range(self.plan.partitions) if number not in found)
                raise UnavailableError(f"no savepoint was taken: tasks {missing} said nothing within {timeout_s:.0f} s; do they run?")
        return found

    async def _next(self) -> list[Report]:
        """Return the next reports of this savepoint, in order."""
        batch = await self.reader.read(_READ_TIMEOUT_S)
        values = () if batch is None else batch.values
        reports = [msgspec.json.decode(value or b"", type=Report) for value in values]
        return [report for report in reports if report.id == self.id]


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
