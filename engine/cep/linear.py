"""The fast path: plain sequences, such as "an order, then a refund, within an hour".

    begin("order", is_order).followed_by("refund", is_refund).within("1h")

One stage after the other, each a fixed number of times, each record taken or not by its own looks: nothing optional, no loop, no
group, no negation, no "any". Then a first record has exactly one way to go on, and a partial match that began earlier is never
behind one that began later: at the same place both see the same records. So no finished match ever waits for another, and the
state of a key is just the records taken so far, one run for each first record.

    begin("order").times(3).within("5m")

A single stage is simpler still (`RepetitionMatcher`): a run that began later is the end of every run that began earlier, so the
records of the first run are all there is to keep.

`linear_matcher` tells which patterns are such; for them it gives what `engine.cep.matcher` gives
(tests/engine/cep/test_linear.py).
"""

from collections.abc import Callable, Sequence
from copy import copy
from itertools import accumulate, repeat, takewhile
from typing import Any

from engine.cep.conditions import predicate_of, wants_match
from engine.cep.explain import Explained
from engine.cep.layout import Layout
from engine.cep.linear_layout import Repeated, RepeatedLayout, Run, Runs, RunsLayout, Taken
from engine.cep.match import Match
from engine.cep.matcher import NEVER, RECORDS_MAX, Found, Matcher, OnTooMany, Shape, give_up
from engine.cep.pattern import Pattern, Stage
from engine.cep.skip import Skip
from engine.cep.story import failed, matched, timed_out


def linear_matcher(
    pattern: Pattern,
    skip: Skip,
    *,
    value_type: Any = Any,
    max_partials: int = 10_000,
    max_records: int = RECORDS_MAX,
    on_too_many: OnTooMany = "drop_oldest",
    shape: Shape | None = None,
) -> Matcher | None:
    """Return a matcher of the fast path, None for a pattern that needs the general one. It reports no time-outs."""
    if skip.kind not in ("none", "to_next", "past_last") or not all(map(_is_plain, pattern.stages)):
        return None
    stage = pattern.stages[0]
    if len(pattern.stages) == 1 and stage.inner == "relaxed" and stage.least - 1 <= min(max_partials, max_records):
        return RepetitionMatcher(pattern, skip, value_type=value_type, shape=shape)
    limits: Any = {"max_partials": max_partials, "max_records": max_records, "on_too_many": on_too_many}
    return LinearMatcher(pattern, skip, value_type=value_type, shape=shape, **limits)


class RepetitionMatcher:
    """The matcher for one stage, a fixed number of times: the records taken so far that may still begin a match."""

    def __init__(self, pattern: Pattern, skip: Skip, *, value_type: Any = Any, shape: Shape | None = None) -> None:
        stage = pattern.stages[0]
        self._shape = shape
        self._name, self._length = stage.name, stage.least
        self._predicate = None if stage.condition is None else predicate_of(stage.condition)
        self._within_ms = NEVER if pattern.limit_ms is None else pattern.limit_ms
        self._past_last = skip.kind == "past_last"
        self.layout: Layout = RepeatedLayout(value_type, self._length)

    def of_fitting(self) -> "RepetitionMatcher":
        """Return the same for records that are known to fulfil the condition."""
        found = copy(self)
        found._predicate = None
        return found

    def run(
        self, state: Repeated | None, key: Any, records: Sequence[Taken], until_ms: int, found: Found, begin_before_ms: int = NEVER
    ) -> Repeated | None:
        if found.story is not None or begin_before_ms != NEVER:
            return self._run_telling(state, key, records, until_ms, found, begin_before_ms)
        predicate, within_ms, length = self._predicate, self._within_ms, self._length
        if predicate is not None:
            records = [taken for taken in records if predicate(taken[1])]
        number, run = 0, records
        if state:
            number, kept = state
            run = [*kept, *records]
        first, count = 0, len(run)
        while first + length <= count:
            last = first + length
            timestamp_ms = run[last - 1][0]
            if timestamp_ms - run[first][0] >= within_ms:
                first += 1
                continue
            found.times.append(timestamp_ms)
            found.matches.append(self._match(key, run[first:last]))
            first = last if self._past_last else first + 1
        while first < count and until_ms - run[first][0] >= within_ms:
            first += 1
        if first == count:
            return None
        return (number + first, tuple(run[first:])) if records or first else state

    def _run_telling(
        self, state: Repeated | None, key: Any, records: Sequence[Taken], until_ms: int, found: Found, begin_before_ms: int
    ) -> Repeated | None:
        """Do the same record by record, and tell what becomes of each run."""
        number, run = (state[0], list(state[1])) if state else (0, [])
        predicate, within_ms, missing = self._predicate, self._within_ms, self._length - len(run)
        for taken in records:
            timestamp_ms, value = taken
            while run and timestamp_ms - run[0][0] >= within_ms:
                self._tell_late(found, key, run)
                del run[0]
                number += 1
                missing += 1
            if timestamp_ms >= begin_before_ms and not (run and run[0][0] < begin_before_ms):
                return None
            if predicate is not None and not predicate(value):
                continue
            run.append(taken)
            missing -= 1
            if not missing:
                found.times.append(timestamp_ms)
                if found.story is not None:
                    found.story.append((key, matched(run[0][0], timestamp_ms, {self._name: [value for _, value in run]})))
                found.matches.append(self._match(key, run))
                gone = self._length if self._past_last else 1
                del run[:gone]
                number, missing = number + gone, gone
        while run and until_ms - run[0][0] >= within_ms:
            self._tell_late(found, key, run)
            del run[0]
            number += 1
        if not run or run[0][0] >= begin_before_ms:
            return None
        return number, tuple(run)

    def _match(self, key: Any, run: Sequence[Taken]) -> Any:
        if self._shape is not None:
            return self._shape(key, [(self._name, *one) for one in run])
        return Match(key, run[0][0], run[-1][0], {self._name: [value for _, value in run]})

    def _tell_late(self, found: Found, key: Any, run: list[Taken]) -> None:
        """Tell of the run whose time is over: that of its first record."""
        if found.story is not None:
            taken = {self._name: [value for _, value in run]}
            found.story.append((key, timed_out(run[0][0], run[0][0] + self._within_ms, taken, (self._name,))))

    def deadline_ms(self, state: Repeated) -> int:
        return state[1][0][0] + self._within_ms if state and self._within_ms < NEVER else NEVER

    def explain(self, state: Repeated) -> list[Explained]:
        parts, within_ms = [(self._name, 0, self._length)], None if self._within_ms == NEVER else self._within_ms
        records = state[1] if state else ()
        return [_explained(records[first:], parts, within_ms) for first in range(len(records))]


