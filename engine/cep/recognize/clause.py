"""The clause as a whole: which parts there are and where their expressions stand.

    MATCH_RECOGNIZE (
      PARTITION BY user_id ORDER BY ts
      MEASURES FIRST(SMALL.order_id) AS test_order, LARGE.amount_cents AS amount_cents
      ONE ROW PER MATCH
      AFTER MATCH SKIP PAST LAST ROW
      PATTERN (SMALL X* LARGE) WITHIN INTERVAL '10' MINUTE
      SUBSET BOTH = (SMALL, LARGE)
      DEFINE SMALL AS amount_cents < 500, LARGE AS amount_cents > 100 * SMALL.amount_cents
    )

The words MATCH_RECOGNIZE and the parentheses may be left out. WITHIN is no part of the standard; it stands and means what it does
in Apache Flink. Names of variables are in capitals unless quoted, as everywhere in SQL; names of columns are the fields of the
records, and are taken as written.
"""

from collections.abc import Container
from dataclasses import dataclass
from typing import Literal

from engine.cep.recognize.lexer import Clause, Cursor, Token, unquoted
from engine.cep.recognize.row_pattern import RowPattern, Variable, parse_row_pattern, variables_of
from engine.cep.recognize.scalars import INTERVALS_MS
from engine.durations import DURATION_MAX_MS

Rows = Literal["one", "all", "all_without_empty", "all_with_unmatched"]
SkipKind = Literal["past_last", "to_next", "to_first", "to_last"]

_AFTER_EXPRESSION = ("ONE", "ALL", "AFTER", "PATTERN", "SUBSET", "DEFINE", "WITHIN", "INITIAL", "SEEK")


