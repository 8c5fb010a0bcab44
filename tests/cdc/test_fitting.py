"""What a declared type makes of a value that no schema explains, and of one that a schema has explained."""

# ruff: noqa: DTZ001  # timestamps without time zone are a type of their own

import enum
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest

from cdc.fitting import FIT_ERRORS, Declared, fitter
from cdc.values import Beyond, Encoded, Interval, Range, Scale, Unit


class Mood(enum.Enum):
    HAPPY = "happy"


class Point(msgspec.Struct):
    x: float
    y: float


def fit(annotation: Any, value: Any, *, known: bool = False) -> Any:
    function = fitter(Declared(annotation), known=known)
    return value if function is None else function(value)


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (Annotated[Decimal, Scale(2)], "AeJA", Decimal("1234.56")),
        (Annotated[Decimal, Scale(2)], "1234", Decimal("-26588.24")),
        (Decimal, {"scale": 20, "value": "AQ=="}, Decimal("1E-20")),
        (Decimal, "-12345678.90", Decimal("-12345678.90")),
        (Decimal, "0", Decimal(0)),
        (Decimal, 0.1, Decimal("0.1")),
        (Decimal | None, "1.5", Decimal("1.5")),
        (date, 20512, date(2026, 2, 28)),
        (date | Beyond, -2147472692, Beyond("infinity")),
        (Annotated[datetime, Unit("us")], 1772323199123456, datetime(2026, 2, 28, 23, 59, 59, 123456)),
        (Annotated[datetime, Unit("ms")] | None, 1772323199123, datetime(2026, 2, 28, 23, 59, 59, 123000)),
        (datetime, "2026-02-28T18:29:59.123456Z", datetime(2026, 2, 28, 18, 29, 59, 123456, tzinfo=UTC)),
        (Annotated[time, Unit("ms")], 47655123, time(13, 14, 15, 123000)),
        (timedelta, 1_500_000, timedelta(seconds=1.5)),
        (timedelta, "P1DT1S", timedelta(days=1, seconds=1)),
        (Interval, "P1Y", Interval(12)),
        (UUID, "6f1c2f0e-4a3d-4c5b-9e11-0123456789ab", UUID("6f1c2f0e-4a3d-4c5b-9e11-0123456789ab")),
        (bytes, "AP8=", b"\x00\xff"),
        (Annotated[bytes, Encoded("hex")], "00ff", b"\x00\xff"),
        (Annotated[bytes, Encoded("base64-url-safe")], "AP8Q3q2-7w==", bytes.fromhex("00ff10deadbeef")),
        (float, "-Infinity", float("-inf")),
        (float, 1, 1.0),
        (Mood, "happy", Mood.HAPPY),
        (list[Decimal | None], ["1.5", None], [Decimal("1.5"), None]),
        (dict[str, str | None], '{"a":"1","b":null}', {"a": "1", "b": None}),
        (Range[int], "[1,10)", Range(1, 10)),
        (Range[datetime], '["2026-01-01 00:00:00+00",)', Range(datetime(2026, 1, 1, tzinfo=UTC), None, True, False)),
        (Point, {"x": 1.5, "y": -2.0, "srid": None}, Point(1.5, -2.0)),
        (Any, "AeJA", "AeJA"),
    ],
)
def test_fitter_without_schema_the_declared_type_decides(annotation: Any, value: Any, expected: Any) -> None:
    result = fit(annotation, value)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "value", "reason"),
    [
        (Decimal, "AeJA", "scale only the schema knows"),
        (Decimal, "1234", "may be base64 or digits"),
        (datetime, 1772323199123456, "may count ms, µs or ns"),
        (time, 47655123456, "may count ms, µs or ns"),
        (date, -2147472692, r"declare date \| Beyond"),
        (bytes, "not base64!", "not base64"),
        (int, "7", "not an int"),
        (int, True, "not an int"),
        (str, 7, "not a str"),
        (Mood, "cross", "not a valid Mood"),
        (list[int], "nothing", "malformed"),
    ],
)
def test_fitter_without_schema_what_is_not_sure_is_refused(annotation: Any, value: Any, reason: str) -> None:
    with pytest.raises(FIT_ERRORS, match=reason):
        fit(annotation, value)


def test_fitter_text_of_a_known_text_column_needs_its_encoding() -> None:
    with pytest.raises(ValueError, match="base64 or hex"):
        fit(bytes, "00ff", known=True)
    assert fit(Annotated[bytes, Encoded("hex")], "00ff", known=True) == b"\x00\xff"
    assert fit(Decimal, "1234", known=True) == 1234
    assert fit(Decimal, "NAN", known=True).is_nan()


def test_declared_blank_is_none_or_empty() -> None:
    assert [Declared(t).blank() for t in (str | None, str, bytes, list[int], Any, date)] == [None, "", b"", [], None, None]
