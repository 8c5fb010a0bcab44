"""Debezium's envelopes: what stands around the rows, as msgspec reads it, and what kind of record it is."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Struct

from cdc.change import Heartbeat, Position, Transaction, TransactionMark
from cdc.rows import RowType
from engine.errors import RecordError
from engine.records import Headers

HEARTBEAT_PREFIX = "__debezium-heartbeat"
"""`topic.heartbeat.prefix` as it is by default."""

SHAPE_ERRORS = (AttributeError, TypeError, LookupError, ValueError, ArithmeticError, RecursionError)
"""What reading a record raises that has something else in a place than Debezium puts there: it is bad, and no error of the program's."""

_WITH_ROWS = ("r", "c", "u")
_NUMBERS = frozenset((int, type(None)))


class Source(Struct):
    """Where a change comes from. `snapshot` is null instead of "false" where nulls are kept (replace.null.with.default=false)."""

    ts_ms: int | None = None
    snapshot: str | bool | None = None
    db: str | None = None
    sequence: str | None = None
    schema: str | None = None
    table: str | None = None
    txId: int | None = None  # noqa: N815  # Debezium's name
    lsn: int | None = None


class Block(Struct):
    """The transaction block of a change."""

    id: str
    total_order: int | None = None
    data_collection_order: int | None = None


class WireMessage(Struct):
    """A logical message; content is base64 in JSON."""

    prefix: str | None = None
    content: Any = None


class Envelope(Struct):
    """A change event as Debezium writes it. Other records lack `op` or `source`."""

    op: str | None = None
    source: Source | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    transaction: Block | None = None
    ts_ms: int | None = None
    message: WireMessage | None = None


def envelope_decoder(rows: RowType) -> Callable[[Any], Any]:
    """Return the function that reads JSON into envelopes whose rows are Structs already, where that is all there is to do.

    It gives None for any other record: rows that do not fit at once or hold a placeholder, and deletes, whose `before` is mostly
    invented.
    """
    row = rows.type | None
    typed = msgspec.defstruct("DirectEnvelope", [("before", row, None), ("after", row, None)], bases=(Envelope,))
    decode: Callable[[Any], Any] = msgspec.json.Decoder(typed).decode
    get_texts, is_mark = rows.get_texts(), rows.marks.among
    get_doubtful = rows.get_never_set_null() if rows.never_set_null else None

    def read(raw: Any) -> Any:
        try:
            envelope = decode(raw)
        except msgspec.ValidationError:
            return None
        after, before, op = envelope.after, envelope.before, envelope.op
        if after is None or envelope.source is None or op not in _WITH_ROWS:
            return None
        if op != "r" and (is_mark(get_texts(after)) or (before is not None and is_mark(get_texts(before)))):
            return None
        if get_doubtful is not None and op != "r" and None in get_doubtful(after):
            return None
        return envelope

    return read


def envelope_of(value: dict[str, Any]) -> Envelope | None:
    """Return the envelope in a record read from Avro, None if it is another kind of record.

    Raises:
        RecordError: Something else stands in the place of a number.
    """
    source = value.get("source")
    if not isinstance(source, dict) or not isinstance(value.get("op"), str):
        return None
    block, message = value.get("transaction"), value.get("message")
    get = source.get
    numbers = [get("ts_ms"), get("txId"), get("lsn"), value.get("ts_ms")]
    if block:
        numbers += [block.get("total_order"), block.get("data_collection_order")]
    if not _NUMBERS.issuperset(map(type, numbers)):
        raise RecordError(f"times, LSNs and orders of a change are whole numbers, and not {numbers}")
    return Envelope(
        value["op"],
        Source(get("ts_ms"), get("snapshot"), get("db"), get("sequence"), get("schema"), get("table"), get("txId"), get("lsn")),
        value.get("before"),
        value.get("after"),
        Block(*[block.get(name) for name in Block.__struct_fields__]) if block else None,
        value.get("ts_ms"),
        WireMessage(message.get("prefix"), message.get("content")) if message else None,
    )


_decode_sequence = msgspec.json.Decoder(tuple[str | None, str | None]).decode


def position_of(source: Source) -> Position:
    """Return the position of a change: its sequence, `["lastCommitLsn","lsn"]`, or its LSN alone.

    Reads of an incremental snapshot have a sequence and no LSN.
    """
    if source.sequence is None:
        return Position(0, source.lsn or 0)
    return sequence_position(source.sequence)


def sequence_position(sequence: str) -> Position:
    """Return the position that a sequence says; null is 0."""
    try:
        commit, own = _decode_sequence(sequence)
        return Position(int(commit or 0), int(own or 0))
    except (msgspec.DecodeError, ValueError) as error:
        raise RecordError(f"source.sequence {sequence!r} is not a pair of LSNs") from error


def transaction_of(source: Source, block: Block | None) -> Transaction | None:
    """Return the transaction of a streamed change.

    Debezium's id is `txId:lsn`, and its LSN differs between the records of one transaction: only the number counts.
    """
    if block is not None and block.id is not None:
        return Transaction(_number(block.id), block.total_order, block.data_collection_order)
    return None if source.txId is None else Transaction(source.txId)


def _number(transaction_id: Any) -> int:
    try:
        return int(str(transaction_id).partition(":")[0])
    except ValueError as error:
        raise RecordError(f"transaction id {transaction_id!r} does not begin with PostgreSQL's number") from error


def heartbeat_of(topic: str, key: Any, value: dict[str, Any]) -> Heartbeat | None:
    """Return the heartbeat that a record is, if it is one: by its topic, or by what its key and value consist of."""
    if value.keys() != {"ts_ms"} or not isinstance(value["ts_ms"], int):
        return None
    server = key.get("serverName") if isinstance(key, dict) else None
    return Heartbeat(server, value["ts_ms"]) if server is not None or topic.startswith(HEARTBEAT_PREFIX) else None


def transaction_mark_of(value: dict[str, Any]) -> TransactionMark | None:
    """Return the transaction mark that a record is, if it is one."""
    if value.get("status") not in ("BEGIN", "END") or not {"id", "event_count", "data_collections"} <= value.keys():
        return None
    collections = value["data_collections"]
    tables = None if collections is None else {entry["data_collection"]: entry["event_count"] for entry in collections}
    return TransactionMark(_number(value["id"]), value["status"] == "END", value.get("ts_ms"), value["event_count"], tables)


def header(headers: Headers, name: str) -> bytes | None:
    """Return the value of the first header of a name."""
    for found, value in headers:
        if found == name:
            return value
    return None


def header_text(raw: bytes) -> str:
    """Return the text of a header: JsonConverter puts it in quotes, SimpleHeaderConverter does not."""
    text = raw.decode(errors="replace")
    if text[:1] != '"':
        return text
    try:
        return msgspec.json.decode(raw, type=str)
    except msgspec.DecodeError:
        return text


_decode_exactly = msgspec.json.Decoder(float_hook=Decimal).decode


def key_header(headers: Headers, name: str) -> dict[str, Any] | None:
    """Return the columns of a key in a header (`__debezium.newkey`, `__debezium.oldkey`), JSON text with either converter.

    Numbers with a point are Decimals.
    """
    raw = header(headers, name)
    if raw is None:
        return None
    try:
        value = _decode_exactly(raw)
    except msgspec.DecodeError as error:
        raise RecordError(f"header {name} is not JSON: {raw!r}") from error
    if isinstance(value, dict) and value.keys() == {"schema", "payload"}:
        value = value["payload"]
    return value if isinstance(value, dict) else None
