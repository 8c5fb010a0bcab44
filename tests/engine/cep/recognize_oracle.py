"""An oracle that shares nothing with the engine: backtracking over the finished list of rows, as the standard describes it.

A pattern here is a tuple: ("var", name), ("not shown", pattern), ("seq", ...), ("alt", ...), ("permute", ...),
("rep", pattern, least, most, reluctant). A condition is a function of (rows, number of the first row, variables so far, the present
row's included).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from engine import Struct

Pattern = tuple[Any, ...]
Path = tuple[tuple[str, bool], ...]
"""For each row of a match its variable, and whether it is shown."""


class Reading(Struct, frozen=True):
    n: int
    letter: str
    price: int
    ts: int


Condition = Callable[[Sequence[Reading], int, Sequence[str]], bool]


@dataclass
class Clause:
    """What the oracle needs of a clause."""

    pattern: Pattern
    conditions: Mapping[str, Condition]
    skip: tuple[str, str]
    within_ms: int | None


@dataclass
class Found:
    """A match: number from 1, its first row, its path."""

    number: int
    start: int
    path: Path


def matches(clause: Clause, rows: Sequence[Reading]) -> tuple[list[Found], list[int]]:
    """Return the matches in order, and the rows that no match took and with which none begins."""
    found: list[Found] = []
    alone: list[int] = []
    start, covered = 0, -1
    while start < len(rows):
        path = next(_ways(clause, rows, start, clause.pattern, (), shown=True), None)
        if path is None:
            if start > covered:
                alone.append(start)
            start += 1
            continue
        found.append(Found(len(found) + 1, start, path))
        covered = max(covered, start + len(path) - 1)
        start += _skipped(clause.skip, [name for name, _ in path])
    return found, alone


def _skipped(skip: tuple[str, str], names: list[str]) -> int:
    kind, variable = skip
    if kind == "past_last":
        return max(len(names), 1)
    if kind == "to_next" or variable not in names:
        return 1
    place = names.index(variable) if kind == "to_first" else len(names) - 1 - names[::-1].index(variable)
    return max(place, 1)


def _ways(clause: Clause, rows: Sequence[Reading], start: int, pattern: Pattern, path: Path, *, shown: bool) -> Iterator[Path]:
    """Yield how the pattern can go on from a path, the preferred way first."""
    kind = pattern[0]
    if kind == "var":
        at = start + len(path)
        if at == len(rows) or (clause.within_ms is not None and rows[at].ts - rows[start].ts >= clause.within_ms):
            return
        longer = (*path, (pattern[1], shown))
        if clause.conditions[pattern[1]](rows, start, [name for name, _ in longer]):
            yield longer
    elif kind == "not shown":
        yield from _ways(clause, rows, start, pattern[1], path, shown=False)
    elif kind == "seq":
        yield from _one_after_the_other(clause, rows, start, pattern[1:], path, shown=shown)
    elif kind == "alt":
        for part in pattern[1:]:
            yield from _ways(clause, rows, start, part, path, shown=shown)
    elif kind == "permute":
        for order in permutations(pattern[1:]):
            yield from _one_after_the_other(clause, rows, start, order, path, shown=shown)
    else:
        yield from _again(clause, rows, start, pattern, path, 0, shown=shown)


def _one_after_the_other(
    clause: Clause, rows: Sequence[Reading], start: int, parts: Sequence[Pattern], path: Path, *, shown: bool
) -> Iterator[Path]:
    if not parts:
        yield path
        return
    for longer in _ways(clause, rows, start, parts[0], path, shown=shown):
        yield from _one_after_the_other(clause, rows, start, parts[1:], longer, shown=shown)


def _again(clause: Clause, rows: Sequence[Reading], start: int, repeat: Pattern, path: Path, count: int, *, shown: bool) -> Iterator[Path]:
    _, part, least, most, reluctant = repeat
    if reluctant and count >= least:
        yield path
    if most is None or count < most:
        for longer in _ways(clause, rows, start, part, path, shown=shown):
            if len(longer) > len(path) or count < least:
                yield from _again(clause, rows, start, repeat, longer, count + 1, shown=shown)
    if not reluctant and count >= least:
        yield path


def text_of(pattern: Pattern) -> str:
    """Return a pattern as it stands in SQL."""
    kind = pattern[0]
    if kind == "var":
        return str(pattern[1])
    if kind == "not shown":
        return f"{{- {text_of(pattern[1])} -}}"
    if kind == "rep":
        _, part, least, most, reluctant = pattern
        words = {(0, None): "*", (1, None): "+", (0, 1): "?"}
        counts = f"{{{least}}}" if least == most else f"{{{least},{'' if most is None else most}}}"
        return f"({text_of(part)}){words.get((least, most), counts)}{'?' if reluctant else ''}"
    parts = [text_of(part) for part in pattern[1:]]
    if kind == "permute":
        return f"PERMUTE({', '.join(parts)})"
    return f"({(' | ' if kind == 'alt' else ' ').join(parts)})"
