"""A copy of source tables in another database: rows, guards and offsets in one transaction of that database.

    replica = Replica(open_database("postgresql://…/shop", schema="copy"))
    position = replica.positions()                                  where to read on
    replica.apply([Batch("users", changes, topic, partition, next_offset)])

**Exactly once.** The offsets up to which the topics have been applied are committed together with the rows, so after a crash the
worker reads on exactly there. What Connect itself repeats is caught by the position of the last change of each key, which is kept
beyond the row's deletion, as in the engine's tables; what a change does to a row is decided by the same function (`cdc.apply`).
A batch of changes that only bring whole rows or take them away is reckoned at once (`cdc.net`), with the same outcome.

**A snapshot taken anew** (Connect was killed during the first one, or told to) makes no deletes of rows that have gone meanwhile: at
its end the rows that it has not read again go, as in the engine's tables.

**Columns** come as they come: a table is made from the first row, a new column is added when a row brings it, and a column whose
values change their type is widened (int to numeric to double, anything to text). A column that is no longer written is null.
A numeric that a database cannot hold as one (NaN or 30 digits in DuckDB) makes its column text rather than another number.

Beside the copies the schema holds `_replica_offsets`, `_replica_guards` and `_replica_truncates`.

Limits: tables need a primary key. Columns have the type that their values show, not the source's constraints, defaults and indexes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import msgspec
from msgspec import Struct

from cdc.apply import NOWHERE, Stored, apply, fill, goes_with, is_behind, place_of
from cdc.change import Change, Op, Position
from cdc.database import Column, Database, kind_of, widened
from cdc.net import net_of
from cdc.packing import row_codec
from cdc.replica_keys import fitting_keys
from engine.errors import RecordError
from engine.records import TopicPartition

_packing = row_codec(dict)(tuple[dict[str, Any]])
_pack = msgspec.msgpack.Encoder().encode
_SMALL = 1 << 63
_GUARDS: dict[str, Column] = {"source": "text", "key": "bytes", "lsn": "int", "commit_lsn": "int", "extra": "bytes"}
_OFFSETS: dict[str, Column] = {"topic": "text", "part": "int", "next_offset": "int"}


class _Extra(Struct, frozen=True, array_like=True):
    """What is seldom kept of a key: columns that nobody knows, the row that a key change took away, and how such rows have moved."""

    missing: tuple[str, ...] = ()
    departed: bytes | None = None
    moved_at: int = 0
    gone_at: int = 0
    gone_to: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Move:
    """How a row whose columns are missing moves through keys: the LSN at which it came here, that at which it left, and to where."""

    moved_at: int = 0
    gone_at: int = 0
    gone_to: dict[str, Any] | None = None


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
    moves: dict[bytes, _Move] = field(default_factory=dict)
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
        tables: dict[str, list[Change[dict[str, Any]]]] = {}
        offsets: dict[TopicPartition, int] = {}
        for batch in batches:  # tables know nothing of each other, so the changes of one are applied together
            tables.setdefault(batch.table, []).extend(batch.changes)
            offsets[batch.partition] = batch.next_offset
        with self._db.transaction():
            self._columns.clear()
            applied = sum(self._apply_table(table, changes) for table, changes in tables.items())
            if offsets:
                topics, numbers = [place.topic for place in offsets], [place.partition for place in offsets]
                self._db.replace("_replica_offsets", _OFFSETS, ("topic", "part"), [topics, numbers, list(offsets.values())])
        return applied

    def _apply_table(self, table: str, changes: Sequence[Change[dict[str, Any]]]) -> int:
        work, truncated = _Work(), self._truncated(table)
        changes = fitting_keys(table, changes, lambda: self._columns_of(table))
        self._load_guards(table, _keys_of(changes), work)
        net = net_of(changes, work.stored, truncated, _pack_key)
        if net is None:
            return self._apply_carefully(table, changes, work, truncated)
        count = len(net.keys)
        guards: list[list[Any]] = [[table] * count, list(net.keys), net.lsns, net.commit_lsns, [None] * count]
        self._write(table, net.keys, work.existing, net.rows, guards)
        return net.applied

    def _apply_carefully(self, table: str, changes: Sequence[Change[dict[str, Any]]], work: _Work, truncated: Position) -> int:
        """Apply changes one by one."""
        applied = 0
        for change in changes:
            if change.op is Op.MESSAGE:
                continue
            if change.op is not Op.TRUNCATE:
                applied += self._apply_change(table, change, truncated, work)
            if change.op is Op.TRUNCATE or change.ends_snapshot:
                self._write_work(table, work)
                gone = self._truncate(table, place_of(change), truncated)
                applied += gone if change.op is Op.TRUNCATE else 0
                truncated, work = self._truncated(table), _Work()
                self._load_guards(table, _keys_of(changes), work)
        self._write_work(table, work)
        return applied

    def _apply_change(self, table: str, change: Change[dict[str, Any]], truncated: Position, work: _Work) -> int:
        if change.key is None:
            raise RecordError(f"table {table!r} has no primary key: it cannot be replicated row by row")
        key = _pack_key(change.key)
        if change.new_key is not None or (change.unavailable and change.op is not Op.DELETE):
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
        self._move(table, key, change, work)
        return 1

    # -- key changes

    def _move(self, table: str, key: bytes, change: Change[dict[str, Any]], work: _Work) -> None:
        """Note where a row with missing columns came from and went to; hand one that leaves to the row under its new key.

        The create under the new key may have been read first, in another partition: then it waits for values that did not change.
        """
        stored, lsn = work.stored[key], change.position.lsn
        if not stored.missing and change.new_key is None:
            work.moves.pop(key, None)
            return
        moved_at = lsn if change.old_key is not None else work.moves.get(key, _Move()).moved_at
        work.moves[key] = _Move(moved_at) if change.new_key is None else _Move(moved_at, lsn, change.new_key)
        if change.new_key is not None:
            self._hand_over(table, stored, work.moves[key], work)
            if not stored.missing:
                work.moves.pop(key)

    def _hand_over(self, table: str, left: Stored[dict[str, Any]], move: _Move, work: _Work) -> None:
        """Fill what is missing of a row that has moved from the row that has left, also where it has moved on since."""
        while move.gone_to is not None:
            key = _pack_key(move.gone_to)
            if key not in work.stored:
                self._load_guards(table, [move.gone_to], work)
            self._load_row(table, key, move.gone_to, work)
            stored, onward = work.stored.get(key), work.moves.get(key, _Move())
            if stored is None or not stored.missing or move.gone_at not in (0, onward.moved_at):
                return
            known = stored.departed if stored.row is None else stored.row
            row, missing = fill(Change(op=Op.UPDATE, after=known, unavailable=stored.missing), Stored(), left)
            here = stored.row is not None
            work.stored[key] = Stored(row if here else None, stored.position, missing, stored.departed if here else row)
            work.touched[key] = move.gone_to
            move = onward

    # -- guards

    def _load_guards(self, table: str, columns: Iterable[dict[str, Any]], work: _Work) -> None:
        keys = set(map(_pack_key, columns))
        found = self._db.select("_replica_guards", list(_GUARDS)[1:], {"key": sorted(keys)}, source=table) if keys else []
        for key, lsn, commit_lsn, extra in found:
            more = _Extra() if extra is None else msgspec.msgpack.decode(bytes(extra), type=_Extra)
            departed = None if more.departed is None else _packing.decode(more.departed)[0]
            work.stored[bytes(key)] = Stored(None, Position(commit_lsn, lsn), more.missing, departed)
            work.existing.add(bytes(key))
            if more.moved_at or more.gone_to is not None:
                gone_to = None if more.gone_to is None else _packing.decode(more.gone_to)[0]
                work.moves[bytes(key)] = _Move(more.moved_at, more.gone_at, gone_to)

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

    def _write_work(self, table: str, work: _Work) -> None:
        """Write what the changes came to."""
        rows = [row for key in work.touched if (row := work.stored[key].row) is not None]
        guards = zip(*((table, key, *_guard_of(work.stored[key], work.moves.get(key, _Move()))) for key in work.touched), strict=True)
        self._write(table, work.touched, work.existing, rows, list(guards))

    def _write(
        self,
        table: str,
        touched: Mapping[bytes, dict[str, Any]],
        existing: set[bytes],
        rows: Sequence[dict[str, Any]],
        guards: Sequence[Sequence[Any]],
    ) -> None:
        """Replace rows that changed as a whole, and their guards (columns of `_GUARDS`)."""
        if not touched:
            return
        gone = [columns for key, columns in touched.items() if key in existing] if existing else []
        if gone:
            self._delete(table, gone)
        if rows:
            columns, values = self._fit_columns(table, rows, list(next(iter(touched.values()))))
            self._db.insert(table, columns, values)
        self._db.replace("_replica_guards", _GUARDS, ("source", "key"), guards, fresh=not gone)

    def _delete(self, table: str, keys: Sequence[dict[str, Any]]) -> None:
        if self._columns_of(table):
            self._db.delete(table, {name: [key[name] for key in keys] for name in keys[0]})

    # -- truncates

    def _truncated(self, table: str) -> Position:
        rows = self._db.select("_replica_truncates", ("lsn", "commit_lsn"), {}, source=table)
        return Position(rows[0][1], rows[0][0]) if rows else NOWHERE

    def _truncate(self, table: str, position: Position, truncated: Position) -> int:
        """Remove the rows from before a truncate, or from before a whole snapshot that has not read them again.

        The first snapshot finds none, and then it is no guard: what a transaction across it wrote may have a lower LSN.
        """
        if position.lsn and (position == truncated or is_behind(position, truncated)):
            return 0
        guards = self._db.execute(
            f"select key, lsn, commit_lsn from {self._db.name('_replica_guards')} where source = ? and lsn < ?",
            (table, max(position.commit_lsn, position.lsn)),
        )
        behind = [_packing.decode(bytes(key))[0] for key, lsn, commit in guards if goes_with(Position(commit, lsn), position)]
        if behind or position.commit_lsn:
            kinds: dict[str, Column] = {"source": "text", "lsn": "int", "commit_lsn": "int"}
            self._db.replace("_replica_truncates", kinds, ("source",), [[table], [position.lsn], [position.commit_lsn]])
        if behind:
            self._delete(table, behind)
        return 1

    # -- columns

    def _columns_of(self, table: str) -> dict[str, Column]:
        if table not in self._columns:
            self._columns[table] = self._db.columns(table)
        return self._columns[table]

    def _fit_columns(self, table: str, rows: Sequence[dict[str, Any]], key: Sequence[str]) -> tuple[dict[str, Column], list[Sequence[Any]]]:
        """Make the table's columns such that rows fit into them; return those that the rows have, and their values."""
        values = _columns_of_rows(rows)
        wanted = {name: self._kind_of(column) for name, column in values.items()}
        present = self._columns_of(table)
        if not present:
            self._db.create(table, {name: kind or "text" for name, kind in wanted.items()}, key)
        changed = not present
        for name, needed in wanted.items() if present else ():
            if name not in present:
                self._db.add_column(table, name, needed or "text")
                changed = True
            elif needed is not None and needed != present[name]:
                # A column without a value so far has no type yet.
                wider = widened(present[name], needed) if self._db.has_values(table, name) else needed
                if wider != present[name]:
                    self._db.retype(table, name, wider)
                    changed = True
        if changed:
            self._columns.pop(table, None)
        now = self._columns_of(table)
        return {name: now[name] for name in wanted}, list(values.values())

    def _kind_of(self, values: Sequence[Any]) -> Column | None:
        kind = kind_of(values)
        return "text" if kind == "numeric" and not self._db.holds_numerics(values) else kind


