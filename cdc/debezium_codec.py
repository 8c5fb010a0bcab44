"""`debezium(Row)`: the codec of a source whose topic Debezium writes.

    users = app.source("pg.public.users", codec=debezium(User), key="id")        # Stream[int, Change[User]]
    users = app.source("pg.public.users", codec=debezium(dict, registry=registry), key="id")

Every record is looked at by itself: JSON with and without schemas, Avro in either framing, envelopes and the unwrapped form may be
mixed in one topic, as they are after a connector's settings were changed.

Tombstones and heartbeats are skipped: they say nothing about a row that the record before did not say. A transaction mark or any
other record is refused with its reason. What a source of heartbeats, transaction marks or outbox events is for: `cdc.other_codecs`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date, time
from typing import Any, Generic, Literal, Protocol, TypeVar, get_args, runtime_checkable
from uuid import UUID

import msgspec

from cdc.change import Change, Message, Op
from cdc.change_keys import ChangeKeys
from cdc.encoding import encode_change
from cdc.envelopes import (
    SHAPE_ERRORS,
    Envelope,
    envelope_of,
    header,
    header_text,
    heartbeat_of,
    position_of,
    transaction_mark_of,
    transaction_of,
)
from cdc.fitting import FIT_ERRORS, Declared
from cdc.framing import FoundSchemas, Opener, Payload, Schemas, StoredSchemas, unknown_ids
from cdc.rows import PLACEHOLDER, RowType
from cdc.scalars import to_bytes
from cdc.unwrapped import Unwrapped, UnwrappedForm
from cdc.values import Encoded
from engine.codecs import Decoded
from engine.errors import ConfigError, RecordError
from engine.records import Headers, RecordBatch
from engine.selectors import Compiled, compile_selector

R = TypeVar("R")
Binary = Literal["base64", "base64-url-safe", "hex"]

_OPS = {op.value: op for op in Op}


@runtime_checkable
class Fetches(Protocol):
    """Schemas that come over the network: they are fetched before a batch is decoded."""

    async def fetch_ids(self, ids: Sequence[int]) -> None:
        """Make the schemas of these ids available. Raises UnavailableError if the registry does not answer."""
        ...


def debezium(
    row_type: type[R],
    *,
    registry: Schemas | Mapping[int, Any] | Callable[[int], Any] | None = None,
    columns: Mapping[str, Any] | None = None,
    unwrapped: bool | Unwrapped | None = None,
    replica_identity: Literal["default", "full"] = "default",
    placeholder: str = PLACEHOLDER,
    never_set_null: Collection[str] = (),
    binary: Binary | None = None,
    id_bytes: Literal[4, 8] = 4,
    key_column: str | None = None,
) -> "DebeziumCodec[R]":
    """Return the codec of a topic of Debezium's, with rows of a Struct or as dicts.

    Args:
        row_type: A Struct with the columns of interest, or dict for all of them.
        registry: Where Avro schemas come from by id: a registry client, a mapping, or a function.
        columns: Types for columns of dict rows, such as {"amount": Annotated[Decimal, Scale(2)]}.
        unwrapped: Records are plain rows (ExtractNewRecordState), even those that carry no sign of it, and a tombstone deletes.
            None takes for plain rows only those with `__deleted` in the row or `__op` in a header: these tell deletes. Where the connector
            names added fields otherwise: `Unwrapped` with its settings.
        replica_identity: Of the table. Under "default" everything but the key in `before` of a delete counts as unavailable.
        placeholder: `unavailable.value.placeholder` of the connector.
        never_set_null: Columns that are never set to null and whose types Debezium has no placeholder for (numeric, numeric[],
            double precision[], timestamptz[], bytea as text): a null in an update is then a long value that was not changed.
        binary: `binary.handling.mode` of the connector where it is not "bytes", for the contents of logical messages; columns say it
            themselves (`Encoded`).
        id_bytes: Length of schema ids in front of Avro records.
        key_column: The column that is the whole key of a record, where the connector extracts it (ExtractField$Key).
    """
    if replica_identity not in ("default", "full"):
        raise ConfigError(f"debezium: replica_identity={replica_identity!r} is not known; use 'default' or 'full'")
    if id_bytes not in (4, 8):
        raise ConfigError(f"debezium: id_bytes={id_bytes!r}; ids have 4 bytes, or 8 in Apicurio's own framing")
    if binary not in (None, *get_args(Binary)):
        raise ConfigError(f"debezium: binary={binary!r} is not known; use one of {', '.join(map(repr, get_args(Binary)))}")
    if isinstance(never_set_null, str):
        raise ConfigError(f"debezium: never_set_null={never_set_null!r}; give the columns as a list")
    rows, full = RowType(row_type, columns, placeholder, never_set_null), replica_identity == "full"
    return DebeziumCodec(rows, schemas_of(registry), unwrapped, full, None if binary is None else Encoded(binary), id_bytes, key_column)


def schemas_of(registry: Schemas | Mapping[int, Any] | Callable[[int], Any] | None) -> Schemas | None:
    """Return where schemas come from, from one of the forms in which it may be given."""
    if registry is None or hasattr(registry, "schema"):
        return registry
    if isinstance(registry, Mapping):
        return StoredSchemas(registry)
    if callable(registry):
        return FoundSchemas(registry)
    raise ConfigError(f"registry={registry!r} is neither a registry nor a mapping nor a function from an id to a schema")


class DebeziumCodec(Generic[R]):
    """Codec of change events; see `debezium`."""

    def __init__(
        self,
        rows: RowType,
        schemas: Schemas | None,
        unwrapped: bool | Unwrapped | None,
        full: bool,
        binary: Encoded | None,
        id_bytes: int,
        key_column: str | None = None,
    ) -> None:
        self.type = Change[rows.type]  # type: ignore[name-defined]  # made at run time
        self._rows = rows
        self._schemas = schemas
        self._unwrapped = bool(unwrapped) or isinstance(unwrapped, Unwrapped)
        self._form = UnwrappedForm(unwrapped if isinstance(unwrapped, Unwrapped) else Unwrapped())
        self._full = full
        self._doubts_nulls = bool(rows.never_set_null)
        self._binary = binary
        self._values = Opener(rows, _decode_value, schemas, "value", id_bytes)
        self._keys = ChangeKeys(rows, schemas, id_bytes, key_column)

    async def prepare(self, batch: RecordBatch) -> None:
        """Fetch the schemas that a batch refers to and that are not known yet; `decode_batch` must not wait."""
        if isinstance(self._schemas, Fetches):
            ids = unknown_ids(((self._values, batch.values), (self._keys.opener, batch.keys)), batch)
            if ids:
                await self._schemas.fetch_ids(sorted(ids))

    def decode_batch(self, batch: RecordBatch) -> Decoded[Change[R]]:
        decoded: Decoded[Change[R]] = Decoded([])
        headers = batch.headers
        for row, raw in enumerate(batch.values):
            value = None
            try:
                value = self.decode(batch.topic, batch.keys[row], raw, headers[row])
                if value is None:
                    decoded.skipped.add(row)
                elif value.source_ms is None:  # unwrapped, and not among the added fields: when Connect wrote it
                    value = msgspec.structs.replace(value, source_ms=batch.timestamps[row])
            except RecordError as error:
                decoded.errors[row] = error
            decoded.values.append(value)
        return decoded

    def decode(self, topic: str, raw_key: bytes | None, raw: bytes | None, headers: Headers) -> Change[R] | None:
        """Return the change of one record, None for a tombstone or a heartbeat.

        Raises:
            RecordError: Neither of them, or a value that does not fit.
        """
        try:
            if raw is None:
                return self._tombstone(raw_key, headers) if self._unwrapped or self._form.deletes(headers) else None
            payload = self._values.open(raw, headers, direct=True)
            value = payload.value
            if isinstance(value, dict):
                value = envelope_of(value) or value
            if isinstance(value, Envelope):
                return self._change(value, payload, raw_key, headers)
            return self._other(topic, payload, raw_key, headers)
        except SHAPE_ERRORS as error:
            raise RecordError(f"the record is not built as Debezium builds them: {type(error).__name__}: {error}") from error

    def _change(self, envelope: Envelope, payload: Payload, raw_key: bytes | None, headers: Headers) -> Change[R]:
        source, op = envelope.source, _OPS.get(envelope.op or "")
        if op is None or source is None:
            raise RecordError(f"the operation {envelope.op!r} is not known; Debezium's are {', '.join(_OPS)}")
        if op is Op.MESSAGE:
            return self._message(envelope, payload)
        key = self._keys.columns(raw_key, headers, payload)
        before: Any = envelope.before
        after: Any = envelope.after
        unavailable: tuple[str, ...] = ()
        if type(envelope) is Envelope:  # its rows are still to be read
            assert payload.plans is not None
            plan = payload.plans.get(julian=op is Op.READ)
            marked = op is not Op.READ
            if before is not None:
                true = frozenset(key) if op is Op.DELETE and key is not None and not self._full else None
                before, unavailable = plan.row(before, marked=marked, true=true)
            if after is not None:
                updates = self._doubts_nulls and before is None and self._is_of_an_old_row(op, headers)
                after, unavailable = plan.row(after, marked=marked, updates=updates)
        snapshot = source.snapshot
        if snapshot is not None:
            snapshot = None if snapshot in ("false", False) else str(snapshot).lower()
        old_key = self._keys.in_header(headers, "__debezium.oldkey", raw_key, payload) if headers and op is Op.CREATE else None
        new_key = self._keys.in_header(headers, "__debezium.newkey", raw_key, payload) if headers and op is Op.DELETE else None
        return Change(
            op=op,
            key=key,
            before=before,
            after=after,
            position=position_of(source),
            transaction=None if op is Op.READ else transaction_of(source, envelope.transaction),
            source_ms=source.ts_ms,
            captured_ms=envelope.ts_ms,
            database=source.db,
            schema=source.schema,
            table=source.table,
            snapshot=snapshot,
            unavailable=unavailable,
            old_key=old_key,
            new_key=new_key,
            run=_run_of(headers) if key is None and headers else None,
            schema_version=payload.version,
        )

    def _is_of_an_old_row(self, op: Op, headers: Headers) -> bool:
        return op is Op.UPDATE or (op is Op.CREATE and header(headers, "__debezium.oldkey") is not None)

    def _message(self, envelope: Envelope, payload: Payload) -> Change[R]:
        source, message = envelope.source, envelope.message
        assert source is not None
        if message is None:
            raise RecordError("a logical message without its message block")
        return Change(
            op=Op.MESSAGE,
            position=position_of(source),
            transaction=transaction_of(source, envelope.transaction),
            source_ms=source.ts_ms,
            captured_ms=envelope.ts_ms,
            database=source.db,
            message=Message(message.prefix or "", self._content(message.content, payload)),
            schema_version=payload.version,
        )

    def _content(self, content: Any, payload: Payload) -> bytes:
        if content is None or isinstance(content, bytes):
            return content or b""
        assert payload.plans is not None
        if self._binary is None and payload.plans.content == "string":
            raise RecordError("the content of a message is text in base64 or hex; give debezium(binary=...) the connector's mode")
        try:
            return to_bytes(content, self._binary, known=False)
        except FIT_ERRORS as error:
            raise RecordError(f"the content of a message: {error}; has the connector another binary.handling.mode?") from error

    def _other(self, topic: str, payload: Payload, raw_key: bytes | None, headers: Headers) -> Change[R] | None:
        """What is not an envelope: an unwrapped row, a heartbeat, or nothing for this codec."""
        value = payload.value
        if value is None and (self._unwrapped or self._form.deletes(headers)):
            return self._tombstone(raw_key, headers)  # as JsonConverter writes it with schemas
        if not isinstance(value, dict):
            raise RecordError("the record's value is null or not an object: neither a change nor a tombstone")
        key = self._keys.opener.open(raw_key, headers).value if raw_key is not None else None
        if heartbeat_of(topic, key, value) is not None:
            return None
        if transaction_mark_of(value) is not None:
            raise RecordError("a transaction mark, not a change; read its topic with codec=transaction_marks()")
        if not self._unwrapped and self._form.hides_deletes(value, headers):
            raise RecordError(
                "an unwrapped row without __deleted: its connector writes deletes as tombstones, or not at all; give unwrapped=True"
            )
        if not (self._unwrapped or self._form.is_told(value, headers)):
            raise RecordError(
                "neither a change event nor an unwrapped row with __op or __deleted; for plain rows give unwrapped=True, "
                "and where added fields have other names unwrapped=Unwrapped(...)"
            )
        return self._form.read(
            value,
            payload,
            key=self._keys.columns(raw_key, headers, payload),
            keys=(
                self._keys.in_header(headers, "__debezium.oldkey", raw_key, payload),
                self._keys.in_header(headers, "__debezium.newkey", raw_key, payload),
            ),
            headers=headers,
        )

    def _tombstone(self, raw_key: bytes | None, headers: Headers) -> Change[R] | None:
        key = self._keys.columns(raw_key, headers)
        if key is None:
            return None
        new_key = self._keys.in_header(headers, "__debezium.newkey", raw_key)
        return Change(op=Op.DELETE, key=key, new_key=new_key, position=self._form.position(headers))

    def select(self, name: str) -> Compiled:
        """Return the selector of a column of the row, or, where the row has none of that name, of a field of the change.

        The column comes from `after`, else from the key, else from `before`; a truncate and a message have none (None). Of a dict row
        whose column is not declared, a UUID, date or time is its text.
        """
        what = f"column {name!r} of {getattr(self._rows.type, '__name__', 'the row')}"
        column = name.partition(".")[0]
        if self._rows.is_struct:
            targets = {target.name: target for target in self._rows.targets}
            if column not in targets:
                return self._select_of_change(name, what)
            inner = compile_selector(name, self._rows.type, what)
            declared = Declared(inner.type)
            wire_name = targets[column].wire_name
            kind = declared.members[0] if len(declared.members) == 1 else Any
            return Compiled(_column_getter(inner.get, wire_name if column == name else None), kind, name)
        if name in ("source_ms", "captured_ms") or "." in name:
            return self._select_of_change(name, what)
        declared_type = next((t.declared for t in self._rows.targets if t.wire_name == name), None)
        kind = declared_type.members[0] if declared_type is not None and len(declared_type.members) == 1 else Any
        if declared_type is None:
            return Compiled(_as_key(_column_getter(lambda row: row.get(name), name)), kind, name)
        return Compiled(_column_getter(lambda row: row.get(name), name), kind, name)

    def _select_of_change(self, name: str, what: str) -> Compiled:
        compiled = compile_selector(name, self.type, what)
        # A time that is not there is no event time: such a record is refused, the others have an int.
        return Compiled(compiled.get, int, name) if name in ("source_ms", "captured_ms") else compiled

    def encode_column(self, values: Sequence[Change[R]]) -> list[bytes | None]:
        """Return the records that Debezium would write for these changes, as JSON without schemas."""
        return [None if value is None else encode_change(value) for value in values]


def _as_key(get: Callable[[Change[Any]], Any]) -> Callable[[Change[Any]], Any]:
    def read(change: Change[Any]) -> Any:
        value = get(change)
        return value.isoformat() if isinstance(value, date | time) else str(value) if isinstance(value, UUID) else value

    return read


def _run_of(headers: Headers) -> str | None:
    run = header(headers, "__debezium.context.runId")
    return None if run is None else header_text(run)


def _column_getter(get: Callable[[Any], Any], key_column: str | None) -> Callable[[Change[Any]], Any]:
    def read(change: Change[Any]) -> Any:
        if change.after is not None:
            return get(change.after)
        if change.key is not None and key_column in change.key:
            return change.key[key_column]
        if change.before is None:
            return None
        if key_column in change.unavailable:
            raise RecordError(
                f"a delete under REPLICA IDENTITY DEFAULT does not say its {key_column!r}; "
                "set FULL on the table and replica_identity='full' here"
            )
        return get(change.before)

    return read


_typed = msgspec.json.Decoder(Envelope).decode


def _decode_value(raw: Any) -> Any:
    """Return an Envelope, or the decoded JSON of a record that is none."""
    try:
        envelope = _typed(raw)
    except msgspec.ValidationError:
        return msgspec.json.decode(raw)
    return envelope if envelope.op is not None and envelope.source is not None else msgspec.json.decode(raw)
