"""Aggregates over Decimal fields (`numeric` columns): exact whatever the order, typed or not, and back again when rows go."""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import App, Stream, agg
from engine.agg.folding import Folding, ResultRows
from engine.agg.retracting import RetractingFolding
from engine.errors import ConfigError, RecordError
from engine.keys import key_codec
from engine.testing import TestDriver
from state.memory import MemoryStore
from state.overlay import TaskState
from state.values import msgpack_codec, raw_codec
from tests.effort import examples

NAN, INFINITY = Decimal("NaN"), Decimal("Infinity")
HUGE = Decimal("9" * 40 + ".01")


class Row(msgspec.Struct, frozen=True):
    """A record's value."""

    amount: Decimal
    maybe: Decimal | None = None
    mixed: int | Decimal = 0
    rate: float = 0.0
    either: float | Decimal = 0.0


AMOUNTS = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False, places=2), st.decimals(-9, 9, places=6), st.sampled_from([HUGE, -HUGE])
)
MIXED = st.one_of(st.integers(-(2**70), 2**70), AMOUNTS)
ROWS = st.lists(st.builds(Row, AMOUNTS, st.one_of(st.none(), AMOUNTS), MIXED), min_size=1, max_size=12)
ALL = {
    "sum": agg.sum("amount"),
    "maybe": agg.sum("maybe"),
    "mixed": agg.sum("mixed"),
    "low": agg.min("amount"),
    "high": agg.max("amount"),
    "mean": agg.mean("amount"),
    "variance": agg.variance("amount"),
    "kinds": agg.distinct("amount"),
    "about": agg.approx_distinct("amount"),
    "top": agg.top("amount", 2),
}


def expected(rows: Sequence[Row]) -> dict[str, Any]:
    """Work the results out in fractions; None for what only has to be near."""
    amounts = [Fraction(row.amount) for row in rows]
    mean = sum(amounts, Fraction()) / len(amounts)
    spread = sum(((amount - mean) ** 2 for amount in amounts), Fraction())
    return {
        "sum": sum(amounts, Fraction()),
        "maybe": sum((Fraction(row.maybe) for row in rows if row.maybe is not None), Fraction()),
        "mixed": sum((Fraction(row.mixed) for row in rows), Fraction()),
        "low": min(amounts),
        "high": max(amounts),
        "mean": mean,
        "variance": spread / (len(rows) - 1) if len(rows) > 1 else None,
        "kinds": len(set(amounts)),
        "about": len(set(amounts)),
        "top": sorted(amounts, reverse=True)[:2],
    }


def check(found: dict[str, Any], rows: Sequence[Row]) -> None:
    """Compare exactly, but for the quotients, which are rounded to 38 digits."""
    for name, value in expected(rows).items():
        got = found[name]
        if name in ("mean", "variance") and value is not None:
            assert isinstance(got, Decimal)
            assert abs(Fraction(got) - value) <= abs(value) / 10**37, name
        elif name == "top":
            assert list(map(Fraction, got)) == value
        else:
            assert got is None if value is None else Fraction(got) == value, name


def folded(folding: Folding, values: Sequence[Any]) -> dict[str, Any]:
    """Fold record by record, stored in between."""
    total: Any = None
    for record in folding.records(values):
        total = folding.create(0, record) if total is None else folding.codec.decode(folding.codec.encode(folding.add(total, 0, record)))
    row: dict[str, Any] = ResultRows(folding, key_as="key", into=None, windowed=False, what="test").row("k", total)
    return row


@pytest.mark.parametrize("declared", [True, False])
@settings(max_examples=examples(40), deadline=None)
@given(rows=ROWS, at=st.integers(0, 12))
def test_aggregates_of_decimals_are_exact_typed_or_not_and_merged(declared: bool, rows: list[Row], at: int) -> None:
    values: list[Any] = rows if declared else [{"amount": r.amount, "maybe": r.maybe, "mixed": r.mixed} for r in rows]
    folding = Folding(ALL, Row if declared else dict[str, Any], "test")
    check(folded(folding, values), rows)
    if 0 < at < len(rows):
        parts: list[Any] = []
        for part in (values[:at], values[at:]):
            new: dict[str, Any] = {}
            folding.fold(lambda key: None, new, ["k"] * len(part), [0] * len(part), folding.columns(part))
            parts.append(new["k"])
        merged = ResultRows(folding, key_as="key", into=None, windowed=False, what="test").row("k", folding.merge(*parts))
        check(merged, rows)


@pytest.mark.parametrize("declared", [True, False])
@settings(max_examples=examples(40), deadline=None)
@given(rows=ROWS, gone=st.data())
def test_aggregates_of_decimals_over_a_table_forget_the_rows_that_go(declared: bool, rows: list[Row], gone: st.DataObject) -> None:
    aggregates = {name: each for name, each in ALL.items() if name not in ("about", "top")}
    values: list[Any] = rows if declared else [{"amount": r.amount, "maybe": r.maybe, "mixed": r.mixed} for r in rows]
    folding = RetractingFolding(aggregates, Row if declared else dict[str, Any], key_as="key", into=None, what="test")
    cells = TaskState(MemoryStore()).mapped("values", key_codec(str), raw_codec, msgpack_codec(int))
    total = folding.empty
    for value in values:
        total = folding.change(total, value, True, cells, "k")
    kept = gone.draw(st.lists(st.sampled_from(range(len(rows))), min_size=1, unique=True))
    for number, value in enumerate(values):
        if number not in kept:
            total = folding.change(total, value, False, cells, "k")
    found = folding.row("k", total)
    check({**found, "about": found["kinds"], "top": expected([rows[n] for n in kept])["top"]}, [rows[n] for n in kept])


