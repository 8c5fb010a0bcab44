"""DuckDB as the place of a replica: the only module of this package that knows duckdb. Rows go in as columns, as JSON."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import msgspec

from cdc.database import Column, plain_column, quoted
from cdc.sql_tables import SqlTables
from engine.errors import ConfigError

try:
    import duckdb
except ImportError as error:
    raise ConfigError('a replica in DuckDB needs duckdb: pip install "streamforge[duckdb]"') from error

_TYPES: dict[Column, str] = {
    "int": "BIGINT",
    "numeric": "DECIMAL(38,10)",
    "float": "DOUBLE",
    "bool": "BOOLEAN",
    "text": "VARCHAR",
    "bytes": "BLOB",
    "instant": "TIMESTAMP WITH TIME ZONE",
    "datetime": "TIMESTAMP",
    "date": "DATE",
    "time": "TIME",
    "interval": "INTERVAL",
    "uuid": "UUID",
}
_IN_JSON = ("int", "bool", "text")
_BEYOND = 10**28
_KINDS = {text: kind for kind, text in _TYPES.items()}


class DuckDatabase(SqlTables):
    """A schema of a file, made if it is not there; decimals have 28 digits before the point and 10 behind it."""

    types: Mapping[Column, str] = _TYPES

    def __init__(self, path: str, schema: str) -> None:
        self._schema = schema
        try:
            self._connection = duckdb.connect(path)
        except duckdb.Error as error:
            raise ConfigError(f"duckdb:{path}: {error}") from error
        self.execute("set timezone = 'UTC'")
        # With the name of the file in front: a schema may have the same one.
        self._place = f"{quoted(self.execute('select current_database()')[0][0])}.{quoted(schema)}"
        self.execute(f"create schema if not exists {self._place}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit at the end, roll back on an error."""
        try:
            self._connection.begin()
            try:
                yield
            except BaseException:
                self._connection.rollback()
                raise
            self._connection.commit()
        except duckdb.Error as error:
            raise ConfigError(f"DuckDB refuses what belongs into the copy: {error}") from error

    def name(self, table: str) -> str:
        return f"{self._place}.{quoted(table)}"

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        done = self._connection.execute(sql, list(values))
        return list(done.fetchall()) if done.description else []

    def columns(self, table: str) -> dict[str, Column]:
        rows = self.execute(
            "select column_name, data_type from information_schema.columns "
            "where table_catalog = current_database() and table_schema = ? and table_name = ? order by ordinal_position",
            (self._schema, table),
        )
        return {name: _KINDS.get(kind, "text") for name, kind in rows}

    def create(self, table: str, columns: Mapping[str, Column], key: Sequence[str]) -> None:
        # Without the primary key: DuckDB lets no transaction delete a key and add it again.
        self.execute(f"create table {self.name(table)} ({', '.join(f'{quoted(name)} {_TYPES[kind]}' for name, kind in columns.items())})")

    def retype(self, table: str, name: str, kind: Column) -> None:
        self.execute(f"alter table {self.name(table)} alter column {quoted(name)} type {_TYPES[kind]}")

    def insert(self, table: str, columns: Mapping[str, Column], values: Sequence[Sequence[Any]]) -> None:
        self._insert(table, columns, values, "")

    def replace(
        self, table: str, columns: Mapping[str, Column], key: Sequence[str], values: Sequence[Sequence[Any]], *, fresh: bool = False
    ) -> None:
        # A key that was deleted in this transaction is still in DuckDB's index, so a row is updated in its place.
        others = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in columns if name not in key)
        conflict = f" on conflict ({', '.join(map(quoted, key))}) do update set {others}" if others and not fresh else ""
        self._insert(table, columns, values, conflict)

    def holds_numerics(self, values: Sequence[Any]) -> bool:
        return all(map(_fits_decimal, values))

    def _insert(self, table: str, columns: Mapping[str, Column], values: Sequence[Sequence[Any]], conflict: str) -> None:
        names, read = ", ".join(map(quoted, columns)), ", ".join(map(_read, columns.values()))
        written = [_written(column, kind) for column, kind in zip(values, columns.values(), strict=True)]
        self.execute(f"insert into {self.name(table)} ({names}) select {read}{conflict}", written)

    def close(self) -> None:
        self._connection.close()

    def _among(self, kinds: Mapping[str, Column], keys: Mapping[str, Sequence[Any]]) -> tuple[str, list[Any]]:
        read = ", ".join(_read(kinds[name]) for name in keys)
        return f"(select {read})", [_written(column, kinds[name]) for name, column in keys.items()]


def _fits_decimal(value: Any) -> bool:
    """Whether DECIMAL(38,10) holds a number as it is."""
    if value is None or type(value) is int:
        return value is None or abs(value) < _BEYOND
    _, digits, exponent = Decimal(value).as_tuple()
    if not isinstance(exponent, int) or abs(value) >= _BEYOND:
        return False
    return exponent >= -10 or not any(digits[exponent + 10 :])


def _read(kind: Column) -> str:
    """Return the expression that makes rows of a parameter as `_written` gives it."""
    if kind in _IN_JSON:
        return f"unnest(from_json(?, '[\"{_TYPES[kind]}\"]'))"
    texts = "unnest(from_json(?, '[\"VARCHAR\"]'))"
    return f"from_base64({texts})" if kind == "bytes" else f"{texts}::{_TYPES[kind]}"


def _written(values: Sequence[Any], kind: Column) -> str:
    """Return the values of a column as a text of JSON: DuckDB takes that several times faster than a list of Python's."""
    ready = plain_column(values, kind)
    if kind == "float":
        ready = [value if value is None or value - value == 0 else str(value) for value in ready]
    elif kind == "interval":
        ready = [value and f"{value.days} days {value.seconds * 1_000_000 + value.microseconds} microseconds" for value in ready]
    elif kind == "time":
        ready = [value and value.replace(tzinfo=None) for value in ready]
    return msgspec.json.encode(ready).decode()


__all__ = ["DuckDatabase"]
