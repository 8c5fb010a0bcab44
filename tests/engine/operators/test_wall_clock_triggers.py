"""`triggers.every(wall_clock=)` against a few lines that look at every window at every step, with restarts between any two of them."""

from collections import defaultdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from engine import agg, triggers, windows
from engine.block import MAX_TIME
from engine.operators.window import WindowSpec, window_operator
from engine.testing.harness import OperatorHarness
from tests.effort import examples

EVERY_MS = 10


class Reading(Struct, frozen=True):
    """A record's value."""

    number: int


class Held:
    """One window of one key: what lies in it since the last purge, and when it fires by the wall clock."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.due_ms: int | None = None


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("record"), st.sampled_from("ab"), st.integers(0, 12)),  # so far ahead of the watermark
        st.tuples(st.just("wall"), st.integers(0, 25)),
        st.tuples(st.just("time"), st.integers(0, 9)),
        st.tuples(st.just("restart")),
    ),
    max_size=30,
)


@settings(max_examples=examples(80), deadline=None)
@given(STEPS, st.sampled_from([(6, 6), (6, 3), (6, 4)]), st.booleans())
def test_wall_clock_trigger_fires_at_the_next_multiple_after_a_record_and_at_the_end(
    steps: list[tuple[Any, ...]], window: tuple[int, int], purge: bool
) -> None:
    size, every = window
    trigger = triggers.every(wall_clock=f"{EVERY_MS}ms", purge=purge)
    aggregates = {"n": agg.count(), "total": agg.sum("number")}
    spec = WindowSpec(windows.hopping(f"{size}ms", every=f"{every}ms"), aggregates, value_type=Reading, trigger=trigger)
    harness = OperatorHarness(window_operator(spec))
    watermark, now_ms = 0, 0
    harness.advance(watermark)
    held: dict[tuple[str, int], Held] = {}
    expected: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)

    def fire(place: tuple[str, int]) -> None:
        numbers = held[place].numbers
        if numbers:
            expected[place].append((len(numbers), sum(numbers)))
        if purge:
            held[place].numbers = []

    def close(until: int) -> None:
        for place in [place for place in held if place[1] + size - 1 <= until]:
            fire(place)
            del held[place]

    for number, (what, *rest) in enumerate(steps):
        if what == "record":
            key, ahead = rest
            ts = watermark + 1 + ahead
            harness.feed(key, Reading(number), ts)
            for start in (start for start in range(ts - size + 1, ts + 1) if start % every == 0):
                one = held.setdefault((key, start), Held())
                one.numbers.append(number)
                one.due_ms = now_ms // EVERY_MS * EVERY_MS + EVERY_MS if one.due_ms is None else one.due_ms
        elif what == "wall":
            now_ms += rest[0]
            harness.wall_clock(now_ms)
            for place, one in held.items():
                if one.due_ms is not None and one.due_ms <= now_ms:
                    one.due_ms = None
                    fire(place)
        elif what == "time":
            watermark += rest[0]
            harness.advance(watermark)
            close(watermark)
        else:
            harness.snapshot_and_restore()
    harness.advance(MAX_TIME)
    close(MAX_TIME)
    found: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    for out in harness.take():
        found[out.key, out.value["window_start"]].append((out.value["n"], out.value["total"]))
    assert found == {place: told for place, told in expected.items() if told}
    harness.snapshot_and_restore()
    assert not list(harness.store.scan(b"", b"\xff" * 9)), "nothing is left"
