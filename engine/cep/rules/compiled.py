"""A rule fitted to the stream that it is for: the matcher, and what else the operator needs.

Whatever is wrong with the rule is a `RecordError` with the reason: the record goes to the dead letters, and what stood before stays.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engine.cep.conditions import TakenBy
from engine.cep.linear import RepetitionMatcher, linear_matcher
from engine.cep.matcher import RECORDS_MAX, Matcher, NfaMatcher, Shape
from engine.cep.nfa import compile_pattern
from engine.cep.recognize.measures import Recognized
from engine.cep.recognize.recognizer import Recognizer
from engine.cep.rules.expressions import Expressions
from engine.cep.rules.pattern import make_pattern, make_skip, names_of
from engine.cep.rules.rule import Rule, check_rule
from engine.cep.rules.screen import Asked, Screen, screen_of_pattern, screen_of_rows
from engine.cep.rules.sharing import Sharing, Test
from engine.errors import ConfigError, RecordError


@dataclass(frozen=True, slots=True)
class Frame:
    """What rules must fit.

    Attributes:
        value_type: Type of the records.
        timeouts: The stream has a topic for partial matches that run out of time.
        key_fields, time_fields: Fields that the key and the event time of the stream are; None among them where that is not known.
    """

    value_type: Any
    key_fields: frozenset[str | None]
    time_fields: frozenset[str | None]
    max_partials: int = 10_000
    max_records: int = RECORDS_MAX
    on_too_many: Literal["drop_oldest", "fail"] = "drop_oldest"
    timeouts: bool = False


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule that can run; its matcher gives `Recognized` rows.

    Attributes:
        ties: Sorts records of the same time, None for arrival.
        asked: Texts of its conditions on the record alone (see `engine.cep.rules.sharing`).
        screen: What tells the records that cannot matter to it, None where any may.
        screened: The matcher for what the screen lets through; None for the same.
    """

    rule: Rule
    matcher: Matcher
    within_ms: int | None
    ties: Callable[[Any], Any] | None = None
    asked: tuple[str, ...] = ()
    screen: Screen | None = None
    screened: Matcher | None = None


def compile_rule(rule: Rule, frame: Frame, sharing: Sharing | None = None) -> CompiledRule | None:
    """Return a rule as it runs; None for one that is not enabled.

    Args:
        sharing: What it shares with other rules; None for nothing.
    Raises:
        RecordError: It cannot run, with the reason.
    """
    check_rule(rule)
    if rule.timeouts and not frame.timeouts:
        raise RecordError(f"rule {rule.id!r} version {rule.version}: timeouts: the program has no topic for them (detect(timeouts_to=…))")
    sharing = sharing or Sharing()
    try:
        if rule.match_recognize is not None:
            return _from_sql(rule, rule.match_recognize, frame, sharing)
        return None if rule.pattern is None else _from_pattern(rule, frame, sharing)
    except ConfigError as error:
        raise RecordError(f"rule {rule.id!r} version {rule.version}: {error}") from error
    except RecordError as error:
        raise RecordError(f"rule {rule.id!r} version {rule.version}: {error}") from error
    except RecursionError as error:
        raise RecordError(f"rule {rule.id!r} version {rule.version}: too deep") from error


def _from_sql(rule: Rule, sql: str, frame: Frame, sharing: Sharing) -> CompiledRule:
    recognizer = Recognizer(sql, placed=True)
    query = recognizer.query
    if query.partition_by and {column.name for column in query.partition_by} != frame.key_fields:
        known = ", ".join(sorted(field for field in frame.key_fields if field is not None))
        advice = f"that is {known}" if None not in frame.key_fields else "leave PARTITION BY out"
        recognizer.fail(query.partition_by[0], f"a rule is matched by the key of its stream; {advice}")
    if query.order_by:
        recognizer.check_order(frame.time_fields, frame.value_type)
    if rule.timeouts and query.within_ms is None:
        raise RecordError("timeouts: without a limit nothing runs out of time; give the clause a WITHIN")
    limits: Any = {"max_partials": min(frame.max_partials, frame.max_records), "on_too_many": frame.on_too_many}
    asked: list[str] = []

    def shared(text: str, test: Test) -> Test:
        asked.append(text)
        return sharing.test(text, test)

    matcher = recognizer.matcher(frame.value_type, timeouts=rule.timeouts, shared=shared, **limits)
    ties = recognizer.ties(frame.value_type)
    columns = {label: Asked(*found) for label, found in recognizer.columns(frame.value_type).items()}
    screen = screen_of_rows(matcher.plan, columns) if ties is None else None
    return CompiledRule(rule, matcher, query.within_ms, ties, tuple(asked), screen)


def _from_pattern(rule: Rule, frame: Frame, sharing: Sharing) -> CompiledRule:
    assert rule.pattern is not None
    names = list(names_of(rule.pattern.stages))
    expressions = Expressions(names, frame.value_type, sharing)
    pattern, skip = make_pattern(rule.pattern, expressions), make_skip(rule.skip)
    shape = _shape(rule, expressions, pattern.stage_names)
    limits: Any = {"max_partials": frame.max_partials, "max_records": frame.max_records, "on_too_many": frame.on_too_many}
    options = {"value_type": frame.value_type, "shape": shape, **limits}
    automaton = compile_pattern(pattern, skip)
    if rule.timeouts and not automaton.timed:
        raise RecordError("timeouts: without a limit nothing runs out of time; give the pattern a `within`")
    fast = None if rule.timeouts else linear_matcher(pattern, skip, **options)
    matcher = fast or NfaMatcher(automaton, skip, timeouts=rule.timeouts, **options)
    screen = screen_of_pattern(pattern, matcher, expressions.known)
    # All that is let through of a repeated stage fulfils its condition.
    screened = matcher.of_fitting() if isinstance(matcher, RepetitionMatcher) else None
    return CompiledRule(rule, matcher, automaton.within_ms, asked=tuple(expressions.asked), screen=screen, screened=screened)


def _shape(rule: Rule, expressions: Expressions, stages: Sequence[str]) -> Shape:
    """Return what makes the fields of a match: as `output` says, else all values of each stage."""
    if rule.output is None:

        def everything(key: Any, path: Sequence[TakenBy]) -> Recognized:
            return Recognized(key, {stage: [value for name, _, value in path if name == stage] for stage in stages})

        return everything
    fields = {name: expressions.field(sql, f"output {name!r}") for name, sql in rule.output.items()}

    def chosen(key: Any, path: Sequence[TakenBy]) -> Recognized:
        return Recognized(key, {name: field(path) for name, field in fields.items()})

    return chosen
