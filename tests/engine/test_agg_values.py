"""Aggregates of values that are not what they seem: NaN, which nothing equals, and bools where ints are declared."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import agg, windows
from engine.agg.folding import Folding, ResultRows
from engine.errors import ConfigError, RecordError
from engine.testing import TestDriver
from engine.topology import Topology
from tests.engine.test_agg import Row


@given(st.lists(st.sampled_from([math.nan, 1.0, 2.0, 3.0, -0.0, 0.0, math.inf, -math.inf]), min_size=1, max_size=24), st.integers(0, 24))
def test_smallest_and_largest_do_not_depend_on_the_batch_where_there_is_nan(xs: list[float], cut: int) -> None:
    folding = Folding({"lo": agg.min("x"), "hi": agg.max("x")}, Row, "test")
    rows = [Row(0, x, "") for x in xs]

    def folded(batches: list[list[Row]]) -> str:
        kept: dict[str, Any] = {}
        for batch in batches:
            if batch:
                new: dict[str, Any] = {}
                folding.fold(kept.get, new, ["k"] * len(batch), [0] * len(batch), folding.columns(batch))
                kept |= new
        return repr(kept)

    assert folded([rows[:cut], rows[cut:]]) == folded([[row] for row in rows])


@pytest.mark.parametrize("name", ["sum", "mean", "min", "max", "first", "last"])
def test_a_bool_of_a_callable_that_is_declared_int_is_stored_as_int(name: str) -> None:
    def is_big(row: Row) -> int:
        return row.n > 3

    folding = Folding({"n": getattr(agg, name)(is_big)}, Row, "test")
    new: dict[str, Any] = {}
    folding.fold({}.get, new, ["k"], [0], folding.columns([Row(5, 0.0, "")]))
    stored = folding.codec.decode(folding.codec.encode(new["k"]))
    assert repr(stored) == repr(new["k"])
    assert ResultRows(folding, key_as="key", into=None, windowed=False, what="test").row("k", stored)["n"] == 1


@pytest.mark.parametrize("size", [1, 3, 24])
def test_nan_is_one_distinct_value_also_when_the_set_comes_out_of_the_store(size: int) -> None:
    folding = Folding({"n": agg.distinct("x")}, Row, "test")
    xs = [math.nan, 1.0, float("nan"), 2.0, -math.nan, 1.0] * 4
    kept: dict[str, Any] = {}
    for start in range(0, len(xs), size):
        batch = [Row(0, x, "") for x in xs[start : start + size]]
        new: dict[str, Any] = {}
        folding.fold(kept.get, new, ["k"] * len(batch), [0] * len(batch), folding.columns(batch))
        kept = {"k": folding.codec.decode(folding.codec.encode(new["k"]))}
    merged = folding.merge(kept["k"], folding.codec.decode(folding.codec.encode(kept["k"])))
    assert (len(kept["k"][0]), len(merged[0])) == (3, 3)


class Odd:
    """A value that no store can keep."""

    def __lt__(self, other: object) -> bool:
        return False


def _n(value: dict[str, Any]) -> Any:
    return Odd() if value["n"] == 2 else value["n"]


def _latest(total: Any, value: dict[str, Any]) -> Any:
    return {"n": _n(value)}


def _larger(earlier: Any, later: Any) -> Any:
    return later


@pytest.mark.parametrize("window", [None, windows.tumbling("1m"), windows.session("1m")])
@pytest.mark.parametrize(
    ("aggregate", "result"),
    [
        (agg.collect(_n, 5), [1, 3]),
        (agg.first(_n), 1),
        (agg.last(_n), 3),
        (agg.min(_n), 1),
        (agg.top("n", 2, by=_n), [3, 1]),
        (agg.reduce(_latest, None, merge=_larger), {"n": 3}),
    ],
)
def test_a_record_of_which_nothing_can_be_stored_is_a_dead_letter(aggregate: agg.Aggregate, result: object, window: Any) -> None:
    topology = Topology("app", partitions=1)
    events = topology.source("events", dict, key="k", time="ts")

    @topology.pipeline(events)
    def values(events: Any) -> Any:
        grouped = events if window is None else events.window(window)
        return grouped.aggregate(found=aggregate).to("values")

    with TestDriver(topology) as driver:
        for n in (1, 2, 3):
            driver.send("events", {"k": "a", "n": n, "ts": n * 1_000})
        driver.finish()
        assert [letter.source_offset for letter in driver.dead_letters()] == [1]
        assert "cannot be stored" in driver.dead_letters()[0].error
        assert driver.read("values")[-1].value["found"] == result


def _declared_int(value: dict[str, Any]) -> int:
    return value["x"]  # type: ignore[no-any-return]


def _declared_text(value: dict[str, Any]) -> str:
    return value["x"]  # type: ignore[no-any-return]


def _declared_optional(value: dict[str, Any]) -> int | None:
    return value["x"]  # type: ignore[no-any-return]


KEEPING = ["sum", "mean", "variance", "min", "max", "first", "last", "distinct", "collect", "top"]


def _folding(name: str, function: Any) -> Folding:
    aggregate = getattr(agg, name)(function, 3) if name in ("collect", "top") else getattr(agg, name)(function)
    return Folding({"r": aggregate}, dict, "test")


@pytest.mark.parametrize("name", KEEPING)
@pytest.mark.parametrize(("function", "x"), [(_declared_int, 1.5), (_declared_int, "a"), (_declared_int, None), (_declared_optional, "a")])
def test_a_value_that_is_not_what_is_declared_is_refused(name: str, function: Any, x: Any) -> None:
    """It would be stored as it is, and could not be read again."""
    folding = _folding(name, function)
    with pytest.raises(RecordError, match="is kept by an aggregate, but is declared int"):
        folding.columns([{"x": 1}, {"x": x}])


@pytest.mark.parametrize("name", KEEPING)
@pytest.mark.parametrize(
    ("function", "xs"), [(_declared_int, [True, 3, 2**70]), (_declared_optional, [None, 4, False]), (_declared_text, ["a", "b", "a"])]
)
def test_a_value_that_is_what_is_declared_is_kept_through_the_store(name: str, function: Any, xs: list[Any]) -> None:
    if function is _declared_text and name in ("sum", "mean", "variance"):
        with pytest.raises(ConfigError):
            _folding(name, function)
        return
    folding, kept = _folding(name, function), dict[str, Any]()
    for x in xs:
        new: dict[str, Any] = {}
        folding.fold(kept.get, new, ["k"], [0], folding.columns([{"x": x}]))
        kept = {"k": folding.codec.decode(folding.codec.encode(new["k"]))}
        assert kept == new
