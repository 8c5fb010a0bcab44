# ruff: noqa: DTZ001  # timestamps without time zone are a type of their own

from datetime import date, datetime, timedelta
from typing import Any

import msgspec
import pytest

from cdc.values import Beyond, Interval, Range, parse_interval, parse_range


def test_beyond_in_a_union_survives_messagepack() -> None:
    for value in (Beyond("infinity"), datetime(2026, 1, 1)):
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=datetime | Beyond) == value
    assert msgspec.json.decode(msgspec.json.encode(date(2026, 1, 1)), type=date | Beyond) == date(2026, 1, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("P1Y2M3DT4H5M6.789S", Interval(14, 3, 14_706_789_000)),
        ("P0Y-1M0DT0H0M-1S", Interval(-1, 0, -1_000_000)),
        ("PT-0.5S", Interval(0, 0, -500_000)),
        ("P2W", Interval(0, 14, 0)),
    ],
)
def test_parse_interval_keeps_the_three_parts(text: str, expected: Interval) -> None:
    assert parse_interval(text) == expected


def test_interval_as_timedelta_counts_months_as_debezium_does() -> None:
    assert parse_interval("P1Y2M3DT4H5M6.789S").as_timedelta() == timedelta(microseconds=37091106789000)


@pytest.mark.parametrize("text", ["P", "1 year", "PxD", ""])
def test_parse_interval_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="interval"):
        parse_interval(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1,10)", Range("1", "10")),
        ("empty", Range(None, None, False, False, True)),
        ("(,)", Range(None, None, False, False)),
        ('["2026-01-01 00:00:00+00",)', Range("2026-01-01 00:00:00+00", None, True, False)),
        (r'("a\"b","c""d"]', Range('a"b', 'c"d', False, True)),
    ],
)
def test_parse_range_reads_postgresqls_text(text: str, expected: Range[Any]) -> None:
    assert parse_range(text) == expected


def test_parse_range_other_text_is_refused() -> None:
    with pytest.raises(ValueError, match="not a range"):
        parse_range("1-10")
