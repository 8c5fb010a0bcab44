"""The pattern algebra: immutable, chained, checked as it is written.

    cep.begin("small", where=lambda o: o.amount < 5)
       .followed_by("large", lambda o, m: o.amount > 100 * m["small"][0].amount)
       .not_followed_by("refund", where=lambda o: o.refund)
       .within("10m")

Each call returns a new pattern, so a piece may be used twice. A stage's contiguity says what may lie between the record before
it and its own: `next` nothing, `followed_by` records that do not fit, `followed_by_any` anything. The same three between the
repetitions of a stage are `consecutive`, relaxed (the default) and `allow_combinations`. A pattern handed in where a name could
stand is a group: its own stages come in their order, and the quantifiers repeat them together.

The words and their meaning follow Apache Flink's CEP library; what that library accepts and then ignores works here (a limit
between neighbours on a repeated stage, the words between the repetitions of the first stage of a group, `until` in a group within
the group, an absence after a loop) or is a ConfigError (a negation at the end of a group).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from engine.cep.conditions import AnyOf, Condition, Predicate, User, all_of, condition
from engine.durations import Duration, duration_ms
from engine.errors import ConfigError

Contiguity = Literal["begin", "next", "followed_by", "followed_by_any", "not_next", "not_followed_by"]
Inner = Literal["relaxed", "consecutive", "combinations"]
Between = Literal["first_and_last", "previous_and_current"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a pattern.

    Attributes:
        name: "" for a group.
        least, most: How often; `most` None for no end. `quantified` says that it was asked for, (1, 1) included.
        step_limit_ms: Limit between the record before and each of this stage's.
        repeat_limit_ms: Flink's `times(n, window)`; see `engine.cep.nfa`.
    """

    name: str
    contiguity: Contiguity
    condition: Condition | None = None
    group: "Pattern | None" = None
    quantified: bool = False
    least: int = 1
    most: int | None = 1
    inner: Inner = "relaxed"
    optional: bool = False
    greedy: bool = False
    until: Condition | None = None
    step_limit_ms: int | None = None
    repeat_limit_ms: int | None = None

    @property
    def is_not(self) -> bool:
        """True for `not_next` and `not_followed_by`."""
        return self.contiguity in ("not_next", "not_followed_by")

    @property
    def looping(self) -> bool:
        """True where the number of repetitions has no end."""
        return self.most is None

    @property
    def last(self) -> "Stage":
        """The stage itself, or of a group the last one in it."""
        return self if self.group is None else self.group.stages[-1].last

    @property
    def ends_greedily(self) -> bool:
        """True for a greedy stage, and for a group that ends with one."""
        return self.last.greedy

    @property
    def text(self) -> str:
        """How messages call it."""
        return "the group" if self.group is not None else f"stage {self.name!r}"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern; begin one with `cep.begin`. Quantifiers and conditions refer to the stage named last."""

    stages: tuple[Stage, ...]
    within_ms: int | None = None

    # -- the next stage

    def next(self, stage: "str | Pattern", where: User | None = None, *, of: type[Any] | None = None) -> "Pattern":
        """The very next record must fit."""
        return self._then("next", stage, where, of)

    def followed_by(self, stage: "str | Pattern", where: User | None = None, *, of: type[Any] | None = None) -> "Pattern":
        """The next record that fits; what does not fit before it is passed over."""
        return self._then("followed_by", stage, where, of)

    def followed_by_any(self, stage: "str | Pattern", where: User | None = None, *, of: type[Any] | None = None) -> "Pattern":
        """Any later record that fits: a match for each of them."""
        return self._then("followed_by_any", stage, where, of)

    def not_next(self, stage: str, where: User | None = None, *, of: type[Any] | None = None) -> "Pattern":
        """The very next record must not fit."""
        return self._then("not_next", stage, where, of)

    def not_followed_by(self, stage: str, where: User | None = None, *, of: type[Any] | None = None) -> "Pattern":
        """No record that fits before the stage that comes next; as the last stage: none until the limit passes."""
        return self._then("not_followed_by", stage, where, of)

    # -- conditions

    def where(self, function: User) -> "Pattern":
        """Also ask this of the records of the stage (and)."""
        stage = self._named("where")
        return self._last(condition=all_of(stage.condition, condition(function, f"where of {stage.text}")))

    def or_where(self, function: User) -> "Pattern":
        """Be content with this instead (or)."""
        stage = self._named("or_where")
        new = condition(function, f"or_where of {stage.text}")
        return self._last(condition=new if stage.condition is None else AnyOf((stage.condition, new)))

    def until(self, function: User) -> "Pattern":
        """End the loop at the first record that fulfils this; that record is not taken by the loop."""
        stage = self.stages[-1]
        if stage.until is not None:
            raise ConfigError(f"until of {stage.text}: there is one already")
        if not stage.looping:
            raise ConfigError(f"until of {stage.text}: only a loop has an end to set; call one_or_more() or times_or_more(n) before it")
        return self._last(until=condition(function, f"until of {stage.text}"))

    # -- quantifiers

    def times(self, least: int, most: int | None = None, *, between: Duration | None = None) -> "Pattern":
        """Exactly `least` times, or from `least` to `most` times; from 0 means optional.

        Args:
            between: Flink's `times(n, window)`: a limit between a record and the one before it, for every repetition but the last.
        """
        stage = self.stages[-1]
        most = least if most is None else most
        if type(least) is not int or type(most) is not int or least < 0 or most < max(least, 1):
            raise ConfigError(f"times of {stage.text}: ({least!r}, {most!r}) is not a range of at least one repetition")
        repeated = self._repeat("times", max(least, 1), most, between)
        return repeated.optional() if least == 0 else repeated

    def one_or_more(self, *, between: Duration | None = None) -> "Pattern":
        """Once or more often: a match for each number of repetitions, unless greedy."""
        return self._repeat("one_or_more", 1, None, between)

    def times_or_more(self, least: int, *, between: Duration | None = None) -> "Pattern":
        """At least this often."""
        if type(least) is not int or least < 1:
            raise ConfigError(f"times_or_more of {self.stages[-1].text}: {least!r} is not a positive number")
        return self._repeat("times_or_more", least, None, between)

    def optional(self) -> "Pattern":
        """The stage may be skipped: matches with it and without it."""
        stage = self.stages[-1]
        if stage.is_not:
            raise ConfigError(f"optional: {stage.text} is a negation and cannot be optional")
        if stage.optional:
            raise ConfigError(f"optional: {stage.text} is optional already")
        if next((before.ends_greedily for before in reversed(self.stages[:-1]) if not before.is_not), False):
            raise ConfigError(f"optional: {stage.text} comes right after a greedy stage, which would leave nothing to it")
        return self._last(optional=True)

    def greedy(self) -> "Pattern":
        """Take as many as possible: do not go on to the next stage with a record that the loop could take."""
        stage = self._loop("greedy")
        if stage.group is not None:
            raise ConfigError("greedy: a group cannot be greedy; make its stages greedy")
        if stage.inner == "combinations":
            raise ConfigError(f"greedy: {stage.text} allows combinations, which asks for the opposite")
        return self._last(greedy=True)

    def consecutive(self) -> "Pattern":
        """Nothing may lie between the repetitions."""
        return self._inner("consecutive")

    def allow_combinations(self) -> "Pattern":
        """Records that would fit may be left out between the repetitions: a match for each choice."""
        stage = self.stages[-1]
        if stage.greedy:
            raise ConfigError(f"allow_combinations: {stage.text} is greedy, which asks for the opposite")
        return self._inner("combinations")

    # -- limits

    def within(self, limit: Duration, between: Between | None = None) -> "Pattern":
        """Limit the time that a match may take: records as far apart as the limit, or farther, are not in one match.

        Args:
            between: None or "first_and_last" for the whole match (of several such limits the smallest counts);
                "previous_and_current" for the time between the record before and the record of this stage.
        """
        stage = self.stages[-1]
        limit_ms = duration_ms(limit, f"within of {stage.text}", minimum_ms=1)
        if between == "previous_and_current":
            if len(self.stages) == 1 and not stage.quantified:
                raise ConfigError(f"within of {stage.text}: the first stage has no record before it")
            if stage.group is not None:
                raise ConfigError("within of the group: set the limit between neighbours on the group's own stages")
            return self._last(step_limit_ms=limit_ms)
        if between not in (None, "first_and_last"):
            raise ConfigError(f"within of {stage.text}: between={between!r} is not known; use 'first_and_last' or 'previous_and_current'")
        return replace(self, within_ms=limit_ms if self.within_ms is None else min(limit_ms, self.within_ms))

    # -- what others ask

    def flat(self) -> Iterator[Stage]:
        """Yield the stages with a name, those of groups included, in order."""
        for stage in self.stages:
            if stage.group is None:
                yield stage
            else:
                yield from stage.group.flat()

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the stages that take records, in order."""
        return tuple(stage.name for stage in self.flat() if not stage.is_not)

    @property
    def limit_ms(self) -> int | None:
        """Limit of the whole match: the smallest anywhere in the pattern."""
        limits = [self.within_ms, *(stage.group.limit_ms for stage in self.stages if stage.group is not None)]
        return min((limit for limit in limits if limit is not None), default=None)

    @property
    def signature(self) -> str:
        """The pattern's shape as text, conditions left out: what must not change over stored partial matches."""
        return " ".join(_shape(stage) for stage in self.stages) + ("" if self.within_ms is None else f" within {self.within_ms}")

    # -- building blocks

    def _then(self, contiguity: Contiguity, what: "str | Pattern", where: User | None, of: type[Any] | None) -> "Pattern":
        before = self.stages[-1]
        stage = _stage(contiguity, what, where, of)
        taken = {other.name for other in self.flat()}
        for name in [stage.name] if stage.group is None else [inner.name for inner in stage.group.flat()]:
            if name in taken:
                raise ConfigError(f"{contiguity}({name!r}): the pattern has a stage of that name already")
        if stage.is_not and stage.group is not None:
            raise ConfigError(f"{contiguity}: a group cannot be negated; give the stage that must not come")
        if stage.is_not and before.optional:
            raise ConfigError(f"{contiguity}({stage.name!r}): a negation cannot follow an optional stage ({before.text})")
        return replace(self, stages=(*self.stages, stage))

    def _last(self, **changes: Any) -> "Pattern":
        return replace(self, stages=(*self.stages[:-1], replace(self.stages[-1], **changes)))

    def _named(self, method: str) -> Stage:
        stage = self.stages[-1]
        if stage.group is not None:
            raise ConfigError(f"{method}: a group has no condition of its own; give it to its stages")
        return stage

    def _repeat(self, method: str, least: int, most: int | None, between: Duration | None) -> "Pattern":
        stage = self.stages[-1]
        if stage.is_not:
            raise ConfigError(f"{method}: {stage.text} is a negation and cannot be repeated")
        if stage.quantified:
            raise ConfigError(f"{method}: {stage.text} has a quantifier already")
        limit_ms = None if between is None else duration_ms(between, f"{method} of {stage.text}", minimum_ms=1)
        return self._last(quantified=True, least=least, most=most, repeat_limit_ms=limit_ms)

    def _loop(self, method: str) -> Stage:
        stage = self.stages[-1]
        if not stage.quantified:
            raise ConfigError(f"{method}: {stage.text} is not repeated; call times(…), one_or_more() or times_or_more(n) before it")
        return stage

    def _inner(self, inner: Inner) -> "Pattern":
        method = "allow_combinations" if inner == "combinations" else inner
        stage = self._loop(method)
        if stage.inner != "relaxed":
            raise ConfigError(f"{method}: {stage.text} is {stage.inner} already")
        return self._last(inner=inner)


