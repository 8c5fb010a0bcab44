"""What the tests of window operators share: random streams, ways to drive an operator, and what to hold its results against."""

from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from engine import agg, windows
from engine.agg import Aggregate
from engine.operators.window import WindowSpec, window_operator
from engine.testing.harness import OperatorHarness, Out
from engine.windows import SessionWindow, Window
from tests.engine.operators.window_oracle import Input, Oracle, fraction


class Reading(msgspec.Struct, frozen=True):
    """A record's value."""

    number: int
    part: float


def reading(number: int) -> Reading:
    """Return a value."""
    return Reading(number, fraction(number))


AGGREGATES: dict[str, Aggregate] = {
    "count": agg.count(),
    "total": agg.sum("number"),
    "parts": agg.sum("part"),
    "first": agg.first("number"),
    "last": agg.last("number"),
    "low": agg.min("number"),
    "high": agg.max("number"),
    "kinds": agg.distinct("number"),
}


@st.composite
def streams(draw: st.DrawFn) -> list[Input]:
    """Draw records of three keys, out of order, with a watermark before each that never goes back."""
    records = []
    watermark = draw(st.integers(-5, 5))
    for _ in range(draw(st.integers(0, 30))):
        timestamp_ms = watermark + draw(st.integers(-12, 25))
        records.append(Input(draw(st.sampled_from(["a", "b", "ä"])), draw(st.integers(0, 3)), timestamp_ms, watermark))
        watermark += draw(st.sampled_from([0, 0, 0, 1, 2, 7, 30]))
    return records


@st.composite
def fixed_windows(draw: st.DrawFn) -> windows.FixedWindow:
    """Draw a tumbling or hopping window."""
    size = draw(st.integers(1, 15))
    every = draw(st.integers(1, size)) if draw(st.booleans()) else size
    return windows.FixedWindow(size, every, draw(st.integers(1 - every, every - 1)))


def spans_of(window: Window) -> Any:
    """Return the oracle's idea of a window."""
    if isinstance(window, windows.FixedWindow):
        size, every, offset = window.size_ms, window.every_ms, window.offset_ms
        return lambda t, n: [(s, s + size) for s in range(t - size + 1, t + 1) if (s - offset) % every == 0]
    assert isinstance(window, SessionWindow)
    gap = window.gap_ms
    return (lambda t, n: [(t, t + gap_by_number(reading(n)))]) if callable(gap) else (lambda t, n: [(t, t + gap)])


def gap_by_number(value: Reading) -> int:
    """A gap that depends on the value; 0 for some."""
    return value.number * 4


def drive(
    harness: OperatorHarness,
    inputs: Sequence[Input],
    watermark: int,
    cuts: Sequence[int],
    restarts: Sequence[bool],
    *,
    careful: bool = False,
) -> None:
    """Feed records in blocks of the given sizes, the rest in one; restart before a block where asked."""
    at, number = 0, 0
    harness.careful = careful
    while True:
        size = cuts[number] if number < len(cuts) else len(inputs)
        block = inputs[at : at + size]
        at += len(block)
        end = inputs[at].before if at < len(inputs) else watermark
        records = [(record.key, reading(record.number), record.timestamp_ms) for record in block]
        if careful:
            # As a task replays: time first, then the record by itself.
            for record, row in zip(block, records, strict=True):
                harness.advance(record.before)
                harness.feed(*row)
            harness.advance(end)
        else:
            harness.feed_block(records, before=[record.before for record in block], watermark=end)
        if number < len(restarts) and restarts[number]:
            harness.snapshot_and_restore()
            harness.careful = careful
        number += 1
        if at >= len(inputs):
            return


def results_of(outs: Sequence[Out]) -> list[tuple[Any, ...]]:
    """Return results as the oracle writes them, with the time at which they fired."""
    found = []
    for out in outs:
        row = out.value
        assert out.key == row["key"]
        assert out.timestamp_ms == row["window_end"] - 1
        found.append((row["key"], row["window_start"], row["window_end"], *(row[name] for name in AGGREGATES), out.before + 1))
    return found


def check(spec: WindowSpec, oracle: Oracle, inputs: list[Input], end: int, cuts: list[int], restarts: list[bool]) -> None:
    """Compare the operator with the oracle: cut, restarted, one by one, and careful."""
    oracle.run(inputs, end)
    ways = [(cuts, restarts, False), ([], [], False), ([1] * len(inputs), [True] * len(inputs), False), (cuts, restarts, True)]
    for sizes, stops, careful in ways:
        harness = OperatorHarness(window_operator(spec))
        drive(harness, inputs, end, sizes, stops, careful=careful)
        late = [
            (side.key, side.value.number, side.timestamp_ms, tuple(int(value) for _, value in side.headers))
            for side in harness.take_sides()
        ]
        assert results_of(harness.take()) == oracle.results
        assert late == [(key, number, time_ms, (*span, before)) for key, number, time_ms, span, before in oracle.late]
        assert harness.counters["late_records"] == len(oracle.late)
        assert not harness.failed


CUTS = st.lists(st.integers(0, 9), max_size=12)
RESTARTS = st.lists(st.booleans(), max_size=12)


def rows(harness: OperatorHarness, *names: str) -> list[tuple[Any, ...]]:
    """Return what came out: key, chosen fields, timestamp."""
    return [(out.key, *(out.value[name] for name in names), out.timestamp_ms) for out in harness.take()]


def make(window: Window, **options: Any) -> OperatorHarness:
    """Return a harness for a window over plain numbers that counts and sums them up."""
    aggregates = {"n": agg.count(), "total": agg.sum(lambda value: value)}
    return OperatorHarness(window_operator(WindowSpec(window, aggregates, value_type=int, **options)))
