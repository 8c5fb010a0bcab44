"""What a registry keeps: schemas by id, versions of subjects, levels and modes, in one SQLite file.

A schema is kept once, whatever the number of subjects; its id never changes and is never given again. Two texts that differ in
white space only are one schema; with `normalize` also those of the same normal form (`cdc.registry.normal`).
"""

import json
import sqlite3
from collections.abc import Sequence

from msgspec import Struct

from cdc.registry.normal import normal

_TABLES = """
create table if not exists schemas (id integer primary key autoincrement, kind text not null, text text not null, refs text not null,
    same text not null, unique (kind, same, refs));
create table if not exists versions (subject text not null, version integer not null, schema_id integer not null,
    deleted integer not null default 0, primary key (subject, version));
create table if not exists settings (subject text not null, name text not null, value text not null, primary key (subject, name));
"""


class Version(Struct, frozen=True):
    """A version of a subject, with its schema. `references`: (name, subject, version)."""

    subject: str
    version: int
    id: int
    kind: str
    text: str
    references: tuple[tuple[str, str, int], ...]
    is_deleted: bool


class SchemaStore:
    """The store of a registry.

    Args:
        path: The file; ":memory:" for one that is lost.
    """

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("pragma journal_mode=wal")
        self._db.executescript(_TABLES)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def add(self, kind: str, text: str, references: Sequence[tuple[str, str, int]], schema_id: int | None = None) -> int:
        """Return the id of a schema, kept from now on; a new one gets `schema_id` if that is given."""
        found = self.find(kind, text, references)
        if found is not None:
            return found
        row = (schema_id, kind, text, json.dumps(references), _same(text))
        return int(self._db.execute("insert into schemas (id, kind, text, refs, same) values (?, ?, ?, ?, ?)", row).lastrowid or 0)

    def find(self, kind: str, text: str, references: Sequence[tuple[str, str, int]], *, normalize: bool = False) -> int | None:
        """Return the id of a schema that is kept, None if it is not."""
        if normalize:
            rows = self._db.execute("select id, text from schemas where kind = ? and refs = ?", (kind, json.dumps(references)))
            wanted = normal(kind, text)
            return next((found for found, other in rows if normal(kind, other) == wanted), None)
        sql = "select id from schemas where kind = ? and same = ? and refs = ?"
        row = self._db.execute(sql, (kind, _same(text), json.dumps(references))).fetchone()
        return None if row is None else int(row[0])

    def schema(self, schema_id: int) -> tuple[str, str, tuple[tuple[str, str, int], ...]] | None:
        """Return (kind, text, references) of an id."""
        row = self._db.execute("select kind, text, refs from schemas where id = ?", (schema_id,)).fetchone()
        return None if row is None else (row[0], row[1], _references(row[2]))

    def versions(self, subject: str | None = None, *, deleted: bool = False, schema_id: int | None = None) -> list[Version]:
        """Return versions by subject and number, of one subject or of all, with the deleted ones or without."""
        sql = "select v.subject, v.version, s.id, s.kind, s.text, s.refs, v.deleted from versions v join schemas s on s.id = v.schema_id"
        conditions, values = [], []
        for condition, value in (("v.subject = ?", subject), ("s.id = ?", schema_id)):
            if value is not None:
                conditions.append(condition)
                values.append(value)
        if not deleted:
            conditions.append("v.deleted = 0")
        where = " where " + " and ".join(conditions) if conditions else ""
        rows = self._db.execute(f"{sql}{where} order by v.subject, v.version", values)
        return [Version(row[0], row[1], row[2], row[3], row[4], _references(row[5]), bool(row[6])) for row in rows]

    def add_version(self, subject: str, schema_id: int, version: int | None = None) -> int:
        """Add a version to a subject and return its number: the next, or the given one."""
        number = version or 1 + (self._db.execute("select max(version) from versions where subject = ?", (subject,)).fetchone()[0] or 0)
        self._db.execute(
            "insert or replace into versions (subject, version, schema_id, deleted) values (?, ?, ?, 0)", (subject, number, schema_id)
        )
        return number

    def delete_version(self, subject: str, version: int, *, permanent: bool) -> None:
        """Mark a version as deleted, or remove it."""
        sql = "delete from versions" if permanent else "update versions set deleted = 1"
        self._db.execute(f"{sql} where subject = ? and version = ?", (subject, version))

    def id_max(self) -> int:
        """Return the highest id of a schema, 0 for none."""
        return int(self._db.execute("select coalesce(max(id), 0) from schemas").fetchone()[0])

    def drop_unused(self, schema_id: int) -> None:
        """Remove a schema that no version has any more."""
        self._db.execute("delete from schemas where id = ? and id not in (select schema_id from versions)", (schema_id,))

    def setting(self, name: str, subject: str = "") -> str | None:
        """Return a setting ("level", "mode") of a subject, or the global one."""
        row = self._db.execute("select value from settings where subject = ? and name = ?", (subject, name)).fetchone()
        return None if row is None else str(row[0])

    def set(self, name: str, value: str | None, subject: str = "") -> None:
        """Keep a setting; None removes it."""
        if value is None:
            self._db.execute("delete from settings where subject = ? and name = ?", (subject, name))
        else:
            self._db.execute("insert or replace into settings (subject, name, value) values (?, ?, ?)", (subject, name, value))


def _same(text: str) -> str:
    try:
        return json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)
    except ValueError:  # Protobuf is no JSON
        return " ".join(text.split())


def _references(text: str) -> tuple[tuple[str, str, int], ...]:
    return tuple((name, subject, version) for name, subject, version in json.loads(text))
