"""Which records a rule need not look at: most rules wait for something rare, and most keys are not half way to it.

    rule "probe": small payment, then a large one       batch: 1,000 records of 600 keys
      of keys that wait for the large one    (2)        looked at
      small payments of other keys           (5)        looked at, from there on
      everything else                      (990)        never touched: one column says that none of it is small

What begins a match is asked of all records of a batch at once (`engine.cep.recognize.columns`), and once however many rules ask it. A
screen only leaves out what cannot matter: the matcher still decides about the rest, so results are those without it
(tests/engine/operators/test_detect_rules_screen.py). Where a condition raises for some record, the rule looks at everything.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, compress
from typing import Any

from engine.cep.conditions import Condition as StageCondition
from engine.cep.conditions import Predicate
from engine.cep.linear import LinearMatcher, RepetitionMatcher
from engine.cep.matcher import Matcher
from engine.cep.pattern import Pattern
from engine.cep.recognize.automaton import START
from engine.cep.recognize.columns import Column, Records
from engine.cep.recognize.plan import Plan
from engine.cep.recognize.view import MISFITS
from engine.errors import RecordError

Pair = tuple[int, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A condition on the record alone: a text that tells it from others, and the condition as a column."""

    text: str
    column: Column


@dataclass(frozen=True, slots=True)
class Screen:
    """What a record must fulfil to matter to a rule.

    Attributes:
        begins: One of these, to begin a match.
        goes_on: One of these or of `begins`, to matter to a partial match; None where any record may.
        also: What the matcher asks of each record besides, so that it may raise.
    """

    begins: tuple[Asked, ...]
    goes_on: tuple[Asked, ...] | None
    also: tuple[Asked, ...] = ()


class Due:
    """The records that a batch makes due, by key and time, and what has been asked of them."""

    def __init__(self, due: Mapping[Any, list[Pair]]) -> None:
        self.by_key = due
        self._pairs = [pair for pairs in due.values() for pair in pairs]
        self._keys = [key for key, pairs in due.items() for _ in pairs]
        self._records = Records([value for _, value in self._pairs])
        self._known: dict[str, Sequence[Any] | None] = {}
        self._starts = dict(zip(due, accumulate(map(len, due.values()), initial=0), strict=False))

    def fitting(self, screen: Screen, standing: Iterable[Any]) -> dict[Any, list[Pair]] | None:
        """Return what a rule has to look at; None for everything.

        Args:
            standing: Those keys that have a partial match.
        Returns:
            The records of a key from the first on that may begin a match, of one that has a partial match all of them. Where the screen
            knows what partial matches go on with, only those of them that fit.
        """
        begins, goes_on = ([self._answers(asked) for asked in some] for some in (screen.begins, screen.goes_on or ()))
        if None in begins or None in goes_on or None in map(self._answers, screen.also):
            return None
        keys, starts, by_key = self._keys, self._starts, self.by_key
        first: dict[Any, int] = {}
        for row in compress(range(len(keys)), _either(begins)):
            first.setdefault(keys[row], row)
        for key in standing:
            first[key] = starts[key]
        if screen.goes_on is None:
            return {key: by_key[key][row - starts[key] :] for key, row in first.items()}
        found: dict[Any, list[Pair]] = {}
        for key, row in first.items():
            start, pairs = starts[key], by_key[key]
            end = start + len(pairs)
            fits = _either([answers[row:end] for answers in (*begins, *goes_on) if answers is not None])
            if picked := list(compress(pairs[row - start :], fits)):
                found[key] = picked
        return found

    def _answers(self, asked: Asked) -> Sequence[Any] | None:
        if asked.text not in self._known:
            try:
                self._known[asked.text] = asked.column(self._records)
            except (*MISFITS, RecordError):
                self._known[asked.text] = None
        return self._known[asked.text]


def _either(answers: Sequence[Sequence[Any] | None]) -> Sequence[Any]:
    """Return for each record whether one of some conditions holds."""
    found, *others = answers
    for other in others:
        found = [first or second for first, second in zip(found or (), other or (), strict=True)]
    return found or ()


def screen_of_pattern(pattern: Pattern, matcher: Matcher, known: Mapping[Any, Asked]) -> Screen | None:
    """Return the screen of a pattern; None where any record may begin a match.

    Args:
        known: The conditions on the record alone, by their functions.
    """
    begins: list[Asked] = []
    for stage in pattern.stages:
        asked = _asked(stage.condition, known)
        if stage.group is not None or stage.is_not or stage.until is not None or asked is None:
            return None
        begins.append(asked)
        if not stage.optional:
            break
    else:
        return None
    return Screen(tuple(begins), _goes_on(pattern, matcher, known))


def _goes_on(pattern: Pattern, matcher: Matcher, known: Mapping[Any, Asked]) -> tuple[Asked, ...] | None:
    """Return what partial matches wait for, where they pass over everything else."""
    if not isinstance(matcher, LinearMatcher | RepetitionMatcher):
        return None
    found: list[Asked] = []
    for stage in pattern.stages:
        asked = _asked(stage.condition, known)
        if asked is None or stage.contiguity == "next" or (stage.least > 1 and stage.inner != "relaxed"):
            return None
        found.append(asked)
    return tuple(found[1:])


def _asked(condition: StageCondition | None, known: Mapping[Any, Asked]) -> Asked | None:
    return known.get(condition.function) if isinstance(condition, Predicate) else None


def screen_of_rows(plan: Plan, known: Mapping[int, Asked]) -> Screen | None:
    """Return the screen of a MATCH_RECOGNIZE clause; None where any row may begin a match, or leaves something behind.

    Args:
        known: The conditions on the row alone, by the numbers of their variables.
    """
    automaton = plan.automaton
    first, empty = automaton.at_partition_start
    if empty or automaton.accepts[START] or plan.numbered or plan.looks_back or plan.rows == "all_with_unmatched":
        return None
    begins = dict.fromkeys(automaton.labels[state] for state in (*first, *automaton.goes_on[START]))
    asked = [label for label, condition in enumerate(plan.conditions) if condition is not None and plan.local >> label & 1]
    if not begins.keys() <= known.keys() or not set(asked) <= known.keys():
        return None
    return Screen(tuple(known[label] for label in begins), None, tuple(known[label] for label in asked))


__all__ = ["Asked", "Due", "Screen", "screen_of_pattern", "screen_of_rows"]
