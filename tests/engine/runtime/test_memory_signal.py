"""The signal: nobody misses a change, and nobody waits longer than asked."""

import asyncio

from engine.runtime.transport.memory_signal import Signal
from engine.testing.clock import virtual_loop, virtual_time


@virtual_time
async def test_wait_with_a_count_that_is_over_returns_at_once() -> None:
    signal = Signal()
    seen = signal.count
    signal.notify()
    await signal.wait(seen, 60)
    assert virtual_loop().time() == 0


@virtual_time
async def test_wait_without_a_change_ends_at_the_timeout() -> None:
    signal = Signal()
    await signal.wait(signal.count, 2)
    assert virtual_loop().time() == 2


@virtual_time
async def test_wait_shorter_than_the_clock_tells_apart_lets_time_pass() -> None:
    """Otherwise a waiter whose deadline lies a rounding error ahead would come back to the same moment for ever."""
    signal = Signal()
    await signal.wait(signal.count, 1e-10)
    assert virtual_loop().time() >= 0.001


@virtual_time
async def test_notify_wakes_the_waiters_in_the_order_in_which_they_came() -> None:
    signal, woken = Signal(), []

    async def waiter(name: str) -> None:
        await signal.wait(signal.count, float("inf"))
        woken.append(name)

    waiting = [asyncio.create_task(waiter(name)) for name in "cab"]
    await asyncio.sleep(1)
    signal.notify()
    await asyncio.gather(*waiting)
    assert woken == ["c", "a", "b"]
