"""Conditions on the record alone, held against many records at once: a column of values in, a column of answers out.

    kind = 'pay' AND cents > 1000

    kind   pay  look pay  None        cents of those that are left   20   7000      AND  False False True  False
    = pay  True False True None                                      5

The answers are those of `engine.cep.recognize.scalars`, NULL and all, and what is not looked at there (the right side of an AND whose
left is false) is not looked at here, so that an error is raised by the same records. What has no column form of its own is worked out
record by record.
"""

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

from engine.cep.recognize import scalars
from engine.cep.recognize.sql import Node, kind_of

_COMPARISONS = ("EQ", "NEQ", "GT", "GTE", "LT", "LTE")
_MIRRORED = {"EQ": "EQ", "NEQ": "NEQ", "GT": "LT", "GTE": "LTE", "LT": "GT", "LTE": "GTE"}
_MISSING = object()


class Records:
    """Values of records, and what has been asked of them; what a field holds is read once."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = values
        self._fields: dict[str, tuple[list[Any], bool]] = {}

    def field(self, path: str, read: Callable[[Any], Any]) -> tuple[list[Any], bool]:
        """Return what a field holds, and whether there is a NULL among it."""
        found = self._fields.get(path)
        if found is None:
            column = list(map(read, self.values))
            found = self._fields[path] = column, any(value is None for value in column)
        return found

    def at(self, places: Sequence[int]) -> "Records":
        """Return some of the records."""
        values = self.values
        return Records([values[place] for place in places])


Column = Callable[[Records], Sequence[Any]]
"""What an expression gives for each of some records, in order."""


class Columns:
    """Makes columns of expressions.

    Args:
        row: Gives the function of a value that an expression is.
        path: Gives the field that a column of the expression means.
    """

    def __init__(self, row: Callable[[Node], Callable[[Any], Any]], path: Callable[[Node], str]) -> None:
        self._row, self._path = row, path

    def of(self, node: Node) -> Column:
        """Return an expression as a column."""
        kind = kind_of(node)
        if kind == "Paren":
            return self.of(node.this)
        if kind in ("And", "Or"):
            return _joined(self.of(node.this), self.of(node.args["expression"]), settled=kind == "Or")
        if kind == "Between" and not node.args.get("symmetric"):
            low, high = (self._compared("GTE", node.this, node.args["low"]), self._compared("LTE", node.this, node.args["high"]))
            return self.singly(self._row(node)) if low is None or high is None else _joined(low, high, settled=False)
        if kind in _COMPARISONS:
            left, right = node.this, node.args["expression"]
            found = self._compared(kind, left, right) or self._compared(_MIRRORED[kind], right, left)
            if found is not None:
                return found
        return self.singly(self._row(node))

    def singly(self, test: Callable[[Any], Any]) -> Column:
        """Return a function of a value as a column."""
        return lambda records: list(map(test, records.values))

    def _compared(self, kind: str, left: Node, right: Node) -> Column | None:
        """Return the comparison of a field with a constant, None if it is none."""
        known = _constant(right)
        if kind_of(left) not in ("Column", "Dot") or known is _MISSING:
            return None
        function, path, read = scalars.BINARY[kind], self._path(left), self._row(left)

        def compare(records: Records) -> Sequence[Any]:
            column, has_null = records.field(path, read)
            if has_null:
                return [None if value is None else function(value, known) for value in column]
            return list(map(function, column, repeat(known)))

        return compare


def _constant(node: Node) -> Any:
    """Return the value of a literal, a mark for anything else."""
    if kind_of(node) != "Literal":
        return _MISSING
    if node.is_string:
        return node.name
    return int(node.name) if node.name.isdecimal() else float(node.name)


def _joined(left: Column, right: Column, *, settled: bool) -> Column:
    """Return AND (`settled` False) or OR (True): where the left side is that already, the right one is not looked at."""

    def both(records: Records) -> Sequence[Any]:
        firsts = left(records)
        if settled:
            places = [place for place, first in enumerate(firsts) if not first]
        else:
            places = [place for place, first in enumerate(firsts) if first or first is None]
        found: list[Any] = [settled] * len(firsts)
        if not places:
            return found
        everywhere = len(places) == len(firsts)
        for place, second in zip(places, right(records if everywhere else records.at(places)), strict=True):
            first = firsts[place]
            if second is not None and bool(second) is settled:
                continue
            found[place] = None if first is None or second is None else not settled
        return found

    return both


__all__ = ["Column", "Columns", "Records"]
