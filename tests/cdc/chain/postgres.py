"""A real PostgreSQL with logical decoding, from the distribution's binaries; apt-get fetches them where they are missing."""

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, Self

import psycopg

from tests.cdc.chain.process import Service
from tests.maven import JavaMissing
from tests.ports import free_port

_SETTINGS = """
listen_addresses = '127.0.0.1'
wal_level = logical
max_wal_senders = 12
max_replication_slots = 12
shared_buffers = 64MB
fsync = off
timezone = 'UTC'
"""


class ChainMissing(JavaMissing):
    """A part of the chain is not to be had; the message says which."""


class Postgres:
    """One server on a free loopback port, with a data folder of its own."""

    def __init__(self) -> None:
        programs = _programs()
        self.port = free_port()
        self._service = Service("postgres", user="postgres" if os.geteuid() == 0 else None)
        self._programs = programs

    def start(self) -> Self:
        """Make the data folder and run the server."""
        data = self._service.folder / "data"
        owner: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if self._service.user else {}
        command = [str(self._programs / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=self._service.folder, **owner)
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed:\n{done.stdout}{done.stderr}")
        with (data / "postgresql.conf").open("a") as settings:
            settings.write(f"{_SETTINGS}port = {self.port}\nunix_socket_directories = '{self._service.folder}'\n")
        self._service.start([str(self._programs / "postgres"), "-D", str(data)], self._answers)
        return self

    def stop(self) -> None:
        """End it and remove its data."""
        self._service.close(signal.SIGQUIT)

    def url(self, database: str = "postgres") -> str:
        """Return the address of a database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> "psycopg.Connection[Any]":
        """Return a connection in which each statement is a transaction of its own."""
        return psycopg.connect(self.url(database), autocommit=True, connect_timeout=10)

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _programs() -> Path:
    """Return the folder of `initdb` and `postgres`, the newest version there is."""
    for attempt in range(2):
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
        if found:
            return found[-1].parent
        on_path = shutil.which("initdb")
        if on_path is not None:
            return Path(on_path).resolve().parent
        if attempt == 0 and os.geteuid() == 0 and shutil.which("apt-get") is not None:
            for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-qq", "-y", "postgresql"]):
                subprocess.run(
                    command, capture_output=True, check=False, timeout=600, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
                )
    raise ChainMissing("no PostgreSQL: `initdb` is neither under /usr/lib/postgresql nor on the path, and apt-get could not fetch it")
