"""From what stands in a record to Python values, where a schema says what it means; without one see `cdc.fitting`.

| column (PostgreSQL)                  | in JSON                      | Python                                   |
|--------------------------------------|------------------------------|------------------------------------------|
| numeric, money                       | base64; {scale, value}; text | Decimal (NaN as text only), text as text |
| real, double precision               | number, "NaN", "Infinity"    | float                                    |
| date, timestamp, time                | number or ISO text           | date, datetime and time without zone     |
| timestamptz, timetz                  | ISO text in UTC              | datetime and time in UTC                 |
| interval                             | µs; ISO text                 | timedelta; `Interval`                    |
| bytea                                | base64                       | bytes                                    |
| bit(n), varbit                       | base64, lowest byte first    | int; bit(1) bool                         |
| uuid                                 | text                         | UUID                                     |
| arrays, hstore as a map              | array, object                | list, dict                               |
| json, jsonb, hstore as JSON, ranges, |                              |                                          |
| enums, inet, xml, ltree, citext      | text                         | text (a declared type says more)         |

Avro differs in that bytes are bytes and floats are floats. A real is 4 bytes: it is rounded to the shortest text that means the same 4
bytes, as PostgreSQL writes it (Java before 19 sometimes writes more digits into JSON).
"""

import base64
import binascii
from collections.abc import Callable
from datetime import timedelta
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from struct import pack
from typing import Any, Literal
from uuid import UUID

from cdc.columns import Column
from cdc.times import from_days, parse_date, parse_time, parse_timestamp, time_reader, timestamp_reader
from cdc.values import parse_interval

Reader = Callable[[Any], Any]
Wire = Literal["json", "avro"]

_FLOAT_MAX = 3.4028235677973362e38  # what rounds to the largest of 4 bytes
_FLOAT_NORMAL = 1.1754943508222875e-38  # smaller ones have fewer digits
_NEGATIVE_SCALE = 1_000  # PostgreSQL's largest; Debezium adds 2,048 to a negative one
_EXACTLY = Context(prec=MAX_PREC, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[])
_INT64 = ((1 << 63) - 1, -(1 << 63))
_TIMESTAMPS = {
    "io.debezium.time.Timestamp": "ms",
    "io.debezium.time.MicroTimestamp": "us",
    "io.debezium.time.NanoTimestamp": "ns",
    "org.apache.kafka.connect.data.Timestamp": "ms",
}
_TIMES = {
    "io.debezium.time.Time": "ms",
    "io.debezium.time.MicroTime": "us",
    "io.debezium.time.NanoTime": "ns",
    "org.apache.kafka.connect.data.Time": "ms",
}
_DATES = ("io.debezium.time.Date", "org.apache.kafka.connect.data.Date")


def reader(column: Column, wire: Wire, *, julian: bool) -> Reader | None:
    """Return the function that reads values of a column, None where they are right as they are. It is never given None.

    Args:
        julian: Of a snapshot read; see `cdc.times`.
    """
    temporal = _temporal_reader(column.meaning, julian)
    if temporal is not None:
        return temporal
    binary = base64_bytes if wire == "json" else _as_it_is
    match column.meaning:
        case "org.apache.kafka.connect.data.Decimal":
            if column.scale is None:
                raise ValueError("a decimal without scale")
            return decimal_reader(column.scale, binary)
        case "io.debezium.data.VariableScaleDecimal":
            return variable_decimal
        case "io.debezium.data.Uuid":
            return UUID
        case "io.debezium.data.Bits":
            return lambda value: int.from_bytes(binary(value), "little")
    return _plain_reader(column, wire, julian)


