"""A rule's pattern in JSON, as a pattern of the algebra. What the algebra refuses is refused here, with the stage in the message."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from engine.cep import skip as skips
from engine.cep.pattern import Pattern, begin
from engine.cep.rules.expressions import Expressions
from engine.cep.rules.rule import PatternSpec, Skips, StageSpec
from engine.cep.skip import Skip
from engine.errors import RecordError

_NOT = ("not_next", "not_followed_by")


def make_pattern(spec: PatternSpec, expressions: Expressions) -> Pattern:
    """Return the pattern.

    Raises:
        RecordError, ConfigError: It is none.
    """
    pattern = _sequence(spec.stages, expressions, "the pattern")
    return pattern if spec.within is None else pattern.within(spec.within)


def names_of(stages: Sequence[StageSpec]) -> Iterator[str]:
    """Yield the names of all stages, in order.

    Raises:
        RecordError: One has no name, or is a name and a group at once.
    """
    for spec in stages:
        if (spec.stage is None) == (spec.group is None):
            raise RecordError("a stage has either stage (its name) or group (a list of stages)")
        if spec.group is not None:
            yield from names_of(spec.group)
        elif spec.stage is not None:
            if not spec.stage.isidentifier():
                raise RecordError(f"stage {spec.stage!r}: the name is a word, so that expressions can use it")
            yield spec.stage


def make_skip(skip: Skips | None) -> Skip:
    """Return what a rule's `skip` means."""
    if isinstance(skip, dict):
        ((kind, stage),) = skip.items()
        return skips.to_first(stage) if kind == "to_first" else skips.to_last(stage)
    return {None: skips.none, "none": skips.none, "to_next": skips.to_next, "past_last": skips.past_last}[skip]


def _sequence(stages: Sequence[StageSpec], expressions: Expressions, what: str) -> Pattern:
    if not stages:
        raise RecordError(f"{what} has no stage")
    if stages[0].after is not None:
        raise RecordError(f"{what}: nothing stands before the first stage, so it is after nothing (leave `after` out)")
    pattern: Pattern | None = None
    for spec in stages:
        head = spec.stage if spec.stage is not None else _sequence(spec.group or (), expressions, "a group")
        where = None if spec.where is None or spec.stage is None else _condition(spec, spec.where, "where", expressions)
        if spec.stage is None and spec.where is not None:
            raise RecordError("a group has no condition of its own; give it to its stages")
        if pattern is None:
            pattern = begin(head, where)
        elif spec.after in _NOT:
            if not isinstance(head, str):
                raise RecordError(f"{spec.after}: a group cannot be negated; give the stage that must not come")
            pattern = pattern.not_next(head, where) if spec.after == "not_next" else pattern.not_followed_by(head, where)
        else:
            follow = {"next": pattern.next, "followed_by_any": pattern.followed_by_any}.get(spec.after or "", pattern.followed_by)
            pattern = follow(head, where)
        pattern = _quantified(pattern, spec, expressions)
    assert pattern is not None
    return pattern


def _quantified(pattern: Pattern, spec: StageSpec, expressions: Expressions) -> Pattern:
    """Add what a stage says beside its name and condition."""
    if isinstance(spec.times, int):
        pattern = pattern.times(spec.times)
    elif spec.times is not None:
        least, most = spec.times
        pattern = pattern.times_or_more(least) if most is None else pattern.times(least, most)
    if spec.between == "consecutive":
        pattern = pattern.consecutive()
    elif spec.between == "combinations":
        pattern = pattern.allow_combinations()
    if spec.greedy:
        pattern = pattern.greedy()
    if spec.until is not None:
        if spec.stage is None:
            raise RecordError("until is for a stage with a name, not for a group")
        pattern = pattern.until(_condition(spec, spec.until, "until", expressions))
    if spec.optional:
        pattern = pattern.optional()
    return pattern if spec.within is None else pattern.within(spec.within, between="previous_and_current")


def _condition(spec: StageSpec, sql: str, word: str, expressions: Expressions) -> Callable[..., Any]:
    assert spec.stage is not None
    return expressions.condition(spec.stage, sql, f"{word} of stage {spec.stage!r}")
