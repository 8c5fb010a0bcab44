"""What the window operators share: the declaration made ready, and how results and late records leave."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import gcd
from operator import itemgetter
from typing import Any, Literal

from engine.agg import Aggregate
from engine.agg.folding import Accumulators, Folding, ResultRows
from engine.block import Block, advance
from engine.keys import KeyCodec, key_codec
from engine.operators.base import Operator, OperatorContext, Reach
from engine.triggers import Trigger
from engine.windows import EverythingWindow, FixedWindow, Span, Window


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """A declared windowed aggregation; see `engine.windowed.WindowedStream.aggregate` for the meaning.

    `records_in` tells how many records a value stands for, where not each is one (`engine.operators.combine`).
    """

    window: Window
    aggregates: Mapping[str, Aggregate]
    lateness_ms: int = 0
    late_to: str | None = None
    trigger: Trigger | None = None
    emit: Literal["close", "update"] = "close"
    into: type[Any] | None = None
    key_as: str = "key"
    key_type: Any = str
    value_type: Any = Any
    records_in: Callable[[Any], int] | None = None


_DUE_ORDER = itemgetter(0, 1)
_PANES_LOOKED_AT = 64


class WindowPlan:
    """A spec made ready: what the operators of all tasks share.

    Attributes:
        folding: The aggregates over values of the declared type.
        rows: Makes results.
        key: Codec of the keys.
    """

    def __init__(self, spec: WindowSpec, what: str) -> None:
        self.spec = spec
        self.folding = Folding(spec.aggregates, spec.value_type, what)
        windowed = not isinstance(spec.window, EverythingWindow)
        self.rows = ResultRows(self.folding, key_as=spec.key_as, into=spec.into, windowed=windowed, what=what)
        self.key: KeyCodec = key_codec(spec.key_type, what)


SpanResult = tuple[int, bytes, Any, int, int, Accumulators]
"""A result of one key and one window, before it is shaped: when it fires, the key's bytes on the wire, key, start, end, contents."""


class Results:
    """Collects what fires while a block is worked on, and gives it downstream.

    Outside careful mode everything goes into one block; in careful mode each result goes by itself, guarded.
    """

    def __init__(self, operator: Operator, block: Block) -> None:
        self._operator = operator
        self._careful = operator.context.careful
        self._reached = self._last = block.start
        self._watermark = block.watermark
        self.keys: list[Any] = []
        self.values: list[Any] = []
        self.timestamps: list[int] = []
        self.before: list[int] = []

    def add(self, keys: Sequence[Any], make_rows: Callable[[int, int], Sequence[Any]], *, due_ms: int, timestamp_ms: int) -> None:
        """Take results that fire at one time, in order of their keys.

        Args:
            make_rows: (from, to) -> the results of those of the keys.
            due_ms: When they fire. Time downstream does not go back for one that is overdue.
        """
        before = max(self._last, min(due_ms - 1, self._watermark))
        self._last = before
        if not self._careful:
            self.keys += keys
            self.values += make_rows(0, len(keys))
            self.timestamps += [timestamp_ms] * len(keys)
            self.before += [before] * len(keys)
            return
        self._operator.emit(advance(self._reached, before))
        self._reached = before
        for number, key in enumerate(keys):
            with self._operator.context.firing(key, due_ms, "window"):
                row = make_rows(number, number + 1)
                self._operator.emit(Block((key,), row, (timestamp_ms,), before, before, (before,)))

    def add_spans(self, fired: Sequence[SpanResult], rows: ResultRows, *, ordered: bool = False) -> None:
        """Take results of windows that differ from key to key; puts them in order of time and key unless they are."""
        if not fired:
            return
        if not ordered:
            fired = in_order(fired)
        if self._careful:
            for one in fired:
                self.add((one[2],), lambda low, high, one=one: rows.span_rows((one,)), due_ms=one[0], timestamp_ms=one[4] - 1)  # type: ignore[misc]
            return
        first, last, watermark = self._last, max(fired[-1][0] - 1, self._last), self._watermark
        self.before += [min(max(first, one[0] - 1), watermark) for one in fired]
        self._last = min(last, watermark)
        self.keys += [one[2] for one in fired]
        self.values += rows.span_rows(fired)
        self.timestamps += [one[4] - 1 for one in fired]

    def finish(self) -> None:
        """Give everything downstream, and the time that the block has brought."""
        self._operator.emit(Block(self.keys, self.values, self.timestamps, self._reached, self._watermark, self.before))


def window_reach(window: FixedWindow, lateness_ms: int, *, ports: int = 1) -> Reach:
    """Return where the traces of results of fixed windows come from: their panes, the newest first."""
    pane_ms, size_ms, offset_ms = gcd(window.size_ms, window.every_ms), window.size_ms, window.offset_ms

    def place(time_ms: int, value: Any = None) -> int:
        return time_ms - (time_ms - offset_ms) % pane_ms

    def places(last_ms: int, value: Any) -> Iterable[int]:
        return islice(range(place(last_ms), last_ms - size_ms, -pane_ms), _PANES_LOOKED_AT)

    return Reach(place, places, size_ms + lateness_ms, ports)


def in_order(fired: Sequence[SpanResult]) -> Sequence[SpanResult]:
    """Return results by time, then key bytes; those of one key and time as they were."""
    try:
        return sorted(fired)  # without a key function: a third of the time
    except TypeError:  # different keys with the same bytes, which cannot be compared
        return sorted(fired, key=_DUE_ORDER)


def send_late(
    context: OperatorContext,
    topic: str | None,
    records: Sequence[tuple[Any, Any, int, Span, int]],
    records_in: Callable[[Any], int] | None = None,
) -> None:
    """Count late records, and send them to a topic if there is one.

    Args:
        records: (key, value, event time, last window that would have taken it, watermark); the headers tell the latter two.
    """
    if not records:
        return
    context.count("late_records", len(records) if records_in is None else sum(records_in(record[1]) for record in records))
    if topic is None:
        return
    keys, values, timestamps, spans, watermarks = zip(*records, strict=True)
    headers = [
        (("window_start", b"%d" % span.start_ms), ("window_end", b"%d" % span.end_ms), ("watermark", b"%d" % watermark))
        for span, watermark in zip(spans, watermarks, strict=True)
    ]
    context.send(topic, keys, values, timestamps, headers)


__all__ = ["Results", "SpanResult", "WindowPlan", "WindowSpec", "send_late", "window_reach"]
