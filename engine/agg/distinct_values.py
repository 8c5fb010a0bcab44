"""The sets of `agg.distinct`: NaN counts once, although no NaN equals another.

Python finds a NaN in a set by identity only. So the sets hold one object for all NaN of a type; where a set comes out of the store
its NaN is another object, which is looked for when the next NaN comes.
"""

import math
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from engine.agg.numbers import members_of

Values = frozenset[Any]

_NAN: dict[type, Any] = {float: math.nan, Decimal: Decimal("NaN")}
_WITHOUT_NAN = (int, str, bool, bytes)


def may_be_nan(value_type: Any) -> bool:
    """Return whether NaN may be among the values of a type, as far as is known."""
    return any(member not in _WITHOUT_NAN for member in members_of(value_type))


def one_nan(values: Iterable[Any]) -> Values:
    """Return the set of values, of each type at most one NaN."""
    return frozenset([x if x == x else _NAN.get(type(x), x) for x in values])  # NaN is not itself


def add(values: Values, x: Any, within: Callable[[Values], Values]) -> Values:
    """Return a set with one more value."""
    if x in values:
        return values
    if x == x:
        return within(values | {x})
    x = _NAN.get(type(x), x)
    return values if x in values else within(one_nan((*values, x)))


def add_all(values: Values, xs: Iterable[Any], within: Callable[[Values], Values]) -> Values:
    """Return a set with more values."""
    fresh = one_nan(xs) - values
    if not fresh:
        return values
    return within(values | fresh) if all(x == x for x in fresh) else within(one_nan(values | fresh))


__all__ = ["add", "add_all", "may_be_nan", "one_nan"]
