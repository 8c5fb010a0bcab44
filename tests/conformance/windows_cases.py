"""Window cases, and the list of all kinds of time: each says how it is replayed through the classes that a pipeline uses."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from engine import agg, triggers, windows
from engine.errors import ConfigError
from engine.operators.window import WindowSpec, window_operator
from engine.testing.harness import OperatorHarness
from engine.triggers import Trigger
from engine.watermarks import bounded
from engine.windows import FixedWindow, SessionWindow, Window
from tests.conformance import join_cases, time_cases
from tests.conformance.case import Case, Wrong, expect, expect_late, time_of, unordered

Span = tuple[int, int]


class Event(msgspec.Struct, frozen=True):
    """A record's value; the key stands in it too, since gap rules look at it."""

    key: str
    value: int


def run(case: Case) -> str | None:
    """Replay a case; return what is wrong, None if nothing is."""
    kind = case.get("kind", "")
    if kind not in KINDS:
        return f"the kind {kind!r} is unknown"
    try:
        KINDS[kind](case)
    except Wrong as error:
        return str(error)
    return None


def window_of(spec: Case) -> Window:
    """Return the window that a spec describes."""
    kind, offset = spec["assigner"], f"{spec.get('offset_ms', 0)}ms"
    if kind == "tumbling":
        return windows.tumbling(f"{spec['size_ms']}ms", offset=offset)
    if kind == "sliding":
        return windows.hopping(f"{spec['size_ms']}ms", every=f"{spec['slide_ms']}ms", offset=offset)
    if kind == "session":
        return windows.session(_gap_of(spec["gap_rules"]) if "gap_rules" in spec else f"{spec['gap_ms']}ms")
    if kind == "global":
        return windows.everything()
    raise Wrong(f"the assigner {kind!r} is unknown")


def _gap_of(rules: Sequence[Case]) -> Callable[[Event], int]:
    def gap(event: Event) -> int:
        for rule in rules:
            if rule.get("if_key", event.key) == event.key and rule.get("if_value", event.value) == event.value:
                gap_ms: int = rule["gap_ms"]
                return gap_ms
        raise Wrong(f"no gap rule fits {event}")

    return gap


# -- windowed aggregation


def windowed_aggregation(case: Case) -> None:
    """Run the operator plainly, and restarted before every step; with every trigger that means what the spec says."""
    spec = case["spec"]
    for trigger in _triggers_of(spec):
        for restarts in (False, True):
            _replay_windows(spec, case["steps"], trigger, restarts)


def _triggers_of(spec: Case) -> list[Trigger | None]:
    trigger = spec["trigger"]
    if trigger == "event_time":
        return [triggers.on_late()] if spec.get("allowed_lateness_ms") else [None, triggers.on_late()]
    if trigger == "event_time_purging":
        return [triggers.on_late(purge=True)]
    if trigger in ("processing_time", "end_of_stream"):
        return [None]
    if isinstance(trigger, Mapping) and "count" in trigger:
        return [triggers.every(records=trigger["count"], purge=trigger.get("purge", False))]
    if isinstance(trigger, Mapping) and "continuous_event_time_ms" in trigger:
        return [triggers.every(event_time=f"{trigger['continuous_event_time_ms']}ms")]
    raise Wrong(f"the trigger {trigger!r} is unknown")


def _replay_windows(spec: Case, steps: Sequence[Case], trigger: Trigger | None, restarts: bool) -> None:
    if spec["agg"] != "sum":
        raise Wrong(f"the aggregate {spec['agg']!r} is unknown")
    late_to = "late" if spec.get("late_side_output") else None
    declared = WindowSpec(
        window_of(spec), {"value": agg.sum("value")}, spec.get("allowed_lateness_ms", 0), late_to, trigger, value_type=Event
    )
    harness = OperatorHarness(window_operator(declared))
    now_ms = 0
    for number, step in enumerate(steps):
        where = f"step {number}, trigger {trigger}{', restarted' if restarts else ''}"
        if restarts or "checkpoint_restore" in step:
            harness.snapshot_and_restore()
        if "event" in step:
            event = step["event"]
            timestamp_ms = now_ms if spec["time"] == "processing" else time_of(event["ts"])
            harness.feed(event["key"], Event(event["key"], event["value"]), timestamp_ms)
        elif "watermark" in step:
            harness.advance(time_of(step["watermark"]))
        elif "processing_time" in step:
            now_ms = step["processing_time"]
            harness.advance(now_ms)
        elif "checkpoint_restore" not in step:
            raise Wrong(f"{where}: unknown step {step}")
        results = [_result(out.value) for out in harness.take()]
        expected = [{**result, "window": result["window"] and tuple(map(time_of, result["window"]))} for result in step.get("emit", [])]
        expect(unordered(results), unordered(expected), where)
        late = [{"key": side.key, "value": side.value.value, "ts": side.timestamp_ms} for side in harness.take_sides()]
        expect_late(harness, step, late_to, late, where)


