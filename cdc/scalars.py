"""Single values to declared types; the reasons for refusing one. See `cdc.fitting` for what is accepted when."""

import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from cdc.reading import base64_bytes, decimal_reader, micro_duration, variable_decimal
from cdc.times import from_days, parse_date, parse_time, parse_timestamp, time_reader, timestamp_reader
from cdc.values import Beyond, Encoded, Interval, Scale, Unit, parse_interval

Fit = Callable[[Any], Any]

_DECIMAL_TEXT = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
_SPECIAL_FLOATS = ("NaN", "Infinity", "-Infinity")


def to_decimal(scale: Scale | None, known: bool) -> Fit:
    """Return the function to a decimal; `scale` is that of base64, `known`: a schema says that texts are decimals."""
    from_base64 = None if scale is None else decimal_reader(scale.digits, base64_bytes)

    def convert(value: Any) -> Decimal:
        if isinstance(value, str):
            return _decimal_of_text(value, from_base64, known)
        if isinstance(value, dict):
            return variable_decimal(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{shown(value)} is not a decimal")
        return Decimal(repr(value))

    return convert


def _decimal_of_text(text: str, from_base64: Callable[[Any], Decimal] | None, known: bool) -> Decimal:
    if text.upper() == "NAN" and (known or len(text) == 3):
        return Decimal("NaN")
    if text in ("Infinity", "-Infinity"):
        return Decimal(text)
    is_number = _DECIMAL_TEXT.fullmatch(text) is not None
    maybe_base64 = not known and len(text) % 4 == 0 and "." not in text and "-" not in text
    if is_number and not maybe_base64:
        return Decimal(text)
    if known:
        raise ValueError(f"{shown(text)} is not a decimal")
    if from_base64 is None:
        what = "may be base64 or digits" if is_number else "looks like base64, whose scale only the schema knows"
        raise ValueError(f"{shown(text)} {what}, and the record has no schema; declare Annotated[Decimal, Scale(digits)]")
    return from_base64(text)


def to_datetime(value: Any, unit: Unit | None, *, julian: bool = False) -> datetime | Beyond:
    """Return the timestamp of a text, or of a number whose unit is known."""
    if isinstance(value, str):
        zoned = value.endswith("Z") or re.search(r"\d[+-]\d\d(:?\d\d)?$", value[10:]) is not None
        return parse_timestamp(value, zoned=zoned, julian=julian)
    return timestamp_reader(_unit(value, unit, "datetime"), julian=julian)(value)


def to_time(value: Any, unit: Unit | None) -> time | Beyond:
    """Return the time of day of a text, or of a number whose unit is known."""
    if isinstance(value, str):
        return parse_time(value, zoned=value.endswith("Z"))
    return time_reader(_unit(value, unit, "time"))(value)


def _unit(value: Any, unit: Unit | None, name: str) -> str:
    if type(value) is not int:
        raise ValueError(f"{shown(value)} is not a {name}")
    if unit is None:
        raise ValueError(f'{value} may count ms, µs or ns, and the record has no schema; declare Annotated[{name}, Unit("us")]')
    return unit.of


def to_bytes(value: Any, encoded: Encoded | None, known: bool) -> bytes:
    """Return the bytes of a text; `known`: a schema says that it is text, so that base64 is not taken for granted."""
    if not isinstance(value, str):
        raise TypeError(f"{shown(value)} is not bytes")
    if encoded is None and known:
        raise ValueError(f'{shown(value)} is text that may be base64 or hex; declare Annotated[bytes, Encoded("base64")]')
    if encoded is None or encoded.by == "base64":
        return base64_bytes(value)
    if encoded.by == "hex":
        return bytes.fromhex(value)
    return base64_bytes(value.replace("-", "+").replace("_", "/"))


def _to_date(value: Any) -> date | Beyond:
    return from_days(value) if type(value) is int else parse_date(text_of(value))


def _to_timedelta(value: Any) -> timedelta:
    if isinstance(value, Interval):
        return value.as_timedelta()
    return micro_duration(value) if type(value) is int else parse_interval(text_of(value)).as_timedelta()


def _to_interval(value: Any) -> Interval:
    if isinstance(value, timedelta):
        return Interval(microseconds=value // timedelta(microseconds=1))
    return Interval(microseconds=value) if type(value) is int else parse_interval(text_of(value))


def _to_int(value: Any) -> int:
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return int(value)
    raise TypeError(f"{shown(value)} is a {type(value).__name__}, not an int")


def _to_float(value: Any) -> float:
    if isinstance(value, bool) or not (isinstance(value, int | Decimal) or value in _SPECIAL_FLOATS):
        raise TypeError(f"{shown(value)} is a {type(value).__name__}, not a float")
    return float(value)


def _to_str(value: Any) -> str:
    if isinstance(value, UUID | Decimal | Beyond):
        return str(value)
    raise TypeError(f"{shown(value)} is a {type(value).__name__}, not a str")


def _to_bool(value: Any) -> bool:
    if isinstance(value, str) and value in ("true", "false"):
        return value == "true"
    raise TypeError(f"{shown(value)} is a {type(value).__name__}, not a bool")


def _to_beyond(value: Any) -> Beyond:
    if isinstance(value, str) and value in ("infinity", "-infinity"):
        return Beyond(value)
    raise TypeError(f"{shown(value)} is a {type(value).__name__}")


SIMPLE: dict[Any, Fit] = {
    date: _to_date,
    timedelta: _to_timedelta,
    Interval: _to_interval,
    int: _to_int,
    float: _to_float,
    str: _to_str,
    bool: _to_bool,
    UUID: lambda value: UUID(text_of(value)),
    Beyond: _to_beyond,
}


def text_of(value: Any) -> str:
    """Return a value that must be text."""
    if not isinstance(value, str):
        raise TypeError(f"{shown(value)} is a {type(value).__name__}")
    return value


def shown(value: Any) -> str:
    """Return a value as an error message shows it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
