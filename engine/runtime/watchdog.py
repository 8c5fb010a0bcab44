"""The watchdog: no task stands still in silence.

| stands still | noticed by | then |
|---|---|---|
| a task, with input, a batch or a commit in hand | `Watchdog`, on the event loop | stack in the log, readiness false, opened again |
| its time, though the others' goes on: a watermark | `TimeWatch` (`engine.runtime.held_back`) | the same, with what holds it back |
| an opening that gets no further | `Watchdog` | stack in the log; what waits for it (`max_skew`) does so no longer |
| the same again and again, three times | `Watchdog` | the worker ends with an error, to be started anew |
| the event loop: user code that does not return | `LoopGuard`, in a thread | stack in the log, then the process ends |

A task moves when a position, a committed offset or the number of its commits changes. It has to as long as the log ends behind one of its
positions (the broker is asked, not the fetcher, which may be what is stuck), a batch waits, or something is uncommitted. Time counts
from the last move, and anew after a gap of the event loop. Input held back on purpose (`max_skew`) is no reason. A task that waits for a
schema of a registry moves with each attempt to get it: what does not answer is said in the log, and opening again would not help.

Ending the process is safe: what is uncommitted is done again by the next owner.
"""

import asyncio
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from types import FrameType
from typing import Any

from engine.errors import StateError, StreamForgeError, UnavailableError
from engine.records import TopicPartition
from engine.runtime.held_back import TimeWatch
from engine.runtime.lifecycle import Phase
from engine.runtime.shell import Shell
from engine.runtime.task_runner import TaskRunner

log = logging.getLogger(__name__)

STRIKES_MAX = 3
_LOOKS = 6
_ASK_S = 5.0
_GUARD_S = 1.0
EXIT_STATUS = 70


class StalledError(StateError):
    """A task did not move although it was opened again: the worker has to be started anew."""


class Watchdog:
    """Looks at the tasks of a worker.

    Args:
        tasks: Returns the tasks as they are now.
        restart: Closes a task and opens it again.

    Attributes:
        stalled: What each task that stands still waits for; empty when all move. What holds the time of tasks back: `reasons`.
        failure: Why the worker has to end, None as long as it does not.
    """

    def __init__(
        self, shell: Shell, tasks: Callable[[], Mapping[int, TaskRunner]], restart: Callable[[TaskRunner], Awaitable[None]], stall_ms: int
    ) -> None:
        self.stalled: dict[int, str] = {}
        self.failure: StalledError | None = None
        self._shell = shell
        self._tasks = tasks
        self._restart = restart
        self._stall_s = stall_ms / 1_000
        self._seen: dict[int, tuple[tuple[Any, ...], float]] = {}
        self._strikes: dict[int, int] = {}
        self._opening: dict[int, tuple[tuple[int, ...], float]] = {}
        self._time = TimeWatch(shell, self._stall_s)
        self._time_strikes: dict[int, int] = {}
        self._refusal = ""

    def reasons(self) -> list[str]:
        """Return why the worker is not ready: which tasks, or which times, stand still; nothing if all move."""
        still = [f"task {number} does not move: {reason}" for number, reason in sorted(self.stalled.items())]
        return still + [f"time does not move in task {number}: {held.reason}" for (number, _), held in sorted(self._time.standing.items())]

    async def run(self) -> None:
        """Look, again and again, whatever comes of a look: who watches must not be what stands still in silence."""
        while True:
            await asyncio.sleep(self._stall_s / _LOOKS)
            try:
                await self.look()
            except Exception:
                log.exception("the watchdog could not look at the tasks; it looks again in %.1f s", self._stall_s / _LOOKS)

    async def look(self) -> None:
        """Look once; open again what stands still for too long."""
        tasks = {number: task for number, task in self._tasks().items() if task.phase is Phase.RUNNING}
        ends = await self._ends(tasks)
        behind = self._behind(tasks, ends)
        now_s = self._shell.clock.monotonic_s()
        self._seen = {number: seen for number, seen in self._seen.items() if number in tasks}
        for number, task in tasks.items():
            signs, reason = self._signs(task), task.in_hand() or behind.get(number)
            before, since_s = self._seen.get(number, ((), now_s))
            if reason is None or signs != before:
                self._seen[number] = (signs, now_s)
                if before and signs != before:
                    self._strikes.pop(number, None)
                    self.stalled.pop(number, None)
            elif now_s - max(since_s, self._shell.pulse.restarted_s) >= self._stall_s:
                self._seen.pop(number)
                strikes = self._strikes[number] = self._strikes.get(number, 0) + 1
                self.stalled[number] = reason
                await self._report(task, reason, strikes)
        self.stalled = {number: reason for number, reason in self.stalled.items() if number in self._tasks()}
        self._look_at_openings(now_s)
        await self._look_at_time(tasks, ends, now_s)

    def _look_at_openings(self, now_s: float) -> None:
        """Say where a task stands that is being opened and gets no further; all that an opening waits for has a limit of its own."""
        opening = {number: task for number, task in self._tasks().items() if task.phase is Phase.OPENING}
        self._opening = {number: seen for number, seen in self._opening.items() if number in opening}
        for number, task in opening.items():
            metrics = self._shell.metrics.task(number)
            signs = (metrics.restore_lag, metrics.restored_entries, metrics.open_failures)
            before, since_s = self._opening.setdefault(number, (signs, now_s))
            if signs != before:
                self._opening[number] = (signs, now_s)
            elif now_s - max(since_s, self._shell.pulse.restarted_s) >= self._stall_s:
                self._opening[number] = (signs, now_s)
                if self._shell.alignment is not None:
                    self._shell.alignment.leave(task.inputs)  # the others go on without it
                log.error("task %d has been opening for %.0f s and gets no further; it stands at\n%s", number, self._stall_s, task.where())

    async def _look_at_time(self, tasks: Mapping[int, TaskRunner], ends: Mapping[TopicPartition, int], now_s: float) -> None:
        """Look whether event time moves; open again where that may help."""
        try:
            async with asyncio.timeout(_ASK_S):
                found = await self._time.look(tasks, frozenset(self._tasks()), ends, now_s)
        except (StreamForgeError, TimeoutError) as error:
            self._cannot_ask(error)
            return
        standing = {number for number, _ in self._time.standing}
        self._time_strikes = {number: strikes for number, strikes in self._time_strikes.items() if number in standing}
        for number, task in tasks.items():
            mine = [held for held in found if held.number == number]
            reason = f"its time does not: {'; '.join(held.reason for held in mine)}"
            if any(held.is_curable for held in mine):
                self._time_strikes[number] = self._time_strikes.get(number, 0) + 1
                await self._report(task, reason, self._time_strikes[number])
            elif mine:
                log.error("task %d moves, but %s; it stands at\n%s", number, reason, task.where())

    async def _report(self, task: TaskRunner, reason: str, strikes: int) -> None:
        number = task.number
        self._shell.metrics.task(number).stalls += 1
        log.error("task %d has not moved for %.0f s: %s; it stands at\n%s", number, self._stall_s, reason, task.where())
        if strikes >= STRIKES_MAX:
            self.failure = StalledError(f"task {number} was opened again {strikes - 1} times and does not move: {reason}")
            return
        log.warning("task %d is opened again (%d of %d)", number, strikes, STRIKES_MAX - 1)
        await self._restart(task)

    def _signs(self, task: TaskRunner) -> tuple[object, ...]:
        """Return something that changes whenever a task moves."""
        metrics = self._shell.metrics.task(task.number)
        return (*task.positions.items(), *task.committed.items(), metrics.commits, metrics.opens, metrics.preparation_failures)

    async def _ends(self, tasks: Mapping[int, TaskRunner]) -> Mapping[TopicPartition, int]:
        """Return where the inputs of tasks end; nothing if the broker cannot be asked: then nobody can read."""
        inputs = [partition for task in tasks.values() for partition in task.free_inputs()]
        if not inputs:
            return {}
        try:
            async with asyncio.timeout(_ASK_S):
                return await self._shell.transport.end_offsets(inputs)
        except (StreamForgeError, TimeoutError) as error:
            self._cannot_ask(error)
            return {}

    def _cannot_ask(self, error: Exception) -> None:
        """Go on without an answer of the broker: one that is away says so elsewhere, a refusal (rights were taken away) is said here."""
        self._time.restart()
        if not isinstance(error, UnavailableError | TimeoutError) and str(error) != self._refusal:
            self._refusal = str(error)
            log.warning("the watchdog cannot ask how far the tasks are behind, and looks only at what they have in hand: %s", error)

    def _behind(self, tasks: Mapping[int, TaskRunner], ends: Mapping[TopicPartition, int]) -> dict[int, str]:
        """Return what each task has not read although it is there."""
        found = {}
        for number, task in tasks.items():
            for partition in task.free_inputs():
                position, end = task.positions.get(partition), ends.get(partition, 0)
                if position is not None and end > position:
                    found[number] = f"{partition.topic} is at {position} and ends at {end}, but nothing is delivered"
        return found


