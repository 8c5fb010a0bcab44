"""The `Store` protocol: sorted bytes to bytes, one store a task, written by one batch a commit.

A store is a cache of its changelog partition. It is written only after the transaction that holds the same changes has been
committed, so it is at most behind the changelog, never ahead (`Position.next_offset` says how far it is).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Change = tuple[bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class Position:
    """How far a store has followed its changelog partition.

    Attributes:
        identity: Identity of the changelog partition (from its identity record); b"" for a store that has none yet.
        next_offset: First changelog offset that is not in the store.
        time_ms: Broker time of the last record applied, UTC milliseconds; 0 for none.
    """

    identity: bytes = b""
    next_offset: int = 0
    time_ms: int = 0


class Store(Protocol):
    """Sorted key-value storage of one task."""

    @property
    def position(self) -> Position:
        """Position after the last `apply`; it survives a crash together with the changes."""
        ...

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, None if there is none."""
        ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of keys (none of them empty), as `get` does, in less time; in the least if they are sorted."""
        ...

    def scan(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield entries with low <= key < high in key order, as they are at the time of the call."""
        ...

    def apply(self, changes: Iterable[Change], position: Position) -> None:
        """Write changes (a value of None deletes) and the position, all or nothing.

        Raises:
            StateError: Nothing was written (disk full, closed, unsound): the task must be dropped and reopened.
        """
        ...

    def load(self) -> None:
        """From now on very many changes come and nothing is read, until `loaded`: be fast at that; slow, call it from a thread.

        A process that ends meanwhile leaves an earlier position behind, with what belongs to it.
        """
        ...

    def loaded(self) -> None:
        """Be as usual again: what has been applied is there for good; slow, call it from a thread."""
        ...

    def flush(self) -> None:
        """Make everything applied so far survive a crash of the machine; slow, call it from a thread."""
        ...

    def checkpoint(self, folder: Path) -> None:
        """Write a consistent copy into a folder that does not exist yet; slow, call it from a thread."""
        ...

    def adopt(self, folder: Path) -> None:
        """Take what `checkpoint` wrote in the place of everything that is here; the folder is used up. Slow, call it from a thread.

        Raises:
            StateError: It cannot be used; the store is closed, or has what it had: `clear` it.
        """
        ...

    def clear(self) -> None:
        """Delete everything, position included: the store is rebuilt from the changelog."""
        ...

    def close(self) -> None:
        """Release files and locks; calling it again does nothing."""
        ...
