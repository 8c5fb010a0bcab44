"""DuckDB as the place of a replica: the only module of this package that knows duckdb. Rows go in as columns, by `unnest`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from cdc.database import Column, plain
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
_KINDS = {text: kind for kind, text in _TYPES.items()}


class DuckDatabase:
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
        self._place = f"{_quoted(self.execute('select current_database()')[0][0])}.{_quoted(schema)}"
        self.execute(f"create schema if not exists {self._place}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit at the end, roll back on an error."""
        self._connection.begin()
        try:
            yield
        except BaseException:
            self._connection.rollback()
            raise
        self._connection.commit()

    def name(self, table: str) -> str:
        return f"{self._place}.{_quoted(table)}"

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
        self.execute(f"create table {self.name(table)} ({', '.join(f'{_quoted(name)} {_TYPES[kind]}' for name, kind in columns.items())})")

    def add_column(self, table: str, name: str, kind: Column) -> None:
        self.execute(f"alter table {self.name(table)} add column {_quoted(name)} {_TYPES[kind]}")

    def retype(self, table: str, name: str, kind: Column) -> None:
        self.execute(f"alter table {self.name(table)} alter column {_quoted(name)} type {_TYPES[kind]}")

    def has_values(self, table: str, name: str) -> bool:
        return bool(self.execute(f"select 1 from {self.name(table)} where {_quoted(name)} is not null limit 1"))

    def select(self, table: str, names: Sequence[str], keys: Mapping[str, Sequence[Any]], **fixed: Any) -> list[tuple[Any, ...]]:
        where, values = self._where(table, keys, fixed)
        return self.execute(f"select {', '.join(map(_quoted, names))} from {self.name(table)}{where}", values)

    def delete(self, table: str, keys: Mapping[str, Sequence[Any]]) -> None:
        where, values = self._where(table, keys, {})
        self.execute(f"delete from {self.name(table)}{where}", values)

    def insert(self, table: str, columns: Mapping[str, Column], rows: Sequence[tuple[Any, ...]]) -> None:
        unnested = ", ".join(f"unnest(?::{_TYPES[kind]}[])" for kind in columns.values())
        values = [[_value(row[at], kind) for row in rows] for at, kind in enumerate(columns.values())]
        self.execute(f"insert into {self.name(table)} ({', '.join(map(_quoted, columns))}) select {unnested}", values)

    def replace(
        self, table: str, columns: Mapping[str, Column], key: Sequence[str], rows: Sequence[tuple[Any, ...]], *, fresh: bool = False
    ) -> None:
        # A key that was deleted in this transaction is still in DuckDB's index, so a row is updated in its place.
        names = ", ".join(map(_quoted, columns))
        unnested = ", ".join(f"unnest(?::{_TYPES[kind]}[])" for kind in columns.values())
        values = [[_value(row[at], kind) for row in rows] for at, kind in enumerate(columns.values())]
        others = ", ".join(f"{_quoted(name)} = excluded.{_quoted(name)}" for name in columns if name not in key)
        conflict = f" on conflict ({', '.join(map(_quoted, key))}) do update set {others}" if others else ""
        self.execute(f"insert into {self.name(table)} ({names}) select {unnested}{conflict}", values)

    def close(self) -> None:
        self._connection.close()

    def _where(self, table: str, keys: Mapping[str, Sequence[Any]], fixed: Mapping[str, Any]) -> tuple[str, list[Any]]:
        conditions, values = [f"{_quoted(name)} = ?" for name in fixed], list(fixed.values())
        if keys:
            kinds = self.columns(table)
            unnested = ", ".join(f"unnest(?::{_TYPES[kinds[name]]}[])" for name in keys)
            conditions.append(f"({', '.join(map(_quoted, keys))}) in (select {unnested})")
            values += [[_value(value, kinds[name]) for value in column] for name, column in keys.items()]
        return f" where {' and '.join(conditions)}" if conditions else "", values


def _value(value: Any, kind: Column) -> Any:
    found = plain(value, kind)
    # Decimals of different scales in one list would all get the scale of the widest, and may not fit it.
    return str(found) if kind in ("numeric", "interval") and found is not None else found


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


__all__ = ["DuckDatabase"]
