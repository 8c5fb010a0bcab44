"""What `reduce` keeps: the types of its totals, and the refusal of those that would not come out of the store as they are.

Totals are written at the commit, when no record can be blamed any more, and read again after an eviction or a restart. So a total that
cannot be written, or could not be read as what it is, is refused while the record that made it is in hand.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, is_typeddict

from engine.agg.aggregate import KEPT, as_declared
from engine.errors import RecordError
from engine.kept import refuse_unstorable
from engine.untyped import PLAIN, tagger

Function = Callable[[Any, Any], Any]
Check = Callable[[Any], Any]
"""Returns a total as it is to be kept; RecordError if that cannot be."""

_CONTAINERS: dict[type, Any] = {
    list: list | None,
    dict: dict | None,
    tuple: tuple | None,
    set: set[Any] | None,
    frozenset: frozenset[Any] | None,
}


def of(declared: Any, initial: Any) -> tuple[Any, Check | None]:
    """Return the type that totals are stored as, and what checks them; None where the annotation has to be believed."""
    kind = type(initial)
    if declared not in (Any, object):
        of_class = partial(as_declared, kind=declared) if isinstance(declared, type) and not is_typeddict(declared) else None
        return declared, of_class if tagger(declared) is None else _storable(of_class)
    if kind in PLAIN:
        return Any, _storable(None)
    if kind in _CONTAINERS:
        return _CONTAINERS[kind], _storable(_container_check(kind))
    return kind, partial(as_declared, kind=kind)


def checked(function: Function, check: Check | None) -> Function:
    """Return a function that gives checked totals."""
    return function if check is None else lambda a, b: check(function(a, b))


def _storable(first: Check | None) -> Check:
    def check(total: Any) -> Any:
        made = total if first is None else first(total)
        if type(made) not in PLAIN:
            refuse_unstorable((made,), KEPT)
        return made

    return check


def _container_check(kind: type) -> Check:
    def check(total: Any) -> Any:
        if type(total) is not kind and total is not None:
            raise RecordError(
                f"a total of agg.reduce is a {type(total).__name__}, but begins with {kind.__name__}: annotate the result of its function"
            )
        return total

    return check


__all__ = ["checked", "of"]
