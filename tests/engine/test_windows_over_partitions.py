"""Whole pipelines: random streams over several partitions, one of them perhaps without any record, against a plain batch computation.

Each partition has a time of its own; records come out of order within the bound, some twice. All inputs fall idle at the end, which
closes everything, and what comes after that is late. Tasks crash and restart between any two records.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from engine import Sink, Stream, agg, bounded, triggers, windows
from engine.testing.driver import TestDriver
from engine.topology import Topology
from engine.windows import Window
from tests.effort import examples

pytestmark = pytest.mark.thorough

PARTITIONS, BOUND_MS = 3, 20
ENDS = 3  # the number that ends a session


class Reading(Struct, frozen=True):
    """A record; it goes to the partition that the test says, and is keyed again by `key`."""

    key: str
    number: int
    ts: int


Batch = Callable[[list[Reading]], list[list[Reading]]]
"""Readings of one key, by time, to the contents of its windows."""
Bounds = Callable[[list[Reading]], tuple[int, int]]


def fixed(size: int, every: int) -> Callable[[list[Reading]], list[tuple[int, int, list[Reading]]]]:
    def parts(readings: list[Reading]) -> list[tuple[int, int, list[Reading]]]:
        starts = {start for r in readings for start in range(r.ts - size + 1, r.ts + 1) if start % every == 0}
        return [(start, start + size, [r for r in readings if start <= r.ts < start + size]) for start in starts]

    return parts


def sliding(size: int) -> Callable[[list[Reading]], list[tuple[int, int, list[Reading]]]]:
    def parts(readings: list[Reading]) -> list[tuple[int, int, list[Reading]]]:
        return [(ts - size + 1, ts + 1, [r for r in readings if ts - size < r.ts <= ts]) for ts in {r.ts for r in readings}]

    return parts


def sessions(gap: int, ends: bool) -> Callable[[list[Reading]], list[tuple[int, int, list[Reading]]]]:
    def parts(readings: list[Reading]) -> list[tuple[int, int, list[Reading]]]:
        found: list[list[Reading]] = []
        for r in sorted(readings, key=lambda r: r.ts):
            # Sessions that touch are one, as in Flink; with `ends_with` records come in order, and the first has closed by then.
            new = not found or r.ts - found[-1][-1].ts >= gap + (not ends)
            if not new and ends and any(o.number == ENDS and o.ts < r.ts for o in found[-1]):
                new = True
            if new:
                found.append([])
            found[-1].append(r)
        return [(part[0].ts, _session_end(part, gap, ends), part) for part in found]

    return parts


def _session_end(part: list[Reading], gap: int, ends: bool) -> int:
    return part[-1].ts + 1 if ends and part[-1].number == ENDS else part[-1].ts + gap


KINDS: list[tuple[Window, Callable[[list[Reading]], list[tuple[int, int, list[Reading]]]]]] = [
    (windows.tumbling("10ms"), fixed(10, 10)),
    (windows.hopping("12ms", every="4ms"), fixed(12, 4)),
    (windows.hopping("9ms", every="5ms"), fixed(9, 5)),
    (windows.sliding("8ms"), sliding(8)),
    (windows.session("6ms"), sessions(6, False)),
    (windows.session("6ms", ends_with=lambda reading: reading.number == ENDS), sessions(6, True)),
]


def combined(readings: Sequence[Reading]) -> dict[str, int]:
    """Return what `reduce` makes of readings here: numbers that tell nothing of their order."""
    return {"n": len(readings), "sum": sum(reading.number for reading in readings)}


def more(found: dict[str, int], reading: Reading) -> dict[str, int]:
    return {"n": found["n"] + 1, "sum": found["sum"] + reading.number}


def both(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {"n": one["n"] + other["n"], "sum": one["sum"] + other["sum"]}


def app(window: Window, emit: Literal["close", "update"] = "close") -> Topology:
    topology = Topology("app", partitions=PARTITIONS)
    readings = topology.source("readings", Reading, time="ts", watermark=bounded(f"{BOUND_MS}ms", idle="1m"))

    @topology.pipeline(readings)
    def work(readings: Stream[str, Reading]) -> Sink:
        keyed = readings.key_by("key").window(window, late_to=None if window == windows.everything() else "late")
        return keyed.aggregate(
            emit=emit,
            n=agg.count(), total=agg.sum("number"), low=agg.min("number"), high=agg.max("number"), mean=agg.mean("number"),
            first=agg.first("ts"), last=agg.last("ts"), kinds=agg.distinct("number"), few=agg.collect("ts", 3), best=agg.top("number", 2),
            middle=agg.quantile("number", 0.5), about=agg.approx_distinct("number"), spread=agg.variance("number", ddof=0),
            reduced=agg.reduce(more, {"n": 0, "sum": 0}, merge=both),
        ).to("out")  # fmt: skip

    return topology


def row_of(key: str, start: int, end: int, part: list[Reading]) -> dict[str, Any]:
    """Return a result by the definitions of the aggregates."""
    numbers, times = [r.number for r in part], sorted(r.ts for r in part)
    mean = sum(numbers) / len(numbers)
    return {
        "key": key, "window_start": start, "window_end": end, "n": len(part), "total": sum(numbers), "low": min(numbers),
        "high": max(numbers), "mean": mean, "first": times[0], "last": times[-1], "kinds": len(set(numbers)), "few": times[:3],
        "best": sorted(numbers, reverse=True)[:2], "middle": quantile(numbers), "about": len(set(numbers)),
        "spread": sum((number - mean) ** 2 for number in numbers) / len(numbers), "reduced": combined(part),
    }  # fmt: skip


def quantile(numbers: list[int]) -> float:
    """Return the median: the smallest number that at least half of them do not exceed."""
    return sorted(numbers)[(len(numbers) + 1) // 2 - 1]


def rounded(rows: list[dict[str, Any]]) -> list[list[tuple[str, Any]]]:
    return sorted(sorted((name, round(value, 9) if isinstance(value, float) else value) for name, value in row.items()) for row in rows)


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 2]),  # partition
        st.sampled_from("ab"),
        st.integers(0, BOUND_MS - 1),  # how far behind the newest of the partition
        st.sampled_from([0, 0, 1, 4, 15]),  # how far the partition's time goes on
        st.sampled_from(["", "", "", "twice", "commit", "crash", "restart"]),
    ),
    max_size=30,
)


@settings(max_examples=examples(60), deadline=None)
@given(STEPS, st.sampled_from(KINDS), st.lists(st.sampled_from("ab"), max_size=3))
def test_windows_over_partitions_equal_a_batch_and_what_comes_after_them_is_late(steps: list[Any], kind: Any, late: list[str]) -> None:
    window, batch = kind
    reached = [1_000, 1_000, 1_000]
    by_key: dict[str, list[Reading]] = defaultdict(list)
    with TestDriver(app(window), partitions=PARTITIONS) as driver:
        for partition, key, behind, on, then in steps:
            reached[partition] += on
            ts = reached[partition] - behind
            reading = Reading(key, ts % 7, ts)
            for _ in range(2 if then == "twice" else 1):
                driver.send("readings", reading, key=str(ts), partition=partition)
                by_key[key].append(reading)
            if then not in ("", "twice"):
                getattr(driver, then)()
        driver.advance("3m")
        found = [record.value for record in driver.read("out")]
        expected = [row_of(key, *part) for key, readings in by_key.items() for part in batch(readings)]
        assert rounded(found) == rounded(expected)
        if not steps:
            return
        for number, key in enumerate(late):
            driver.send("readings", Reading(key, number, 5), key="x", partition=number)
            driver.restart()
        driver.advance("3m")
        assert sorted(record.value["number"] for record in driver.read("late")) == list(range(len(late)))
        assert driver.read("out") == []


@settings(max_examples=examples(40), deadline=None)
@given(STEPS, st.sampled_from(["close", "update"]))
def test_everything_over_partitions_equals_a_batch_of_all_records_of_a_key(steps: list[Any], emit: Any) -> None:
    reached = [1_000, 1_000, 1_000]
    by_key: dict[str, list[Reading]] = defaultdict(list)
    with TestDriver(app(windows.everything(), emit), partitions=PARTITIONS) as driver:
        for partition, key, behind, on, then in steps:
            reached[partition] += on
            by_key[key].append(Reading(key, (reached[partition] - behind) % 7, reached[partition] - behind))
            driver.send("readings", by_key[key][-1], key="x", partition=partition)
            if then in ("commit", "crash", "restart"):
                getattr(driver, then)()
        driver.advance("3m")
        assert emit == "update" or driver.read("out") == [], "idleness ends no input"
        driver.finish()
        found = {record.key: (record.value, record.timestamp_ms) for record in driver.read("out")}
    expected = {}
    for key, readings in by_key.items():
        row = row_of(key, 0, 0, readings)
        del row["window_start"], row["window_end"]
        expected[key] = row
    assert rounded([row for row, _ in found.values()]) == rounded(list(expected.values()))
    assert {key: at for key, (_, at) in found.items()} == {key: max(r.ts for r in readings) for key, readings in by_key.items()}


@settings(max_examples=examples(30), deadline=None)
@given(STEPS, st.integers(1, 4), st.booleans())
def test_everything_with_a_trigger_tells_after_every_so_many_records_of_a_key(steps: list[Any], n: int, purge: bool) -> None:
    topology = Topology("app", partitions=PARTITIONS)
    readings = topology.source("readings", Reading, key="key", time="ts", watermark=bounded("20ms"))
    trigger = triggers.every(records=n, purge=purge)
    topology.pipeline(readings, name="work")(
        lambda stream: (
            stream.window(windows.everything(), trigger=trigger).aggregate(reduced=agg.reduce(more, {"n": 0, "sum": 0})).to("out")
        )
    )
    sent: dict[str, list[Reading]] = defaultdict(list)
    expected: dict[str, list[dict[str, int]]] = defaultdict(list)
    with TestDriver(topology, partitions=PARTITIONS) as driver:
        for _, key, behind, on, then in steps:
            sent[key].append(Reading(key, behind, 1_000 + on - behind))
            driver.send("readings", sent[key][-1])
            if len(sent[key]) % n == 0:
                expected[key].append(combined(sent[key][-n:] if purge else sent[key]))
            if then in ("commit", "crash", "restart"):
                getattr(driver, then)()
        driver.finish()
        for key, own in sent.items():
            if len(own) % n:
                expected[key].append(combined(own[-(len(own) % n) :] if purge else own))
        found: dict[str, list[dict[str, int]]] = defaultdict(list)
        for record in driver.read("out"):
            found[record.key].append(record.value["reduced"])
    assert found == expected


@settings(max_examples=examples(30), deadline=None)
@given(STEPS, st.integers(1, 4), st.integers(1, 4))
def test_count_windows_over_partitions_take_so_many_records_of_a_key_in_the_order_they_came(steps: list[Any], n: int, every: int) -> None:
    topology = Topology("app", partitions=PARTITIONS)
    readings = topology.source("readings", Reading, key="key", time="ts", watermark=bounded("20ms"))
    topology.pipeline(readings, name="work")(
        lambda stream: stream.window(windows.count(n, every=min(n, every))).aggregate(times=agg.sum("ts"), n=agg.count()).to("out")
    )
    sent: dict[str, list[int]] = defaultdict(list)
    expected: dict[str, list[tuple[int, int]]] = defaultdict(list)
    with TestDriver(topology, partitions=PARTITIONS) as driver:
        for _, key, behind, on, then in steps:
            sent[key].append(1_000 + on - behind)
            driver.send("readings", Reading(key, 0, sent[key][-1]))
            if len(sent[key]) >= n and (len(sent[key]) - n) % min(n, every) == 0:
                expected[key].append((sum(sent[key][-n:]), n))
            if then in ("commit", "crash", "restart"):
                getattr(driver, then)()
        found: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for record in driver.read("out"):
            found[record.key].append((record.value["times"], record.value["n"]))
    assert found == expected


def sessions_of(window: Window, times: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Return (start, end, readings) of the sessions of readings at (partition, time)."""
    with TestDriver(app(window), partitions=PARTITIONS) as driver:
        for partition, ts in times:
            driver.send("readings", Reading("a", ts % 7, ts), key=str(ts), partition=partition)
        driver.advance("3m")
        return sorted((row["window_start"], row["window_end"], row["n"]) for row in (record.value for record in driver.read("out")))


def test_sessions_that_touch_are_one() -> None:
    assert sessions_of(windows.session("6ms"), [(0, 1_000), (0, 992), (1, 998)]) == [(992, 1_006, 3)]


def test_sessions_with_an_end_that_touch_stay_apart() -> None:
    window = windows.session("6ms", ends_with=lambda reading: reading.number == ENDS)
    assert sessions_of(window, [(0, 1_004), (0, 998)]) == [(998, 1_004, 1), (1_004, 1_005, 1)]
    assert sessions_of(window, [(0, 1_000), (0, 992), (1, 998)]) == [(992, 998, 1), (998, 1_006, 2)]
