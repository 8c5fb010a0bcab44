"""Window descriptions must hold exactly the times they say, and refuse what has no meaning."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import triggers, windows
from engine.errors import ConfigError
from engine.windows import FixedWindow, Span


@given(st.integers(1, 50), st.data(), st.integers(-(2**62), 2**62))
def test_fixed_window_assign_gives_every_window_that_holds_the_time(size: int, data: st.DataObject, timestamp_ms: int) -> None:
    every = data.draw(st.integers(1, size))
    offset = data.draw(st.integers(1 - every, every - 1))
    expected = [Span(start, start + size) for start in range(timestamp_ms - size + 1, timestamp_ms + 1) if (start - offset) % every == 0]
    assert list(FixedWindow(size, every, offset).assign(timestamp_ms)) == expected


def test_tumbling_duration_forms_are_equal() -> None:
    assert windows.tumbling("1m") == windows.tumbling(timedelta(minutes=1)) == FixedWindow(60_000, 60_000)


def test_window_repr_is_the_same_in_every_process() -> None:
    def gap_of(value: object) -> int:
        return 1

    described = [
        windows.tumbling("1m", "5s"),
        windows.hopping("2s", "1s"),
        windows.sliding("1s"),
        windows.session("1s"),
        windows.session(gap_of, ends_with=bool),
        windows.count(5),
        windows.count(5, 2),
        windows.everything(),
    ]
    assert [repr(window).replace(gap_of.__qualname__, "gap_of") for window in described] == [
        "tumbling(60000ms, offset=5000ms)",
        "hopping(2000ms, every=1000ms)",
        "sliding(1000ms)",
        "session(1000ms)",
        "session(gap of gap_of, ends_with=bool)",
        "count(5)",
        "count(5, every=2)",
        "everything()",
    ]


@pytest.mark.parametrize(
    "make",
    [
        lambda: windows.tumbling("0s"),
        lambda: windows.tumbling("-1s"),
        lambda: windows.tumbling(60),  # type: ignore[arg-type]  # what is tested
        lambda: windows.tumbling("10s", "10s"),
        lambda: windows.tumbling("10s", "-11s"),
        lambda: windows.hopping("1s", "2s"),
        lambda: windows.hopping("2s", "0s"),
        lambda: windows.hopping("3s", "1s", "1s"),
        lambda: windows.sliding("0ms"),
        lambda: windows.session("0s"),
        lambda: windows.session("1s", ends_with="logout"),  # type: ignore[arg-type]  # what is tested
        lambda: windows.count(0),
        lambda: windows.count(2, 3),
        lambda: windows.count(True),
        lambda: triggers.every(),
        lambda: triggers.every(records=1, event_time="1s"),
        lambda: triggers.every(records=0),
        lambda: triggers.every(event_time="0s"),
        lambda: triggers.every(wall_clock=5),  # type: ignore[arg-type]  # what is tested
    ],
)
def test_window_or_trigger_without_meaning_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError):
        make()


@pytest.mark.parametrize("gap_ms", [-1, 1.5, None, True])
def test_session_gap_function_that_gives_no_duration_raises(gap_ms: Any) -> None:
    with pytest.raises(ValueError, match="gap of a session"):
        windows.session(lambda value: gap_ms).gap_of("v")
