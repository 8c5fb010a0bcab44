"""What an aggregate is: a declaration (`Aggregate`), and the functions that it becomes once the type of the values is known (`Fold`).

An accumulator is a plain immutable value that MessagePack can store: an int, a str, a tuple, a frozenset. It grows record by
record with `add`; two accumulators of the same key join with `merge`, which may be called only with accumulators of stretches of
time that do not overlap, the earlier one first (panes of a hopping window, sessions that meet).

Nulls are left out, as in SQL: where a field may be None, an accumulator of None stands for "no value yet".
"""

import typing
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from types import NoneType, UnionType
from typing import Any
from uuid import UUID

from engine.errors import ConfigError, RecordError
from engine.kept import refuse_unstorable
from engine.selectors import Compiled, Selector, compile_selector

KEPT = "is kept by an aggregate"
"""What happens to a value of undeclared type, for the message that refuses it."""


_SCALARS = frozenset((int, float, str, bool, bytes, Decimal, datetime, date, timedelta, UUID))


def identity(accumulator: Any) -> Any:
    """Return the accumulator: it is its own result."""
    return accumulator


@dataclass(frozen=True, slots=True)
class Fold:
    """The functions of one aggregate.

    Attributes:
        create: (value, timestamp) -> accumulator of one record.
        add: (accumulator, value, timestamp) -> accumulator with one more record, later in arrival.
        merge: (earlier, later) -> accumulator of both; None if two can not be merged.
        stored: Type of the accumulator, for decoding.
        result: accumulator -> what the user sees.
        empty: Result where there was no value.
        read: Reads the value out of the record's value; None if the aggregate does not look at it.
        read_name: Two folds with the same name share the column that `read` makes.
        create_code, add_code, merge_code: The same as Python expressions over {x}, {t} and {a} ({b}: the later accumulator), for
            the hot loop; "" to call the function.
        keeps_values: Values of the field are part of the accumulator.
        undeclared: The type of the field is not known.
        declared: The type of the field as the user has declared it; a map or callable may give something else.
        is_commutative: `merge` is exact and takes accumulators in any order, of any records.
        column: (accumulator or None, values, timestamps) -> accumulator with a whole column; None to go record by record.
    """

    create: Callable[[Any, int], Any]
    add: Callable[[Any, Any, int], Any]
    merge: Callable[[Any, Any], Any] | None
    stored: Any
    result: Callable[[Any], Any] = identity
    empty: Any = None
    read: Callable[[Any], Any] | None = None
    read_name: str = ""
    create_code: str = ""
    add_code: str = ""
    merge_code: str = ""
    column: Callable[[Any, Sequence[Any], Sequence[int]], Any] | None = None
    keeps_values: bool = False
    undeclared: bool = False
    declared: Any = Any
    is_commutative: bool = False

    @property
    def is_own_result(self) -> bool:
        """Whether the accumulator is what the user sees."""
        return self.result is identity


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A declared aggregate: what the functions of `engine.agg` return.

    Attributes:
        name: Its name, for messages.
        selector: Field or callable that it reads; None if it does not look into the value.
        make: Makes the fold for the type of what the selector gives.
        rank: A second selector: the fold then works on pairs (value, rank), and `make` is given the type of such a pair.
    """

    name: str
    selector: Selector | None
    make: Callable[[Any], Fold]
    rank: Selector | None = field(default=None, kw_only=True)

    def bind(self, value_type: Any, what: str) -> Fold:
        """Return the fold for values of a type.

        Args:
            what: What it is for; it opens the error message ("window of pipeline 'revenue', orders").
        Raises:
            ConfigError: The type has no such field, or the aggregate cannot work with the field's type.
        """
        what = f"{what} = agg.{self.name}"
        if self.selector is None:
            return self.make(value_type)
        compiled = compile_selector(self.selector, value_type, what)
        if self.rank is not None:
            compiled = _paired(compiled, compile_selector(self.rank, value_type, f"by of {what}"))
        try:
            fold = self.make(without_none(compiled.type))
        except ConfigError as error:
            raise ConfigError(f"{what}({compiled.text}): {error}") from error
        if may_be_none(compiled.type):
            fold = skip_none(fold)
        name = compiled.field if compiled.field is not None else f"callable {id(compiled.get)}"
        return replace(fold, read=compiled.get, read_name=name, undeclared=compiled.type in (Any, object), declared=compiled.type)


def _paired(value: Compiled, rank: Compiled) -> Compiled:
    """Return the selector of both; it gives None where one of them is None."""
    read, read_rank = value.get, rank.get
    kind, rank_kind = scalar(value.type), scalar(rank.type)
    is_undeclared = any(one.type in (Any, object) for one in (value, rank))

    def pair(of: Any) -> tuple[Any, Any] | None:
        x = read(of)
        if x is None:
            return None
        by = read_rank(of)
        if by is None:
            return None
        if is_undeclared:
            refuse_unstorable((x, by), KEPT)
        return (as_declared(x, kind), as_declared(by, rank_kind))

    types = tuple_type(without_none(value.type), without_none(rank.type))
    return Compiled(pair, types | None if may_be_none(value.type) or may_be_none(rank.type) else types, None)


def scalar(value_type: Any) -> type | None:
    """Return the class of a declared type whose values are single things, such as int; None for any other type."""
    kind = without_none(value_type)
    return kind if kind in _SCALARS else None


def as_declared(x: Any, kind: type | None) -> Any:
    """Return a value as what it is declared: a bool or a member of an enum as the int or str that it is.

    Raises:
        RecordError: It is something else: it would be stored, and could not be read.
    """
    if kind is None or type(x) is kind or (kind is float and type(x) is int):
        return x
    if kind is int and isinstance(x, int):
        return int(x)
    if kind is str and isinstance(x, str):
        return str.__str__(x)
    if kind not in _SCALARS and isinstance(x, kind):  # of these a subclass has no stored form, or that of another type (datetime, date)
        return x
    raise RecordError(f"{x!r:.100} {KEPT}, but is declared {kind.__name__}: annotate what made it, a map or a callable, as what it gives")


def tuple_type(*types: Any) -> Any:
    """Return the type of a tuple of given types, for decoding; `...` as the last one means any number."""
    return tuple.__class_getitem__(types)


def may_be_none(value_type: Any) -> bool:
    """Return whether None is among the values of a type, as far as is known."""
    return value_type in (Any, object, None, NoneType) or (_is_union(value_type) and NoneType in typing.get_args(value_type))


def without_none(value_type: Any) -> Any:
    """Return a type without None."""
    if not _is_union(value_type):
        return value_type
    members = [member for member in typing.get_args(value_type) if member is not NoneType]
    kept = members[0] if members else Any
    for member in members[1:]:
        kept = kept | member
    return kept


def optional(stored: Any) -> Any:
    """Return a type with None."""
    return stored if stored is Any else stored | None


def skip_none(fold: Fold) -> Fold:
    """Return the fold that leaves out None; an accumulator of None stands for no value yet."""
    create_value, add_value, merge_values, result, empty = fold.create, fold.add, fold.merge, fold.result, fold.empty

    def create(x: Any, t: int) -> Any:
        return None if x is None else create_value(x, t)

    def add(a: Any, x: Any, t: int) -> Any:
        if x is None:
            return a
        return create_value(x, t) if a is None else add_value(a, x, t)

    def merge(a: Any, b: Any) -> Any:
        if a is None or b is None:
            return b if a is None else a
        assert merge_values is not None
        return merge_values(a, b)

    return replace(
        fold,
        create=create,
        add=add,
        merge=None if merge_values is None else merge,
        stored=optional(fold.stored),
        result=lambda a: copy(empty) if a is None else result(a),
        create_code="",
        add_code="",
        merge_code="",
        column=None,
    )


def _is_union(value_type: Any) -> bool:
    return typing.get_origin(value_type) in (typing.Union, UnionType)


__all__ = [
    "KEPT",
    "Aggregate",
    "Fold",
    "as_declared",
    "identity",
    "may_be_none",
    "optional",
    "scalar",
    "skip_none",
    "tuple_type",
    "without_none",
]
