"""The history of a key: matches with what each stage took, near misses with the reason; whatever matcher runs the pattern."""

from typing import Any

import pytest

from engine import Sink, Stream, cep
from engine.errors import ConfigError
from engine.testing.driver import TestDriver
from engine.topology import Topology
from tests.engine.cep.rules_world import Event, feed, put, rule, stage, world


def is_a(kind: str) -> Any:
    return lambda event: event.kind == kind


def told(pattern: Any, records: str, history: int = 5, finish: bool = True, **options: Any) -> list[tuple[str, int, int, str, str]]:
    """Return (what, start s, end s, what was taken, why) of a pattern over records."""
    topology = Topology("story")
    events = topology.source("events", Event, key="user", time="ts")

    @topology.pipeline(events)
    def work(events: Stream[str, Event]) -> Sink:
        found: Stream[str, Any] = events.detect(pattern, history=history, **options)
        return found.to("out")

    with TestDriver(topology) as driver:
        feed(driver, records)
        driver.restart()
        if finish:
            driver.finish()
        return [shown(one) for one in driver.history("work", "ann")]


def shown(one: Any) -> tuple[str, int, int, str, str]:
    taken = " ".join(f"{name}={'+'.join(str(value['cents']) for value in values)}" for name, values in one.taken.items())
    return one.what, one.start_ms // 1_000, one.at_ms // 1_000, taken, one.why


def test_story_of_a_plain_sequence() -> None:
    pattern = cep.begin("a", is_a("a")).next("b", is_a("b")).followed_by("c", is_a("c")).within("10s")
    assert told(pattern, "a:1@0 x@1 a:2@2 b:3@3 x@4 c:4@5 a:5@20 b:6@21 c:7@30") == [
        ("failed", 0, 1, "a=1", "the record at 1000 is not b, which had to come next"),
        ("matched", 2, 5, "a=2 b=3 c=4", ""),
        ("timed_out", 20, 30, "a=5 b=6", "c did not come in time"),
    ]


def test_story_of_repetitions() -> None:
    pattern = cep.begin("order", is_a("o")).times(3).within("5m")
    assert told(pattern, "o:1@0 o:2@10 o:3@300 o:4@301 o:5@302", skip=cep.skip.past_last) == [
        ("timed_out", 0, 300, "order=1+2", "order did not come in time"),
        ("matched", 10, 301, "order=2+3+4", ""),
        ("timed_out", 302, 602, "order=5", "order did not come in time"),
    ]


def test_story_of_negations_and_absence() -> None:
    pattern = cep.begin("order", is_a("o")).not_followed_by("paid", is_a("p")).within("30s")
    assert told(pattern, "o:1@0 p@10 o:2@20 x@60") == [
        ("failed", 0, 10, "order=1", "the record at 10000 is paid, which must not come"),
        ("matched", 20, 50, "order=2", ""),
    ]


def test_story_of_a_general_pattern() -> None:
    pattern = cep.begin("a", is_a("a")).one_or_more().next("b", lambda event, match: event.cents > len(match["a"])).within("10s")
    found = told(pattern, "a:1@0 b:1@1 a:2@2 b:2@3")
    assert ("failed", 0, 1, "a=1", "the record at 1000 is not a or b, which had to come next") not in found
    assert ("matched", 2, 3, "a=2 b=2", "") in found


def test_story_of_sql() -> None:
    clause = cep.match_recognize("""
        PARTITION BY user ORDER BY ts MEASURES A.cents AS a PATTERN (A B+ C) WITHIN INTERVAL '10' SECOND
        DEFINE A AS kind = 'a', B AS kind = 'b', C AS kind = 'c'
    """)
    assert told(clause, "a:1@0 b:2@1 x@2 a:3@3 b:4@4 c:5@5 a:6@10 b:7@11 x@30") == [
        ("failed", 0, 2, "A=1 B=2", "the record at 2000 is not B or C, which had to come next"),
        ("matched", 3, 5, "A=3 B=4 C=5", ""),
        ("timed_out", 10, 20, "A=6 B=7", "B or C did not come in time"),
    ]


def test_story_is_bounded_and_matches_do_not_push_near_misses_out() -> None:
    pattern = cep.begin("a", is_a("a")).next("b", is_a("b"))
    records = "a:0@0 x@0 " + " ".join(f"a:{n}@{n} b:{n}@{n}" for n in range(1, 9))
    found = told(pattern, records, history=2)
    assert [what for what, *_ in found] == ["failed", "matched", "matched"]
    assert told(pattern, records, history=0) == []


def test_story_of_rules_names_them() -> None:
    with TestDriver(world(history=3)) as driver:
        put(driver, rule("pair", 1, stage("a", "kind = 'a'"), stage("b", "kind = 'b'", after="next"), output={}))
        feed(driver, "a:1@1 x@2 a:2@3 b@4 x@5")
        driver.crash()
        assert [(one.rule, one.version, one.what) for one in driver.history("alerts", "ann")] == [
            ("pair", 1, "failed"), ("pair", 1, "matched")
        ]  # fmt: skip


@pytest.mark.parametrize("history", [-1, 101, True, "5"])
def test_story_of_no_length_is_refused(history: Any) -> None:
    with pytest.raises(ConfigError, match="pipeline 'alerts', detect: history="):
        world(history=history)
