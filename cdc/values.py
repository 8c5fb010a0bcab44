"""Values of PostgreSQL that Python has no type for, and notes on a declared type where a record does not say enough.

| PostgreSQL                                     | Python                                                           |
|------------------------------------------------|------------------------------------------------------------------|
| infinity, BC, years above 9999, 24:00          | `Beyond("infinity")`: the text that PostgreSQL itself writes      |
| interval '1 year 3 days'                       | `Interval(months=12, days=3)`; `timedelta` where µs were captured |
| int4range '[1,10)'                             | `Range(1, 10)`                                                   |

`Beyond` is a Struct, so `date | Beyond` is a type that msgspec reads and writes like any other.

Notes go into the annotation of a column: `amount: Annotated[Decimal, Scale(2)]`, `at: Annotated[datetime, Unit("us")]`,
`photo: Annotated[bytes, Encoded("hex")]`. They are needed where the records carry no schema.
"""

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any, Generic, Literal, TypeVar

from msgspec import Struct

T = TypeVar("T")

MONTH_US = 2_629_800_000_000
"""30.4375 days: what Debezium counts for a month where it writes an interval as a number."""


class Beyond(Struct, frozen=True):
    """A date or time that Python cannot hold, as PostgreSQL writes it: "infinity", "0044-03-15 12:00:00 BC", "24:00:00"."""

    text: str

    def __str__(self) -> str:
        return self.text


INFINITY = Beyond("infinity")
MINUS_INFINITY = Beyond("-infinity")
END_OF_DAY = Beyond("24:00:00")


class Interval(Struct, frozen=True):
    """An interval as PostgreSQL keeps it: months and days have no fixed length, so the three parts are not one number."""

    months: int = 0
    days: int = 0
    microseconds: int = 0

    def as_timedelta(self) -> timedelta:
        """Return the length with Debezium's months of 30.4375 days, the same that its numeric mode gives."""
        return timedelta(days=self.days, microseconds=self.microseconds + self.months * MONTH_US)


_ISO_INTERVAL = re.compile(
    r"P(?:([+-]?\d+)Y)?(?:([+-]?\d+)M)?(?:([+-]?\d+)W)?(?:([+-]?\d+)D)?(?:T(?:([+-]?\d+)H)?(?:([+-]?\d+)M)?(?:([+-]?\d*\.?\d+)S)?)?"
)


def parse_interval(text: str) -> Interval:
    """Return the interval of an ISO 8601 text with a sign at each part, such as "P1Y2M3DT4H5M6.789S".

    Raises:
        ValueError: Another form.
    """
    match = _ISO_INTERVAL.fullmatch(text)
    if match is None or text in ("P", "PT"):
        raise ValueError(f"{text!r} is not an ISO 8601 interval")
    years, months, weeks, days, hours, minutes = (int(part or 0) for part in match.groups()[:6])
    microseconds = int(Decimal(match[7] or 0) * 1_000_000)
    return Interval(years * 12 + months, weeks * 7 + days, (hours * 60 + minutes) * 60_000_000 + microseconds)


class Range(Struct, Generic[T], frozen=True):
    """A range; a bound of None is open to infinity. An empty range has `empty` and no bounds."""

    lower: T | None = None
    upper: T | None = None
    lower_included: bool = True
    upper_included: bool = False
    empty: bool = False


_RANGE = re.compile(r'([\[(])("(?:[^"\\]|\\.|"")*"|[^",\\]*),("(?:[^"\\]|\\.|"")*"|[^",\\]*)([\])])', re.DOTALL)


def parse_range(text: str) -> Range[str]:
    """Return the range that PostgreSQL's text says, its bounds still as text.

    Raises:
        ValueError: Not a range.
    """
    if text == "empty":
        return Range(empty=True, lower_included=False)
    match = _RANGE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a range")
    lower, upper = (_bound(part) for part in match.groups()[1:3])
    return Range(lower, upper, match[1] == "[" and lower is not None, match[4] == "]" and upper is not None)


def _bound(text: str) -> str | None:
    if not text:
        return None
    if text[0] != '"':
        return text
    return re.sub(r'\\(.)|""', lambda match: match[1] or '"', text[1:-1], flags=re.DOTALL)


class Scale(Struct, frozen=True):
    """Digits behind the point of a decimal that comes as bytes: `Annotated[Decimal, Scale(2)]`."""

    digits: int


class Unit(Struct, frozen=True):
    """What a number counts from the epoch or from midnight: `Annotated[datetime, Unit("us")]`."""

    of: Literal["ms", "us", "ns"]


class Encoded(Struct, frozen=True):
    """How bytes were written as text (`binary.handling.mode`): `Annotated[bytes, Encoded("hex")]`."""

    by: Literal["base64", "base64-url-safe", "hex"]


def notes(annotations: tuple[Any, ...]) -> dict[type, Any]:
    """Return the notes among the metadata of an annotation, by their class."""
    return {type(note): note for note in annotations if isinstance(note, Scale | Unit | Encoded)}
