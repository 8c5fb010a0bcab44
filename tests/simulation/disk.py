"""The disks of simulated workers: stores that outlive their process, can be lost, and can be replaced by an older copy of themselves.

A write is all or nothing, as a RocksDB WriteBatch is; the process may die right before or right after it, or the disk be full. Opening
a store that is open already fails, as RocksDB's lock makes it.
"""

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Literal, Protocol

import msgspec

from engine.runtime.checkpointing import Checkpoints
from state.checkpoint import Shelf
from state.errors import StateError
from state.memory import MemoryStore
from state.store import Change, Position

log = logging.getLogger("state.simulated")

Moment = Literal["before", "after"]
_COPIES_MAX = 4


class Owner(Protocol):
    """The process that has a store open."""

    @property
    def alive(self) -> bool: ...

    def at_store(self, operation: str, moment: Moment, number: int, position: Position) -> None:
        """Called around each write; it may end the process, or raise StateError for a full disk."""
        ...


class Volume:
    """The store of one task on one disk: content, and older copies of it."""

    def __init__(self) -> None:
        self.content = MemoryStore()
        self.copies: list[tuple[list[Change], Position]] = []
        self.holder: SimulatedStore | None = None

    def entries(self) -> dict[bytes, bytes]:
        """Return everything in it."""
        self.content.reopen()
        return dict(self.content.scan(b"", b"\xff" * 64))

    def remember(self) -> None:
        """Keep a copy of what is there now."""
        self.copies = [*self.copies, (list[Change](self.entries().items()), self.content.position)][-_COPIES_MAX:]

    def replace(self, changes: Iterable[Change], position: Position) -> None:
        """Make the content another one."""
        self.content = MemoryStore()
        self.content.apply(changes, position)


class Disk:
    """The volumes of one worker."""

    def __init__(self, random: Random) -> None:
        self.volumes: dict[int, Volume] = {}
        self._random = random

    def open(self, number: int, owner: Owner) -> "SimulatedStore":
        """Open a store, see `Runner.open_store`."""
        owner.at_store("open", "before", number, Position())
        volume = self.volumes.setdefault(number, Volume())
        if volume.holder is not None and volume.holder.owner.alive:
            raise StateError(f"store {number}: another one has the lock")
        volume.content.reopen()
        volume.holder = SimulatedStore(volume, number, owner, self._random)
        owner.at_store("open", "after", number, Position())
        return volume.holder

    def numbers(self) -> list[int]:
        """Return the numbers of the stores here."""
        return sorted(self.volumes)

    def lose(self) -> None:
        """Lose everything."""
        self.volumes.clear()

    def go_back(self) -> None:
        """Put an older copy in the place of each store that has one."""
        for volume in self.volumes.values():
            if volume.copies:
                volume.replace(*self._random.choice(volume.copies))
                volume.copies.clear()


class Bucket:
    """The object store of an app, which all workers share; what is in it may get lost or damaged."""

    def __init__(self, random: Random) -> None:
        self.files: dict[str, bytes] = {}
        self._random = random

    def spoil(self) -> str:
        """Lose, tear or change one file; return what was done."""
        if not self.files:
            return "nothing: there is no file"
        # By the order in which they came: the names of data files are hashes of what holds the random identity of a changelog.
        at = self._random.randrange(len(self.files))
        name = list(self.files)[at]
        shown = name if name.endswith(".json") else f"{name.rpartition('/')[0]}, file {at}"
        content, fate = self.files[name], self._random.randrange(3)
        if fate == 0 or not content:
            del self.files[name]
            return f"{shown} is lost"
        at = self._random.randrange(len(content))
        if fate == 1:
            self.files[name] = content[:at]
            return f"{shown} is torn at {at}"
        self.files[name] = content[:at] + bytes([content[at] ^ 1 << self._random.randrange(8)]) + content[at + 1 :]
        return f"{shown} has another bit at {at}"


