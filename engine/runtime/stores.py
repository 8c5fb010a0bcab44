"""Where a worker's stores lie: `<state_dir>/<app id>/<task number>`, RocksDB in each."""

import logging
from pathlib import Path

from state.errors import DiskError, StateError
from state.rocks import RocksMemory, RocksStore, erase
from state.store import Store

log = logging.getLogger(__name__)


def open_rocks_store(path: Path, memory: RocksMemory | None = None) -> Store:
    """Open the store in a folder; one that is broken is deleted, since the changelog holds everything in it.

    Raises:
        StateError: Another process holds it, or the disk does not take it: the store may be sound, and is left alone.
    """
    try:
        return RocksStore(path, memory=memory)
    except DiskError:
        raise
    except StateError as error:
        erase(path)  # raises if another process holds it
        log.warning("%s; deleted", error)
        return RocksStore(path, memory=memory)


class StateFolder:
    """The stores of an app on this worker's disk; they share half of the memory that state may take."""

    def __init__(self, path: Path, *, memory_mib: int = 256) -> None:
        self.path = path
        quarter = (memory_mib << 20) // 4
        self._memory = RocksMemory(cache_bytes=quarter, write_buffers_bytes=quarter)

    def open(self, number: int) -> Store:
        """Open the store of a task, see `open_rocks_store`."""
        return open_rocks_store(self.path / str(number), self._memory)

    def numbers(self) -> list[int]:
        """Return the numbers of the tasks that have a store here: they are given back to this worker where that is fair."""
        if not self.path.is_dir():
            return []
        return sorted(int(entry.name) for entry in self.path.iterdir() if entry.name.isdigit())
