"""Runs a row pattern over the rows of a key.

The standard tries one row after the other as the first row of a match; of all matches that begin there the preferred one is taken,
and AFTER MATCH SKIP says which row is tried next. On a stream the rows come one at a time, so an attempt is carried along:

    start ──────────► cursor ───────► end
    │ rows of the attempt │ rows to come  │
    threads    ways through the pattern that are still open, the preferred one first
    candidate  the match found so far; every open thread is preferred to it

A row moves every thread on. A thread that comes to an end becomes the candidate, and what is less preferred is given up. When no
thread is left, the attempt is decided: the candidate is the match, or no match begins at `start`. That is the moment at which a
backtracking matcher over the finished table would know it too, and not later. The rows of an attempt are kept until then, since the
next attempt begins among them.

WITHIN ends an attempt by time; so does the end of all input. A row whose condition looks ahead (NEXT) waits for the rows asked for.

Source: Pike, "The text editor sam" (1987), for threads in order of preference.
"""

from collections.abc import Sequence
from typing import Any, Literal

from engine.cep.explain import Explained
from engine.cep.layout import Layout
from engine.cep.match import TimedOut
from engine.cep.matcher import NEVER, Found
from engine.cep.recognize.attempt import FIRST, NO_ROWS, Attempt, AttemptLayout, Step, Thread
from engine.cep.recognize.automaton import START
from engine.cep.recognize.measures import Recognized
from engine.cep.recognize.plan import Plan
from engine.cep.recognize.view import MISFITS, NotYetError, Row, View, initial_accs, next_accs
from engine.cep.story import failed, matched, timed_out
from engine.errors import RecordError

END = NEVER - 1
"""The end of time: the deadline of what only the end of all input decides."""


class RowMatcher:
    """The matcher of a MATCH_RECOGNIZE clause; its matches are `Recognized` rows.

    Args:
        value_type: Type of the values, for storing them.
        timeouts: Report attempts that WITHIN ends before there is a match: of the way that got farthest, if it took a row at all.
        max_partials: Limit on the ways kept open for a key, and on the rows kept for it. Beyond it the older half of the rows is given
            up as beginnings of matches ("drop_oldest"), or the record fails.
    """

    def __init__(
        self, plan: Plan, *, value_type: Any, max_partials: int, on_too_many: Literal["drop_oldest", "fail"], timeouts: bool = False
    ) -> None:
        self.plan = plan
        self.timeouts = timeouts
        self.max_partials = max_partials
        self.on_too_many = on_too_many
        self.layout: Layout = AttemptLayout(value_type, plan.automaton.labels, plan.folds)
        self.by_row = list(plan.by_row())

    def run(
        self,
        state: Attempt | None,
        key: Any,
        records: Sequence[tuple[int, Any]],
        until_ms: int,
        found: Found,
        begin_before_ms: int = NEVER,
    ) -> Attempt | None:
        work = _Work(self, FIRST if state is None else state, key, found, begin_before_ms)
        for timestamp_ms, value in records:
            work.pass_time(timestamp_ms)
            work.add(timestamp_ms, value)
        work.pass_time(until_ms)
        if work.is_over(until_ms):
            return None
        if state is not None and not records and not work.changed:
            return state
        return work.state()

    def deadline_ms(self, state: Attempt) -> int:
        end = state.base + len(state.rows)
        if state.start == end:
            return NEVER
        if self.plan.within_ms is not None and state.threads and state.cursor == end:
            return state.rows[state.start - state.base][0] + self.plan.within_ms
        return END

    def explain(self, state: Attempt) -> list[Explained]:
        """Return the ways through the pattern that are still open, the preferred one first, and the match that would come out now."""
        dies_ms = self.deadline_ms(state)
        found = [self._explained(state, thread.step, None if dies_ms >= END else dies_ms) for thread in state.threads]
        if state.candidate is not None and state.candidate is not NO_ROWS:
            found.append(self._explained(state, state.candidate, None, complete=True))
        return found

    def _explained(self, state: Attempt, step: Step | None, dies_ms: int | None, *, complete: bool = False) -> Explained:
        automaton, names = self.plan.automaton, self.plan.names
        path = _path(step)
        first = state.start - state.base
        rows = state.rows[first : first + len(path)] or state.rows[first : first + 1]
        taken: dict[str, list[Any]] = {}
        for at, row in zip(path, rows, strict=False):
            taken.setdefault(names[automaton.labels[at]], []).append(row[1])
        nexts = () if complete else automaton.goes_on[path[-1] if path else START]
        waits_for = tuple(names[label] for label in sorted({automaton.labels[at] for at in nexts}))
        return Explained(rows[0][0], rows[-1][0], taken, waits_for, (), dies_ms, complete)


