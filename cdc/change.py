"""Change events: what happened to one row of a source table, where in the database's log, and in which transaction.

    Change(op=Op.UPDATE, key={"id": 1}, before=None, after=User(id=1, ...), position=Position(commit_lsn, lsn), ...)

**Position.** PostgreSQL gives changes out in commit order, but a change has the LSN at which it was written, so LSNs go back and
forth within a partition. `Position` compares (LSN of the last commit before, LSN) and never goes back, except on a replay. It does
not identify a change: a key change gives a delete and a create at one position. (topic, key, position, op) does.

**Unavailable columns.** `unavailable` names the columns of `after` (of `before` for a delete) whose value is not what the database
holds: unchanged TOAST values, and everything but the key in the `before` of a delete under REPLICA IDENTITY DEFAULT, which Debezium
fills with nulls, zeros and column defaults. They are None in the row, or an empty value where the type of the row has no None.

Sources: Debezium documentation, "Debezium connector for PostgreSQL", sections "Data change events" and "Transaction metadata".
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Generic, TypeVar

from msgspec import Struct

Row = TypeVar("Row")
Payload = TypeVar("Payload")


class Op(StrEnum):
    """What happened; the values are Debezium's letters."""

    READ = "r"
    CREATE = "c"
    UPDATE = "u"
    DELETE = "d"
    TRUNCATE = "t"
    MESSAGE = "m"


class Position(Struct, frozen=True, order=True):
    """A place in the source's log: LSN of the last commit before it, and its own; 0 for what is not known.

    `to_bytes` is for stores: the bytes compare as the positions do.
    """

    commit_lsn: int = 0
    lsn: int = 0

    def to_bytes(self) -> bytes:
        """Return 16 bytes in the same order as positions."""
        return self.commit_lsn.to_bytes(8, "big") + self.lsn.to_bytes(8, "big")

    @classmethod
    def from_bytes(cls, raw: bytes) -> "Position":
        """Return the position that `to_bytes` stored."""
        return cls(int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:16], "big"))


class Transaction(Struct, frozen=True):
    """The source transaction of a change; the orders are known only with `provide.transaction.metadata`.

    `id` is PostgreSQL's number. Debezium's own id has the LSN of each record behind it, so it differs within one transaction.
    """

    id: int
    order: int | None = None
    table_order: int | None = None


class Message(Struct, frozen=True):
    """A message written with `pg_logical_emit_message`. One outside a transaction comes even if the sender rolls back."""

    prefix: str
    content: bytes


class Change(Struct, Generic[Row], frozen=True, kw_only=True):
    """One change of a row of type Row.

    Attributes:
        key: Columns of the key with their values; None for a table without a primary key, a truncate and a message.
        before: The row before an update or delete, as far as the replica identity gives it; see `unavailable` for deletes.
        after: The row after a create, update or snapshot read.
        transaction: None for snapshot reads of an incremental snapshot and messages outside a transaction.
        source_ms: When the database did it (of an unwrapped row that does not say so, when Connect wrote it); `captured_ms`: when
            Debezium handled it (differs on a replay).
        snapshot: Debezium's mark of a snapshot read ("first", "true", "last", "incremental" ...), None for a streamed change.
        old_key: Where this create is the second half of a key change: the key before. `new_key`: of its delete, the key after.
        run: Tells one run of the connector from another; read only where there is no key.
        schema_version: Tells rows of one shape from another: the writer's schema id, or a checksum of an inline schema.
    """

    op: Op
    key: dict[str, Any] | None = None
    before: Row | None = None
    after: Row | None = None
    position: Position = Position()
    transaction: Transaction | None = None
    source_ms: int | None = None
    captured_ms: int | None = None
    database: str | None = None
    schema: str | None = None
    table: str | None = None
    snapshot: str | None = None
    unavailable: tuple[str, ...] = ()
    old_key: dict[str, Any] | None = None
    new_key: dict[str, Any] | None = None
    message: Message | None = None
    run: str | None = None
    schema_version: int | None = None

    @staticmethod
    def stream_to_table(stream: Any, name: str, versions_ms: int | None, upgrade: Callable[[Any], Any] | None = None) -> Any:
        """Return the table of the rows that changes are about; `Stream.table` calls it. See `cdc.tables`."""
        from cdc.tables import table_of_changes

        return table_of_changes(stream, name, versions_ms, upgrade)

    @property
    def row(self) -> Row | None:
        """The row that this change is about: after, or before where there is no after."""
        return self.before if self.after is None else self.after

    @property
    def ends_snapshot(self) -> bool:
        """Whether this is the last row of its table that a whole snapshot reads."""
        return self.op is Op.READ and self.snapshot in ("last", "last_in_data_collection")


class Heartbeat(Struct, frozen=True):
    """Debezium is alive and has read the log up to this time."""

    server: str | None
    source_ms: int


class TransactionMark(Struct, frozen=True):
    """A record of the transaction topic: a transaction begins or ends.

    BEGIN and END may lie in different partitions of the topic. `events` and `tables` (name and number of changes, by name) are
    known at the end.
    """

    id: int
    is_end: bool
    source_ms: int | None
    events: int | None = None
    tables: dict[str, int] | None = None


class OutboxEvent(Struct, Generic[Payload], frozen=True):
    """A domain event from an outbox table, routed by Debezium's Outbox Event Router.

    Attributes:
        id: Unique id of the event, for consumers that must not take it twice.
        aggregate_id: Key of the record.
        payload: None is a real null payload. With `table.expand.json.payload` Debezium drops fields that are null.
        fields: Further columns that the router put beside the payload.
    """

    id: str | None
    aggregate_id: str | None
    type: str | None
    payload: Payload | None
    headers: dict[str, str] = {}
    fields: dict[str, Any] = {}
