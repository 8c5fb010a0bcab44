"""What an automaton's edges ask for: the conditions of a stage by its words and by the group that it stands in.

The head of a group obeys the group's words: those before the group for its first round, those between rounds for the others. A
group's `until` ends every edge inside it that takes a record or passes it over; to leave the group is always possible, so that what is
behind it may pass over the record that ends it (in Apache Flink, which ends those edges too, a part left out at the end of the group makes
the match end there).
"""

from dataclasses import dataclass

from engine.cep.conditions import ALWAYS, AnyOf, Condition, all_of, negated
from engine.cep.pattern import Contiguity, Inner, Stage, surely_takes
from engine.cep.states import State

Negations = tuple[tuple[Stage, Condition], ...]
"""Negations, each with what it does not want."""


@dataclass(slots=True)
class Scope:
    """A sequence of stages that is being compiled: the whole pattern or a group of it.

    `words` say what may lie before the head of a group; `first_round` tells the head of a repeated group whether it stands for the
    group's first round; `may_stop` that the match may also go on without the round that the head begins; `until` ends the groups that the
    stages stand in.

    Negations: `after` are those that come right behind the group, and `over` says that the group may be over after this round; `in_force`
    are those in force when the head of the group begins; `ends` says of states to which rounds around here lead which negations are in
    force from there on, whatever the stages have taken.
    """

    stages: tuple[Stage, ...]
    group: Stage | None = None
    words: Contiguity | Inner = "begin"
    first_round: bool = True
    after: tuple[Stage, ...] = ()
    may_stop: bool = False
    until: Condition | None = None
    over: bool = True
    in_force: Negations = ()
    ends: tuple[tuple[State, frozenset[str]], ...] = ()

    def nots_after(self, place: int) -> tuple[Stage, ...]:
        """Return the negations right behind a stage, those behind the group if the stage is its last one."""
        found: list[Stage] = []
        for stage in self.stages[place + 1 :]:
            if not stage.is_not:
                return tuple(found)
            found.append(stage)
        return (*found, *self.after)

    def may_be_over(self, place: int) -> bool:
        """Say whether what stands right behind a stage may come next when the stage is over."""
        return place + 1 < len(self.stages) or self.over

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


def heads_optional_group(scope: Scope, place: int) -> bool:
    """Say whether a stage is the first one of an optional group in its first round."""
    return scope.group is not None and place == 0 and scope.first_round and scope.group.optional


def heads_optional_round(scope: Scope, place: int) -> bool:
    """Say whether a stage is the first one of a round of a group that may be left out."""
    return scope.group is not None and place == 0 and scope.may_stop


def nots_before(scope: Scope, place: int) -> Negations:
    """Return the negations in force when a stage begins: right before it, or before stages before it that may be left out."""
    found: list[tuple[Stage, Condition]] = []
    while place > 0 and (scope.stages[place - 1].contiguity == "not_followed_by" or may_be_left_out(scope.stages[place - 1])):
        place -= 1
        before = scope.stages[place]
        if before.contiguity == "not_followed_by":
            found.append((before, take_condition(scope, before)))
    return (*found, *scope.in_force) if place == 0 else tuple(found)


def has_nots_before(scope: Scope, place: int) -> bool:
    """Say whether some of them stand in the same group, only optional stages between."""
    while place > 0 and scope.stages[place - 1].optional:
        place -= 1
    return place > 0 and scope.stages[place - 1].contiguity == "not_followed_by"


def may_be_left_out(stage: Stage) -> bool:
    """Say whether a match may go on without a record of a stage or a group."""
    return not stage.is_not and not surely_takes(stage)


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
