"""Scalar SQL on Python values: NULL is None, and a condition is true, false or unknown (None).

Anything done to NULL gives NULL, but for what asks about NULL. Division is never cut off to whole numbers; by zero it gives NULL,
so that one bad row cannot stop the others. Intervals are milliseconds, as event times are.
"""

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.cep.recognize.view import Expression, View
from engine.errors import RecordError

Function = Callable[..., Any]


class Constant:
    """An expression that is always the same."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, view: View) -> Any:
        return self.value


def constant(value: Any) -> Expression:
    """Return an expression that is always the same."""
    return Constant(value)


def strict(function: Function, parts: Sequence[Expression]) -> Expression:
    """Return a function of parts that gives NULL as soon as one of them is NULL."""
    if len(parts) == 1:
        only = parts[0]
        return lambda view: None if (value := only(view)) is None else function(value)
    if len(parts) == 2:
        left, right = parts
        if isinstance(right, Constant) and right.value is not None:
            known = right.value
            return lambda view: None if (first := left(view)) is None else function(first, known)

        def both(view: View) -> Any:
            first = left(view)
            if first is None:
                return None
            second = right(view)
            return None if second is None else function(first, second)

        return both

    def all_of_them(view: View) -> Any:
        values = [part(view) for part in parts]
        return None if None in values else function(*values)

    return all_of_them


def conjunction(left: Expression, right: Expression) -> Expression:
    """Return AND: false if either is false, else unknown if either is unknown."""

    def both(view: View) -> Any:
        first = left(view)
        if first is not None and not first:
            return False
        second = right(view)
        if second is not None and not second:
            return False
        return None if first is None or second is None else True

    return both


def disjunction(left: Expression, right: Expression) -> Expression:
    """Return OR: true if either is true, else unknown if either is unknown."""

    def either(view: View) -> Any:
        first = left(view)
        if first:
            return True
        second = right(view)
        if second:
            return True
        return None if first is None or second is None else False

    return either


def truth(get: Expression, text: str) -> Expression:
    """Return a condition of which nothing is known but that it must say true, false or nothing."""

    def told(view: View) -> Any:
        found = get(view)
        if found is None or found is True or found is False:
            return found
        raise RecordError(f"{text} is {found!r}, and a condition says true or false: compare it with something")

    return told


def is_same(left: Expression, right: Expression) -> Expression:
    """Return IS NOT DISTINCT FROM (and IS NULL, IS TRUE): NULL is the same as NULL."""

    def same(view: View) -> bool:
        first, second = left(view), right(view)
        return first is second if first is None or second is None else bool(first == second)

    return same


def one_of(value: Expression, others: Sequence[Expression]) -> Expression:
    """Return IN: unknown if it is not found and there is a NULL among them."""

    def found(view: View) -> Any:
        wanted = value(view)
        if wanted is None:
            return None
        values = [other(view) for other in others]
        return True if wanted in [known for known in values if known is not None] else (None if None in values else False)

    return found


def first_true(cases: Sequence[tuple[Expression, Expression]], otherwise: Expression) -> Expression:
    """Return CASE: the value of the first condition that is true."""

    def chosen(view: View) -> Any:
        for condition, value in cases:
            if condition(view):
                return value(view)
        return otherwise(view)

    return chosen


def coalesce(parts: Sequence[Expression]) -> Expression:
    """Return the first value that is not NULL."""

    def first(view: View) -> Any:
        for part in parts:
            value = part(view)
            if value is not None:
                return value
        return None

    return first


def null_if(left: Expression, right: Expression) -> Expression:
    """Return the left value, NULL if it equals the right one."""

    def other(view: View) -> Any:
        value = left(view)
        second = right(view)
        return None if value is None or (second is not None and value == second) else value

    return other


def like(value: str, pattern: str) -> bool:
    """Say whether text is like a pattern, in which % is any text and _ any letter."""
    return _like(pattern).fullmatch(value) is not None


def ilike(value: str, pattern: str) -> bool:
    """Do the same without regard to capitals."""
    return _like(pattern.lower()).fullmatch(value.lower()) is not None


def _like(pattern: str) -> re.Pattern[str]:
    # `re` keeps what it compiled lately.
    return re.compile("".join(".*" if letter == "%" else "." if letter == "_" else re.escape(letter) for letter in pattern), re.DOTALL)


def _divide(left: Any, right: Any) -> Any:
    return None if right == 0 else left / right


def _modulo(left: Any, right: Any) -> Any:
    """Return the remainder with the sign of the left number, as SQL has it."""
    if right == 0:
        return None
    if isinstance(left, int) and isinstance(right, int):
        return abs(left) % abs(right) * (-1 if left < 0 else 1)
    return math.fmod(left, right)


def _round(value: Any, digits: int = 0) -> Any:
    """Round half away from zero, as SQL does."""
    scale = 10**digits
    scaled = math.floor(abs(value) * scale + 0.5) / scale
    found = -scaled if value < 0 else scaled
    return int(found) if isinstance(value, int) else found


def _substring(value: str, start: int, length: int | None = None) -> str:
    end = len(value) if length is None else max(start - 1 + length, 0)
    return value[max(start - 1, 0) : end]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _boolean(value: Any) -> bool:
    if isinstance(value, str):
        return {"true": True, "false": False}[value.strip().lower()]
    return bool(value)


BINARY: Mapping[str, Function] = {
    "EQ": operator.eq, "NEQ": operator.ne, "GT": operator.gt, "GTE": operator.ge, "LT": operator.lt, "LTE": operator.le,
    "Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "Div": _divide, "Mod": _modulo, "Pow": operator.pow,
    "Like": like, "ILike": ilike, "DPipe": lambda left, right: _text(left) + _text(right),
}  # fmt: skip
"""Operators by the name of their node."""

FUNCTIONS: Mapping[str, Function] = {
    "Neg": operator.neg, "Abs": abs, "Round": _round, "Floor": math.floor, "Ceil": math.ceil, "Lower": str.lower, "Upper": str.upper,
    "Length": len, "Trim": str.strip, "Substring": _substring, "Sqrt": math.sqrt,
    "Concat": lambda *parts: "".join(map(_text, parts)), "Greatest": lambda *parts: max(parts), "Least": lambda *parts: min(parts),
}  # fmt: skip
"""Functions of one or more values by the name of their node."""

CASTS: Mapping[str, Function] = {
    "TINYINT": int, "SMALLINT": int, "INT": int, "BIGINT": int, "FLOAT": float, "DOUBLE": float, "VARCHAR": _text, "TEXT": _text,
    "CHAR": _text, "BOOLEAN": _boolean,
}  # fmt: skip
"""Types of CAST."""

INTERVALS_MS: Mapping[str, int] = {"MILLISECOND": 1, "SECOND": 1_000, "MINUTE": 60_000, "HOUR": 3_600_000, "DAY": 86_400_000}
"""Units of INTERVAL, singular."""
