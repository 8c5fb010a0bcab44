"""The unwrapped form (ExtractNewRecordState): the row itself, with some of the envelope in columns that begin with two underscores.

    {"id": 2, "bal": "Arw=", "__deleted": "false", "__op": "u", "__table": "accounts", "__lsn": 28273432, "__source_ts_ms": ...}

Which of them there are is the connector's setting (`add.fields`). Without an operation a row says only how it is now: an update. A
delete that was rewritten into a row has nulls for everything but the key.
"""

from typing import Any

from cdc.change import Change, Op, Position, Transaction
from cdc.envelopes import header, header_text, sequence_position
from cdc.framing import Payload
from engine.errors import RecordError
from engine.records import Headers

Key = dict[str, Any] | None


def read_unwrapped(
    value: dict[str, Any], payload: Payload, *, key: Key, op_header: str | None, marked: bool, keys: tuple[Key, Key], headers: Headers
) -> Change[Any]:
    """Return the change that an unwrapped row says.

    Args:
        value: The row with the added columns.
        op_header: The operation where it stands in a header.
        marked: There may be placeholders for unavailable values.
        keys: Key before and after a key change, from the headers.
        headers: The position may be there (`add.headers`).
    """
    op = _op(value, op_header)
    columns = {name: column for name, column in value.items() if not name.startswith("__")}
    assert payload.plans is not None
    plan = payload.plans.get(julian=op is Op.READ)
    row = unavailable = None
    if op not in (Op.TRUNCATE, Op.MESSAGE):
        row, unavailable = plan.row(columns, marked=marked, true=frozenset(key or ()) if op is Op.DELETE else None)
    tx_id = _added(value, "txId")
    old_key, new_key = keys
    return Change(
        op=op,
        key=key,
        before=row if op is Op.DELETE else None,
        after=None if op is Op.DELETE else row,
        position=unwrapped_position(value, headers),
        transaction=None if tx_id is None or op is Op.READ else Transaction(int(tx_id)),
        source_ms=value.get("__source_ts_ms"),
        captured_ms=value.get("__ts_ms"),
        database=_added(value, "db"),
        schema=_added(value, "schema"),
        table=_added(value, "table"),
        snapshot=None if _added(value, "snapshot") in (None, "false", False) else str(_added(value, "snapshot")).lower(),
        unavailable=unavailable or (),
        old_key=old_key if op in (Op.CREATE, Op.UPDATE) else None,  # an update where nothing says the operation
        new_key=new_key if op is Op.DELETE else None,
        schema_version=payload.version,
    )


def _op(value: dict[str, Any], op_header: str | None) -> Op:
    said = value.get("__op") or op_header
    if said is None:
        return Op.DELETE if str(value.get("__deleted")).lower() == "true" else Op.UPDATE
    try:
        return Op(said)
    except ValueError as error:
        raise RecordError(f"the operation {said!r} is not known") from error


def unwrapped_position(value: dict[str, Any], headers: Headers) -> Position:
    """Return the position that an unwrapped row or its headers say, zero if none does."""
    sequence = _said(value, headers, "sequence")
    if sequence is not None:
        return sequence_position(sequence)
    lsn = _said(value, headers, "lsn")
    try:
        return Position(0, int(lsn or 0))
    except ValueError as error:
        raise RecordError(f"the lsn {lsn!r} in a header is not a number") from error


def _said(value: dict[str, Any], headers: Headers, name: str) -> Any:
    found = _added(value, name)
    if found is not None or not headers:
        return found
    raw = header(headers, f"__{name}") or header(headers, f"__source_{name}")
    return None if raw is None else header_text(raw)


def _added(value: dict[str, Any], name: str) -> Any:
    """Return an added column: `__lsn` and `__source_lsn` are both in use."""
    found = value.get(f"__{name}")
    return value.get(f"__source_{name}") if found is None else found
