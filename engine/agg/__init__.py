"""Aggregates: what to compute over the records of a key, in a window or as a running total.

    .aggregate(orders=agg.count(), revenue_cents=agg.sum("amount_cents"), pages=agg.distinct("page"))

A field is a name or a callable of the value. None is left out everywhere but in `count()`. Memory per key and window:

| aggregate                             | bound                                                        |
|---------------------------------------|--------------------------------------------------------------|
| count sum min max mean variance       | a few numbers, exactly (`engine.agg.numbers`)                |
| first last reduce                     | one value                                                    |
| distinct                              | the distinct values, at most `limit` (100,000)               |
| approx_distinct quantile              | 4 KiB; 4,096 buckets (`engine.agg.sketches`)                 |
| collect top                           | limit or n values                                            |
"""

import builtins
import operator
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, get_args

from engine.agg import decimals, distinct_values, numbers, sketches, totals
from engine.agg.aggregate import Aggregate, Fold, tuple_type
from engine.errors import ConfigError, RecordError
from engine.functions import check_function
from engine.selectors import Selector, return_type


def count() -> Aggregate:
    """Return the number of records. Keeps one number."""
    fold = Fold(
        create=lambda x, t: 1,
        add=lambda a, x, t: a + 1,
        merge=operator.add,
        stored=int,
        empty=0,
        create_code="1",
        add_code="{a} + 1",
        merge_code="{a} + {b}",
        column=lambda a, xs, ts: (a or 0) + len(xs),
        is_commutative=True,
    )
    return Aggregate("count", None, lambda value_type: fold)


def sum(field: Selector) -> Aggregate:
    """Return the sum: an int of ints, a Decimal of Decimals, of floats the one nearest to the exact sum in any order. 0 without values.

    Keeps an int or a Decimal, as long as the sum; of floats at most 40 partials, mostly one or two.
    """
    return Aggregate("sum", field, numbers.sum_fold)


def min(field: Selector) -> Aggregate:
    """Return the smallest value; None without values. A Decimal of NaN is more than every number, as in PostgreSQL. Keeps one value."""
    return Aggregate("min", field, lambda value_type: _extreme_fold(value_type, "<", operator.lt, builtins.min))


def max(field: Selector) -> Aggregate:
    """Return the largest value; None without values. A Decimal of NaN is more than every number, as in PostgreSQL. Keeps one value."""
    return Aggregate("max", field, lambda value_type: _extreme_fold(value_type, ">", operator.gt, builtins.max))


def mean(field: Selector) -> Aggregate:
    """Return the arithmetic mean, rounded once at the end (of Decimals to 38 digits); None without values. Keeps a number and a `sum`."""
    return Aggregate("mean", field, numbers.mean_fold)


def variance(field: Selector, ddof: int = 1) -> Aggregate:
    """Return the variance with divisor n - ddof (1: of a sample, 0: of a population), rounded once; None for n <= ddof.

    Keeps a number, a sum, and a sum of squares (see `sum`).
    """
    if ddof not in (0, 1):
        raise ConfigError(f"agg.variance: ddof={ddof!r} is not allowed; use 1 for a sample or 0 for a population")
    return Aggregate("variance", field, lambda value_type: numbers.variance_fold(value_type, ddof))


def first(field: Selector) -> Aggregate:
    """Return the value with the lowest event time; among those the one that arrived first. Keeps a value and its time."""
    return Aggregate(
        "first",
        field,
        lambda value_type: Fold(
            create=lambda x, t: (t, x),
            add=lambda a, x, t: (t, x) if t < a[0] else a,
            merge=lambda a, b: b if b[0] < a[0] else a,
            stored=tuple_type(int, value_type),
            keeps_values=True,
            result=operator.itemgetter(1),
            create_code="({t}, {x})",
            add_code="({t}, {x}) if {t} < {a}[0] else {a}",
        ),
    )


def last(field: Selector) -> Aggregate:
    """Return the value with the highest event time; among those the one that arrived last. Keeps a value and its time."""
    return Aggregate(
        "last",
        field,
        lambda value_type: Fold(
            create=lambda x, t: (t, x),
            add=lambda a, x, t: (t, x) if t >= a[0] else a,
            merge=lambda a, b: b if b[0] >= a[0] else a,
            stored=tuple_type(int, value_type),
            keeps_values=True,
            result=operator.itemgetter(1),
            create_code="({t}, {x})",
            add_code="({t}, {x}) if {t} >= {a}[0] else {a}",
        ),
    )


