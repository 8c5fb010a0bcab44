"""When the files that a load has left are compacted: some time after the last load of the process.

    store 0   load ▓▓▓▓▓▓▓ loaded · at work ·······································▒▒▒ compaction
    store 1   load ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓ loaded · at work ··············▒▒▒ compaction
                                                          └── nothing is loaded ──┘ QUIET_S

Tasks are restored side by side, and one that is through early would compact its files with the processor that the others need, a fifth of
the time until all of them are at work again; and then they have input to catch up with. Until then reads look into a few more files,
whose filters answer most of them.
"""

import time  # noqa: TID251  # a store is I/O
from threading import Lock  # noqa: TID251  # loads end in threads
from weakref import WeakSet

QUIET_S = 10.0


class Loads:
    """The loads of a process that are under way. For any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._under_way: WeakSet[object] = WeakSet()
        self._ended_s = time.monotonic()

    def begin(self, store: object) -> None:
        """Take note of a load."""
        with self._lock:
            self._under_way.add(store)

    def end(self, store: object) -> None:
        """Take note that a store is loaded, or that its load, if there was one, was given up."""
        with self._lock:
            if store in self._under_way:
                self._under_way.discard(store)
                self._ended_s = time.monotonic()

    def over(self) -> bool:
        """Tell whether nothing is being loaded, and has not been for some time."""
        with self._lock:
            return not self._under_way and time.monotonic() >= self._ended_s + QUIET_S
