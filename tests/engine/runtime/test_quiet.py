"""Quiet partitions: only what a fetch answer after the last activity has shown."""

import pytest

from engine.runtime.quiet import GAP_S, STALE_S, Pulse, is_quiet
from engine.runtime.transport.protocol import FetchState

CAUGHT_UP = FetchState(position=5, high_watermark=5, received_s=10.0)


@pytest.mark.parametrize(
    ("state", "position", "since_s", "now_s", "expected"),
    [
        (CAUGHT_UP, 5, 9.0, 10.1, True),
        (None, 5, 9.0, 10.1, False),
        (FetchState(4, 5, 10.0), 4, 9.0, 10.1, False),
        (CAUGHT_UP, 3, 9.0, 10.1, False),
        (CAUGHT_UP, 5, 10.05, 10.1, False),
        (CAUGHT_UP, 5, 9.0, 10.0 + STALE_S + 0.1, False),
    ],
    ids=["caught-up", "no-answer", "more-to-read", "still-queued", "answer-before-the-activity", "broker-silent"],
)
def test_is_quiet_only_if_nothing_can_be_left(
    state: FetchState | None, position: int, since_s: float, now_s: float, expected: bool
) -> None:
    assert is_quiet(state, position, since_s, now_s) is expected


def test_pulse_gap_of_the_loop_starts_anew() -> None:
    pulse = Pulse(0.0)
    pulse.beat(0.5)
    assert pulse.restarted_s == 0.0
    pulse.beat(0.5 + GAP_S + 0.1)
    assert pulse.restarted_s == 0.5 + GAP_S + 0.1
