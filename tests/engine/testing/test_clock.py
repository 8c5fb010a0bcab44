"""Virtual time: waiting takes none, threads are waited for, and nothing moves unless told."""

import asyncio
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.testing.clock import EPOCH_MS, FakeClock, LoopClock, StuckError, held_time, run_virtual, virtual_loop, virtual_time


def test_fake_clock_advanced_moves_both_clocks() -> None:
    clock = FakeClock()
    clock.advance("1m30s")
    assert (clock.now_ms(), clock.monotonic_s()) == (EPOCH_MS + 90_000, 90.0)


def test_sleep_of_a_day_takes_no_real_time() -> None:
    started_s = time.monotonic()

    async def sleeper() -> float:
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time()

    assert run_virtual(sleeper()) == 86_400
    assert time.monotonic() - started_s < 5


@virtual_time
async def test_sleeps_of_several_tasks_end_in_order_of_time() -> None:
    ended = []

    async def sleeper(seconds: float) -> None:
        await asyncio.sleep(seconds)
        ended.append((seconds, virtual_loop().time()))

    await asyncio.gather(*map(sleeper, (3, 1, 2)))
    assert ended == [(1, 1), (2, 2), (3, 3)]


@virtual_time
async def test_timeout_around_an_endless_wait_fires_at_its_time() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(7.5):
            await asyncio.Event().wait()
    assert virtual_loop().time() == 7.5


@virtual_time
async def test_loop_clock_follows_the_loop() -> None:
    clock = LoopClock(virtual_loop(), 1_000)
    await asyncio.sleep(0.25)
    assert (clock.now_ms(), clock.monotonic_s()) == (1_250, 0.25)


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=20))
def test_loop_clock_after_many_short_sleeps_shows_every_millisecond(steps: list[int]) -> None:
    async def sleeper() -> int:
        clock = LoopClock(virtual_loop(), 0)
        for step_ms in steps:
            await asyncio.sleep(step_ms / 1_000)
        return clock.now_ms()

    assert run_virtual(sleeper()) == sum(steps)


@virtual_time
async def test_thread_at_work_holds_time_still() -> None:
    release = threading.Event()
    threading.Timer(0.05, release.set).start()
    times = []
    sleeping = asyncio.create_task(asyncio.sleep(1))
    assert await asyncio.to_thread(release.wait, 10)
    times.append(virtual_loop().time())
    await sleeping
    times.append(virtual_loop().time())
    assert times == [0, 1]


@virtual_time
async def test_thread_that_raises_raises_in_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(lambda: 1 // 0)


@virtual_time
async def test_threads_of_different_speed_answer_in_the_order_of_their_calls() -> None:
    answered = []

    async def call(name: str, real_s: float) -> None:
        await asyncio.to_thread(threading.Event().wait, real_s)
        answered.append(name)

    await asyncio.gather(call("slow", 0.02), call("fast", 0))
    assert answered == ["slow", "fast"]


@virtual_time
async def test_thread_delay_passes_in_virtual_time_and_can_be_cancelled() -> None:
    loop = virtual_loop()
    worked: list[str] = []
    loop.thread_delay_s = 2.0
    await asyncio.to_thread(worked.append, "first")
    assert loop.time() == 2
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await asyncio.to_thread(worked.append, "second")
    await asyncio.sleep(5)
    assert (worked, loop.time()) == (["first", "second"], 8)


@held_time
async def test_held_loop_advanced_fires_the_timers_until_then_and_no_later() -> None:
    loop, ended = virtual_loop(), []

    async def ticker() -> None:
        while True:
            await asyncio.sleep(1)
            ended.append(loop.time())

    ticking = asyncio.create_task(ticker())
    await loop.advance("3500ms")
    assert (ended, loop.time()) == ([1, 2, 3], 3.5)
    await loop.advance("500ms")
    assert (ended, loop.time()) == ([1, 2, 3, 4], 4)
    ticking.cancel()


@held_time
async def test_held_loop_settled_runs_what_can_run_and_keeps_the_time() -> None:
    loop = virtual_loop()
    seen: list[int | str] = []

    async def chain(steps: int) -> None:
        for step in range(steps):
            await asyncio.sleep(0)
            seen.append(step)
        await asyncio.to_thread(seen.append, "thread")
        await asyncio.sleep(0.001)
        seen.append("later")

    running = asyncio.create_task(chain(5))
    await loop.settle()
    assert (seen, loop.time()) == ([0, 1, 2, 3, 4, "thread"], 0)
    running.cancel()


def test_held_loop_that_nobody_advances_is_stuck_and_says_where() -> None:
    async def sleeper() -> None:
        await asyncio.sleep(1)

    with pytest.raises(StuckError, match=r"time is held.*\n.*in sleep"):
        run_virtual(sleeper(), held=True, stuck_after_s=0.01)


def test_free_loop_without_a_timer_is_stuck() -> None:
    async def waiter() -> None:
        await asyncio.Event().wait()

    with pytest.raises(StuckError, match="no timer is set"):
        run_virtual(waiter(), stuck_after_s=0.01)


@virtual_time
async def test_advance_of_a_free_loop_is_refused() -> None:
    with pytest.raises(RuntimeError, match="held"):
        await virtual_loop().advance("1s")


@virtual_time
async def test_held_switched_off_lets_time_run_again() -> None:
    loop = virtual_loop()
    loop.held = True
    await loop.advance("1s")
    loop.held = False
    await asyncio.sleep(1)
    assert loop.time() == 2
