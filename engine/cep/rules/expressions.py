"""Conditions and fields of a rule's pattern: the SQL expressions of MATCH_RECOGNIZE, held against a partial match or a match.

    where of "large"     cents >= 100 * LAST(small.cents)          the present record counts as one of its stage
    output               COUNT(*), FIRST(small.id), SUM(large.cents), timestamp_ms

A name of a stage before a column means the last record of that stage, a column alone the record at hand (in a field: the last one of
the match). Stages are found whatever their capitals, as names are in SQL. What needs rows without a gap (PREV, NEXT) or the count of all
matches (MATCH_NUMBER) is for `match_recognize` alone, and refused here.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from engine.cep.conditions import PartialMatch, TakenBy
from engine.cep.recognize.clause import Span
from engine.cep.recognize.expressions import Compiler, Names
from engine.cep.recognize.lexer import Clause
from engine.cep.recognize.recognizer import EVENT_TIME, fields_getter, types_getter, values_getter
from engine.cep.recognize.view import MISFITS, View, initial_accs, next_accs
from engine.cep.rules.screen import Asked
from engine.cep.rules.sharing import Sharing, Test
from engine.errors import ConfigError, RecordError

_ONLY_SQL = ("PREV", "NEXT", "MATCH_NUMBER")


class Expressions:
    """Compiles the expressions of one pattern.

    Args:
        stages: Names of all stages, those of negations too.
        value_type: Type of the records.
        sharing: What rules share; None for nothing.

    Attributes:
        asked: Canonical texts of the conditions that the record alone decides.
        known: Those conditions as columns, by their functions.
    """

    def __init__(self, stages: Sequence[str], value_type: Any, sharing: Sharing | None = None) -> None:
        self.asked: list[str] = []
        self.known: dict[Test, Asked] = {}
        self._sharing = sharing or Sharing()
        names = [stage.upper() for stage in stages]
        if len(set(names)) < len(names):
            raise RecordError(f"two stages differ only by capitals: {', '.join(stages)}")
        self._names = Names(tuple(names), {})
        self._labels = {stage: label for label, stage in enumerate(stages)}
        self._field = fields_getter(value_type)
        self._field_of_value = values_getter(value_type)
        self._type_of = types_getter(value_type)

    def condition(self, stage: str, sql: str, what: str) -> Callable[..., Any]:
        """Return a condition of a stage, as `f(value)` where the record alone decides, else as `f(value, match)`."""
        compiler = self._compiler(sql, what)
        label = self._labels[stage]
        try:
            compiled = compiler.compile(Span(0, len(sql)), own=label)
        except ConfigError as error:
            raise _refused(what, error) from error
        if compiled.plain and EVENT_TIME not in sql:
            # The record alone decides, and nothing of a view is asked for but it.
            self.asked.append(compiled.text)
            of_value, whole = Compiler(Clause(sql), self._names, self._field_of_value), Span(0, len(sql))
            named = _naming(self._sharing.test(compiled.text, of_value.compile(whole, own=label).get), what, sql)
            self.known[named] = Asked(compiled.text, of_value.column(whole, own=label))
            return named
        get, labels, view = compiled.get, self._labels, View()
        view.closed = True

        def with_match(value: Any, match: PartialMatch) -> bool:
            try:
                _lay_out(view, [*match.path(), (stage, match.timestamp_ms, value)], labels, compiler)
                return bool(get(view))
            except (*MISFITS, RecordError) as error:
                raise RecordError(f"{what} ({sql}): {error}") from error

        return with_match

    def field(self, sql: str, what: str) -> Callable[[Sequence[TakenBy]], Any]:
        """Return what computes a field from the records of a match."""
        compiler = self._compiler(sql, what)
        try:
            get = compiler.compile(Span(0, len(sql))).get
        except ConfigError as error:
            raise _refused(what, error) from error
        labels, view = self._labels, View()
        view.closed = True

        def of_match(path: Sequence[TakenBy]) -> Any:
            try:
                _lay_out(view, path, labels, compiler)
                return get(view)
            except (*MISFITS, RecordError) as error:
                raise RecordError(f"{what} ({sql}): {error}") from error

        return of_match

    def _compiler(self, sql: str, what: str) -> Compiler:
        clause = Clause(sql)
        try:
            tokens = clause.tokens()
        except ConfigError as error:
            raise _refused(what, error) from error
        for token, following in pairwise(tokens):
            if token.word in _ONLY_SQL and following.text == "(":
                raise RecordError(f"{what}: {token.word} is only for match_recognize, where rows follow each other without a gap")
        return Compiler(clause, self._names, self._field, self._type_of)


def _naming(test: Test, what: str, sql: str) -> Test:
    """Return a condition on the record alone that says which one it is when it raises."""

    def named(value: Any) -> Any:
        try:
            return test(value)
        except (*MISFITS, RecordError) as error:
            raise RecordError(f"{what} ({sql}): {error}") from error

    return named


def _lay_out(view: View, path: Sequence[TakenBy], labels: dict[str, int], compiler: Compiler) -> None:
    """Let a view look at the last record of a match, with the others before it."""
    rows = [(timestamp_ms, value, 0) for _, timestamp_ms, value in path]
    taken = [labels[stage] for stage, _, _ in path]
    view.rows, view.labels, view.last = rows, taken, len(rows) - 1
    accs, folds = initial_accs(compiler.folds), compiler.folds
    for number, label in enumerate(taken):
        view.number = view.position = number
        view.row, view.label = rows[number], label
        accs = next_accs(folds, accs, view, label)
    view.accs = view.final_accs = accs


def _refused(what: str, error: ConfigError) -> RecordError:
    return RecordError(f"{what}: {str(error).removeprefix('match_recognize, ')}")