def collect(field: Selector, limit: int) -> Aggregate:
    """Return the list of the first `limit` values by event time, then arrival; [] without values. Keeps these, with their times."""
    _check_positive("collect", "limit", limit)

    def add(a: Any, x: Any, t: int) -> Any:
        at = bisect_right(a, t, key=operator.itemgetter(0))
        return a if at >= limit else (*a[:at], (t, x), *a[at : limit - 1])

    return Aggregate(
        "collect",
        field,
        lambda value_type: Fold(
            create=lambda x, t: ((t, x),),
            add=add,
            merge=lambda a, b: tuple(sorted(a + b, key=operator.itemgetter(0))[:limit]),
            stored=tuple_type(tuple_type(int, value_type), ...),
            keeps_values=True,
            result=lambda a: [x for _, x in a],
            empty=[],
        ),
    )


def distinct(field: Selector, limit: int = 100_000) -> Aggregate:
    """Return the exact number of distinct values. Keeps every one of them: see `approx_distinct` for more than some 10,000.

    Args:
        limit: How many it keeps at most. A record that brings one more is a bad record; where windows are put together of panes that
            each have fewer, it is the result that goes to the dead letters.
    """
    _check_positive("distinct", "limit", limit)

    def within(values: Any) -> Any:
        if len(values) > limit:
            raise RecordError(f"agg.distinct keeps {limit:,} values and would get more; use agg.approx_distinct, or raise limit=")
        return values

    def make(value_type: Any) -> Fold:
        fold = Fold(
            create=lambda x, t: frozenset((x,)),
            add=lambda a, x, t: a if x in a else within(a | {x}),
            merge=lambda a, b: within(a | b),
            stored=frozenset.__class_getitem__(value_type),
            keeps_values=True,
            result=len,
            empty=0,
            create_code="frozenset(({x},))",
            is_commutative=True,
            column=lambda a, xs, ts: within(frozenset(xs)) if a is None else a if a.issuperset(xs) else within(a.union(xs)),
        )
        if not distinct_values.may_be_nan(value_type):
            return fold
        return replace(
            fold,
            create=lambda x, t: distinct_values.one_nan((x,)),
            create_code="",
            add=lambda a, x, t: distinct_values.add(a, x, within),
            merge=lambda a, b: distinct_values.add_all(a, b, within),
            column=lambda a, xs, ts: distinct_values.add_all(a or frozenset(), xs, within),
        )

    return Aggregate("distinct", field, make)


def approx_distinct(field: Selector) -> Aggregate:
    """Return the number of distinct values: exact up to 512, then with a standard error of 1.6%. Keeps at most 512 hashes, or 4 KiB."""
    return Aggregate(
        "approx_distinct",
        field,
        lambda value_type: Fold(
            create=lambda x, t: sketches.distinct_create(x),
            add=lambda a, x, t: sketches.distinct_add(a, x),
            merge=sketches.distinct_merge,
            stored=frozenset[int] | bytes,
            result=sketches.distinct_result,
            empty=0,
        ),
    )


def top(field: Selector, n: int, by: Selector | None = None) -> Aggregate:
    """Return the list of the `n` largest values, largest first; among equals the one with the lower event time, then arrival.

    Keeps these, with their times and what they are ordered by.

    Args:
        by: What they are ordered by, a field or a callable of the record's value like `field` (`agg.top("page", 3, by="seconds")`);
            None orders the values by themselves.
    """
    _check_positive("top", "n", n)
    if by is not None and not callable(by) and not isinstance(by, str):
        raise ConfigError(f"agg.top: by={by!r} is not a selector; give a field name or a callable of the value")

    def ranked(entries: Sequence[Any]) -> Any:
        by_time = sorted(entries, key=operator.itemgetter(1))
        return tuple(sorted(by_time, key=lambda entry: decimals.rank(entry[0]), reverse=True)[:n])

    def entry(x: Any, t: int) -> Any:
        return (x, t, x) if by is None else (x[1], t, x[0])

    def make(value_type: Any) -> Fold:
        value, rank = (value_type, value_type) if by is None else get_args(value_type)
        return Fold(
            create=lambda x, t: (entry(x, t),),
            add=lambda a, x, t: ranked((*a, entry(x, t))),
            merge=lambda a, b: ranked(a + b),
            stored=tuple_type(tuple_type(rank, int, value), ...),
            keeps_values=True,
            result=lambda a: [x for _, _, x in a],
            empty=[],
        )

    return Aggregate("top", field, make, rank=by)


