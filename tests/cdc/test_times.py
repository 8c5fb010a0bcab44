# ruff: noqa: DTZ001  # timestamps without time zone are a type of their own

from datetime import UTC, date, datetime, time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.times import days_of, from_days, gregorian, julian_calendar, parse_date, parse_time, parse_timestamp, time_reader, timestamp_reader
from cdc.values import END_OF_DAY, INFINITY, MINUS_INFINITY, Beyond

EPOCH = date(1970, 1, 1).toordinal()


@given(st.dates())
def test_gregorian_any_date_of_python_agrees(day: date) -> None:
    days = day.toordinal() - EPOCH
    assert gregorian(days) == (day.year, day.month, day.day)
    assert days_of(day.year, day.month, day.day) == days
    assert from_days(days) == day


@given(st.integers(-2_440_588, 2_145_042_905))
def test_gregorian_any_date_of_postgresql_goes_back(days: int) -> None:
    assert days_of(*gregorian(days)) == days


def test_julian_calendar_day_before_the_reform_is_the_fourth_of_october() -> None:
    assert julian_calendar(date(1582, 10, 14).toordinal() - EPOCH) == (1582, 10, 4)
    assert julian_calendar(date(1500, 3, 10).toordinal() - EPOCH) == (1500, 2, 29), "a leap year by Caesar's rule only"


def test_from_days_outside_postgresql_is_refused() -> None:
    with pytest.raises(ValueError, match="no date of PostgreSQL"):
        from_days(2_145_042_906)


@pytest.mark.parametrize(
    ("unit", "count", "expected"),
    [
        ("ms", 1772323199123, datetime(2026, 2, 28, 23, 59, 59, 123000)),
        ("us", 1772323199123456, datetime(2026, 2, 28, 23, 59, 59, 123456)),
        ("ns", 1772323199123456000, datetime(2026, 2, 28, 23, 59, 59, 123456)),
        ("us", -1, datetime(1969, 12, 31, 23, 59, 59, 999999)),
        ("us", 253402300800000000, Beyond("10000-01-01 00:00:00")),
        ("ms", 9223372036825200, INFINITY),
        ("us", 9223372036825200000, INFINITY),
        ("ns", -29575808000, INFINITY),
        ("us", -9223372036832400000, MINUS_INFINITY),
        ("ns", 22375808000, MINUS_INFINITY),
    ],
)
def test_timestamp_reader_reads_each_unit(unit: str, count: int, expected: object) -> None:
    assert timestamp_reader(unit, julian=False)(count) == expected


def test_timestamp_reader_before_the_reform_depends_on_the_calendar() -> None:
    micros = -63517953600000000
    assert timestamp_reader("us", julian=True)(micros) == Beyond("0044-03-15 12:00:00 BC")
    assert timestamp_reader("us", julian=False)(micros) == Beyond("0044-03-13 12:00:00 BC")
    medieval = -14831769600000000  # 1500-01-01 in the Gregorian calendar
    assert timestamp_reader("us", julian=True)(medieval) == datetime(1499, 12, 23)
    assert timestamp_reader("us", julian=False)(medieval) == datetime(1500, 1, 1)


def test_time_reader_end_of_day_is_not_midnight() -> None:
    assert time_reader("us")(86_400_000_000) == END_OF_DAY
    assert time_reader("ms")(0) == time(0)
    with pytest.raises(ValueError, match="no time of day"):
        time_reader("us")(86_400_000_001)


@pytest.mark.parametrize(
    ("text", "zoned", "expected"),
    [
        ("2026-02-28T18:29:59.123456Z", True, datetime(2026, 2, 28, 18, 29, 59, 123456, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999Z", True, datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        ("2026-02-28T23:59:59.1Z", False, datetime(2026, 2, 28, 23, 59, 59, 100000)),
        ("2026-01-01 00:00:00+05:30", True, datetime(2025, 12, 31, 18, 30, tzinfo=UTC)),
        ("-infinity", True, MINUS_INFINITY),
        ("-0043-03-15T12:00:00Z", True, Beyond("0044-03-15 12:00:00+00 BC")),
        ("+294247-01-10T04:00:25.2Z", False, INFINITY),
    ],
)
def test_parse_timestamp_reads_iso(text: str, zoned: bool, expected: object) -> None:
    assert parse_timestamp(text, zoned=zoned) == expected


def test_parse_date_and_time_read_iso_with_z() -> None:
    assert parse_date("2026-02-28Z") == date(2026, 2, 28)
    assert parse_date("-5877611-06-21Z") == INFINITY
    assert parse_time("13:14:15.123456Z", zoned=False) == time(13, 14, 15, 123456)
    assert parse_time("11:14:15Z", zoned=True) == time(11, 14, 15, tzinfo=UTC)
    for bad in ("2026-13-01", "28.2.2026"):
        with pytest.raises(ValueError):
            parse_date(bad)


@pytest.mark.parametrize(("days", "expected"), [(-622191234, INFINITY), (-625821272, MINUS_INFINITY), (-2147472692, INFINITY)])
def test_infinite_dates_of_snapshot_and_log_are_infinite(days: int, expected: Beyond) -> None:
    assert from_days(days) == expected


@pytest.mark.parametrize("count", [-9223372036853775810, (1 << 63) - 1])
def test_timestamp_that_debezium_had_no_number_for_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="lost"):
        timestamp_reader("us", julian=False)(count)


def test_zoned_timestamps_of_a_snapshot_before_the_reform_are_read_back() -> None:
    assert parse_timestamp("-0043-03-13T06:30:00.000000Z", zoned=True, julian=True) == Beyond("0044-03-15 06:30:00+00 BC")
    assert parse_timestamp("1582-10-14T00:00:00.000000Z", zoned=True, julian=True) == datetime(1582, 10, 4, tzinfo=UTC)
    assert parse_timestamp("1582-10-04T00:00:00.000000Z", zoned=True) == datetime(1582, 10, 4, tzinfo=UTC)


def test_far_timestamps_are_written_as_postgresql_does() -> None:
    assert timestamp_reader("ms", julian=False)(253402300800500) == Beyond("10000-01-01 00:00:00.5")
