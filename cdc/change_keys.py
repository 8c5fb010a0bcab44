"""The keys of changes: the columns of a record's key and of the headers that name its other half.

{"id": 7}       the columns, as Debezium writes them
7               one of them, where the connector extracts it (ExtractField$Key): `key_column` says which
"""

from typing import Any

import msgspec

from cdc.envelopes import key_header
from cdc.framing import Opener, Payload, Plans, Schemas
from cdc.reading import as_json_of
from cdc.rows import RowType
from engine.errors import RecordError
from engine.records import Headers


class ChangeKeys:
    """Reads the keys of a topic.

    Args:
        key_column: The column that a key is which does not hold columns; None if all keys hold them.
    """

    def __init__(self, rows: RowType, schemas: Schemas | None, id_bytes: int, key_column: str | None) -> None:
        self._column = key_column
        self._is_text = any(target.wire_name == key_column and target.declared.members == [str] for target in rows.targets)
        self.opener = Opener(rows, msgspec.json.decode if key_column is None else self._scalar, schemas, "key", id_bytes)

    def columns(self, raw: bytes | None, headers: Headers, value: Payload | None = None) -> dict[str, Any] | None:
        """Return the columns of a record's key.

        Args:
            value: Of the same record; where the key has no schema, its row's tells the types.

        Raises:
            RecordError: The key does not hold columns.
        """
        if raw is None:
            return None
        payload = self.opener.open(raw, headers)
        found, plans = payload.value, self._plans(payload, value)
        if self._column is not None and not isinstance(found, dict):
            if value is not None and value.row is not None and value.plans:  # the key's own schema names no column
                plans = value.plans if payload.wire == value.wire else value.plans.beside()
            found = {self._column: found}
        if not isinstance(found, dict):
            raise RecordError(
                f"the key {found!r} does not hold columns; if the connector extracts one of them (ExtractField), name it by key_column="
            )
        return plans.get(julian=False).key(found)

    def in_header(self, headers: Headers, name: str, raw: bytes | None, value: Payload | None = None) -> dict[str, Any] | None:
        """Return the columns of a key in a header, read as those of the record's own key."""
        columns = key_header(headers, name) if headers else None
        if columns is None or raw is None:
            return columns
        plans = self._plans(self.opener.open(raw, headers), value)
        fields = (plans.column and plans.column.fields) or {}
        columns = {column: as_json_of(each, fields.get(column)) for column, each in columns.items()}
        return plans.beside().get(julian=False).key(columns)

    def _plans(self, key: Payload, value: Payload | None) -> Plans:
        """Return how a key is read: by its own schema, or where it has none by that of the row, whose columns it has."""
        plans = value.plans.beside() if key.row is None and value is not None and value.row is not None and value.plans else key.plans
        assert plans is not None
        return plans

    def _scalar(self, raw: Any) -> Any:
        """Return a key in JSON, or one that StringConverter has written."""
        try:
            found = msgspec.json.decode(raw)
        except msgspec.DecodeError:
            return bytes(raw).decode()
        return bytes(raw).decode() if self._is_text and not isinstance(found, dict | str) else found
