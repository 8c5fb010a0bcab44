"""Triggers: when a window gives results, if not once, when it is final.

Without a trigger a window fires once: when the watermark reaches its end - 1 + lateness.

    trigger             fires                                                        result so far
    (none)              ----------------------------|end ......... |end + lateness   once, final
    on_late()           ----------------------------|end  | |      |                 at the end, and at each late record
    every(records=2)    ------|---------|---------|-|end                             early, and at the end
    every(event_time=)  ---|---|---|---|---|---|---|-|end                            at multiples of a duration

With `purge` a firing empties the window, so that each result tells only what is new since the last one.
"""

from dataclasses import dataclass

from engine.durations import Duration, duration_ms
from engine.errors import ConfigError


class Trigger:
    """Base of the triggers; make one with the functions of this module."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class OnLate(Trigger):
    """Fire at the end of the window, and again with every late record that the lateness still allows."""

    purge: bool = False


@dataclass(frozen=True, slots=True)
class Every(Trigger):
    """Fire early too; exactly one of the three is set.

    Attributes:
        records: After so many records of a key in a window.
        event_time_ms: When the watermark passes a multiple of it, from the first record of a key on.
        wall_clock_ms: At the next multiple of the wall clock after a record has come.
    """

    records: int | None = None
    event_time_ms: int | None = None
    wall_clock_ms: int | None = None
    purge: bool = False


def on_late(*, purge: bool = False) -> OnLate:
    """Return the trigger that fires at a window's end, and at once for each late record within the allowed lateness."""
    return OnLate(purge)


def every(
    *, records: int | None = None, event_time: Duration | None = None, wall_clock: Duration | None = None, purge: bool = False
) -> Every:
    """Return the trigger that gives early results, and the last one at the window's end (again for late records).

    Args:
        records: After every so many records of a key in a window; at the end only if there was one more.
        event_time: Each time the watermark passes a multiple of it, once there is a record, changed or not.
        wall_clock: At the next multiple of the wall clock after a record has come.
        purge: Drop what a firing has told.
    """
    if sum(argument is not None for argument in (records, event_time, wall_clock)) != 1:
        raise ConfigError("triggers.every: give exactly one of records=, event_time= and wall_clock=")
    if records is not None:
        if type(records) is not int or records < 1:
            raise ConfigError(f"triggers.every: records={records!r} is not allowed; it must be a whole number, at least 1")
        return Every(records=records, purge=purge)
    if event_time is not None:
        return Every(event_time_ms=duration_ms(event_time, "event_time of triggers.every", minimum_ms=1), purge=purge)
    assert wall_clock is not None
    return Every(wall_clock_ms=duration_ms(wall_clock, "wall_clock of triggers.every", minimum_ms=1), purge=purge)


__all__ = ["Every", "OnLate", "Trigger", "every", "on_late"]
