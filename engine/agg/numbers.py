"""Folds of the aggregates over numbers, by the type of the field.

| field                     | accumulator of a sum                 | result                         |
|---------------------------|--------------------------------------|--------------------------------|
| int                       | the int                              | int                            |
| float, int or float, bool | `exact.Exact`                        | float (int while only ints)    |
| Decimal                   | the Decimal, never rounded           | Decimal                        |
| int or Decimal, not known | one of the two, by the first number  | as the accumulator             |
"""

import builtins
import operator
from collections.abc import Callable
from decimal import Decimal
from types import UnionType
from typing import Any, Union, get_args, get_origin

from engine.agg import decimals, exact
from engine.agg.aggregate import Fold, tuple_type
from engine.errors import ConfigError

_EXACT: Any = tuple[int, tuple[float, ...], float]
_UNKNOWN = (Any, object)


def sum_fold(value_type: Any) -> Fold:
    """Return the fold of a sum; raises ConfigError if the values are no numbers."""
    if value_type is int:
        return Fold(
            create=lambda x, t: x,
            add=lambda a, x, t: a + x,
            merge=operator.add,
            stored=int,
            empty=0,
            create_code="{x}",
            add_code="{a} + {x}",
            merge_code="{a} + {b}",
            column=lambda a, xs, ts: builtins.sum(xs, a or 0),
            is_commutative=True,
        )
    create, add, merge, stored, result = _totals(value_type)
    return Fold(
        create=lambda x, t: create(x),
        add=lambda a, x, t: add(a, x),
        merge=merge,
        stored=stored,
        result=result,
        empty=Decimal(0) if value_type is Decimal else 0,
        column=(lambda a, xs, ts: decimals.add_all(a, xs)) if value_type is Decimal else None,
        is_commutative=True,
    )


def mean_fold(value_type: Any) -> Fold:
    """Return the fold of a mean; raises ConfigError if the values are no numbers."""
    if value_type is int:
        return Fold(
            create=lambda x, t: (x, 1),
            add=lambda a, x, t: (a[0] + x, a[1] + 1),
            merge=lambda a, b: (a[0] + b[0], a[1] + b[1]),
            stored=tuple[int, int],
            result=lambda a: a[0] / a[1],
            create_code="({x}, 1)",
            add_code="({a}[0] + {x}, {a}[1] + 1)",
            column=lambda a, xs, ts: (builtins.sum(xs), len(xs)) if a is None else (builtins.sum(xs, a[0]), a[1] + len(xs)),
            is_commutative=True,
        )
    create, add, merge, stored, _ = _totals(value_type)
    return Fold(
        create=lambda x, t: (create(x), 1),
        add=lambda a, x, t: (add(a[0], x), a[1] + 1),
        merge=lambda a, b: (merge(a[0], b[0]), a[1] + b[1]),
        stored=tuple_type(stored, int),
        result=lambda a: decimals.mean(a[0], a[1]),
        is_commutative=True,
    )


def variance_fold(value_type: Any, ddof: int) -> Fold:
    """Return the fold of a variance; raises ConfigError if the values are no numbers."""
    create, add, merge, stored, _ = _totals(value_type)
    square = decimals.square

    def result(a: Any) -> Any:
        total, squares, number = a
        return None if number <= ddof else decimals.variance(total, squares, number, ddof)

    return Fold(
        create=lambda x, t: (create(x), square(x), 1),
        add=lambda a, x, t: (add(a[0], x), merge(a[1], square(x)), a[2] + 1),
        merge=lambda a, b: (merge(a[0], b[0]), merge(a[1], b[1]), a[2] + b[2]),
        stored=tuple_type(stored, stored, int),
        result=result,
        is_commutative=True,
    )


def _totals(value_type: Any) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any], Any, Callable[..., Any]]:
    """Return (create, add, merge, type, result) of the totals of a type that is not int alone."""
    members = members_of(value_type)
    if Decimal not in members and not any(member in _UNKNOWN for member in members):
        _check(value_type, (int, float, bool))
        return exact.create, exact.add, exact.merge, _EXACT, exact.result
    if float in members:
        raise ConfigError("a sum of floats and decimals has no exact type; give a function that makes all of them Decimal, or float")
    _check(value_type, (int, bool, Decimal, *_UNKNOWN))
    stored = Decimal if value_type is Decimal else _EXACT | Decimal
    return decimals.create, decimals.add, decimals.merge, stored, decimals.result


def checked_floats(value_type: Any, stored: Any) -> Any:
    """Return `stored` if a sketch of floats can take values of a type; raises ConfigError if not."""
    if Decimal in members_of(value_type):
        raise ConfigError("it keeps floats, and the field is Decimal; give a function of the value that makes a float of it")
    _check(value_type, (int, float, bool, *_UNKNOWN))
    return stored


def may_be_decimal(value_type: Any) -> bool:
    """Return whether decimals may be among the values of a type, as far as is known."""
    return any(member is Decimal or member in _UNKNOWN for member in members_of(value_type))


def _check(value_type: Any, allowed: tuple[Any, ...]) -> None:
    if any(member not in allowed for member in members_of(value_type)):
        raise ConfigError(f"a number is needed, and the field is {getattr(value_type, '__name__', value_type)}")


def members_of(value_type: Any) -> tuple[Any, ...]:
    """Return the types that a union consists of; another type alone."""
    return get_args(value_type) if get_origin(value_type) in (Union, UnionType) else (value_type,)
