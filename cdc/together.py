"""`transactions(marks, tables, limit=)`: the changes of one database transaction, together, complete and in order.

    marks = app.source("pg.transaction", codec=transaction_marks())

    @app.pipeline(marks, accounts, ledger)
    def transfers(marks, accounts, ledger) -> Sink:
        tables = {"public.accounts": accounts, "public.ledger": ledger}
        return transactions(marks, tables, limit="30s").map(as_transfer).to("transfers")

    END of 976: ledger 2, accounts 2      ─┐
    accounts 1, 3 of 976                   ├─► Together(id=976, changes=[1, 2, 3, 4], is_complete=True)
    ledger 2, 4 of 976                    ─┘

The connector needs `provide.transaction.metadata=true`. What belongs together is told by PostgreSQL's number of the transaction (Debezium's
own id differs within one), and what is complete by the counts in its END mark, of the tables that are given here. Rolled-back
and empty transactions leave nothing; snapshot reads belong to none and are left out. What the connector repeats counts once.

A transaction that is not complete when event time has passed its first record by the limit is given out as it is, with
`is_complete=False`; what comes of it later follows in further ones. Event time waits for the slowest partition of all topics, so one
that only lags makes nothing incomplete.
"""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from msgspec import Struct

from cdc.change import Change, Op, Position, Transaction, TransactionMark
from cdc.packing import row_codec
from engine.durations import Duration, duration_ms
from engine.errors import ConfigError, RecordError
from engine.operators.process import Context, Timer
from engine.records import Record
from engine.state_handles import MapState, ValueState
from engine.stream import Stream
from state.values import PayloadCodec

_keys = row_codec(dict)(tuple[dict[str, Any] | None, dict[str, Any] | None, dict[str, Any] | None])
_TTL = "7d"


class Together(Struct, frozen=True):
    """The changes of one transaction of the source database.

    Attributes:
        id: PostgreSQL's number of the transaction.
        changes: In the order in which they were made.
        is_complete: All changes of the given tables are here; False once the limit has passed without them.
        missing: How many changes are not here, by table; empty also if the end of the transaction was not seen.
    """

    id: int
    changes: tuple[Change[Any], ...]
    is_complete: bool
    missing: dict[str, int] = {}


class Part(Struct, frozen=True, array_like=True):
    """A change of a transaction, or the mark of its end, on the way to where they meet; rows and keys as bytes."""

    id: int
    order: int = 0
    table: str = ""
    table_order: int = 0
    counts: dict[str, int] | None = None
    op: Op = Op.READ
    position: Position = Position()
    keys: bytes = b""
    before: bytes | None = None
    after: bytes | None = None
    unavailable: tuple[str, ...] = ()
    source_ms: int | None = None


def transactions(
    marks: Stream[Any, TransactionMark],
    tables: Mapping[str, Stream[Any, Any]],
    *,
    limit: Duration = "1m",
    name: str = "transactions",
) -> Stream[int, Together]:
    """Return the transactions that changed the given tables.

    Args:
        marks: The connector's transaction topic.
        tables: Streams of changes, by schema and table ("public.orders").
        limit: How far event time may pass a transaction that is not complete.
        name: Names the state.

    Raises:
        ConfigError: A stream that is not one of changes, or no table at all.
    """
    what = marks._what(name)
    limit_ms = duration_ms(limit, f"limit of {what}", minimum_ms=1)
    if not tables:
        raise ConfigError(f"{what}: give the streams of at least one table, such as {{'public.orders': orders}}")
    codecs: dict[str, PayloadCodec[Any]] = {}
    streams: list[Stream[int, Part]] = [marks.flat_map(_end_of).key_by(_id_of)]
    for table, stream in tables.items():
        arguments = get_args(getattr(stream, "_value_type", None))
        if not arguments or not isinstance(stream, Stream) or "." not in table:
            raise ConfigError(f"{what}: {table!r}: {stream!r} is not a table by schema and name with its stream of changes")
        codecs[table] = row_codec(arguments[0])(tuple.__class_getitem__((arguments[0],)))
        streams.append(stream.flat_map(_parts_of(table, codecs[table])).key_by(_id_of))
    merged: Stream[int, Part] = streams[0].merge(*streams[1:])
    return merged.process(_grouping(codecs, limit_ms), name=name)


