"""Keys of changes as a copy needs them: with the types of the rows' columns, and each column of them in the row.

**A tombstone** says a key and nothing else. Where the connector writes keys without their schema, a UUID in it is a text and a date a
number of days, and the rows have a UUID and a date: the key takes the type that the column has in the batch or in the copy. What
could be several things (a numeric as base64, a time as a number) is refused: to pass it over would keep a row that is gone.

    rows {"id": UUID("6f1c…"), …}        tombstone {"id": "6f1c…"}      deletes the row of UUID("6f1c…")

**A column of the key that the row lacks** (`ByLogicalTableRouter` tells tables apart by `__dbz__physicalTableIdentifier`) is put into it.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import msgspec

from cdc.change import Change, Op
from cdc.database import Column, column_of
from engine.errors import RecordError

Changes = Sequence[Change[dict[str, Any]]]

_EPOCH = date(1970, 1, 1)
_OF_TEXT = ("text",)
_OF_INT = ("int", "numeric", "float", "bool", "text")


def fitting_keys(table: str, changes: Changes, columns: Callable[[], Mapping[str, Column]]) -> Changes:
    """Return changes whose keys fit the rows; the same sequence if nothing is to be done.

    Args:
        columns: Gives the types of the copy's columns; asked only if a tombstone is among the changes.

    Raises:
        RecordError: The key of a tombstone may be several things.
    """
    if any(map(_lacks_key_columns, changes)):
        changes = [_with_key_columns(change) if _lacks_key_columns(change) else change for change in changes]
    if not any(map(_is_tombstone, changes)):
        return changes
    kinds = {**columns()}
    for change in reversed(changes):
        if change.after is not None and change.key is not None:
            kinds |= {name: column_of(change.after[name]) for name in change.key if change.after.get(name) is not None}
    return [_typed(table, change, kinds) if _is_tombstone(change) else change for change in changes]


def _lacks_key_columns(change: Change[dict[str, Any]]) -> bool:
    return change.after is not None and change.key is not None and not change.key.keys() <= change.after.keys()


def _with_key_columns(change: Change[dict[str, Any]]) -> Change[dict[str, Any]]:
    assert change.key is not None and change.after is not None
    return msgspec.structs.replace(change, after={**change.key, **change.after})


def _is_tombstone(change: Change[dict[str, Any]]) -> bool:
    return change.op is Op.DELETE and change.before is None and change.key is not None


def _typed(table: str, change: Change[dict[str, Any]], kinds: Mapping[str, Column]) -> Change[dict[str, Any]]:
    assert change.key is not None
    key = {name: _as_column(table, name, value, kinds.get(name)) for name, value in change.key.items()}
    return change if key == change.key else msgspec.structs.replace(change, key=key)


def _as_column(table: str, name: str, value: Any, kind: Column | None) -> Any:
    of_text, of_int = type(value) is str, type(value) is int
    if kind is None or not (of_text or of_int) or kind in (_OF_TEXT if of_text else _OF_INT):
        return value
    try:
        if of_text and kind == "uuid":
            return UUID(value)
        if of_int and kind == "date":
            return _EPOCH + timedelta(days=value)
    except (ValueError, OverflowError):
        pass
    raise RecordError(
        f"table {table!r}: a tombstone has the key {name} = {value!r}, and rows have {kind} there; "
        "let the connector write keys with their schema (key.converter.schemas.enable=true)"
    )


__all__ = ["fitting_keys"]
