"""The coroutine that holds what belongs to a task number on a worker: its store, its producer. There is one at a time.

Whoever cancels a coroutine has only asked. It may be in a thread that has to end first, or in a library that takes the cancellation
for its own (aiokafka's `stop` cancels its parts, waits for them, and forgets whose cancellation it was): then it would open again what it
was told to leave, fence its successor and be fenced by it, and take the store's lock away from it. So a holder remembers that it was told
to end and asks itself where it would begin anew, and its successor waits until it has ended.

    told to end ── in a thread ──┬── swallowed ── next step: check() ── ended
    successor ···················· waits ······························ begins
"""

import asyncio
import logging
from collections.abc import Coroutine

log = logging.getLogger(__name__)


class Holder:
    """Starts one coroutine and ends it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._told = False
        self.running: asyncio.Task[None] | None = None

    def start(self, work: Coroutine[None, None, None]) -> None:
        """Begin; the work calls `follow` before it holds anything."""
        self.running = asyncio.create_task(work, name=self._name)

    async def follow(self, before: "Holder | None") -> None:
        """Wait until the holder before has ended."""
        if before is not None and before.running is not None and not before.running.done():
            log.warning("%s: waits until the one before it on this worker has let go", self._name)
            await asyncio.wait([before.running])

    def check(self) -> None:
        """Raise `CancelledError` if it was told to end: to be called before anything is held anew."""
        if self._told:
            raise asyncio.CancelledError(f"{self._name} was told to end")

    async def end(self, timeout_s: float) -> None:
        """Tell it to end, and wait until it has, or for the timeout."""
        self._told = True
        if self.is_unfinished:
            assert self.running is not None
            self.running.cancel()
            await asyncio.wait([self.running], timeout=timeout_s)
            if self.is_unfinished:
                log.warning("%s: has not let go within %.1f s", self._name, timeout_s)

    @property
    def is_unfinished(self) -> bool:
        """Whether it runs."""
        return self.running is not None and not self.running.done()
