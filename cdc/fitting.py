"""Declared types: what a column's annotation accepts, and how a value gets there.

A value that a schema explained is already a Python value, and mostly fits. Without a schema the declared type decides alone, and
where it does not say enough the value is refused with that reason, never guessed:

    amount: Decimal                        "AeJA" without schema     refused: base64 has no scale; declare Annotated[Decimal, Scale(2)]
    amount: Annotated[Decimal, Scale(2)]   "AeJA"                    Decimal("1234.56")
    at: datetime                           1772323199123456          refused: ms, µs or ns? declare Annotated[datetime, Unit("us")]
    day: date                              20512                     date(2026, 2, 28): days, the only number that dates come as
    day: date                              'infinity'                refused: date cannot say infinity; declare date | Beyond

A declared int, str or bytes takes the number, text or bytes as they are written.
"""

import enum
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from cdc.scalars import SIMPLE, Fit, shown, text_of, to_bytes, to_datetime, to_decimal, to_time
from cdc.times import parse_date
from cdc.values import Beyond, Encoded, Range, Scale, Unit, notes, parse_range

_BLANKS: dict[Any, Any] = {str: "", bytes: b"", int: 0, float: 0.0, bool: False, Decimal: Decimal(0), timedelta: timedelta(0)}
FIT_ERRORS = (ValueError, TypeError, ArithmeticError, LookupError, msgspec.MsgspecError)


class Declared:
    """A declared column type, taken apart.

    Attributes:
        members: The types it may be, without None.
        optional: None is one of them.
    """

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation
        self.notes: dict[type, Any] = {}
        self.optional = False
        self.members: list[Any] = []
        self._take(annotation)

    def _take(self, annotation: Any) -> None:
        origin = get_origin(annotation)
        if origin is Annotated:
            inner, *metadata = get_args(annotation)
            self.notes.update(notes(tuple(metadata)))
            self._take(inner)
        elif origin in (Union, UnionType):
            for member in get_args(annotation):
                self._take(member)
        elif annotation in (None, NoneType):
            self.optional = True
        else:
            self.members.append(annotation)

    @property
    def is_anything(self) -> bool:
        """Whether nothing is said about the type."""
        return any(member in (Any, object) for member in self.members)

    def blank(self) -> Any:
        """Return what stands for a value that is not there: None, or something empty where None is not allowed."""
        if self.optional or self.is_anything or not self.members:
            return None
        member = self.members[0]
        return _BLANKS[member] if member in _BLANKS else (get_origin(member) or member)() if _is_container(member) else None

    def takes_as_written(self, kind: str) -> bool:
        """Whether a value written as an int, string or bool of this kind is taken without reading its meaning."""
        wanted = {"int": int, "string": str}.get(kind)
        return wanted is not None and self.members == [wanted]


def fitter(declared: Declared, *, known: bool, julian: bool = False) -> Fit | None:
    """Return the function that makes a value fit a declared type, None if every value does. It is never given None.

    Args:
        known: Values have been read by a schema; else they are what stands in the JSON.
        julian: They are from a snapshot read without schema; see `cdc.times`.

    The function raises one of FIT_ERRORS, with the reason.
    """
    if declared.is_anything:
        return None
    accepted = {member for member in declared.members if isinstance(member, type) and not _is_container(member)}
    steps = [_coercion(member, declared, known, julian) for member in declared.members]

    def fit(value: Any) -> Any:
        if type(value) in accepted:
            return value
        reason: Exception | None = None
        for step in steps:
            try:
                result = step(value)
            except FIT_ERRORS as error:
                reason = reason or error
                continue
            if isinstance(result, Beyond) and Beyond not in accepted:
                reason = ValueError(f"{result} is beyond what {type_name(declared)} can say; declare {type_name(declared)} | Beyond")
                continue
            return result
        assert reason is not None
        raise reason

    return fit


def type_name(declared: Declared) -> str:
    """Return the declared type as people write it."""
    return " | ".join(getattr(member, "__name__", str(member)) for member in declared.members)


