"""PostgreSQL as the place of a replica: the only module that knows psycopg. Rows go in by COPY."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from cdc.database import Column, plain_column, quoted
from cdc.sql_tables import SqlTables
from engine.errors import ConfigError, UnavailableError

try:
    import psycopg
except ImportError as error:
    raise ConfigError('a replica in PostgreSQL needs psycopg: pip install "streamforge[postgres]"') from error

_TYPES: dict[Column, str] = {
    "int": "bigint",
    "numeric": "numeric",
    "float": "double precision",
    "bool": "boolean",
    "text": "text",
    "bytes": "bytea",
    "instant": "timestamp with time zone",
    "datetime": "timestamp without time zone",
    "date": "date",
    "time": "time without time zone",
    "interval": "interval",
    "uuid": "uuid",
}
_PLACES = re.compile(r'"(?:[^"]|"")*"|[?%]')
"""A quoted name, in which a question mark is nothing but itself; a place for a value; a sign that psycopg reads as one."""
_KINDS = {text: kind for kind, text in _TYPES.items()}


class PostgresDatabase(SqlTables):
    """A schema, made if it is not there."""

    types: Mapping[Column, str] = _TYPES

    def __init__(self, address: str, schema: str) -> None:
        self._schema = schema
        try:
            self._connection: psycopg.Connection[Any] = psycopg.connect(address, autocommit=True, connect_timeout=10)
        except psycopg.OperationalError as error:
            raise UnavailableError(f"{_without_password(address)}: {error}") from error
        except psycopg.Error as error:
            raise ConfigError(f"{_without_password(address)}: {error}") from error
        self.execute(f"create schema if not exists {quoted(schema)}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit at the end, roll back on an error."""
        with _translated(), self._connection.transaction():
            yield

    def name(self, table: str) -> str:
        return f"{quoted(self._schema)}.{quoted(table)}"

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        text = _PLACES.sub(lambda found: "%s" if found[0] == "?" else found[0].replace("%", "%%"), sql)
        with _translated():
            cursor = self._connection.execute(text.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def columns(self, table: str) -> dict[str, Column]:
        rows = self.execute(
            "select column_name, data_type from information_schema.columns "
            "where table_schema = ? and table_name = ? order by ordinal_position",
            (self._schema, table),
        )
        return {name: _KINDS.get(kind, "text") for name, kind in rows}

    def create(self, table: str, columns: Mapping[str, Column], key: Sequence[str]) -> None:
        parts = [f"{quoted(name)} {_TYPES[kind]}" for name, kind in columns.items()]
        self.execute(f"create table {self.name(table)} ({', '.join(parts)}, primary key ({', '.join(map(quoted, key))}))")

    def retype(self, table: str, name: str, kind: Column) -> None:
        column = quoted(name)
        self.execute(f"alter table {self.name(table)} alter column {column} type {_TYPES[kind]} using {column}::text::{_TYPES[kind]}")

    def insert(self, table: str, columns: Mapping[str, Column], values: Sequence[Sequence[Any]]) -> None:
        names = ", ".join(map(quoted, columns))
        ready = [plain_column(column, kind) for column, kind in zip(values, columns.values(), strict=True)]
        with self._connection.cursor() as cursor, cursor.copy(f"copy {self.name(table)} ({names}) from stdin".encode()) as copy:
            for row in zip(*ready, strict=True):
                copy.write_row(row)

    def replace(
        self, table: str, columns: Mapping[str, Column], key: Sequence[str], values: Sequence[Sequence[Any]], *, fresh: bool = False
    ) -> None:
        if not fresh:
            places = [list(columns).index(name) for name in key]
            self.delete(table, {name: values[place] for name, place in zip(key, places, strict=True)})
        self.insert(table, columns, values)

    def holds_numerics(self, values: Sequence[Any]) -> bool:
        return True

    def close(self) -> None:
        self._connection.close()

    def _among(self, kinds: Mapping[str, Column], keys: Mapping[str, Sequence[Any]]) -> tuple[str, list[Any]]:
        arrays = ", ".join(f"?::{_TYPES[kinds[name]]}[]" for name in keys)
        return f"(select * from unnest({arrays}))", [list(plain_column(column, kinds[name])) for name, column in keys.items()]


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg.OperationalError as error:
        raise UnavailableError(f"PostgreSQL: {error}") from error
    except psycopg.Error as error:
        raise ConfigError(f"PostgreSQL refuses what belongs into the copy: {error}") from error


def _without_password(address: str) -> str:
    return re.sub(r"(?<=:)[^:@/]*(?=@)|(?<=password=)[^&]*", "***", address)


__all__ = ["PostgresDatabase"]
