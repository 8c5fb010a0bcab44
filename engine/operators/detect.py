"""`detect`: finds a pattern in the records of each key, in event-time order.

    records by arrival ──► pending (until the watermark has passed them) ──► by time, ties by arrival ──► matcher of the key

A record is late, counted and sent to `late_to`, when the watermark has reached its time before it comes. A match comes out at the
time at which it is certain: that of its last record, or the limit that makes an absence certain, or, where a match waits for an
earlier one, the end of that wait. That is the timestamp of its record, so a match is never late downstream.

State, all of it gone when nothing is pending or half matched:

    pending     records that wait for the watermark (`engine.operators.pending`)
    partials    key -> what the matcher keeps, and the time under which `deadlines` has the key
    records, runs    what is large of it (`engine.operators.shared_buffer`)
    deadlines   panes: key -> when to look at the key again although no record came. Never later than something happens there;
                it may be earlier, so that a deadline that moves back need not be moved in state each time
                (plain sequences keep it more simply: `engine.operators.expiring`)

A block is worked on as a whole: records are gathered by key, the state of a key is touched once, and what comes out is sorted by
time and key bytes, which is the order in which it would have come out record by record.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heapreplace
from typing import Any, Literal, cast

from engine.block import Block, advance
from engine.cep.layout import Kept
from engine.cep.linear import LinearMatcher, RepetitionMatcher, linear_matcher
from engine.cep.match import Match
from engine.cep.matcher import NEVER, RECORDS_MAX, Found, Matcher, NfaMatcher, OnTooMany
from engine.cep.nfa import compile_pattern
from engine.cep.pattern import Pattern
from engine.cep.skip import Skip
from engine.cep.skip import none as no_skip
from engine.errors import ConfigError
from engine.keys import key_codec
from engine.operators.arrivals import Arrivals, Ties
from engine.operators.base import Operator, OperatorContext, Reach
from engine.operators.expiring import ExpiringStates
from engine.operators.history import History
from engine.operators.pending import PENDING_MS, Pair
from engine.operators.shared_buffer import SharedBuffer
from state.values import msgpack_codec


def detect_operator(
    pattern: Pattern,
    *,
    skip: Skip = no_skip,
    timeouts_to: str | None = None,
    late_to: str | None = None,
    value_type: Any = Any,
    key_type: Any = str,
    max_partials: int = 10_000,
    max_records: int = RECORDS_MAX,
    on_too_many: OnTooMany = "drop_oldest",
    ties: Ties | None = None,
    matcher: Literal["best", "general"] = "best",
    history: int = 0,
) -> Callable[[OperatorContext], "Detect"]:
    """Compile a pattern and return what makes its operator.

    Args:
        timeouts_to: Topic for partial matches that ran out of time, as `TimedOut` records at that time.
        late_to: Topic for late records.
        max_partials: Limit on the partial matches of a key; `max_records`: on the records that they hold (see `NfaMatcher`).
            `on_too_many`: what happens beyond them: "drop_oldest" or "drop_newest" forgets partial matches (counted as
            "dropped_partials"), "fail" makes the record a bad one.
        ties: Sorts records of the same time by what this gives for their value; otherwise they keep the order of arrival.
        history: How many matches and near misses of each key are kept.
        matcher: "general" for the matcher of all patterns even where a faster one gives the same.
    Raises:
        ConfigError: The pattern cannot be matched.
    """
    automaton = compile_pattern(pattern, skip)
    if timeouts_to is not None and not automaton.timed:
        raise ConfigError("detect(timeouts_to=…): without a limit nothing runs out of time; give the pattern one with within(…)")
    if timeouts_to is not None and timeouts_to == late_to:
        raise ConfigError(f"detect: timeouts_to and late_to are the same topic {late_to!r}; give each its own")
    limits: Any = {"value_type": value_type, "max_partials": max_partials, "max_records": max_records, "on_too_many": on_too_many}
    found: Matcher | None = None
    if matcher == "best" and timeouts_to is None:
        found = linear_matcher(pattern, skip, **limits)
    chosen: Matcher = found or NfaMatcher(automaton, skip, timeouts=timeouts_to is not None, **limits)
    within_ms = automaton.within_ms or PENDING_MS
    pane_ms = min(max(within_ms // 256, PENDING_MS), 3_600_000)

    def make(context: OperatorContext) -> "Detect":
        return Detect(
            context,
            chosen,
            key_type=key_type,
            value_type=value_type,
            timeouts_to=timeouts_to,
            late_to=late_to,
            ties=ties,
            deadline_pane_ms=pane_ms,
            panes_a_step=max(within_ms // 16 // pane_ms, 1),
            history=history,
            within_ms=automaton.within_ms or sum(state.limit_ms or 0 for state in automaton.states),
        )

    return make


def _places(time_ms: int, match: Any) -> tuple[int, ...]:
    """Return where the trace of a match is looked for; a row that SQL made tells only when it came out."""
    return (match.end_ms, time_ms, match.start_ms) if isinstance(match, Match) else (time_ms,)


class Detect(Operator):
    """Find a pattern in the records of a task; make one with `detect_operator`."""

    def __init__(
        self,
        context: OperatorContext,
        matcher: Matcher,
        *,
        key_type: Any,
        value_type: Any,
        timeouts_to: str | None,
        late_to: str | None,
        ties: Ties | None,
        deadline_pane_ms: int,
        panes_a_step: int = 1,
        history: int = 0,
        within_ms: int = 0,
    ) -> None:
        super().__init__(context)
        self._matcher = matcher
        self.reach = Reach(lambda time_ms, value: time_ms, _places, within_ms, by_time=True)
        self._timeouts_to = timeouts_to
        self._pane_ms = deadline_pane_ms
        self._history = History(context, key_codec(key_type), history)
        key, state = key_codec(key_type), context.state
        self._arrivals = Arrivals(context, key, value_type, late_to=late_to, ties=ties)
        self._buffer = SharedBuffer(state, context.state_name(""), key, matcher.layout)
        self._partials = state.keyed(context.state_name("partials"), key, self._buffer.codec)
        self._buffer.serve(state, self._partials.get)
        self._deadlines = state.panes(context.state_name("deadlines"), key, msgpack_codec(int))
        # A history tells of what runs out when it does, not somewhat later.
        is_plain = isinstance(matcher, (LinearMatcher, RepetitionMatcher)) and not history
        step_ms = deadline_pane_ms * panes_a_step
        self._expiring = ExpiringStates(matcher, self._partials, self._buffer, self._deadlines, step_ms) if is_plain else None

    def process(self, block: Block, port: int = 0) -> None:
        """Take a block in, and give out what its watermark makes certain."""
        if self.context.careful:
            self._process_singly(block)
            return
        due = self._due(block)
        found = Found(story=self._history.begin())
        watermark = block.watermark
        if self._expiring is not None:
            self._expiring.advance(due, watermark, found)
        else:
            self._advance(due, watermark, found)
        self._count_dropped(found)
        self._history.remember(found.story)
        if found.timeouts:
            self._send_timeouts(found)
        times, matches = self._in_order(found.times, found.matches)
        start = block.start
        before = [time - 1 if time > start else start for time in times]
        self.emit(Block([match.key for match in matches], matches, times, start, watermark, before))

    def _advance(self, due: Mapping[Any, list[Pair]], watermark: int, found: Found) -> None:
        """Let the matcher take the records that are due, key by key."""
        run, get, kept_of, state_of = self._matcher.run, self._partials.get, self._kept, self._buffer.state_of
        new_deadlines: dict[int, dict[Any, int]] = {}
        for key, records in due.items():
            old = get(key)
            state = run(None if old is None else state_of(key, old), key, records, watermark, found)
            kept_of(key, old, state, watermark, new_deadlines)
        self._put_deadlines(new_deadlines)

    def inspect(self, key: Any) -> Iterator[tuple[str, Any]]:
        kept = self._partials.get(key)
        if kept is not None and kept[1]:
            yield "partial_matches", self._matcher.explain(self._buffer.state_of(key, kept))
        waiting = self._arrivals.of(key)
        if waiting:
            yield "pending", waiting
        told = self._history.of(key)
        if told:
            yield "history", told

    # -- what is due

    def _due(self, block: Block) -> dict[Any, list[Pair]]:
        """Put the block's records away, and return for each key the records that the watermark has passed, sorted by time.

        Keys whose deadline has come are there too, perhaps without records.
        """
        watermark = block.watermark
        due = self._arrivals.due(block)
        for time in self._deadlines.times(watermark):
            pane = self._deadlines.pane(time)
            for key, deadline_ms in pane.cells.items() if pane.complete else pane.items():
                if deadline_ms <= watermark and key not in due:
                    due[key] = []
        return due

    # -- state of a key

    def _kept(self, key: Any, old: Kept | None, state: Any, watermark: int, new_deadlines: dict[int, dict[Any, int]]) -> None:
        """Keep the new state of a key, and see that `deadlines` has it in time."""
        if not state:
            if old is not None:
                self._buffer.note(key, old, None)
                self._partials.delete(key)
                self._forget_deadline(key, old[0])
            return
        deadline_ms = self._matcher.deadline_ms(state)
        if old is not None:
            if watermark < old[0] <= deadline_ms:
                if state is not self._buffer.state_of(key, old):
                    self._buffer.note(key, old, state)
                    self._partials.put(key, (old[0], state))
                return
            self._forget_deadline(key, old[0])
        self._buffer.note(key, old, state)
        self._partials.put(key, (deadline_ms, state))
        if deadline_ms < NEVER:
            pane_time = deadline_ms // self._pane_ms
            if pane_time in new_deadlines:
                new_deadlines[pane_time][key] = deadline_ms
            else:
                new_deadlines[pane_time] = {key: deadline_ms}

    def _forget_deadline(self, key: Any, deadline_ms: int) -> None:
        if deadline_ms < NEVER:
            self._deadlines.pane(deadline_ms // self._pane_ms * self._pane_ms).delete(key)

    def _put_deadlines(self, new_deadlines: dict[int, dict[Any, int]]) -> None:
        for pane_time, gathered in new_deadlines.items():
            self._deadlines.pane(pane_time * self._pane_ms).put_many(gathered)

    # -- what comes out

    def _in_order(self, times: list[int], matches: Sequence[Match[Any]]) -> tuple[list[int], list[Match[Any]]]:
        """Return matches by time, then key bytes; those of one key at one time stay as they are."""
        names = map(self.context.key_bytes, [match.key for match in matches])
        order = sorted(zip(times, names, range(len(times)), strict=True))  # without a key function: a third of the time
        return [time_ms for time_ms, _, _ in order], [matches[place] for _, _, place in order]

    def _send_timeouts(self, found: Found) -> None:
        times, timeouts = self._in_order(found.timeout_times, found.timeouts)
        self.context.count("timeouts", len(timeouts))
        self.context.send(cast(str, self._timeouts_to), [match.key for match in timeouts], timeouts, times)

    def _count_dropped(self, found: Found) -> None:
        if found.dropped_partials:
            self.context.count("dropped_partials", found.dropped_partials)

    # -- careful mode

    def _process_singly(self, block: Block) -> None:
        """Do the same one firing at a time: a firing is one record of a key, or a time at which something ends by time."""
        due = self._due(block)
        reached, watermark, key_bytes = block.start, block.watermark, self.context.key_bytes
        heap = [(self._next_ms(key, records), key_bytes(key), key, records) for key, records in due.items()]
        heapify(heap)
        while heap:
            at_ms, wire, key, records = heap[0]
            if at_ms > watermark or at_ms == NEVER:
                self._look_again(key, watermark)
                heappop(heap)
                continue
            reached = self._fire(key, records, at_ms, reached)
            heapreplace(heap, (self._next_ms(key, records), wire, key, records))
        self.emit(advance(reached, watermark))

    def _next_ms(self, key: Any, records: list[Pair]) -> int:
        kept = self._partials.get(key)
        deadline_ms = NEVER if kept is None else self._matcher.deadline_ms(self._buffer.state_of(key, kept))
        return min(records[0][0], deadline_ms) if records else deadline_ms

    def _look_again(self, key: Any, watermark: int) -> None:
        """Note the deadline of a key anew if it was noted for a time that is now past."""
        kept = self._partials.get(key)
        if kept is not None:
            self._keep(key, self._buffer.state_of(key, kept), watermark)

    def _keep(self, key: Any, state: Any, watermark: int) -> None:
        new_deadlines: dict[int, dict[Any, int]] = {}
        self._kept(key, self._partials.get(key), state, watermark, new_deadlines)
        self._put_deadlines(new_deadlines)

    def _fire(self, key: Any, records: list[Pair], at_ms: int, reached: int) -> int:
        """Fire what a key has at a time, its deadline before its first record; return the time that went downstream.

        A record that fails has not been; a deadline that fails has passed nevertheless.
        """
        kept = self._partials.get(key)
        state = None if kept is None else self._buffer.state_of(key, kept)
        by_time = state is not None and self._matcher.deadline_ms(state) <= at_ms
        taken = [] if by_time else [records.pop(0)]
        new_state, went = None if by_time else state, reached
        with self.context.firing(key, at_ms, "deadline" if by_time else "record"):
            found = Found(story=self._history.begin())
            after = self._matcher.run(state, key, taken, at_ms, found)
            if by_time:
                new_state = after
            self._keep(key, after, at_ms)
            self._history.remember(found.story)
            self._count_dropped(found)
            if found.timeouts:
                self._send_timeouts(found)
            before = max(reached, at_ms - 1)
            count = len(found.matches)
            self.emit(Block([key] * count, found.matches, found.times, reached, before, [before] * count))
            new_state, went = after, before
        self._keep(key, new_state, at_ms)
        return went
