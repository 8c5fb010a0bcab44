"""The unwrapped form (ExtractNewRecordState): the row itself, with some of the envelope in columns that begin with two underscores.

    {"id": 2, "bal": "Arw=", "__deleted": "false", "__op": "u", "__table": "accounts", "__lsn": 28273432, "__source_ts_ms": ...}

Which of them there are is the connector's setting (`add.fields`), and some may stand in headers (`add.headers`). Without an operation a
row says only how it is now: an update. A delete that was rewritten into a row has nulls for everything but the key. Where the connector
names them otherwise, its settings are given as they are: `debezium(Row, unwrapped=Unwrapped(add_fields="op:what", add_fields_prefix="_"))`.
"""

from typing import Any

from msgspec import Struct

from cdc.change import Change, Op, Position, Transaction
from cdc.envelopes import header_text, sequence_position
from cdc.framing import Payload
from engine.errors import ConfigError, RecordError
from engine.records import Headers

Key = dict[str, Any] | None

DELETED = "__deleted"
"""The transform writes it by this name whatever the prefix."""
_SAID = ("op", "lsn", "sequence", "txId", "db", "schema", "table", "snapshot")
_TIMES = {"ts_ms": "ts_ms", "source.ts_ms": "source_ts_ms"}


class Unwrapped(Struct, frozen=True):
    """The settings of the transform that names are made by, as the connector has them ("op:operation,source.lsn")."""

    add_fields: str = ""
    add_fields_prefix: str = "__"
    add_headers: str = ""
    add_headers_prefix: str = "__"


class UnwrappedForm:
    """Reads rows that were unwrapped with some settings.

    Raises:
        ConfigError: Fields without a prefix that are not listed cannot be told from columns.
    """

    def __init__(self, settings: Unwrapped) -> None:
        if not settings.add_fields_prefix and not settings.add_fields:
            raise ConfigError("debezium: Unwrapped(add_fields_prefix='') needs add_fields, or added fields cannot be told from columns")
        self._fields = _names(settings.add_fields, settings.add_fields_prefix)
        self._headers = _names(settings.add_headers, settings.add_headers_prefix)
        self._prefix = settings.add_fields_prefix
        self._added = frozenset(_listed(settings.add_fields, settings.add_fields_prefix).values()) | {DELETED}
        self._op_names = frozenset(self._fields["op"]) | {DELETED}

    def is_told(self, value: dict[str, Any], headers: Headers) -> bool:
        """Whether a record shows by itself that it is an unwrapped row."""
        return not self._op_names.isdisjoint(value) or self._in_headers("op", headers) is not None

    def hides_deletes(self, value: dict[str, Any], headers: Headers) -> bool:
        """Whether a record shows its operation, but of its kind a delete would not: it would be a tombstone or nothing."""
        return DELETED not in value and not self._op_names.isdisjoint(value) and self._in_headers("op", headers) is None

    def deletes(self, headers: Headers) -> bool:
        """Whether headers say that the record is a delete."""
        return bool(headers) and self._in_headers("op", headers) == Op.DELETE.value

    def read(self, value: dict[str, Any], payload: Payload, *, key: Key, keys: tuple[Key, Key], headers: Headers) -> Change[Any]:
        """Return the change that an unwrapped row says.

        Args:
            value: The row with the added columns.
            keys: Key before and after a key change, from the headers.
        """
        said = {name: self._said(name, value, headers) for name in self._fields}
        op = _op(said["op"], value)
        prefix, added = self._prefix, self._added
        columns = {name: column for name, column in value.items() if name not in added and not (prefix and name.startswith(prefix))}
        assert payload.plans is not None
        plan = payload.plans.get(julian=op is Op.READ)
        row = unavailable = None
        if op not in (Op.TRUNCATE, Op.MESSAGE):
            row, unavailable = plan.row(
                columns,
                marked=op is not Op.READ,
                updates=op is Op.UPDATE or (op is Op.CREATE and keys[0] is not None),
                true=frozenset(key or ()) if op is Op.DELETE else None,
            )
        tx_id, snapshot = _number("txId", said["txId"]), said["snapshot"]
        old_key, new_key = keys
        return Change(
            op=op,
            key=key,
            before=row if op is Op.DELETE else None,
            after=None if op is Op.DELETE else row,
            position=_position(said["sequence"], said["lsn"]),
            transaction=None if tx_id is None or op is Op.READ else Transaction(tx_id),
            source_ms=_number("source.ts_ms", said["source.ts_ms"]),
            captured_ms=_number("ts_ms", said["ts_ms"]),
            database=said["db"],
            schema=said["schema"],
            table=said["table"],
            snapshot=None if snapshot in (None, "false", False) else str(snapshot).lower(),
            unavailable=unavailable or (),
            old_key=old_key if op in (Op.CREATE, Op.UPDATE) else None,  # an update where nothing says the operation
            new_key=new_key if op is Op.DELETE else None,
            schema_version=payload.version,
        )

    def position(self, headers: Headers) -> Position:
        """Return the position that the headers of a tombstone say, zero if none does."""
        return _position(*(self._said(name, {}, headers) for name in ("sequence", "lsn")))

    def _said(self, name: str, value: dict[str, Any], headers: Headers) -> Any:
        for written in self._fields[name]:
            found = value.get(written)
            if found is not None:
                return found
        return self._in_headers(name, headers) if headers else None

    def _in_headers(self, name: str, headers: Headers) -> str | None:
        wanted = self._headers[name]
        for found, raw in headers:
            if found in wanted and raw is not None:
                text = header_text(raw)
                return None if text == "null" else text
        return None


def _names(setting: str, prefix: str) -> dict[str, tuple[str, ...]]:
    """Return under which names each part of an envelope may stand: `__lsn` and `__source_lsn` are both in use."""
    names: dict[str, tuple[str, ...]] = {name: (f"{prefix}{name}", f"{prefix}source_{name}") for name in _SAID}
    names |= {name: (f"{prefix}{written}",) for name, written in _TIMES.items()}
    for field, written in _listed(setting, prefix).items():
        name = field if field in _TIMES else field.removeprefix("source.")
        if name in names:
            names[name] = (written,)
    return names


def _listed(setting: str, prefix: str) -> dict[str, str]:
    """Return the fields of `add.fields` or `add.headers` with the names that the transform gives them."""
    entries = (entry.strip().partition(":") for entry in setting.split(",") if entry.strip())
    return {field: prefix + (renamed or field.replace(".", "_")) for field, _, renamed in entries}


def _op(said: Any, value: dict[str, Any]) -> Op:
    if said is None:
        return Op.DELETE if str(value.get(DELETED)).lower() == "true" else Op.UPDATE
    try:
        return Op(said)
    except ValueError as error:
        raise RecordError(f"the operation {said!r} is not known") from error


def _position(sequence: Any, lsn: Any) -> Position:
    return Position(0, _number("lsn", lsn) or 0) if sequence is None else sequence_position(sequence)


def _number(name: str, said: Any) -> int | None:
    try:
        return None if said is None else int(said)
    except ValueError as error:
        raise RecordError(f"the {name} {said!r} of an unwrapped row is not a number") from error


__all__ = ["Unwrapped", "UnwrappedForm"]
