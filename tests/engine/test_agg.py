"""Aggregates must give what their definition says, the same however records are grouped, merged and stored in between."""

import math
import statistics
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import agg
from engine.agg import Aggregate, exact, sketches
from engine.agg.folding import Folding, ResultRows
from engine.errors import ConfigError, RecordError
from tests.effort import examples


class Row(msgspec.Struct, frozen=True):
    """A record's value."""

    n: int
    x: float
    name: str
    maybe: int | None = None


Timed = tuple[int, Row]
ROWS = st.builds(
    Row,
    st.integers(-(2**80), 2**80),
    st.one_of(st.floats(-1e12, 1e12), st.sampled_from([0.1, 1e16, -1e16, 1e-300, 1e300, -1e300])),
    st.sampled_from(["a", "b", "c", "ä"]),
    st.one_of(st.none(), st.integers(0, 9)),
)
TIMED = st.lists(st.tuples(st.integers(0, 20), ROWS), min_size=1, max_size=40)


def by_time(rows: Sequence[Timed]) -> list[Row]:
    """Return rows by time, then arrival."""
    return [row for _, row in sorted(rows, key=lambda item: item[0])]


def variance_of(numbers: Sequence[float]) -> float | None:
    """Return the variance of a sample from its definition, in fractions."""
    if len(numbers) < 2:
        return None
    terms = list(map(Fraction, numbers))
    mean = sum(terms, Fraction()) / len(terms)
    return float(sum(((term - mean) ** 2 for term in terms), Fraction()) / (len(terms) - 1))


def maybes(rows: Sequence[Timed]) -> list[int]:
    """Return the values that are not None."""
    return [row.maybe for _, row in rows if row.maybe is not None]


def with_maybe(rows: Sequence[Timed]) -> list[Row]:
    """Return the rows whose value is not None, by time, then arrival."""
    return [row for row in by_time(rows) if row.maybe is not None]


