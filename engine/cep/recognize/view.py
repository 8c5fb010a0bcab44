"""What an expression of a MATCH_RECOGNIZE clause sees: a row, the match so far, and the rows around it.

A compiled expression is a function of a `View`. The matcher sets the view up for a row and evaluates; navigation (FIRST, LAST,
PREV, NEXT) moves the view to another row for a moment.

What looks at the match so far does it through folds: each is one value that is carried along a match from row to row, such as
"the last two rows of B" or "the sum of A.price". Two ways through the pattern that stand in one state with equal folds have the
same future, so the matcher keeps only the preferred one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import RecordError

Row = tuple[int, Any, int]
"""A record: timestamp in ms, value, and a bit for each variable whose condition is known to hold by the row alone."""

Expression = Callable[["View"], Any]


MISFITS = (TypeError, ValueError, ArithmeticError, KeyError)
"""What evaluating SQL on values of the wrong kind raises."""


class NotYetError(Exception):
    """A row was asked for that has not come: the answer is known later."""


class View:
    """Where an expression is evaluated.

    Attributes:
        rows, base: Rows at hand, and the number of the first of them; rows of a key are numbered without a gap.
        closed: No row will come any more.
        row, number: The row that is looked at; None in an empty match.
        start, position, last: First row of the match, its present row, its last row as far as known.
        label: Variable of the present row, by number; -1 for none.
        labels: Variables of the rows of the match from `start` on; only for measures.
        accs, final_accs: Values of the folds at the present row and at the last row.
        match_number: Number of the match, from 1.
    """

    __slots__ = (
        "accs", "base", "closed", "final_accs", "label", "labels", "last", "match_number", "number", "position", "row", "rows", "start",
    )  # fmt: skip

    def __init__(self) -> None:
        self.rows: Sequence[Row] = ()
        self.base = 0
        self.closed = False
        self.row: Row | None = None
        self.number = 0
        self.start = 0
        self.position = 0
        self.last = 0
        self.label = -1
        self.labels: Sequence[int] = ()
        self.accs: tuple[Any, ...] = ()
        self.final_accs: tuple[Any, ...] = ()
        self.match_number = 1

    def at(self, number: int) -> Row | None:
        """Return a row by its number, None before the first row of the key and behind the last one.

        Raises:
            NotYetError: It may still come.
        """
        index = number - self.base
        if index < 0:
            return None
        if index < len(self.rows):
            return self.rows[index]
        if self.closed:
            return None
        raise NotYetError

    def evaluate_at(self, number: int, expression: Expression) -> Any:
        """Evaluate an expression at another row; None where there is no such row."""
        row, here = self.row, self.number
        self.row, self.number = self.at(number), number
        found = None if self.row is None else expression(self)
        self.row, self.number = row, here
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """A value carried along a match.

    Attributes:
        labels: Variables whose rows count, None for all.
        initial: Before the first row.
        argument: What of a row counts; None counts the row itself. NULL counts for nothing.
        step: (value so far, argument at the row) -> value; never changes its arguments.
    """

    labels: frozenset[int] | None
    initial: Any
    argument: Expression | None
    step: Callable[[Any, Any], Any]

    def next(self, acc: Any, view: View, label: int) -> Any:
        """Return the value after the row that the view looks at, which `label` takes."""
        if self.labels is not None and label not in self.labels:
            return acc
        if self.argument is None:
            return self.step(acc, (view.number, label))
        found = self.argument(view)
        return acc if found is None else self.step(acc, found)


def initial_accs(folds: Sequence[Fold]) -> tuple[Any, ...]:
    """Return the values of folds before the first row."""
    return tuple(fold.initial for fold in folds)


def next_accs(folds: Sequence[Fold], accs: tuple[Any, ...], view: View, label: int) -> tuple[Any, ...]:
    """Return the values of folds after the row that the view looks at.

    Raises:
        RecordError: One of them cannot take what the row has.
    """
    try:
        return tuple(fold.next(acc, view, label) for fold, acc in zip(folds, accs, strict=True)) if folds else accs
    except MISFITS as error:
        raise RecordError(f"an aggregate over the rows of a match: {error}") from error


def first_rows(labels: frozenset[int], number: int) -> Fold:
    """Return the fold of the first rows of some variables, as (number, label): as many as asked for."""
    return Fold(labels, (), None, lambda acc, row: acc if len(acc) == number else (*acc, row))


def last_rows(labels: frozenset[int], number: int) -> Fold:
    """Return the fold of the last rows of some variables, as (number, label): as many as asked for."""
    return Fold(labels, (), None, lambda acc, row: (*acc, row)[-number:])


@dataclass(frozen=True, slots=True)
class Aggregate:
    """An aggregate: initial value, step, and the result of what has been gathered."""

    initial: Any
    step: Callable[[Any, Any], Any]
    result: Callable[[Any], Any]


def _same(acc: Any) -> Any:
    return acc


AGGREGATES: dict[str, Aggregate] = {
    "COUNT": Aggregate(0, lambda acc, _: acc + 1, _same),
    "SUM": Aggregate(None, lambda acc, found: (0 if acc is None else acc) + found, _same),
    "MIN": Aggregate(None, lambda acc, found: found if acc is None or found < acc else acc, _same),
    "MAX": Aggregate(None, lambda acc, found: found if acc is None or found > acc else acc, _same),
    "AVG": Aggregate((0, 0), lambda acc, found: (acc[0] + found, acc[1] + 1), lambda acc: acc[0] / acc[1] if acc[1] else None),
    "ARRAY_AGG": Aggregate((), lambda acc, found: (*acc, found), lambda acc: list(acc) or None),
}
COUNT_DISTINCT = Aggregate(frozenset(), lambda acc, found: acc | {found}, len)
