"""Aggregates that can take a value back, for tables: a row that goes is subtracted, one that changes is subtracted and added.

    count sum mean variance     numbers that go down as they went up; floats exactly, so that nothing is left of what was taken back
    min max distinct            a multiset of the values: how often each is there (bound: the distinct values of a group)
    others                      refused: they do not keep what would be needed to give a value back

None is left out everywhere but in `count()`, as in a stream.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from math import isfinite
from typing import Any

from engine import untyped
from engine.agg import decimals
from engine.agg.aggregate import Aggregate, Fold, optional, without_none
from engine.agg.folding import Folding, ResultRows
from engine.errors import ConfigError, RecordError
from engine.selectors import compile_selector
from state.overlay import MapCells
from state.values import fitting

_ADDITIVE = ("count", "sum", "mean", "variance")
_MULTISET = ("min", "max", "distinct")
_REFUSED = {
    "first": "which value would be the first without a row that goes is not kept",
    "last": "which value would be the last without a row that goes is not kept",
    "collect": "it keeps only the first values, and not what would follow when one goes",
    "top": "it keeps only the largest values, and not what would follow when one goes",
    "reduce": "a function that adds says nothing about how to subtract",
    "quantile": "its sketch cannot forget a value",
    "approx_distinct": "its sketch cannot forget a value; use agg.distinct",
}


@dataclass(frozen=True, slots=True)
class Multiset:
    """How often each value of one aggregate is there in one group, in state: value -> number."""

    cells: MapCells[Any, bytes, int]
    key: Any
    prefix: bytes
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]

    def add(self, value: Any) -> bool:
        """Add a value; return whether it is a new one."""
        sub = self.prefix + self.encode(value)
        number = self.cells.get(self.key, sub) or 0
        self.cells.put(self.key, sub, number + 1)
        return number == 0

    def has(self, value: Any) -> bool:
        """Return whether a value is there, in just this form."""
        return self.cells.get(self.key, self.prefix + self.encode(value)) is not None

    def subtract(self, value: Any) -> bool:
        """Take a value back; return whether it was the last one like it."""
        sub = self.prefix + self.encode(value)
        number = self.cells.get(self.key, sub) or 0
        if number > 1:
            self.cells.put(self.key, sub, number - 1)
        else:
            self.cells.delete(self.key, sub)
        return number <= 1

    def values(self) -> Iterable[Any]:
        """Yield the distinct values."""
        decode = fitting(self.decode, self.cells.section.name)
        return (decode(sub[1:]) for sub, _ in self.cells.items(self.key) if sub[:1] == self.prefix)


@dataclass(frozen=True, slots=True)
class Retraction:
    """One aggregate: an accumulator is an immutable value; `change` returns the next one.

    Attributes:
        read: Reads the value out of the row; None if the aggregate does not look at it.
        change: (accumulator, value, True to add or False to subtract, multiset) -> accumulator.
        value_type: Of the values in the multiset.
    """

    read: Callable[[Any], Any] | None
    change: Callable[[Any, Any, bool, Multiset], Any]
    empty: Any
    stored: Any
    result: Callable[[Any], Any]
    value_type: Any = Any


class RetractingFolding:
    """Named aggregates over the rows of a table."""

    def __init__(self, aggregates: Mapping[str, Aggregate], value_type: Any, *, key_as: str, into: type[Any] | None, what: str) -> None:
        self._all = [_retraction(aggregate, value_type, f"{what}, {name}") for name, aggregate in aggregates.items()]
        self._coders = [(untyped.encoder(one.value_type, order="deterministic"), untyped.decoder(one.value_type)) for one in self._all]
        self.empty = tuple(one.empty for one in self._all)
        self.stored: Any = tuple.__class_getitem__(tuple(one.stored for one in self._all))
        shown = {name: _shown(one) for name, one in zip(aggregates, self._all, strict=True)}
        self._rows = ResultRows(Folding(shown, Any, what), key_as=key_as, into=into, windowed=False, what=what)

    def change(self, accumulators: tuple[Any, ...], row: Any, adds: bool, cells: MapCells[Any, bytes, int], key: Any) -> tuple[Any, ...]:
        """Return the accumulators of a group with one row more (`adds`) or less."""
        changed = []
        for number, (one, accumulator) in enumerate(zip(self._all, accumulators, strict=True)):
            value = None if one.read is None else one.read(row)
            if one.read is not None and value is None:
                changed.append(accumulator)
                continue
            multiset = Multiset(cells, key, bytes((number,)), *self._coders[number])
            changed.append(one.change(accumulator, value, adds, multiset))
        return tuple(changed)

    def row(self, key: Any, accumulators: tuple[Any, ...]) -> Any:
        """Return the result of a group."""
        return self._rows.row(key, accumulators)


def _retraction(aggregate: Aggregate, value_type: Any, what: str) -> Retraction:
    if aggregate.name not in _ADDITIVE + _MULTISET:
        reason = _REFUSED.get(aggregate.name, "it does not say how to subtract")
        raise ConfigError(f"{what}: agg.{aggregate.name} cannot follow the changes of a table: {reason}")
    what = f"{what} = agg.{aggregate.name}"
    if aggregate.selector is None:
        return _additive(aggregate.make(value_type), None)
    compiled = compile_selector(aggregate.selector, value_type, what)
    inner = without_none(compiled.type)
    try:
        fold = aggregate.make(inner)
    except ConfigError as error:
        raise ConfigError(f"{what}({compiled.text}): {error}") from error
    if aggregate.name in _ADDITIVE:
        return _additive(fold, compiled.get)
    if aggregate.name == "distinct":
        return Retraction(compiled.get, _change_distinct, 0, int, lambda number: number, inner)
    better = partial(min if aggregate.name == "min" else max, key=decimals.rank)
    return Retraction(compiled.get, _change_extreme(better), None, optional(inner), lambda value: value, inner)


def _additive(fold: Fold, read: Callable[[Any], Any] | None) -> Retraction:
    """Return an aggregate of numbers: what one value adds is subtracted by adding its negative."""
    create, merge = fold.create, fold.merge
    assert merge is not None

    def change(accumulator: Any, value: Any, adds: bool, _: Multiset) -> Any:
        if isinstance(value, float | Decimal) and not isfinite(value):
            raise RecordError(f"{value} in a table cannot be added up: it could not be taken back")
        number, total = accumulator
        part = create(value, 0) if adds else _negative(create(value, 0))
        number += 1 if adds else -1
        return (number, part if total is None else merge(total, part)) if number else (0, None)

    def result(accumulator: Any) -> Any:
        return fold.empty if accumulator[1] is None else fold.result(accumulator[1])

    return Retraction(read, change, (0, None), tuple.__class_getitem__((int, optional(fold.stored))), result)


def _negative(part: Any) -> Any:
    if isinstance(part, Decimal):
        return part.copy_negate()  # a minus would round it
    return tuple(map(_negative, part)) if isinstance(part, tuple) else -part


def _change_distinct(number: int, value: Any, adds: bool, values: Multiset) -> int:
    if isinstance(value, Decimal) and not values.has(value):
        value = decimals.canonical(value)  # 1.50 is no other value than 1.5
    if adds:
        return number + values.add(value)
    return number - values.subtract(value)


def _change_extreme(better: Callable[..., Any]) -> Callable[[Any, Any, bool, Multiset], Any]:
    def change(extreme: Any, value: Any, adds: bool, values: Multiset) -> Any:
        if adds:
            new = value if extreme is None else better(extreme, value)
            values.add(value)
            return new
        if values.subtract(value) and decimals.rank(value) == decimals.rank(extreme):
            return better(values.values(), default=None)
        return extreme

    return change


def _shown(one: Retraction) -> Aggregate:
    """Return what makes the result of an accumulator, in the form that `ResultRows` takes."""
    fold = Fold(create=lambda x, t: None, add=lambda a, x, t: a, merge=None, stored=one.stored, result=one.result)
    return Aggregate("table", None, lambda value_type: fold)


__all__ = ["RetractingFolding"]