def quantile(field: Selector, q: float) -> Aggregate:
    """Return the value below which a fraction `q` lies: exact up to 256 values, then within 1%; None without values.

    Keeps at most 256 numbers, or 4,096 buckets with a number each (they span 35 powers of ten; beyond that the smallest become one).
    """
    if not isinstance(q, float | int) or not 0 <= q <= 1:
        raise ConfigError(f"agg.quantile: q={q!r} is not allowed; it must lie between 0 and 1")
    return Aggregate(
        "quantile",
        field,
        lambda value_type: Fold(
            create=lambda x, t: sketches.quantile_create(x),
            add=lambda a, x, t: sketches.quantile_add(a, x),
            merge=sketches.quantile_merge,
            stored=numbers.checked_floats(value_type, tuple[tuple[float, ...], tuple[tuple[int, int], ...]]),
            result=lambda a: sketches.quantile_result(a, q),
            column=lambda a, xs, ts: sketches.quantile_add_all(((), ()) if a is None else a, xs),
        ),
    )


def reduce(
    function: Callable[[Any, Any], Any],
    initial: Any,
    *,
    merge: Callable[[Any, Any], Any] | None = None,
) -> Aggregate:
    """Return `function(total, value)` over the records in the order of their arrival, beginning with `initial`.

    Keeps what the function returns: bound it there.

    Args:
        function: Must return a new total, never change the old one. A total of another type than the annotation says (without one: of
            another kind of container than `initial`), or that cannot be stored, makes its record a dead letter. Annotate a Struct, and
            tuples and sets within other values: they come back as dict and list otherwise.
        merge: (earlier total, later total) -> total; needed for sessions, which can meet.
    """
    for argument in (function, *(() if merge is None else (merge,))):
        check_function(argument, "agg.reduce", "a function of the total and a value", arguments=2)
    stored, check = totals.of(return_type(function), initial)
    add = totals.checked(function, check)
    return Aggregate(
        "reduce",
        None,
        lambda value_type: Fold(
            create=lambda x, t: add(initial, x),
            add=lambda a, x, t: add(a, x),
            merge=None if merge is None else totals.checked(merge, check),
            stored=stored,
            empty=initial,
            read=lambda value: value,
        ),
    )


def _extreme_fold(value_type: Any, sign: str, better: Callable[[Any, Any], bool], of: Callable[..., Any]) -> Fold:
    if numbers.may_be_decimal(value_type):
        return _ranked_extreme_fold(value_type, decimals.less if sign == "<" else lambda x, a: decimals.less(a, x))
    return Fold(
        create=lambda x, t: x,
        add=lambda a, x, t: x if better(x, a) else a,
        merge=lambda a, b: b if better(b, a) else a,
        stored=value_type,
        keeps_values=True,
        create_code="{x}",
        add_code=f"{{x}} if {{x}} {sign} {{a}} else {{a}}",
        merge_code=f"{{b}} if {{b}} {sign} {{a}} else {{a}}",
        column=lambda a, xs, ts: of(xs) if a is None else of((a, *xs)),  # as one by one, NaN or not
        is_commutative=value_type in (int, str),  # not so for floats: NaN is neither more nor less
    )


def _ranked_extreme_fold(value_type: Any, better: Callable[[Any, Any], bool]) -> Fold:
    """Return the fold of values among which there may be a Decimal of NaN, which `<` refuses."""
    return Fold(
        create=lambda x, t: x,
        add=lambda a, x, t: x if better(x, a) else a,
        merge=lambda a, b: b if better(b, a) else a,
        stored=value_type,
        keeps_values=True,
    )


def _check_positive(name: str, what: str, number: object) -> None:
    if type(number) is not int or number < 1:
        raise ConfigError(f"agg.{name}: {what}={number!r} is not allowed; it must be a whole number, at least 1")


__all__ = [
    "Aggregate",
    "Fold",
    "approx_distinct",
    "collect",
    "count",
    "distinct",
    "first",
    "last",
    "max",
    "mean",
    "min",
    "quantile",
    "reduce",
    "sum",
    "top",
    "variance",
]
