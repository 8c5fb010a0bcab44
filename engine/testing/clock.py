"""Clocks for tests: one that moves only when told, and an event loop on which waiting takes no time.

`FakeClock` serves code that is handed a clock. `VirtualTimeLoop` runs genuine asyncio code: `asyncio.sleep`, timeouts and
`call_later` follow a virtual time, which stands still while anything can run and then jumps to the next timer.

    free    run_virtual(main())               await asyncio.sleep(90) returns at once, and loop.time() has grown by 90
    held    run_virtual(main(), held=True)    the same sleep ends only when somebody calls `await loop.advance("90s")`

`advance` goes from timer to timer up to its target and returns when nothing is left to do there, so a test sees a settled world.
Code handed to threads (`run_in_executor`, `asyncio.to_thread`) really runs in one, while the whole loop stands still for it. So
what happens, and in which order, depends on nothing but the program: not on how fast the machine or a thread is.

If nothing can run any more (held: nobody advances; free: no timer either), nothing ever would: the loop raises `StuckError`,
after `stuck_after_s` real seconds in which a thread or a socket could still have woken it.

Limits: real sockets work, but time does not wait for them, nor for threads of one's own. A call in a thread must not wait for the
loop (`run_coroutine_threadsafe(...).result()`) or for another such call.
"""

import asyncio
import concurrent.futures
import functools
import inspect
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ParamSpec, TypeVar, TypeVarTuple, cast

from engine.durations import Duration, duration_ms

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

THREAD_TIMEOUT_S = 60.0
EPOCH_MS = 1_700_000_000_000
"""Where fake wall clocks begin unless told otherwise: 2023-11-14 22:13:20 UTC."""


class FakeClock:
    """A `Clock` that moves only by `advance`: wall clock and monotonic clock together."""

    def __init__(self, now_ms: int = EPOCH_MS) -> None:
        self._start_ms = now_ms
        self._passed_ms = 0

    def now_ms(self) -> int:
        """Return the wall clock, UTC milliseconds."""
        return self._start_ms + self._passed_ms

    def monotonic_s(self) -> float:
        """Return seconds since the clock was made."""
        return self._passed_ms / 1_000

    def working_s(self) -> float:
        """Return the same: time passes for nobody else."""
        return self.monotonic_s()

    def advance(self, duration: Duration) -> None:
        """Let time pass."""
        self._passed_ms += duration_ms(duration, "advance")


