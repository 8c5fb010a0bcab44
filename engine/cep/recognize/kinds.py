"""What kind of value an expression gives, as far as its form and the types of the fields tell: a condition must give a boolean.

    amount_cents > 100           a boolean
    amount_cents + 1             a number: no condition
    amount_cents > 100 AND id    the second part of AND is text: no condition
    flag                         whatever the field is declared to be; not known for a dict

Operators and functions want certain kinds too: `price > 'x'`, `name + 1`, `SUM(name)` and `price LIKE '1%'` are refused where the types of
the fields (or the literals alone) tell that they cannot work.

NULL has every kind. What is not known is let through; at run time only what is true counts as fulfilled, and what cannot be evaluated
makes the record a bad one.
"""

from collections.abc import Callable, Iterator
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from engine.cep.recognize.sql import Node, call_of, kind_of

ValueKind = Literal["a boolean", "a number", "text", "a list"]
Kinds = frozenset[ValueKind]
"""What an expression may give; empty where that is not known."""

TypeOf = Callable[[Node], Any]
"""Gives the declared type of a column, Any where it is not known."""

UNKNOWN: Kinds = frozenset()
_BOOLEAN: Kinds = frozenset({"a boolean"})
_NUMBER: Kinds = frozenset({"a number"})
_TEXT: Kinds = frozenset({"text"})

_FORMS: dict[str, Kinds] = {
    **dict.fromkeys(("EQ", "NEQ", "GT", "GTE", "LT", "LTE", "Like", "ILike", "Boolean"), _BOOLEAN),
    **dict.fromkeys(("And", "Or", "Not", "Is", "NullSafeEQ", "NullSafeNEQ", "Between", "In"), _BOOLEAN),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Mod", "Pow", "Neg", "Abs", "Round", "Floor", "Ceil", "Length", "Sqrt"), _NUMBER),
    **dict.fromkeys(("DPipe", "Lower", "Upper", "Trim", "Substring", "Concat"), _TEXT),
    "Interval": _NUMBER,
}
_CALLS: dict[str, Kinds] = {
    "COUNT": _NUMBER, "SUM": _NUMBER, "AVG": _NUMBER, "MATCH_NUMBER": _NUMBER, "CLASSIFIER": _TEXT, "ARRAY_AGG": frozenset({"a list"}),
}  # fmt: skip
_OF_THEIR_ARGUMENT = ("FIRST", "LAST", "PREV", "NEXT", "MIN", "MAX")
_CASTS: dict[str, Kinds] = {"BOOLEAN": _BOOLEAN, "VARCHAR": _TEXT, "TEXT": _TEXT, "CHAR": _TEXT}
_TYPES: dict[Any, Kinds] = {bool: _BOOLEAN, int: _NUMBER, float: _NUMBER, str: _TEXT}


def misfit(node: Node, type_of: TypeOf) -> tuple[Node, str] | None:
    """Return the part of a condition that is none, and what it is instead; None if nothing is known to be wrong."""
    if kind_of(node) == "Paren":
        return misfit(node.this, type_of)
    for part in _conditions_in(node):
        if (found := misfit(part, type_of)) is not None:
            return found
    kinds = kinds_of(node, type_of)
    return None if not kinds or "a boolean" in kinds else (node, " or ".join(sorted(kinds)))


def kinds_of(node: Node, type_of: TypeOf) -> Kinds:
    """Return what an expression may give."""
    kind = kind_of(node)
    if kind in _FORMS:
        return _FORMS[kind]
    if kind == "Literal":
        return _TEXT if node.is_string else _NUMBER
    if kind == "Cast":
        return _CASTS.get(node.args["to"].this.name, _NUMBER)
    if kind in ("Column", "Dot"):
        return _kinds_of_type(type_of(node))
    if (parts := _ways_of(node, kind)) is not None:
        found = [kinds_of(part, type_of) for part in parts if kind_of(part) != "Null"]
        return UNKNOWN if UNKNOWN in found else UNKNOWN.union(*found)
    name, arguments = call_of(node)
    word, _, rest = name.partition("_")
    if word in ("FINAL", "RUNNING") and rest in (*_CALLS, *_OF_THEIR_ARGUMENT):
        name = rest
    if name in _OF_THEIR_ARGUMENT and arguments:
        return kinds_of(arguments[0], type_of)
    return _CALLS.get(name, UNKNOWN)


