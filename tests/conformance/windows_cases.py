"""Window, watermark and join cases: each kind says how it is replayed through the classes that a pipeline uses."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from engine import agg, triggers, windows
from engine.block import MAX_TIME, MIN_TIME
from engine.errors import ConfigError
from engine.operators.join import JoinSpec, join_operator
from engine.operators.window import WindowSpec, window_operator
from engine.testing.driver import TestDriver
from engine.testing.harness import OperatorHarness
from engine.topology import Topology
from engine.triggers import Trigger
from engine.watermarks import SourceClock, SourceTime, Valve, ValveState, bounded
from engine.windows import FixedWindow, SessionWindow, Window

Case = Mapping[str, Any]
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


class Untimed(msgspec.Struct, frozen=True):
    """A record's value whose event time may be missing."""

    ts: int | None


class Wrong(Exception):
    """A step gave something else than expected."""


def expect(found: Any, expected: Any, where: str) -> None:
    """Compare."""
    if found != expected:
        raise Wrong(f"{where}: {found!r} instead of {expected!r}")


def time_of(value: Any) -> int:
    """Return a time of a case: a number, or one of the ends of 64 bits."""
    return {"min": MIN_TIME, "max": MAX_TIME}[value] if isinstance(value, str) else value


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
        expect(_unordered(results), _unordered(expected), where)
        late = [{"key": side.key, "value": side.value.value, "ts": side.timestamp_ms} for side in harness.take_sides()]
        _expect_late(harness, step, late_to, late, where)


def _expect_late(harness: OperatorHarness, step: Case, late_to: str | None, found: Sequence[Case], where: str) -> None:
    """Compare late records where they are given out; otherwise their number, where the case tells it."""
    expected = step.get("late", [])
    if late_to is not None:
        names = found[0] if found else ()
        expect(_unordered(found), _unordered([{name: row[name] for name in names or row} for row in expected]), f"{where}, late")
    if late_to is not None or expected:
        expect(harness.counters.pop("late_records", 0), len(expected), f"{where}, number of late records")


def _result(row: Case) -> dict[str, Any]:
    window = (row["window_start"], row["window_end"]) if "window_start" in row else None
    return {"key": row["key"], "window": window, "value": row["value"]}


def _unordered(rows: Sequence[Case]) -> list[str]:
    return sorted(repr(sorted(row.items())) for row in rows)


# -- windows by themselves


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


# -- watermarks


def watermark_generator(case: Case) -> None:
    """Feed a source's clock."""
    spec = case["spec"]
    if spec["strategy"] != "bounded_out_of_orderness":
        raise Wrong(f"the strategy {spec['strategy']!r} is unknown")
    clock = SourceClock(bounded(f"{spec['max_out_of_orderness_ms']}ms"))
    for number, step in enumerate(case["steps"]):
        if "event_ts" in step:
            clock.take([time_of(step["event_ts"])], [None], 0, None)
        elif "periodic_emit" in step:
            expect(clock.time.watermark, time_of(step["watermark"]), f"step {number}")
        else:
            raise Wrong(f"unknown step {step}")


def idleness_timer(case: Case) -> None:
    """Let a source's clock see the wall clock; what came since the last look is not quiet."""
    clock = SourceClock(bounded("0s", idle=f"{case['spec']['idle_timeout_ms']}ms"))
    now_ms, active = 0, False
    clock.open(SourceTime(), now_ms)
    for number, step in enumerate(case["steps"]):
        if "advance_ms" in step:
            now_ms += step["advance_ms"]
        elif "activity" in step:
            clock.take([number], [None], now_ms, None)
            active = True
        elif "check" in step:
            clock.observe(now_ms, quiet=not active)
            active = False
            expect(clock.time.idle, step.get("idle", clock.time.idle), f"step {number}")
        else:
            raise Wrong(f"unknown step {step}")


def watermark_valve(case: Case) -> None:
    """Feed a valve, and look at what has changed after each step."""
    valve = Valve(case["inputs"], follow_idle=False)
    idle = [False] * case["inputs"]
    for number, step in enumerate(case["steps"]):
        watermark, was_idle = valve.watermark, valve.idle
        channel = step["input"]
        if "status" in step:
            idle[channel] = step["status"] == "idle"
            valve.status(channel, idle=idle[channel])
        else:
            valve.input(channel, time_of(step["watermark"]), idle=idle[channel])
        emitted: list[dict[str, Any]] = [] if valve.watermark == watermark else [{"watermark": valve.watermark}]
        if valve.idle and not was_idle:
            emitted.append({"status": "idle"})
        elif was_idle and not valve.idle:
            emitted.insert(0, {"status": "active"})
        expect(emitted, [_times(row) for row in step["emit"]], f"step {number}")


def _times(row: Case) -> dict[str, Any]:
    return {name: time_of(value) if name == "watermark" else value for name, value in row.items()}


