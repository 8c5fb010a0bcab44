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

A negation is in force from the last record before it to the first one after it. What may be left out between them makes that differ
from way to way, so a stop ends only what goes on from its state: in (a b?) not x c over "a x b c" the way that waits for b lives on.
(Flink refuses a negation behind an optional stage as "not supported yet", and lets groups that end with one pass with chance results.)

Limits between neighbours hold on the states of the stage they were set on. `times(n, between=…)` holds on every repetition but
the one whose state is made first, as Flink has it (its last fixed repetition, or the open end of a loop).
"""

from dataclasses import dataclass

from engine.cep.conditions import Condition, check_of, negated
from engine.cep.pattern import Pattern, Stage, check_whole
from engine.cep.scope import (
    Negations,
    Scope,
    has_nots_before,
    heads_optional_group,
    heads_optional_round,
    ignore_condition,
    inner_ignore_condition,
    nots_before,
    take_condition,
    unless,
    unless_any,
    until_inside,
)
from engine.cep.skip import Skip
from engine.cep.states import IGNORE, PROCEED, TAKE, Kind, State, is_not_next, may_end, only_without, stops_reached, turn_to
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
    for state in (*compiler.added_later, *compiler.added_last):
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
        self.added_last: list[State] = []
        self._stops: dict[str, State] = {}
        self._ungreedy: dict[State, State] = {}  # states as they were before a greedy loop with `until` changed their edges
        self._named: set[str] = set()

    def state(self, stage: str, kind: Kind = "normal", limit_ms: int | None = None) -> State:
        self._named.add(stage)
        made = State(len(self.states), stage, kind, limit_ms)
        self.states.append(made)
        return made

    def _added(self, like: State, to: list[State]) -> State:
        made = State(0, like.stage, like.kind, like.limit_ms)
        to.append(made)
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

    def _stop(self, stage: Stage, unwanted: Condition, *, numbered: bool = True) -> State:
        stop = self._stops.get(stage.name)
        if stop is None:
            stop = self._stops[stage.name] = State(-1, stage.name, "stop")
            stop.add(TAKE, stop, unwanted)
        if numbered and stop.number < 0:
            stop.number = len(self.states)
            self.states.append(stop)
        return stop

    def _add_stops(self, scope: Scope, nots: Negations, state: State) -> None:
        for stage, unwanted in nots:
            # The stop of what is in force around a group gets its number behind the group, as it always did.
            stop = self._stop(stage, unwanted, numbered=(stage, unwanted) not in scope.in_force)
            if not any(edge.target is stop for edge in state.edges):
                state.add(PROCEED, stop, unwanted)

    def _add_stops_after(self, scope: Scope, place: int, state: State, *, very_next: bool = False) -> None:
        """Let the negations behind a stage hold where its next repetition is waited for.

        A `not_next` counts if the stage may be over already, and only for the very next record.
        """
        very_next = very_next and scope.may_be_over(place)
        behind = [stage for stage in scope.nots_after(place) if stage.contiguity == "not_followed_by" or very_next]
        self._add_stops(scope, tuple((stage, take_condition(scope, stage)) for stage in behind), state)

    def _without_nots(self, scope: Scope, place: int, sink: State, *, numbered: bool = True) -> State:
        """Return the sink as it is once an optional stage has been taken: the negations before that stage are behind it."""
        if not scope.stages[place].optional:
            return sink
        ahead = {stage.name for stage in scope.nots_after(place)}
        nots = {stage.name for stage, _ in nots_before(scope, place)} - ahead
        return self._relieved(sink, frozenset(nots), scope, numbered=numbered and has_nots_before(scope, place))

    def _relieved(self, sink: State, nots: frozenset[str], scope: Scope, *, numbered: bool) -> State:
        """Return a copy of a state without the stops of some negations; `numbered`: earlier versions had one too, whatever it left out."""
        nots -= {name for state, names in scope.ends if state is sink for name in names}
        if not numbered and not any(edge.target.stage in nots for edge in stops_reached(sink)):
            return sink
        copy = self.state(sink.stage, sink.kind, sink.limit_ms) if numbered else self._added(sink, self.added_last)
        if sink.kind == "normal" and not sink.edges:
            return sink  # where a group goes round: its edges come later (the copy keeps its number only)
        for edge in sink.edges:
            if edge.action != PROCEED:
                copy.add(edge.action, copy if edge.target is sink else edge.target, edge.condition)
            elif edge.target.kind != "stop":
                copy.add(PROCEED, self._relieved(edge.target, nots, scope, numbered=numbered), edge.condition)
            elif edge.target.stage not in nots:
                copy.add(PROCEED, edge.target, edge.condition)
        return copy

    # -- stages and their repetitions

    def _stage(self, scope: Scope, place: int, sink: State) -> State:
        stage = scope.stages[place]
        if stage.looping:
            behind = self._without_nots(scope, place, sink)
            loop = self._loop(scope, place, behind)
            if stage.greedy and behind is not sink and (stage.optional or stage.until is None):
                self._give_way(scope, stage, sink)  # where the loop is left out, by what leads past it
            first = self._times(scope, place, loop, sink)
        elif stage.quantified:
            first = self._times(scope, place, sink, sink)
        else:
            take, ignore = take_condition(scope, stage), ignore_condition(scope, place)
            first = self._single(scope, place, sink, sink, take, ignore, optional=stage.optional)
        self._add_stops(scope, nots_before(scope, place), first)
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
            self._add_stops_after(scope, place, last, very_next=True)
        for number in range(stage.least, 1, -1):
            last = self._single(scope, place, last, beyond, take, ignore, optional=False, first_round=False, over=number == stage.least)
            self._add_stops_after(scope, place, last)
        first_ignore = ignore_condition(scope, place)
        return self._single(scope, place, last, beyond, take, first_ignore, optional=stage.optional, over=stage.least == 1)

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
        over: bool = True,
    ) -> State:
        """One repetition: take and go to `sink`; where optional, also proceed to `beyond`. `over`: it may be the last one."""
        stage = scope.stages[place]
        if stage.group is not None:
            behind = self._without_nots(scope, place, sink, numbered=False)
            last = stage.last
            if behind is not sink and last.greedy and last.until is None:
                only_without(sink, take_condition(scope, last))  # where the group is left out
            return self._round(scope, place, behind, beyond, optional=optional, first_round=first_round, over=over)
        limit_ms = self._limit_ms(stage)
        made = self.state(stage.name, "normal", limit_ms)
        sink = self._without_nots(scope, place, sink)
        made.add(TAKE, sink, take)
        if optional:
            if stage.greedy and stage.until is not None:
                made.add(PROCEED, self._ungreedy.get(beyond, beyond), stage.until)
                made.add(PROCEED, beyond, negated(stage.until))
            else:
                made.add(PROCEED, beyond)
        if ignore is not None:
            waits = made
            if optional or heads_optional_group(scope, place):
                waits = self.state(stage.name, "normal", stage.step_limit_ms)
            elif heads_optional_round(scope, place):
                waits = self._added(State(0, stage.name, "normal", stage.step_limit_ms), self.added_later)
            if waits is not made:
                waits.add(TAKE, sink, take)
                waits.add(IGNORE, waits, ignore)
                if first_round:
                    self._add_stops(scope, nots_before(scope, place), waits)
                else:
                    self._add_stops_after(scope, place, waits)
            made.add(IGNORE, waits, ignore)
        return made

    def _loop(self, scope: Scope, place: int, sink: State) -> State:
        """The open end of a loop: take again and again, or proceed to `sink`."""
        stage = scope.stages[place]
        if stage.group is not None:
            return self._looping_group(scope, place, sink)
        take = unless(stage.until, take_condition(scope, stage))
        ignore = unless_any(stage.until, inner_ignore_condition(scope, place))
        loop = self.state(stage.name, "normal", self._limit_ms(stage))
        if stage.greedy:
            self._give_way(scope, stage, sink)
        if stage.greedy and stage.until is not None:
            loop.add(PROCEED, self._ungreedy[sink], stage.until)
            loop.add(PROCEED, sink, negated(stage.until))
        else:
            loop.add(PROCEED, sink)
        loop.add(TAKE, loop, take)
        self._add_stops_after(scope, place, loop, very_next=True)
        if ignore is not None:
            waits = self.state(stage.name, "normal", stage.step_limit_ms)
            waits.add(TAKE, loop, take)
            waits.add(IGNORE, waits, ignore)
            loop.add(IGNORE, waits, ignore)
            self._add_stops_after(scope, place, waits)
        return loop

    def _give_way(self, scope: Scope, stage: Stage, sink: State) -> None:
        """Let what follows a greedy loop take only what the loop does not; when `until` has ended the loop, it may take all."""
        if stage.until is None:
            only_without(sink, take_condition(scope, stage))
            return
        free = self.state(sink.stage, sink.kind, sink.limit_ms)
        self._copy_edges(sink, free)
        self._ungreedy[sink] = free
        only_without(sink, unless(stage.until, take_condition(scope, stage)))
        turn_to(sink, free, stage.until)

    def _copy_edges(self, state: State, copy: State) -> None:
        """Give a copy the edges of a state; what stands behind a `not_next` is copied with it."""
        for edge in state.edges:
            target = copy if edge.target is state else edge.target
            if is_not_next(state) and target.kind != "stop":
                target = self._added(edge.target, self.added_later)
                self._copy_edges(edge.target, target)
            copy.add(edge.action, target, edge.condition)

    # -- groups

    def _round(self, scope: Scope, place: int, sink: State, beyond: State, *, optional: bool, first_round: bool, over: bool) -> State:
        may_stop = optional or heads_optional_round(scope, place)
        first = self._inside(scope, place, sink, first_round=first_round, may_stop=may_stop, over=over)
        if optional:
            first.add(PROCEED, beyond)
        return first

    def _looping_group(self, scope: Scope, place: int, sink: State) -> State:
        again = self.state("", "normal")
        first = self._inside(scope, place, again, first_round=False, may_stop=True, over=True)
        first.add(PROCEED, sink)
        again.add(PROCEED, first)
        self._add_stops_after(scope, place, first, very_next=True)
        return first

    def _inside(self, scope: Scope, place: int, sink: State, *, first_round: bool, may_stop: bool, over: bool) -> State:
        """Compile the stages of a group for one round that leads to `sink`; return the state where the first of them begins."""
        stage, behind = scope.stages[place], scope.nots_after(place)
        assert stage.group is not None
        words = scope.words_before(place) if first_round else stage.inner
        over = over and scope.may_be_over(place)
        lasting = tuple((other, take_condition(scope, other)) for other in behind if other.contiguity == "not_followed_by")
        in_force = nots_before(scope, place) if first_round else lasting
        ends = (*scope.ends, (sink, frozenset(other.name for other, _ in lasting)))
        until = until_inside(scope, stage)
        inner = Scope(stage.group.stages, stage, words, first_round, behind, may_stop, until, over, in_force, ends)
        return self.sequence(inner, sink)

    def _limit_ms(self, stage: Stage) -> int | None:
        return stage.repeat_limit_ms if stage.repeat_limit_ms is not None and stage.name in self._named else stage.step_limit_ms
