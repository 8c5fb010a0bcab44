"""Window join of two streams: every pair of records of a key that lie in the same window, when the window closes.

    left.join(right, within=windows.tumbling("1m"))

    left     x 10:00:05   y 10:00:50        z 10:01:10
    right         a 10:00:30                           b 10:02:00
    window   [10:00 ──────────────────── 10:01)[10:01 ─────── 10:02)[10:02 …
    pairs    (x, a) (y, a)                                            how="left": (z, None)

With windows that overlap a pair comes out once for each window that holds both. A result has the time of a window's result, its end
- 1 ms. Records of a key are kept once, however many windows hold them, each until the last window that does has closed; the next
window of a key is put down for closing when a record comes that is in it, and when the one before it closes.

With a lateness a window stays open for so much longer: its pairs come out once, when the watermark has reached its end - 1 + lateness.
They keep their time, so that they are late for what follows unless that has as much lateness. A record is late when all its windows
are closed; it is counted ("late_records"), sent to `late_to` if given, and joins nothing.

Source: Flink's window join (DataStream API); outer joins as in its SQL window join.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from engine.block import Block
from engine.errors import ConfigError
from engine.keys import key_codec
from engine.operators.base import Operator, OperatorContext
from engine.operators.join_sides import Sides, SidesSpec
from engine.operators.window_plan import Results, send_late, window_reach
from engine.windows import FixedWindow, Span, Window
from state.values import unit_codec


@dataclass(frozen=True, slots=True)
class WindowJoinSpec(SidesSpec):
    """A declared window join; windows close so much behind their end."""

    window: FixedWindow
    lateness_ms: int = 0


class WindowJoin(Operator):
    """Records of both sides by key and event time, and the ends of windows that have to close."""

    def __init__(self, context: OperatorContext, spec: WindowJoinSpec) -> None:
        super().__init__(context)
        self._spec, self._window = spec, spec.window
        self._sides = Sides(context, spec)
        self.reach = window_reach(spec.window, spec.lateness_ms, ports=2)
        self._closes = context.state.timed(context.state_name("closes"), key_codec(spec.key_type), unit_codec)

    def process(self, block: Block, port: int = 0) -> None:
        block = self._sides.begin(block, port)
        results = Results(self, block)
        window, lateness_ms = self._window, self._spec.lateness_ms
        late = []
        for key, value, timestamp_ms, reached in zip(block.keys, block.values, block.timestamps, block.before, strict=True):
            self._close(reached, results)
            start = window.next_start(max(timestamp_ms, reached - lateness_ms + 1) - window.size_ms + 1)
            if start > timestamp_ms:
                last = window.last_start(timestamp_ms)
                late.append((key, value, timestamp_ms, Span(last, last + window.size_ms), reached))
                continue
            self._sides.put(port, key, timestamp_ms, value)
            self._closes.put(start + window.size_ms - 1, key, True)
        self._sides.end()
        self._close(block.watermark, results)
        send_late(self.context, self._spec.late_to, late)
        results.finish()

    def rolled_back(self) -> None:
        self._sides.rolled_back()

    def inspect(self, key: Any) -> Iterator[tuple[str, Any]]:
        return self._sides.inspect(key)

    def _close(self, until: int, results: Results) -> None:
        """Close the windows that are due at a time, in order; closing one may bring up the next of the key."""
        lateness_ms = self._spec.lateness_ms
        while (last_ms := self._closes.next_time()) is not None and last_ms + lateness_ms <= until:
            for _, key, _, _ in self._closes.due(last_ms):
                self._closes.delete(last_ms, key)
                pairs = self._pairs(key, last_ms + 1 - self._window.size_ms)
                if pairs:
                    make = lambda low, high, pairs=pairs: pairs[low:high]  # noqa: E731
                    results.add((key,) * len(pairs), make, due_ms=last_ms + lateness_ms, timestamp_ms=last_ms)

    def _pairs(self, key: Any, start: int) -> list[tuple[Any, Any]]:
        """Return what comes of a key's window, and drop the records that no later one holds."""
        window = self._window
        end, following = start + window.size_ms, start + window.every_ms
        inside: list[list[Any]] = []
        goes_on = False
        for held in self._sides.held:
            values = []
            for place, (value,) in held.items(key):
                if place[0] >= start and place[0] < end:
                    values.append(value)
                if place[0] < following:
                    held.delete(key, place)
                elif place[0] < following + window.size_ms:
                    goes_on = True
            inside.append(values)
        if goes_on:
            self._closes.put(following + window.size_ms - 1, key, True)
        lefts, rights = inside
        if lefts and rights:
            return [(left, right) for left in lefts for right in rights]
        left_alone, right_alone = self._spec.outer
        return [(left, None) for left in lefts if left_alone] + [(None, right) for right in rights if right_alone]


def window_join_operator(spec: WindowJoinSpec, what: str = "join") -> Callable[[OperatorContext], Operator]:
    """Return what makes the operator for a task; port 0 is the left input, port 1 the right one.

    Raises:
        ConfigError: The lateness is negative, or `how` is unknown.
    """
    if spec.lateness_ms < 0:
        raise ConfigError(f"{what}: a lateness of {spec.lateness_ms} ms is not allowed; it must be at least 0")
    spec.check(what)
    return lambda context: WindowJoin(context, spec)


def joining_window(window: Window, what: str) -> FixedWindow:
    """Return a window that can join streams.

    Raises:
        ConfigError: Where its windows lie depends on the records of a key, which the two sides do not share.
    """
    if not isinstance(window, FixedWindow):
        raise ConfigError(
            f"{what}: within={window!r} does not join streams, because the records decide where such windows lie; "
            "use windows.tumbling(...), windows.hopping(...), or a distance such as ('-1m', '5m')"
        )
    return window


__all__ = ["WindowJoin", "WindowJoinSpec", "joining_window", "window_join_operator"]
