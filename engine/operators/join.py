"""Interval join of two streams: pairs of records of a key whose event times lie within a distance of each other.

    left.join(right, within=("-1m", "5m"))          right.ts - left.ts between -1 and +5 minutes, both inclusive

    left     x 10:00                    y 10:07
    right               a 10:04                 b 10:08
    pairs               (x, a) 10:04            (y, b) 10:08

A pair comes out as soon as both records are there, with the later of the two times. A record is kept until the watermark (the
minimum of both inputs) has passed every partner that it can have; then, if it never had one and `how` asks for it, it comes out by
itself with its own time, the missing side None. Because that is later than its time by up to the width of the interval, an outer
join holds its own watermark back by that much: nothing that it gives out is late for what follows.

A record at or below the watermark is late: it is counted ("late_records"), sent to `late_to` if given, and joins nothing. That is the
boundary of every operator (tests/engine/test_lateness.py); Flink's interval join takes a record exactly at the watermark, whose partner
at the far end of the interval it has dropped by then.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from engine.block import MAX_TIME, MIN_TIME, Block, advance
from engine.durations import Duration
from engine.errors import ConfigError
from engine.keys import key_codec
from engine.operators.base import Operator, OperatorContext, own_time
from engine.operators.join_sides import LEFT, PLACES, Sides, SidesSpec
from state.values import unit_codec

Bounds = Literal["[]", "[)", "(]", "()"]
Within = tuple[Duration, Duration]


@dataclass(frozen=True, slots=True)
class JoinSpec(SidesSpec):
    """A declared interval join: lower_ms <= right.ts - left.ts <= upper_ms; `bounds` may leave an end out."""

    lower_ms: int
    upper_ms: int
    bounds: Bounds = "[]"

    @property
    def inside_ms(self) -> tuple[int, int]:
        """Smallest and largest distance that counts; times are whole milliseconds."""
        return self.lower_ms + (self.bounds[0] == "("), self.upper_ms - (self.bounds[1] == ")")

    @property
    def kept_ms(self) -> tuple[int, int]:
        """How long a record of the left, of the right waits for a partner, counted from its event time."""
        lower_ms, upper_ms = self.inside_ms
        return max(0, upper_ms), max(0, -lower_ms)


class IntervalJoin(Operator):
    """Buffers of both sides by key and event time, and when to drop what they hold."""

    def __init__(self, context: OperatorContext, spec: JoinSpec) -> None:
        super().__init__(context)
        self._spec = spec
        self._sides = Sides(context, spec, bool)  # with each value, whether it has had a partner
        self._drops = context.state.timed(context.state_name("drops"), key_codec(spec.key_type), unit_codec)
        self.reach = own_time(max(spec.kept_ms), ports=2)
        self._delay_ms = max((kept for kept, outer in zip(spec.kept_ms, spec.outer, strict=True) if outer), default=0)

    def process(self, block: Block, port: int = 0) -> None:
        block = self._sides.begin(block, port)
        out = _Output(self, block, self._delay_ms)
        before = block.before
        late = []
        for row, (key, value, timestamp_ms) in enumerate(zip(block.keys, block.values, block.timestamps, strict=True)):
            self._advance(before[row], out)
            if timestamp_ms <= before[row]:
                late.append(row)
                continue
            self._take(key, value, timestamp_ms, port, out)
        self._sides.end()
        self._advance(block.watermark, out)
        self._send_late(block, late, port)
        out.finish()

    def rolled_back(self) -> None:
        self._sides.rolled_back()

    def inspect(self, key: Any) -> Iterator[tuple[str, Any]]:
        return self._sides.inspect(key)

    def _take(self, key: Any, value: Any, timestamp_ms: int, side: int, out: "_Output") -> None:
        """Join a record with what the other side holds, and keep it for what comes."""
        spec, others = self._spec, self._sides.held[1 - side]
        lower_ms, upper_ms = spec.inside_ms
        low, high = (lower_ms, upper_ms) if side == LEFT else (-upper_ms, -lower_ms)
        matched = False
        for other_place, (other, other_matched) in others.items(key):
            if other_place[0] > timestamp_ms + high:
                break
            if other_place[0] < timestamp_ms + low:
                continue
            matched = True
            out.pair(key, (value, other) if side == LEFT else (other, value), max(timestamp_ms, other_place[0]))
            if not other_matched and spec.outer[1 - side]:
                others.put(key, other_place, (other, True))
        place = self._sides.put(side, key, timestamp_ms, value, matched)
        self._drops.put(timestamp_ms + spec.kept_ms[side], key, True, bytes((side,)) + PLACES.encode(place))

    def _advance(self, until: int, out: "_Output") -> None:
        """Drop what can have no partner any more."""
        out.reached = max(out.reached, until)
        first = self._drops.next_time()
        if first is None or first > until:
            return
        for due_ms, key, sub, _ in self._drops.due(until, "key" if any(self._spec.outer) else "any"):
            self._drops.delete(due_ms, key, sub)
            side, place = sub[0], PLACES.decode(sub[1:])
            held = self._sides.held[side].get(key, place)
            assert held is not None, "a record is dropped once"
            self._sides.held[side].delete(key, place)
            if not held[1] and self._spec.outer[side]:
                out.alone(key, (held[0], None) if side == LEFT else (None, held[0]), place[0], due_ms)

    def _send_late(self, block: Block, late: list[int], port: int) -> None:
        if not late:
            return
        self.context.count("late_records", len(late))
        if self._spec.late_to is None:
            return
        side = (b"left", b"right")[port]
        self.context.send(
            self._spec.late_to,
            [block.keys[row] for row in late],
            [block.values[row] for row in late],
            [block.timestamps[row] for row in late],
            [(("side", side), ("watermark", b"%d" % block.before[row])) for row in late],
        )


class _Output:
    """What comes out of one block, with its time held back."""

    def __init__(self, operator: Operator, block: Block, delay_ms: int) -> None:
        self._operator, self._block, self._delay_ms = operator, block, delay_ms
        self._start = self._last = self._held_back(block.start)
        self.reached = block.start
        self._keys: list[Any] = []
        self._values: list[Any] = []
        self._timestamps: list[int] = []
        self._before: list[int] = []

    def pair(self, key: Any, value: Any, timestamp_ms: int) -> None:
        """Take a pair, found when the present record came."""
        self._add(key, value, timestamp_ms, self._held_back(self.reached))

    def alone(self, key: Any, value: Any, timestamp_ms: int, due_ms: int) -> None:
        """Take a record that has had no partner until `due_ms`; in careful mode it goes by itself, guarded."""
        before = max(self._last, self._held_back(due_ms - 1))
        if not self._operator.context.careful:
            self._add(key, value, timestamp_ms, before)
            return
        self._flush(before)
        with self._operator.context.firing(key, due_ms, "join"):
            self._operator.emit(Block((key,), (value,), (timestamp_ms,), before, before, (before,)))

    def finish(self) -> None:
        """Give everything downstream."""
        self._flush(self._held_back(self._block.watermark))

    def _add(self, key: Any, value: Any, timestamp_ms: int, before: int) -> None:
        self._last = max(self._last, before)
        self._keys.append(key)
        self._values.append(value)
        self._timestamps.append(timestamp_ms)
        self._before.append(self._last)

    def _flush(self, watermark: int) -> None:
        if self._keys:
            self._operator.emit(Block(self._keys, self._values, self._timestamps, self._start, watermark, self._before))
            self._keys, self._values, self._timestamps, self._before = [], [], [], []
        else:
            self._operator.emit(advance(self._start, watermark))
        self._start = self._last = watermark

    def _held_back(self, time_ms: int) -> int:
        return time_ms if time_ms in (MIN_TIME, MAX_TIME) else max(MIN_TIME, time_ms - self._delay_ms)


def join_operator(spec: JoinSpec, what: str = "join") -> Callable[[OperatorContext], Operator]:
    """Return what makes the operator for a task; port 0 is the left input, port 1 the right one.

    Raises:
        ConfigError: The interval is empty, or `how` is unknown.
    """
    if spec.bounds not in ("[]", "[)", "(]", "()"):
        raise ConfigError(f"{what}: bounds={spec.bounds!r} is not known; use '[]', '[)', '(]' or '()'")
    if spec.lower_ms > spec.upper_ms:
        raise ConfigError(f"{what}: no time lies within ({spec.lower_ms} ms, {spec.upper_ms} ms); give the lower bound first")
    if spec.inside_ms[0] > spec.inside_ms[1]:
        raise ConfigError(f"{what}: no whole millisecond lies within ({spec.lower_ms} ms, {spec.upper_ms} ms) with bounds={spec.bounds!r}")
    spec.check(what)
    return lambda context: IntervalJoin(context, spec)


__all__ = ["Bounds", "IntervalJoin", "JoinSpec", "Within", "join_operator"]