def as_json_of(value: Any, column: Column | None) -> Any:
    """Return a value of a key in a header as JSON of its column has it: SimpleHeaderConverter writes decimals as numbers.

    Args:
        value: With a Decimal for each number that has a point.
    """
    if isinstance(value, dict):
        fields = (column and column.fields) or {}
        return {name: as_json_of(part, fields.get(name)) for name, part in value.items()}
    if column is not None and column.meaning == "org.apache.kafka.connect.data.Decimal" and isinstance(value, int | Decimal):
        unscaled = int(_EXACTLY.scaleb(Decimal(value), column.scale or 0))
        return base64.b64encode(unscaled.to_bytes(unscaled.bit_length() // 8 + 1, "big", signed=True)).decode()
    return float(value) if isinstance(value, Decimal) else value


def _plain_reader(column: Column, wire: Wire, julian: bool) -> Reader | None:
    match column.kind:
        case "float":
            return float if wire == "json" else None
        case "float32":
            return shortest_float if wire == "avro" else lambda value: shortest_float(float(value))
        case "bytes":
            return base64_bytes if wire == "json" else None
        case "array" if column.meaning == "io.debezium.data.FloatVector" and wire == "json":
            return None
        case "array" if column.items is not None:
            item = reader(column.items, wire, julian=julian)
            return None if item is None else lambda values: [None if value is None else item(value) for value in values]
        case "map" if column.items is not None:
            return _map_reader(reader(column.items, wire, julian=julian), wire)
        case "struct":
            return struct_reader(column, wire, julian=julian)
    return None


def _map_reader(inner: Reader | None, wire: Wire) -> Reader | None:
    """Return the function that reads a map; JSON has one whose keys are no texts (a sparse vector's) as a list of pairs."""
    if inner is None and wire == "avro":
        return None

    def read(values: Any) -> dict[Any, Any]:
        pairs = values if isinstance(values, list) else _dict_of(values).items()
        return {name: value if inner is None or value is None else inner(value) for name, value in pairs}

    return read


def _dict_of(values: Any) -> dict[str, Any]:
    """Return a value that must be a map.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{values!r} is not a map")
    return values


def struct_reader(column: Column, wire: Wire, *, julian: bool) -> Reader | None:
    """Return the function that reads the fields of a struct into a dict, None if nothing is to be done."""
    steps = [(name, read) for name, field in (column.fields or {}).items() if (read := reader(field, wire, julian=julian)) is not None]
    if not steps:
        return None

    def read_fields(values: dict[str, Any]) -> dict[str, Any]:
        out = dict(values)
        for name, read in steps:
            value = out.get(name)
            if value is not None:
                out[name] = read(value)
        return out

    return read_fields


def _temporal_reader(meaning: str | None, julian: bool) -> Reader | None:
    if meaning in _TIMESTAMPS:
        return timestamp_reader(_TIMESTAMPS[meaning], julian=julian)
    if meaning in _TIMES:
        return time_reader(_TIMES[meaning])
    if meaning in _DATES:
        return from_days
    match meaning:
        case "io.debezium.time.ZonedTimestamp":
            return lambda text: parse_timestamp(text, zoned=True, julian=julian)
        case "io.debezium.time.IsoTimestamp":
            return lambda text: parse_timestamp(text, zoned=False, julian=julian)
        case "io.debezium.time.ZonedTime":
            return lambda text: parse_time(text, zoned=True)
        case "io.debezium.time.IsoTime":
            return lambda text: parse_time(text, zoned=False)
        case "io.debezium.time.IsoDate":
            return parse_date
        case "io.debezium.time.MicroDuration":
            return micro_duration
        case "io.debezium.time.NanoDuration":
            return lambda nanos: timedelta(microseconds=nanos // 1000)
        case "io.debezium.time.Interval":
            return parse_interval
    return None


def micro_duration(micros: int) -> timedelta:
    """Return the length of an interval in microseconds.

    Raises:
        ValueError: Debezium had no number for it, and wrote the highest or lowest one.
    """
    if micros in _INT64:
        raise ValueError(f"{micros} µs stands for any longer interval, and which it was is lost; interval.handling.mode=string keeps it")
    return timedelta(microseconds=micros)


def base64_bytes(text: Any) -> bytes:
    """Return the bytes of a base64 text.

    Raises:
        ValueError: It is not one.
    """
    if isinstance(text, bytes):
        return text
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError) as error:
        raise ValueError(f"{text!r} is not base64: {error}") from error


def decimal_reader(scale: int, binary: Callable[[Any], bytes]) -> Callable[[Any], Decimal]:
    """Return the function from the unscaled number as big-endian two's complement to a decimal."""
    if scale > _NEGATIVE_SCALE:  # numeric(5, -2) comes with a scale of 2046
        return lambda value: scaled(int.from_bytes(binary(value), "big", signed=True) // 10**scale, 0)

    def read(value: Any) -> Decimal:
        return scaled(int.from_bytes(binary(value), "big", signed=True), scale)

    return read


def scaled(unscaled: int, scale: int) -> Decimal:
    """Return unscaled / 10 ** scale, exactly, whatever the context's precision and however many digits."""
    return _EXACTLY.scaleb(Decimal(unscaled), -scale)


def variable_decimal(value: dict[str, Any]) -> Decimal:
    """Return the decimal of {scale, value}: a numeric declared without precision."""
    return scaled(int.from_bytes(base64_bytes(value["value"]), "big", signed=True), value["scale"])


def shortest_float(value: float) -> float:
    """Return the double whose text is the shortest that means the same 4-byte float."""
    if value != value or value in (float("inf"), float("-inf")):
        return value
    wanted = pack(">f", value)
    for digits in range(1 if abs(value) < _FLOAT_NORMAL else 6, 10):
        shorter = float(f"{value:.{digits}g}")
        if abs(shorter) <= _FLOAT_MAX and pack(">f", shorter) == wanted:
            return shorter
    return value


def _as_it_is(value: bytes) -> bytes:
    return value
