"""Live rules against the same pattern in the program, and against themselves over crashes, restarts and errors."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Sink, Stream, cep
from engine.errors import ConfigError
from engine.testing.driver import TestDriver
from engine.topology import Topology
from tests.effort import examples
from tests.engine.cep.rules_world import Event, errors, feed, pair, put, rule, stage, world

pytestmark = pytest.mark.thorough

# -- against the same pattern in the program

QUANTIFIERS: list[dict[str, Any]] = [{}, {"times": 2}, {"times": [1, 2]}, {"times": [1, None]}, {"optional": True}]
AFTERS = ["next", "followed_by", "followed_by_any", "not_next", "not_followed_by"]


@st.composite
def patterns(draw: Any) -> tuple[bytes, cep.Pattern, Any] | None:
    """Return a rule, the same pattern in Python, and its skip; None for what neither can be."""
    count, stages, pattern = draw(st.integers(1, 3)), [], None
    for place in range(count):
        name, kind, after = f"s{place}", draw(st.sampled_from("ab")), draw(st.sampled_from(AFTERS))
        quantifier = {} if after.startswith("not") and place else draw(st.sampled_from(QUANTIFIERS))
        stages.append(stage(name, f"kind = '{kind}'", **({"after": after} if place else {}), **quantifier))
        try:
            pattern = _extended(pattern, name, kind, after, quantifier)
        except ConfigError:
            return None
    skip = draw(st.sampled_from(["none", "to_next", "past_last"]))
    assert pattern is not None
    return rule("r", 1, *stages, within="20s", skip=skip), pattern.within("20s"), getattr(cep.skip, skip)


def _extended(pattern: cep.Pattern | None, name: str, kind: str, after: str, quantifier: dict[str, Any]) -> cep.Pattern:
    def fits(event: Event) -> bool:
        return event.kind == kind

    made = cep.begin(name, fits) if pattern is None else getattr(pattern, after)(name, fits)
    times = quantifier.get("times")
    if isinstance(times, int):
        made = made.times(times)
    elif times is not None:
        made = made.one_or_more() if times[1] is None else made.times(*times)
    return made.optional() if quantifier.get("optional") else made


def in_program(pattern: cep.Pattern, skip: Any) -> Topology:
    topology = Topology("static")
    events = topology.source("events", Event, key="user", time="ts")

    @topology.pipeline(events)
    def alerts(events: Stream[str, Event]) -> Sink:
        return events.detect(pattern, skip=skip).to("alerts")

    return topology


steps = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 8), st.sampled_from(["", "", "commit", "crash", "restart"])), max_size=14)


@settings(max_examples=examples(60), deadline=None)
@given(patterns(), steps)
def test_rules_that_stand_from_the_start_find_what_the_same_pattern_finds(drawn: Any, steps: list[tuple[str, int, str]]) -> None:
    if drawn is None:
        return
    raw, pattern, skip = drawn
    try:
        static = in_program(pattern, skip)
    except ConfigError:
        with TestDriver(world()) as driver:
            put(driver, raw)
            assert len(errors(driver)) == 1
        return
    outputs = []
    for topology in (static, world()):
        with TestDriver(topology) as driver:
            if topology is not static:
                put(driver, raw)
            second = 0
            for number, (kind, wait, act) in enumerate(steps):
                second += wait
                feed(driver, f"{kind}:{number}@{second}")
                if act and topology is not static:
                    getattr(driver, act)()
            driver.finish()
            outputs.append([(r.timestamp_ms, r.value.get("stages", r.value.get("fields"))) for r in driver.read("alerts")])
            assert topology is static or not driver.read("rules-app-dlq")
    assert outputs[0] == outputs[1]


changes = st.lists(
    st.tuples(st.sampled_from(["a", "b", "x", "rule", "drop", "remove"]), st.integers(0, 5), st.sampled_from(["", "", "commit", "crash"])),
    max_size=16,
)


@settings(max_examples=examples(50), deadline=None)
@given(changes)
def test_rules_with_a_moment_of_their_own_give_the_same_over_crashes_and_errors(steps: list[tuple[str, int, str]]) -> None:
    """Versions that say from when they count, under crashes and with a rule that raises for every record (careful mode)."""
    outputs = []
    for trouble in (False, True):
        with TestDriver(world(), partitions=2) as driver:
            put(driver, pair(1))
            if trouble:
                put(driver, rule("bad", 1, stage("a", "cents > kind")))
            driver.commit()
            second = 0
            for version, (what, wait, act) in enumerate(steps, 2):
                second += wait
                if what in ("rule", "drop"):
                    put(driver, pair(version, from_ms=(second + 2) * 1_000, old="drop" if what == "drop" else "drain"))
                elif what == "remove":
                    end = {"id": "pair", "version": version, "enabled": False, "from_ms": (second + 2) * 1_000}
                    put(driver, msgspec.json.encode(end))
                else:
                    for user in ("ann", "bob"):
                        feed(driver, f"{what}:{version}@{second}", user)
                if act and trouble:
                    getattr(driver, act)()
            driver.finish()
            outputs.append([(r.key, r.timestamp_ms, r.value) for r in driver.read("alerts")])
    assert sorted(outputs[0], key=repr) == sorted(outputs[1], key=repr)
    for user in ("ann", "bob"):
        assert [one for one in outputs[0] if one[0] == user] == [one for one in outputs[1] if one[0] == user]
