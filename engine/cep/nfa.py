"""Compiles a pattern into a non-deterministic automaton.

A state waits for a record. Its edges: *take* the record (go on with it), *ignore* it (go on without it), *proceed* (go to another
state before looking at the record). Each edge has a condition on the record and the partial match.

    begin("a").followed_by("b").one_or_more()

    [a] --take a--> [b] --take b--> [b loop] --take b--> [b loop]      after each taken b a match is complete:
                    |ignore not b   |ignore not b        |             [b loop] --proceed--> [end]
                    +--> [b]        +--> [b waits] --take b--> [b loop]

States are made from the last stage to the first, since each needs to know where it leads. What Flink's compiler does in its
`NFACompiler` decided about the corner cases: an optional or looping stage has a second state without its proceed edge for the
time after a record was ignored, so that each way on is taken once; `not_followed_by` becomes edges to a stop state on the states
that follow, and an optional stage that has been taken leaves those behind; a `greedy` loop puts "and not a record of the loop"
on the edges of the state after it.

Limits between neighbours hold on the states of the stage they were set on. `times(n, between=…)` holds on every repetition but
the one whose state is made first, as Flink has it (its last fixed repetition, or the open end of a loop).
"""

from dataclasses import dataclass

from engine.cep.conditions import Condition, all_of, check_of, negated
from engine.cep.pattern import Pattern, Stage, check_whole
from engine.cep.scope import (
    Scope,
    group_goes_on,
    heads_later_round,
    heads_optional_group,
    heads_optional_round,
    ignore_condition,
    inner_ignore_condition,
    take_condition,
    unless,
    unless_any,
    until_inside,
)
from engine.cep.skip import Skip
from engine.cep.states import IGNORE, PROCEED, TAKE, Kind, State, is_not_next, may_end, only_without, turn_to
from engine.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Automaton:
    """A compiled pattern. `states` are numbered by their place; a partial match that has taken nothing waits in `start`.

    `stepwise` says that some states have a limit of their own.
    """

    states: tuple[State, ...]
    start: State
    within_ms: int | None
    stage_names: tuple[str, ...]
    signature: str
    stepwise: bool

    @property
    def timed(self) -> bool:
        """True where partial matches end by time."""
        return self.within_ms is not None or self.stepwise


def compile_pattern(pattern: Pattern, skip: Skip) -> Automaton:
    """Compile a pattern.

    Raises:
        ConfigError: The pattern is not complete, or the skip names a stage that it does not have.
    """
    check_whole(pattern)
    if skip.stage and skip.stage not in pattern.stage_names:
        raise ConfigError(f"skip.{skip.kind}({skip.stage!r}): the pattern has no such stage; it has {', '.join(pattern.stage_names)}")
    compiler = _Compiler()
    scope = Scope(pattern.stages)
    start = compiler.sequence(scope, compiler.state("", "final"))
    for state in compiler.added_later:
        state.number = len(compiler.states)
        compiler.states.append(state)
    for state in compiler.states:
        for edge in state.edges:
            edge.check = check_of(edge.condition)
        state.may_end = may_end(state, ())
        state.look_ahead()
    stepwise = any(state.limit_ms is not None for state in compiler.states)
    return Automaton(tuple(compiler.states), start, pattern.limit_ms, pattern.stage_names, pattern.signature, stepwise)


