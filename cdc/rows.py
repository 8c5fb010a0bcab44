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
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import md5
from operator import attrgetter
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
        never_set_null: Columns whose null in an update says the same, since they are never set to null.
    """

    def __init__(
        self,
        row_type: Any,
        columns: Mapping[str, Any] | None = None,
        placeholder: str = PLACEHOLDER,
        never_set_null: Collection[str] = (),
    ) -> None:
        self.type = row_type
        self.marks = Marks(placeholder)
        self.never_set_null = frozenset(never_set_null)
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
        self._check_never_set_null()

    def _check_never_set_null(self) -> None:
        known = {target.wire_name: target.declared for target in self.targets}
        for name in sorted(self.never_set_null):
            if self.is_struct and name not in known:
                raise ConfigError(f"never_set_null: {self.type.__name__} has no column {name!r}; it has {', '.join(sorted(known))}")
            if self.is_struct and not (known[name].optional or known[name].is_anything):
                raise ConfigError(f"never_set_null: column {name!r} of {self.type.__name__} may be missing for a while; declare it | None")

    def get_never_set_null(self) -> Callable[[Any], tuple[Any, ...]]:
        """Return the function that gives these columns of a row of the Struct."""
        names = [target.name for target in self.targets if target.wire_name in self.never_set_null]
        return lambda row: tuple(getattr(row, name) for name in names)

    def is_read_directly(self, column: Column | None, wire: Wire) -> bool:
        """Whether msgspec makes the same rows of a schema as a plan does: a Struct of plain types, written as such."""
        if not self.is_struct:
            return False
        config = self.type.__struct_config__
        if config.array_like or config.tag is not None:
            return False
        fields = (column and column.fields) or {}
        return all(_is_plain(target.declared, fields.get(target.wire_name), wire) for target in self.targets)

    def get_texts(self) -> Callable[[Any], tuple[Any, ...]]:
        """Return the function that gives the texts in a row of the Struct, at least two."""
        names = [target.name for target in self.targets if str in target.declared.members]
        return attrgetter(*(names * 2)) if len(names) == 1 else attrgetter(*names) if names else lambda row: ()

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
        self._whole = self._convert if rows.is_read_directly(column, wire) else self._fit_all
        self._known_names = frozenset(target.wire_name for target in rows.targets) if rows.is_struct else None
        self._columns = [(t.wire_name, t.name, fit, t.declared.optional or t.declared.is_anything) for t, fit in self._fits]

    def _fit(self, target: Target, read: Reader | None, kind: str, julian: bool) -> Fit | None:
        fit = fitter(target.declared, known=self._known, julian=julian)
        if read is None or target.declared.takes_as_written(kind):
            return fit
        if fit is None:
            return read
        return lambda value: fit(read(value))

    def row(
        self, raw: dict[str, Any], *, marked: bool, updates: bool = False, true: frozenset[str] | None = None
    ) -> tuple[Any, tuple[str, ...]]:
        """Return (row, names of its unavailable columns).

        Args:
            raw: Columns as they stand in the record; not changed, and where nothing is to be done they are the row.
            marked: There may be placeholders among them.
            updates: It is the new image of a row that was there, and its old image is not given.
            true: The only columns that hold what the database holds (`before` of a delete), None if all do. The others need not
                even fit the declared type.

        Raises:
            RecordError: A value does not fit the declared type, or is not what the schema says.
        """
        missing: tuple[str, ...] = ()
        known = self._known_names
        if marked and self._rows.marks.among(raw.values()):
            is_mark = self._rows.marks.holds
            missing = tuple(name for name, value in raw.items() if is_mark(value) and (known is None or name in known))
        if updates and self._rows.never_set_null:
            missing += tuple(name for name in raw if name in self._rows.never_set_null and raw[name] is None)
        doubtful: tuple[str, ...] = ()
        if true is not None:
            doubtful = tuple(name for name in raw if name not in true and name not in missing and (known is None or name in known))
        return self._make(raw, missing, doubtful), missing + doubtful

    def key(self, raw: dict[str, Any]) -> dict[str, Any]:
        """Return the columns of a key, read as the columns of a row are."""
        return self._dict(raw, (), ())

    def _dict(self, raw: dict[str, Any], missing: tuple[str, ...], doubtful: tuple[str, ...]) -> dict[str, Any]:
        if not missing and not self._steps:
            return raw
        row = dict(raw)
        for name in missing:
            row[name] = None
        for name, convert in self._steps:
            if row.get(name) is not None:
                row[name] = _apply(convert, name, row[name], None if name in doubtful else _REFUSE)
        return row

    def _convert(self, raw: dict[str, Any]) -> Any:
        """Return the row of a record that has a fitting value in each column, None for any other: nearly all are such."""
        try:
            return msgspec.convert(raw, self._rows.type)
        except msgspec.ValidationError:
            return None

    def _fit_all(self, raw: dict[str, Any]) -> Any:
        """Return the same where values have to be read."""
        values: dict[str, Any] = {}
        try:
            for wire_name, name, fit, may_be_none in self._columns:
                value = raw[wire_name]
                if value is None and not may_be_none:
                    return None
                values[name] = value if fit is None or value is None else fit(value)
            return self._rows.type(**values)
        except FIT_ERRORS:
            return None

    def _struct(self, raw: dict[str, Any], missing: tuple[str, ...], doubtful: tuple[str, ...]) -> Any:
        if not missing and not doubtful:
            row = self._whole(raw)
            if row is not None:
                return row
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
        try:
            return self._rows.type(**values)
        except (ValueError, TypeError) as error:  # of its __post_init__
            raise RecordError(f"not a valid {self._rows.type.__name__}: {error}") from error


_REFUSE: Any = object()
_PLAIN = frozenset((int, str, float, bool))


def _is_plain(declared: Declared, field: Column | None, wire: Wire) -> bool:
    if declared.notes or not declared.members or not _PLAIN.issuperset(declared.members):
        return False
    if field is None or declared.takes_as_written(field.kind):
        return True
    return declared.members == [float] if field.kind == "float" else reader(field, wire, julian=False) is None


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
        self._plain = frozenset([*scalars, raw, f'{{"{placeholder}":"{placeholder}"}}'])
        self._are_other = self._plain.isdisjoint
        self._numbers = list(raw)
        self._map = {placeholder: placeholder}

    def among(self, values: Iterable[Any]) -> bool:
        """Whether there is a placeholder among some plain values; True also if one is an array or a map: a quick look."""
        try:
            return not self._are_other(values)
        except TypeError:
            return True

    def holds(self, value: Any) -> bool:
        """Whether a value, as it stands in a record, is a placeholder."""
        if isinstance(value, list):
            return value == self._numbers or (len(value) == 1 and self.holds(value[0]))
        return value == self._map if isinstance(value, dict) else value in self._plain
