"""Watermarks must follow the records one by one, the wall clock only while a source is idle, and never go back."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.block import MAX_TIME, MIN_TIME
from engine.errors import ConfigError
from engine.watermarks import SourceClock, SourceTime, Valve, bounded, monotonic
from state.values import msgpack_codec


def clock_of(strategy: Any = None, now_ms: int = 0) -> SourceClock:
    clock = SourceClock(strategy or bounded("5ms", idle="10s"))
    clock.open(SourceTime(), now_ms)
    return clock


@given(st.lists(st.lists(st.integers(-100, 100), max_size=8), max_size=5), st.integers(0, 20), st.one_of(st.none(), st.integers(-50, 80)))
def test_source_watermark_any_cut_follows_the_highest_timestamp(batches: list[list[int]], delay: int, limit: int | None) -> None:
    clock = clock_of(bounded(f"{delay}ms"))
    seen: list[int] = []
    for batch in batches:
        taken = clock.take(batch, batch, 0, limit)
        column = list(taken.before())
        expected = []
        for timestamp_ms in batch:
            expected.append(max(seen) - delay - 1 if seen else MIN_TIME)
            if limit is None or timestamp_ms <= limit:
                seen.append(timestamp_ms)
        assert column == expected
        assert taken.ahead == sum(limit is not None and timestamp_ms > limit for timestamp_ms in batch)
        assert clock.time.watermark == (max(seen) - delay - 1 if seen else MIN_TIME)


def test_source_idle_follows_the_wall_clock_from_the_last_activity() -> None:
    clock = clock_of()
    clock.take([100_000], [100_000], 1_000, None)
    clock.observe(10_999, quiet=True)
    assert clock.time == SourceTime(99_994, idle=False)
    clock.observe(11_000, quiet=True)
    assert clock.time == SourceTime(99_994 + 10_000, idle=True)
    clock.observe(11_500, quiet=True)  # less than a step
    assert clock.time == SourceTime(99_994 + 10_000, idle=True)
    clock.observe(31_000, quiet=True)
    assert clock.time == SourceTime(99_994 + 30_000, idle=True)
    clock.take([1], [1], 31_000, None)
    assert clock.time == SourceTime(99_994 + 30_000, idle=False)


@pytest.mark.parametrize("break_ms", [5_000, 10_500])
def test_source_idle_time_starts_again_when_not_quiet(break_ms: int) -> None:
    clock = clock_of()
    clock.take([0], [0], 0, None)
    clock.observe(break_ms, quiet=False)
    clock.observe(break_ms + 1, quiet=True)
    clock.observe(break_ms + 10_000, quiet=True)
    assert not clock.time.idle
    clock.observe(break_ms + 10_001, quiet=True)
    assert clock.time.idle


def test_source_idle_without_any_record_has_no_time() -> None:
    clock = clock_of()
    clock.observe(60_000, quiet=True)
    assert clock.time == SourceTime(MIN_TIME, idle=True)


def test_source_idle_switched_off_never_idles() -> None:
    clock = clock_of(monotonic(idle=None))
    clock.take([7], [7], 0, None)
    clock.observe(10**9, quiet=True)
    assert clock.time == SourceTime(6, idle=False)


def test_source_time_restored_goes_on_from_there() -> None:
    clock = clock_of()
    clock.take([100_000], [100_000], 0, None)
    clock.observe(20_000, quiet=True)
    codec = msgpack_codec(SourceTime)
    restored = SourceClock(bounded("5ms", idle="10s"))
    restored.open(codec.decode(codec.encode(clock.time)), 50_000)
    restored.observe(59_000, quiet=True)
    assert restored.time == clock.time  # the time while nobody ran does not count
    restored.observe(61_000, quiet=True)
    assert restored.time.watermark == clock.time.watermark + 11_000


def test_source_end_is_final() -> None:
    clock = clock_of()
    clock.end()
    assert list(clock.take([5, 9], [5, 9], 0, None).before()) == [MAX_TIME, MAX_TIME]
    assert clock.time.watermark == MAX_TIME


@pytest.mark.parametrize("make", [lambda: bounded("-1s"), lambda: bounded(5), lambda: bounded("1s", idle="0s"), lambda: monotonic(idle=3)])  # type: ignore[arg-type]  # what is tested
def test_strategy_without_meaning_is_refused(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()


STEPS = st.lists(st.tuples(st.integers(0, 2), st.one_of(st.integers(0, 40), st.booleans())), max_size=40)


@given(STEPS)
def test_valve_restored_before_every_step_gives_the_same_and_never_goes_back(steps: list[tuple[int, int | bool]]) -> None:
    valve, last = Valve(3), MIN_TIME
    codec: Any = msgpack_codec(type(valve.state()))
    for channel, step in steps:
        restored = Valve(3, codec.decode(codec.encode(valve.state())))
        for one in (valve, restored):
            if isinstance(step, bool):
                one.status(channel, idle=step)
            else:
                one.input(channel, step, idle=one.state().idle[channel])
        assert (restored.watermark, restored.idle, restored.state()) == (valve.watermark, valve.idle, valve.state())
        assert valve.watermark >= last
        last = valve.watermark


def test_valve_all_idle_follows_the_highest() -> None:
    valve = Valve(2)
    valve.input(0, 10)
    valve.input(1, 20)
    assert valve.watermark == 10
    valve.status(0, idle=True)
    assert (valve.watermark, valve.idle) == (20, False)
    valve.status(1, idle=True)
    valve.input(0, 35, idle=True)
    assert (valve.watermark, valve.idle) == (35, True)


def test_valve_returning_input_counts_when_it_has_caught_up() -> None:
    valve = Valve(2)
    valve.input(0, 10)
    valve.status(1, idle=True)
    assert valve.watermark == 10
    valve.input(1, 4)
    valve.input(0, 12)
    assert valve.watermark == 12  # input 1 is behind: it holds nobody back
    valve.input(1, 13)
    valve.input(0, 20)
    assert valve.watermark == 13  # it has caught up: it counts


def test_valve_input_that_goes_back_is_not_heard() -> None:
    """A late word of an upstream must not pull its place in the vector back: after a restore that would be all that is known."""
    valve = Valve(2)
    valve.input(0, 10)
    valve.input(0, 4)
    valve.input(1, 30)
    assert valve.watermark == 10
    assert valve.state().watermarks == (10, 30)
