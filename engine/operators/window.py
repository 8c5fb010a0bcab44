"""Windowed aggregation: the declaration (`WindowSpec`), and which operator does the work.

    fixed windows, no trigger        `window_panes`      blocks at a time; panes of all keys, shared by overlapping windows
    sessions, no trigger             `window_sessions`   keys at a time
    everything(), no trigger         `window_everything` blocks at a time
    with a trigger                   `window_triggers`   record by record
    sliding(), count()               `window_sliding`, `window_count`

All of them behave as `engine.block` says: before each record, what the watermark has made due fires, by time and then key; a
record all of whose windows are closed for good (end - 1 + lateness <= watermark) is late: counted, and sent to `late_to`.
Results have the timestamp end - 1. With a lateness they come out later than that, so that a window of windows needs as much.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from engine.block import MAX_TIME
from engine.errors import ConfigError
from engine.operators.base import Operator, OperatorContext, Reach, own_time
from engine.operators.window_count import CountWindows
from engine.operators.window_ends import EndedSessions
from engine.operators.window_everything import EverythingWindows
from engine.operators.window_panes import PaneWindows
from engine.operators.window_plan import WindowPlan, WindowSpec, window_reach
from engine.operators.window_sessions import SessionWindows
from engine.operators.window_sliding import SlidingWindows
from engine.operators.window_triggers import TriggeredWindows
from engine.windows import CountWindow, EverythingWindow, FixedWindow, SessionWindow, SlidingWindow


def window_operator(spec: WindowSpec, what: str = "window") -> Callable[[OperatorContext], Operator]:
    """Return what makes the operator for a task.

    Args:
        what: Where it stands; it opens the error messages.
    Raises:
        ConfigError: The parts of the spec do not go together.
    """
    plan = WindowPlan(spec, what)
    _check(spec, plan, what)
    kind, reach = _kind(spec, plan), _reach(spec)
    reach = replace(reach, by_time=kind is not TriggeredWindows and kind is not CountWindows)

    def make(context: OperatorContext) -> Operator:
        operator = kind(context, plan)
        operator.reach = reach
        return operator

    return make


def _kind(spec: WindowSpec, plan: WindowPlan) -> Callable[[OperatorContext, WindowPlan], Operator]:
    """Return the operator that does the work."""
    window = spec.window
    if isinstance(window, CountWindow):
        return CountWindows
    if isinstance(window, SlidingWindow):
        return SlidingWindows
    if isinstance(window, SessionWindow) and window.ends_with is not None:
        return EndedSessions
    if isinstance(window, SessionWindow) and spec.trigger is None:
        return SessionWindows
    if isinstance(window, FixedWindow) and spec.trigger is None and (plan.folding.mergeable or window.every_ms == window.size_ms):
        return PaneWindows
    if isinstance(window, EverythingWindow) and spec.trigger is None:
        return EverythingWindows
    return TriggeredWindows


def _reach(spec: WindowSpec) -> Reach:
    """Return where the traces of results come from."""
    window, lateness_ms = spec.window, spec.lateness_ms
    if isinstance(window, EverythingWindow):
        return Reach(lambda time_ms, value: MAX_TIME, lambda time_ms, value: (MAX_TIME,))
    if isinstance(window, FixedWindow):
        return window_reach(window, lateness_ms)
    if isinstance(window, SessionWindow) and window.ends_with is not None:
        ends_with = window.ends_with

        def last_of(time_ms: int, value: Any) -> int:
            return time_ms if ends_with(value) else time_ms + window.gap_of(value) - 1

        return Reach(last_of, lambda time_ms, value: (time_ms,), lateness_ms)
    if isinstance(window, SessionWindow) and callable(window.gap_ms):
        return Reach(lambda time_ms, value: time_ms + window.gap_of(value) - 1, lambda time_ms, value: (time_ms,), lateness_ms)
    if isinstance(window, SessionWindow):
        gap_ms = window.gap_of(None)
        return Reach(lambda time_ms, value: time_ms, lambda time_ms, value: (time_ms, time_ms + 1 - gap_ms), gap_ms + lateness_ms)
    return own_time(lateness_ms)


def _check(spec: WindowSpec, plan: WindowPlan, what: str) -> None:
    """Refuse combinations that have no meaning."""
    window = spec.window
    if spec.lateness_ms < 0:
        raise ConfigError(f"{what}: a lateness of {spec.lateness_ms} ms is not allowed; it must be at least 0")
    if spec.trigger is not None and spec.emit == "update":
        raise ConfigError(f"{what}: emit='update' and a trigger both say when results come out; leave one of them out")
    if isinstance(window, CountWindow | EverythingWindow) and (spec.lateness_ms or spec.late_to is not None):
        raise ConfigError(f"{what}: {window!r} has no end in time, so that nothing is late for it; leave out lateness and late_to")
    if isinstance(window, CountWindow | SlidingWindow) and (spec.trigger is not None or spec.emit == "update"):
        raise ConfigError(f"{what}: {window!r} gives one result each time; leave out the trigger and emit='update'")
    if isinstance(window, SessionWindow) and window.ends_with is not None:
        if spec.trigger is not None or spec.emit == "update" or spec.lateness_ms:
            raise ConfigError(f"{what}: sessions with ends_with= give one final result; leave out trigger, emit='update' and lateness")
        return
    joins = isinstance(window, SessionWindow | SlidingWindow) or (isinstance(window, CountWindow) and window.every < window.size)
    if joins and not plan.folding.mergeable:
        raise ConfigError(f"{what}: {window!r} joins partial results, which agg.reduce can do only with merge=")


__all__ = ["WindowSpec", "window_operator"]
