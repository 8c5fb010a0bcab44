"""A watermark class sees each record once and in order, its fields survive restarts, and what it does wrong harms one record only."""

import itertools
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import ConfigError, WatermarkGenerator, agg, windows
from engine.block import MIN_TIME
from engine.durations import Duration
from engine.testing.driver import START_MS, TestDriver
from engine.topology import Topology
from engine.watermarks import SourceClock, SourceTime, WatermarkStrategy, watermark_strategy
from state.values import msgpack_codec


class Reading(msgspec.Struct, frozen=True):
    """A reading; a mark says that everything before it has been sent."""

    sensor: str
    ts: int
    mark: bool = False


class Marks(WatermarkGenerator):
    """Time moves with marks only."""

    idle: ClassVar[Duration | None] = "10s"

    def on_record(self, timestamp_ms: int, value: Reading) -> int | None:
        """Move to the time of a mark."""
        if timestamp_ms == 13_000 and not value.mark:
            raise ValueError("unlucky")
        return timestamp_ms if value.mark else None


class SecondHighest(WatermarkGenerator):
    """The second highest time so far: one record alone moves nothing."""

    highest: list[int] = msgspec.field(default_factory=list)

    def on_record(self, timestamp_ms: int) -> int | None:
        """Keep the two highest times; fails at 13 when it has changed them already."""
        self.highest = sorted([*self.highest, timestamp_ms])[-2:]
        if timestamp_ms == 13:
            raise ValueError("unlucky")
        return self.highest[0] if len(self.highest) == 2 else None


def app(generator: Any, **options: Any) -> Topology:
    topology = Topology("app", **options)
    readings = topology.source("readings", Reading, key="sensor", time="ts", watermark=generator)
    topology.pipeline(readings, name="minutes")(lambda stream: stream.window(windows.tumbling("1s")).aggregate(n=agg.count()).to("out"))
    return topology


def results(driver: TestDriver) -> list[tuple[int, int]]:
    return [(record.value["window_start"], record.value["n"]) for record in driver.read("out")]


def test_generator_punctuated_closes_windows_only_at_marks() -> None:
    with TestDriver(app(Marks)) as driver:
        for ts in (100, 5_000, 900):
            driver.send("readings", Reading("a", ts))
        assert results(driver) == []
        driver.send("readings", Reading("a", 2_000, mark=True))
        assert results(driver) == [(0, 2)]
        driver.send("readings", Reading("a", 1_500, mark=True))  # lower: time never goes back, and the record is late
        driver.send("readings", Reading("a", 2_500))
        driver.finish()
        assert results(driver) == [(2_000, 2), (5_000, 1)]


def test_generator_idle_source_follows_the_wall_clock() -> None:
    with TestDriver(app(Marks)) as driver:
        driver.send("readings", Reading("a", 500, mark=True))
        driver.advance("9s")
        assert results(driver) == []
        driver.advance("2s")
        assert results(driver) == [(0, 1)]


def test_generator_state_survives_a_restart() -> None:
    with TestDriver(app(SecondHighest)) as driver:
        driver.send("readings", Reading("a", 5_000))
        driver.commit()
        driver.crash()
        driver.restart()
        driver.send("readings", Reading("a", 7_000))  # alone it would move nothing
        driver.send("readings", Reading("a", 4_000))  # late: the watermark is 5,000
        driver.finish()
        assert results(driver) == [(5_000, 1), (7_000, 1)]
        assert driver.counters()["minutes", "window", "late_records"] == 1


def test_generator_that_raises_sends_the_record_to_the_dead_letters() -> None:
    with TestDriver(app(Marks)) as driver:
        driver.send("readings", Reading("a", 13_000))
        driver.send("readings", Reading("a", 100))
        driver.finish()
        assert results(driver) == [(0, 1)]
        (letter,) = driver.read("app-dlq")
        assert dict(letter.headers)["operator"] == b"source"
        assert b"unlucky" in dict(letter.headers)["error"]


def test_generator_that_raises_stops_the_task_under_on_error_fail() -> None:
    with TestDriver(app(Marks, on_error="fail")) as driver, pytest.raises(ValueError, match="unlucky"):
        driver.send("readings", Reading("a", 13_000))


def test_generator_record_from_the_future_is_not_shown_and_counted() -> None:
    with TestDriver(app(Marks), max_ahead="1h") as driver:
        driver.send("readings", Reading("a", START_MS + 3_600_001, mark=True))
        driver.send("readings", Reading("a", 100))
        driver.send("readings", Reading("a", 1_000, mark=True))
        assert results(driver) == [(0, 1)]
        assert driver.counters()["", "readings", "records_ahead"] == 1


