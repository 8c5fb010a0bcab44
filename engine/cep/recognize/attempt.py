"""The state of a key: the rows that are kept, and the attempt at a match that stands on them; and how it is stored."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from engine.cep.recognize.automaton import START
from engine.cep.recognize.view import Fold, Row, View, initial_accs, next_accs

Step = tuple[int, Any, tuple[Any, ...]]
"""A row taken: state, the step before it (None at the first one), values of the folds. Shared between threads."""


class Thread(NamedTuple):
    """A way through the pattern: the state it is in, and its last step (None before the first row)."""

    state: int
    step: Step | None


NO_ROWS: Step = (START, None, ())
"""The candidate that takes no row: the empty match."""


class Attempt(NamedTuple):
    """State of a key; rows are numbered without a gap, `base` is the number of the first one kept.

    Attributes:
        start: Row with which the present attempt begins.
        cursor: Row that comes next in it.
        matches: How many matches the key has had.
        covered: Last row that any match took.
    """

    base: int
    rows: tuple[Row, ...]
    start: int
    cursor: int
    matches: int
    covered: int
    threads: tuple[Thread, ...]
    candidate: Step | None


FIRST = Attempt(0, (), 0, 0, 0, -1, (), None)


class AttemptCodec:
    """Writes the state of a key as MessagePack; what the folds hold is worked out anew when it is read.

    Args:
        value_type: Type of the values.
        labels: Variable of each state of the automaton.
        folds: What the conditions carry along a match.
    """

    def __init__(self, value_type: Any, labels: Sequence[int], folds: Sequence[Fold]) -> None:
        self._labels = labels
        self._folds = folds
        self._encode = msgspec.msgpack.Encoder().encode
        pairs = list[tuple[int, int]]
        layout = tuple[int, list[tuple[int, value_type, int]], int, int, int, int, pairs, pairs, int]
        self._decode = msgspec.msgpack.Decoder(layout).decode

    def encode(self, state: Attempt) -> bytes:
        """Write each row and each step once.

        [base, rows, start, cursor, matches, covered, steps (state, step before or -1), threads (state, step or -1), candidate: its
        step, -1 for the empty match, -2 for none]
        """
        places: dict[int, int] = {}
        steps: list[tuple[int, int]] = []

        def place_of(step: Step | None) -> int:
            fresh: list[Step] = []
            while step is not None and id(step) not in places:
                fresh.append(step)
                step = step[1]
            before = -1 if step is None else places[id(step)]
            for step in reversed(fresh):
                before, places[id(step)] = len(steps), len(steps)
                steps.append((step[0], -1 if step[1] is None else places[id(step[1])]))
            return before

        threads = [(thread.state, place_of(thread.step)) for thread in state.threads]
        candidate = -2 if state.candidate is None else -1 if state.candidate is NO_ROWS else place_of(state.candidate)
        return self._encode((*state[:6], steps, threads, candidate))

    def decode(self, raw: bytes) -> Attempt:
        base, rows, start, cursor, matches, covered, places, ways, last = self._decode(raw)
        view = View()
        view.rows, view.base, view.start, view.match_number = rows, base, start, matches + 1
        labels, folds = self._labels, self._folds
        steps: list[Step] = []
        depths: list[int] = []
        for state, before in places:
            depth = 0 if before < 0 else depths[before] + 1
            view.number = view.position = start + depth
            view.row = rows[view.number - base]
            accs = initial_accs(folds) if before < 0 else steps[before][2]
            steps.append((state, None if before < 0 else steps[before], next_accs(folds, accs, view, labels[state])))
            depths.append(depth)
        threads = tuple(Thread(state, None if step < 0 else steps[step]) for state, step in ways)
        candidate = None if last == -2 else NO_ROWS if last == -1 else steps[last]
        return Attempt(base, tuple(rows), start, cursor, matches, covered, threads, candidate)