@dataclass(frozen=True, slots=True)
class Span:
    """An expression: where it begins and ends in the clause."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Column:
    """The name of a field, such as "user_id" or "customer.id", and where it stands."""

    name: str
    at: int


@dataclass(frozen=True, slots=True)
class SkipTo:
    """AFTER MATCH SKIP: `variable` for to_first and to_last."""

    kind: SkipKind = "past_last"
    variable: str = ""
    at: int = 0


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed clause; `measures`, `subsets` and `defines` by name, in the order of the text."""

    clause: Clause
    partition_by: tuple[Column, ...]
    order_by: tuple[Column, ...]
    measures: dict[str, Span]
    rows: Rows
    skip: SkipTo
    pattern: RowPattern
    within_ms: int | None
    subsets: dict[str, tuple[str, ...]]
    defines: dict[str, Span]

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the primary variables, in the order in which the pattern first names them."""
        return tuple(dict.fromkeys(variable.name for variable in variables_of(self.pattern)))


def parse_clause(sql: str) -> Query:
    """Parse a clause.

    Raises:
        ConfigError: It is not one; the message points at the place.
    """
    clause = Clause(sql)
    cursor = Cursor(clause, clause.tokens())
    if cursor.at("SELECT") or cursor.at("FROM") or cursor.at("WITH"):
        cursor.fail("give only the clause MATCH_RECOGNIZE (...): the stream stands for FROM, its filter and map for WHERE and SELECT")
    framed = cursor.accept("MATCH_RECOGNIZE")
    if framed:
        cursor.expect("(")
    query = _Parts(cursor).query()
    if framed:
        cursor.expect(")")
    while cursor.accept(";"):
        pass
    if framed and cursor.token.kind in ("name", "quoted"):
        cursor.fail(f"{cursor.token.text} is not expected here: nothing refers to the clause by a name, so leave it out")
    if cursor.token.kind != "end":
        cursor.fail(f"{cursor.token.text} is not expected here; {_ORDER}")
    return query


_ORDER = "the order is PARTITION BY, ORDER BY, MEASURES, ONE ROW or ALL ROWS PER MATCH, AFTER MATCH SKIP, PATTERN, WITHIN, SUBSET, DEFINE"


class _Parts:
    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor

    def query(self) -> Query:
        cursor = self.cursor
        partition_by = tuple(self._columns()) if cursor.accept("PARTITION", "BY") else ()
        order_by = tuple(self._columns(ordered=True)) if cursor.accept("ORDER", "BY") else ()
        measures = self._measures() if cursor.accept("MEASURES") else {}
        rows = self._rows()
        skip = self._skip() if cursor.accept("AFTER") else SkipTo()
        if not cursor.at("PATTERN"):
            cursor.fail(f"PATTERN is expected here, not {cursor.token.text or 'the end'}; {_ORDER}")
        cursor.take()
        pattern = parse_row_pattern(cursor)
        within_ms = self._within() if cursor.accept("WITHIN") else None
        known = {variable.name for variable in variables_of(pattern)}
        if not known:
            cursor.fail("the pattern has no variable, so it could match nothing but the empty match")
        subsets = self._subsets(known) if cursor.accept("SUBSET") else {}
        defines = self._defines(known, subsets) if cursor.accept("DEFINE") else {}
        if skip.variable and skip.variable not in known | set(subsets):
            cursor.clause.fail(skip.at, f"the pattern has no variable {skip.variable}")
        self._check_exclusions(pattern, rows)
        return Query(cursor.clause, partition_by, order_by, measures, rows, skip, pattern, within_ms, subsets, defines)

    def _columns(self, *, ordered: bool = False) -> list[Column]:
        columns = [self._column(ordered=ordered)]
        while self.cursor.accept(","):
            columns.append(self._column(ordered=ordered))
        return columns

    def _column(self, *, ordered: bool) -> Column:
        cursor = self.cursor
        first = cursor.name("the name of a column")
        names = [_field(first)]
        while cursor.accept("."):
            names.append(_field(cursor.name("the name of a field")))
        if ordered and cursor.at("DESC"):
            cursor.fail("an endless stream cannot be read backwards: only ascending event time is an order")
        if ordered:
            cursor.accept("ASC")
            if cursor.at("NULLS"):
                cursor.fail("every record has an event time, so there is nothing to say about nulls")
        return Column(".".join(names), first.start)

    def _measures(self) -> dict[str, Span]:
        measures: dict[str, Span] = {}
        while True:
            span = self._expression("AS")
            self.cursor.expect("AS")
            name = self.cursor.name("the name of a measure")
            if _field(name) in measures:
                self.cursor.clause.fail(name.start, f"there is a measure {_field(name)} already")
            measures[_field(name)] = span
            if not self.cursor.accept(","):
                return measures

    def _rows(self) -> Rows:
        cursor = self.cursor
        if cursor.accept("ONE"):
            cursor.expect("ROW", "PER", "MATCH")
            return "one"
        if not cursor.accept("ALL"):
            return "one"
        cursor.expect("ROWS", "PER", "MATCH")
        if cursor.accept("OMIT"):
            cursor.expect("EMPTY", "MATCHES")
            return "all_without_empty"
        if cursor.accept("WITH"):
            cursor.expect("UNMATCHED", "ROWS")
            return "all_with_unmatched"
        if cursor.accept("SHOW"):
            cursor.expect("EMPTY", "MATCHES")
        return "all"

    def _skip(self) -> SkipTo:
        cursor = self.cursor
        cursor.expect("MATCH", "SKIP")
        at = cursor.token.start
        if cursor.accept("PAST"):
            cursor.expect("LAST", "ROW")
            return SkipTo("past_last", at=at)
        cursor.expect("TO")
        if cursor.accept("NEXT", "ROW"):
            return SkipTo("to_next", at=at)
        kind: SkipKind = "to_last"
        if cursor.accept("FIRST"):
            kind = "to_first"
        else:
            cursor.accept("LAST")
        token = cursor.name("a pattern variable")
        return SkipTo(kind, unquoted(token), token.start)

    def _within(self) -> int:
        cursor = self.cursor
        cursor.expect("INTERVAL")
        amount = cursor.token
        digits = amount.text.strip("'") if amount.kind == "string" else amount.text
        if amount.kind not in ("string", "number") or not digits.isdecimal() or int(digits) < 1:
            cursor.fail("a positive whole number is expected here, such as INTERVAL '5' MINUTE")
        cursor.take()
        unit = cursor.take()
        size_ms = INTERVALS_MS.get(unit.word.removesuffix("S"))
        if size_ms is None:
            cursor.clause.fail(unit.start, f"{unit.text or 'the end'} is not a unit; there are {', '.join(INTERVALS_MS)}")
        if int(digits) * size_ms > DURATION_MAX_MS:
            cursor.clause.fail(amount.start, "the limit must be at most ten thousand years")
        return int(digits) * size_ms

    def _subsets(self, known: set[str]) -> dict[str, tuple[str, ...]]:
        cursor = self.cursor
        subsets: dict[str, tuple[str, ...]] = {}
        while True:
            token = cursor.name("the name of a subset")
            name = unquoted(token)
            if name in known or name in subsets:
                cursor.clause.fail(token.start, f"{name} is the name of another variable already")
            cursor.expect("=", "(")
            members = [self._member(known, subsets)]
            while cursor.accept(","):
                members.append(self._member(known, subsets))
            cursor.expect(")")
            subsets[name] = tuple(dict.fromkeys(members))
            if not cursor.accept(","):
                return subsets

    def _member(self, known: set[str], subsets: Container[str]) -> str:
        token = self.cursor.token
        if token.kind in ("name", "quoted") and unquoted(token) in subsets:
            self.cursor.fail(f"{unquoted(token)} is a subset itself; name the variables of the pattern that it stands for")
        return self._known(known)

    def _defines(self, known: set[str], subsets: Container[str]) -> dict[str, Span]:
        cursor = self.cursor
        defines: dict[str, Span] = {}
        while True:
            at = cursor.token.start
            if cursor.token.kind in ("name", "quoted") and unquoted(cursor.token) in subsets:
                cursor.fail(f"{unquoted(cursor.token)} is a subset; only a variable of the pattern has a condition")
            name = self._known(known)
            if name in defines:
                cursor.clause.fail(at, f"{name} is defined already")
            cursor.expect("AS")
            defines[name] = self._expression()
            if not cursor.accept(","):
                return defines

    def _known(self, known: set[str]) -> str:
        token = self.cursor.name("a pattern variable")
        name = unquoted(token)
        if name not in known:
            self.cursor.clause.fail(token.start, f"the pattern has no variable {name}; it has {', '.join(sorted(known))}")
        return name

    def _expression(self, until: str = "") -> Span:
        """Pass an expression: it ends at a comma, at the clause's own parenthesis, or at a word that goes on with the clause."""
        cursor = self.cursor
        start, depth, end, cases, before = cursor.token.start, 0, cursor.token.start, 0, ""
        while (token := cursor.token).kind != "end":
            word = "" if before == "." else token.word
            outside = depth == 0 and cases == 0
            if outside and (token.text in (",", ")", ";") or word in _AFTER_EXPRESSION or (until and word == until)):
                break
            depth += (token.text == "(") - (token.text == ")")
            cases += (word == "CASE") - (word == "END")
            end, before = cursor.take().end, token.text
        if end == start:
            quote = f'; a column of that name is written "{token.text}"' if token.word in _AFTER_EXPRESSION else ""
            cursor.fail(f"an expression is expected here, not {token.text or 'the end'}{quote}")
        return Span(start, end)

    def _check_exclusions(self, pattern: RowPattern, rows: Rows) -> None:
        excluded = next((variable for variable in variables_of(pattern) if variable.excluded), None)
        if excluded is not None and rows == "one":
            self._refuse(excluded, "an exclusion {- -} says which rows of ALL ROWS PER MATCH to leave out; with ONE ROW it has no meaning")
        if excluded is not None and rows == "all_with_unmatched":
            self._refuse(excluded, "the standard has no exclusion {- -} together with WITH UNMATCHED ROWS")

    def _refuse(self, variable: Variable, message: str) -> None:
        self.cursor.clause.fail(variable.at, message)


def _field(token: Token) -> str:
    """Return the name of a column as written: fields of records know capitals from small letters."""
    return token.text if token.kind == "name" else unquoted(token)
