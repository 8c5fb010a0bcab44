"""What a replica needs of a database, and the types of columns in words that every database has.

`open_database("postgresql://user@host/shop", schema="copy")`, `open_database("duckdb:copy.duckdb")`.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, Protocol
from uuid import UUID

import msgspec

from cdc.values import Beyond, Interval, Range
from engine.errors import ConfigError

Column = Literal["int", "numeric", "float", "bool", "text", "bytes", "instant", "datetime", "date", "time", "interval", "uuid"]
"""Type of a column. "instant" is a time with a zone, "datetime" one without; lists, maps and ranges are "text"."""

_KINDS: dict[type, Column] = {
    bool: "bool",
    int: "int",
    float: "float",
    Decimal: "numeric",
    str: "text",
    bytes: "bytes",
    date: "date",
    time: "time",
    timedelta: "interval",
    UUID: "uuid",
}
_AS_THEY_ARE: dict[Column, set[type]] = {column: {kind, type(None)} for kind, column in _KINDS.items()} | {
    "instant": {datetime, type(None)},
    "datetime": {datetime, type(None)},
}
_NUMBERS = ("int", "numeric", "float")
_INT64 = 1 << 63


class Database(Protocol):
    """One schema of a database. Everything between `transaction()` and its end is committed at once or not at all."""

    types: Mapping[Column, str]

    def transaction(self) -> AbstractContextManager[None]: ...

    def name(self, table: str) -> str:
        """Return the quoted name of a table with its schema."""
        ...

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows; values stand for "?"."""
        ...

    def columns(self, table: str) -> dict[str, Column]:
        """Return the columns of a table in their order, {} if there is no table."""
        ...

    def create(self, table: str, columns: Mapping[str, Column], key: Sequence[str]) -> None: ...

    def add_column(self, table: str, name: str, kind: Column) -> None: ...

    def retype(self, table: str, name: str, kind: Column) -> None: ...

    def has_values(self, table: str, name: str) -> bool:
        """Return whether a column holds anything but null."""
        ...

    def select(self, table: str, names: Sequence[str], keys: Mapping[str, Sequence[Any]], **fixed: Any) -> list[tuple[Any, ...]]:
        """Return columns of the rows whose key columns have one of the given tuples of values, and fixed ones one value."""
        ...

    def delete(self, table: str, keys: Mapping[str, Sequence[Any]]) -> None:
        """Delete the rows whose key columns have one of the given tuples of values."""
        ...

    def insert(self, table: str, columns: Mapping[str, Column], values: Sequence[Sequence[Any]]) -> None:
        """Add rows, given as the values of each column."""
        ...

    def replace(
        self, table: str, columns: Mapping[str, Column], key: Sequence[str], values: Sequence[Sequence[Any]], *, fresh: bool = False
    ) -> None:
        """Add rows in the place of those with the same key; `fresh`: there are none."""
        ...

    def holds_numerics(self, values: Sequence[Any]) -> bool:
        """Return whether a column of type "numeric" holds these values (None aside) exactly."""
        ...

    def close(self) -> None: ...


def open_database(address: str, *, schema: str = "public") -> Database:
    """Return the database at an address.

    Raises:
        ConfigError: The address is not known, or the library for it is not installed.
    """
    if address.startswith(("postgresql://", "postgres://")):
        from cdc.database_postgres import PostgresDatabase

        return PostgresDatabase(address, schema)
    if address.startswith("duckdb:"):
        from cdc.database_duckdb import DuckDatabase

        return DuckDatabase(address.removeprefix("duckdb:"), "main" if schema == "public" else schema)
    raise ConfigError(f"database {address!r} is not known; use postgresql://user@host/name or duckdb:file")


def column_of(value: Any) -> Column:
    """Return the type of column that a value needs."""
    kind = type(value)
    if kind is datetime:
        return "datetime" if value.tzinfo is None else "instant"
    if kind is int and not -_INT64 <= value < _INT64:
        return "numeric"
    return _KINDS.get(kind, "text")


def kind_of(values: Sequence[Any]) -> Column | None:
    """Return the type of column that values need, None if all of them are null."""
    found: Column | None = None
    for kind in set(map(type, values)) - {type(None)}:
        needed: Column = _KINDS.get(kind, "text")
        if kind is datetime or kind is int:
            for value in values:
                if type(value) is kind:
                    needed = column_of(value)
                    found = needed if found is None else widened(found, needed)
        else:
            found = needed if found is None else widened(found, needed)
    return found


def widened(first: Column, second: Column) -> Column:
    """Return a type that has room for the values of both."""
    if first == second:
        return first
    if first in _NUMBERS and second in _NUMBERS:
        return max(first, second, key=_NUMBERS.index)
    return "text"


def plain(value: Any, kind: Column) -> Any:
    """Return a value as a column of a type takes it."""
    if value is None or column_of(value) == kind != "text":
        return value
    if kind == "text":
        return value if type(value) is str else _text(value)
    if kind == "numeric":
        return value if isinstance(value, Decimal) else Decimal(value)
    if kind == "float":
        return float(value)
    return _text(value)


def plain_column(values: Sequence[Any], kind: Column) -> Sequence[Any]:
    """Return values as a column of a type takes them; the same sequence if nothing is to be done."""
    if set(map(type, values)) <= _AS_THEY_ARE[kind]:
        return values
    return [plain(value, kind) for value in values]


def quoted(name: str) -> str:
    """Return the name of a column or table as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def _text(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case Beyond() | UUID() | Decimal() | int() | float():
            return str(value)
        case datetime():
            return value.isoformat(sep=" ")
        case Interval():
            return f"{value.months} mons {value.days} days {value.microseconds / 1_000_000} seconds"
        case bytes():
            return value.hex()
        case Range() | list() | dict() | tuple():
            return json.dumps(msgspec.to_builtins(value), ensure_ascii=False)
    return str(value)


__all__ = ["Column", "Database", "column_of", "kind_of", "open_database", "plain", "plain_column", "quoted", "widened"]
