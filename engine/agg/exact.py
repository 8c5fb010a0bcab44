"""Sums of numbers that do not depend on the order or grouping of the terms.

Floats are kept as partials: a few floats that do not overlap and whose exact sum is the exact sum of all terms. Only the result is
rounded, once. Ints are kept as an int. So the parts of a sum can be computed anywhere and merged in any order.

    total = create(0.1); for x in (0.2, 0.3): total = add(total, x)       (0, (-2.7e-17, 0.6), 0.0)
    result(total)                                                          0.6

Limit: at most 40 partials (2,098 bits from the largest float to the smallest, 53 in each), mostly one or two.
Source: Shewchuk, "Adaptive Precision Floating-Point Arithmetic", 1997, sections 2.4 and 2.8 (compress); Hettinger's msum recipe.
"""

from collections.abc import Iterable
from fractions import Fraction
from math import fsum, isfinite
from typing import Any

from engine.errors import RecordError

Exact = tuple[int, tuple[float, ...], float]
"""The sum of the ints, the partials of the finite floats, and the sum of what is infinite or not a number (0.0 for none)."""

PARTIALS_MAX = 40
ZERO: Exact = (0, (), 0.0)


def create(x: Any) -> Exact:
    """Return the sum of one number."""
    return add(ZERO, x)


def add(total: Exact, x: Any) -> Exact:
    """Return a sum and one more number.

    Raises:
        RecordError: It is not a number, or the sum leaves the range of floats.
    """
    ints, partials, special = total
    if type(x) is float:
        if isfinite(x):
            return ints, grow(partials, x), special
        return ints, partials, special + x
    if isinstance(x, int):
        return ints + int(x), partials, special
    if isinstance(x, float):
        return add(total, float(x))
    raise RecordError(f"only numbers can be summed up, not {type(x).__name__}: {x!r}")


def merge(left: Exact, right: Exact) -> Exact:
    """Return the sum of two sums."""
    partials = left[1]
    for x in right[1]:
        partials = grow(partials, x)
    return left[0] + right[0], partials, left[2] + right[2]


def result(total: Exact) -> int | float:
    """Return the number: an int as long as there were only ints, else the float nearest to the exact sum."""
    ints, partials, special = total
    if special != 0.0:
        return special
    if not partials:
        return ints
    return fsum(partials) if not ints else float(exact(total))


def exact(total: Exact) -> Fraction:
    """Return a finite sum as it is."""
    return sum(map(Fraction, total[1]), Fraction(total[0]))


def grow(partials: tuple[float, ...], x: float) -> tuple[float, ...]:
    """Return partials that represent the old ones plus x, smallest first."""
    if not partials:
        return (x,)
    grown = []
    for y in partials:
        if abs(x) < abs(y):
            x, y = y, x
        high = x + y
        low = y - (high - x)
        if low:
            grown.append(low)
        x = high
    if not isfinite(x):
        raise RecordError("a sum of floats has left the range of floats")
    if x or not grown:
        grown.append(x)
    return tuple(grown) if len(grown) <= PARTIALS_MAX else _compress(grown)


def _compress(partials: list[float]) -> tuple[float, ...]:
    """Return the same sum in partials each of which begins at least 53 bits below the next: there is room for 40 of these."""
    x, *others = reversed(partials)
    kept = []
    for y in others:
        high = x + y
        low = y - (high - x)
        if low:
            kept.append(high)
            x = low
        else:
            x = high
    kept.append(x)
    kept.reverse()
    return tuple(kept)


def grow_all(partials: tuple[float, ...], xs: Iterable[float]) -> tuple[float, ...]:
    """Return partials plus many finite floats."""
    for x in xs:
        partials = grow(partials, x)
    return partials


def square(x: float) -> tuple[float, float]:
    """Return two floats whose exact sum is x * x, unless that is beyond the range of floats (Dekker's product)."""
    split = 134217729.0 * x  # 2**27 + 1
    high = split - (split - x)
    low = x - high
    product = x * x
    if not isfinite(product) or not isfinite(split):
        return product, 0.0
    return product, low * low - ((product - high * high) - 2.0 * high * low)
