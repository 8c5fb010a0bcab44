"""MEASURES: the rows that come out of a match.

    ONE ROW PER MATCH    the partition columns and the measures, evaluated at the last row
    ALL ROWS PER MATCH   each row with all its columns, and the measures as they stand at that row

An empty match has one row of nulls, with the partition columns and the number of the match; with ALL ROWS it has the columns of the
row at which it was found.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from engine.cep.recognize.automaton import RowAutomaton
from engine.cep.recognize.clause import Rows
from engine.cep.recognize.view import MISFITS, Expression, Fold, Row, View, initial_accs, next_accs
from engine.errors import RecordError


class Recognized(NamedTuple):
    """A row that came out, with the key of its records."""

    key: Any
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Measures:
    """The compiled measures of a clause.

    Attributes:
        names, expressions: The measures in order.
        folds: What they carry along a match.
        columns: Gives the columns that stand before the measures: those of the partition, or all of a row.
    """

    rows: Rows
    automaton: RowAutomaton
    names: tuple[str, ...]
    expressions: tuple[Expression, ...]
    folds: tuple[Fold, ...]
    columns: Callable[[Any], dict[str, Any]]

    def of_match(self, view: View, path: Sequence[int]) -> list[dict[str, Any]]:
        """Return the rows of a match.

        Args:
            view: Looks at the row with which the match begins.
            path: States of the match, one for each of its rows.
        Raises:
            NotYetError: A measure asks for a row that has not come.
        """
        first = view.row
        assert first is not None
        labels = [self.automaton.labels[state] for state in path]
        view.labels, view.last = labels, view.start + len(path) - 1
        if not path:
            return [] if self.rows == "all_without_empty" else [self._of_empty(view, first)]
        history = self._history(view, labels)
        view.final_accs = history[-1]
        places = [len(path) - 1]
        if self.rows != "one":
            places = [place for place, state in enumerate(path) if not self.automaton.excluded[state]]
        found: list[dict[str, Any]] = []
        for place in places:
            view.position = view.number = view.start + place
            row = view.row = view.at(view.number)
            assert row is not None
            view.label, view.accs = labels[place], history[place]
            found.append(self.columns(first[1] if self.rows == "one" else row[1]) | self._evaluate(view))
        return found

    def unmatched(self, row: Row) -> list[dict[str, Any]]:
        """Return a row that no match took."""
        return [self.columns(row[1]) | dict.fromkeys(self.names)]

    def _history(self, view: View, labels: Sequence[int]) -> list[tuple[Any, ...]]:
        """Return the values of the folds after each row."""
        accs, history = initial_accs(self.folds), []
        for place, label in enumerate(labels):
            view.position = view.number = view.start + place
            view.row = view.at(view.number)
            accs = next_accs(self.folds, accs, view, label)
            history.append(accs)
        return history

    def _of_empty(self, view: View, first: Row) -> dict[str, Any]:
        view.position = view.number = view.start - 1
        view.row, view.label = None, -1
        view.accs = view.final_accs = initial_accs(self.folds)
        return self.columns(first[1]) | self._evaluate(view)

    def _evaluate(self, view: View) -> dict[str, Any]:
        found: dict[str, Any] = {}
        name = ""
        try:
            for name, expression in zip(self.names, self.expressions, strict=True):
                found[name] = expression(view)
        except MISFITS as error:
            raise RecordError(f"measure {name}: {error}") from error
        return found