class _Compiler:
    def __init__(self) -> None:
        self.states: list[State] = []
        # Partial matches are stored with numbers of states: what an earlier version did not have stands behind the rest.
        self.added_later: list[State] = []
        self._stops: dict[str, State] = {}
        self._ungreedy: dict[State, State] = {}  # states as they were before a greedy loop with `until` changed their edges
        self._named: set[str] = set()

    def state(self, stage: str, kind: Kind = "normal", limit_ms: int | None = None) -> State:
        self._named.add(stage)
        made = State(len(self.states), stage, kind, limit_ms)
        self.states.append(made)
        return made

    def sequence(self, scope: Scope, sink: State) -> State:
        """Compile stages, the last first; return the state where the first of them begins."""
        for place in range(len(scope.stages) - 1, -1, -1):
            stage = scope.stages[place]
            if stage.contiguity == "not_followed_by":
                if sink.kind == "final":
                    sink = self._absence(scope, stage)
            elif stage.contiguity == "not_next":
                sink = self._not_next(scope, stage, sink)
            else:
                sink = self._stage(scope, place, sink)
        return sink

    # -- negations

    def _absence(self, scope: Scope, stage: Stage) -> State:
        pending = self.state(stage.name, "pending", stage.step_limit_ms)
        unwanted = take_condition(scope, stage)
        pending.add(PROCEED, self._stop(stage, unwanted), unwanted)
        pending.add(IGNORE, pending, negated(unwanted))
        return pending

    def _not_next(self, scope: Scope, stage: Stage, sink: State) -> State:
        made = self.state(stage.name, "normal", stage.step_limit_ms)
        unwanted = take_condition(scope, stage)
        stop = self._stop(stage, unwanted)
        made.add(IGNORE if sink.kind == "final" else PROCEED, sink, negated(unwanted))
        made.add(PROCEED, stop, unwanted)
        return made

    def _stop(self, stage: Stage, unwanted: Condition) -> State:
        stop = self._stops.get(stage.name)
        if stop is None:
            stop = self._stops[stage.name] = self.state(stage.name, "stop")
            stop.add(TAKE, stop, unwanted)
        return stop

    def _nots_before(self, scope: Scope, place: int) -> list[tuple[Stage, Condition]]:
        """Negations in force when a stage begins: right before it, or before optional stages before it."""
        found = []
        while place > 0 and (scope.stages[place - 1].optional or scope.stages[place - 1].contiguity == "not_followed_by"):
            place -= 1
            before = scope.stages[place]
            if before.contiguity == "not_followed_by":
                found.append((before, take_condition(scope, before)))
        return found

    def _add_stops(self, scope: Scope, place: int, state: State) -> None:
        for stage, unwanted in self._nots_before(scope, place):
            state.add(PROCEED, self._stop(stage, unwanted), unwanted)

    def _add_stop_after(self, scope: Scope, place: int, state: State) -> None:
        self._add_stop(scope, scope.following(place), state)

    def _add_stop(self, scope: Scope, following: Stage | None, state: State) -> None:
        if following is not None and following.contiguity == "not_followed_by":
            unwanted = take_condition(scope, following)
            state.add(PROCEED, self._stop(following, unwanted), unwanted)

    def _without_nots(self, scope: Scope, place: int, sink: State) -> State:
        """Return the sink as it is once an optional stage has been taken: the negations before that stage are behind it."""
        nots = {stage.name for stage, _ in self._nots_before(scope, place)}
        if not nots or not scope.stages[place].optional:
            return sink
        copy = self.state(sink.stage, sink.kind, sink.limit_ms)
        if sink.kind == "normal" and not sink.edges:
            return sink  # where a group goes round: its edges come later, and none leads to a negation (the copy keeps its number only)
        for edge in sink.edges:
            if edge.action != PROCEED:
                copy.add(edge.action, copy if edge.target is sink else edge.target, edge.condition)
            elif edge.target.kind != "stop":
                copy.add(PROCEED, self._without_nots(scope, place, edge.target), edge.condition)
            elif edge.target.stage not in nots:
                copy.add(PROCEED, edge.target, edge.condition)
        return copy

    # -- stages and their repetitions

    def _stage(self, scope: Scope, place: int, sink: State) -> State:
        stage = scope.stages[place]
        if stage.looping:
            behind = self._without_nots(scope, place, sink)
            loop = self._loop(scope, place, behind)
            if stage.greedy and stage.until is None and behind is not sink:
                only_without(sink, take_condition(scope, stage))  # where the loop is left out, by what leads past it
            first = self._times(scope, place, loop, sink)
        elif stage.quantified:
            first = self._times(scope, place, sink, sink)
        else:
            take, ignore = take_condition(scope, stage), ignore_condition(scope, place)
            first = self._single(scope, place, sink, sink, take, ignore, optional=stage.optional)
        self._add_stops(scope, place, first)
        return first

    def _times(self, scope: Scope, place: int, sink: State, beyond: State) -> State:
        """Repetitions with a number: `beyond` is where a stage leads that may end before its last repetition."""
        stage = scope.stages[place]
        take = unless(stage.until, take_condition(scope, stage))
        ignore = unless_any(stage.until, inner_ignore_condition(scope, place))
        most = stage.least if stage.most is None else stage.most
        if stage.greedy and most != stage.least:
            only_without(sink, take)
        last = sink
        for _ in range(most - stage.least):
            last = self._single(scope, place, last, beyond, take, ignore, optional=True, first_round=False)
            self._add_stop_after(scope, place, last)
        for _ in range(stage.least - 1):
            last = self._single(scope, place, last, beyond, take, ignore, optional=False, first_round=False)
            self._add_stop_after(scope, place, last)
        return self._single(scope, place, last, beyond, take, ignore_condition(scope, place), optional=stage.optional)

    def _single(
        self,
        scope: Scope,
        place: int,
        sink: State,
        beyond: State,
        take: Condition,
        ignore: Condition | None,
        *,
        optional: bool,
        first_round: bool = True,
    ) -> State:
        """One repetition: take and go to `sink`; where optional, also proceed to `beyond`."""
        stage = scope.stages[place]
        if stage.group is not None:
            return self._round(scope, place, sink, beyond, optional=optional, first_round=first_round)
        limit_ms = self._limit_ms(stage)
        made = self.state(stage.name, "normal", limit_ms)
        sink = self._without_nots(scope, place, sink)
        made.add(TAKE, sink, take)
        if optional:
            always = group_goes_on(scope)
            if stage.greedy and stage.until is not None:
                made.add(PROCEED, self._ungreedy.get(beyond, beyond), all_of(always, stage.until))
                made.add(PROCEED, beyond, all_of(always, negated(stage.until)))
            else:
                made.add(PROCEED, beyond, always)
        if ignore is not None:
            waits = made
            if optional or heads_optional_group(scope, place):
                waits = self.state(stage.name, "normal", stage.step_limit_ms)
            elif heads_optional_round(scope, place):
                waits = State(0, stage.name, "normal", stage.step_limit_ms)
                self.added_later.append(waits)
            if waits is not made:
                waits.add(TAKE, sink, take)
                waits.add(IGNORE, waits, ignore)
                if first_round:
                    self._add_stops(scope, place, waits)
                    if heads_later_round(scope, place):
                        self._add_stop(scope, scope.after, waits)
                else:
                    self._add_stop_after(scope, place, waits)
            made.add(IGNORE, waits, ignore)
        return made

    def _loop(self, scope: Scope, place: int, sink: State) -> State:
        """The open end of a loop: take again and again, or proceed to `sink`."""
        stage = scope.stages[place]
        if stage.group is not None:
            return self._looping_group(scope, place, sink)
        take = unless(stage.until, take_condition(scope, stage))
        ignore = unless_any(stage.until, inner_ignore_condition(scope, place))
        always = group_goes_on(scope)
        loop = self.state(stage.name, "normal", self._limit_ms(stage))
        if stage.greedy and stage.until is not None:
            copy = self.state(sink.stage, sink.kind, sink.limit_ms)
            self._copy_edges(sink, copy)
            self._ungreedy[sink] = copy
            loop.add(PROCEED, copy, all_of(always, stage.until))
            loop.add(PROCEED, sink, all_of(always, negated(stage.until)))
        else:
            loop.add(PROCEED, sink, always)
        if stage.greedy:
            only_without(sink, take)
            if stage.until is not None:
                turn_to(sink, self._ungreedy[sink], stage.until)
        loop.add(TAKE, loop, take)
        self._add_stop_after(scope, place, loop)
        if ignore is not None:
            waits = self.state(stage.name, "normal", stage.step_limit_ms)
            waits.add(TAKE, loop, take)
            waits.add(IGNORE, waits, ignore)
            loop.add(IGNORE, waits, ignore)
            self._add_stop_after(scope, place, waits)
        return loop

    def _copy_edges(self, state: State, copy: State) -> None:
        """Give a copy the edges of a state; what stands behind a `not_next` is copied with it."""
        for edge in state.edges:
            target = copy if edge.target is state else edge.target
            if is_not_next(state) and target.kind != "stop":
                target = State(0, edge.target.stage, edge.target.kind, edge.target.limit_ms)
                self.added_later.append(target)
                self._copy_edges(edge.target, target)
            copy.add(edge.action, target, edge.condition)

    # -- groups

    def _round(self, scope: Scope, place: int, sink: State, beyond: State, *, optional: bool, first_round: bool) -> State:
        stage = scope.stages[place]
        assert stage.group is not None
        may_stop = optional or heads_optional_round(scope, place)
        words = scope.words_before(place) if first_round else stage.inner
        until = until_inside(scope, stage)
        first = self.sequence(Scope(stage.group.stages, stage, words, first_round, scope.following(place), may_stop, until), sink)
        if optional:
            first.add(PROCEED, beyond, group_goes_on(scope))
        return first

    def _looping_group(self, scope: Scope, place: int, sink: State) -> State:
        stage = scope.stages[place]
        assert stage.group is not None
        again = self.state("", "normal")
        until = until_inside(scope, stage)
        first = self.sequence(Scope(stage.group.stages, stage, stage.inner, False, scope.following(place), True, until), again)
        first.add(PROCEED, sink, group_goes_on(scope))
        again.add(PROCEED, first, group_goes_on(scope))
        return first

    def _limit_ms(self, stage: Stage) -> int | None:
        return stage.repeat_limit_ms if stage.repeat_limit_ms is not None and stage.name in self._named else stage.step_limit_ms
