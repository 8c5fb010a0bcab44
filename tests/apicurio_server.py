"""A real Apicurio Registry as a child process, for tests and people: it keeps everything in memory, and nothing is left behind.

    with ApicurioServer() as server:
        print(server.url)                # http://127.0.0.1:40123/apis/ccompat/v7, the Confluent API

By hand: `python -m tests.apicurio_server` prints the address and runs until Ctrl-C. It needs Java 21 or newer; Maven fetches it once
(158 MB). Like the broker of `tests.kafka_server` it never outlives the process that started it.
"""

import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from tests import child_process
from tests.maven import archive, java_command, java_program
from tests.ports import free_ports

VERSION = "3.3.3"
_START_TIMEOUT_S = 120.0


class ApicurioServer:
    """One registry. Its methods block for seconds.

    Args:
        port: 0 for any free one.
        heap_mb: The JVM's heap.
    """

    def __init__(self, port: int = 0, *, heap_mb: int = 384) -> None:
        self.port = port
        self._heap_mb = heap_mb
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address of its Confluent API."""
        return f"{self.base_url}/apis/ccompat/v7"

    @property
    def base_url(self) -> str:
        """Address of the server; its own API of version 2, which Connect's converter speaks, is below `/apis/registry/v2`."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Run it and return when it answers.

        Raises:
            JavaMissing: Java 21, Maven or the download is not to be had.
            RuntimeError: It did not come up; the message ends with its log.
        """
        assert self._process is None, "already started"
        java, installed = java_program(21), archive(f"apicurio-{VERSION}", f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all")
        self._folder = Path(tempfile.mkdtemp(prefix="apicurio-"))
        http, management = free_ports(2)
        self.port = self.port or http
        settings = {
            "quarkus.http.host": "127.0.0.1",
            "quarkus.http.port": str(self.port),
            "quarkus.management.host": "127.0.0.1",
            "quarkus.management.port": str(management),
            "apicurio.storage.kind": "sql",
            "apicurio.storage.sql.kind": "h2",
        }
        command = java_command(java, self._heap_mb)
        command += [f"-D{name}={value}" for name, value in settings.items()]
        command += ["-jar", str(installed / "quarkus-run.jar")]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=installed, start_new_session=True
            )
        self._watchdog = child_process.watch(self._process, self._folder)
        self._wait()
        return self

    def stop(self) -> None:
        """End it. Harmless when it does not run."""
        process, watchdog, folder = self._process, self._watchdog, self._folder
        self._process = self._watchdog = self._folder = None
        child_process.end(process, watchdog, signal.SIGTERM)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _wait(self) -> None:
        assert self._process is not None and self._folder is not None
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/subjects", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                pass
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = (self._folder / "log").read_text(errors="replace")[-4_000:]
                self.stop()
                raise RuntimeError(f"Apicurio did not start; its log ends with:\n{tail}")
            time.sleep(0.1)


def main() -> int:
    """Run a registry until Ctrl-C or SIGTERM and print its address."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ApicurioServer() as server:
        print(server.url, flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("stopping", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
