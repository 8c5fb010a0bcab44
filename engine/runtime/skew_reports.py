"""How the workers of an app know how far the others have come: what each says of its source partitions, for `engine.runtime.alignment`.

    worker 1 ── orders-0 at 12:10, orders-1 idle ──►  <app>-alignment-<epoch>  ──► every worker, from when it came
    worker 2 ── orders-2 at 12:03, orders-3 opens ─►  (one partition)

Each worker says so every second, and sooner (at most ten times a second) when its slowest partition has moved by a quarter of
`max_skew`: where a backlog is read, the others may be waiting for just that. So one report more or less decides nothing, none is ever
waited for, and none is part of any transaction or of the state: reports steer how fast partitions are read, never what comes out.

Whoever comes new reads from the end of the topic. Until each partition of the others has been spoken of (a second, as a rule; five at
most) nobody knows how far they are, and its own partitions go on by max_skew only.

The broker away, the topic deleted, a right missing: said in the log, and tried again. While nothing can be heard, what was heard last does
not grow older, for a minute; then it does, so that a worker that is deaf for good waits for nobody. Reports of another version, or that
cannot be read, are passed over with a warning.

Rejected: *the group's committed offsets with the watermark as their metadata*: a worker that is held, idle or being opened commits
nothing, so it cannot be told from one that is gone, and every worker would have to fetch all partitions' offsets from one coordinator
again and again. *A coordinator*, as Flink's: whoever it is, it can be gone, and then another must be found; here everybody decides for
himself from the same log. *Asking the other workers' pages*: they need not be reachable from each other. *Reports kept by worker*: the
one that is gone and its successor would be two, and the older one's last word would hold everybody; a partition is one.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import msgspec

from engine.errors import ConfigError, StateError, UnavailableError
from engine.records import OutputColumns, TopicPartition
from engine.runtime.alignment import FORGET_S, Alignment, Said
from engine.runtime.breakdown import describe
from engine.runtime.shell import Shell
from engine.runtime.transport.protocol import PartitionReader

log = logging.getLogger(__name__)

VERSION = 1
INTERVAL_S = 1.0
GAP_S = 0.1
LISTEN_S = 5.0
DEAF_S = 60.0
READ_TIMEOUT_S = 1.0
NEWEST = 1_000
"""So many reports are looked at of those that came at once: each worker says everything again in a second."""
_SAY_AGAIN_S = 60.0


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker says of the source partitions that it reads, by topic and number.

    Attributes:
        reached: Their watermarks.
        opening: Those that are being opened.
        free: Those that nobody has to wait for: idle, or without any record yet.
    """

    version: int
    reached: dict[str, dict[int, int]] = {}
    opening: dict[str, list[int]] = {}
    free: dict[str, list[int]] = {}


def encode(said: Mapping[TopicPartition, Said]) -> bytes:
    """Return what a worker says as the value of a record."""
    report = Report(VERSION, {}, {}, {})
    for (topic, number), what in said.items():
        if what.watermark is not None:
            report.reached.setdefault(topic, {})[number] = what.watermark
        else:
            (report.opening if what.is_opening else report.free).setdefault(topic, []).append(number)
    return msgspec.json.encode(report)


def decode(value: bytes | None) -> dict[TopicPartition, Said]:
    """Return what a worker has said.

    Raises:
        ValueError: It is no report, or one of another version.
    """
    report = msgspec.json.decode(value or b"", type=Report)
    if report.version != VERSION:
        raise ValueError(f"version {report.version} is not known, only {VERSION}")
    said = {TopicPartition(topic, number): Said(at) for topic, numbers in report.reached.items() for number, at in numbers.items()}
    said |= {TopicPartition(topic, number): Said(is_opening=True) for topic, numbers in report.opening.items() for number in numbers}
    said |= {TopicPartition(topic, number): Said() for topic, numbers in report.free.items() for number in numbers}
    return said


