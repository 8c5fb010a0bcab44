"""A simulated worker process: the genuine `Runner` on a disk, a network line and a wall clock of its own; it can die at any await.

Dying is silent: from that moment on no request and no write of the process has any effect, and then everything of it is cancelled. What
the cancelled code still tries to do to clean up happens in a dead process, and so not at all.
"""

import asyncio
import contextvars
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from engine.errors import StateError
from engine.plan import Plan
from engine.records import RecordBatch
from engine.runtime.runner import Runner
from engine.runtime.shell import Limits
from engine.runtime.transport.memory_broker import MemoryBroker
from engine.runtime.transport.memory_connection import Request
from engine.runtime.transport.memory_membership import GroupTimes
from engine.task import Task
from engine.testing.clock import LoopClock
from state.store import Position, Store
from tests.simulation.disk import Bucket, Disk, Moment, SimulatedCheckpoints
from tests.simulation.network import Line, SimulatedTransport, Weather

SESSION_S = 3.0
TIMES = GroupTimes(session_timeout_s=SESSION_S, heartbeat_interval_s=0.6, rebalance_timeout_s=4.0)
TRANSACTION_TIMEOUTS_S = (3.0, 10.0)
LIMITS = Limits(
    commit_interval_ms=200, tick_ms=200, close_timeout_s=1.0, grace_s=1.5, retry_first_s=0.05,
    retry_max_s=1.0, purge_interval_s=2.0,
)  # fmt: skip
PROCESS: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("process", default=None)


def task_factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    """Make a task that its process knows of."""
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
    process = PROCESS.get()
    if process is not None:
        process.tasks.append(task)
    return task


class WallClock:
    """The clocks of a process: its wall clock may jump."""

    def __init__(self, clock: LoopClock) -> None:
        self.offset_ms = 0
        self._clock = clock

    def now_ms(self) -> int:
        return self._clock.now_ms() + self.offset_ms

    def monotonic_s(self) -> float:
        return self._clock.monotonic_s()

    def working_s(self) -> float:
        return self._clock.working_s()


