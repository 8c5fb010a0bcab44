"""The disks of simulated workers: stores that outlive their process, can be lost, and can be replaced by an older copy of themselves.

A write is all or nothing, as a RocksDB WriteBatch is; the process may die right before or right after it, or the disk be full. Opening
a store that is open already fails, as RocksDB's lock makes it.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Literal, Protocol

from state.errors import StateError
from state.memory import MemoryStore
from state.store import Change, Position

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

    def scan(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        return self._content().scan(low, high)

    def apply(self, changes: Iterable[Change], position: Position) -> None:
        self._write("apply", position, lambda content: content.apply(changes, position))
        if self._random.random() < 0.2:
            self._volume.remember()

    def flush(self) -> None:
        self._write("flush", self.position, lambda content: content.flush())

    def checkpoint(self, folder: Path) -> None:
        raise StateError(f"a simulated store cannot write a checkpoint to {folder}")

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
