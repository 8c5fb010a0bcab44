"""The SQL parser: expressions as trees of nodes. The only module that knows sqlglot.

A node is told apart by its kind ("Column", "GT", "Case", ...), its parts are in `node.args`.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from engine.cep.recognize.clause import Span
from engine.cep.recognize.lexer import Clause
from engine.errors import ConfigError

if TYPE_CHECKING:
    from sqlglot import exp

Node: TypeAlias = "exp.Expr"

_MARKED = ("FIRST", "LAST", "PREV", "NEXT", "COUNT", "SUM", "MIN", "MAX", "AVG", "ARRAY_AGG", "CLASSIFIER", "MATCH_NUMBER")
"""Functions before which FINAL or RUNNING is no column."""

_AGGREGATES = {"Count": "COUNT", "Sum": "SUM", "Min": "MIN", "Max": "MAX", "Avg": "AVG", "ArrayAgg": "ARRAY_AGG"}


def kind_of(node: Node) -> str:
    """Return the kind of a node."""
    return type(node).__name__


def parse_expression(clause: Clause, span: Span) -> Node:
    """Parse an expression of a clause; FINAL LAST(x) becomes a call of FINAL_LAST, and so on.

    Raises:
        ConfigError: It is not one; the message points at the place. Or there is no SQL parser.
    """
    try:
        import sqlglot
        from sqlglot import errors
    except ModuleNotFoundError as error:
        raise ConfigError('match_recognize needs a SQL parser: pip install "streamforge[sql]"') from error
    try:
        return sqlglot.parse_one(_marked(clause, span), error_message_context=len(clause.text))
    except errors.ParseError as error:
        found = error.errors[0]
        at = span.start + len(found.get("start_context") or "")
        clause.fail(at, str(found.get("description") or "this is not an expression").split(" for <class")[0])
    except errors.TokenError:
        clause.fail(span.start, "this is not an expression")


def _marked(clause: Clause, span: Span) -> str:
    """Return an expression as the parser is to read it, each word where it was.

    FINAL LAST is written as FINAL_LAST, which the parser takes for a function. Comments are left out: it would nest them, and knows
    some that are none in SQL.
    """
    text = clause.text[span.start : span.end]
    tokens = Clause(text).tokens()
    written = [" "] * len(text)
    for token in tokens:
        if token.text in ("{", "}", "{-", "-}"):
            clause.fail(span.start + token.start, f"{token.text} has no meaning in an expression")
        written[token.start : token.end] = token.text
    for token, function, sign in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if token.word in ("FINAL", "RUNNING") and function.word in _MARKED and sign.text == "(":
            written[token.start : function.end] = f"{token.word}_{function.text}".ljust(function.end - token.start)
    return "".join(written)


def same_text(node: Node, column: Callable[[Node], str]) -> str:
    """Return a text that two expressions share if they have the same form: parentheses around the whole or around one word do not count.

    Args:
        column: Gives the field that a column means, without the variable before it.
    """
    from sqlglot import exp

    def plainly(part: Node) -> Node:
        while kind_of(part) == "Paren" and kind_of(part.this) in ("Paren", "Column", "Dot", "Literal"):
            part = part.this
        return exp.to_identifier(column(part), quoted=True) if kind_of(part) in ("Column", "Dot") else part

    while kind_of(node) == "Paren":
        node = node.this
    return node.copy().transform(plainly).sql(comments=False)


def call_of(node: Node) -> tuple[str, list[Node]]:
    """Return the name in capitals and the arguments of a call, "" for anything else."""
    kind = kind_of(node)
    if kind == "Anonymous":
        return str(node.this).upper(), list(node.expressions)
    if kind in ("First", "Last"):
        return kind.upper(), [part for part in (node.this, node.args.get("expression")) if part is not None]
    if kind in _AGGREGATES:
        return _AGGREGATES[kind], [node.this, *node.expressions]
    return "", []


def parts_of(node: Node) -> Iterator[Node]:
    """Yield the names that a column is made of."""
    if kind_of(node) in ("Column", "Dot"):
        yield from node.parts  # type: ignore[attr-defined]  # both kinds have it


def name_of(node: Node) -> str:
    """Return a name as SQL means it: capitals, but for a quoted one."""
    return node.name if node.args.get("quoted") else node.name.upper()
