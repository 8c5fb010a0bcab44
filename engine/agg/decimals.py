"""Sums of decimals (`numeric` columns): exact, with the scale kept, and so the same in any order and grouping, forth and back.

Python's own `+` rounds to the 28 digits of its context; PostgreSQL's numeric has up to 147,455. So the sums here are made in a
context that never rounds. A mean or variance is rounded once, at the end, to 38 digits or to 16 behind the point of larger numbers.

    1.10 + 2.2 - 1.10                      2.20: the scale is the largest that was added, as in PostgreSQL
    NaN, Infinity                          follow PostgreSQL: NaN is more than every number, Infinity - Infinity is NaN

Where the type of a field is not known (rows as dicts), a total begins as what the first number is: a `Decimal`, or an `Exact` of ints
and floats (`engine.agg.exact`). Ints join either; decimals and floats do not mix, for one is exact and the other is not.
"""

from collections.abc import Iterable
from decimal import MAX_EMAX, MIN_EMIN, ROUND_HALF_EVEN, Context, Decimal, Inexact
from functools import reduce
from typing import Any

from engine.agg import exact
from engine.errors import RecordError

Total = exact.Exact | Decimal

DIGITS_MAX = 400_000
"""More than a square of PostgreSQL's largest numeric has."""
_RESULT_DIGITS, _BEHIND_POINT = 38, 16

_exactly = Context(prec=DIGITS_MAX, rounding=ROUND_HALF_EVEN, Emin=MIN_EMIN, Emax=MAX_EMAX, capitals=1, clamp=0, flags=[], traps=[Inexact])
_NAN = Decimal("NaN")


def create(x: Any) -> Total:
    """Return the total of one number.

    Raises:
        RecordError: It is not a number.
    """
    return x if isinstance(x, Decimal) else exact.create(x)


def add(total: Total, x: Any) -> Total:
    """Return a total and one more number.

    Raises:
        RecordError: It is not a number, or of a kind that does not mix.
    """
    if isinstance(x, Decimal):
        return _plus(total if isinstance(total, Decimal) else _of_exact(total), x)
    if isinstance(total, Decimal):
        if not isinstance(x, int):
            raise RecordError(_refusal(x))
        return _plus(total, Decimal(x))
    return exact.add(total, x)


def merge(left: Total, right: Total) -> Total:
    """Return the total of two totals."""
    if isinstance(left, Decimal) or isinstance(right, Decimal):
        return _plus(*(one if isinstance(one, Decimal) else _of_exact(one) for one in (left, right)))
    return exact.merge(left, right)


def add_all(total: Decimal | None, xs: Iterable[Decimal]) -> Decimal:
    """Return a total of decimals and a column of more."""
    return reduce(_plus, xs) if total is None else reduce(_plus, xs, total)


def result(total: Total) -> int | float | Decimal:
    """Return the number."""
    return total if isinstance(total, Decimal) else exact.result(total)


def square(x: Any) -> Total:
    """Return x * x, exactly."""
    if isinstance(x, Decimal):
        return _exactly.multiply(x, x)
    if type(x) is not float:
        return exact.create(x * x)
    high, low = exact.square(x)
    return exact.add(exact.create(high), low)


def mean(total: Total, number: int) -> float | Decimal:
    """Return total / number, rounded once."""
    return divide(total, Decimal(number)) if isinstance(total, Decimal) else exact.result(total) / number


def variance(total: Total, squares: Total, number: int, ddof: int) -> float | Decimal:
    """Return the variance of numbers by their sum and the sum of their squares, rounded once."""
    if isinstance(total, Decimal) or isinstance(squares, Decimal):
        spread = _exactly.subtract(
            _exactly.multiply(_decimal(squares), Decimal(number)), _exactly.multiply(_decimal(total), _decimal(total))
        )
        return divide(spread, Decimal(number * (number - ddof)))
    if total[2] != 0.0 or squares[2] != 0.0:
        return float("nan")
    return float((number * exact.exact(squares) - exact.exact(total) ** 2) / (number * (number - ddof)))


def divide(total: Decimal, by: Decimal) -> Decimal:
    """Return the quotient, rounded to 38 digits, or to 16 behind the point where there are more before it."""
    digits = max(_RESULT_DIGITS, total.adjusted() + 1 + _BEHIND_POINT) if total.is_finite() else _RESULT_DIGITS
    return Context(prec=digits, rounding=ROUND_HALF_EVEN, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[]).divide(total, by)


def rank(x: Any) -> tuple[bool, Any]:
    """Return what orders values as PostgreSQL does: NaN, which Python refuses to compare, is more than every number."""
    return (True, 0) if isinstance(x, Decimal) and x.is_nan() else (False, x)


def less(x: Any, y: Any) -> bool:
    """Return whether x stands before y in that order."""
    if isinstance(x, Decimal) and x.is_nan():
        return False
    return True if isinstance(y, Decimal) and y.is_nan() else bool(x < y)


def canonical(x: Decimal) -> Decimal:
    """Return the one form of all decimals that are equal: 1.5 for 1.50, 0 for -0.0."""
    if not x.is_finite():
        return _NAN if x.is_nan() else x
    return _exactly.normalize(x) if x else Decimal(0)


def _plus(left: Decimal, right: Decimal) -> Decimal:
    try:
        return _exactly.add(left, right)
    except Inexact as error:
        raise RecordError(f"the sum of {left:.5e} and {right:.5e} has more than {DIGITS_MAX} digits") from error


def _decimal(total: Total) -> Decimal:
    return total if isinstance(total, Decimal) else _of_exact(total)


def _of_exact(total: Any) -> Decimal:
    """Return a total of ints as a decimal."""
    ints, partials, special = total
    if partials or special != 0.0:
        raise RecordError(_refusal(exact.result(total)))
    return Decimal(ints)


def _refusal(x: Any) -> str:
    if isinstance(x, float):
        return f"decimals and floats do not add up to one number: a Decimal is exact, and {x!r} is not; convert one of them"
    return f"only numbers can be summed up, not {type(x).__name__}: {x!r}"