class Eager(WatermarkGenerator):
    """A day ahead of every record."""

    def on_record(self, timestamp_ms: int) -> int:
        """Claim too much."""
        return timestamp_ms + 86_400_000


def test_generator_candidate_from_the_future_is_ignored_and_counted() -> None:
    with TestDriver(app(Eager), max_ahead="1h") as driver:
        driver.send("readings", Reading("a", START_MS))
        driver.send("readings", Reading("a", START_MS))
        driver.finish()
        assert results(driver) == [(START_MS, 2)]
        assert driver.counters()["", "readings", "records_ahead"] == 2


@given(st.lists(st.integers(0, 30), max_size=20), st.lists(st.integers(0, 20), max_size=4))
def test_generator_any_cut_and_restart_gives_what_one_record_at_a_time_gives(times: list[int], cuts: list[int]) -> None:
    expected: list[int] = []
    errors: list[int] = []
    highest: list[int] = []
    watermark = MIN_TIME
    for index, time in enumerate(times):  # by hand, without the bad ones
        expected.append(watermark)
        if time == 13:
            errors.append(index)
            continue
        highest = sorted([*highest, time])[-2:]
        watermark = max(watermark, highest[0]) if len(highest) == 2 else watermark
    codec = msgpack_codec(SourceTime)
    bounds = sorted({0, len(times), *(cut for cut in cuts if cut < len(times))})
    time_now = SourceTime()
    before: list[int] = []
    found: list[int] = []
    for start, stop in itertools.pairwise(bounds):
        clock = SourceClock(watermark_strategy(SecondHighest, "source"))
        clock.open(codec.decode(codec.encode(time_now)), 0)
        taken = clock.take(times[start:stop], [None] * (stop - start), 0, None)
        before += taken.before()
        found += [start + index for index in taken.errors]
        time_now = clock.time
    assert (before, found, time_now.watermark) == (expected, errors, watermark)


class NoMethod(WatermarkGenerator):
    """Forgot the method."""


class NeedsArgument(WatermarkGenerator):
    """Has a field without a default."""

    delay_ms: int

    def on_record(self, timestamp_ms: int) -> int:
        """Go along."""
        return timestamp_ms - self.delay_ms


class Unstorable(WatermarkGenerator):
    """Has a field that no file takes."""

    lock: object = msgspec.field(default_factory=object)

    def on_record(self, timestamp_ms: int) -> int:
        """Go along."""
        return timestamp_ms


class TwoMany(WatermarkGenerator):
    """Wants what nobody has."""

    def on_record(self, timestamp_ms: int, value: Any, clock: Any) -> int:
        """Go along."""
        return timestamp_ms


class BareIdle(Marks):
    """Gives its idle time as a number."""

    idle: ClassVar[Any] = 10


class Frozen(Marks, frozen=True):  # type: ignore[misc]  # what is tested
    """Cannot change."""


@pytest.mark.parametrize(
    ("given_one", "message"),
    [
        (dict, "must derive from WatermarkGenerator"),
        (NoMethod, "has no method on_record"),
        (NeedsArgument, "give each field a default"),
        (Unstorable, "cannot be stored"),
        (TwoMany, r"must take \(self, timestamp_ms\)"),
        (BareIdle, "idle of watermark class BareIdle"),
        (Frozen, "is frozen"),
        (Marks(), "not an object of it"),
        ("30s", "not a watermark strategy"),
    ],
)
def test_generator_that_cannot_work_is_refused_at_declaration(given_one: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        Topology("app").source("readings", Reading, watermark=given_one)
    assert "readings" in str(raised.value)


def test_generator_of_another_name_starts_anew_and_time_goes_on() -> None:
    clock = SourceClock(watermark_strategy(SecondHighest, "source"))
    clock.open(SourceTime(50, generator=("Older", b"\x81\xa1x\x01")), 0)
    assert list(clock.take([70, 60, 80], [None] * 3, 0, None).before()) == [50, 50, 60]


def test_generator_whose_stored_fields_do_not_fit_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="give the class another name"):
        SourceClock(WatermarkStrategy(0, None, SecondHighest)).open(
            SourceTime(generator=("SecondHighest", msgspec.msgpack.encode({"highest": "x"}))), 0
        )