class Process:
    """One process of one worker.

    Args:
        name: Of the worker: processes that follow each other under one name have the same disk.
        folder: For files on their way to and from the bucket, which holds the checkpoints of all workers.
        skew_ms: `max_skew` of all workers; None where each has its own, or none.
        on_store: Told of each write that has happened: (operation, task number, position).
        say: Takes lines for the trace.

    Attributes:
        bomb: When the process dies: a point such as "end_txn after" or "apply before", and how many times it passes before.
    """

    def __init__(
        self,
        name: str,
        plan: Plan,
        broker: MemoryBroker,
        clock: LoopClock,
        disk: Disk,
        weather: Weather,
        random: Random,
        *,
        folder: Path,
        bucket: Bucket,
        skew_ms: int | None,
        on_store: Callable[[str, int, Position], None],
        say: Callable[[str], None],
    ) -> None:
        self.name = name
        self.alive = True
        self.tasks: list[asyncio.Task[Any]] = []
        self.bomb: tuple[str, int] | None = None
        self.full_disk = False
        self.line = Line(weather, self._at_request)
        self.clock = WallClock(clock)
        self.disk = disk
        self.stores: list[Any] = []
        self.running: asyncio.Task[None] | None = None
        self._random = random
        self._weather = weather
        self._on_store = on_store
        self._say = say
        self._sleeps_s = random.choice([0.0, 0.0, 0.005, 0.05])
        self.transport = SimulatedTransport(
            broker, group_id=plan.app_id, client_id=name, clock=self.clock, faults=self.line, stored=disk.numbers, times=TIMES,
            standbys=random.choice([0, 1, 1]),
            fetch_records_max=random.choice([1, 3, 20, 1_000]), transaction_timeout_s=random.choice(TRANSACTION_TIMEOUTS_S),
            random=random, weather=weather,
        )  # fmt: skip
        # A full queue pauses all inputs, and a pause begins idle time anew: tiny queues and idleness do not go together.
        has_idleness = any(source.watermark.idle_ms is not None for source in plan.sources.values())
        limits = replace(
            LIMITS,
            commit_interval_ms=random.choice([0, 50, 200, 1_000]),
            checkpoint_interval_ms=random.choice([400, 1_000, 3_000]),
            commit_records_max=random.choice([1, 5, 100_000]),
            queue_records_max=random.choice([1, 10, 50_000] if not has_idleness else [50, 50_000]),
            piece_records_max=random.choice([1, 4, 16, 1_000]),
        )
        # What is held back is no longer quiet, and so is not idle: bounded skew and idleness do not go together here either.
        own_skew_ms = random.choice([None, 1_000, 20_000]) if not has_idleness else None
        plan = replace(plan, max_skew_ms=own_skew_ms if has_idleness or skew_ms is None else skew_ms)
        self.runner = Runner(
            plan, self.transport, open_store=self._open_store, deliver=self._deliver, clock=self.clock, limits=limits,
            checkpoints=SimulatedCheckpoints(folder, bucket, self),
        )  # fmt: skip

    def start(self) -> None:
        """Begin to run."""
        contextvars.copy_context().run(self._start)

    def _start(self) -> None:
        PROCESS.set(self)
        self.running = asyncio.create_task(self.runner.run(), name=f"process {self.name}")

    def die(self, how: str) -> None:
        """End at once, silently."""
        if not self.alive:
            return
        self._say(f"{self.name} dies {how}")
        self.alive = False
        self.line.is_dead = True
        for task in self.tasks:
            task.cancel()

    async def until_gone(self, timeout_s: float = 20.0) -> list[str]:
        """Wait until nothing of it runs any more; return the names of tasks that would not end."""
        deadline_s = self.clock.monotonic_s() + timeout_s
        while (left := [task for task in self.tasks if not task.done()]) and self.clock.monotonic_s() < deadline_s:
            if not self.alive:
                for task in left:
                    task.cancel()
            await asyncio.wait(left, timeout=0.5)
        self.tasks = [task for task in self.tasks if not task.done()]
        return [task.get_name() for task in self.tasks]

    def failure(self) -> BaseException | None:
        """Return what ended the process against its will."""
        running = self.running
        if running is None or not running.done() or running.cancelled() or not self.alive:
            return None
        return running.exception()

    # -- where it may die

    def at_store(self, operation: str, moment: Moment, number: int, position: Position) -> None:
        """See `tests.simulation.disk.Owner`."""
        if not self.alive:
            raise StateError("the process is dead")
        self._pass(f"{operation} {moment}")
        if moment == "before" and operation == "apply" and self.full_disk:
            self.full_disk = False
            self._say(f"{self.name}: disk full")
            raise StateError("disk full")
        if moment == "after":
            self._on_store(operation, number, position)
        elif not self.alive:
            raise StateError("the process is dead")

    def _at_request(self, request: Request, delay_s: float) -> float:
        if self.bomb is None or self.bomb[0] not in (f"{request} before", f"{request} after"):
            return 0.0
        point, left = self.bomb
        if left > 0:
            self.bomb = (point, left - 1)
            return 0.0
        self.bomb = None
        if point.endswith("before"):
            self.die(f"at {point}")
            return 0.0
        asyncio.get_running_loop().call_later(delay_s + 0.001, self.die, f"at {point}")
        return 0.01

    def _pass(self, point: str) -> None:
        if self.bomb is None or self.bomb[0] != point:
            return
        left = self.bomb[1]
        self.bomb = (point, left - 1) if left > 0 else None
        if left <= 0:
            self.die(f"at {point}")

    def _open_store(self, number: int) -> Store:
        store = self.disk.open(number, self)
        self.stores.append(store)
        return store

    async def _deliver(self, pipelines: Sequence[str], batch: RecordBatch, task: Task) -> None:
        """Take a batch through the pipelines as agents do: one after another, with waits between them."""
        for pipeline in pipelines:
            if self._sleeps_s and not self._weather.calm:
                await asyncio.sleep(self._random.random() * self._sleeps_s * (40 if self._random.random() < 0.02 else 1))
            self._pass("deliver before")
            if not self.alive:
                await asyncio.sleep(0)
            task.process(pipeline, batch, self.clock.now_ms())