DEFINITIONS: list[tuple[Aggregate, Callable[[list[Timed]], Any]]] = [
    (agg.count(), len),
    (agg.sum("n"), lambda rows: sum(row.n for _, row in rows)),
    (agg.sum("x"), lambda rows: math.fsum(row.x for _, row in rows)),
    (agg.sum(lambda row: row.n), lambda rows: sum(row.n for _, row in rows)),
    (agg.sum("maybe"), lambda rows: sum(maybes(rows))),
    (agg.min("n"), lambda rows: min(row.n for _, row in rows)),
    (agg.max("name"), lambda rows: max(row.name for _, row in rows)),
    (agg.max("maybe"), lambda rows: max(maybes(rows), default=None)),
    (agg.mean("n"), lambda rows: sum(row.n for _, row in rows) / len(rows)),
    (agg.mean("x"), lambda rows: math.fsum(row.x for _, row in rows) / len(rows)),
    (agg.mean("maybe"), lambda rows: statistics.fmean(maybes(rows)) if maybes(rows) else None),
    (agg.variance("n"), lambda rows: variance_of([row.n for _, row in rows])),
    (agg.first("name"), lambda rows: by_time(rows)[0].name),
    (agg.last("name"), lambda rows: by_time(rows)[-1].name),
    (agg.collect("name", 5), lambda rows: [row.name for row in by_time(rows)[:5]]),
    (agg.collect("maybe", 2), lambda rows: [row.maybe for row in by_time(rows) if row.maybe is not None][:2]),
    (agg.distinct("name"), lambda rows: len({row.name for _, row in rows})),
    (agg.distinct("maybe"), lambda rows: len(set(maybes(rows)))),
    (agg.approx_distinct("n"), lambda rows: len({row.n for _, row in rows})),
    (agg.top("n", 3), lambda rows: sorted((row.n for _, row in rows), reverse=True)[:3]),
    (agg.top("name", 3, by=lambda row: len(row.name)), lambda rows: [row.name for row in by_time(rows)[:3]]),
    (agg.top("name", 2, by="n"), lambda rows: [row.name for row in sorted(by_time(rows), key=lambda row: -row.n)[:2]]),
    (
        agg.top("n", 2, by="maybe"),
        lambda rows: [
            row.n for row in sorted((row for row in by_time(rows) if row.maybe is not None), key=lambda row: -(row.maybe or 0))[:2]
        ],
    ),
    (agg.quantile("x", 0.5), lambda rows: sorted(row.x for _, row in rows)[(len(rows) - 1) // 2]),
]
AGGREGATES = {f"a{number}": aggregate for number, (aggregate, _) in enumerate(DEFINITIONS)}


def folding_of(aggregates: dict[str, Aggregate], value_type: Any = Row) -> Folding:
    """Return the fold of some aggregates."""
    return Folding(aggregates, value_type, "test")


def results(folding: Folding, accumulators: Any) -> dict[str, Any]:
    """Return the results by name."""
    row: dict[str, Any] = ResultRows(folding, key_as="key", into=None, windowed=False, what="test").row("k", accumulators)
    assert row.pop("key") == "k"
    return row


def one_by_one(folding: Folding, rows: Sequence[Timed]) -> Any:
    """Fold record by record."""
    total: Any = None
    for time_ms, row in rows:
        (record,) = folding.records([row])
        total = folding.create(time_ms, record) if total is None else folding.add(total, time_ms, record)
    return total


@settings(max_examples=examples(100), deadline=None)
@given(TIMED)
def test_aggregates_give_what_their_definition_says(rows: list[Timed]) -> None:
    found = results(folding_of(AGGREGATES), one_by_one(folding_of(AGGREGATES), rows))
    assert found == {f"a{number}": definition(rows) for number, (_, definition) in enumerate(DEFINITIONS)}


@settings(max_examples=examples(100), deadline=None)
@given(TIMED, st.lists(st.integers(0, 20), max_size=4))
def test_aggregates_merged_from_stretches_of_time_and_stored_in_between_are_the_same(rows: list[Timed], cuts: list[int]) -> None:
    folding = folding_of(AGGREGATES)
    bounds = [-1, *sorted(cuts), 20]
    total: Any = None
    for low, high in pairwise(bounds):
        part = one_by_one(folding, [(time_ms, row) for time_ms, row in rows if low < time_ms <= high])
        if part is None:
            continue
        part = folding.codec.decode(folding.codec.encode(part))
        total = part if total is None else folding.merge(total, part)
    assert results(folding, total) == results(folding, one_by_one(folding, rows))


COLUMNS = {
    "count": agg.count(),
    "sum": agg.sum("n"),
    "low": agg.min("n"),
    "high": agg.max("n"),
    "mean": agg.mean("n"),
    "kinds": agg.distinct("name"),
    "median": agg.quantile("x", 0.5),
}


@settings(max_examples=examples(50), deadline=None)
@given(st.lists(st.tuples(st.sampled_from("kl"), st.integers(0, 20), ROWS), min_size=20, max_size=60), st.booleans(), st.data())
def test_fold_columns_equal_one_by_one(rows: list[tuple[str, int, Row]], all_columns: bool, data: st.DataObject) -> None:
    """Few keys and aggregates that know columns take the grouped way, the others the loop."""
    folding = folding_of(COLUMNS if all_columns else AGGREGATES)
    cells: dict[str, Any] = {}
    at = 0
    while at < len(rows):
        block = rows[at : at + data.draw(st.integers(1, 40))]
        at += len(block)
        new: dict[str, Any] = {}
        keys, times, values = zip(*block, strict=True)
        folding.fold(cells.get, new, keys, times, folding.columns(values))
        cells |= new
    for key in {row[0] for row in rows}:
        expected = one_by_one(folding, [(time_ms, row) for other, time_ms, row in rows if other == key])
        assert results(folding, cells[key]) == results(folding, expected)


def test_fold_does_not_change_what_it_was_given() -> None:
    folding = folding_of(AGGREGATES)
    old = one_by_one(folding, [(1, Row(1, 0.1, "a", 1))])
    stored = folding.codec.encode(old)
    folding.add(old, 2, folding.records([Row(2, 0.2, "b", 2)])[0])
    folding.merge(old, one_by_one(folding, [(3, Row(5, 0.5, "c"))]))
    assert folding.codec.encode(old) == stored


@given(st.lists(st.one_of(st.integers(-(2**70), 2**70), st.floats(-1e300, 1e300)), max_size=30), st.randoms(use_true_random=False))
def test_exact_sum_any_order_is_rounded_once(numbers: list[Any], random: Any) -> None:
    total = exact.ZERO
    for number in numbers:
        total = exact.add(total, number)
    shuffled = numbers[:]
    random.shuffle(shuffled)
    parts = [exact.ZERO, exact.ZERO]
    for at, number in enumerate(shuffled):
        parts[at % 2] = exact.add(parts[at % 2], number)
    expected = sum(map(Fraction, numbers), Fraction())
    for found in (exact.result(total), exact.result(exact.merge(*parts))):
        assert found == (int(expected) if all(isinstance(number, int) for number in numbers) else float(expected))


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [([math.inf, 1.0], math.inf), ([-math.inf, 1], -math.inf), ([math.inf, -math.inf], math.nan), ([math.nan, 2.0], math.nan)],
)
def test_exact_sum_with_infinities_follows_floats(numbers: list[Any], expected: float) -> None:
    for order in (numbers, numbers[::-1]):
        total = exact.ZERO
        for number in order:
            total = exact.add(total, number)
        assert exact.result(total) == expected or (math.isnan(expected) and math.isnan(exact.result(total)))


def test_exact_sum_beyond_floats_or_of_text_is_a_bad_record() -> None:
    with pytest.raises(RecordError):
        exact.add(exact.create(1.7e308), 1.7e308)
    with pytest.raises(RecordError):
        exact.create("7")


@given(st.floats(-1e100, 1e100, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-100))
def test_square_is_exact(x: float) -> None:
    high, low = exact.square(x)
    assert Fraction(high) + Fraction(low) == Fraction(x) ** 2


@settings(max_examples=examples(30), deadline=None)
@given(st.lists(st.floats(-1e3, 1e3).map(lambda x: round(x, 3) + 1e9), min_size=2, max_size=20))
def test_variance_of_floats_far_from_zero_is_exact(numbers: list[float]) -> None:
    folding = folding_of({"v": agg.variance("x"), "p": agg.variance("x", ddof=0)})
    found = results(folding, one_by_one(folding, [(0, Row(0, x, "")) for x in numbers]))
    assert found["v"] == variance_of(numbers)
    assert found["p"] == pytest.approx(found["v"] * (len(numbers) - 1) / len(numbers), rel=1e-12)


@pytest.mark.parametrize("number", [100, 512, 513, 3_000, 60_000])
def test_approx_distinct_error_stays_small_and_does_not_depend_on_merging(number: int) -> None:
    whole: Any = sketches.distinct_create("user-0")
    parts: list[Any] = [sketches.distinct_create("user-0"), sketches.distinct_create("user-1")]
    for at in range(1, number):
        whole = sketches.distinct_add(whole, f"user-{at}")
        parts[at % 2] = sketches.distinct_add(parts[at % 2], f"user-{at}")
    assert sketches.distinct_merge(*parts) == whole
    if number <= 512:
        assert sketches.distinct_result(whole) == number
    assert sketches.distinct_result(whole) == pytest.approx(number, rel=0.05)


def test_approx_distinct_equal_numbers_count_once() -> None:
    assert len({sketches.value_hash(value) for value in (1, 1.0, True)}) == 1
    assert len({sketches.value_hash(value) for value in (2**70, str(2**70 + 1), 1.5, "1")}) == 4


@settings(max_examples=examples(20), deadline=None)
@given(st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(0.0)), min_size=257, max_size=600), st.sampled_from([0, 0.1, 0.5, 0.9, 0.99, 1]))
def test_quantile_of_many_is_within_one_percent_and_does_not_depend_on_merging(numbers: list[float], q: float) -> None:
    whole = sketches.quantile_add_all(((), ()), numbers)
    parts = [sketches.quantile_add_all(((), ()), numbers[at::3]) for at in range(3)]
    merged = sketches.quantile_merge(sketches.quantile_merge(parts[0], parts[1]), parts[2])
    assert merged == whole
    expected = sorted(numbers)[math.floor(q * (len(numbers) - 1))]
    assert sketches.quantile_result(whole, q) == pytest.approx(expected, rel=0.0101, abs=1e-300)


