"""A copy of source tables in another database: rows, guards and offsets in one transaction of that database.

    replica = Replica(open_database("postgresql://…/shop", schema="copy"))
    position = replica.positions()                                  where to read on
    replica.apply([Batch("users", changes, topic, partition, next_offset)])

**Exactly once.** The offsets up to which the topics have been applied are committed together with the rows, so after a crash the
worker reads on exactly there. What Connect itself repeats is caught by the position of the last change of each key, which is kept
beyond the row's deletion, as in the engine's tables; what a change does to a row is decided by the same function (`cdc.apply`).

**Columns** come as they come: a table is made from the first row, a new column is added when a row brings it, and a column whose
values change their type is widened (int to numeric to double, anything to text). A column that is no longer written is null.

Beside the copies the schema holds `_replica_offsets`, `_replica_guards` and `_replica_truncates`.

Limits: tables need a primary key. Columns have the type that their values show, not the source's constraints, defaults and indexes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Struct

from cdc.apply import NOWHERE, Stored, apply, is_behind
from cdc.change import Change, Op, Position
from cdc.database import Column, Database, column_of, widened
from cdc.packing import row_codec
from engine.errors import RecordError
from engine.records import TopicPartition

_packing = row_codec(dict)(tuple[dict[str, Any]])
_GUARD_COLUMNS = ("source", "key", "lsn", "commit_lsn", "extra")


class _Extra(Struct, frozen=True, array_like=True):
    """What is seldom kept of a key: columns that nobody knows, and the row that a key change took away."""

    missing: tuple[str, ...] = ()
    departed: bytes | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes of one partition, in their order, and the offset behind them."""

    table: str
    changes: Sequence[Change[dict[str, Any]]]
    partition: TopicPartition
    next_offset: int


@dataclass(slots=True)
class _Work:
    """What a transaction has learnt of one table: keys (as bytes) with what is to be stored, and columns of their keys."""

    stored: dict[bytes, Stored[dict[str, Any]]] = field(default_factory=dict)
    known_rows: set[bytes] = field(default_factory=set)
    existing: set[bytes] = field(default_factory=set)
    touched: dict[bytes, dict[str, Any]] = field(default_factory=dict)