def begin(stage: str | Pattern, where: User | None = None, *, of: type[Any] | None = None) -> Pattern:
    """Begin a pattern with a stage, or with a group of stages.

    Args:
        stage: Name of the first stage, or a pattern as a group.
        where: Condition `f(value)` or `f(value, match)`; without one any record fits.
        of: Only records whose value is of this type.
    """
    return Pattern((_stage("begin", stage, where, of),))


def check_whole(pattern: Pattern) -> None:
    """Check what can be known only when a pattern is complete.

    Raises:
        ConfigError: It cannot be matched; the message says why.
    """
    last = pattern.stages[-1]
    if last.contiguity == "not_followed_by" and pattern.limit_ms is None and last.step_limit_ms is None:
        raise ConfigError(f"not_followed_by({last.name!r}) is the last stage: say with within(…) how long to wait before it is certain")
    _check_sequence(pattern)


def _check_sequence(pattern: Pattern) -> None:
    stages = pattern.stages
    for place, stage in enumerate(stages):
        behind = stages[place + 1 :]
        if stage.contiguity == "not_next" and behind and not any(map(surely_takes, behind)):
            raise ConfigError(
                f"not_next({stage.name!r}): all that comes after it is optional, so it is not certain that a next record counts"
            )
        if stage.is_not and stage.step_limit_ms is not None and (behind or stage.contiguity == "not_next"):
            raise ConfigError(
                f"within of {stage.text}: a limit between neighbours is for a not_followed_by at the end; set it on the stage after it"
            )
        if stage.group is not None:
            before = next((other for other in reversed(stages[:place]) if not other.is_not), None)
            _check_group(stage, stage.group, after_greedy=before is not None and before.ends_greedily)
    last = stages[-1]
    before = stages[-2] if len(stages) > 1 else None
    if last.is_not and last.step_limit_ms is not None and before is not None and before.least != before.most:
        raise ConfigError(
            f"within of {last.text}: a limit between neighbours needs a stage before it that is certain to be over, and {before.text} may "
            "take more; give the whole pattern a limit"
        )