class LoopGuard:
    """A thread that ends the process when the event loop does not go round: code that never returns cannot be told to stop.

    Args:
        loop: Asked to answer, again and again; this object is made on its thread.
        end: Ends the process; tests put another one in.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, stall_ms: int, *, end: Callable[[int], Any] = os._exit) -> None:
        self._loop = loop
        self._answered_s = time.monotonic()
        self._stall_s = stall_ms / 1_000
        self._end = end
        self._stopped = threading.Event()
        self._loop_thread = threading.get_ident()
        self._thread = threading.Thread(target=self._run, name="loop guard", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()

    def _answer(self) -> None:
        self._answered_s = time.monotonic()

    def _run(self) -> None:
        looked_s, floor_s, said = time.monotonic(), time.monotonic(), False
        while not self._stopped.wait(min(_GUARD_S, self._stall_s / 4)):
            try:
                self._loop.call_soon_threadsafe(self._answer)
            except RuntimeError:  # the loop is closed
                return
            now_s = time.monotonic()
            if now_s - looked_s > self._stall_s / 2:  # the process was stopped: the loop could not go round either
                floor_s = now_s
            looked_s = now_s
            still_s = now_s - max(self._answered_s, floor_s)
            if still_s < self._stall_s:
                said = False
            elif not said:
                said = True
                log.critical("the event loop has stood still for %.0f s, in\n%s", still_s, self._stack())
            elif still_s >= 2 * self._stall_s:
                log.critical("the event loop has stood still for %.0f s: the process ends; the next owner goes on", still_s)
                for handler in logging.getLogger().handlers:
                    handler.flush()
                self._end(EXIT_STATUS)
                return

    def _stack(self) -> str:
        frame: FrameType | None = sys._current_frames().get(self._loop_thread)
        return "".join(traceback.format_stack(frame)) if frame is not None else "(its thread is gone)"
