"""What starts with an app, and in which order; and the service that holds the runner.

    sensors · producer · web · consumer of plain agents · agents · conductor · runner

Services stop in the opposite order: the runner first, while the agents that its batches go through still run.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from faust.app.base import BootStrategy
from faust.types import AppT
from mode import Service
from mode.types import ServiceT

from engine.runtime.clock import SystemClock
from engine.runtime.collector import tune_collector
from engine.runtime.runner import Runner
from engine.runtime.watchdog import LoopGuard

log = logging.getLogger(__name__)


class RunnerService(Service):
    """Runs the pipelines; a failure of the runner crashes the app, which ends the worker with status 1."""

    def __init__(self, make_runner: Callable[[], Awaitable[Runner]], grace_s: float, stall_ms: int | None, **kwargs: Any) -> None:
        self._make_runner = make_runner
        self._grace_s = grace_s
        self._stall_ms = stall_ms
        self._guard: LoopGuard | None = None
        self._running: asyncio.Task[None] | None = None
        self.runner: Runner | None = None
        super().__init__(**kwargs)

    async def on_start(self) -> None:
        """Begin to run."""
        tune_collector()
        self.runner = await self._make_runner()
        self._running = asyncio.create_task(self.runner.run(), name="runner")
        if self._stall_ms is not None and isinstance(self.runner.clock, SystemClock):
            self._guard = LoopGuard(asyncio.get_running_loop(), self._stall_ms)
            self._guard.start()

    @Service.task
    async def _watch(self) -> None:
        assert self._running is not None
        await asyncio.wait([self._running])
        if not self._running.cancelled():
            error = self._running.exception()
            if error is not None:
                await self.crash(error)

    async def on_stop(self) -> None:
        """Let the tasks finish the batch in hand, commit and close; then leave, whatever is still open."""
        if self._guard is not None:
            self._guard.stop()
        if self.runner is None or self._running is None:
            return
        self.runner.stop()
        await asyncio.wait([self._running], timeout=self._grace_s + 5)
        if not self._running.done():
            log.warning("the runner did not end within %.0f s; what is uncommitted is done again by the next owner", self._grace_s + 5)
            self._running.cancel()


class Boot(BootStrategy):
    """Faust's order, without tables, leaders and replies, and with the runner last."""

    app: AppT

    def server(self) -> Iterable[ServiceT]:
        """Return the services of a worker, in the order in which they start."""
        return self._chain(super().server(), self.app.pipeline_services())  # type: ignore[attr-defined]  # our App

    def kafka_consumer(self) -> Iterable[ServiceT]:
        """Return the consumer of plain agents; it connects only if there are any."""
        return [self.app.consumer] if self._should_enable_kafka_consumer() else []

    def tables(self) -> Iterable[ServiceT]:
        """Return nothing: state is ours."""
        return []
