"""Waiting for what services do by themselves; each wait has a limit and says what it waited for."""

import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 150.0
PATIENCE_MAX_S = 1_200.0


def eventually(what: str, found: Callable[[], Any], wanted: Any, check: Callable[[], None]) -> None:
    """Return when something is as wanted; `check` raises if it cannot become so any more. Patience begins anew while it changes."""
    end = time.monotonic() + PATIENCE_MAX_S
    deadline, before = min(end, time.monotonic() + PATIENCE_S), None
    while True:
        seen = found()
        if seen == wanted:
            return
        if seen != before:  # a slow machine may be far behind, and gets there
            deadline, before = min(end, time.monotonic() + PATIENCE_S), seen
        check()
        assert time.monotonic() < deadline, f"{what}: {_differences(seen, wanted)}"
        time.sleep(1.0)


def until(what: str, holds: Callable[[], bool]) -> None:
    """Return when something holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def _differences(seen: Any, wanted: Any) -> str:
    if isinstance(seen, dict) and isinstance(wanted, dict):
        keys = [key for key in {**seen, **wanted} if seen.get(key) != wanted.get(key)]
        return f"{len(keys)} differ, such as " + "; ".join(f"{key}: {seen.get(key)}, not {wanted.get(key)}" for key in keys[:5])
    return f"{seen!r}, not {wanted!r}"
