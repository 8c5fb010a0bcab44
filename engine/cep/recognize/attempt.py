"""The state of a key: the rows that are kept, and the attempt at a match that stands on them; and how it is stored."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from engine.cep.layout import PARTS_MIN, Parts
from engine.cep.recognize.automaton import START
from engine.cep.recognize.view import Fold, Row, View, initial_accs, next_accs
from engine.kept import kept_codec, kept_functions
from state.values import PayloadCodec, msgpack_codec

Step = tuple[int, Any, tuple[Any, ...], int]
"""A row taken: state, the step before it (None at the first one), values of the folds, and its number among the steps of the attempt
that took the row. Shared between threads."""


class Thread(NamedTuple):
    """A way through the pattern: the state it is in, and its last step (None before the first row)."""

    state: int
    step: Step | None


NO_ROWS: Step = (START, None, (), 0)
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


class AttemptLayout:
    """Writes the state of a key as MessagePack; what the folds hold is worked out anew when it is read.

    In parts (see `engine.cep.layout`): [what stands in an `Attempt` but the rows, threads (state, number of the step), candidate] ·
    of each row (timestamp, value, bits) · of each row the steps that took it (number, state, number of the step before, -1 for none).

    Args:
        value_type: Type of the values.
        labels: Variable of each state of the automaton.
        folds: What the conditions carry along a match.
    """

    parted = True

    def __init__(self, value_type: Any, labels: Sequence[int], folds: Sequence[Fold]) -> None:
        self._labels = labels
        self._folds = folds
        layout = tuple[int, list[tuple[int, value_type, int]], int, int, int, int, list[tuple[int, int]], list[tuple[int, int]], int]
        self._encode, self._decode = kept_functions(layout)
        self._decode_head = msgspec.msgpack.Decoder(tuple[int, int, int, int, int, int, list[tuple[int, int]], tuple[int, int]]).decode
        self.record_codec: PayloadCodec[Any] = kept_codec(tuple[int, value_type, int])
        self.run_codec: PayloadCodec[Any] = msgpack_codec(list[tuple[int, int, int]])

    # -- in parts

    def is_large(self, state: Attempt) -> bool:
        return len(state.rows) > PARTS_MIN

    def parts(self, state: Attempt) -> Parts:
        steps: dict[int, list[Step]] = {}
        seen: set[int] = set()
        candidate = None if state.candidate is NO_ROWS else state.candidate
        ends = [(state.cursor - 1, thread.step) for thread in state.threads]
        ends.append((state.start + _length(candidate) - 1, candidate))
        for row, step in ends:
            while step is not None and id(step) not in seen:
                seen.add(id(step))
                steps.setdefault(row, []).append(step)
                row, step = row - 1, step[1]

        def run_of(row: int) -> list[tuple[int, int, int]]:
            return [(step[3], step[0], -1 if step[1] is None else step[1][3]) for step in sorted(steps[row], key=_number_of)]

        records = dict(enumerate(state.rows, state.base))
        return Parts(
            records,
            {row: tuple(sorted(taken, key=_number_of) if len(taken) > 1 else taken) for row, taken in steps.items()},
            records.__getitem__,
            run_of,
        )

    def head(self, state: Attempt) -> bytes:
        threads = [(thread.state, -1 if thread.step is None else thread.step[3]) for thread in state.threads]
        last, length = state.candidate, 0 if state.candidate is None else _length(state.candidate)
        candidate = (-2, 0) if last is None else (-1, 0) if last is NO_ROWS else (state.start + length - 1, last[3])
        fields = (state.base, len(state.rows), state.start, state.cursor, state.matches, state.covered)
        return msgspec.msgpack.encode((*fields, threads, candidate))

    def join(self, head: bytes, records: Mapping[int, Any], runs: Mapping[int, Any]) -> Attempt:
        base, count, start, cursor, matches, covered, ways, (last, number) = self._decode_head(head)
        rows: list[Row] = [records[row] for row in range(base, base + count)]
        view = self._view(rows, base, start, matches)
        steps: dict[tuple[int, int], Step] = {}
        for row in sorted(runs):
            for own, state, before in runs[row]:
                steps[row, own] = self._step(view, row, state, None if before < 0 else steps[row - 1, before], own)
        threads = tuple(Thread(state, None if step < 0 else steps[cursor - 1, step]) for state, step in ways)
        candidate = None if last == -2 else NO_ROWS if last == -1 else steps[last, number]
        return Attempt(base, tuple(rows), start, cursor, matches, covered, threads, candidate)

    def _view(self, rows: Sequence[Row], base: int, start: int, matches: int) -> View:
        view = View()
        view.rows, view.base, view.start, view.match_number = rows, base, start, matches + 1
        return view

    def _step(self, view: View, row: int, state: int, before: Step | None, number: int) -> Step:
        """Return a step with the values of the folds after it."""
        view.number = view.position = row
        view.row = view.rows[row - view.base]
        accs = initial_accs(self._folds) if before is None else before[2]
        return state, before, next_accs(self._folds, accs, view, self._labels[state]), number

    # -- in one value

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
        view = self._view(rows, base, start, matches)
        steps: list[Step] = []
        depths: list[int] = []
        taken: dict[int, int] = {}
        for state, before in places:
            depth = 0 if before < 0 else depths[before] + 1
            number = taken[depth] = taken.get(depth, -1) + 1
            steps.append(self._step(view, start + depth, state, None if before < 0 else steps[before], number))
            depths.append(depth)
        threads = tuple(Thread(state, None if step < 0 else steps[step]) for state, step in ways)
        candidate = None if last == -2 else NO_ROWS if last == -1 else steps[last]
        return Attempt(base, tuple(rows), start, cursor, matches, covered, threads, candidate)


def _number_of(step: Step) -> int:
    return step[3]


def _length(step: Step | None) -> int:
    """Return how many rows a way has taken."""
    count = 0
    while step is not None and step is not NO_ROWS:
        count, step = count + 1, step[1]
    return count
