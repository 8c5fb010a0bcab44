"""An oracle that shares nothing with the engine: it tries every choice of records, and keeps those that obey the rules.

A pattern here is a list of steps. The rules, between a record that was taken and the next one taken for a step:
next, consecutive: nothing lies between; followed_by, relaxed: nothing between fits the step; any, combinations: no rule.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engine import cep
from engine.cep import Pattern

Record = tuple[int, str]


@dataclass(frozen=True)
class Step:
    """A stage that takes records whose letter is in `letters`; `unwanted` is a negation before it."""

    letters: str
    contiguity: Literal["next", "followed_by", "followed_by_any"] = "followed_by"
    least: int = 1
    most: int | None = 1
    inner: Literal["relaxed", "consecutive", "allow_combinations"] = "relaxed"
    optional: bool = False
    unwanted: tuple[Literal["not_next", "not_followed_by"], str] | None = None


Taken = tuple[tuple[int, int], ...]
"""(step, record) in order."""


def matches(steps: Sequence[Step], records: Sequence[Record], within_ms: int | None) -> list[Taken]:
    """Return every match of the pattern, by its last record."""
    found = [taken for first in range(len(records)) for taken in _from(steps, records, 0, 0, (), first, within_ms)]
    return sorted(found, key=lambda taken: taken[-1][1])


def _from(
    steps: Sequence[Step], records: Sequence[Record], at: int, count: int, taken: Taken, first: int, within_ms: int | None
) -> Iterator[Taken]:
    """Yield the matches that go on from `count` records taken by step `at`."""
    if taken and all(step.optional for step in steps[at + 1 :]) and count >= steps[at].least:
        yield taken
    options: list[tuple[int, int]] = []
    most = steps[at].most
    if most is None or count < most:
        options.append((at, count))
    if count >= steps[at].least or (count == 0 and steps[at].optional):
        for later in range(at + 1, len(steps)):
            options.append((later, 0))
            if not steps[later].optional:
                break
    for step, had in options:
        for place in range(taken[-1][1] + 1, len(records)) if taken else [first]:
            in_time = within_ms is None or records[place][0] - records[first][0] < within_ms
            if in_time and records[place][1] in steps[step].letters and _allowed(steps[step], had, records, taken, place):
                yield from _from(steps, records, step, had + 1, (*taken, (step, place)), first, within_ms)


def _allowed(step: Step, had: int, records: Sequence[Record], taken: Taken, place: int) -> bool:
    if not taken:
        return True
    between = [letter for _, letter in records[taken[-1][1] + 1 : place]]
    if had == 0 and step.unwanted is not None:
        kind, letters = step.unwanted
        watched = [*between, records[place][1]][:1] if kind == "not_next" else between
        if any(letter in letters for letter in watched):
            return False
    rule = step.inner if had else step.contiguity
    if rule in ("next", "consecutive"):
        return not between
    return rule in ("followed_by_any", "allow_combinations") or not any(letter in step.letters for letter in between)


def pattern_of(steps: Sequence[Step], within_ms: int | None) -> Pattern:
    """Return the same pattern for the engine; stages are called "0", "1", …"""
    pattern: Any = None
    for number, step in enumerate(steps):
        fits = _fits(step.letters)
        if pattern is None:
            pattern = cep.begin(str(number), where=fits)
        else:
            if step.unwanted is not None:
                pattern = getattr(pattern, step.unwanted[0])(f"not {number}", _fits(step.unwanted[1]))
            pattern = getattr(pattern, step.contiguity)(str(number), fits)
        if (step.least, step.most) != (1, 1):
            pattern = pattern.times_or_more(step.least) if step.most is None else pattern.times(step.least, step.most)
            if step.inner != "relaxed":
                pattern = getattr(pattern, step.inner)()
        if step.optional:
            pattern = pattern.optional()
    return pattern if within_ms is None else pattern.within(f"{within_ms}ms")  # type: ignore[no-any-return]


def _fits(letters: str) -> Any:
    return lambda value: value[1] in letters
