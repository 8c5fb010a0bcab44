"""The event loop of a simulation, and the trace of what happens on it."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVarTuple

from engine.testing.clock import LoopClock, VirtualTimeLoop
from tests.simulation.process import PROCESS

Ts = TypeVarTuple("Ts")

LOGGERS = ("engine", "state")


class SimulationLoop(VirtualTimeLoop):
    """A virtual-time loop without threads: what is handed to one runs at once, so that a process may die in it."""

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], Any], *args: *Ts) -> asyncio.Future[Any]:
        """Run a function."""
        future = self.create_future()
        self.call_soon(_settle, future, func, args)
        return future


def _settle(future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if future.cancelled():
        return
    try:
        result = func(*args)
    except Exception as error:  # noqa: BLE001  # as a thread would hand it over
        if not future.cancelled():
            future.set_exception(error)
    else:
        if not future.cancelled():
            future.set_result(result)


class Trace(logging.Handler):
    """What happened, line by line, in virtual time; the engine's own log lines are part of it."""

    def __init__(self, clock: LoopClock) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []
        self._clock = clock

    def say(self, text: str) -> None:
        """Add a line."""
        self.lines.append(f"{self._clock.monotonic_s():9.3f}  {text}")

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line of a log."""
        process = PROCESS.get()
        self.say(f"{process.name if process else '-'}: {record.getMessage()}")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the engine's log lines, and keep them from everybody else."""
        loggers = [logging.getLogger(name) for name in LOGGERS]
        before = [(logger.level, logger.propagate) for logger in loggers]
        for logger in loggers:
            logger.addHandler(self)
            logger.setLevel(logging.INFO)
            logger.propagate = False
        try:
            yield
        finally:
            for logger, (level, propagate) in zip(loggers, before, strict=True):
                logger.removeHandler(self)
                logger.setLevel(level)
                logger.propagate = propagate
