"""A worker as a child process, started by the command line as users start it, with a state folder and a log of its own."""

import asyncio
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from tests.ports import free_port

_LINE = re.compile(r"^\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})\]")
_OPEN = re.compile(r"task (\d+): open after")
_GROUP = re.compile(r"(assigned|revoked): (.*)")
_LOOK_S = 0.05


class Worker:
    """`streamforge worker APP`, again and again on the same disk.

    It never outlives the process that started it: a watchdog reads a pipe that closes when that process dies.

    Attributes:
        state: Its state folder.
        log: What it says, of all its lives.
        expected: Whether it should be running now.
        web_port: Where its pages are in its present life.
    """

    def __init__(self, name: str, app: str, folder: Path, environ: Mapping[str, str]) -> None:
        self.name = name
        self.state = folder / f"{name}-state"
        self.log = folder / f"{name}.log"
        self.log.touch()
        self.expected = False
        self.web_port = 0
        self._app = app
        self._environ = {**os.environ, "PYTHONUNBUFFERED": "1", **environ, "STREAMFORGE_STATE_DIR": str(self.state)}
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._writer: subprocess.Popen[bytes] | None = None
        self._born_at = 0

    def start(self) -> None:
        """Run it."""
        assert self._process is None, f"{self.name} runs already"
        self._born_at = self.said()
        self.web_port = free_port()
        command = [sys.executable, "-m", "engine", "worker", self._app, "--web-port", str(self.web_port)]
        with self.log.open("ab") as log:  # by way of a process of its own, which a full disk does not hit
            self._writer = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=log, start_new_session=True)
        says = self._writer.stdin
        assert says is not None
        self._process = subprocess.Popen(
            command, env=self._environ, stdin=subprocess.DEVNULL, stdout=says, stderr=subprocess.STDOUT, start_new_session=True
        )
        says.close()
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; kill -9 "$0"', str(self._process.pid)], stdin=subprocess.PIPE, start_new_session=True
        )
        self.expected = True

    def kill(self) -> None:
        """End it as a power failure would. Harmless when it does not run."""
        self.expected = False
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._gone()

    async def end(self, timeout_s: float = 30.0) -> int | None:
        """Ask it to end (SIGTERM) and return its exit status; None if it did not end in time and was killed."""
        assert self._process is not None, f"{self.name} does not run"
        self.expected = False
        self._process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        while self._process.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110 - processes tell nobody
            await asyncio.sleep(_LOOK_S)
        status = self._process.poll()
        self.kill()
        return status

    def freeze(self) -> None:
        """Stop the process where it stands."""
        assert self._process is not None, f"{self.name} does not run"
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after `freeze`."""
        assert self._process is not None, f"{self.name} does not run"
        os.kill(self._process.pid, signal.SIGCONT)

    def fill_disk(self) -> None:
        """Let no file of it grow any more: each write fails (EFBIG), as on a full disk."""
        assert self._process is not None, f"{self.name} does not run"
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    def free_disk(self) -> None:
        """Let its files grow again."""
        assert self._process is not None, f"{self.name} does not run"
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, resource.getrlimit(resource.RLIMIT_FSIZE))

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None, f"{self.name} does not run"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether there is a process, frozen or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def starting(self) -> bool:
        """Whether it has not said anything yet in its present life: SIGTERM still ends it as it ends any process."""
        return self.said() == self._born_at

    @property
    def died(self) -> int | None:
        """The exit status if it ended though nobody asked it to."""
        return self._process.poll() if self.expected and self._process is not None else None

    def lose_disk(self) -> None:
        """Delete its state."""
        shutil.rmtree(self.state, ignore_errors=True)

    def keep_copy(self, copy: Path) -> None:
        """Copy its state away."""
        shutil.rmtree(copy, ignore_errors=True)
        if self.state.exists():
            shutil.copytree(self.state, copy)

    def bring_back(self, copy: Path) -> None:
        """Replace its state by a copy from earlier."""
        self.lose_disk()
        if copy.exists():
            shutil.copytree(copy, self.state)

    # -- what it says

    def said(self) -> int:
        """Return how much it has said so far, for `since`."""
        return self.log.stat().st_size

    def text(self, since: int = 0) -> str:
        """Return its log from a place on."""
        with self.log.open("rb") as log:
            log.seek(since)
            return log.read().decode(errors="replace")

    async def until_said(self, pattern: str, since: int, timeout_s: float) -> str | None:
        """Wait until a line matches and return it; None after the timeout, or when the worker is gone."""
        wanted = re.compile(f".*(?:{pattern}).*")
        deadline = time.monotonic() + timeout_s
        while True:
            running = self.running
            found = wanted.search(self.text(since))
            if found is not None:
                return found[0]
            if time.monotonic() > deadline or not running:
                return None
            await asyncio.sleep(_LOOK_S)

    def opened(self, since: int = 0) -> list[tuple[float, int]]:
        """Return (time since the epoch, task number) of each task that it opened, in order."""
        found = []
        for line in self.text(since).splitlines():
            opened, stamp = _OPEN.search(line), _LINE.match(line)
            if opened is not None and stamp is not None:
                found.append((datetime.strptime(stamp[1], "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp(), int(opened[1])))
        return found

    def numbers(self) -> set[int]:
        """Return the task numbers that the group has given it in its present life."""
        if not self.running:
            return set()
        held: set[int] = set()
        for change, what in _GROUP.findall(self.text(self._born_at)):
            held = (
                {int(number) for topic in what.split(";") for number in topic.partition(": ")[2].split()} if change == "assigned" else set()
            )
        return held

    def _gone(self) -> None:
        process, watchdog, writer = self._process, self._watchdog, self._writer
        self._process = self._watchdog = self._writer = None
        if writer is not None:
            writer.wait()
        if process is not None and watchdog is not None and watchdog.stdin is not None:
            watchdog.kill()
            watchdog.wait()
            watchdog.stdin.close()
