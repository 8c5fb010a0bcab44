"""Pattern cases: a case of `cep.json` as an operator over a store, fed as the case says.

A case without steps says what comes out on each of its records, and records may have equal times. The operator cannot know that
a time is over before the watermark passes it. So the case is run on each of its beginnings: what the first n records bring forth
once time has moved to the n-th, less what the first n - 1 had brought forth, came out on record n.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from engine import Struct, cep
from engine.block import MAX_TIME, MIN_TIME
from engine.cep import Pattern, Skip
from engine.errors import RecordError
from engine.operators.detect import detect_operator
from engine.testing.harness import OperatorHarness

Json = Mapping[str, Any]
Seen = tuple[tuple[str, tuple[int, ...]], ...]
COMPARE: dict[str, Callable[[float, float], bool]] = {
    "eq": lambda a, b: a == b,
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
}
MODES = (("best", False), ("best", True), ("general", False), ("general", True))


class Event(Struct, frozen=True):
    """A record's value; `index` tells it from others that are equal."""

    index: int
    id: int
    name: str
    price: float
    ts: int
    volume: float | None = None


def run(case: Json) -> str | None:
    """Replay a case in every mode; return what differs, None if nothing does."""
    for matcher, restarts in MODES:
        difference = Replay(case, matcher, restarts=restarts).difference()
        if difference is not None:
            return f"{difference} (matcher {matcher}{', restarted between any two records' if restarts else ''})"
    return None


class Replay:
    """One way to replay a case."""

    def __init__(self, case: Json, matcher: str, *, restarts: bool) -> None:
        self.case = case
        self.restarts = restarts
        self.events = [Event(index, **event) for index, event in enumerate(case["events"])]
        self.keyed = case.get("key_by") == "id"
        comparator = case.get("comparator")
        if comparator not in (None, "price_asc"):
            raise ValueError(f"comparator {comparator!r} is not known")
        self.make = detect_operator(
            pattern_of(case),
            skip=skip_of(case["skip"]),
            timeouts_to="timeouts" if "expect_timeouts" in case else None,
            late_to="late",
            value_type=Event,
            key_type=int,
            ties=None if comparator is None else lambda event: event.price,
            matcher=matcher,  # type: ignore[arg-type]
        )

    def difference(self) -> str | None:
        if "expect_error" in self.case:
            return self._error_difference()
        matches, timeouts, late = self._by_steps() if "steps" in self.case else self._by_prefixes()
        expected = Counter(self._expected_matches())
        if matches != expected:
            return f"matches (stages, emitted on, by time): missing {_text(expected - matches)}, unexpected {_text(matches - expected)}"
        if "expect_timeouts" in self.case:
            wanted = Counter((seen(t["partial"]), t["timeout_ts"], t["emitted_on"]) for t in self.case["expect_timeouts"])
            if timeouts != wanted:
                return f"timeouts (stages, time, emitted on): missing {_text(wanted - timeouts)}, unexpected {_text(timeouts - wanted)}"
        if late != self.case.get("late", []):
            return f"late: expected {self.case.get('late', [])}, got {late}"
        return None

    def _expected_matches(self) -> Iterable[tuple[Seen, int, bool]]:
        stages = self.case["expect_by_stage"]
        by_time = self.case.get("emitted_by_time", [False] * len(stages))
        for match, on, timed in zip(stages, self.case["emitted_on"], by_time, strict=True):
            yield seen(match), on, timed

    # -- feeding

    def _by_steps(self) -> tuple[Counter[Any], Counter[Any], list[int]]:
        harness = OperatorHarness(self.make)
        matches: Counter[Any] = Counter()
        timeouts: Counter[Any] = Counter()
        late: list[int] = []
        for number, step in enumerate(self.case["steps"]):
            if "event" in step:
                self._feed(harness, self.events[step["event"]])
            elif "watermark" in step:
                ends = {"min": MIN_TIME, "max": MAX_TIME}
                harness.advance(ends.get(step["watermark"], step["watermark"]))
            elif step.get("checkpoint_restore"):
                harness.snapshot_and_restore()
            else:
                raise ValueError(f"step {step!r} is not known")
            matches.update((seen_in(out.value), number, False) for out in harness.take())
            for side in harness.take_sides():
                if side.topic == "late":
                    late.append(side.value.index)
                else:
                    timeouts[seen_in(side.value), side.timestamp_ms, number] += 1
        return matches, timeouts, late

    def _by_prefixes(self) -> tuple[Counter[Any], Counter[Any], list[int]]:
        matches: Counter[Any] = Counter()
        timeouts: Counter[Any] = Counter()
        known, known_timeouts = self._after(0, MIN_TIME)
        for number, event in enumerate(self.events):
            for count, by_time in ((number, True), (number + 1, False)):
                now, now_timeouts = self._after(count, event.ts)
                matches.update({(match, number, by_time): times for match, times in (now - known).items()})
                timeouts.update({(*timeout, number): times for timeout, times in (now_timeouts - known_timeouts).items()})
                known, known_timeouts = now, now_timeouts
        if "final_time" in self.case:
            number = len(self.events)
            now, now_timeouts = self._after(number, self.case["final_time"])
            matches.update({(match, number, True): times for match, times in (now - known).items()})
            timeouts.update({(*timeout, number): times for timeout, times in (now_timeouts - known_timeouts).items()})
        return matches, timeouts, []

    def _after(self, count: int, time: int) -> tuple[Counter[Seen], Counter[tuple[Seen, int]]]:
        """Return the matches and time-outs that the first `count` records have brought forth when time has moved to `time`."""
        harness = OperatorHarness(self.make)
        for event in self.events[:count]:
            harness.advance(max(event.ts - 1, harness.reached()))
            self._feed(harness, event)
        harness.advance(max(time, harness.reached()))
        sides = harness.take_sides()
        if any(side.topic == "late" for side in sides):
            raise ValueError("the records of a case without steps must ascend in time")
        return Counter(seen_in(out.value) for out in harness.take()), Counter((seen_in(side.value), side.timestamp_ms) for side in sides)

    def _feed(self, harness: OperatorHarness, event: Event) -> None:
        harness.feed(event.id if self.keyed else 0, event, event.ts)
        if self.restarts:
            harness.snapshot_and_restore()

    def _error_difference(self) -> str | None:
        self._after(len(self.events) - 1, self.events[-1].ts - 1)
        try:
            self._after(len(self.events), self.events[-1].ts)
        except RecordError:
            return None
        return f"no error, but {self.case['expect_error']} was expected"