def _id_of(part: Part) -> int:
    return part.id


def _end_of(mark: TransactionMark) -> Iterator[Part]:
    if mark.is_end:
        yield Part(mark.id, counts=mark.tables or {})


def _parts_of(table: str, codec: PayloadCodec[Any]) -> Any:
    def parts(change: Change[Any]) -> Iterator[Part]:
        if change.op is Op.READ or (change.op is Op.MESSAGE and change.transaction is None):
            return
        transaction = change.transaction
        if transaction is None or transaction.order is None or transaction.table_order is None:
            raise RecordError("the change does not say its place in its transaction; set provide.transaction.metadata=true")
        yield Part(
            transaction.id,
            transaction.order,
            table,
            transaction.table_order,
            None,
            change.op,
            change.position,
            _keys.encode((change.key, change.old_key, change.new_key)),
            None if change.before is None else codec.encode((change.before,)),
            None if change.after is None else codec.encode((change.after,)),
            change.unavailable,
            change.source_ms,
        )

    return parts


def _grouping(codecs: Mapping[str, PayloadCodec[Any]], limit_ms: int) -> type[Any]:
    """Return the class that collects the parts of each transaction."""

    class Transactions:
        parts = MapState(int, Part)
        counts = ValueState(dict[str, int])
        given = ValueState(dict[str, int], ttl=_TTL)  # orders and numbers by table that have been given out; "complete" at the end
        started = ValueState(bool, default=False)

        def on_record(self, record: Record[int, Part], ctx: Context) -> Iterator[Together]:
            part = record.value
            given = self.given.get() or {}
            if "complete" in given or str(part.order) in given:
                return
            if part.counts is not None:
                self.counts.set({table: number for table, number in part.counts.items() if table in codecs})
            else:
                self.parts[part.order] = part
            missing = _missing(self.counts.get(), self.parts, given)
            if missing is not None and not missing:
                if len(self.parts) or given:
                    yield self._together(ctx, is_complete=not given, missing={})
                self._forget({"complete": 1})
                ctx.timers.cancel("limit")
            elif not self.started.get():
                self.started.set(True)
                ctx.timers.event_time(ctx.timestamp_ms + limit_ms, "limit")

        def on_timer(self, timer: Timer, ctx: Context) -> Iterator[Together]:
            given = self.given.get() or {}
            if len(self.parts):
                yield self._together(ctx, is_complete=False, missing=_missing(self.counts.get(), self.parts, given) or {})
            for order, part in self.parts.items():
                given = {**given, str(order): 1, part.table: given.get(part.table, 0) + 1}
            counts = self.counts.get()
            self._forget(given)
            if counts is not None:
                self.counts.set(counts)

        def _together(self, ctx: Context, *, is_complete: bool, missing: dict[str, int]) -> Together:
            changes = [_change_of(part, codecs[part.table], ctx.key) for _, part in sorted(self.parts.items())]
            return Together(ctx.key, tuple(changes), is_complete, missing)

        def _forget(self, given: dict[str, int]) -> None:
            self.parts.clear()
            self.counts.clear()
            self.started.clear()
            if given:
                self.given.set(given)

    return Transactions


def _missing(counts: Mapping[str, int] | None, parts: Mapping[int, Part], given: Mapping[str, int]) -> dict[str, int] | None:
    """Return how many changes of each table have not come, None as long as the end has not come."""
    if counts is None:
        return None
    here = dict(given)
    for part in parts.values():
        here[part.table] = here.get(part.table, 0) + 1
    return {table: number - here.get(table, 0) for table, number in counts.items() if number > here.get(table, 0)}


def _change_of(part: Part, codec: PayloadCodec[Any], transaction_id: int) -> Change[Any]:
    key, old_key, new_key = _keys.decode(part.keys)
    schema, _, table = part.table.rpartition(".")
    return Change(
        op=part.op,
        key=key,
        before=None if part.before is None else codec.decode(part.before)[0],
        after=None if part.after is None else codec.decode(part.after)[0],
        position=part.position,
        transaction=Transaction(transaction_id, part.order, part.table_order),
        source_ms=part.source_ms,
        schema=schema,
        table=table,
        unavailable=part.unavailable,
        old_key=old_key,
        new_key=new_key,
    )


__all__ = ["Together", "transactions"]