def _result(row: Case) -> dict[str, Any]:
    window = (row["window_start"], row["window_end"]) if "window_start" in row else None
    return {"key": row["key"], "window": window, "value": row["value"]}


def window_assignment(case: Case) -> None:
    """Ask the window which windows hold a time."""
    window = window_of(case["spec"])
    assert isinstance(window, FixedWindow | SessionWindow)
    for row in case["expect"]:
        spans = [tuple(span) for span in window.assign(time_of(row["ts"]))]
        expected = [tuple(map(time_of, span)) for span in row["windows"]]
        expect(sorted(spans), sorted(expected), f"timestamp {row['ts']}")


class Sessions:
    """The session operator as a set of windows: one record makes a window of any length."""

    def __init__(self) -> None:
        spec = WindowSpec(windows.session(lambda length_ms: length_ms), {"records": agg.count()}, value_type=int)
        self._harness = OperatorHarness(window_operator(spec))

    def add(self, span: Sequence[Any]) -> Span:
        """Add a window; return the one that it ended up in."""
        start, end = map(time_of, span)
        self._harness.feed("key", end - start, start)
        return next(window for window in self.all() if window[0] <= start and end <= window[1])

    def all(self) -> list[Span]:
        """Return the windows."""
        return [(row["window_start"], row["window_end"]) for _, row in self._harness.operator.inspect("key")]


def window_intersects(case: Case) -> None:
    """Two windows that intersect become one session."""
    for row in case["expect"]:
        sessions = Sessions()
        sessions.add(row["a"])
        sessions.add(row["b"])
        expect(len(sessions.all()) == 1, row["intersects"], f"{row['a']} and {row['b']}")


def merge_windows(case: Case) -> None:
    """Add all windows, in both orders."""
    given = [tuple(map(time_of, span)) for span in case["windows"]]
    expected = {tuple(merge["into"]): sorted(map(tuple, merge["sources"])) for merge in case["expect_merges"]}
    for spans in (given, given[::-1]):
        sessions = Sessions()
        for span in spans:
            sessions.add(span)
        merges = {whole: sorted(span for span in spans if whole[0] <= span[0] and span[1] <= whole[1]) for whole in sessions.all()}
        expect({whole: parts for whole, parts in merges.items() if len(parts) > 1}, expected, f"order {spans}")


def incremental_merge(case: Case) -> None:
    """Add windows one at a time."""
    sessions = Sessions()
    for number, step in enumerate(case["steps"]):
        known = sessions.all()
        expect(sessions.add(step["add"]), tuple(step["result"]), f"step {number}")
        left = sessions.all()
        expect(any(window not in left for window in known), step["merged"], f"step {number}, merged")


def invalid_spec(case: Case) -> None:
    """Every spec is refused with a ConfigError."""
    for spec in case["specs"]:
        try:
            if "idle_timeout_ms" in spec:
                bounded("0s", idle=f"{spec['idle_timeout_ms']}ms")
            else:
                window_of(spec)
        except ConfigError:
            continue
        raise Wrong(f"{spec} was not refused")


KINDS: Mapping[str, Callable[[Case], None]] = {
    "windowed_aggregation": windowed_aggregation,
    "window_assignment": window_assignment,
    "window_intersects": window_intersects,
    "merge_windows": merge_windows,
    "incremental_merge": incremental_merge,
    "invalid_spec": invalid_spec,
    "watermark_generator": time_cases.watermark_generator,
    "idleness_timer": time_cases.idleness_timer,
    "watermark_valve": time_cases.watermark_valve,
    "combined_watermark": time_cases.watermark_valve,
    "watermark_multiplexer": time_cases.watermark_multiplexer,
    "interval_join": join_cases.interval_join,
}
