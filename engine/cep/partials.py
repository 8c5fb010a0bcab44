"""The state of a key: partial matches and matches that wait, as paths of shared steps; and how it is stored."""

from typing import Any, NamedTuple

import msgspec

from engine.cep.conditions import Event, Node
from engine.cep.nfa import Automaton


class Partial(NamedTuple):
    """A partial match: number of the automaton's state, last step, first record."""

    state: int
    node: Node
    first: Event


class Waiting(NamedTuple):
    """A finished match that waits for partial matches that began earlier: last step, first record, its end in ms."""

    node: Node
    first: Event
    end_ms: int


class Partials(NamedTuple):
    """State of a key: number for its next record, partial and waiting matches, both sorted by their first record."""

    next_number: int
    partials: tuple[Partial, ...]
    waiting: tuple[Waiting, ...]


EMPTY = Partials(0, (), ())


class PartialsCodec:
    """Partials as MessagePack: each record once, each step once, everything else by number.

    [next number, records (number, timestamp, value), steps (stage, record, step before or -1), partial matches (state, last step,
    first record), waiting matches (last step, first record, end)]
    """

    def __init__(self, automaton: Automaton, value_type: Any) -> None:
        self._stages = automaton.stage_names
        self._numbers = {stage: number for number, stage in enumerate(automaton.stage_names)}
        self._encode = msgspec.msgpack.Encoder().encode
        triples = list[tuple[int, int, int]]
        layout = tuple[int, list[tuple[int, int, value_type]], triples, triples, triples]
        self._decode = msgspec.msgpack.Decoder(layout).decode

    def encode(self, state: Partials) -> bytes:
        events: dict[int, int] = {}
        records: list[Event] = []
        places: dict[int, int] = {}
        steps: list[tuple[int, int, int]] = []

        def event_place(event: Event) -> int:
            place = events.get(event[0])
            if place is None:
                place = events[event[0]] = len(records)
                records.append(event)
            return place

        def node_place(node: Node) -> int:
            fresh: list[Node] = []
            step: Node | None = node
            while step is not None and id(step) not in places:
                fresh.append(step)
                step = step[2]
            before = -1 if step is None else places[id(step)]
            for step in reversed(fresh):
                places[id(step)] = len(steps)
                steps.append((self._numbers[step[0]], event_place(step[1]), before))
                before = len(steps) - 1
            return before

        partials = [(partial.state, node_place(partial.node), event_place(partial.first)) for partial in state.partials]
        waiting = [(node_place(match.node), event_place(match.first), match.end_ms) for match in state.waiting]
        return self._encode((state.next_number, records, steps, partials, waiting))

    def decode(self, raw: bytes) -> Partials:
        next_number, records, steps, partials, waiting = self._decode(raw)
        nodes: list[Node] = []
        for stage, event, before in steps:
            nodes.append((self._stages[stage], records[event], None if before < 0 else nodes[before]))
        return Partials(
            next_number,
            tuple(Partial(state, nodes[node], records[first]) for state, node, first in partials),
            tuple(Waiting(nodes[node], records[first], end_ms) for node, first, end_ms in waiting),
        )
