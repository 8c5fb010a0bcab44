"""Very many entries of one time: what comes out, and in which order, does not depend on how many of them fit into memory.

Each operator takes some hundred records whose timers, results or ends all lie at one time, over a store, with a cache that holds a
few entries; it is driven as with a large cache, with commits and restarts, and with a crash after all of it has come out once.
"""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from engine import agg, triggers, windows
from engine.block import MIN_TIME
from engine.operators.base import Operator, OperatorContext
from engine.operators.join import JoinSpec, join_operator
from engine.operators.ordered import event_time_order_operator
from engine.operators.process import Context, Timer, process_operator
from engine.operators.window import WindowSpec, window_operator
from engine.operators.window_join import WindowJoinSpec, window_join_operator
from engine.records import Record
from engine.state_handles import MapState, ValueState
from engine.task import Task
from engine.testing.driver import TestDriver
from engine.testing.harness import OperatorHarness, Out
from state.store import Store
from tests.engine.table_world import Purchase, set_user, world

pytestmark = pytest.mark.thorough

KEYS = 300


class Reminder:
    """Tells at 1,000 of each record; some remind of more, at that time and later, for themselves."""

    seen = ValueState(int, default=0)

    def on_record(self, record: Record[str, int], ctx: Context) -> None:
        self.seen.set(record.value)
        ctx.timers.event_time(1_000, name="b")

    def on_timer(self, timer: Timer, ctx: Context) -> Iterator[tuple[str, int]]:
        yield timer.name, self.seen.get()
        if timer.name == "b" and self.seen.get() % 3 == 0:
            ctx.timers.event_time(1_000, name="a")
            ctx.timers.event_time(1_010, name="c")
        if timer.name == "b" and self.seen.get() % 3 == 1:
            ctx.timers.event_time(1_010, name="d")


class WallReminder:
    """The same on the wall clock."""

    def on_record(self, record: Record[str, int], ctx: Context) -> None:
        ctx.timers.wall_clock(1_000)

    def on_timer(self, timer: Timer, ctx: Context) -> Iterator[str]:
        yield timer.key


class Expiring:
    """Entries that all end at one time, and what is left of them."""

    each = MapState(int, int, ttl="1000ms")

    def on_record(self, record: Record[str, int], ctx: Context) -> Iterator[int]:
        yield len(self.each)
        self.each[record.value] = 1


def windowed(window: windows.Window, **options: Any) -> Callable[[OperatorContext], Operator]:
    return window_operator(WindowSpec(window, {"n": agg.count(), "last": agg.last(lambda value: value)}, value_type=int, **options))


OPERATORS: dict[str, tuple[Callable[[OperatorContext], Operator], int]] = {
    # Each with the number of its inputs.
    "timers": (process_operator(Reminder, key_type=str, what="process"), 1),
    "wall-clock timers": (process_operator(WallReminder, key_type=str, what="process"), 1),
    "ttl": (process_operator(Expiring, key_type=str, what="process"), 1),
    "in_event_time_order": (event_time_order_operator(str, int), 1),
    "interval join": (join_operator(JoinSpec(-5, 5, left_type=int, right_type=int)), 2),
    "interval join, outer": (join_operator(JoinSpec(-5, 5, how="outer", left_type=int, right_type=int)), 2),
    "window join": (window_join_operator(WindowJoinSpec(windows.tumbling("10ms"), how="outer", left_type=int, right_type=int)), 2),
    "sliding": (windowed(windows.sliding("50ms")), 1),
    "early results": (windowed(windows.tumbling("10ms"), trigger=triggers.every(event_time="3ms"), lateness_ms=5), 1),
    "early results by the clock": (windowed(windows.tumbling("10ms"), trigger=triggers.every(wall_clock="1s")), 1),
    "session with an end": (windowed(windows.session("20ms", ends_with=lambda value: value % 7 == 0)), 1),
}


def opened(name: str, cache: int, store: Store | None = None) -> OperatorHarness:
    """Return the operator over a store, at the start of time."""
    harness = OperatorHarness(OPERATORS[name][0], store=store, cache_entries_max=cache)
    harness.now_ms = harness.context.now_ms = 10
    return harness