class SimulatedPlace:
    """A `Place` as one process sees it: of no effect once that process is dead."""

    def __init__(self, bucket: Bucket, owner: Owner) -> None:
        self._bucket = bucket
        self._owner = owner

    def sizes(self, folder: str) -> dict[str, int]:
        start = folder.rstrip("/") + "/"
        found = {name.removeprefix(start): len(content) for name, content in self._files().items() if name.startswith(start)}
        return {name: size for name, size in found.items() if "/" not in name}

    def read(self, name: str) -> bytes:
        if name not in self._files():
            raise StateError(f"{name} is not there")
        return self._files()[name]

    def write(self, name: str, content: bytes) -> None:
        self._owner.at_store("put", "before", -1, Position())
        self._files()[name] = content
        self._owner.at_store("put", "after", -1, Position())

    def put(self, name: str, source: Path) -> None:
        self.write(name, source.read_bytes())

    def get(self, name: str, target: Path) -> None:
        target.write_bytes(self.read(name))

    def delete(self, name: str) -> None:
        self._files().pop(name, None)

    def sweep(self, folder: str) -> None:
        """Do nothing: files are there whole or not at all."""

    def _files(self) -> dict[str, bytes]:
        if not self._owner.alive:
            raise StateError("the process is dead")
        return self._bucket.files


class SimulatedCheckpoints(Checkpoints):
    """The genuine checkpoints, kept in a simulated place only; copies on their way there are genuine files."""

    def __init__(self, folder: Path, bucket: Bucket, owner: Owner) -> None:
        super().__init__(folder, "sim")
        self._place = SimulatedPlace(bucket, owner)

    def shelves(self, number: int) -> list[Shelf]:
        """Return the shelf of a task."""
        return [Shelf(self._place, f"sim/{number}", kept=3, say=log.warning)]


class SimulatedStore:
    """A `Store` as one process has it open: of no effect once that process is dead."""

    def __init__(self, volume: Volume, number: int, owner: Owner, random: Random) -> None:
        self.owner = owner
        self.is_open = True
        self._volume = volume
        self._number = number
        self._random = random

    @property
    def position(self) -> Position:
        return self._volume.content.position

    def get(self, key: bytes) -> bytes | None:
        return self._content().get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._content().get_many(keys)

    def scan(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        return self._content().scan(low, high)

    def apply(self, changes: Iterable[Change], position: Position) -> None:
        self._write("apply", position, lambda content: content.apply(changes, position))
        if self._random.random() < 0.2:
            self._volume.remember()

    def load(self) -> None:
        self._write("load", self.position, lambda content: content.load())

    def loaded(self) -> None:
        self._write("loaded", self.position, lambda content: content.loaded())

    def flush(self) -> None:
        self._write("flush", self.position, lambda content: content.flush())

    def checkpoint(self, folder: Path) -> None:
        """Write one file that has the content of all."""
        position = self.position
        entries = list(self._content().scan(b"", b"\xff" * 64))
        folder.mkdir(parents=True)
        where = (position.identity, position.next_offset, position.time_ms)
        (folder / "entries.sst").write_bytes(msgspec.msgpack.encode((where, entries)))

    def adopt(self, folder: Path) -> None:
        raw = (folder / "entries.sst").read_bytes()
        shutil.rmtree(folder)
        (identity, next_offset, time_ms), entries = msgspec.msgpack.decode(
            raw, type=tuple[tuple[bytes, int, int], list[tuple[bytes, bytes]]]
        )
        position = Position(identity, next_offset, time_ms)
        self.owner.at_store("adopt", "before", self._number, position)
        if not (self.is_open and self.owner.alive):
            raise StateError("the store is closed, or its process is dead")
        self._volume.replace(entries, position)
        self.owner.at_store("adopt", "after", self._number, position)

    def clear(self) -> None:
        self._write("clear", Position(), lambda content: content.clear())

    def close(self) -> None:
        if self.is_open and self.owner.alive:
            self.owner.at_store("close", "before", self._number, self.position)
        self.is_open = False
        if self._volume.holder is self:
            self._volume.holder = None

    def _write(self, operation: str, position: Position, write: Callable[[MemoryStore], None]) -> None:
        self.owner.at_store(operation, "before", self._number, position)
        write(self._content())
        self.owner.at_store(operation, "after", self._number, position)

    def _content(self) -> MemoryStore:
        if not (self.is_open and self.owner.alive):
            raise StateError("the store is closed, or its process is dead")
        return self._volume.content
