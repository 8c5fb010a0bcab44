"""States and edges of an automaton, and what can be said of them without looking at a record.

Greed is a matter of edges: the state behind a greedy loop lets nothing go on with a record that the loop could take, neither by
taking it nor by passing it over. Where the loop has an `until`, a record that fulfils it ends the greed with the loop: from then on
a copy of the state waits, which has its edges as they were.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from engine.cep.conditions import ALWAYS, Check, Condition, all_of, negated

Action = Literal["take", "ignore", "proceed"]
TAKE: Final = "take"
IGNORE: Final = "ignore"
PROCEED: Final = "proceed"
Kind = Literal["normal", "final", "stop", "pending"]


@dataclass(slots=True, eq=False)
class Edge:
    """A way on from `source`; `check` is the condition as a function, None where it always holds."""

    action: Action
    source: "State"
    target: "State"
    condition: Condition
    check: Check | None = None


@dataclass(slots=True, eq=False)
class State:
    """Where a partial match waits. `limit_ms` is the time since the record before, after which it takes none.

    Attributes:
        lasts_ms: The time since the record before, after which it dies: the longest limit of the states that it may proceed to.
        may_end: Edges lead from here to the end without taking a record, conditions permitting.
        pending: It is a match once the limit of the whole passes: it may proceed to where nothing must happen any more.
        stops: Edges to the stops of negations in force here. They end what goes on from here, not what waits in states before.
        ways: The other edges.
    """

    number: int
    stage: str
    kind: Kind
    limit_ms: int | None = None
    lasts_ms: int | None = None
    may_end: bool = False
    pending: bool = False
    edges: list[Edge] = field(default_factory=list)
    stops: list[Edge] = field(default_factory=list)
    ways: list[Edge] = field(default_factory=list)

    def add(self, action: Action, target: "State", condition: Condition = ALWAYS) -> None:
        """Add an edge."""
        self.edges.append(Edge(action, self, target, condition))

    def look_ahead(self) -> None:
        """Note what its edges and the states that it may proceed to mean for it; all edges are there."""
        self.stops = [edge for edge in self.edges if edge.action == PROCEED and edge.target.kind == "stop"]
        self.ways = [edge for edge in self.edges if edge not in self.stops]
        all_states = list(reached(self))
        limits = [other.limit_ms for other in all_states if any(edge.action != PROCEED for edge in other.edges)]
        self.lasts_ms = None if None in limits else max((limit for limit in limits if limit is not None), default=None)
        self.pending = any(other.kind == "pending" for other in all_states)


def may_end(state: State, passed: tuple[State, ...]) -> bool:
    """Say whether the end can be reached from a state without a record; `passed` are the states on the way to it."""
    assert state not in passed, "a group that may go round without a record is refused"
    targets = [edge.target for edge in state.edges if edge.action == PROCEED]
    ends = [target.kind == "final" or may_end(target, (*passed, state)) for target in targets]
    return any(ends)


def reached(state: State) -> Iterator[State]:
    """Yield a state and those that edges lead to from it without taking a record, the stops left out."""
    yield state
    for edge in state.edges:
        if edge.action == PROCEED and edge.target.kind != "stop":
            yield from reached(edge.target)


def stops_reached(state: State) -> Iterator[Edge]:
    """Yield the edges to the stops of negations in force in a state, or in those that it may proceed to."""
    for other in reached(state):
        yield from (edge for edge in other.edges if edge.target.kind == "stop")


def only_without(state: State, take: Condition) -> None:
    """Let nothing go on from a state with a record that the greedy loop before it could take."""
    behind = [edge.target for edge in state.edges if edge.action == PROCEED and edge.target.kind != "stop"] if is_not_next(state) else []
    for edge in state.edges:
        edge.condition = all_of(edge.condition, negated(take))
    for target in behind:
        only_without(target, take)


def turn_to(state: State, copy: State, until: Condition) -> None:
    """Let a record that ends the greedy loop before a state end its greed too: from then on it is the copy that waits."""
    for edge, other in zip(list(state.edges), copy.edges, strict=True):
        if edge.action == IGNORE:
            state.add(IGNORE, other.target, all_of(edge.condition, until))
            edge.condition = all_of(edge.condition, negated(until))
        elif is_not_next(state) and edge.target.kind != "stop":
            turn_to(edge.target, other.target, until)


def is_not_next(state: State) -> bool:
    """Say whether a state only looks at the very next record, and leaves it to the state behind."""
    return state.kind == "normal" and bool(state.edges) and all(edge.action == PROCEED for edge in state.edges)
