"""Watermark cases: clocks of sources, valves, and sources with several outputs."""

from typing import Any

from engine.block import MIN_TIME
from engine.watermarks import SourceClock, SourceTime, Valve, ValveState, bounded
from tests.conformance.case import Case, Wrong, expect, time_of


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
