"""Dates and times as Debezium writes them, to Python's types, with their meaning kept.

Numbers count days, or ms, µs or ns since the epoch or midnight; the name of the column's schema says which. What Python's types
cannot hold becomes `Beyond`. Debezium's arithmetic leaves marks that are undone here, all seen in captures of PostgreSQL 15 with
Debezium 3.5:

- 'infinity' overflows: as a date -2147472692 days (-622191234 in a snapshot), as a timestamp 9223372036825200000 µs (in ns it wraps
  to -29575808000).
- Timestamps from 294247-01-10 on are more µs than 64 bits hold: Debezium writes about the highest number, which is refused.
- 24:00 is 86400000000 µs. In isostring mode it is "00:00:00Z", and lost.
- A snapshot reads timestamps before 1582-10-15 by the Julian calendar, the stream by the Gregorian, as PostgreSQL means them:
  44-03-15 BC is two days off in a snapshot, and so are texts of timestamptz. `julian=True` reads it back.

What is lost cannot be read back: a snapshot has dates BC without their era (44-03-15), and ns wrap outside 1677-09-21 to 2262-04-11.

Calendars: E. M. Reingold, N. Dershowitz, "Calendrical Calculations"; the day counts are the usual integer algorithms.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from cdc.values import END_OF_DAY, INFINITY, MINUS_INFINITY, Beyond

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # timestamps without time zone stay without
_EPOCH_DAYS = date(1970, 1, 1).toordinal()
_MIN_DAYS, _MAX_DAYS = 1 - _EPOCH_DAYS, date.max.toordinal() - _EPOCH_DAYS
_DAY_US = 86_400_000_000
_MIN_US, _MAX_US = _MIN_DAYS * _DAY_US, (_MAX_DAYS + 1) * _DAY_US - 1
_GREGORIAN_US = (date(1582, 10, 15).toordinal() - _EPOCH_DAYS) * _DAY_US
_POSTGRES_DAYS = (-2_440_588, 2_145_042_905)  # 4714-11-24 BC to 5874897-12-31
_POSTGRES_MIN_US = _POSTGRES_DAYS[0] * _DAY_US
_INFINITE_DAYS = {
    -2147472692: INFINITY,
    -2147472691: MINUS_INFINITY,
    365241780471: INFINITY,
    -365243219162: MINUS_INFINITY,
    -622191234: INFINITY,  # these in a snapshot, as numbers and as texts
    -625821272: MINUS_INFINITY,
    106751991166: INFINITY,
    106748361128: MINUS_INFINITY,
}
_INFINITE_US = {9223372036825200000: INFINITY, -9223372036832400000: MINUS_INFINITY}
_INFINITE_MS = {9223372036825200: INFINITY, -9223372036832400: MINUS_INFINITY}
_INFINITE_NS = {-29575808000: INFINITY, 22375808000: MINUS_INFINITY}
_INT64_MAX = (1 << 63) - 1
_PER_US = {"ms": (1000, 1), "us": (1, 1), "ns": (1, 1000)}


def from_days(days: int) -> date | Beyond:
    """Return the date of a number of days since 1970-01-01.

    Raises:
        ValueError: Outside what PostgreSQL can hold.
    """
    if _MIN_DAYS <= days <= _MAX_DAYS:
        return date.fromordinal(days + _EPOCH_DAYS)
    infinite = _INFINITE_DAYS.get(days)
    if infinite is not None:
        return infinite
    if not _POSTGRES_DAYS[0] <= days <= _POSTGRES_DAYS[1]:
        raise ValueError(f"{days} days since 1970 is no date of PostgreSQL's")
    return Beyond(_dated(*gregorian(days)))


def timestamp_reader(unit: str, *, julian: bool) -> Callable[[int], datetime | Beyond]:
    """Return the function from a count of `unit` ("ms", "us", "ns") since the epoch to a timestamp without time zone.

    Args:
        julian: The count was made by the Julian calendar before 1582-10-15 (snapshot reads).
    """
    times, per = _PER_US[unit]
    infinite = {"ms": _INFINITE_MS, "us": _INFINITE_US, "ns": _INFINITE_NS}[unit]
    lowest = max(_MIN_US, _GREGORIAN_US) if julian else _MIN_US

    def read(count: int) -> datetime | Beyond:
        if count in infinite:
            return infinite[count]
        micros = count * times // per
        if lowest <= micros <= _MAX_US:
            return EPOCH + timedelta(microseconds=micros)
        if micros < _POSTGRES_MIN_US or count == _INT64_MAX:
            raise ValueError(f"{count} {unit} stands for any time after 294247-01-10: Debezium had no number for it, and it is lost")
        return far_timestamp(micros, julian=julian)

    return read


def far_timestamp(micros: int, *, julian: bool) -> datetime | Beyond:
    """Return the timestamp of microseconds since the epoch, whatever the year."""
    days, rest = divmod(micros, _DAY_US)
    year, month, day = julian_calendar(days) if julian and micros < _GREGORIAN_US else gregorian(days)
    clock = _clock(rest)
    if 1 <= year <= 9999:
        return datetime.combine(date(year, month, day), clock)
    text, at = _dated(year, month, day), clock.isoformat()
    at = at.rstrip("0") if clock.microsecond else at
    return Beyond(f"{text[:-3]} {at} BC" if text.endswith(" BC") else f"{text} {at}")


def time_reader(unit: str) -> Callable[[int], time | Beyond]:
    """Return the function from a count of `unit` since midnight to a time of day."""
    times, per = _PER_US[unit]

    def read(count: int) -> time | Beyond:
        micros = count * times // per
        if micros == _DAY_US:
            return END_OF_DAY
        if not 0 <= micros < _DAY_US:
            raise ValueError(f"{count} {unit} since midnight is no time of day")
        return _clock(micros)

    return read


_ISO_DATE = re.compile(r"([+-]?\d{4,})-(\d\d)-(\d\d)Z?")
_ISO_TIMESTAMP = re.compile(r"([+-]?\d{4,})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d(?::?\d\d)?)?")


def parse_date(text: str) -> date | Beyond:
    """Return the date of an ISO text, with or without Z behind it."""
    if text in ("infinity", "-infinity"):
        return Beyond(text)
    match = _ISO_DATE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an ISO date")
    return from_days(days_of(int(match[1]), int(match[2]), int(match[3])))


def parse_timestamp(text: str, *, zoned: bool, julian: bool = False) -> datetime | Beyond:
    """Return the timestamp of an ISO text: in UTC if `zoned`, else without time zone."""
    if text in ("infinity", "-infinity"):
        return Beyond(text)
    value = _quickly(text)
    if value is not None and (not julian or value.year > 1582):
        return value if zoned else value.replace(tzinfo=None)
    match = _ISO_TIMESTAMP.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an ISO timestamp")
    year, month, day, hour, minute = (int(match[i]) for i in range(1, 6))
    seconds, fraction = int(match[6] or 0), int((match[7] or "0").ljust(6, "0")[:6])
    micros = days_of(year, month, day) * _DAY_US + ((hour * 60 + minute) * 60 + seconds) * 1_000_000 + fraction - _offset_us(match[8])
    if not zoned:
        return timestamp_reader("us", julian=julian)(micros)
    found = _INFINITE_US.get(micros) or far_timestamp(micros, julian=julian)
    if isinstance(found, datetime):
        return found.replace(tzinfo=UTC)
    if found in (INFINITY, MINUS_INFINITY):
        return found
    return Beyond(found.text[:-3] + "+00 BC") if found.text.endswith(" BC") else Beyond(found.text + "+00")


def _quickly(text: str) -> datetime | None:
    """Return the timestamp of a text in UTC, None if it is written otherwise: what Debezium writes is nearly always this."""
    if not text.endswith("Z"):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def parse_time(text: str, *, zoned: bool) -> time | Beyond:
    """Return the time of an ISO text: with UTC as its zone if `zoned`, else without one."""
    if text.startswith("24:00"):
        return END_OF_DAY
    value = time.fromisoformat(text)
    return value if zoned else value.replace(tzinfo=None)


def gregorian(days: int) -> tuple[int, int, int]:
    """Return (year, month, day) of days since 1970-01-01 in the proleptic Gregorian calendar; year 0 is 1 BC."""
    shifted = days + 719_468
    era, of_era = divmod(shifted, 146_097)
    year_of_era = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    return _from_march(era * 400 + year_of_era, of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100))


def julian_calendar(days: int) -> tuple[int, int, int]:
    """Return (year, month, day) of days since 1970-01-01 in the Julian calendar; year 0 is 1 BC."""
    shifted = days + 719_470
    era, of_era = divmod(shifted, 1_461)
    year_of_era = (of_era - of_era // 1_460) // 365
    return _from_march(era * 4 + year_of_era, of_era - 365 * year_of_era)


def days_of(year: int, month: int, day: int) -> int:
    """Return the days since 1970-01-01 of a proleptic Gregorian date; year 0 is 1 BC."""
    if not (1 <= month <= 12 and 1 <= day <= 31):
        raise ValueError(f"month {month}, day {day} is not a date")
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146_097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + of_year - 719_468


def _from_march(year: int, of_year: int) -> tuple[int, int, int]:
    """Return the date of a day of a year that begins in March, so that the leap day is the last."""
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    return year + (month >= 10), (month + 2) % 12 + 1, day


def _dated(year: int, month: int, day: int) -> str:
    """Write a date as PostgreSQL does."""
    return f"{year:04d}-{month:02d}-{day:02d}" if year > 0 else f"{1 - year:04d}-{month:02d}-{day:02d} BC"


def _clock(micros: int) -> time:
    return (EPOCH + timedelta(microseconds=micros)).time()


def _offset_us(text: Any) -> int:
    if text is None or text == "Z":
        return 0
    digits = text[1:].replace(":", "").ljust(4, "0")
    seconds = int(digits[:2]) * 3600 + int(digits[2:]) * 60
    return (-seconds if text[0] == "-" else seconds) * 1_000_000