class LinearMatcher:
    """The matcher for linear patterns; the arguments are those of `NfaMatcher`, but records are counted each time that they matter."""

    def __init__(
        self,
        pattern: Pattern,
        skip: Skip,
        *,
        value_type: Any = Any,
        max_partials: int = 10_000,
        max_records: int = RECORDS_MAX,
        on_too_many: OnTooMany = "drop_oldest",
        shape: Shape | None = None,
    ) -> None:
        self._shape = shape
        self._steps = [step for stage in pattern.stages for step in _steps_of(stage)]
        self._within_ms = pattern.limit_ms
        self._past_last = skip.kind == "past_last"
        self._max_partials, self._max_records = max_partials, max_records
        # No more runs than that are too many, or hold too many records.
        self._few = min(max_partials, max_records // max(len(self._steps) - 1, 1))
        self._on_too_many = on_too_many
        self._parts: list[tuple[str, int, int]] = []
        for stage in pattern.stages:
            place = self._parts[-1][2] if self._parts else 0
            self._parts.append((stage.name, place, place + stage.least))
        self.layout: Layout = RunsLayout(value_type)

    def run(
        self, state: Runs | None, key: Any, records: Sequence[Taken], until_ms: int, found: Found, begin_before_ms: int = NEVER
    ) -> Runs | None:
        runs: Any  # our own list, or the tuple of the state
        steps, within_ms, length, past_last, few = self._steps, self._within_ms, len(self._steps), self._past_last, self._few
        begins, _, _ = steps[0]
        next_number, runs = state or (0, ())
        for timestamp_ms, value in records:
            taken = (timestamp_ms, value, next_number)
            next_number += 1
            if within_ms is not None and runs and timestamp_ms - runs[0][0][0] >= within_ms:
                runs = self._in_time(runs, timestamp_ms - within_ms, key, found)
            looked_at: Any = None
            fits: Any = True
            begun = timestamp_ms < begin_before_ms and (begins is None or begins(value))
            if runs and len(runs[0]) == len(runs[-1]):
                predicate, strict, stage = steps[len(runs[0])]
                if predicate is not None:
                    fits, looked_at = predicate(value), stage
                    if not fits and not strict:
                        # All runs wait for the same step, and pass the record over.
                        if begun:
                            runs = [*runs] if type(runs) is tuple else runs
                            runs.append((taken,))
                            if len(runs) > few:
                                self._hold_less(runs, key, found)
                        continue
            alive: list[Run] = []
            finished: list[Run] = []
            for run in runs:
                predicate, strict, stage = steps[len(run)]
                if predicate is None:
                    fits = True
                elif stage is not looked_at:
                    fits, looked_at = predicate(value), stage
                if fits:
                    run += (taken,)  # a new tuple
                    if len(run) == length:
                        finished.append(run)
                    else:
                        alive.append(run)
                elif not strict:
                    alive.append(run)
                elif found.story is not None:
                    found.story.append((key, failed(run[0][0], timestamp_ms, self._taken(run), (stage.name,))))
            if begun:
                (finished if length == 1 else alive).append((taken,))
            if len(alive) > few:
                self._hold_less(alive, key, found)
            if finished:
                if past_last:
                    self._emit(key, finished[:1], timestamp_ms, found)
                    alive = []
                else:
                    self._emit(key, finished, timestamp_ms, found)
            runs = alive
        if within_ms is not None and runs and until_ms - runs[0][0][0] >= within_ms:
            runs = self._in_time(runs, until_ms - within_ms, key, found)
        return (next_number, tuple(runs)) if runs else None

    def deadline_ms(self, state: Runs) -> int:
        return state[1][0][0][0] + self._within_ms if state and self._within_ms is not None else NEVER

    def explain(self, state: Runs) -> list[Explained]:
        return [_explained(run, self._parts, self._within_ms) for run in (state[1] if state else ())]

    def _taken(self, run: Run) -> dict[str, list[Any]]:
        return {name: [value for _, value, _ in run[low:high]] for name, low, high in self._parts if low < len(run)}

    def _in_time(self, runs: Sequence[Run], dead_ms: int, key: Any, found: Found) -> Sequence[Run]:
        alive = _alive(runs, dead_ms)
        if found.story is not None and self._within_ms is not None:
            for run in runs[: len(runs) - len(alive)]:
                waited_for = self._steps[len(run)][2].name
                found.story.append((key, timed_out(run[0][0], run[0][0] + self._within_ms, self._taken(run), (waited_for,))))
        return alive

    def _emit(self, key: Any, finished: list[Run], now_ms: int, found: Found) -> None:
        if found.story is not None:
            found.story += [(key, matched(run[0][0], now_ms, self._taken(run))) for run in finished]
        parts = self._parts
        found.times.extend(repeat(now_ms, len(finished)))
        if self._shape is not None:
            names = [name for name, low, high in parts for _ in range(low, high)]
            found.matches += [self._shape(key, [(name, *one[:2]) for name, one in zip(names, run, strict=True)]) for run in finished]
            return
        if len(parts) == 1:
            name = parts[0][0]
            found.matches += [Match(key, run[0][0], now_ms, {name: [value for _, value, _ in run]}) for run in finished]
            return
        for run in finished:
            values = [value for _, value, _ in run]
            found.matches.append(Match(key, run[0][0], now_ms, {name: values[low:high] for name, low, high in parts}))

    def _hold_less(self, alive: list[Run], key: Any, found: Found) -> None:
        """Give runs up until they and the records that they hold are within the limits."""
        most = self._max_partials
        if len(alive) > most:
            give_up(alive, most, "partial matches", most, self._on_too_many, key, found)
        held = accumulate(map(len, reversed(alive) if self._on_too_many == "drop_oldest" else alive))
        kept = sum(1 for _ in takewhile(self._max_records.__ge__, held))
        if kept < len(alive):
            give_up(alive, kept, "records in partial matches", self._max_records, self._on_too_many, key, found)


def _explained(run: Sequence[Taken] | Run, parts: Sequence[tuple[str, int, int]], within_ms: int | None) -> Explained:
    values = [taken[1] for taken in run]
    taken = {name: values[low:high] for name, low, high in parts if low < len(run)}
    waits_for = next(name for name, _, high in parts if len(run) < high)
    dies_ms = None if within_ms is None else run[0][0] + within_ms
    return Explained(run[0][0], run[-1][0], taken, (waits_for,), (), dies_ms, complete=False)


def _alive(runs: Sequence[Run], dead_ms: int) -> Sequence[Run]:
    """Return the runs that began after a time; they are sorted by that."""
    number = 0
    for run in runs:
        if run[0][0] > dead_ms:
            break
        number += 1
    return runs[number:]


def _is_plain(stage: Stage) -> bool:
    return (
        stage.group is None
        and stage.contiguity in ("begin", "next", "followed_by")
        and stage.least == stage.most
        and stage.inner != "combinations"
        and not stage.optional
        and stage.step_limit_ms is None
        and stage.repeat_limit_ms is None
        and (stage.condition is None or not wants_match(stage.condition))
    )


def _steps_of(stage: Stage) -> list[tuple[Callable[[Any], Any] | None, bool, Stage]]:
    """Return for each record of a stage its predicate (None: any), whether it must be the very next one, and the stage."""
    predicate = None if stage.condition is None else predicate_of(stage.condition)
    first = (predicate, stage.contiguity != "followed_by", stage)
    return [first] + [(predicate, stage.inner == "consecutive", stage)] * (stage.least - 1)
