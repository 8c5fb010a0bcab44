"""Where a worker's stores lie: `<state_dir>/<app id>/<task number>`, RocksDB in each."""

import logging
from pathlib import Path

from state.errors import StateError
from state.rocks import RocksMemory, RocksStore, erase
from state.store import Store

log = logging.getLogger(__name__)


class StateFolder:
    """The stores of an app on this worker's disk; they share their memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._memory = RocksMemory()

    def open(self, number: int) -> Store:
        """Open the store of a task; one that cannot be opened is deleted, since the changelog holds everything in it.

        Raises:
            StateError: Another process holds it, or the disk does not take it.
        """
        path = self.path / str(number)
        try:
            return RocksStore(path, memory=self._memory)
        except StateError as error:
            erase(path)  # raises if another process holds it
            log.warning("task %d: %s; deleted", number, error)
            return RocksStore(path, memory=self._memory)

    def numbers(self) -> list[int]:
        """Return the numbers of the tasks that have a store here: they are given back to this worker where that is fair."""
        if not self.path.is_dir():
            return []
        return sorted(int(entry.name) for entry in self.path.iterdir() if entry.name.isdigit())