class Replica:
    """Copies of tables in one schema of a database; see `cdc.database` for the databases."""

    def __init__(self, database: Database) -> None:
        self._db = database
        types = database.types
        extra = f"extra {types['bytes']}, primary key (source, key)"
        with database.transaction():
            for name, columns in (
                ("_replica_offsets", f"topic {types['text']}, part {types['int']}, next_offset {types['int']}, primary key (topic, part)"),
                (
                    "_replica_guards",
                    f"source {types['text']}, key {types['bytes']}, lsn {types['int']}, commit_lsn {types['int']}, {extra}",
                ),
                ("_replica_truncates", f"source {types['text']} primary key, lsn {types['int']}, commit_lsn {types['int']}"),
            ):
                database.execute(f"create table if not exists {database.name(name)} ({columns})")
        self._columns: dict[str, dict[str, Column]] = {}

    def positions(self) -> dict[TopicPartition, int]:
        """Return the next offset of each partition that has been applied."""
        rows = self._db.execute(f"select topic, part, next_offset from {self._db.name('_replica_offsets')}")
        return {TopicPartition(topic, part): offset for topic, part, offset in rows}

    def apply(self, batches: Iterable[Batch]) -> int:
        """Apply batches and their offsets in one transaction; return the number of changes that were no replays.

        Raises:
            RecordError: A change of a table without primary key.
        """
        applied = 0
        with self._db.transaction():
            self._columns.clear()
            for batch in batches:
                applied += self._apply_batch(batch)
                self._db.replace(
                    "_replica_offsets",
                    {"topic": "text", "part": "int", "next_offset": "int"},
                    ("topic", "part"),
                    [(batch.partition.topic, batch.partition.partition, batch.next_offset)],
                )
        return applied

    def _apply_batch(self, batch: Batch) -> int:
        work, applied = _Work(), 0
        truncated = self._truncated(batch.table)
        self._load_guards(batch.table, batch.changes, work)
        for change in batch.changes:
            if change.op is Op.MESSAGE:
                continue
            if change.op is Op.TRUNCATE:
                self._write(batch.table, work)
                applied += self._truncate(batch.table, change.position, truncated)
                truncated, work = self._truncated(batch.table), _Work()
                self._load_guards(batch.table, batch.changes, work)
            else:
                applied += self._apply_change(batch.table, change, truncated, work)
        self._write(batch.table, work)
        return applied

    def _apply_change(self, table: str, change: Change[dict[str, Any]], truncated: Position, work: _Work) -> int:
        if change.key is None:
            raise RecordError(f"table {table!r} has no primary key: it cannot be replicated row by row")
        key = _pack_key(change.key)
        if change.unavailable or change.new_key is not None:
            self._load_row(table, key, change.key, work)
        departed = None
        if change.unavailable and change.old_key is not None:
            old = _pack_key(change.old_key)
            self._load_row(table, old, change.old_key, work)
            departed = work.stored.get(old)
        stored = work.stored.get(key)
        outcome = apply(stored, change, truncated=truncated, departed=departed)
        if outcome.is_replay:
            return 0
        work.stored[key] = outcome.stored
        work.known_rows.add(key)
        work.touched[key] = change.key
        return 1

    # -- guards

    def _load_guards(self, table: str, changes: Sequence[Change[dict[str, Any]]], work: _Work) -> None:
        keys = {_pack_key(key) for change in changes for key in (change.key, change.old_key) if key is not None}
        found = self._db.select("_replica_guards", _GUARD_COLUMNS[1:], {"key": sorted(keys)}, source=table)
        for key, lsn, commit_lsn, extra in found:
            more = _Extra() if extra is None else msgspec.msgpack.decode(bytes(extra), type=_Extra)
            departed = None if more.departed is None else _packing.decode(more.departed)[0]
            work.stored[bytes(key)] = Stored(None, Position(commit_lsn, lsn), more.missing, departed)
            work.existing.add(bytes(key))

    def _load_row(self, table: str, key: bytes, columns: dict[str, Any], work: _Work) -> None:
        """Read the stored row of a key whose old values are needed."""
        if key in work.known_rows or key not in work.existing:
            return
        work.known_rows.add(key)
        names = list(self._columns_of(table))
        rows = self._db.select(table, names, {name: [value] for name, value in columns.items()}) if names else []
        if rows:
            stored = work.stored[key]
            work.stored[key] = Stored(dict(zip(names, rows[0], strict=True)), stored.position, stored.missing, stored.departed)

    def _write(self, table: str, work: _Work) -> None:
        """Write what the changes came to: rows that changed are replaced as a whole."""
        if not work.touched:
            return
        gone = [columns for key, columns in work.touched.items() if key in work.existing]
        if gone:
            self._delete(table, gone)
        rows = [row for key in work.touched if (row := work.stored[key].row) is not None]
        if rows:
            columns = self._fit_columns(table, rows, list(next(iter(work.touched.values()))))
            self._db.insert(table, columns, [tuple(row.get(name) for name in columns) for row in rows])
        guards = [(table, key, *_guard_of(work.stored[key])) for key in work.touched]
        kinds: dict[str, Column] = {"source": "text", "key": "bytes", "lsn": "int", "commit_lsn": "int", "extra": "bytes"}
        self._db.replace("_replica_guards", kinds, ("source", "key"), guards, fresh=not gone)

    def _delete(self, table: str, keys: Sequence[dict[str, Any]]) -> None:
        if self._columns_of(table):
            self._db.delete(table, {name: [key[name] for key in keys] for name in keys[0]})

    # -- truncates

    def _truncated(self, table: str) -> Position:
        rows = self._db.select("_replica_truncates", ("lsn", "commit_lsn"), {}, source=table)
        return Position(rows[0][1], rows[0][0]) if rows else NOWHERE

    def _truncate(self, table: str, position: Position, truncated: Position) -> int:
        if 0 < position.lsn <= truncated.lsn:
            return 0
        kinds: dict[str, Column] = {"source": "text", "lsn": "int", "commit_lsn": "int"}
        self._db.replace("_replica_truncates", kinds, ("source",), [(table, position.lsn, position.commit_lsn)])
        guards = self._db.select("_replica_guards", ("key", "lsn", "commit_lsn"), {}, source=table)
        behind = [_packing.decode(bytes(key))[0] for key, lsn, commit in guards if is_behind(Position(commit, lsn), position)]
        if behind:
            self._delete(table, behind)
        return 1

    # -- columns

    def _columns_of(self, table: str) -> dict[str, Column]:
        if table not in self._columns:
            self._columns[table] = self._db.columns(table)
        return self._columns[table]

    def _fit_columns(self, table: str, rows: Sequence[dict[str, Any]], key: Sequence[str]) -> dict[str, Column]:
        """Make the table's columns such that rows fit into them, and return those that the rows have."""
        wanted: dict[str, Column | None] = {}
        for row in rows:
            for name, value in row.items():
                if value is not None:
                    kind, known = column_of(value), wanted.get(name)
                    wanted[name] = kind if known is None else widened(known, kind)
                elif name not in wanted:
                    wanted[name] = None
        present = self._columns_of(table)
        if not present:
            self._db.create(table, {name: kind or "text" for name, kind in wanted.items()}, key)
        for name, needed in wanted.items() if present else ():
            if name not in present:
                self._db.add_column(table, name, needed or "text")
            elif needed is not None and needed != present[name]:
                # A column without a value so far has no type yet.
                wider = widened(present[name], needed) if self._db.has_values(table, name) else needed
                if wider != present[name]:
                    self._db.retype(table, name, wider)
        self._columns.pop(table, None)
        now = self._columns_of(table)
        return {name: now[name] for name in wanted}


def _pack_key(columns: dict[str, Any]) -> bytes:
    return _packing.encode((columns,))


def _guard_of(stored: Stored[dict[str, Any]]) -> tuple[int, int, bytes | None]:
    extra = None
    if stored.missing or stored.departed is not None:
        departed = None if stored.departed is None else _packing.encode((stored.departed,))
        extra = msgspec.msgpack.encode(_Extra(stored.missing, departed))
    return stored.position.lsn, stored.position.commit_lsn, extra


__all__ = ["Batch", "Replica"]
