"""Rows: from the columns in a record to a Struct of the user's or a plain dict.

A plan is made once for a schema (and once for records without one) and then only calls functions for the columns that need it.
Rows of a Struct take the columns that it names: others are ignored, a missing one needs a default. So a column may be added or
dropped at the source while a pipeline runs.

    class User(Struct, frozen=True):
        id: int
        balance: Decimal | None
        phone: str | None = None          # a column that older records do not have
"""

import base64
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import md5
from typing import Any, get_origin, get_type_hints

import msgspec

from cdc.columns import Column
from cdc.fitting import FIT_ERRORS, Declared, fitter
from cdc.reading import Reader, Wire, reader
from cdc.scalars import Fit
from engine.errors import ConfigError, RecordError

PLACEHOLDER = "__debezium_unavailable_value"


@dataclass(frozen=True, slots=True)
class Target:
    """A column of the declared row: its name in the row and in the record, and its type."""

    name: str
    wire_name: str
    declared: Declared
    has_default: bool


class RowType:
    """The declared type of rows.

    Args:
        row_type: A Struct, or dict.
        columns: Types for columns of dict rows.
        placeholder: What the connector writes for a value that it does not have (`unavailable.value.placeholder`).
    """

    def __init__(self, row_type: Any, columns: Mapping[str, Any] | None = None, placeholder: str = PLACEHOLDER) -> None:
        self.type = row_type
        self.marks = Marks(placeholder)
        self.is_struct = isinstance(row_type, type) and issubclass(row_type, msgspec.Struct)
        if not self.is_struct and (get_origin(row_type) or row_type) is not dict:
            raise ConfigError(f"rows of {row_type!r}: use a Struct with the columns, or dict")
        if self.is_struct and columns:
            raise ConfigError(f"columns= is for dict rows; write the types into {row_type.__name__}")
        if self.is_struct:
            hints = get_type_hints(row_type, include_extras=True)
            fields = msgspec.structs.fields(row_type)
            self.targets = [Target(f.name, f.encode_name, Declared(hints[f.name]), not f.required) for f in fields]
        else:
            self.targets = [Target(name, name, Declared(annotation), True) for name, annotation in (columns or {}).items()]

    def plan(self, column: Column | None, wire: Wire, *, julian: bool) -> "RowPlan":
        """Return the plan for records of a schema, or without one (None).

        Args:
            column: The struct of the row.
            julian: The records are snapshot reads; see `cdc.times`.
        """
        return RowPlan(self, column, wire, julian)


