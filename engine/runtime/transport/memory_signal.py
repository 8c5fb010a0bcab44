"""A counter to wait for: how coroutines learn that something in the memory broker has changed."""

import asyncio

LEAST_WAIT_S = 0.001
"""A shorter wait may end before its time, for event loops round; whoever waits for a deadline would ask again and again."""


class Signal:
    """Counts changes. Whoever waits gives the count that it has seen, so no change between looking and waiting is missed.

    It is bound to no event loop while nobody waits. Waiters are woken in the order in which they came.
    """

    def __init__(self) -> None:
        self.count = 0
        self._waiting: dict[asyncio.Future[None], None] = {}

    def notify(self) -> None:
        """Something has changed."""
        self.count += 1
        waiting, self._waiting = self._waiting, {}
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self, seen: int, timeout_s: float) -> None:
        """Return when the count is no longer `seen`, or after the time-out."""
        if self.count != seen or timeout_s <= 0:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting[future] = None
        try:
            async with asyncio.timeout(None if timeout_s == float("inf") else max(timeout_s, LEAST_WAIT_S)):
                await future
        except TimeoutError:
            pass
        finally:
            self._waiting.pop(future, None)