class SkewReports:
    """Sends the reports of one worker, and reads those of all."""

    def __init__(self, shell: Shell, alignment: Alignment) -> None:
        self._shell = shell
        self._alignment = alignment
        self._place = TopicPartition(shell.plan.alignment_topic, 0)
        self._news = asyncio.Event()
        self._listens_until_s: float | None = None
        self._readable_s = shell.clock.monotonic_s()
        self._listened_s = 0.0
        self._said_s: dict[str, float] = {}
        self._running: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        self._alignment.on_news = self._news.set
        self._running = [
            asyncio.create_task(self._keep(self._say, "sent"), name="skew reports"),
            asyncio.create_task(self._keep(self._read, "read"), name="skew reports of others"),
            asyncio.create_task(self._forget(), name="skew reports that are old"),
        ]

    def failure(self) -> BaseException | None:
        """Return the bug that has ended it, None as long as it goes on."""
        return next((task.exception() for task in self._running if task.done() and not task.cancelled()), None)

    def stop(self) -> None:
        """Say and hear nothing more."""
        for task in self._running:
            task.cancel()

    async def close(self) -> None:
        """Stop, and wait until that is done."""
        self.stop()
        if self._running:
            await asyncio.wait(self._running)

    # -- saying

    async def _say(self) -> None:
        """Say how far this worker is, again and again."""
        clock = self._shell.clock
        while True:
            self._news.clear()
            said = self._alignment.report()
            if said:
                if self._listens_until_s is None:
                    self._listens_until_s = clock.monotonic_s() + LISTEN_S
                await self._shell.transport.send({self._place: OutputColumns([clock.now_ms()], [None], [encode(said)])})
            await asyncio.sleep(GAP_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_S - GAP_S):
                    await self._news.wait()

    # -- hearing

    async def _forget(self) -> None:
        """Give up those who have not been heard of for too long, by the time in which they could have been."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            now_s = self._shell.clock.monotonic_s()
            deaf_s = now_s - self._readable_s
            if not 3 * READ_TIMEOUT_S < deaf_s < DEAF_S:
                self._listened_s += INTERVAL_S
            if self._listens_until_s is not None and now_s >= self._listens_until_s:
                self._alignment.wait_no_longer()
            forgotten = self._alignment.forget(self._listened_s)
            if forgotten:
                names = ", ".join(f"{topic}-{number}" for topic, number in forgotten)
                log.warning("max_skew: no worker has said for %.0f s how far %s has come: it is not waited for", FORGET_S, names)

    async def _read(self) -> None:
        """Hear what is said from now on."""
        transport, place, clock, reader = self._shell.transport, self._place, self._shell.clock, None
        self._alignment.listen()
        try:
            reader = await transport.open_reader(place, (await transport.end_offsets([place]))[place])
            if self._listens_until_s is not None:
                self._listens_until_s = clock.monotonic_s() + LISTEN_S
            while True:
                batch = await reader.read(READ_TIMEOUT_S)
                self._readable_s = clock.monotonic_s()
                for value in () if batch is None else batch.values[-NEWEST:]:
                    self._hear(value)
        finally:
            await _close(reader)

    def _hear(self, value: bytes | None) -> None:
        try:
            said = decode(value)
        except ValueError as error:
            self._warn("decoded", f"a report cannot be read, and is passed over: {error}")
            return
        self._alignment.hear(said, self._listened_s)

    # -- what goes wrong

    async def _keep(self, what: Callable[[], Awaitable[None]], done: str) -> None:
        """Do something for ever, whatever the broker says to it."""
        while True:
            try:
                await what()
            except (UnavailableError, ConfigError, StateError) as error:
                self._warn(done, f"reports of how far the workers are cannot be {done}: {describe(error)}; tried again")
                await asyncio.sleep(INTERVAL_S)

    def _warn(self, about: str, text: str) -> None:
        """Say it once a minute."""
        now_s = self._shell.clock.monotonic_s()
        if now_s - self._said_s.get(about, float("-inf")) >= _SAY_AGAIN_S:
            self._said_s[about] = now_s
            log.warning("max_skew: %s: %s", self._place.topic, text)


async def _close(reader: PartitionReader | None) -> None:
    if reader is not None:
        await reader.close()
