"""What the kinds of cases share: how a case is written, and what is said of a step that goes wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.block import MAX_TIME, MIN_TIME
from engine.testing.harness import OperatorHarness

Case = Mapping[str, Any]


class Wrong(Exception):
    """A step gave something else than expected."""


def expect(found: Any, expected: Any, where: str) -> None:
    """Compare."""
    if found != expected:
        raise Wrong(f"{where}: {found!r} instead of {expected!r}")


def time_of(value: Any) -> int:
    """Return a time of a case: a number, or one of the ends of 64 bits."""
    return {"min": MIN_TIME, "max": MAX_TIME}[value] if isinstance(value, str) else value


def expect_late(harness: OperatorHarness, step: Case, late_to: str | None, found: Sequence[Case], where: str) -> None:
    """Compare late records where they are given out; otherwise their number, where the case tells it."""
    expected = step.get("late", [])
    if late_to is not None:
        names = found[0] if found else ()
        expect(unordered(found), unordered([{name: row[name] for name in names or row} for row in expected]), f"{where}, late")
    if late_to is not None or expected:
        expect(harness.counters.pop("late_records", 0), len(expected), f"{where}, number of late records")


def unordered(rows: Sequence[Case]) -> list[str]:
    """Return rows as text, in an order that does not depend on theirs."""
    return sorted(repr(sorted(row.items())) for row in rows)