def _check_group(stage: Stage, group: Pattern, *, after_greedy: bool) -> None:
    first, last = group.stages[0], group.stages[-1]
    if last.is_not:
        raise ConfigError(f"a group cannot end with a negation ({last.text}); put it behind the group")
    if not any(map(surely_takes, group.stages)) and (stage.quantified or stage.optional):
        raise ConfigError("a group that is repeated or optional needs a stage that is not optional, or a round of it could take no record")
    if after_greedy and first.optional:
        raise ConfigError(f"optional: {first.text} comes right after a greedy stage, which would leave nothing to it")
    if last.ends_greedily and (stage.least, stage.most) != (1, 1):
        raise ConfigError(f"greedy: {last.text} ends a group that is repeated, so that it would leave nothing to the next round")
    _check_sequence(group)


def surely_takes(stage: Stage) -> bool:
    """Say whether no match goes without a record of a stage or a group."""
    return not stage.is_not and not stage.optional and (stage.group is None or any(map(surely_takes, stage.group.stages)))


def _stage(contiguity: Contiguity, what: str | Pattern, where: User | None, of: type[Any] | None) -> Stage:
    if isinstance(what, Pattern):
        if where is not None or of is not None:
            raise ConfigError(f"{contiguity}: a group has no condition of its own; give it to its stages")
        return Stage("", contiguity, group=what)
    if not isinstance(what, str) or not what:
        raise ConfigError(f"{contiguity}: {what!r} is neither the name of a stage nor a pattern")
    if of is not None and not isinstance(of, type):
        raise ConfigError(f"{contiguity}({what!r}): of={of!r} is not a type")
    kind = None if of is None else Predicate(of.__instancecheck__, wants_match=False)
    asked = None if where is None else condition(where, f"where of stage {what!r}")
    found = None if kind is None and asked is None else all_of(kind, asked)
    return Stage(what, contiguity, condition=found)


def _shape(stage: Stage) -> str:
    name = f"({stage.group.signature}){_head(stage, stage.group)}" if stage.group is not None else stage.name
    count = f"{{{stage.least},{'' if stage.most is None else stage.most} {stage.inner}}}" if stage.quantified else ""
    words = [word for word in ("optional", "greedy") if getattr(stage, word)] + (["until"] if stage.until is not None else [])
    limits = [f"step {stage.step_limit_ms}"] * (stage.step_limit_ms is not None)
    limits += [f"between {stage.repeat_limit_ms}"] * (stage.repeat_limit_ms is not None)
    return " ".join([f"{stage.contiguity} {name}{count}", *words, *limits])


def _head(stage: Stage, group: Pattern) -> str:
    """Tell groups apart whose states are numbered anew since their first stage is heeded, or since a negation reaches over them."""
    first = group.stages[0]
    heeded = first.group is not None or (first.quantified and first.inner != stage.inner)
    return "'" * heeded + '"' * (not any(map(surely_takes, group.stages)))