def run(name: str, cache: int, *, crashes: bool) -> tuple[list[Out], int]:
    """Return what came out, and the most entries that were in memory after a commit.

    Args:
        crashes: After each time that is reached everything is done twice: the first time it is lost, and done anew over the store.
    """
    keys = [f"k{number}" for number in range(KEYS)]
    Random(1).shuffle(keys)
    ports = range(OPERATORS[name][1])
    harness = opened(name, cache)
    most = 0
    for port in ports:
        for start in range(0, KEYS if port == 0 else KEYS // 2, 60):
            harness.feed_block([(key, number, 995) for number, key in enumerate(keys[start : start + 60], start)], port=port)
            harness.commit()
            most = max(most, harness.context.state.cached())
    out = harness.take()
    reached = MIN_TIME
    for watermark in (500, 996, 1_000, 1_004, 1_020, 5_000, 9_000):
        for attempt in (1, 2):
            for port in ports:
                harness.advance(watermark, port=port)
            harness.wall_clock(watermark)
            if not crashes or attempt == 2:
                break
            harness = opened(name, cache, harness.store)
            for port in ports:
                harness.advance(reached, port=port)
        harness.commit()
        out += harness.take()
        most = max(most, harness.context.state.cached())
        reached = watermark
    return out, most


@pytest.mark.parametrize("name", OPERATORS)
def test_what_fits_into_memory_does_not_change_what_comes_out(name: str) -> None:
    expected, _ = run(name, 200_000, crashes=False)
    assert len(expected) >= KEYS // 2
    for crashes in (False, True):
        out, most = run(name, 24, crashes=crashes)
        assert out == expected
        assert most <= 24


@pytest.mark.parametrize("again", [False, True])
def test_timers_fire_by_time_then_key_also_those_that_a_firing_sets(again: bool) -> None:
    """k2 is set for 1,010 by a firing at 1,000, and comes in its place between k1 and k3, whatever was there before."""

    class Chain:
        def on_record(self, record: Record[str, int], ctx: Context) -> None:
            ctx.timers.event_time(record.value)

        def on_timer(self, timer: Timer, ctx: Context) -> Iterator[int]:
            yield timer.timestamp_ms
            if timer.timestamp_ms == 1_000:
                ctx.timers.event_time(1_010)
                ctx.timers.event_time(1_000, name="once more") if again and not timer.name else None

    for cache in (200_000, 1):
        harness = OperatorHarness(process_operator(Chain, key_type=str, what="process"), cache_entries_max=cache)
        harness.feed_block([("k1", 1_010, 0), ("k2", 1_000, 0), ("k3", 1_010, 0), ("k4", 1_000, 0)])
        harness.snapshot_and_restore()
        harness.advance(2_000)
        # k2 and k4 set themselves again: once more at 1,000 when both have been, if they do, then at 1,010.
        assert [(out.key, out.value) for out in harness.take()] == [
            *[("k2", 1_000), ("k4", 1_000)] * (2 if again else 1),
            *[(key, 1_010) for key in ("k1", "k2", "k3", "k4")],
        ]


def test_as_of_gives_on_by_time_and_arrival_whatever_fits_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def declare(users: Any, orders: Any) -> Any:
        return orders.as_of(users, "user_id").map(lambda pair: [pair[0].order_id, pair[1].city]).to("out")

    found = []
    for cache in (200_000, 16):
        monkeypatch.setitem(Task.__init__.__kwdefaults__ or {}, "cache_entries_max", cache)
        with TestDriver(world(declare, delay="0s", versions="1d")) as driver:
            for number in range(80):
                set_user(driver, f"u{number % 7}", f"city {number}", ts=number)
                driver.send("orders", Purchase(f"o{number}", f"u{number % 7}", 1_000))
                if number % 20 == 0:
                    driver.crash()
            set_user(driver, "u0", "elsewhere", ts=2_000)
            driver.send("orders", Purchase("last", "u0", 2_000))
            found.append([(record.key, *record.value) for record in driver.read("out")])
    assert found[0] == found[1] == [(f"u{number % 7}", f"o{number}", f"city {79 - (79 - number) % 7}") for number in range(80)]
