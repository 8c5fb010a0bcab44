"""Aggregates of values that are not what they seem: NaN, which nothing equals, and bools where ints are declared."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import agg
from engine.agg.folding import Folding, ResultRows
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
