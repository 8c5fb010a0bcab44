"""Child processes that never outlive us: a watchdog reads a pipe that closes when this process dies, even by kill -9."""

import os
import signal
import subprocess
from pathlib import Path

END_TIMEOUT_S = 30


def watch(process: subprocess.Popen[bytes], folder: Path) -> subprocess.Popen[bytes]:
    """Return a watchdog that kills a process and removes its folder when we are gone."""
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read -r _; kill -9 "$0"; sleep 1; rm -rf "$1"', str(process.pid), str(folder)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def end(process: subprocess.Popen[bytes] | None, watchdog: subprocess.Popen[bytes] | None, how: signal.Signals) -> None:
    """End a process, also one that is stopped, and its watchdog, and wait until both are gone; harmless where they are."""
    if process is not None and process.poll() is None:
        os.kill(process.pid, signal.SIGCONT)
        os.kill(process.pid, how)
        try:
            process.wait(timeout=END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if watchdog is not None and watchdog.stdin is not None:
        watchdog.kill()
        watchdog.wait()
        watchdog.stdin.close()
