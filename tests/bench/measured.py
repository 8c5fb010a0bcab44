"""A child process on a core of its own, and what the operating system says about it (Linux: /proc)."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parent.parent.parent
_STOP_S = 15.0


def cores() -> tuple[int, int] | None:
    """Return a core for the broker and one for the measured process; None where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else None


def pin(process_id: int, core: int) -> None:
    """Keep a process, with all threads that it has now and starts later, on a core."""
    for thread in Path(f"/proc/{process_id}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def cpu_seconds(process_id: int) -> float:
    """Return the CPU seconds that a process has used, all threads, user and system."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Measured:
    """`python -m module` with `BENCH_*` variables, in a process group of its own; it is ended when the `with` ends.

    It leaves notes as JSON lines in the file `BENCH_NOTES`: see `notes` (Faust takes standard output for its log).
    """

    def __init__(self, module: str, settings: Mapping[str, str], core: int | None, *, python: str = sys.executable) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="streamforge-bench-")
        self.log = Path(self._folder.name) / "log"
        self._notes = Path(self._folder.name) / "notes"
        self._rss_peak_mib = 0
        environ = {**os.environ, **settings, "BENCH_STATE": f"{self._folder.name}/state", "BENCH_NOTES": str(self._notes)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [python, "-m", module], env=environ, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        if core is not None:
            pin(self.process.pid, core)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def notes(self) -> dict[str, float]:
        """Return what it noted so far."""
        found: dict[str, float] = {}
        for line in self._notes.read_text().splitlines() if self._notes.exists() else []:
            found.update(json.loads(line))
        return found

    def tail(self, characters: int = 2_000) -> str:
        """Return the end of its output."""
        return self.log.read_text(errors="replace")[-characters:]

    def cpu_s(self) -> float:
        """Return the CPU seconds that it has used, all threads, user and system."""
        return cpu_seconds(self.process.pid)

    def rss_peak_mib(self) -> int:
        """Return the most memory that it has had resident, as seen up to its last moment; an ended process tells no more."""
        status = Path(f"/proc/{self.process.pid}/status")
        found = status.read_text().partition("VmHWM:")[2].split() if self.running else []
        self._rss_peak_mib = int(found[0]) // 1024 if found else self._rss_peak_mib
        return self._rss_peak_mib

    def disk_mib(self) -> int:
        """Return what its state takes on disk."""
        taken = 0
        for file in Path(self._folder.name, "state").rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # RocksDB deletes files as it goes on
                taken += file.stat().st_size
        return taken >> 20

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        self._folder.cleanup()

    def stop(self) -> None:
        """Ask it to end, and after a while make it."""
        for how in (signal.SIGTERM, signal.SIGKILL):
            if self.running:
                os.killpg(self.process.pid, how)
                deadline = time.monotonic() + _STOP_S
                while self.running and time.monotonic() < deadline:
                    time.sleep(0.05)


def note(**values: float) -> None:
    """Leave a note; called in the child."""
    with Path(os.environ["BENCH_NOTES"]).open("a") as notes:
        notes.write(json.dumps(values) + "\n")