class Multiplexer:
    """Outputs that come and go, as the state of a valve; an output that was idle counts again at its next watermark."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._told: dict[str, tuple[int, bool]] = {}
        self._valve = Valve(0)
        self.idle = False

    @property
    def watermark(self) -> int | None:
        """The combined watermark, None for none."""
        return None if self._valve.watermark == MIN_TIME else self._valve.watermark

    def register(self, name: str) -> None:
        """Add an output."""
        self._names.append(name)
        self._told[name] = (MIN_TIME, False)

    def unregister(self, name: str) -> None:
        """Remove an output."""
        self._names.remove(name)
        del self._told[name]

    def tell(self, name: str, watermark: int | None) -> None:
        """Note what an output says: a watermark, or None for idle."""
        reached, _ = self._told[name]
        self._told[name] = (reached, True) if watermark is None else (max(reached, watermark), False)

    def update(self) -> None:
        """Combine what the outputs have said."""
        if not self._names:
            return
        watermarks, idle = zip(*(self._told[name] for name in self._names), strict=True)
        none = (False,) * len(idle)
        self._valve = Valve(len(idle), ValveState(watermarks, none, (True,) * len(idle), self._valve.watermark))
        for number, is_idle in enumerate(idle):
            self._valve.input(number, watermarks[number], idle=is_idle)
        self.idle = self._valve.idle


def watermark_multiplexer(case: Case) -> None:
    """Combine outputs."""
    outputs = Multiplexer()
    for number, step in enumerate(case["steps"]):
        if "register" in step:
            outputs.register(step["register"])
        elif "unregister" in step:
            outputs.unregister(step["unregister"])
        elif "output" in step:
            outputs.tell(step["output"], None if step.get("idle") else time_of(step["watermark"]))
            if step["mode"] == "immediate":
                outputs.update()
        elif "periodic_emit" in step:
            outputs.update()
        else:
            raise Wrong(f"unknown step {step}")
        expected = step["out"]
        watermark = None if expected["watermark"] is None else time_of(expected["watermark"])
        expect((outputs.watermark, outputs.idle), (watermark, expected["idle"]), f"step {number}")


# -- joins


def interval_join(case: Case) -> None:
    """Run the join operator plainly, and restarted before every step."""
    for restarts in (False, True):
        _replay_join(case["spec"], case["steps"], restarts)


def _replay_join(spec: Case, steps: Sequence[Case], restarts: bool) -> None:
    late_to = "late" if spec.get("late_side_output") else None
    bounds: Any = ("[" if spec["lower_inclusive"] else "(") + ("]" if spec["upper_inclusive"] else ")")
    declared = JoinSpec(spec["lower_ms"], spec["upper_ms"], bounds=bounds, late_to=late_to, left_type=int, right_type=int)
    harness = OperatorHarness(join_operator(declared))
    ports = {"left": 0, "right": 1}
    for number, step in enumerate(steps):
        where = f"step {number}{', restarted' if restarts else ''}"
        if restarts or "checkpoint_restore" in step:
            harness.snapshot_and_restore()
        if "expect_error" in step:
            expect((step["expect_error"], step["event"]["ts"]), ("missing_timestamp", None), where)
            _expect_no_time(where)
            continue
        if "event" in step:
            event = step["event"]
            timestamp_ms = time_of(event["ts"])
            harness.feed(event["key"], timestamp_ms, timestamp_ms, port=ports[event["side"]])
        elif "watermark" in step:
            harness.advance(time_of(step["watermark"]["ts"]), port=ports[step["watermark"]["side"]])
        pairs = [{"left": out.value[0], "right": out.value[1], "ts": out.timestamp_ms} for out in harness.take()]
        expect(_unordered(pairs), _unordered(step.get("emit", [])), where)
        _expect_late(harness, step, late_to, [{"ts": side.timestamp_ms} for side in harness.take_sides()], where)
        if "buffered_after" in step:
            held = {name: [timestamp_ms for timestamp_ms, _ in rows] for name, rows in harness.operator.inspect("key")}
            expect(held, step["buffered_after"], f"{where}, buffered")


def _expect_no_time(where: str) -> None:
    """A record without an event time does not get as far as an operator: its source refuses it."""
    topology = Topology("conformance")
    source = topology.source("events", Untimed, time=lambda value: value.ts)
    topology.pipeline(source, name="copy")(lambda stream: stream.to("copies"))
    with TestDriver(topology) as driver:
        driver.send("events", {"ts": None}, key="key")
        letters = driver.read("conformance-dlq")
        expect((len(driver.read("copies")), len(letters)), (0, 1), where)
        expect(any(b"event time" in value for _, value in letters[0].headers), True, f"{where}, {letters[0].headers}")


KINDS: Mapping[str, Callable[[Case], None]] = {
    "windowed_aggregation": windowed_aggregation,
    "window_assignment": window_assignment,
    "window_intersects": window_intersects,
    "merge_windows": merge_windows,
    "incremental_merge": incremental_merge,
    "invalid_spec": invalid_spec,
    "watermark_generator": watermark_generator,
    "idleness_timer": idleness_timer,
    "watermark_valve": watermark_valve,
    "combined_watermark": watermark_valve,
    "watermark_multiplexer": watermark_multiplexer,
    "interval_join": interval_join,
}