class StuckError(RuntimeError):
    """Nothing can run and nothing ever will: the program under test waits for something that does not come."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop with a time of its own.

    Attributes:
        held: Time goes on only by `advance`. It may be switched while the loop runs.
        thread_delay_s: Virtual time that a call in a thread takes.
    """

    def __init__(self, *, held: bool = False, stuck_after_s: float = 5.0) -> None:
        self.held = held
        self.thread_delay_s = 0.0
        self._now_s = 0.0
        self._stuck_after_s = stuck_after_s
        self._target: tuple[float, asyncio.Future[None]] | None = None
        super().__init__(_JumpingSelector(self._wait))
        self._threads = concurrent.futures.ThreadPoolExecutor(max_workers=4, thread_name_prefix="virtual-time")

    def time(self) -> float:
        """Return the virtual time, seconds since the loop was made."""
        return self._now_s

    async def advance(self, duration: Duration) -> None:
        """Let time pass on a held loop: everything due until then happens, in order; return when all is quiet again.

        Raises:
            RuntimeError: The loop is not held, or another advance is under way.
        """
        if not self.held or self._target is not None:
            raise RuntimeError("advance needs a held loop, and one advance at a time")
        reached = self.create_future()
        self._target = (round(self._now_s + duration_ms(duration, "advance") / 1_000, 6), reached)
        try:
            await reached
        finally:
            self._target = None

    async def settle(self) -> None:
        """Let everything run that can run now, on a held loop; time stands still."""
        await self.advance("0s")

    def run_in_executor(self, executor: concurrent.futures.Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Run a function in a thread and wait for it, loop included; its result is there `thread_delay_s` later."""
        future: asyncio.Future[T] = self.create_future()
        self.call_soon(self._work, future, executor or self._threads, functools.partial(func, *args))
        return future

    async def shutdown_default_executor(self) -> None:
        """End the threads; none is at work."""
        self._threads.shutdown()

    def _work(self, future: asyncio.Future[Any], executor: concurrent.futures.Executor, call: Callable[[], Any]) -> None:
        if future.cancelled():
            return
        work = executor.submit(call)
        if not concurrent.futures.wait([work], THREAD_TIMEOUT_S).done:
            raise StuckError(f"a thread is still at work after {THREAD_TIMEOUT_S} s; the loop stands still for it: {call}")
        self.call_later(self.thread_delay_s, _settle, future, work)

    def _wait(self, select: Callable[[float | None], list[Any]], timeout_s: float | None) -> list[Any]:
        """Do what the loop does when it has nothing to run: wait really, or jump.

        Args:
            select: The real wait for threads and sockets.
            timeout_s: Time to the next timer, None if there is none, 0 if something can run.
        """
        found = select(0)
        if found or timeout_s == 0:
            return found
        if self._target is not None:
            return self._jump_towards(*self._target, timeout_s)
        if self.held or timeout_s is None:
            return self._give_a_chance(select)
        self._now_s += timeout_s
        return []

    def _jump_towards(self, target_s: float, reached: asyncio.Future[None], timeout_s: float | None) -> list[Any]:
        if timeout_s is not None and self._now_s + timeout_s <= target_s:
            self._now_s += timeout_s
        else:
            self._now_s = target_s
            if not reached.done():
                reached.set_result(None)
        return []

    def _give_a_chance(self, select: Callable[[float | None], list[Any]]) -> list[Any]:
        found = select(self._stuck_after_s)
        if found:
            return found
        waiting = sorted(task.get_name() + ": " + _place(task) for task in asyncio.all_tasks(self))
        hint = "time is held: advance it, or let it run free" if self.held else "no timer is set"
        raise StuckError(f"nothing can run ({hint}). Waiting tasks:\n  " + "\n  ".join(waiting))


class LoopClock:
    """The `Clock` of a virtual-time loop: wall clock and monotonic clock follow its time."""

    def __init__(self, loop: VirtualTimeLoop, now_ms: int = EPOCH_MS) -> None:
        self._loop = loop
        self._start_ms = now_ms

    def now_ms(self) -> int:
        """Return the wall clock, UTC milliseconds."""
        return self._start_ms + int(self._loop.time() * 1_000 + 1e-3)

    def monotonic_s(self) -> float:
        """Return the loop's time."""
        return self._loop.time()

    def working_s(self) -> float:
        """Return the same: no work takes any time."""
        return self._loop.time()


def virtual_loop() -> VirtualTimeLoop:
    """Return the running loop, which must be a virtual-time one."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop), "this code must run on a VirtualTimeLoop (see run_virtual)"
    return loop


def run_virtual(main: Coroutine[Any, Any, T], *, held: bool = False, stuck_after_s: float = 5.0) -> T:
    """Run a coroutine to its end on a new virtual-time loop, as `asyncio.run` does on a real one."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(held=held, stuck_after_s=stuck_after_s)) as runner:
        return runner.run(main)


def virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a test of a coroutine function: each call runs on a virtual-time loop of its own, time running free."""
    return _synchronous(test, held=False)


def held_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a test of a coroutine function whose time goes on only by `virtual_loop().advance`."""
    return _synchronous(test, held=True)


def _synchronous(test: Callable[P, Coroutine[Any, Any, None]], *, held: bool) -> Callable[P, None]:
    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        run_virtual(test(*args, **kwargs), held=held)

    return run


def _settle(future: asyncio.Future[Any], work: concurrent.futures.Future[Any]) -> None:
    """Hand the outcome of a thread to whoever still waits for it."""
    if future.cancelled():
        return
    error = work.exception()
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(work.result())


def _place(task: asyncio.Task[Any]) -> str:
    """Return where a task waits: the innermost line of its coroutine's stack that is known."""
    frame = None
    inner: Any = task.get_coro()
    while inspect.iscoroutine(inner):
        frame = inner.cr_frame or frame
        inner = inner.cr_await
    return "not started" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


class _JumpingSelector(selectors.BaseSelector):
    """The real selector, with its wait handed to the loop."""

    def __init__(self, wait: Callable[[Callable[[float | None], list[Any]], float | None], list[Any]]) -> None:
        self._real = selectors.DefaultSelector()
        self._wait = wait

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return self._wait(self._real.select, timeout)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def close(self) -> None:
        self._real.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return cast(Mapping[Any, selectors.SelectorKey], self._real.get_map())
