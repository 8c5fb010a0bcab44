"""A row pattern as an automaton whose edges stand in order of preference.

    A (B | C)* D        start → A      A → B C D      B → B C D      C → B C D      D → (accept)

Each state is one place of a variable in the pattern, so to be in a state is to have taken a row there. Between two rows nothing
has to be decided that depends on rows, so all choices of the pattern are put into the order of the edges, once: alternatives as
they are written, one more repetition before going on (the other way round if reluctant). Accepting stands in that order too: what
comes after it is never tried, since stopping there is preferred.

A path that a loop would go without taking a row is left out: another round that takes nothing is not tried.

Source: Glushkov, "The abstract theory of automata" (1961), for the construction; the order is what a backtracking matcher tries
(Cox, "Regular Expression Matching: the Virtual Machine Approach", 2009).
"""

from dataclasses import dataclass

from engine.cep.recognize.row_pattern import Choice, PartitionStart, Repeat, RowPattern, Sequence, Variable
from engine.errors import ConfigError

STATES_MAX = 2_000
PIECES_MAX = 100_000
WAYS_MAX = 1_000_000
START = 0
ACCEPT = -1

Order = tuple[int, ...]
"""States that may come next, the preferred one first; ACCEPT among them where the match may end."""


@dataclass(frozen=True, slots=True)
class RowAutomaton:
    """States are numbered from 1; START stands before the first row.

    Attributes:
        labels: Variable of each state, by its number among the variables; -1 for START.
        excluded: Whether the state's row is left out of ALL ROWS PER MATCH.
        goes_on: For each state the states preferred to ending there, in order.
        accepts: For each state whether the match may end there.
        at_partition_start: `goes_on` and `accepts` of START before the first record of a key, where `^` holds.
        anchored: The pattern has an anchor, so it matters which record is the first.
    """

    labels: tuple[int, ...]
    excluded: tuple[bool, ...]
    goes_on: tuple[Order, ...]
    accepts: tuple[bool, ...]
    at_partition_start: tuple[Order, bool]
    anchored: bool


def compile_row_pattern(pattern: RowPattern, variables: tuple[str, ...]) -> RowAutomaton:
    """Build the automaton.

    Raises:
        ConfigError: The pattern is too large when its repetitions are written out: more than 2,000 states, or too many ways through it.
    """
    builder = _Builder(variables)
    begin = builder.piece(pattern, _Link("accept"))
    orders = [builder.order(begin, at_start=False), *(builder.order(link, at_start=False) for link in builder.after)]
    split = [_split(order) for order in orders]
    return RowAutomaton(
        (-1, *builder.labels),
        (False, *builder.excluded),
        tuple(goes_on for goes_on, _ in split),
        tuple(accepts for _, accepts in split),
        _split(builder.order(begin, at_start=True)),
        builder.anchored,
    )


def _split(order: Order) -> tuple[Order, bool]:
    return (order[: order.index(ACCEPT)], True) if ACCEPT in order else (order, False)


class _Link:
    """A point between rows: where ways go on from it depends on its kind.

    take        a row in `state`
    choice      by any of the `ways`, the first preferred; those of a loop are filled in when known
    anchor      only before the first record of a key
    round       an optional round begins; its ways are what is in it and the guard at its end
    guard       the end of an optional round; nobody passes who began the round here too, having taken nothing in it
    accept      the end
    """

    __slots__ = ("kind", "state", "ways")

    def __init__(self, kind: str, state: int = 0, ways: "tuple[_Link, ...]" = ()) -> None:
        self.kind = kind
        self.state = state
        self.ways = ways


class _Builder:
    """Builds from the end to the beginning: a piece is made for what comes after it."""

    def __init__(self, variables: tuple[str, ...]) -> None:
        self._numbers = {name: number for number, name in enumerate(variables)}
        self.labels: list[int] = []
        self.excluded: list[bool] = []
        self.after: list[_Link] = []
        self.anchored = False
        self._pieces = 0
        self._ways = 0

    def piece(self, pattern: RowPattern, after: _Link) -> _Link:
        """Return the point before a piece of the pattern that goes on to `after`."""
        self._pieces += 1
        if self._pieces > PIECES_MAX:  # there need not be a place for a row in any of them
            raise ConfigError(f"match_recognize: the pattern has more than {PIECES_MAX:,} parts when its repetitions are written out")
        if isinstance(pattern, Variable):
            if len(self.labels) == STATES_MAX:
                raise ConfigError(f"match_recognize: the pattern has more than {STATES_MAX:,} places when its repetitions are written out")
            self.labels.append(self._numbers[pattern.name])
            self.excluded.append(pattern.excluded)
            self.after.append(after)
            return _Link("take", len(self.labels))
        if isinstance(pattern, PartitionStart):
            self.anchored = True
            return _Link("anchor", ways=(after,))
        if isinstance(pattern, Choice):
            return _Link("choice", ways=tuple(self.piece(part, after) for part in pattern.parts))
        if isinstance(pattern, Sequence):
            for part in reversed(pattern.parts):
                after = self.piece(part, after)
            return after
        return self._repeat(pattern, after)

    def _repeat(self, repeat: Repeat, after: _Link) -> _Link:
        if repeat.most is None:
            point = _Link("choice")
            inside = self.piece(repeat.part, point)
            point.ways = (after, inside) if repeat.reluctant else (inside, after)
            end = point
        else:
            end = after
            for _ in range(repeat.most - repeat.least):
                guard = _Link("guard", ways=(end,))
                inside = _Link("round", ways=(self.piece(repeat.part, guard), guard))
                end = _Link("choice", ways=(after, inside) if repeat.reluctant else (inside, after))
        for _ in range(repeat.least):
            end = self.piece(repeat.part, end)
        return end

    def order(self, link: _Link, *, at_start: bool) -> Order:
        """Return what can come next at a point, the preferred first; what was reached already is not reached again."""
        found: dict[int, None] = {}
        seen: set[int] = set()
        stack: list[tuple[_Link, frozenset[int]]] = [(link, frozenset())]
        while stack:
            point, rounds = stack.pop()
            self._ways += 1
            if self._ways > WAYS_MAX:
                raise ConfigError(
                    f"match_recognize: the pattern leaves more than {WAYS_MAX:,} ways open from row to row; "
                    "make less of what is repeated very often optional"
                )
            if point.kind == "take":
                found.setdefault(point.state)
            elif point.kind == "accept":
                found.setdefault(ACCEPT)
            elif id(point) in seen or id(point) in rounds or (point.kind == "anchor" and not at_start):
                continue
            elif point.kind == "round":
                inside, guard = point.ways
                stack.append((inside, rounds | {id(guard)}))
            else:
                seen.add(id(point))
                stack.extend((way, rounds) for way in reversed(point.ways))
        return tuple(found)