# -- from JSON to the public face


def pattern_of(case: Json) -> Pattern:
    """Return the pattern of a case."""
    pattern = sequence_of(case["pattern"])
    if case.get("within_ms") is not None and case.get("within_type") == "first_and_last":
        pattern = pattern.within(f"{case['within_ms']}ms")
    return pattern


def sequence_of(stages: Sequence[Json]) -> Pattern:
    """Return stages as a pattern."""
    pattern: Pattern | None = None
    for stage in stages:
        what = sequence_of(stage["group"]) if "group" in stage else stage["name"]
        contiguity = stage["contiguity"]
        pattern = cep.begin(what) if pattern is None else getattr(pattern, contiguity)(what)
        if "where" in stage:
            pattern = pattern.where(condition_of(stage["where"]))
        pattern = quantified(pattern, stage)
        if "within_prev_ms" in stage:
            pattern = pattern.within(f"{stage['within_prev_ms']}ms", between="previous_and_current")
    assert pattern is not None
    return pattern


def quantified(pattern: Pattern, stage: Json) -> Pattern:
    """Return the pattern with the quantifiers of a stage on its last stage."""
    between = None if stage.get("times_window_ms") is None else f"{stage['times_window_ms']}ms"
    times = stage.get("times")
    if times == "one_or_more":
        pattern = pattern.one_or_more(between=between)
    elif isinstance(times, Mapping):
        pattern = pattern.times_or_more(times["times_or_more"], between=between)
    elif isinstance(times, list):
        pattern = pattern.times(times[0], times[1], between=between)
    elif times is not None:
        pattern = pattern.times(times, between=between)
    if times is not None and stage.get("inner_contiguity", "relaxed") != "relaxed":
        pattern = getattr(pattern, stage["inner_contiguity"])()
    for word in ("greedy", "optional"):
        if stage.get(word):
            pattern = getattr(pattern, word)()
    return pattern.until(condition_of(stage["until"])) if "until" in stage else pattern