class _Work:
    """The state of a key while records are taken: the same as `Attempt`, but changed in place."""

    def __init__(self, matcher: RowMatcher, state: Attempt, key: Any, found: Found, begin_before_ms: int) -> None:
        self.matcher = matcher
        self.begin_before_ms = begin_before_ms
        self.plan = matcher.plan
        self.key = key
        self.found = found
        self.changed = False
        self.base, rows, self.start, self.cursor, self.matches, self.covered, threads, self.candidate = state
        self.rows: list[Row] = list(rows)
        self.threads: Sequence[Thread] = threads
        self.view = View()
        self.view.rows = self.rows
        self.initial = initial_accs(self.plan.folds)

    def state(self) -> Attempt | None:
        """Return the state to keep: None if what comes does not depend on what has been."""
        idle = self.start == self.end
        if idle and not self.rows and not self.plan.numbered:
            return None
        kept = (self.base, tuple(self.rows), self.start, self.cursor, self.matches, self.covered, tuple(self.threads), self.candidate)
        return Attempt(*kept)

    def is_over(self, to_ms: int) -> bool:
        """Say whether no attempt is under way and none may begin any more."""
        if self.start < self.end:
            return self._row(self.start)[0] >= self.begin_before_ms
        return self.begin_before_ms < NEVER and to_ms >= self.begin_before_ms - 1

    @property
    def end(self) -> int:
        """Number of the row that comes next on the stream."""
        return self.base + len(self.rows)

    def add(self, timestamp_ms: int, value: Any) -> None:
        """Take a row in, and go on as far as it allows."""
        self.rows.append((timestamp_ms, value, 0))
        self.rows[-1] = (timestamp_ms, value, self._known(self.end - 1))
        self.drive(timestamp_ms)
        if self.end - self.start > self.matcher.max_partials:
            self._give_up()
            self.drive(timestamp_ms)

    def pass_time(self, to_ms: int) -> None:
        """Let time go on: attempts whose limit is reached are decided by what they have."""
        within_ms = self.plan.within_ms
        while within_ms is not None and self.threads and self.cursor == self.end:
            due_ms = self.rows[self.start - self.base][0] + within_ms
            if due_ms > to_ms:
                break
            self._tell_end(due_ms, by_time=True)
            self.threads, self.changed = (), True
            self.drive(due_ms)
        if to_ms >= END and self.start < self.end:
            self.view.closed = self.changed = True
            last_ms = self.rows[-1][0]
            while self.start < self.end and self._row(self.start)[0] < self.begin_before_ms:
                self.drive(last_ms)
                self.threads = ()

    def drive(self, now_ms: int) -> None:
        """Go on until the next row is missing."""
        while True:
            if not self.threads and (self.cursor > self.start or self.candidate is not None):
                try:
                    self._decide(now_ms)
                except NotYetError:
                    return
                continue
            if self.cursor == self.end:
                return
            if self.cursor == self.start and not self.threads:
                if self._row(self.start)[0] >= self.begin_before_ms:
                    return
                self._begin()
                continue
            if self.plan.within_ms is not None and self._row(self.cursor)[0] - self._row(self.start)[0] >= self.plan.within_ms:
                self._tell_end(self._row(self.start)[0] + self.plan.within_ms, by_time=True)
                self.threads = ()
                continue
            try:
                self._step()
            except NotYetError:
                return
            self.cursor += 1
            if len(self.threads) > self.matcher.max_partials:
                self._give_up()

    def _row(self, number: int) -> Row:
        return self.rows[number - self.base]

    def _known(self, number: int) -> int:
        """Return the bits of the variables whose condition the row alone decides."""
        plan, bits = self.plan, 0
        if not plan.local:
            return 0
        self._look_at(number)
        label = 0
        try:
            for label, condition, fitting in self.matcher.by_row:
                self.view.label = label
                if condition is None or condition(self.view):
                    bits |= fitting
        except MISFITS as error:
            raise RecordError(f"condition of {plan.names[label]}: {error}") from error
        return bits

    def _look_at(self, number: int) -> None:
        view = self.view
        view.base, view.start, view.match_number = self.base, self.start, self.matches + 1
        view.number = view.position = number
        view.row = self._row(number)

    # -- an attempt

    def _begin(self) -> None:
        automaton = self.plan.automaton
        accepts = automaton.at_partition_start[1] if self.start == 0 else automaton.accepts[START]
        goes_on = automaton.at_partition_start[0] if self.start == 0 else automaton.goes_on[START]
        self.candidate = NO_ROWS if accepts else None
        self.threads = (Thread(START, None),) if goes_on or not accepts else ()

    def _step(self) -> None:
        """Hold the next row against every thread, in order."""
        plan, automaton, view = self.plan, self.plan.automaton, self.view
        self._look_at(self.cursor)
        bits, folds, local = self._row(self.cursor)[2], plan.folds, plan.local
        threads: list[Thread] = []
        old_threads = self.threads
        seen: set[Any] = set()
        first = automaton.at_partition_start[0] if self.start == 0 else automaton.goes_on[START]
        for state, step in self.threads:
            for target in first if state == START else automaton.goes_on[state]:
                label = automaton.labels[target]
                if folds:
                    accs = next_accs(folds, self.initial if step is None else step[2], view, label)
                    future: Any = (target, accs)
                else:
                    accs, future = (), target
                if future in seen:
                    continue
                seen.add(future)
                if local >> label & 1:
                    fits: Any = bits >> label & 1
                else:
                    view.label, view.accs = label, accs
                    fits = self._fits(label)
                if not fits:
                    continue
                taken: Step = (target, step, accs, len(seen))
                if automaton.goes_on[target]:
                    threads.append(Thread(target, taken))
                if automaton.accepts[target]:
                    self.threads, self.candidate = threads, taken
                    return
        self.threads = threads
        if not threads:
            self._tell_end(self._row(self.cursor)[0], by_time=False, threads=old_threads)

    def _fits(self, label: int) -> Any:
        """Hold the row that the view looks at against the condition of a variable."""
        condition = self.plan.conditions[label]
        try:
            return condition is None or condition(self.view)
        except MISFITS as error:
            raise RecordError(f"condition of {self.plan.names[label]}: {error}") from error

    def _tell_end(self, at_ms: int, *, by_time: bool, threads: Sequence[Thread] | None = None) -> None:
        """Tell of an attempt that ends without a match: of the way that got farthest, if it took a row at all."""
        story, timeouts = self.found.story, by_time and self.matcher.timeouts
        if (story is None and not timeouts) or self.candidate is not None:
            return
        paths = [_path(thread.step) for thread in (self.threads if threads is None else threads)]
        path = max(paths, key=len, default=[])
        if not path:
            return
        automaton, names = self.plan.automaton, self.plan.names
        waited_for = tuple(names[label] for label in sorted({automaton.labels[at] for at in automaton.goes_on[path[-1]]}))
        taken, start_ms = self._taken(path), self._row(self.start)[0]
        if timeouts:
            self.found.timeout_times.append(at_ms)
            stages = {name: taken.get(name, []) for name in names}
            self.found.timeouts.append(TimedOut(self.key, start_ms, at_ms, stages, waited_for))
        if story is not None:
            told = timed_out(start_ms, at_ms, taken, waited_for) if by_time else failed(start_ms, at_ms, taken, waited_for)
            story.append((self.key, told))

    def _taken(self, path: Sequence[int]) -> dict[str, list[Any]]:
        taken: dict[str, list[Any]] = {}
        for number, at in enumerate(path, self.start):
            taken.setdefault(self.plan.names[self.plan.automaton.labels[at]], []).append(self._row(number)[1])
        return taken

    def _decide(self, now_ms: int) -> None:
        """The attempt is over: let its match out, and begin the next one.

        Raises:
            NotYetError: A measure asks for a row that has not come.
        """
        if self.candidate is None:
            if self.plan.rows == "all_with_unmatched" and self.start > self.covered:
                self._emit(now_ms, self.plan.measures.unmatched(self._row(self.start)))
            self._go_to(self.start + 1)
            return
        path = _path(self.candidate)
        self._look_at(self.start)
        self._emit(now_ms, self.plan.measures.of_match(self.view, path))
        if self.found.story is not None and path:
            self.found.story.append((self.key, matched(self._row(self.start)[0], now_ms, self._taken(path))))
        self.matches += 1
        self.covered = max(self.covered, self.start + len(path) - 1)
        self._go_to(self._next_start(path))

    def _emit(self, now_ms: int, rows: list[dict[str, Any]]) -> None:
        self.found.times.extend([now_ms] * len(rows))
        self.found.matches.extend([Recognized(self.key, row) for row in rows])  # type: ignore[misc]  # rows instead of Match records

    def _next_start(self, path: list[int]) -> int:
        """Return the row with which the next attempt begins.

        A variable without a row, or one whose row would begin the same match again, leads to the next row.
        """
        kind, labels = self.plan.skip.kind, self.plan.automaton.labels
        if kind == "past_last":
            return self.start + max(len(path), 1)
        if kind == "to_next":
            return self.start + 1
        places = [place for place, state in enumerate(path) if labels[state] in self.plan.skip_labels]
        place = 0 if not places else places[0] if kind == "to_first" else places[-1]
        return self.start + max(place, 1)

    def _go_to(self, start: int) -> None:
        """Begin the next attempt at a row, and forget the rows that nothing can ask for any more."""
        self.start = self.cursor = start
        self.threads, self.candidate = (), None
        gone = start - self.plan.looks_back - self.base
        if gone > 0:
            del self.rows[:gone]
            self.base += gone

    def _give_up(self) -> None:
        limit = self.matcher.max_partials
        if self.matcher.on_too_many == "fail":
            raise RecordError(f"key {self.key!r} has more than {limit} rows or open ways through the pattern (max_partials)")
        number = max((self.end - self.start) // 2, 1)
        self.found.dropped_partials += number
        self._go_to(self.start + number)


def _path(step: Step | None) -> list[int]:
    """Return the states of a match or of a way to one, from its first row."""
    path: list[int] = []
    at: Step | None = None if step is NO_ROWS else step
    while at is not None:
        path.append(at[0])
        at = at[1]
    path.reverse()
    return path
