"""What windows must give, the slow and obvious way: every record is kept, every step looks at every window.

It shares no code with the engine.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

FOREVER = 2**63 - 1


@dataclass(frozen=True)
class Input:
    """A record, and the watermark before it."""

    key: str
    number: int
    timestamp_ms: int
    before: int


@dataclass(eq=False)
class Held:
    """A window with everything that lies in it."""

    key: str
    start: int
    end: int
    records: list[Input]
    new: int = 0
    due: int | None = None
    ended: bool = False


@dataclass
class Oracle:
    """Windows of one kind.

    Attributes:
        spans: (event time, number) -> the windows that a record would be in by itself.
        merging: Windows of a key that touch become one.
        trigger: "close", "on_late", ("records", n) or ("event_time", interval).
    """

    spans: Callable[[int, int], list[tuple[int, int]]]
    lateness_ms: int = 0
    merging: bool = False
    trigger: Any = "close"
    purge: bool = False
    windows: list[Held] = field(default_factory=list)
    results: list[tuple[Any, ...]] = field(default_factory=list)
    late: list[tuple[Any, ...]] = field(default_factory=list)

    def run(self, inputs: list[Input], watermark: int) -> None:
        """Take records one by one, then move time on."""
        for record in inputs:
            self.advance(record.before)
            self.take(record)
        self.advance(watermark)

    def closed(self, end: int) -> int:
        """When a window that ends there is closed for good."""
        return end - 1 + self.lateness_ms

    def end_due(self, window: Held) -> int:
        """When a window fires at its end."""
        return self.closed(window.end) if self.trigger == "close" else window.end - 1

    def advance(self, watermark: int) -> None:
        """Do everything that is due, in order of time, then key, then window."""
        while True:
            actions = [(self.next_action(window), window.key.encode(), window.end, window) for window in self.windows]
            actions = sorted((action for action in actions if action[0] <= watermark), key=lambda action: action[:3])
            if not actions:
                return
            time_ms, _, _, window = actions[0]
            if window.ended:
                self.windows.remove(window)
            elif time_ms == self.end_due(window):
                window.ended, window.due = True, None
                self.fire(window, time_ms)
            else:
                assert window.due is not None
                window.due += self.trigger[1]
                self.fire(window, time_ms)

    def next_action(self, window: Held) -> int:
        """When time next makes a window do something."""
        if window.ended:
            return self.closed(window.end)
        return min([self.end_due(window), *([] if window.due is None else [window.due])])

    def take(self, record: Input) -> None:
        """Put a record into its windows."""
        taken = False
        spans = self.spans(record.timestamp_ms, record.number)
        for start, end in spans:
            if self.merging:
                same = [w for w in self.windows if w.key == record.key and w.start <= end and start <= w.end]
            else:
                same = [w for w in self.windows if w.key == record.key and w.start == start]
            if not same and self.closed(end) <= record.before:
                continue
            taken = True
            window = Held(record.key, min([start, *(w.start for w in same)]), max([end, *(w.end for w in same)]), [])
            for other in same:
                self.windows.remove(other)
                window.records += other.records
                window.new += other.new
            dues = [w.due for w in same if w.due is not None]
            window.due = min(dues) if dues else None
            window.records.append(record)
            window.new += 1
            self.windows.append(window)
            self.after(window, record)
        if not taken:
            self.late.append((record.key, record.number, record.timestamp_ms, spans[-1], record.before))

    def after(self, window: Held, record: Input) -> None:
        """Do what a trigger says about a record."""
        if self.end_due(window) <= record.before:
            window.ended, window.due = True, None
            self.fire(window, record.before)
        elif self.trigger[0] == "records" and window.new >= self.trigger[1]:
            self.fire(window, record.before)
        elif self.trigger[0] == "event_time" and window.due is None:
            window.due = (record.timestamp_ms // self.trigger[1] + 1) * self.trigger[1]

    def fire(self, window: Held, time_ms: int) -> None:
        """Note a result."""
        told = self.trigger[0] == "records" and window.new == 0
        if window.records and not told:
            self.results.append((window.key, window.start, window.end, *summary(window.records), time_ms))
        window.new = 0
        if self.purge:
            window.records = []


def summary(records: list[Input]) -> tuple[Any, ...]:
    """Return count, sum, float sum, first, last, smallest, largest and number of distinct values."""
    numbers = [record.number for record in records]
    in_order = sorted(enumerate(records), key=lambda item: (item[1].timestamp_ms, item[0]))
    exact = float(sum(Fraction(fraction(number)) for number in numbers))
    return (len(numbers), sum(numbers), exact, in_order[0][1].number, in_order[-1][1].number, min(numbers), max(numbers), len(set(numbers)))


def fraction(number: int) -> float:
    """Return a float that makes sums inexact."""
    return number / 10 + 1e16 * (number % 3 - 1)
