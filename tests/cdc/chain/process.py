"""A service as a child process that never outlives us: a watchdog reads a pipe that closes when this process dies, even by kill -9."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests import child_process

START_TIMEOUT_S = 120.0


class Service:
    """A process with a folder of its own for its data and its log; `end` and `close` are harmless when it does not run.

    Args:
        name: For its folder and for messages.
        user: Run it as this user; its folder belongs to that user.
    """

    def __init__(self, name: str, *, user: str | None = None) -> None:
        self.name = name
        self.folder = Path(tempfile.mkdtemp(prefix=f"cdc-{name}-"))
        self.user = user
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        if user is not None:
            shutil.chown(self.folder, user, user)

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.folder / "log"

    def start(
        self, command: Sequence[str], ready: Callable[[], bool], *, environment: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        """Run it and return when `ready` says so.

        Raises:
            RuntimeError: It did not come up; the message ends with its log.
        """
        assert self._process is None, f"{self.name} runs already"
        owner: dict[str, Any] = {} if self.user is None else {"user": self.user, "group": self.user, "extra_groups": []}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=cwd or self.folder,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                **owner,
            )
        self._watchdog = child_process.watch(self._process, self.folder)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.end(signal.SIGKILL)
                raise RuntimeError(f"{self.name} did not start; its log ends with:\n{self.log.read_text(errors='replace')[-4_000:]}")
            time.sleep(0.1)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait until it is gone; its folder stays."""
        process, watchdog = self._process, self._watchdog
        self._process = self._watchdog = None
        child_process.end(process, watchdog, how)

    def close(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it and remove its folder."""
        self.end(how)
        shutil.rmtree(self.folder, ignore_errors=True)
