"""A compiled MATCH_RECOGNIZE clause: all that the matcher needs of it."""

from collections.abc import Iterator
from dataclasses import dataclass

from engine.cep.recognize.automaton import RowAutomaton
from engine.cep.recognize.clause import Rows, SkipTo
from engine.cep.recognize.measures import Measures
from engine.cep.recognize.view import Expression, Fold


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled clause.

    Attributes:
        names: Of the variables, by their numbers.
        conditions: For each variable its condition, None where any row fits.
        local: Bit set of the variables whose condition looks only at the row and those before it.
        folds: What the conditions carry along a match.
        looks_back: Rows before a match that expressions may ask for.
        numbered: Matches of a key are counted for ever.
        unmatched: Rows that no match took come out too.
        skip_labels: Variables that AFTER MATCH SKIP TO names.
    """

    automaton: RowAutomaton
    names: tuple[str, ...]
    conditions: tuple[Expression | None, ...]
    local: int
    folds: tuple[Fold, ...]
    measures: Measures
    rows: Rows
    skip: SkipTo
    skip_labels: frozenset[int]
    within_ms: int | None
    looks_back: int
    numbered: bool

    def by_row(self) -> Iterator[tuple[int, Expression | None, int]]:
        """Yield the conditions that the row alone decides, each once: a variable that has it, and the bits of all that have it."""
        labels: dict[int, list[int]] = {}
        for label, condition in enumerate(self.conditions):
            if self.local >> label & 1:
                labels.setdefault(id(condition), []).append(label)
        for same in labels.values():
            yield same[0], self.conditions[same[0]], sum(1 << label for label in same)
