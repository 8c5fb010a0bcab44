"""Changes to bytes: the record that Debezium would write, as JSON without schemas, so that tests can send changes to a source.

Values go out in forms that need no schema to be read back: a decimal as {scale, value}, times as ISO text, an interval as ISO text.
"""

import base64
import enum
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from cdc.change import Change
from cdc.values import Beyond, Interval, Range


def encode_change(change: Change[Any]) -> bytes:
    """Return the bytes of a change event."""
    transaction = change.transaction
    block = None
    if transaction is not None and transaction.order is not None:
        block = {"id": str(transaction.id), "total_order": transaction.order, "data_collection_order": transaction.table_order}
    position = change.position
    sequence = msgspec.json.encode([str(position.commit_lsn) if position.commit_lsn else None, str(position.lsn)]).decode()
    envelope = {
        "before": _row(change.before),
        "after": _row(change.after),
        "source": {
            "ts_ms": change.source_ms,
            "snapshot": change.snapshot or "false",
            "db": change.database,
            "sequence": sequence,
            "schema": change.schema,
            "table": change.table,
            "txId": None if transaction is None else transaction.id,
            "lsn": position.lsn or None,
        },
        "transaction": block,
        "op": change.op.value,
        "ts_ms": change.captured_ms,
    }
    if change.message is not None:
        envelope["message"] = {"prefix": change.message.prefix, "content": base64.b64encode(change.message.content).decode()}
    return msgspec.json.encode(envelope)


def _row(row: Any) -> Any:
    if isinstance(row, msgspec.Struct):
        return {field.encode_name: _value(getattr(row, field.name)) for field in msgspec.structs.fields(row)}
    return _value(row)


def _value(value: Any) -> Any:
    match value:
        case None | bool() | int() | str() if not isinstance(value, enum.Enum):
            return value
        case float():
            return value if value - value == 0 else {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}[str(value)]
        case enum.Enum():
            return _value(value.value)
        case Decimal():
            return _decimal(value)
        case datetime() | date() | time():
            return value.isoformat().replace("+00:00", "Z")
        case timedelta():
            return value // timedelta(microseconds=1)
        case Interval():
            return f"P{value.months}M{value.days}DT{Decimal(value.microseconds) / 1_000_000:f}S"
        case Beyond() | UUID():
            return str(value)
        case Range():
            return _range(value)
        case bytes():
            return base64.b64encode(value).decode()
        case dict():
            return {name: _value(part) for name, part in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_value(part) for part in value]
    return _row(value) if isinstance(value, msgspec.Struct) else value


def _decimal(value: Decimal) -> Any:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        return "NaN" if value.is_nan() else str(value)
    unscaled = int("".join(map(str, digits))) * (-1 if sign else 1)
    raw = unscaled.to_bytes(unscaled.bit_length() // 8 + 1, "big", signed=True)
    return {"scale": -exponent, "value": base64.b64encode(raw).decode()}


def _range(value: Range[Any]) -> str:
    if value.empty:
        return "empty"
    lower, upper = (
        "" if end is None else '"' + str(end).replace("\\", "\\\\").replace('"', '\\"') + '"' for end in (value.lower, value.upper)
    )
    return f"{'[' if value.lower_included else '('}{lower},{upper}{']' if value.upper_included else ')'}"
