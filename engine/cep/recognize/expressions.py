"""Expressions of DEFINE and MEASURES, from SQL text to functions of a `View`.

    A.price > PREV(A.price)        LAST(B.ts) - FIRST(A.ts) < INTERVAL '5' MINUTE        FINAL SUM(A.price) / COUNT(*)

A column with a variable before it means the last row of that variable so far; one without means the present row. What is not
listed here is refused with its place in the text, never ignored.

Source: ISO/IEC 9075-2:2016, section 6.25 <row pattern navigation operation>; ISO/IEC TR 19075-5, chapter 5.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from engine.cep.recognize import scalars
from engine.cep.recognize.clause import Span
from engine.cep.recognize.columns import Column, Columns
from engine.cep.recognize.kinds import clash, kinds_of, misfit
from engine.cep.recognize.lexer import Clause
from engine.cep.recognize.sql import Node, call_of, kind_of, name_of, parse_expression, parts_of, same_text
from engine.cep.recognize.view import AGGREGATES, COUNT_DISTINCT, Expression, Fold, View, first_rows, last_rows

Labels = frozenset[int]
Field = Callable[[str], Expression]
"""Returns how to read a field, such as "customer.id", from the row looked at. Raises ConfigError if there is none."""

_NAVIGATION = ("FIRST", "LAST", "PREV", "NEXT")
_SETTINGS = {"big_int", "safe", "coalesce", "ignore_nulls"}
"""What the parser notes about a node that says nothing about the text."""


@dataclass(frozen=True, slots=True)
class Names:
    """The variables by number, and the subsets of them."""

    variables: tuple[str, ...]
    subsets: Mapping[str, Labels]

    def labels(self, name: str) -> Labels | None:
        """Return the variables that a name stands for, None if it stands for none."""
        return frozenset([self.variables.index(name)]) if name in self.variables else self.subsets.get(name)


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled expression.

    Attributes:
        local: Its row and rows before it in the stream decide, whatever the match.
        plain: It only asks for fields of its row: what `field` gives is all that gets the view.
        text: Of a plain one, the same for all that mean the same by their form, whatever the name of the own variable.
    """

    get: Expression
    local: bool
    plain: bool
    text: str = ""


