"""Waiting for the broker at the start of a worker: it is away for a moment more often than for good.

    broker does not answer ──► said in the log and by /ready, tried again ──► … until `broker_wait` is over: the worker ends
    broker refuses (credentials, a topic that does not fit) ──────────────────────────────────────────► the worker ends at once

Workers and brokers start in any order, and a broker that restarts takes half a minute; a process that ends each time would be started
again with growing pauses by whatever runs it. Only workers wait: a command that a person types says at once what is wrong.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from engine.errors import UnavailableError

log = logging.getLogger(__name__)


class BrokerWait:
    """The steps of a start that need a broker, with one time limit over all of them.

    Args:
        wait_ms: How long after the first step no further attempt begins; None: as long as it takes.
        stopping: Set when nobody wants the start any more; that ends the waiting, and an attempt that is under way.
        retry_first_s, retry_max_s: Pause between attempts; it doubles.

    Attributes:
        reason: Why the present step is not through, "" while nothing is wrong.
    """

    def __init__(self, wait_ms: int | None, stopping: asyncio.Event, *, retry_first_s: float, retry_max_s: float) -> None:
        self.reason = ""
        self._wait_ms = wait_ms
        self._stopping = stopping
        self._retry_first_s, self._retry_max_s = retry_first_s, retry_max_s
        self._end_s: float | None = None

    async def through(self, step: Callable[[], Coroutine[Any, Any, object]]) -> bool:
        """Take a step again and again until it succeeds; it must be one that may be repeated.

        Returns:
            Whether it succeeded: False when the start is not wanted any more.
        Raises:
            UnavailableError: The time is over; the message tells the last reason.
            Exception: Whatever else the step raises, at once.
        """
        now_s, delay_s = asyncio.get_running_loop().time, self._retry_first_s
        if self._end_s is None and self._wait_ms is not None:
            self._end_s = now_s() + self._wait_ms / 1_000
        while not self._stopping.is_set():
            try:
                if await self.unless_stopped(step()):
                    self.reason = ""
                    return True
            except UnavailableError as error:
                self._note(error, now_s(), delay_s)
            await self.unless_stopped(asyncio.sleep(delay_s))
            delay_s = min(delay_s * 2, self._retry_max_s)
        return False

    def _note(self, error: UnavailableError, now_s: float, delay_s: float) -> None:
        if self._end_s is None:
            left = "for as long as it takes"
        elif now_s + delay_s > self._end_s:
            raise UnavailableError(
                f"no broker within {(self._wait_ms or 0) / 1_000:g} s (broker_wait), so the worker ends: {error}"
            ) from error
        else:
            left = f"for another {self._end_s - now_s:.0f} s (broker_wait)"
        self.reason = f"waits for the broker: {error}"
        log.warning("the worker waits for the broker, %s: %s", left, error)

    async def unless_stopped(self, doing: Awaitable[object]) -> bool:
        """Await something, but no longer than the start is wanted; return whether it was done."""
        work = asyncio.ensure_future(doing)
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait([work, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            if not work.done():
                work.cancel()
                await asyncio.wait([work])
        if work.cancelled():
            return False
        work.result()
        return True
