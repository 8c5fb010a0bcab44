"""Windows that the records of a key decide about (sliding, count, sessions with an end) against the oracle, however the input is cut."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine import agg, windows
from engine.block import MAX_TIME
from engine.operators.window import WindowSpec, window_operator
from engine.testing.harness import OperatorHarness
from tests.effort import examples
from tests.engine.operators.window_oracle import Input
from tests.engine.operators.window_world import (
    CUTS,
    RESTARTS,
    Reading,
    drive,
    rows,
    streams,
)

# -- sliding


@settings(max_examples=examples(50), deadline=None)
@given(streams(), st.integers(1, 12), st.integers(0, 9), CUTS, RESTARTS)
def test_sliding_any_cut_equals_oracle(inputs: list[Input], size: int, lateness: int, cuts: list[int], restarts: list[bool]) -> None:
    expected: list[tuple[Any, ...]] = []
    late: list[Input] = []
    in_time: list[Input] = []
    for record in inputs:
        reached = record.timestamp_ms + size - 1 + lateness <= record.before
        (late if reached else in_time).append(record)
    # The window at a record's time sees what was there when the watermark reached it, if the record itself was.
    for key, time_ms in {(record.key, record.timestamp_ms) for record in in_time}:
        due = time_ms + lateness
        seen = [r for r in in_time if r.key == key and time_ms - size < r.timestamp_ms <= time_ms and r.before < due]
        if any(record.timestamp_ms == time_ms for record in seen):
            expected.append((due, key.encode(), key, sum(record.number for record in seen), len(seen), time_ms))
    expected.sort()
    for sizes, stops in ((cuts, restarts), ([], []), ([1] * len(inputs), [True] * len(inputs))):
        spec = WindowSpec(
            windows.sliding(f"{size}ms"), {"n": agg.count(), "total": agg.sum("number")}, lateness, "late", value_type=Reading
        )
        harness = OperatorHarness(window_operator(spec))
        drive(harness, inputs, MAX_TIME, sizes, stops)
        assert rows(harness, "total", "n") == [row[2:] for row in expected]
        assert [(side.key, side.timestamp_ms) for side in harness.take_sides()] == [(record.key, record.timestamp_ms) for record in late]


# -- count


@settings(max_examples=examples(50), deadline=None)
@given(streams(), st.integers(1, 6), st.integers(1, 6), CUTS, RESTARTS)
def test_count_any_cut_equals_oracle(inputs: list[Input], n: int, every: int, cuts: list[int], restarts: list[bool]) -> None:
    every = min(n, every)
    expected = []
    for at, record in enumerate(inputs):
        seen = [other for other in inputs[: at + 1] if other.key == record.key]
        if len(seen) >= n and (len(seen) - n) % every == 0:
            times = [other.timestamp_ms for other in seen[-n:]]
            expected.append((record.key, min(times), max(times) + 1, sum(other.number for other in seen[-n:]), record.before, max(times)))
    for sizes, stops in ((cuts, restarts), ([], []), ([1] * len(inputs), [True] * len(inputs))):
        spec = WindowSpec(windows.count(n, every), {"total": agg.sum("number")}, value_type=Reading)
        harness = OperatorHarness(window_operator(spec))
        drive(harness, inputs, MAX_TIME, sizes, stops)
        found = [
            (out.key, out.value["window_start"], out.value["window_end"], out.value["total"], out.before, out.timestamp_ms)
            for out in harness.take()
        ]
        assert found == expected


# -- sessions that a record ends


@settings(max_examples=examples(50), deadline=None)
@given(streams(), st.integers(1, 12), CUTS, RESTARTS)
def test_session_ends_with_any_cut_equals_oracle(inputs: list[Input], gap: int, cuts: list[int], restarts: list[bool]) -> None:
    in_time = [record for record in inputs if record.timestamp_ms > record.before]
    expected = []
    for key in sorted({record.key for record in in_time}):
        ordered = sorted((record for record in in_time if record.key == key), key=lambda record: record.timestamp_ms)
        sessions: list[list[Input]] = []
        for record in ordered:
            if sessions:
                last = sessions[-1][-1].timestamp_ms
                ended = any(other.number == 3 and other.timestamp_ms < record.timestamp_ms for other in sessions[-1])
            if not sessions or ended or record.timestamp_ms >= last + gap:
                sessions.append([])
            sessions[-1].append(record)
        for session in sessions:
            last = session[-1].timestamp_ms
            end = last + 1 if any(record.number == 3 for record in session) else last + gap
            expected.append((end - 1, key.encode(), key, session[0].timestamp_ms, end, sum(record.number for record in session)))
    expected.sort()
    for sizes, stops, careful in (
        (cuts, restarts, False),
        ([], [], False),
        ([1] * len(inputs), [True] * len(inputs), False),
        ([], [], True),
    ):
        window = windows.session(f"{gap}ms", ends_with=lambda value: value.number == 3)
        harness = OperatorHarness(window_operator(WindowSpec(window, {"total": agg.sum("number")}, late_to="late", value_type=Reading)))
        drive(harness, inputs, MAX_TIME, sizes, stops, careful=careful)
        found = [(out.key, out.value["window_start"], out.value["window_end"], out.value["total"]) for out in harness.take()]
        assert found == [row[2:] for row in expected]
        assert harness.counters["late_records"] == len(inputs) - len(in_time) == len(harness.sides)
