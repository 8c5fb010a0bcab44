"""The state of a key: partial matches and matches that wait, as paths of shared steps; and how it is stored."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from engine.cep.conditions import Event, Node
from engine.cep.layout import PARTS_MIN, Parts
from engine.cep.nfa import Automaton
from engine.kept import kept_codec, kept_functions
from state.values import PayloadCodec, msgpack_codec


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

StoredStep = tuple[int, int, int, int]
"""Number of the step among those that took its record, stage, and the step before it: record and number there, (-1, 0) for none."""


class PartialsLayout:
    """Partials as MessagePack: each record once, each step once, everything else by number.

    In one value: [next number, records (number, timestamp, value), steps (stage, record, step before or -1), partial matches (state,
    last step, first record), waiting matches (last step, first record, end)].

    In parts: [next number] · of each record (timestamp, value, steps) · of each first record (partial matches (state, record, number of
    the step there), waiting matches (record, number of the step there, end)).
    """

    parted = True

    def __init__(self, automaton: Automaton, value_type: Any) -> None:
        self._stages = automaton.stage_names
        self._numbers = {stage: number for number, stage in enumerate(automaton.stage_names)}
        triples = list[tuple[int, int, int]]
        layout = tuple[int, list[tuple[int, int, value_type]], triples, triples, triples]
        self._encode, self._decode = kept_functions(layout)
        self.record_codec: PayloadCodec[Any] = kept_codec(tuple[int, value_type, list[StoredStep]])
        self.run_codec: PayloadCodec[Any] = msgpack_codec(tuple[triples, triples])

    # -- in parts

    def is_large(self, state: Partials) -> bool:
        """Return whether there may be more than a few records (those since the first one of a partial match), or matches."""
        next_number, partials, waiting = state
        if len(partials) + len(waiting) > PARTS_MIN:
            return True
        oldest = partials[0].first[0] if partials else next_number
        if waiting and waiting[0].first[0] < oldest:
            oldest = waiting[0].first[0]
        return next_number - oldest > PARTS_MIN

    def head(self, state: Partials) -> bytes:
        return msgspec.msgpack.encode(state.next_number)

    def parts(self, state: Partials) -> Parts:
        records: dict[int, Event] = {}
        steps: dict[int, list[Node]] = {}
        seen: set[int] = set()
        runs: dict[int, tuple[Any, ...]] = {}
        everything: list[Partial | Waiting] = [*state.partials, *state.waiting]
        for held in everything:
            first, step = held.first[0], held.node
            runs[first] = (*runs[first], held) if first in runs else (held,)
            while step is not None and id(step) not in seen:
                seen.add(id(step))
                event = step[1]
                if event[0] in steps:
                    steps[event[0]].append(step)
                else:
                    records[event[0]], steps[event[0]] = event, [step]
                step = step[2]

        def record_of(number: int) -> tuple[int, Any, list[StoredStep]]:
            _, timestamp_ms, value = records[number]
            return timestamp_ms, value, [self._step(step) for step in steps[number]]

        return Parts(records, runs, record_of, lambda first: _stored_run(runs[first]))

    def join(self, head: bytes, records: Mapping[int, Any], runs: Mapping[int, Any]) -> Partials:
        events: dict[int, Event] = {number: (number, *records[number][:2]) for number in records}
        known: dict[tuple[int, int], Node] = {}
        stored = {(number, step[0]): step for number in records for step in records[number][2]}

        def node_of(place: tuple[int, int]) -> Node:
            open_places = []
            while place not in known:
                open_places.append(place)
                _, _, record, number = stored[place]
                if record < 0:
                    break
                place = record, number
            for place in reversed(open_places):
                number, stage, record, before = stored[place]
                known[place] = (self._stages[stage], events[place[0]], None if record < 0 else known[record, before], number)
            return known[place]

        partials: list[Partial] = []
        waiting: list[Waiting] = []
        for first in sorted(runs):
            alive, done = runs[first]
            partials += [Partial(state, node_of((record, number)), events[first]) for state, record, number in alive]
            waiting += [Waiting(node_of((record, number)), events[first], end_ms) for record, number, end_ms in done]
        return Partials(msgspec.msgpack.decode(head, type=int), tuple(partials), tuple(waiting))

    def _step(self, step: Node) -> StoredStep:
        stage, _, before, number = step
        return (number, self._numbers[stage], -1, 0) if before is None else (number, self._numbers[stage], before[1][0], before[3])

    # -- in one value

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
        taken = [0] * len(records)
        for stage, event, before in steps:
            nodes.append((self._stages[stage], records[event], None if before < 0 else nodes[before], taken[event]))
            taken[event] += 1
        return Partials(
            next_number,
            tuple(Partial(state, nodes[node], records[first]) for state, node, first in partials),
            tuple(Waiting(nodes[node], records[first], end_ms) for node, first, end_ms in waiting),
        )


def _stored_run(held: Iterable[Any]) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """Return the partial and waiting matches that began with the same record as they are stored."""
    alive = [(one.state, one.node[1][0], one.node[3]) for one in held if isinstance(one, Partial)]
    return alive, [(one.node[1][0], one.node[3], one.end_ms) for one in held if isinstance(one, Waiting)]
