"""What a partial match is and waits for, in words for people.

driver.explain("fraud", "ann")
[Explained(start_ms=1000, last_ms=2000, taken={"order": [Order(...), Order(...)]}, waits_for=("order",), ...)]
"""

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from engine.cep.conditions import Check
from engine.cep.states import PROCEED, TAKE, State, stops_reached


class Explained(Struct, frozen=True):
    """A partial match that is alive, or a match that is complete but may not come out yet.

    Attributes:
        start_ms, last_ms: Event time of its first and its last record.
        taken: Values that each stage took, in order of time; stages without any are left out.
        waits_for: Stages that the next record may go to, in the order of the pattern.
        ended_by: Stages of negations: a record of theirs ends it.
        dies_ms: Event time at which it ends if nothing comes (or comes out, where it waits for an absence); None for never.
        complete: It is a match already, and comes out unless a better or earlier one takes its place.
        rule, version: Of a live rule; None for a pattern that the program declares.
    """

    start_ms: int
    last_ms: int
    taken: dict[str, list[Any]]
    waits_for: tuple[str, ...]
    ended_by: tuple[str, ...]
    dies_ms: int | None
    complete: bool
    rule: str | None = None
    version: int | None = None


def ways_on(state: State) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the stages that may take the next record of a partial match in a state, and those that would end it."""
    waits_for: dict[str, None] = {}
    ended_by: dict[str, None] = {}
    seen: set[int] = set()
    open_states = [state]
    while open_states:
        here = open_states.pop()
        if here.number in seen:
            continue
        seen.add(here.number)
        for edge in here.edges:
            if edge.target.kind == "stop":
                ended_by.setdefault(edge.target.stage)
            elif edge.action == TAKE:
                waits_for.setdefault(edge.source.stage)
            elif edge.action == PROCEED:
                open_states.append(edge.target)
    return tuple(waits_for), tuple(ended_by)


def stops_of(state: State) -> Iterator[tuple[str, Check | None]]:
    """Yield the negations in force in a state, with what a record must be to fit them; None for any record."""
    for edge in stops_reached(state):
        yield edge.target.stage, edge.check


__all__ = ["Explained", "stops_of", "ways_on"]