_COMPARED = ("EQ", "NEQ", "GT", "GTE", "LT", "LTE", "Between", "In", "NullSafeEQ", "NullSafeNEQ", "Is")
_WANTED: dict[str, Kinds] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Mod", "Pow", "Neg", "Abs", "Round", "Floor", "Ceil", "Sqrt", "Sum", "Avg"), _NUMBER),
    **dict.fromkeys(("Like", "ILike", "Lower", "Upper", "Trim"), _TEXT),
    "Length": _TEXT | {"a list"},
}
_PARTS = ("this", "expression", "low", "high", "expressions")


def clash(node: Node, type_of: TypeOf) -> tuple[Node, str] | None:
    """Return a part of an expression that can never be evaluated, and the reason; None if nothing is known to be wrong."""
    for part in node.walk():
        kind = kind_of(part)
        if kind not in _WANTED and kind not in _COMPARED:
            continue
        operands = [(one, kinds) for one in _operands(part) if (kinds := kinds_of(one, type_of) if kind_of(one) != "Null" else UNKNOWN)]
        for one, kinds in operands:
            if kind in _WANTED and not _works(_WANTED[kind], kinds):
                return part, f"{part.sql()} wants {_listed(_WANTED[kind])}, and {one.sql()} is {_listed(kinds)}"
        for one, kinds in operands[1:] if kind in _COMPARED else []:
            first, of_first = operands[0]
            if not _works(of_first, kinds):
                return part, f"{part.sql()} compares {_listed(of_first)} ({first.sql()}) with {_listed(kinds)} ({one.sql()})"
    return None


def _operands(node: Node) -> Iterator[Node]:
    for key in _PARTS:
        value = node.args.get(key)
        for part in value if isinstance(value, list) else [value]:
            if part is not None and not isinstance(part, str):
                yield from part.expressions if kind_of(part) == "Distinct" else [part]


def _works(wanted: Kinds, given: Kinds) -> bool:
    """Say whether something of one kind may be what is wanted; true and false are numbers too, as in Python."""
    also = _NUMBER | _BOOLEAN
    return bool(wanted & given) or bool(wanted & also and given & also)


def _listed(kinds: Kinds) -> str:
    return " or ".join(sorted(kinds))


def _conditions_in(node: Node) -> Iterator[Node]:
    """Yield the parts of a condition that must be conditions themselves."""
    kind = kind_of(node)
    if kind in ("And", "Or"):
        yield node.this
        yield node.expression
    elif kind == "Not":
        yield node.this
    elif kind == "Case" and node.this is None:
        for case in node.args["ifs"]:
            yield case.this
    elif kind == "If":
        yield node.this


def _ways_of(node: Node, kind: str) -> list[Node] | None:
    """Return the expressions of which a node gives one; None if it is no such node."""
    if kind == "Paren":
        return [node.this]
    if kind == "Case":
        values = [case.args["true"] for case in node.args["ifs"]]
    elif kind == "If":
        values = [node.args["true"]]
    elif kind in ("Coalesce", "Greatest", "Least"):
        return [node.this, *node.expressions]
    else:
        return [node.this] if kind == "Nullif" else None
    other = node.args.get("default") or node.args.get("false")
    return values + ([other] if other is not None else [])


def _kinds_of_type(declared: Any) -> Kinds:
    if get_origin(declared) in (Union, UnionType):
        found = [_kinds_of_type(part) for part in get_args(declared) if part is not NoneType]
        return UNKNOWN if UNKNOWN in found else UNKNOWN.union(*found)
    return _TYPES.get(declared, UNKNOWN) if isinstance(declared, type) else UNKNOWN


__all__ = ["clash", "kinds_of", "misfit"]
