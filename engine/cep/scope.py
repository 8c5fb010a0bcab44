"""What an automaton's edges ask for: the conditions of a stage by its words and by the group that it stands in.

The head of a group obeys the group's words: those before the group for its first round, those between rounds for the others. A
group's `until` ends every edge inside it.
"""

from dataclasses import dataclass

from engine.cep.conditions import ALWAYS, AnyOf, Condition, all_of, negated
from engine.cep.pattern import Contiguity, Inner, Stage


@dataclass(slots=True)
class Scope:
    """A sequence of stages that is being compiled: the whole pattern or a group of it.

    `words` say what may lie before the head of a group; `first_round` tells the head of a repeated group whether it stands for the
    group's first round; `may_stop` that the match may also go on without the round that the head begins; `after` is the stage that
    follows a group; `until` ends the groups that the stages stand in.
    """

    stages: tuple[Stage, ...]
    group: Stage | None = None
    words: Contiguity | Inner = "begin"
    first_round: bool = True
    after: Stage | None = None
    may_stop: bool = False
    until: Condition | None = None

    def following(self, place: int) -> Stage | None:
        """Return the stage that comes after a place."""
        return self.stages[place + 1] if place + 1 < len(self.stages) else self.after

    def words_before(self, place: int) -> Contiguity | Inner:
        """Return the words that say what may lie before a place; the head of a group has none of its own."""
        return self.words if self.group is not None and place == 0 else self.stages[place].contiguity


def unless(until: Condition | None, condition: Condition) -> Condition:
    """Return the condition, but not for a record that ends the loop."""
    return condition if until is None else all_of(negated(until), condition)


def unless_any(until: Condition | None, condition: Condition | None) -> Condition | None:
    """Return the same for what may be nothing at all."""
    return None if condition is None else unless(until, condition)


def until_inside(scope: Scope, group: Stage) -> Condition | None:
    """Return what ends a group, or one of those around it."""
    found = [until for until in (scope.until, group.until) if until is not None]
    return AnyOf(tuple(found)) if len(found) == 2 else found[0] if found else None


def take_condition(scope: Scope, stage: Stage) -> Condition:
    """Return what a stage takes."""
    return unless(scope.until, stage.condition or ALWAYS)


def group_goes_on(scope: Scope) -> Condition:
    """Return what lets a match go on without looking at the record: always, or until the group ends."""
    return unless(scope.until, ALWAYS)


def heads_optional_group(scope: Scope, place: int) -> bool:
    """Say whether a stage is the first one of an optional group in its first round."""
    return scope.group is not None and place == 0 and scope.first_round and scope.group.optional


def heads_optional_round(scope: Scope, place: int) -> bool:
    """Say whether a stage is the first one of a round of a group that may be left out."""
    return scope.group is not None and place == 0 and scope.may_stop


def heads_later_round(scope: Scope, place: int) -> bool:
    """Say whether a stage is the first one of a group's second round or a later one: a negation behind the group is in force there."""
    return scope.group is not None and place == 0 and not scope.first_round


def ignore_condition(scope: Scope, place: int) -> Condition | None:
    """What may be passed over before a stage's first record; None for nothing."""
    return _passed_over(scope, scope.stages[place], scope.words_before(place))


def inner_ignore_condition(scope: Scope, place: int) -> Condition | None:
    """What may be passed over between the repetitions of a stage."""
    stage = scope.stages[place]
    return _passed_over(scope, stage, stage.inner)


def _passed_over(scope: Scope, stage: Stage, words: Contiguity | Inner) -> Condition | None:
    if words in ("followed_by", "relaxed"):
        passed: Condition | None = negated(stage.condition or ALWAYS)
    else:
        passed = ALWAYS if words in ("followed_by_any", "combinations") else None
    return unless_any(scope.until, passed)
