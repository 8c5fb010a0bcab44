"""Runs an automaton over the records of a key.

    state, records of the key in order  ──►  new state, matches and time-outs in the order in which they are certain

The state of a key (`Partials`) holds partial matches as paths of shared steps: a path's last step points to the one before it, so
matches that begin alike share their beginning, and each record is kept once however many partial matches took it. This does what
the versioned buffer of SASE does (Agrawal et al., SIGMOD 2008), by persistent lists. All of it is immutable: a step makes a new
state, so that undo is keeping the old one, and two partial matches can never disturb each other.

Time moves before a record is tried: partial matches whose limit is at or below its timestamp die first, at their limit. A partial
match that waits at the end for nothing to happen (`not_followed_by`) becomes a match then.

The start is not kept: every record may begin a match. Partial matches stay sorted by where they began, which is the order in
which skipping looks at them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from engine.cep.conditions import Event, Node, PartialMatch, TakenBy, path_of, taken_by
from engine.cep.explain import Explained, stops_of, ways_on
from engine.cep.layout import Layout
from engine.cep.match import Match, TimedOut
from engine.cep.nfa import Automaton
from engine.cep.partials import EMPTY, Partial, Partials, PartialsLayout, Waiting
from engine.cep.skip import Skip
from engine.cep.states import IGNORE, PROCEED, State
from engine.cep.story import Told, failed, matched, timed_out
from engine.errors import RecordError

OnTooMany = Literal["drop_oldest", "drop_newest", "fail"]
NEVER = 2**63 - 1
RECORDS_MAX = 100_000
"""Default limit on what partial matches of a key hold."""

Shape = Callable[[Any, Sequence[TakenBy]], Any]
"""Makes what comes out of a match from its key and its records."""


@dataclass(slots=True)
class Found:
    """What came out: matches with the time at which each was certain, time-outs likewise, and partial matches given up.

    `story` takes what became of partial matches, with their key; None if nobody wants to know.
    """

    times: list[int] = field(default_factory=list)
    matches: list[Match[Any]] = field(default_factory=list)
    timeout_times: list[int] = field(default_factory=list)
    timeouts: list[TimedOut[Any]] = field(default_factory=list)
    dropped_partials: int = 0
    story: list[tuple[Any, Told]] | None = None


class Matcher(Protocol):
    """Finds a pattern in the records of one key after another. The state of a key is immutable; None for nothing kept.

    Attributes:
        layout: How states are stored.
    """

    @property
    def layout(self) -> Layout: ...

    def run(
        self, state: Any, key: Any, records: Sequence[tuple[int, Any]], until_ms: int, found: Found, begin_before_ms: int = NEVER
    ) -> Any:
        """Take the next records of a key, then let time go on; return the new state.

        Args:
            records: (timestamp in ms, value), sorted by time; none below a time that the state has seen.
            until_ms: Time after the last record, at or above it.
            found: Takes what comes out, in order.
            begin_before_ms: No match begins with a record of this time or later; the state goes when nothing can come of it.
        """
        ...

    def deadline_ms(self, state: Any) -> int:
        """Return the earliest time at which something happens without a record, NEVER for none."""
        ...

    def explain(self, state: Any) -> list[Explained]:
        """Return the partial matches of a key, by where they began."""
        ...


def give_up(alive: list[Any], kept: int, what: str, limit: int, on_too_many: OnTooMany, key: Any, found: Found) -> None:
    """Forget partial matches, sorted by their first record, until so many are kept.

    Args:
        what: Of what there are more than `limit`: "partial matches" or "records in partial matches".
    Raises:
        RecordError: `on_too_many` is "fail".
    """
    if on_too_many == "fail":
        option = "max_partials" if what == "partial matches" else "max_records"
        raise RecordError(f"key {key!r} has more than {limit} {what} of the pattern ({option})")
    surplus = len(alive) - kept
    found.dropped_partials += surplus
    if on_too_many == "drop_oldest":
        del alive[:surplus]
    else:
        del alive[kept:]


class NfaMatcher:
    """The matcher for any pattern.

    Args:
        value_type: Type of the values, for storing them.
        timeouts: Report partial matches that run out of time.
        max_partials: Limit on the partial matches of a key; `on_too_many` says which ones go beyond it, or that the record fails.
        max_records: Limit on the steps that partial and waiting matches of a key hold: a record that a stage has taken, once for all
            matches that share the way to it. They are counted from time to time, the more often the faster they can grow, at
            records that do not depend on batches or restarts: there may be an eighth more in between. `on_too_many` as above.
        shape: Makes what comes out of a match; None for `Match` records.
    """

    def __init__(
        self,
        automaton: Automaton,
        skip: Skip,
        *,
        value_type: Any = Any,
        timeouts: bool = False,
        max_partials: int = 10_000,
        max_records: int = RECORDS_MAX,
        on_too_many: OnTooMany = "drop_oldest",
        shape: Shape | None = None,
    ) -> None:
        self._automaton = automaton
        self._skip = skip
        self._shape = shape
        self._timeouts = timeouts
        self._max_partials = max_partials
        self._max_records = max_records
        self._on_too_many = on_too_many
        self.layout: Layout = PartialsLayout(automaton, value_type)

    def run(
        self,
        state: Partials | None,
        key: Any,
        records: Sequence[tuple[int, Any]],
        until_ms: int,
        found: Found,
        begin_before_ms: int = NEVER,
    ) -> Partials | None:
        now = EMPTY if state is None else state
        for timestamp_ms, value in records:
            now = self._advance(now, key, timestamp_ms, found)
            if not now.partials and not now.waiting:
                now = EMPTY  # as it would be had the records before been a batch of their own
            now = self._take(now, key, timestamp_ms, value, found, may_begin=timestamp_ms < begin_before_ms)
        now = self._advance(now, key, until_ms, found)
        return now if now.partials or now.waiting else None

    def deadline_ms(self, state: Partials) -> int:
        if self._automaton.stepwise:
            return min(map(self._deadline, state.partials), default=NEVER)
        within_ms = self._automaton.within_ms
        return NEVER if within_ms is None or not state.partials else state.partials[0].first[1] + within_ms

    def explain(self, state: Partials) -> list[Explained]:
        found: list[Explained] = []
        for partial in state.partials:
            waits_for, ended_by = ways_on(self._automaton.states[partial.state])
            dies_ms: int | None = self._deadline(partial)
            if dies_ms == NEVER:
                dies_ms = None
            taken, last_ms = taken_by(partial.node), partial.node[1][1]
            found.append(Explained(partial.first[1], last_ms, taken, waits_for, ended_by, dies_ms, complete=False))
        for node, first, _ in state.waiting:
            found += [Explained(first[1], node[1][1], taken_by(node), (), (), None, complete=True)]
        return sorted(found, key=lambda one: one.start_ms)

    # -- time

    def _deadline(self, partial: Partial) -> int:
        within_ms = self._automaton.within_ms
        lasts_ms = self._automaton.states[partial.state].lasts_ms
        deadline = NEVER if within_ms is None else partial.first[1] + within_ms
        return deadline if lasts_ms is None else min(deadline, partial.node[1][1] + lasts_ms)

    def _advance(self, now: Partials, key: Any, to_ms: int, found: Found) -> Partials:
        while now.partials and (due_ms := self.deadline_ms(now)) <= to_ms:
            alive: list[Partial] = []
            finished: list[Waiting] = []
            for partial in now.partials:
                if self._deadline(partial) > due_ms:
                    alive.append(partial)
                elif self._automaton.states[partial.state].pending:
                    finished.append(Waiting(partial.node, partial.first, due_ms))
                else:
                    self._time_out(key, partial, due_ms, found)
            now = self._settle(now.next_number, key, alive, now.waiting, finished, due_ms, found)
        return now

    def _time_out(self, key: Any, partial: Partial, due_ms: int, found: Found) -> None:
        if not self._timeouts and found.story is None:
            return
        waits_for, _ = ways_on(self._automaton.states[partial.state])
        first_ms = partial.first[1]
        if self._timeouts:
            found.timeout_times.append(due_ms)
            found.timeouts.append(TimedOut(key, first_ms, due_ms, self._stages(partial.node), waits_for))
        if found.story is not None:
            found.story.append((key, timed_out(first_ms, due_ms, self._taken(partial.node), waits_for)))

    # -- records

    def _take(self, now: Partials, key: Any, timestamp_ms: int, value: Any, found: Found, *, may_begin: bool) -> Partials:
        event: Event = (now.next_number, timestamp_ms, value)
        look = PartialMatch(key, timestamp_ms, value, self._automaton.stage_names)
        alive: list[Partial] = []
        finished: list[Waiting] = []
        states = self._automaton.states
        for partial in now.partials:
            before = len(alive) + len(finished)
            self._step(look, event, states[partial.state], partial, alive, finished)
            if found.story is not None and len(alive) + len(finished) == before:
                waits_for, _ = ways_on(states[partial.state])
                unwanted = [stage for stage, check in stops_of(states[partial.state]) if check is None or check(look)]
                found.story.append((key, failed(partial.first[1], timestamp_ms, self._taken(partial.node), waits_for, unwanted)))
        if may_begin:
            self._step(look, event, self._automaton.start, None, alive, finished)
        if not alive and not now.waiting and not finished:
            return EMPTY
        if len(alive) > self._max_partials:
            give_up(alive, self._max_partials, "partial matches", self._max_partials, self._on_too_many, key, found)
        # By the number of the record, so that batches and restarts change nothing.
        if event[0] % max(self._max_records // (8 * len(alive) + 8), 1) == 0:
            self._hold_less(alive, [*now.waiting, *finished], key, found)
        return self._settle(event[0] + 1, key, alive, now.waiting, finished, timestamp_ms, found)

    def _step(
        self, look: PartialMatch, event: Event, state: State, partial: Partial | None, alive: list[Partial], finished: list[Waiting]
    ) -> None:
        """Hold a record against one partial match (None: against the start) and add where it goes on, and matches it becomes."""
        node = None if partial is None else partial.node
        first = event if partial is None else partial.first
        look.at(node, None if partial is None else first[1])
        goes_on: list[Partial] = alive
        open_states = [state]
        stopped_from = -1  # how many states were open when a negation ended what goes on from one: those above come from it
        while open_states:
            here = open_states.pop()
            if len(open_states) < stopped_from or stopped_from < 0:
                stopped_from, goes_on = -1, alive
                if here.stops and any(edge.check is None or edge.check(look) for edge in here.stops):
                    stopped_from, goes_on = len(open_states), []
            # Too late for this stage: what comes after it, if it may be left out, is still possible.
            expired = here.limit_ms is not None and node is not None and event[1] - node[1][1] >= here.limit_ms
            for edge in here.ways:
                if (expired and edge.action != PROCEED) or (edge.check is not None and not edge.check(look)):
                    continue
                target = edge.target
                if edge.action == PROCEED:
                    open_states.append(target)
                elif edge.action == IGNORE:
                    if node is None:
                        continue
                    if target.kind == "final":
                        finished.append(Waiting(node, first, event[1]))
                    elif partial is not None:
                        goes_on.append(partial if partial.state == target.number else Partial(target.number, node, first))
                else:
                    taken: Node = (edge.source.stage, event, node, look.next_step())
                    if target.kind != "final":
                        goes_on.append(Partial(target.number, taken, first))
                    if target.kind == "final" or (target.may_end and _leads_to_end(look, target)):
                        finished.append(Waiting(taken, first, event[1]))

    def _hold_less(self, alive: list[Partial], waiting: list[Waiting], key: Any, found: Found) -> None:
        """Give partial matches up until what is held is within the limit; a match waits no longer once they are gone."""
        seen: set[int] = set()
        fresh = [_fresh_steps(one.node, seen) for one in waiting]
        room = self._max_records - sum(fresh)
        # Those to be kept first come first, so that a shared way counts for what is kept.
        order = reversed(alive) if self._on_too_many == "drop_oldest" else iter(alive)
        kept = 0
        for partial in order:
            room -= _fresh_steps(partial.node, seen)
            if room < 0:
                break
            kept += 1
        if kept < len(alive):
            give_up(alive, kept, "records in partial matches", self._max_records, self._on_too_many, key, found)

    # -- matches

    def _settle(
        self,
        next_number: int,
        key: Any,
        alive: list[Partial],
        waiting: Sequence[Waiting],
        finished: list[Waiting],
        now_ms: int,
        found: Found,
    ) -> Partials:
        """Let those matches out whose turn it is, and drop what they make obsolete."""
        if self._skip.kind == "none":
            for match in finished:
                self._emit(key, match, now_ms, found)
            return Partials(next_number, tuple(alive), ())
        if not waiting and not finished:
            return Partials(next_number, tuple(alive), ())
        queue = sorted((*waiting, *finished), key=_began)
        while queue and (not alive or queue[0].first[0] <= alive[0].first[0]):
            match = queue.pop(0)
            obsolete = self._skip.dropped_up_to(match.node)
            alive = [partial for partial in alive if partial.first[0] > obsolete]
            queue = [other for other in queue if other.first[0] > obsolete]
            self._emit(key, match, now_ms, found)
        return Partials(next_number, tuple(alive), tuple(queue))

    def _emit(self, key: Any, match: Waiting, now_ms: int, found: Found) -> None:
        found.times.append(now_ms)
        found.matches.append(self._match(key, match.node, match.first, match.end_ms))
        if found.story is not None:
            found.story.append((key, matched(match.first[1], now_ms, self._taken(match.node))))

    def _taken(self, node: Node) -> dict[str, list[Any]]:
        taken = taken_by(node)
        return {stage: taken[stage] for stage in self._automaton.stage_names if stage in taken}

    def _match(self, key: Any, node: Node, first: Event, end_ms: int) -> Any:
        if self._shape is not None:
            return self._shape(key, path_of(node))
        return Match(key, first[1], end_ms, self._stages(node))

    def _stages(self, node: Node) -> dict[str, list[Any]]:
        taken = taken_by(node)
        return {stage: taken.get(stage, []) for stage in self._automaton.stage_names}


def _began(match: Waiting) -> int:
    return match.first[0]


def _fresh_steps(node: Node, seen: set[int]) -> int:
    """Return how many steps of a path have not been seen, and note them."""
    count, step = 0, node
    while step is not None and id(step) not in seen:
        seen.add(id(step))
        count, step = count + 1, step[2]
    return count


def _leads_to_end(look: PartialMatch, state: State) -> bool:
    """Say whether a match is complete at a state: the rest of the pattern is optional."""
    open_states = [state]
    while open_states:
        for edge in open_states.pop().edges:
            if edge.action == PROCEED and (edge.check is None or edge.check(look)):
                if edge.target.kind == "final":
                    return True
                open_states.append(edge.target)
    return False