def _coercion(member: Any, declared: Declared, known: bool, julian: bool) -> Fit:
    scale, unit, encoded = declared.notes.get(Scale), declared.notes.get(Unit), declared.notes.get(Encoded)
    origin = get_origin(member) or member
    if member is Decimal:
        return to_decimal(scale, known)
    if member is datetime:
        return lambda value: to_datetime(value, unit, julian=julian)
    if member is time:
        return lambda value: to_time(value, unit)
    if member is bytes:
        return lambda value: to_bytes(value, encoded, known)
    if member in SIMPLE:
        return SIMPLE[member]
    if origin is Range:
        return _to_range(get_args(member))
    if origin is Literal:
        return lambda value: _one_of(value, get_args(member))
    if origin in (list, tuple, set, frozenset):
        return _to_list(member, origin, known, julian)
    if origin is dict:
        return _to_dict(member, known, julian)
    if isinstance(origin, type) and issubclass(origin, enum.Enum):
        return origin
    if isinstance(origin, type) and issubclass(origin, msgspec.Struct):
        return _to_struct(member, known, julian)
    return lambda value: msgspec.convert(value, member, strict=False)


_BOUNDS: dict[Any, Fit] = {int: int, Decimal: Decimal, float: float, str: str, date: parse_date}


def _to_range(arguments: tuple[Any, ...]) -> Fit:
    declared = Declared(arguments[0] if arguments else str)
    bound = next((_BOUNDS[member] for member in declared.members if member in _BOUNDS), None) or fitter(declared, known=True)

    def convert(value: Any) -> Range[Any]:
        found = parse_range(text_of(value))
        if bound is None:
            return found
        lower, upper = (None if end is None else bound(end) for end in (found.lower, found.upper))
        return Range(lower, upper, found.lower_included, found.upper_included, found.empty)

    return convert


def _to_list(member: Any, origin: Any, known: bool, julian: bool) -> Fit:
    arguments = [argument for argument in get_args(member) if argument is not Ellipsis]
    item = _item(arguments[0], known, julian) if arguments else None

    def convert(value: Any) -> Any:
        if isinstance(value, str):
            return msgspec.json.decode(value, type=member)
        if not isinstance(value, list):
            raise TypeError(f"{shown(value)} is not an array")
        return origin(value if item is None else [item(part) for part in value])

    return convert


def _to_dict(member: Any, known: bool, julian: bool) -> Fit:
    arguments = get_args(member)
    item = _item(arguments[1], known, julian) if arguments else None

    def convert(value: Any) -> Any:
        if isinstance(value, str):
            return msgspec.json.decode(value, type=member)
        if not isinstance(value, dict):
            raise TypeError(f"{shown(value)} is not a map")
        return value if item is None else {name: item(part) for name, part in value.items()}

    return convert


def _item(annotation: Any, known: bool, julian: bool) -> Fit | None:
    declared = Declared(annotation)
    fit = fitter(declared, known=known, julian=julian)
    if fit is None:
        return None

    def convert(value: Any) -> Any:
        if value is not None:
            return fit(value)
        if not declared.optional:
            raise ValueError(f"null where {type_name(declared)} is declared without None")
        return None

    return convert


def _to_struct(member: Any, known: bool, julian: bool) -> Fit:
    fields = [(field.name, field.encode_name, _item(field.type, known, julian)) for field in msgspec.structs.fields(member)]

    def convert(value: Any) -> Any:
        if isinstance(value, str):
            return msgspec.json.decode(value, type=member)
        if not isinstance(value, dict):
            raise TypeError(f"{shown(value)} is not a {getattr(member, '__name__', member)}")
        given = {name: value[wire] if fit is None else fit(value[wire]) for name, wire, fit in fields if wire in value}
        return member(**given)

    return convert


def _one_of(value: Any, allowed: tuple[Any, ...]) -> Any:
    if value not in allowed:
        raise ValueError(f"{shown(value)} is not one of {', '.join(map(repr, allowed))}")
    return value


def _is_container(member: Any) -> bool:
    origin = get_origin(member) or member
    return origin in (list, tuple, set, frozenset, dict)
