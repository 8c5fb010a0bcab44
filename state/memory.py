"""The memory store: for tests, for `memory://` without a state folder, and as the reference that the RocksDB store is held to."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from weakref import WeakSet

from sortedcontainers import SortedDict

from state.errors import StateError
from state.store import Change, Position


class MemoryStore:
    """A sorted dict. `close` keeps the content: the same object opened again stands for the same disk (`reopen`)."""

    def __init__(self) -> None:
        self._entries: SortedDict[bytes, bytes] = SortedDict()
        self._position = Position()
        self._scans: WeakSet[_Scan] = WeakSet()
        self._open = True

    @property
    def position(self) -> Position:
        return self._position

    def get(self, key: bytes) -> bytes | None:
        self._check()
        value: bytes | None = self._entries.get(key)
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self._check()
        return [*map(self._entries.get, keys)]

    def scan(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        self._check()
        scan = _Scan(self._entries, low, high)
        self._scans.add(scan)
        return scan

    def apply(self, changes: Iterable[Change], position: Position) -> None:
        self._check()
        self._settle()
        entries = self._entries
        for key, value in list(changes):
            if value is None:
                entries.pop(key, None)
            else:
                entries[key] = value
        self._position = position

    def load(self) -> None:
        self._check()

    def loaded(self) -> None:
        self._check()

    def flush(self) -> None:
        self._check()

    def checkpoint(self, folder: Path) -> None:
        """Refuse: memory has no files."""
        raise StateError(f"a memory store cannot write a checkpoint to {folder}; use a RocksDB store")

    def adopt(self, folder: Path) -> None:
        """Refuse: memory has no files."""
        raise StateError(f"a memory store cannot begin from the checkpoint in {folder}; use a RocksDB store")

    def clear(self) -> None:
        self._check()
        self._settle()
        self._entries.clear()
        self._position = Position()

    def close(self) -> None:
        self._open = False

    def reopen(self) -> None:
        """Open it again after `close`, as a process would after a restart."""
        self._open = True

    def _check(self) -> None:
        if not self._open:
            raise StateError("the memory store is closed")

    def _settle(self) -> None:
        for scan in list(self._scans):
            scan.settle()


class _Scan:
    """A scan reads as it goes, so that a look at the first entry is cheap, and takes the rest along before anything changes."""

    def __init__(self, entries: "SortedDict[bytes, bytes]", low: bytes, high: bytes) -> None:
        self._rest: Iterator[tuple[bytes, bytes]] = ((key, entries[key]) for key in entries.irange(low, high, inclusive=(True, False)))

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        return next(self._rest)

    def settle(self) -> None:
        self._rest = iter(list(self._rest))
