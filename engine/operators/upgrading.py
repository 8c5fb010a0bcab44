"""Rows of a table whose type has changed: `upgrade=` makes a row of today's type out of what is stored.

    stored by the code before     {"name": "Ann Lee", "age": "41"}
    class User                    first: str, last: str, age: int
    upgrade                       lambda old: {"first": ..., "last": ..., "age": int(old["age"])}

What still fits is never given to `upgrade`, so a field with a default needs none. A row is upgraded each time that it is read from the
store, until it is written again; so the function stays as long as such rows may be there. Joins of tables keep rows of both sides and
upgrade them by the same functions. Aggregates have added what a row gave before: the upgraded row must give the same group and values.

Without `upgrade=`, and in what only waits for a while (buffers of joins, `in_event_time_order`), a value that does not fit ends the
worker with the name of the state: see `state.values.stored`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from engine.agg.folding import payload_codec
from engine.errors import StoredTypeError
from engine.functions import check_function
from state.values import PayloadCodec

MakeCodec = Callable[[Any], PayloadCodec[Any]]
"""Gives the codec of a tuple type."""

Upgrade = Callable[[Any], Any]
"""Makes what fits out of plain data; what fits already stays."""

UPGRADABLE = "Give what was added a default, or pass the table upgrade=, a function that makes a row of what was stored"


@dataclass(frozen=True, slots=True)
class RowUpgrade:
    """The `upgrade=` of a table with rows of a type."""

    row_type: Any
    function: Callable[[Any], Any]

    def __call__(self, plain: Any) -> Any:
        """Return a row.

        Raises:
            StoredTypeError: The function raised, or gave no row.
        """
        codec = payload_codec(tuple.__class_getitem__((self.row_type,)))
        try:
            return codec.decode(codec.encode((plain,)))[0]
        except msgspec.ValidationError:
            pass
        try:
            return codec.decode(codec.encode((self.function(plain),)))[0]
        except Exception as failure:
            name = getattr(self.row_type, "__name__", repr(self.row_type))
            raise StoredTypeError(f"upgrade= made no {name} of the stored {plain!r}: {failure}") from failure


@dataclass(frozen=True, slots=True)
class PairUpgrade:
    """The same for pairs of rows, None where a side has none or no `upgrade=`."""

    sides: tuple[Upgrade | None, Upgrade | None]

    def __call__(self, plain: Any) -> Any:
        """Return the pair with both rows upgraded."""
        return tuple(row if row is None or upgrade is None else upgrade(row) for row, upgrade in zip(plain, self.sides, strict=True))


def row_upgrade(function: Callable[[Any], Any] | None, row_type: Any, what: str) -> RowUpgrade | None:
    """Return what an `upgrade=` does, None without one.

    Raises:
        ConfigError: It cannot be called.
    """
    if function is None:
        return None
    check_function(function, f"upgrade of {what}", "a function that makes a row of plain data")
    return RowUpgrade(row_type, function)


def pair_upgrade(left: Upgrade | None, right: Upgrade | None) -> PairUpgrade | None:
    """Return what upgrades pairs of two tables' rows, None if neither table upgrades any."""
    return None if left is None and right is None else PairUpgrade((left, right))


def upgraded(types: tuple[Any, ...], upgrades: Mapping[int, Upgrade | None], make: MakeCodec = payload_codec) -> PayloadCodec[Any]:
    """Return the codec of a tuple of these types, in which what stands at some places is upgraded where it does not fit."""
    typed, plain = make(tuple.__class_getitem__(types)), make(tuple.__class_getitem__((Any,) * len(types)))
    wanted = {place: upgrade for place, upgrade in upgrades.items() if upgrade is not None}

    def decode(raw: bytes) -> Any:
        try:
            return typed.decode(raw)
        except msgspec.ValidationError:
            if not wanted:
                raise
        parts = list(plain.decode(raw))
        for place, upgrade in wanted.items():
            if parts[place] is not None:
                parts[place] = upgrade(parts[place])
        return typed.decode(typed.encode(tuple(parts)))

    return PayloadCodec(typed.encode, decode, typed.type, UPGRADABLE)


def upgrading_last(upgrade: Upgrade | None, make: MakeCodec = payload_codec) -> MakeCodec:
    """Return what gives the codec of a tuple type that has a row in its last place."""
    return partial(_upgrading_last, upgrade, make)


def _upgrading_last(upgrade: Upgrade | None, make: MakeCodec, stored: Any) -> PayloadCodec[Any]:
    types = stored.__args__
    return upgraded(types, {len(types) - 1: upgrade}, make)


__all__ = ["MakeCodec", "PairUpgrade", "RowUpgrade", "Upgrade", "pair_upgrade", "row_upgrade", "upgraded", "upgrading_last"]
