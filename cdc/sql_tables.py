"""What every SQL database of a replica does in the same words."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from cdc.database import Column, quoted


class SqlTables(ABC):
    """The part of a `cdc.database.Database` that is plain SQL."""

    types: Mapping[Column, str]

    @abstractmethod
    def name(self, table: str) -> str:
        """Return the quoted name of a table with its schema."""

    @abstractmethod
    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows; values stand for "?"."""

    @abstractmethod
    def columns(self, table: str) -> dict[str, Column]:
        """Return the columns of a table in their order."""

    @abstractmethod
    def _among(self, kinds: Mapping[str, Column], keys: Mapping[str, Sequence[Any]]) -> tuple[str, list[Any]]:
        """Return a subquery of tuples, given as a column each, and its values."""

    def add_column(self, table: str, name: str, kind: Column) -> None:
        self.execute(f"alter table {self.name(table)} add column {quoted(name)} {self.types[kind]}")

    def has_values(self, table: str, name: str) -> bool:
        return bool(self.execute(f"select 1 from {self.name(table)} where {quoted(name)} is not null limit 1"))

    def select(self, table: str, names: Sequence[str], keys: Mapping[str, Sequence[Any]], **fixed: Any) -> list[tuple[Any, ...]]:
        where, values = self._where(table, keys, fixed)
        return self.execute(f"select {', '.join(map(quoted, names))} from {self.name(table)}{where}", values)

    def delete(self, table: str, keys: Mapping[str, Sequence[Any]]) -> None:
        where, values = self._where(table, keys, {})
        self.execute(f"delete from {self.name(table)}{where}", values)

    def _where(self, table: str, keys: Mapping[str, Sequence[Any]], fixed: Mapping[str, Any]) -> tuple[str, list[Any]]:
        conditions, values = [f"{quoted(name)} = ?" for name in fixed], list(fixed.values())
        if keys:
            among, found = self._among(self.columns(table), keys)
            conditions.append(f"({', '.join(map(quoted, keys))}) in {among}")
            values += found
        return f" where {' and '.join(conditions)}" if conditions else "", values


__all__ = ["SqlTables"]
