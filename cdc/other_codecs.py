"""Codecs for what Debezium writes beside changes: heartbeats, transaction marks, and the events of an outbox.

    beats = app.source("__debezium-heartbeat.pg", codec=heartbeats())                # Stream[str, Heartbeat]
    marks = app.source("pg.transaction", codec=transaction_marks())                  # Stream[str, TransactionMark]
    events = app.source("outbox.event.Order", codec=outbox(OrderEvent))              # Stream[str, OutboxEvent[OrderEvent]]

A null payload of an outbox is an event ("the aggregate is gone"), not a tombstone: in JSON it is the text `null`, with schemas an
object around a null. Only a record without any value is skipped.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from cdc.change import Heartbeat, OutboxEvent, TransactionMark
from cdc.debezium_codec import Fetches, schemas_of
from cdc.envelopes import SHAPE_ERRORS, header_text, heartbeat_of, transaction_mark_of
from cdc.fitting import FIT_ERRORS, Declared, fitter
from cdc.framing import Opener, Schemas, unknown_ids
from cdc.reading import struct_reader
from cdc.rows import RowType
from engine.codecs import Decoded
from engine.errors import ConfigError, RecordError
from engine.records import Headers, RecordBatch

V = TypeVar("V")
Registry = Schemas | Mapping[int, Any] | Callable[[int], Any] | None


def heartbeats(*, registry: Registry = None) -> "RecordCodec[Heartbeat]":
    """Return the codec of Debezium's heartbeat topic."""

    def read(topic: str, key: Any, value: Any, headers: Headers) -> Heartbeat:
        found = heartbeat_of(topic, key, value) if isinstance(value, dict) else None
        if found is None:
            raise RecordError("not a heartbeat of Debezium's")
        return found

    return RecordCodec(Heartbeat, read, registry)


def transaction_marks(*, registry: Registry = None) -> "RecordCodec[TransactionMark]":
    """Return the codec of a connector's transaction topic (`provide.transaction.metadata=true`)."""

    def read(topic: str, key: Any, value: Any, headers: Headers) -> TransactionMark:
        found = transaction_mark_of(value) if isinstance(value, dict) else None
        if found is None:
            raise RecordError("not a transaction mark of Debezium's")
        return found

    return RecordCodec(TransactionMark, read, registry)


def outbox(
    payload_type: type[V],
    *,
    registry: Registry = None,
    type_header: str = "eventType",
    id_header: str = "id",
    payload_field: str = "payload",
    raw: bool = False,
) -> "RecordCodec[OutboxEvent[V]]":
    """Return the codec of a topic that Debezium's Outbox Event Router writes.

    Args:
        payload_type: Struct, dict or plain type of the payload, whether the router expanded it or left it as JSON text.
        type_header: Where the router puts the type of an event (`table.fields.additional.placement`); it may also be a field.
        payload_field: Where the payload stands when the router puts further columns beside it.
        raw: The record is the payload as it is (StringConverter, BinaryDataConverter): str and bytes are taken so, other types out of
            JSON text.
    """
    if raw and registry is not None:
        raise ConfigError("outbox: raw payloads are in no framing; leave registry= out")
    as_it_is: dict[Any, Callable[[bytes], Any]] = {str: _text, bytes: bytes} if raw else {}
    fit = fitter(Declared(payload_type), known=True)

    def read(topic: str, key: Any, value: Any, headers: Headers) -> OutboxEvent[V]:
        texts = {name: header_text(raw) for name, raw in headers if not name.startswith(("__debezium.", "apicurio."))}
        fields: dict[str, Any] = {}
        if not raw and isinstance(value, dict) and payload_field in value:
            fields = {name: field for name, field in value.items() if name != payload_field}
            value = value[payload_field]
        payload: Any = None
        if value is not None:
            try:
                payload = value if fit is None else fit(value)
            except FIT_ERRORS as error:
                raise RecordError(f"the payload is not a {getattr(payload_type, '__name__', payload_type)}: {error}") from error
        kind = texts.get(type_header) or fields.get(type_header)
        return OutboxEvent(texts.get(id_header), None if key is None else str(key), kind, payload, texts, fields)

    made = OutboxEvent[payload_type]  # type: ignore[valid-type]  # made at run time
    return RecordCodec(made, read, registry, text_keys=True, as_it_is=as_it_is.get(payload_type))


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise RecordError(f"the payload is no text: {error}") from error


def _json_or_text(raw: Any) -> Any:
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return bytes(raw).decode()


class RecordCodec(Generic[V]):
    """Codec of records that are not changes: takes them out of their framing and hands them to a function.

    Args:
        text_keys: A key that is no JSON is text (StringConverter).
        as_it_is: Reads values that are in no framing.
    """

    def __init__(
        self,
        value_type: Any,
        read: Callable[[str, Any, Any, Headers], V],
        registry: Registry,
        *,
        text_keys: bool = False,
        as_it_is: Callable[[bytes], Any] | None = None,
    ) -> None:
        self._as_it_is = as_it_is
        self.type = value_type
        self._read = read
        self._schemas = schemas_of(registry)
        rows = RowType(dict)
        self._values = Opener(rows, msgspec.json.decode, self._schemas, "value")
        self._keys = Opener(rows, _json_or_text if text_keys else msgspec.json.decode, self._schemas, "key")

    async def prepare(self, batch: RecordBatch) -> None:
        """Fetch the schemas that a batch refers to."""
        if isinstance(self._schemas, Fetches):
            ids = unknown_ids(((self._values, batch.values), (self._keys, batch.keys)), batch)
            if ids:
                await self._schemas.fetch_ids(sorted(ids))

    def decode_batch(self, batch: RecordBatch) -> Decoded[V]:
        decoded: Decoded[V] = Decoded([])
        headers = batch.headers
        for row, raw in enumerate(batch.values):
            value: V | None = None
            if raw is None:
                decoded.skipped.add(row)
            else:
                try:
                    key = self._open(self._keys, batch.keys[row], headers[row])
                    found = self._open(self._values, raw, headers[row]) if self._as_it_is is None else self._as_it_is(raw)
                    value = self._read(batch.topic, key, found, headers[row])
                except RecordError as error:
                    decoded.errors[row] = error
                except SHAPE_ERRORS as error:
                    decoded.errors[row] = RecordError(f"the record is not built as Debezium builds them: {type(error).__name__}: {error}")
            decoded.values.append(value)
        return decoded

    def _open(self, opener: Opener, raw: bytes | None, headers: Headers) -> Any:
        if raw is None:
            return None
        payload = opener.open(raw, headers)
        read = None if payload.row is None else struct_reader(payload.row, payload.wire, julian=False)
        return payload.value if read is None or not isinstance(payload.value, dict) else read(payload.value)

    def encode_column(self, values: Sequence[V]) -> list[bytes | None]:
        """Refuse: only Debezium writes these."""
        raise ConfigError(f"{getattr(self.type, '__name__', self.type)} records are written by Debezium only; give .to() another codec")
