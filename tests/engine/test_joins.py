"""Joins of streams as users declare them: co-partitioning, refusals, and random streams against every pair that fits."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from engine import windows
from engine.errors import ConfigError
from engine.testing.driver import TestDriver
from engine.topology import Topology
from engine.watermarks import bounded
from tests.effort import examples


class Seen(Struct, frozen=True):
    """A record of either side."""

    number: int
    user: str
    ts: int


def two_sources(delay: str = "1h", **options: Any) -> tuple[Topology, list[Any]]:
    topology = Topology("shop", **options)
    sources = [topology.source(name, Seen, key="user", time="ts", watermark=bounded(delay)) for name in ("views", "buys")]
    return topology, sources


def joined(declare: Callable[[Any, Any], Any], delay: str = "1h") -> Topology:
    """Return a topology whose one pipeline writes what `declare` makes of views and buys to "out"."""
    topology, sources = two_sources(delay)
    topology.pipeline(*sources, name="work")(lambda views, buys: declare(views, buys).to("out"))
    return topology


def numbers(value: Any) -> tuple[int | None, int | None]:
    left, right = value
    return left and left["number"], right and right["number"]


# -- declarations


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (lambda v, b: v.join(b, within=("5m", "-5m")), r"within \(300000 ms, -300000 ms\)"),
        (lambda v, b: v.join(b, within=(5, 6)), "write its unit"),
        (lambda v, b: v.join(b, within="5m"), "not a pair of durations"),
        (lambda v, b: v.join(b, within=("0s", "1s"), how="cross"), "how='cross'"),
        (lambda v, b: v.join(b, within=("0s", "1s"), bounds="[["), "bounds="),
        (lambda v, b: v.join(b, within=("0ms", "1ms"), bounds="()"), "no whole millisecond"),
        (lambda v, b: v.join(b.key_by("ts"), within=("0s", "1s")), "keys differ, str and int"),
        (lambda v, b: v.join(b, within=windows.session("1m")), r"within=session\(60000ms\) does not join streams"),
        (lambda v, b: v.join(b, within=windows.sliding("1m")), "does not join streams, because the records decide"),
        (lambda v, b: v.join(b, within=windows.tumbling("1m"), bounds="()"), "a window holds its start and not its end"),
        (lambda v, b: v.join(b, within=windows.tumbling("1m"), how="cross"), "how='cross'"),
        (lambda v, b: v.join(b, within=windows.tumbling("1m"), lateness="-1s"), r"lateness of pipeline 'work', join"),
        (lambda v, b: v.join(b, within=windows.tumbling("1m"), lateness=5), "write its unit"),
        (lambda v, b: v.join(b, within=("0s", "1s"), lateness="1m"), "pipeline 'work', join: lateness=60000 ms is for windows"),
        (lambda v, b: v.join(7, within=("0s", "1s")), "7 is not a stream"),
    ],
)
def test_join_without_meaning_is_refused_by_name(declare: Callable[[Any, Any], Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        joined(declare)
    assert "'work', join" in str(error.value)


def test_join_with_a_stream_of_another_pipeline_is_refused() -> None:
    topology, (views, buys) = two_sources()
    kept: list[Any] = []
    topology.pipeline(views, name="one")(lambda stream: [kept.append(stream) or stream.to("a")])  # type: ignore[func-returns-value]
    with pytest.raises(ConfigError, match="another pipeline"):
        topology.pipeline(buys, name="two")(lambda stream: stream.join(kept[0], within=("0s", "1s")).to("b"))


def test_join_moves_only_what_was_keyed_anew() -> None:
    plan = joined(lambda v, b: v.join(b.key_by("user"), within=("0s", "1s"))).plan()
    assert plan.internal_topics == ("shop-work-join-repartition-1",)


# -- what comes out


def test_join_of_a_record_in_a_wrong_partition_is_a_dead_letter_with_the_reason() -> None:
    with TestDriver(joined(lambda v, b: v.join(b, within=("0s", "1s"))), partitions=2) as driver:
        for partition in (0, 1):
            driver.send("views", Seen(partition, "ann", 0), partition=partition)
        driver.send("buys", Seen(2, "ann", 0))
        driver.finish()
        (letter,) = driver.read("shop-dlq")
        assert "murmur2" in str(dict(letter.headers)["error"])
        assert len(driver.read("out")) == 1


def test_join_goes_on_after_a_restart_when_one_side_was_read_to_its_end() -> None:
    with TestDriver(joined(lambda v, b: v.join(b, within=("-10s", "10s")), "0s")) as driver:
        driver.send("views", Seen(1, "ann", 1_000))
        driver.restart()
        driver.send("buys", Seen(2, "ann", 2_000))
        assert [(r.key, numbers(r.value), r.timestamp_ms) for r in driver.read("out")] == [("ann", (1, 2), 2_000)]


def test_join_undeclared_struct_is_a_dead_letter_that_says_what_to_annotate() -> None:
    with TestDriver(joined(lambda v, b: v.map(lambda seen: seen).join(b, within=("0s", "1s")))) as driver:
        driver.send("views", Seen(1, "ann", 0))
        (letter,) = driver.read("shop-dlq")
        assert "annotate the return type" in str(dict(letter.headers)["error"])


def test_join_late_records_go_to_their_topic() -> None:
    topology = joined(lambda v, b: v.join(b, within=("0s", "1s"), late_to="late"), "0s")
    with TestDriver(topology) as driver:
        for topic in ("views", "buys"):
            driver.send(topic, Seen(1, "ann", 60_000))
        driver.send("views", Seen(2, "ann", 1_000))
        assert [r.value["number"] for r in driver.read("late")] == [2]
        assert driver.counters()["work", "join", "late_records"] == 1


RECORDS = st.lists(
    st.tuples(
        st.sampled_from(["views", "buys"]), st.sampled_from("abcd"), st.integers(0, 40), st.sampled_from(["", "", "restart", "crash"])
    ),
    max_size=25,
)


def pairs_that_fit(
    lefts: list[tuple[str, int, int]], rights: list[tuple[str, int, int]], lo: int, hi: int, how: str
) -> list[tuple[str, int | None, int | None, int]]:
    """Return (key, left, right, time) of every pair of (key, number, time) that fits, by trying all."""
    found: list[tuple[str, int | None, int | None, int]] = []
    lonely_left, lonely_right = set(lefts), set(rights)
    for left in lefts:
        for right in rights:
            if left[0] == right[0] and lo <= right[2] - left[2] <= hi:
                found.append((left[0], left[1], right[1], max(left[2], right[2])))
                lonely_left.discard(left)
                lonely_right.discard(right)
    if how in ("left", "outer"):
        found += [(key, number, None, ts) for key, number, ts in lonely_left]
    if how in ("right", "outer"):
        found += [(key, None, number, ts) for key, number, ts in lonely_right]
    return sorted(found, key=repr)


@settings(max_examples=examples(60), deadline=None)
@given(RECORDS, st.integers(-9, 9), st.integers(2, 9), st.sampled_from(["inner", "left", "right", "outer"]), st.booleans(), st.booleans())
def test_join_over_partitions_equals_every_pair_that_fits(
    records: list[tuple[str, str, int, str]], lo: int, width: int, how: Any, rekeyed: bool, exclusive: bool
) -> None:
    hi = lo + width

    def declare(views: Any, buys: Any) -> Any:
        right = buys.key_by("user") if rekeyed else buys
        return views.join(right, within=(f"{lo}ms", f"{hi}ms"), how=how, bounds="()" if exclusive else "[]")

    with TestDriver(joined(declare), partitions=3) as driver:
        sides: dict[str, list[tuple[str, int, int]]] = {"views": [], "buys": []}
        for number, (topic, user, ts, failure) in enumerate(records, start=1):
            driver.send(topic, Seen(number, user, ts))
            sides[topic].append((user, number, ts))
            if failure:
                getattr(driver, failure)()
        driver.finish()
        out = sorted(((r.key, *numbers(r.value), r.timestamp_ms) for r in driver.read("out")), key=repr)
    assert out == pairs_that_fit(sides["views"], sides["buys"], lo + exclusive, hi - exclusive, how)


def pairs_of_windows(
    lefts: list[tuple[str, int, int]], rights: list[tuple[str, int, int]], size: int, every: int, how: str
) -> list[tuple[str, int | None, int | None, int]]:
    """Return (key, left, right, time) of every pair in every window, by looking into all windows that there can be."""
    found: list[tuple[str, int | None, int | None, int]] = []
    for key in sorted({row[0] for row in [*lefts, *rights]}):
        for start in range(-60, 60, every):
            left, right = ([number for name, number, ts in rows if name == key and start <= ts < start + size] for rows in (lefts, rights))
            end = start + size - 1
            found += [(key, one, other, end) for one in left for other in right]
            found += [(key, one, None, end) for one in left if not right and how in ("left", "outer")]
            found += [(key, None, other, end) for other in right if not left and how in ("right", "outer")]
    return sorted(found, key=repr)


@settings(max_examples=examples(60), deadline=None)
@given(RECORDS, st.sampled_from([(10, 10), (12, 4), (9, 5)]), st.sampled_from(["inner", "left", "right", "outer"]), st.booleans())
def test_join_by_window_over_partitions_equals_every_pair_of_every_window(
    records: list[tuple[str, str, int, str]], window: tuple[int, int], how: Any, rekeyed: bool
) -> None:
    size, every = window

    def declare(views: Any, buys: Any) -> Any:
        right = buys.key_by("user") if rekeyed else buys
        return views.join(right, within=windows.hopping(f"{size}ms", every=f"{every}ms"), how=how)

    with TestDriver(joined(declare), partitions=3) as driver:
        sides: dict[str, list[tuple[str, int, int]]] = {"views": [], "buys": []}
        for number, (topic, user, ts, failure) in enumerate(records, start=1):
            driver.send(topic, Seen(number, user, ts))
            sides[topic].append((user, number, ts))
            if failure:
                getattr(driver, failure)()
        driver.finish()
        out = sorted(((r.key, *numbers(r.value), r.timestamp_ms) for r in driver.read("out")), key=repr)
    assert out == pairs_of_windows(sides["views"], sides["buys"], size, every, how)


def test_join_by_window_with_a_lateness_waits_for_late_records_and_sends_later_ones_away() -> None:
    def declare(views: Any, buys: Any) -> Any:
        return views.join(buys, within=windows.tumbling("10ms"), how="left", lateness="5ms", late_to="missed")

    with TestDriver(joined(declare, delay="0ms")) as driver:
        driver.send("views", Seen(1, "a", 3))
        driver.send("views", Seen(2, "b", 14))
        driver.send("buys", Seen(3, "b", 14))
        driver.commit()
        driver.restart()
        driver.send("buys", Seen(4, "a", 9))  # the watermark is 13: late, and taken
        driver.send("views", Seen(5, "b", 16))
        driver.send("buys", Seen(6, "b", 16))
        assert [(numbers(record.value), record.timestamp_ms) for record in driver.read("out")] == [((1, 4), 9)]
        driver.send("buys", Seen(7, "a", 9))
        (missed,) = driver.read("missed")
        assert missed.value["number"] == 7 and dict(missed.headers)["window_end"] == b"10"


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30)), max_size=14), st.integers(0, 9), st.booleans())
def test_self_join_pairs_each_record_with_every_other_and_itself(records: list[tuple[str, int]], hi: int, split: bool) -> None:
    def declare(views: Any, _: Any) -> Any:
        return views.join(views.filter(lambda seen: seen.number % 2) if split else views, within=("0s", f"{hi}ms"))

    with TestDriver(joined(declare), partitions=2) as driver:
        rows = [(user, number, ts) for number, (user, ts) in enumerate(records, start=1)]
        for user, number, ts in rows:
            driver.send("views", Seen(number, user, ts))
        driver.finish()
        out = sorted(((r.key, *numbers(r.value), r.timestamp_ms) for r in driver.read("out")), key=repr)
    assert out == pairs_that_fit(rows, [row for row in rows if row[1] % 2] if split else rows, 0, hi, "inner")