class Compiler:
    """Compiles the expressions of DEFINE, or those of MEASURES, and gathers what they need.

    Args:
        type_of: Gives the declared type of a field, Any where it is not known.

    Attributes:
        folds: What has to be carried along a match.
        looks_back: How many rows before a match may be asked for.
        numbered: Whether the number of the match is asked for.
    """

    def __init__(self, clause: Clause, names: Names, field: Field, type_of: Callable[[str], Any] = lambda path: Any) -> None:
        self.folds: list[Fold] = []
        self.looks_back = 0
        self.numbered = False
        self._clause = clause
        self._names = names
        self._field = field
        self._type_of = type_of
        self._row_folds: dict[tuple[str, Labels, int], int] = {}
        self._span = Span(0, 0)
        self._own: int | None = None
        self._local = True
        self._plain = True
        self._argument: list[Labels | None] | None = None

    def compile(self, span: Span, *, own: int | None = None) -> Compiled:
        """Compile an expression.

        Args:
            own: Number of the variable that the expression defines, None for a measure.
        Raises:
            ConfigError: It cannot be evaluated; the message points at the place.
        """
        self._span, self._own, self._local, self._plain = span, own, True, True
        node = parse_expression(self._clause, span)
        get = self._expression(node)
        type_of = self._type_of_column
        if own is not None and (found := misfit(node, type_of)) is not None:
            part, kind = found
            self._fail(part, f"{part.sql()} is {kind}, and a condition says whether a row fits: compare it with something")
        if (found := clash(node, type_of)) is not None:
            self._fail(*found)
        if own is not None and not kinds_of(node, type_of):
            get = scalars.truth(get, node.sql())
        return Compiled(get, self._local, self._plain, same_text(node, lambda column: self._split(column)[1]) if self._plain else "")

    def column(self, span: Span, *, own: int) -> Column:
        """Compile a plain condition to a column; `field` must give what reads a field of the value itself."""
        get, node = self.compile(span, own=own).get, parse_expression(self._clause, span)
        columns = Columns(self._expression, lambda column: self._split(column)[1])
        return columns.of(node) if kinds_of(node, self._type_of_column) else columns.singly(get)

    def _type_of_column(self, column: Node) -> Any:
        return self._type_of(self._split(column)[1])

    # -- trees

    def _expression(self, node: Node) -> Expression:
        kind = kind_of(node)
        if kind in scalars.BINARY:
            found = scalars.strict(scalars.BINARY[kind], self._parts(node, "this", "expression", optional=("negate",)))
            return scalars.strict(lambda value: not value, [found]) if node.args.get("negate") else found
        if kind in scalars.FUNCTIONS:
            keys = ("this", "decimals", "start", "length", "expressions")
            return scalars.strict(scalars.FUNCTIONS[kind], self._parts(node, *keys))
        method = getattr(self, f"_on_{kind.lower()}", None)
        if method is not None:
            return method(node)  # type: ignore[no-any-return]  # each of them returns an Expression
        return self._call(node)

    def _parts(self, node: Node, *keys: str, optional: Sequence[str] = ()) -> list[Expression]:
        """Compile the parts of a node under these names; it must have no others but `optional` ones."""
        self._only(node, *keys, *optional)
        found: list[Node | None] = []
        for key in keys:
            value = node.args.get(key)
            found.extend(value if isinstance(value, list) else [value])
        return [self._expression(part) for part in found if part is not None]

    def _only(self, node: Node, *keys: str) -> None:
        for key, value in node.args.items():
            if key not in keys and key not in _SETTINGS and value:
                self._fail(node, f"{node.sql()} is not supported here ({key})")

    def _on_paren(self, node: Node) -> Expression:
        return self._parts(node, "this")[0]

    def _on_literal(self, node: Node) -> Expression:
        if node.is_string:
            return scalars.constant(node.name)
        try:
            return scalars.constant(int(node.name) if node.name.isdecimal() else float(node.name))
        except ValueError:
            self._fail(node, f"{node.name} is not a number")

    def _on_boolean(self, node: Node) -> Expression:
        return scalars.constant(bool(node.this))

    def _on_null(self, node: Node) -> Expression:
        return scalars.constant(None)

    def _on_interval(self, node: Node) -> Expression:
        unit = scalars.INTERVALS_MS.get(node.text("unit").upper().removesuffix("S"))
        if unit is None or not node.name.isdecimal():
            self._fail(node, f"an interval is a whole number of one unit, such as INTERVAL '5' MINUTE: {', '.join(scalars.INTERVALS_MS)}")
        return scalars.constant(int(node.name) * unit)

    def _on_and(self, node: Node) -> Expression:
        return scalars.conjunction(*self._parts(node, "this", "expression"))

    def _on_or(self, node: Node) -> Expression:
        return scalars.disjunction(*self._parts(node, "this", "expression"))

    def _on_not(self, node: Node) -> Expression:
        return scalars.strict(lambda value: not value, self._parts(node, "this"))

    def _on_is(self, node: Node) -> Expression:
        return scalars.is_same(*self._parts(node, "this", "expression"))

    _on_nullsafeeq = _on_is

    def _on_nullsafeneq(self, node: Node) -> Expression:
        return scalars.strict(lambda value: not value, [self._on_is(node)])

    def _on_between(self, node: Node) -> Expression:
        value, low, high = self._parts(node, "this", "low", "high")
        at_least, at_most = scalars.strict(scalars.BINARY["GTE"], [value, low]), scalars.strict(scalars.BINARY["LTE"], [value, high])
        return scalars.conjunction(at_least, at_most)

    def _on_in(self, node: Node) -> Expression:
        value, *others = self._parts(node, "this", "expressions")
        if not others:
            self._fail(node, f"{node.sql()}: IN needs a value to compare with")
        return scalars.one_of(value, others)

    def _on_case(self, node: Node) -> Expression:
        self._only(node, "this", "ifs", "default")
        subject = self._expression(node.this) if node.this else None
        cases: list[tuple[Expression, Expression]] = []
        for case in node.args["ifs"]:
            condition, value = self._parts(case, "this", "true")
            cases.append((condition if subject is None else scalars.strict(scalars.BINARY["EQ"], [subject, condition]), value))
        default = node.args.get("default")
        return scalars.first_true(cases, scalars.constant(None) if default is None else self._expression(default))

    def _on_if(self, node: Node) -> Expression:
        condition, value, *rest = self._parts(node, "this", "true", "false")
        return scalars.first_true([(condition, value)], rest[0] if rest else scalars.constant(None))

    def _on_coalesce(self, node: Node) -> Expression:
        return scalars.coalesce(self._parts(node, "this", "expressions"))

    def _on_nullif(self, node: Node) -> Expression:
        return scalars.null_if(*self._parts(node, "this", "expression"))

    def _on_cast(self, node: Node) -> Expression:
        to = node.args["to"]
        cast = scalars.CASTS.get(to.this.name)
        if cast is None or to.expressions:
            self._fail(node, f"CAST to {to.sql()} is not supported; there are {', '.join(scalars.CASTS)}")
        return scalars.strict(cast, self._parts(node, "this", optional=("to",)))

    # -- columns

    def _on_column(self, node: Node) -> Expression:
        labels, path = self._split(node)
        field = self._field_at(node, path)
        if self._argument is not None:
            self._argument.append(labels)
            return field
        if labels is None or self._is_present(labels):
            return field
        self._plain = False
        return _moved(self._position("LAST", 0, labels, final=False), 0, field)

    _on_dot = _on_column

    def _split(self, node: Node) -> tuple[Labels | None, str]:
        """Return what variables a column is of (None if it names none) and the name of the field."""
        parts = list(parts_of(node))
        if len(parts) > 1:
            labels = self._names.labels(name_of(parts[0]))
            if labels is not None:
                return labels, ".".join(part.name for part in parts[1:])
        return None, ".".join(part.name for part in parts)

    def _field_at(self, node: Node, path: str) -> Expression:
        try:
            return self._field(path)
        except LookupError as error:
            self._fail(node, str(error.args[0]))

    # -- functions of the match

    def _call(self, node: Node) -> Expression:
        self._plain = False
        name, arguments = call_of(node)
        word, _, rest = name.partition("_")
        final = word == "FINAL" and rest in (*_NAVIGATION, *AGGREGATES)
        if final and self._own is not None:
            self._fail(node, "FINAL asks for the end of the match, which a condition in DEFINE decides; only MEASURES may ask for it")
        if final or (word == "RUNNING" and rest in (*_NAVIGATION, *AGGREGATES)):
            name = rest
        if name in _NAVIGATION:
            return self._navigation(node, name, arguments, final=final)
        if name in AGGREGATES:
            return self._aggregate(node, name, arguments, final=final)
        if name == "CLASSIFIER" and len(arguments) <= 1:
            return self._classifier(node, arguments)
        if name != "MATCH_NUMBER" or arguments:
            self._fail(node, f"{node.sql()} is not supported here")
        self.numbered, self._local = True, False
        return lambda view: view.match_number

    def _navigation(self, node: Node, name: str, arguments: list[Node], *, final: bool) -> Expression:
        if not 1 <= len(arguments) <= 2:
            self._fail(node, f"{name} takes an expression and a number of rows")
        by = self._count(arguments[1]) if len(arguments) == 2 else int(name in ("PREV", "NEXT"))
        base, offset, shift, argument = name, by, 0, arguments[0]
        if name in ("PREV", "NEXT"):
            base, offset, shift = "LAST", 0, by if name == "NEXT" else -by
            inner, of_inner = call_of(argument)
            word, _, rest = inner.partition("_")
            if final:
                self._fail(node, f"FINAL stands before FIRST, LAST or an aggregate: {name}(FINAL LAST(...))")
            if inner in ("FIRST", "LAST") or (word in ("FINAL", "RUNNING") and rest in ("FIRST", "LAST")):
                final = word == "FINAL"
                base, argument = rest or inner, of_inner[0]
                offset = self._count(of_inner[1]) if len(of_inner) == 2 else 0
                if final and self._own is not None:
                    self._fail(node, "FINAL asks for the end of the match, which a condition in DEFINE decides")
        labels, expression = self._inside(node, argument)
        position = self._position(base, offset, labels, final=final)
        self.looks_back = max(self.looks_back, -shift)
        if shift > 0:
            self._local = False
        return _moved(position, shift, expression)

    def _inside(self, node: Node, argument: Node) -> tuple[Labels | None, Expression]:
        """Compile the argument of a function that looks at other rows; its columns must all be of the same variable."""
        if self._argument is not None:
            self._fail(node, f"{node.sql()} stands in a function that already looks at other rows; only PREV and NEXT take FIRST or LAST")
        self._argument = []
        expression = self._expression(argument)
        seen, self._argument = self._argument, None
        if len(set(seen)) > 1:
            self._fail(node, f"{node.sql()}: all columns in it must be of the same variable")
        return (seen[0] if seen else None), expression

    def _position(self, base: str, offset: int, labels: Labels | None, *, final: bool) -> Callable[[View], int | None]:
        """Return what finds a row of the match: the first or last one of some variables, and so many on or back."""
        if base == "LAST" and offset == 0 and self._own is not None and (labels is None or self._is_present(labels)):
            return lambda view: view.position
        self._local = False
        if labels is None and base == "FIRST":
            return lambda view: number if (number := view.start + offset) <= (view.last if final else view.position) else None
        if labels is None:
            return lambda view: number if (number := (view.last if final else view.position) - offset) >= view.start else None
        key = (base, labels, offset)
        if key not in self._row_folds:
            self._row_folds[key] = len(self.folds)
            self.folds.append((first_rows if base == "FIRST" else last_rows)(labels, offset + 1))
        fold, place = self._row_folds[key], offset if base == "FIRST" else 0

        def find(view: View) -> int | None:
            rows = (view.final_accs if final else view.accs)[fold]
            return rows[place][0] if len(rows) > offset else None

        return find

    def _is_present(self, labels: Labels) -> bool:
        return self._own is not None and self._own in labels

    def _aggregate(self, node: Node, name: str, arguments: list[Node], *, final: bool) -> Expression:
        if len(arguments) != 1 or arguments[0] is None:
            self._fail(node, f"{name} takes one argument")
        argument, aggregate = arguments[0], AGGREGATES[name]
        if self._own is not None and name == "ARRAY_AGG":
            self._fail(node, "ARRAY_AGG is for MEASURES: a condition has no use for it")
        if kind_of(argument) == "Distinct":
            if name != "COUNT" or len(argument.expressions) != 1 or argument.expressions[0].is_star:
                self._fail(node, f"DISTINCT is for COUNT of one expression: {node.sql()}")
            argument, aggregate = argument.expressions[0], COUNT_DISTINCT
        labels: Labels | None = None
        if name == "COUNT" and argument.is_star:
            expression = scalars.constant(True)
            labels = None if kind_of(argument) == "Star" else self._split(argument)[0]
            if kind_of(argument) == "Column" and labels is None:
                self._fail(node, f"{node.sql()}: the pattern has no such variable")
        else:
            labels, expression = self._inside(node, argument)
        self._local = False
        place, result = len(self.folds), aggregate.result
        self.folds.append(Fold(labels, aggregate.initial, expression, aggregate.step))
        return lambda view: result((view.final_accs if final else view.accs)[place])

    def _classifier(self, node: Node, arguments: list[Node]) -> Expression:
        names = self._names.variables
        labels: Labels | None = None
        if arguments:
            parts = list(parts_of(arguments[0]))
            labels = self._names.labels(name_of(parts[0])) if len(parts) == 1 else None
            if labels is None:
                self._fail(node, f"{node.sql()}: CLASSIFIER takes a pattern variable or nothing")
        if self._argument is not None:
            if self._own is not None:
                self._fail(node, "CLASSIFIER of other rows is for MEASURES; a condition may ask for CLASSIFIER() or CLASSIFIER(variable)")
            self._argument.append(labels)
            return lambda view: names[view.labels[at]] if 0 <= (at := view.number - view.start) < len(view.labels) else None
        if labels is None:
            return lambda view: names[view.label] if view.label >= 0 else None
        self._position("LAST", 0, labels, final=False)
        key = ("LAST", labels, 0)
        if key not in self._row_folds:
            return lambda view: names[view.label]
        fold = self._row_folds[key]
        return lambda view: names[rows[0][1]] if (rows := view.accs[fold]) else None

    def _count(self, node: Node) -> int:
        if kind_of(node) != "Literal" or node.is_string or not node.name.isdigit():
            self._fail(node, f"a number of rows is a whole number, not {node.sql()}")
        return int(node.name)

    def _fail(self, node: Node, message: str) -> NoReturn:
        places = [part.meta["start"] for part in node.walk() if "start" in part.meta]
        self._clause.fail(self._span.start + min(places, default=0), message)


def _moved(position: Callable[[View], int | None], shift: int, expression: Expression) -> Expression:
    """Return an expression evaluated at another row; NULL where there is none."""

    def get(view: View) -> Any:
        number = position(view)
        return None if number is None else view.evaluate_at(number + shift, expression)

    return get