def of_amounts(aggregate: Any, *texts: str) -> Any:
    return folded(Folding({"x": aggregate}, Row, "test"), [Row(Decimal(text)) for text in texts])["x"]


def test_sum_keeps_the_scale_and_every_digit() -> None:
    assert str(of_amounts(agg.sum("amount"), "1.10", "2.2", "-1.10")) == "2.20"
    assert str(of_amounts(agg.sum("amount"), "1" * 60, "0.01")) == "1" * 60 + ".01"
    assert of_amounts(agg.sum(lambda row: row.maybe), "1") == 0


def test_mean_is_rounded_once() -> None:
    assert str(of_amounts(agg.mean("amount"), "1.50", "2.50")) == "2.00"
    assert str(of_amounts(agg.mean("amount"), "1", "1", "0")) == "0." + "6" * 37 + "7"
    assert str(of_amounts(agg.mean("amount"), "1" + "0" * 40, "2" + "0" * 40)) == "15" + "0" * 39


def test_nan_is_more_than_every_number_as_in_postgresql() -> None:
    assert str(of_amounts(agg.max("amount"), "1", "NaN", "Infinity")) == "NaN"
    assert str(of_amounts(agg.min("amount"), "NaN", "1", "Infinity")) == "1"
    assert str(of_amounts(agg.top("amount", 2), "1", "NaN", "2")) == "[Decimal('NaN'), Decimal('2')]"
    assert str(of_amounts(agg.sum("amount"), "1", "NaN")) == "NaN"
    assert str(of_amounts(agg.sum("amount"), "Infinity", "-Infinity")) == "NaN"
    assert str(of_amounts(agg.mean("amount"), "Infinity", "5")) == "Infinity"


def test_equal_decimals_of_another_scale_are_one_value() -> None:
    assert of_amounts(agg.distinct("amount"), "1.5", "1.50", "0", "-0.00", "100", "1E+2") == 3
    assert of_amounts(agg.approx_distinct("amount"), "1.5", "1.50", "0", "-0.00", "100", "1E+2") == 3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: agg.sum("either"), "sum of floats and decimals has no exact type"),
        (lambda: agg.quantile("amount", 0.5), "keeps floats, and the field is Decimal; give a function"),
        (lambda: agg.sum(lambda row: [row]), "only numbers can be summed up"),
    ],
)
def test_what_has_no_right_answer_is_refused_with_what_to_do(make: Any, words: str) -> None:
    with pytest.raises((ConfigError, RecordError), match=words):
        folded(Folding({"x": make()}, Row, "test"), [Row(Decimal(1))])


def test_untyped_decimals_and_floats_do_not_mix() -> None:
    folding = Folding({"x": agg.sum("amount")}, dict[str, Any], "test")
    for values in ([0.5, Decimal(1)], [Decimal(1), 0.5]):
        with pytest.raises(RecordError, match="do not add up to one number"):
            folded(folding, [{"amount": value} for value in values])
    assert folded(folding, [{"amount": 2}, {"amount": Decimal("0.50")}, {"amount": 1}])["x"] == Decimal("3.50")


def test_sum_beyond_every_numeric_is_a_bad_record() -> None:
    with pytest.raises(RecordError, match="more than 400000 digits"):
        of_amounts(agg.sum("amount"), "1E+500000", "1")


def test_pipeline_of_decimals_gives_decimals_before_and_after_a_restart() -> None:
    app = App("decimals", broker="memory://", state_dir="unused")
    rows = app.source("rows", Row, key=lambda row: "all")

    @app.pipeline(rows)
    def totals(rows: Stream[str, Row]) -> Any:
        """Running totals, and those of a table."""
        table = rows.key_by(lambda row: str(row.maybe)).table("rows")
        return [
            rows.aggregate(total=agg.sum("amount"), mean=agg.mean("amount")).to("totals"),
            table.group_by(lambda row: "all").aggregate(total=agg.sum("amount"), high=agg.max("amount")).to("held"),
        ]

    with TestDriver(app) as driver:
        driver.send("rows", Row(Decimal("10.25"), Decimal(1)))
        driver.send("rows", Row(Decimal("0.75"), Decimal(2)))
        driver.commit()
        driver.restart()
        driver.send("rows", Row(Decimal("1.00"), Decimal(1)))  # takes the place of 10.25
        assert driver.read("totals")[-1].value == {"key": "all", "total": "12.00", "mean": "4.00"}
        assert driver.read("held")[-1].value == {"key": "all", "total": "1.75", "high": "1.00"}