def _columns_of_rows(rows: Sequence[dict[str, Any]]) -> dict[str, Sequence[Any]]:
    """Return the values of each column, None where a row does not have it."""
    names = list(rows[0])
    if len(names) > 1 and all(len(row) == len(names) for row in rows):
        try:
            return dict(zip(names, zip(*map(itemgetter(*names), rows), strict=True), strict=True))
        except KeyError:
            pass
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}


def _pack_key(columns: dict[str, Any]) -> bytes:
    for value in columns.values():
        kind = type(value)
        if kind is not str and (kind is not int or not -_SMALL < value < _SMALL):
            return _packing.encode((columns,))
    return _pack((columns,))  # the same bytes, since these are as MessagePack knows them


def _keys_of(changes: Sequence[Change[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    for change in changes:
        for key in (change.key, change.old_key, change.new_key):
            if key is not None:
                yield key


def _guard_of(stored: Stored[dict[str, Any]], move: _Move) -> tuple[int, int, bytes | None]:
    extra = None
    if stored.missing or stored.departed is not None:
        departed = None if stored.departed is None else _packing.encode((stored.departed,))
        gone_to = None if move.gone_to is None else _pack_key(move.gone_to)
        extra = msgspec.msgpack.encode(_Extra(stored.missing, departed, move.moved_at, move.gone_at, gone_to))
    return stored.position.lsn, stored.position.commit_lsn, extra


__all__ = ["Batch", "Replica"]
