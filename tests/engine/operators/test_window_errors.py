"""User code that raises in a window, wherever it is called: one dead letter each, and everything else comes out.

It may raise as a record comes (what it reads from it, how it is added), when the turn of a record comes that was held back, and when
parts of a window are joined as it closes, where the merge= is the user's own. None of that may stop the worker, which would read the
same record and stop again.
"""

from typing import Any

import pytest
from msgspec import Struct

from engine import agg, windows
from engine.testing.driver import TestDriver
from engine.topology import Topology
from engine.watermarks import bounded
from engine.windows import Window


class Seen(Struct, frozen=True):
    """A record."""

    user: str
    ts: int


def strict(seen: Seen) -> int:
    if seen.user == "bad":
        raise ValueError("a bad one")
    return 1


def fragile_add(total: int, seen: Seen) -> int:
    return total + strict(seen)


def fragile_merge(total: int, other: int) -> int:
    if 7 in (total, other):
        raise ValueError("no merge")
    return total + other


SUM = agg.sum(strict)
ADD = agg.reduce(fragile_add, 0, merge=lambda total, other: total + other)
MERGE = agg.reduce(lambda total, seen: total + (7 if seen.user == "bad" else 1), 0, merge=fragile_merge)
ENDS = windows.session("10ms", ends_with=lambda seen: seen.ts == 7 and bool(strict(seen)))
KINDS: dict[str, Window] = {
    "tumbling": windows.tumbling("10ms"),
    "hopping": windows.hopping("10ms", every="5ms"),
    "sliding": windows.sliding("10ms"),
    "session": windows.session("5ms"),
    "session with an end": windows.session("5ms", ends_with=lambda seen: seen.ts == 7),
    "count": windows.count(2, every=1),
    "everything": windows.everything(),
}


def run(window: Window, emit: Any, **aggregates: Any) -> tuple[list[tuple[Any, ...]], list[Any]]:
    """Return (key, start, value) of each result, and the dead letters."""
    topology = Topology("shop", partitions=1)
    seen = topology.source("seen", Seen, key="user", time="ts", watermark=bounded("0ms"))

    @topology.pipeline(seen)
    def work(seen: Any) -> Any:
        return seen.window(window).aggregate(emit=emit, **aggregates).to("out")

    with TestDriver(topology) as driver:
        for user, ts in [("ann", 1), ("bad", 1), ("ann", 4), ("bad", 4), ("ann", 7), ("bad", 7), ("ann", 100)]:
            driver.send("seen", Seen(user, ts))
        driver.finish()
        out = [(record.key, record.value.get("window_start"), record.value["n"]) for record in driver.read("out")]
        return out, driver.read("shop-dlq")


CASES: list[tuple[str, Window, Any, Any]] = [
    (f"{kind}, {what}", window, emit, aggregate)
    for kind, window in {**KINDS, "ends_with": ENDS}.items()
    for emit in (("close", "update") if kind in ("tumbling", "hopping", "session", "everything") else ("close",))
    for what, aggregate in {"sum": SUM, "add": ADD, "merge": MERGE}.items()
]


@pytest.mark.parametrize(("window", "emit", "aggregate"), [case[1:] for case in CASES], ids=[f"{case[0]}, {case[2]}" for case in CASES])
def test_what_raises_is_a_dead_letter_and_the_other_key_is_not_touched(window: Window, emit: Any, aggregate: Any) -> None:
    def harmless(results: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return [result for result in results if result[0] == "ann"]

    window_of_all = KINDS["session with an end"] if window is ENDS else window
    expected, _ = run(window_of_all, emit, n=agg.reduce(lambda total, seen: total + 1, 0, merge=lambda total, other: total + other))
    out, letters = run(window, emit, n=aggregate)
    assert harmless(out) == harmless(expected)
    assert all("no merge" in str(dict(letter.headers)["error"]) or "a bad one" in str(dict(letter.headers)["error"]) for letter in letters)
    if aggregate is not MERGE or window in (KINDS["sliding"], KINDS["count"]):
        assert letters and all(record.value == {"user": "bad", "ts": record.value["ts"]} for record in letters if record.value)


def test_record_that_is_bad_when_it_comes_is_not_held_back() -> None:
    """`ends_with` raises for a record: the record itself is the dead letter, and the others make their session."""
    out, letters = run(ENDS, "close", n=agg.count())
    assert [letter.value for letter in letters] == [{"user": "bad", "ts": 7}]
    assert out == [("ann", 1, 3), ("bad", 1, 2), ("ann", 100, 1)]
