"""`Recognizer`: a MATCH_RECOGNIZE clause, compiled as far as it can be without the type of the records."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any, Literal, NoReturn, get_origin

import msgspec

from engine.cep.recognize.automaton import START, RowAutomaton, compile_row_pattern
from engine.cep.recognize.clause import Column as ColumnName
from engine.cep.recognize.clause import Query, Span, parse_clause
from engine.cep.recognize.columns import Column
from engine.cep.recognize.expressions import Compiler, Field, Names
from engine.cep.recognize.matcher import RowMatcher
from engine.cep.recognize.measures import Measures
from engine.cep.recognize.plan import Plan
from engine.cep.recognize.row_pattern import text_of, variables_of
from engine.cep.recognize.view import Expression
from engine.errors import ConfigError
from engine.selectors import compile_selector, fields_of

EVENT_TIME = "timestamp_ms"
"""Column that every record has: its event time."""

OnTooMany = Literal["drop_oldest", "fail"]
Shared = Callable[[str, Callable[[Any], Any]], Callable[[Any], Any]]


class Recognizer:
    """A compiled clause; `stream.detect(recognizer)` gives its rows as dicts. Make one with `cep.match_recognize`.

    Args:
        placed: The stream has its key and its order already, so PARTITION BY and ORDER BY may be left out (live rules).

    Attributes:
        query: The clause in its parts.
        automaton: Its pattern.
    """

    def __init__(self, sql: str, *, placed: bool = False) -> None:
        self.query: Query = parse_clause(sql)
        if not self.query.partition_by and not placed:
            self._fail(0, "PARTITION BY is needed: without it all records of the stream would go to one partition of one worker")
        if not self.query.order_by and not placed:
            self._fail(0, "ORDER BY is needed: rows are matched in the order of their event time")
        query = self.query
        try:
            self.automaton: RowAutomaton = compile_row_pattern(query.pattern, query.variables)
        except ConfigError as error:
            self._fail(next(variables_of(query.pattern)).at, str(error).removeprefix("match_recognize: "))
        self._names = Names(query.variables, {name: self._labels(*members) for name, members in query.subsets.items()})
        self._check_skip(self.automaton)
        self._plan(lambda path: lambda view: None, dict)

    def matcher(
        self, value_type: Any, *, max_partials: int, on_too_many: OnTooMany, timeouts: bool = False, shared: Shared | None = None
    ) -> RowMatcher:
        """Return the matcher for records of a type; with `timeouts` it also tells of attempts that WITHIN ended.

        Args:
            shared: Gets the canonical text of each condition on the record alone, and a function of the value; gives the one to use.
        Raises:
            ConfigError: The type has no such field, or cannot be shown as columns.
        """
        plan = self._plan(fields_getter(value_type), self._columns(value_type), types_getter(value_type))
        if shared is not None:
            plan = replace(plan, conditions=tuple(self._shared(plan.conditions, value_type, shared)))
        return RowMatcher(plan, value_type=value_type, timeouts=timeouts, max_partials=max_partials, on_too_many=on_too_many)

    def columns(self, value_type: Any) -> dict[int, tuple[str, Column]]:
        """Return the conditions on the record alone, by the numbers of their variables: canonical text, and the condition as a column."""
        compiler = Compiler(self.query.clause, self._names, values_getter(value_type))
        return {label: (text, compiler.column(span, own=label)) for label, text, span in self._plain()}

    def ties(self, value_type: Any) -> Callable[[Any], Any] | None:
        """Return what sorts records of the same time: the columns of ORDER BY after the first, None without any."""
        columns = [_getter(value_type, column.name) for column in self.query.order_by[1:]]
        for column, getter in zip(self.query.order_by[1:], columns, strict=True):
            if getter is None:
                self._fail(column.at, f"the records have no field {column.name!r}")
        getters = [getter for getter in columns if getter is not None]
        return (lambda value: tuple(getter(value) for getter in getters)) if getters else None

    def check_order(self, times: AbstractSet[str | None], value_type: Any) -> None:
        """Refuse an ORDER BY that does not begin with the event time.

        Args:
            times: Fields that hold the event time of the stream; None among them where that is not known.
        Raises:
            ConfigError: It begins with something else, or that is not known.
        """
        column = self.query.order_by[0]
        if times == {column.name} or (column.name == EVENT_TIME and EVENT_TIME not in (fields_of(value_type) or ())):
            return
        known = {time for time in times if time is not None}
        advice = f"that is {', '.join(sorted(known))}" if known and None not in times else f"write ORDER BY {EVENT_TIME}, which always is"
        self.fail(column, f"{column.name} is not known to be the event time of the stream, the only order there is; {advice}")

    @property
    def signature(self) -> str:
        """What must not change over stored rows: all but the text of the expressions, as far as they look at the same rows."""
        query, plan = self.query, self._plan(lambda path: lambda view: None, dict)
        parts = [text_of(query.pattern), f"{query.skip.kind} {query.skip.variable}".strip(), query.rows]
        parts += [f"within {query.within_ms}", f"local {plan.local}", f"back {plan.looks_back}"]
        return "match_recognize " + " ".join(parts)

    def fail(self, column: ColumnName, message: str) -> NoReturn:
        """Raise an error that points at a column of PARTITION BY or ORDER BY.

        Raises:
            ConfigError: Always.
        """
        self._fail(column.at, message)

    # -- inside

    def _shared(self, conditions: Sequence[Expression | None], value_type: Any, shared: Shared) -> Iterator[Expression | None]:
        """Yield the conditions, those on the record alone as functions of what is shared."""
        known: dict[str, Expression] = {}
        plain = {label: (text, span) for label, text, span in self._plain()}
        for label, condition in enumerate(conditions):
            if label not in plain:
                yield condition
                continue
            text, span = plain[label]
            get = Compiler(self.query.clause, self._names, values_getter(value_type)).compile(span, own=label).get
            test = shared(text, get)
            yield known.setdefault(text, _of_row(test))

    def _plain(self) -> Iterator[tuple[int, str, Span]]:
        """Yield the variables whose condition only asks for fields of the record: number, canonical text, place."""
        query = self.query
        for label, name in enumerate(query.variables):
            span = query.defines.get(name)
            if span is not None and EVENT_TIME not in query.clause.text[span.start : span.end]:
                compiled = Compiler(query.clause, self._names, _nothing, lambda path: Any).compile(span, own=label)
                if compiled.plain:
                    yield label, compiled.text, span

    def _plan(self, field: Field, columns: Callable[[Any], dict[str, Any]], type_of: Callable[[str], Any] = lambda path: Any) -> Plan:
        query = self.query
        define, measure = (Compiler(query.clause, self._names, field, type_of) for _ in range(2))
        conditions: list[Expression | None] = []
        local = 0
        plain: dict[str, Expression] = {}
        for label, name in enumerate(query.variables):
            compiled = define.compile(query.defines[name], own=label) if name in query.defines else None
            get = None if compiled is None else plain.setdefault(compiled.text, compiled.get) if compiled.plain else compiled.get
            conditions.append(get)
            local |= (compiled is None or compiled.local) << label
        shown = {name: measure.compile(span).get for name, span in query.measures.items()}
        measures = Measures(query.rows, self.automaton, tuple(shown), tuple(shown.values()), tuple(measure.folds), columns)
        return Plan(
            self.automaton,
            query.variables,
            tuple(conditions),
            local,
            tuple(define.folds),
            measures,
            query.rows,
            query.skip,
            self._names.labels(query.skip.variable) or frozenset(),
            query.within_ms,
            max(define.looks_back, measure.looks_back),
            define.numbered or measure.numbered or self.automaton.anchored,
        )

    def _columns(self, value_type: Any) -> Callable[[Any], dict[str, Any]]:
        """Return what gives the columns that stand before the measures."""
        query, known = self.query, fields_of(value_type)
        if query.rows == "one":
            names = [column.name for column in query.partition_by]
            getters: dict[str, Callable[[Any], Any]] = {}
            for column in query.partition_by:
                getter = _getter(value_type, column.name)
                if getter is None:
                    self._fail(column.at, f"the records have no field {column.name!r}")
                getters[column.name] = getter
            self._check_names(names)
            return lambda value: {name: getter(value) for name, getter in getters.items()}
        if known is None and not _is_mapping(value_type):
            self._fail(0, f"ALL ROWS PER MATCH shows the fields of the records, and {value_type!r} does not say which there are")
        self._check_names(list(known or ()))
        return _row_of

    def _check_names(self, columns: list[str]) -> None:
        for name in columns:
            if name in self.query.measures:
                self._fail(self.query.measures[name].end, f"the rows have a column {name!r} already; give the measure another name")

    def _labels(self, *names: str) -> frozenset[int]:
        return frozenset(self.query.variables.index(name) for name in names)

    def _check_skip(self, automaton: RowAutomaton) -> None:
        """Refuse a skip that would always begin the same match again."""
        skip, labels = self.query.skip, self._names.labels(self.query.skip.variable) or frozenset()
        first, empty = automaton.at_partition_start
        always_first = bool(first) and not empty and all(automaton.labels[state] in labels for state in first)
        later = any(automaton.labels[state] in labels for order in automaton.goes_on[START + 1 :] for state in order)
        if always_first and (skip.kind == "to_first" or (skip.kind == "to_last" and not later)):
            self._fail(skip.at, f"{skip.variable} is always the first row of a match, so the same match would begin there again for ever")

    def _fail(self, offset: int, message: str) -> NoReturn:
        self.query.clause.fail(offset, message)


def _nothing(path: str) -> Expression:
    return lambda view: None


def _of_row(test: Callable[[Any], Any]) -> Expression:
    """Return a function of a value as a condition of a row; a condition is only asked of a row that is there."""
    return lambda view: test(view.row[1])  # type: ignore[index]


def fields_getter(value_type: Any) -> Field:
    """Return how expressions read the fields of a type, and its event time; asked for an unknown field, it raises LookupError."""

    def field(path: str) -> Expression:
        getter = _getter(value_type, path)
        if getter is None and path == EVENT_TIME:
            return lambda view: None if view.row is None else view.row[0]
        if getter is None:
            known = ", ".join(fields_of(value_type) or ())
            raise LookupError(f"the records have no field {path!r}" + (f"; they have {known}" if known else ""))
        read = getter
        return lambda view: None if view.row is None else read(view.row[1])

    return field


def types_getter(value_type: Any) -> Callable[[str], Any]:
    """Return what gives the declared type of a field, Any where it is not known."""

    def type_of(path: str) -> Any:
        if path == EVENT_TIME and EVENT_TIME not in (fields_of(value_type) or ()):
            return int
        try:
            return compile_selector(path, value_type, "match_recognize").type
        except ConfigError:
            return Any

    return type_of


def values_getter(value_type: Any) -> Field:
    """Return how plain expressions read the fields of a type where they get the value itself instead of a view.

    The event time is none of a value's fields, so asked for it, it raises LookupError too.
    """

    def field(path: str) -> Expression:
        getter = _getter(value_type, path)
        if getter is None:
            raise LookupError(f"the records have no field {path!r}")
        return getter

    return field


def _getter(value_type: Any, path: str) -> Callable[[Any], Any] | None:
    """Return what reads a field, None if the type has none of that name. In values without declared fields a missing one is NULL."""
    if path == EVENT_TIME and not fields_of(value_type):
        return None
    try:
        found = compile_selector(path, value_type, "match_recognize")
    except ConfigError:
        return None
    return found.get if fields_of(value_type) is not None else _lenient(path)


def _lenient(path: str) -> Callable[[Any], Any]:
    names = path.split(".")

    def read(value: Any) -> Any:
        for name in names:
            value = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
        return value

    return read


def _row_of(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {name: getattr(value, name) for name in _names(value)}


def _names(value: Any) -> tuple[str, ...]:
    return value.__struct_fields__ if isinstance(value, msgspec.Struct) else tuple(value.__dataclass_fields__)


def _is_mapping(value_type: Any) -> bool:
    origin = get_origin(value_type) or value_type
    return isinstance(origin, type) and issubclass(origin, Mapping)
