"""Durations as people write them: "30s", "5m", "1h30m", "200ms", or a `timedelta`; inside the engine integer milliseconds.

A bare number is refused: nobody remembers whether a 30 meant seconds or milliseconds.
"""

import re
from datetime import timedelta

from engine.errors import ConfigError

Duration = str | timedelta

DURATION_MAX_MS = 10_000 * 365 * 86_400_000
"""Ten thousand years: a time and a duration always add up to what fits into 64 bits."""

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PART = re.compile(r"(\d+)(ms|s|m|h|d)")
_WHOLE = re.compile(r"([+-]?)((?:\d+(?:ms|s|m|h|d))+)")


def duration_ms(value: Duration, what: str, *, minimum_ms: int | None = 0) -> int:
    """Return a duration in milliseconds.

    Args:
        value: Text such as "1h30m", signed where `minimum_ms` allows it, or a `timedelta` of whole milliseconds.
        what: What the duration is for; it opens the error message ("window size of 'revenue'").
        minimum_ms: The smallest value allowed; None for no limit.
    Raises:
        ConfigError: Not a duration, a bare number, below the minimum, or above ten thousand years.
    """
    if isinstance(value, timedelta):
        total_ms, rest = divmod(value, timedelta(milliseconds=1))
        if rest:
            raise ConfigError(f"{what}: {value!r} is not a whole number of milliseconds")
    elif isinstance(value, str):
        whole = _WHOLE.fullmatch(value.strip())
        if whole is None:
            raise ConfigError(f"{what}: {value!r} is not a duration; write one such as '30s', '5m', '1h30m' or '200ms'")
        total_ms = sum(int(number) * _UNITS_MS[unit] for number, unit in _PART.findall(whole[2]))
        total_ms = -total_ms if whole[1] == "-" else total_ms
    else:
        raise ConfigError(f"{what}: {value!r} is not a duration; write its unit too, such as '30s', or use a timedelta")
    if minimum_ms is not None and total_ms < minimum_ms:
        least = "positive" if minimum_ms == 1 else f"at least {minimum_ms} ms"
        raise ConfigError(f"{what}: {value!r} is not allowed; it must be {least}")
    if abs(total_ms) > DURATION_MAX_MS:
        raise ConfigError(f"{what}: {value!r} is not allowed; it must be at most ten thousand years")
    return total_ms