def longest(total: int, row: Row) -> int:
    """Return the length of the longest name."""
    return max(total, len(row.name))


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.builds(math.ldexp, st.sampled_from([1.0, -1.0, 1.5, -1.75]), st.integers(-1074, 1020)), min_size=60, max_size=200))
def test_exact_sum_keeps_at_most_forty_partials_and_stays_exact(numbers: list[float]) -> None:
    partials = exact.grow_all((), numbers)
    assert len(partials) <= 40
    assert sum(map(Fraction, partials)) == sum(map(Fraction, numbers))


@pytest.mark.parametrize(
    ("aggregate", "bytes_max"),
    [
        (agg.count(), 16),
        (agg.sum("n"), 100),
        (agg.sum("x"), 40 * 9 + 30),
        (agg.min("name"), 20),
        (agg.max("x"), 20),
        (agg.mean("x"), 40 * 9 + 40),
        (agg.variance("x"), 2 * 80 * 9 + 60),
        (agg.first("name"), 30),
        (agg.last("name"), 30),
        (agg.collect("name", 10), 10 * 30),
        (agg.distinct("name", limit=3_000), 3_000 * 12),
        (agg.approx_distinct("name"), 4_096 + 20),
        (agg.top("name", 10, by="x"), 10 * 40),
        (agg.quantile("x", 0.5), 4_096 * 2 * 9),
        (agg.reduce(longest, 0), 20),
    ],
)
def test_aggregate_keeps_no_more_than_its_bound(aggregate: Aggregate, bytes_max: int) -> None:
    folding = folding_of({"a": aggregate})
    signs = (1.0, -1.0)
    rows = [(at, Row(at, signs[at % 2] * 10.0 ** (at * 37 % 300 - 150), f"name {at % 2_999:04}")) for at in range(6_000)]
    total = one_by_one(folding, rows)
    assert len(folding.codec.encode(total)) <= bytes_max
    if folding.mergeable:
        halves = folding.merge(one_by_one(folding, rows[:3_000]), one_by_one(folding, rows[3_000:]))
        assert len(folding.codec.encode(halves)) <= bytes_max


