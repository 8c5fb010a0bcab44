"""Conditions: what a stage wants of a record, told apart at declaration by how many arguments they take.

    f(value)           decides by the record alone: evaluated once a record, whatever the number of partial matches
    f(value, match)    also sees the partial match: match["stage"], match.timestamp_ms, match.start_ms, match.key

Conditions combine into small trees (`AllOf`, `AnyOf`, `Not`), and a tree becomes one function of a `PartialMatch`: a
record held against what has been taken before it.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import ConfigError
from engine.functions import refuse_async

Event = tuple[int, int, Any]
"""A record that a partial match has taken: number (its place among the records of the key), timestamp in ms, value."""

Node = tuple[str, Event, Any, int]
"""One step of a partial match: stage, record, the step before it (a Node, or None at the first one), and its number among the steps
that took the record. Shared between matches."""

TakenBy = tuple[str, int, Any]
"""A record of a match as others see it: stage, timestamp in ms, value."""

User = Callable[..., Any]


@dataclass(frozen=True, slots=True, eq=False)
class Predicate:
    """A function of the user's; `wants_match` says that it takes the partial match too."""

    function: User
    wants_match: bool


@dataclass(frozen=True, slots=True, eq=False)
class AllOf:
    """Every part must hold; no parts: always true."""

    parts: tuple["Condition", ...]


@dataclass(frozen=True, slots=True, eq=False)
class AnyOf:
    """At least one part must hold."""

    parts: tuple["Condition", ...]


@dataclass(frozen=True, slots=True, eq=False)
class Not:
    """The part must not hold."""

    part: "Condition"


Condition = Predicate | AllOf | AnyOf | Not
ALWAYS = AllOf(())


class PartialMatch:
    """A record held against a partial match: what a condition `f(value, match)` gets as its second argument.

    Attributes:
        key: Key of the records.
        timestamp_ms: Event time of the present record.
    """

    __slots__ = ("_first_ms", "_known", "_node", "_stages", "_steps", "_taken", "key", "timestamp_ms", "value")

    def __init__(self, key: Any, timestamp_ms: int, value: Any, stages: Sequence[str]) -> None:
        self.key = key
        self.timestamp_ms = timestamp_ms
        self.value = value
        self._stages = stages
        self._known: dict[int, bool] = {}  # by the identity of the function: stages that ask the same share it
        self._node: Node | None = None
        self._first_ms: int | None = None
        self._taken: dict[str, list[Any]] | None = None
        self._steps = 0

    def next_step(self) -> int:
        """Return the number of the next step that takes the record; it is for the matcher."""
        self._steps += 1
        return self._steps - 1

    def at(self, node: Node | None, first_ms: int | None) -> None:
        """Turn to another partial match; what is known of the record alone stays known."""
        self._node = node
        self._first_ms = first_ms
        self._taken = None

    @property
    def start_ms(self) -> int:
        """Event time of the first record of the partial match; of the present record when there is none yet."""
        return self.timestamp_ms if self._first_ms is None else self._first_ms

    def __getitem__(self, stage: str) -> list[Any]:
        """Return the values that a stage has taken so far, in order; [] for none."""
        if self._taken is None:
            self._taken = taken_by(self._node)
        values = self._taken.get(stage)
        if values is not None:
            return values
        if stage not in self._stages:
            raise KeyError(f"the pattern has no stage {stage!r}; it has {', '.join(self._stages)}")
        return []

    def path(self) -> list[TakenBy]:
        """Return the records taken so far, in order."""
        return path_of(self._node)


Check = Callable[[PartialMatch], bool]


def path_of(node: Node | None) -> list[TakenBy]:
    """Return the records of a path, in order of time."""
    path: list[TakenBy] = []
    while node is not None:
        stage, event, node, _ = node
        path.append((stage, event[1], event[2]))
    path.reverse()
    return path


def taken_by(node: Node | None) -> dict[str, list[Any]]:
    """Return the values of each stage of a path, in order of time; stages without any are left out."""
    taken: dict[str, list[Any]] = {}
    while node is not None:
        stage, event, node, _ = node
        taken.setdefault(stage, []).append(event[2])
    for values in taken.values():
        values.reverse()
    return taken


def condition(function: User, what: str) -> Predicate:
    """Return a user's function as a condition.

    Raises:
        ConfigError: Not callable, or callable neither with (value) nor with (value, match).
    """
    if not callable(function):
        raise ConfigError(f"{what}: {function!r} is not a condition; give a function f(value) or f(value, match)")
    refuse_async(function, what)
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return Predicate(function, wants_match=False)  # a builtin that does not tell: they take the value
    for arguments in (1, 2):
        try:
            signature.bind(*([None] * arguments))
        except TypeError:
            continue
        return Predicate(function, wants_match=arguments == 2)
    raise ConfigError(f"{what}: a condition is f(value) or f(value, match), but this one takes {signature}")


def all_of(*parts: Condition | None) -> Condition:
    """Return the conjunction, as flat as possible; None stands for always true."""
    flat: list[Condition] = []
    for part in parts:
        if isinstance(part, AllOf):
            flat.extend(part.parts)
        elif part is not None:
            flat.append(part)
    return flat[0] if len(flat) == 1 else AllOf(tuple(flat))


def negated(part: Condition) -> Condition:
    """Return the opposite."""
    return part.part if isinstance(part, Not) else Not(part)


def wants_match(part: Condition) -> bool:
    """Say whether anything in the tree looks at the partial match."""
    if isinstance(part, Predicate):
        return part.wants_match
    if isinstance(part, Not):
        return wants_match(part.part)
    return any(map(wants_match, part.parts))


def check_of(part: Condition) -> Check | None:
    """Return the tree as one function of a PartialMatch, None where it always holds."""
    if isinstance(part, Predicate):
        return _check_predicate(part)
    if isinstance(part, Not):
        inner = check_of(part.part)
        return _never if inner is None else lambda look: not inner(look)
    checks = [check_of(inner) for inner in part.parts]
    if isinstance(part, AnyOf):
        if None in checks:
            return None
        some = [check for check in checks if check is not None]
        return lambda look: any(check(look) for check in some)
    needed = [check for check in checks if check is not None]
    if len(needed) <= 1:
        return needed[0] if needed else None
    return lambda look: all(check(look) for check in needed)


def predicate_of(part: Condition) -> Callable[[Any], Any] | None:
    """Return a tree that does not look at the partial match as one function of the value, None where it always holds."""
    assert not wants_match(part)
    if isinstance(part, Predicate):
        return part.function
    check = check_of(part)
    return None if check is None else lambda value: check(PartialMatch(None, 0, value, ()))


def _check_predicate(test: Predicate) -> Check:
    function = test.function
    if test.wants_match:
        return lambda look: bool(function(look.value, look))

    place = id(function)

    def check(look: PartialMatch) -> bool:
        known = look._known.get(place)
        if known is None:
            known = look._known[place] = bool(function(look.value))
        return known

    return check


def _never(look: PartialMatch) -> bool:
    return False