class RowPlan:
    """How rows of one schema are made."""

    def __init__(self, rows: RowType, column: Column | None, wire: Wire, julian: bool) -> None:
        self._rows = rows
        self._known = column is not None
        readers = {name: reader(field, wire, julian=julian) for name, field in ((column and column.fields) or {}).items()}
        kinds = {name: field.kind for name, field in ((column and column.fields) or {}).items()}
        self._fits = [(t, self._fit(t, readers.get(t.wire_name), kinds.get(t.wire_name, ""), julian)) for t in rows.targets]
        declared = {target.wire_name: fit for target, fit in self._fits}
        steps = {**readers, **declared}
        self._steps = [(name, convert) for name, convert in steps.items() if convert is not None]
        self._make = self._struct if rows.is_struct else self._dict

    def _fit(self, target: Target, read: Reader | None, kind: str, julian: bool) -> Fit | None:
        fit = fitter(target.declared, known=self._known, julian=julian)
        if read is None or target.declared.takes_as_written(kind):
            return fit
        if fit is None:
            return read
        return lambda value: fit(read(value))

    def row(self, raw: dict[str, Any], *, marked: bool, true: frozenset[str] | None = None) -> tuple[Any, tuple[str, ...]]:
        """Return (row, names of unavailable columns).

        Args:
            raw: Columns as they stand in the record; not changed.
            marked: There may be placeholders among them.
            true: The only columns that hold what the database holds (`before` of a delete), None if all do. The others need not
                even fit the declared type.

        Raises:
            RecordError: A value does not fit the declared type, or is not what the schema says.
        """
        missing: tuple[str, ...] = ()
        if marked:
            is_mark = self._rows.marks.holds
            missing = tuple(name for name, value in raw.items() if is_mark(value))
        doubtful = () if true is None else tuple(name for name in raw if name not in true and name not in missing)
        return self._make(raw, missing, doubtful), missing + doubtful

    def key(self, raw: dict[str, Any]) -> dict[str, Any]:
        """Return the columns of a key, read as the columns of a row are."""
        return self._dict(raw, (), ())

    def _dict(self, raw: dict[str, Any], missing: tuple[str, ...], doubtful: tuple[str, ...]) -> dict[str, Any]:
        row = dict(raw)
        for name in missing:
            row[name] = None
        for name, convert in self._steps:
            if row.get(name) is not None:
                row[name] = _apply(convert, name, row[name], None if name in doubtful else _REFUSE)
        return row

    def _struct(self, raw: dict[str, Any], missing: tuple[str, ...], doubtful: tuple[str, ...]) -> Any:
        values: dict[str, Any] = {}
        for target, fit in self._fits:
            name = target.wire_name
            value = raw.get(name)
            if name in missing:
                values[target.name] = target.declared.blank()
            elif value is not None:
                blank = target.declared.blank() if name in doubtful else _REFUSE
                values[target.name] = value if fit is None else _apply(fit, name, value, blank)
            elif name in raw:
                if not (name in doubtful or target.declared.optional or target.declared.is_anything):
                    raise RecordError(f"column {name!r} is null, but {self._rows.type.__name__} declares it without None")
                values[target.name] = target.declared.blank()
            elif not target.has_default:
                raise RecordError(f"column {name!r} of {self._rows.type.__name__} is not in the record, and has no default")
        return self._rows.type(**values)


_REFUSE: Any = object()


def _apply(function: Fit, name: str, value: Any, instead: Any) -> Any:
    """Return the converted value; for one that does not fit `instead`, if there is such a thing."""
    try:
        return function(value)
    except FIT_ERRORS as error:
        if instead is not _REFUSE:
            return instead
        raise RecordError(f"column {name!r}: {error}") from error


class Marks:
    """The forms in which Debezium says that it does not have a value (an unchanged TOAST value).

    A text or bytes column has the placeholder itself, an array of texts or bytes an array with it alone, an array of ints its bytes
    as numbers, hstore itself as name and value, uuid[] a UUID made of it.
    """

    def __init__(self, placeholder: str) -> None:
        raw = placeholder.encode()
        encoded = base64.b64encode(raw).decode()
        md = bytearray(md5(raw, usedforsecurity=False).digest())
        md[6], md[8] = md[6] & 0x0F | 0x30, md[8] & 0x3F | 0x80
        scalars = [placeholder, encoded, base64.urlsafe_b64encode(raw).decode(), raw.hex(), str(uuid.UUID(bytes=bytes(md)))]
        self._scalars = frozenset(scalars) | {f'{{"{placeholder}":"{placeholder}"}}'}
        self._raw = raw
        self._numbers = list(raw)
        self._map = {placeholder: placeholder}
        zigzag = b"".join(_zigzag(number) for number in raw)
        self._needles = tuple(dict.fromkeys([*(text.encode() for text in scalars), b",".join(b"%d" % number for number in raw), zigzag]))

    def may_be_in(self, record: bytes) -> bool:
        """Whether the bytes of a record may hold a placeholder: a quick look before a thorough one."""
        for needle in self._needles:  # noqa: SIM110  # any() over a generator takes four times as long
            if needle in record:
                return True
        return False

    def holds(self, value: Any) -> bool:
        """Whether a value, as it stands in a record, is a placeholder."""
        if isinstance(value, str):
            return value in self._scalars
        if isinstance(value, list):
            return value == self._numbers or (len(value) == 1 and self.holds(value[0]))
        return bool(value == self._raw or value == self._map)


def _zigzag(number: int) -> bytes:
    """Return an Avro int of a non-negative number below 8192."""
    doubled = number << 1
    return bytes((doubled,)) if doubled < 128 else bytes((doubled & 0x7F | 0x80, doubled >> 7))