def test_distinct_beyond_its_limit_is_a_bad_record_in_every_way_of_adding() -> None:
    folding = folding_of({"a": agg.distinct("n", limit=2)})
    rows = [(0, Row(n, 0.0, "")) for n in (1, 2, 1)]
    two = one_by_one(folding, rows)
    assert results(folding, two) == {"a": 2}
    (third,) = folding.records([Row(3, 0.0, "")])
    with pytest.raises(RecordError, match="keeps 2 values"):
        folding.add(two, 0, third)
    with pytest.raises(RecordError, match="approx_distinct"):
        folding.merge(two, folding.create(0, third))
    for stored in ({}, {"k": two}):
        with pytest.raises(RecordError, match="limit="):
            folding.fold(stored.get, {}, ["k"] * 9, [0] * 9, [[1, 2, 3] * 3])


def test_reduce_keeps_arrival_order_and_its_struct() -> None:
    class Longest(msgspec.Struct, frozen=True):
        name: str

    def longer(total: Longest, row: Row) -> Longest:
        return total if len(total.name) >= len(row.name) else Longest(row.name)

    folding = folding_of({"longest": agg.reduce(longer, Longest(""))})
    total = one_by_one(folding, [(3, Row(0, 0, "bb")), (1, Row(0, 0, "aa"))])
    assert results(folding, folding.codec.decode(folding.codec.encode(total))) == {"longest": Longest("bb")}
    assert not folding.mergeable


def test_struct_of_undeclared_type_that_would_be_kept_is_a_bad_record() -> None:
    for aggregate in (agg.last(lambda row: row), agg.collect(lambda row: row, 3), agg.top(lambda row: row, 1, by=lambda row: row.n)):
        with pytest.raises(RecordError, match="not declared"):
            folding_of({"a": agg.count(), "b": aggregate}, Any).records([Row(1, 0.5, "a")])
    assert folding_of({"a": agg.count(), "b": agg.sum(lambda row: row.n)}, Any).records([Row(1, 0.5, "a")]) == [(1,)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: folding_of({"a": agg.sum("name")}),
        lambda: folding_of({"a": agg.mean("name")}),
        lambda: folding_of({"a": agg.sum("nobody")}),
        lambda: folding_of({"a": agg.sum(7)}),  # type: ignore[arg-type]  # what is tested
        lambda: agg.variance("n", ddof=2),
        lambda: agg.quantile("n", 1.5),
        lambda: agg.collect("n", 0),
        lambda: agg.distinct("n", 0),
        lambda: agg.top("n", True),
        lambda: folding_of({"a": agg.top("n", 1, by="nobody")}),
        lambda: agg.top("n", 1, by=7),  # type: ignore[arg-type]  # what is tested
        lambda: agg.reduce("sum", 0),  # type: ignore[arg-type]  # what is tested
    ],
)
def test_aggregate_that_cannot_work_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError):
        make()


class Total(msgspec.Struct):
    """A result."""

    key: str
    n: int
    extra: str = ""


class Demanding(msgspec.Struct):
    """A result with a field that nobody gives."""

    key: str
    n: int
    extra: str


def test_result_into_struct_takes_named_fields() -> None:
    folding = folding_of({"n": agg.count()})
    rows = ResultRows(folding, key_as="key", into=Total, windowed=False, what="test")
    assert rows.row("k", (3,)) == Total("k", 3)


@pytest.mark.parametrize(
    ("into", "name", "message"),
    [(Total, "m", "no field 'm'"), (Demanding, "n", "needs extra"), (int, "n", "not a Struct"), (None, "key", "already")],
)
def test_result_that_does_not_fit_is_refused(into: Any, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ResultRows(folding_of({name: agg.count()}), key_as="key", into=into, windowed=False, what="test")