def skip_of(skip: str | Sequence[str]) -> Skip:
    """Return the skip strategy of a case."""
    if isinstance(skip, str):
        return {"no_skip": cep.skip.none, "skip_to_next": cep.skip.to_next, "skip_past_last": cep.skip.past_last}[skip]
    make = {"skip_to_first": cep.skip.to_first, "skip_to_last": cep.skip.to_last}[skip[0]]
    return make(skip[1], on_miss="error" if "throw_on_miss" in skip[2:] else "ignore")


def condition_of(spec: Json) -> Callable[[Event, Any], bool]:
    """Return a condition `f(event, match)`."""
    parts = [PARTS[name](value) for name, value in spec.items()]
    return lambda event, match: all(part(event, match) for part in parts)


def compared(value: float | None, operators: Json) -> bool:
    """Say whether a value fulfils all comparisons; no value fulfils none."""
    return value is not None and all(COMPARE[op](value, number) for op, number in operators.items())


def sum_of(spec: Json) -> Callable[[Event, Any], bool]:
    """Return the condition on the sum of the prices that a stage has taken."""
    operators = {name: value for name, value in spec.items() if name in COMPARE}

    def check(event: Event, match: Any) -> bool:
        total = sum(taken.price for taken in match[spec["stage"]])
        return compared(total + event.price * bool(spec.get("plus_current")), operators)

    return check


def count_of(spec: Json) -> Callable[[Event, Any], bool]:
    """Return the condition on the number of records that a stage has taken."""
    operators = {name: value for name, value in spec.items() if name in COMPARE}
    return lambda event, match: compared(len(match[spec["stage"]]), operators)


def has(field: str) -> Callable[[Event, Any], bool]:
    """Return the condition that a field is there."""
    return lambda event, match: getattr(event, field) is not None


def every(specs: Sequence[Json]) -> Callable[[Event, Any], bool]:
    """Return the conjunction."""
    parts = [condition_of(spec) for spec in specs]
    return lambda event, match: all(part(event, match) for part in parts)


def some(specs: Sequence[Json]) -> Callable[[Event, Any], bool]:
    """Return the disjunction."""
    parts = [condition_of(spec) for spec in specs]
    return lambda event, match: any(part(event, match) for part in parts)


PARTS: dict[str, Callable[[Any], Callable[[Event, Any], bool]]] = {
    "name": lambda name: lambda event, match: event.name == name,
    "name_contains": lambda part: lambda event, match: part in event.name,
    "name_starts": lambda start: lambda event, match: event.name.startswith(start),
    "price": lambda operators: lambda event, match: compared(event.price, operators),
    "volume": lambda operators: lambda event, match: compared(event.volume, operators),
    "event_ts": lambda operators: lambda event, match: compared(match.timestamp_ms, operators),
    "price_eq_first_of": lambda stage: lambda event, match: any(taken.price == event.price for taken in match[stage][:1]),
    "has": has,
    "all": every,
    "or": some,
    "sum_price": sum_of,
    "count": count_of,
}


# -- comparing


def seen(stages: Mapping[str, Sequence[int]]) -> Seen:
    """Return a match as a hashable value; stages without records are left out."""
    return tuple(sorted((stage, tuple(indexes)) for stage, indexes in stages.items() if indexes))


def seen_in(match: cep.Match[Any]) -> Seen:
    """Return a `Match` in the same form."""
    return seen({stage: [event.index for event in events] for stage, events in match.stages.items()})


def _text(counted: Counter[Any]) -> str:
    shown = sorted(counted.elements(), key=repr)
    return ", ".join(f"{dict(stages)} {rest}" for stages, *rest in shown[:4]) + (" …" if len(shown) > 4 else "") if shown else "none"
