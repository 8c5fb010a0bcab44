"""`driver.explain`: the partial matches of a key, whichever matcher keeps them."""

from typing import Any

import pytest

from engine import Struct, cep
from engine.cep import Explained, Pattern
from engine.cep.linear import linear_matcher
from engine.cep.matcher import Found, NfaMatcher
from engine.cep.nfa import compile_pattern
from engine.keys import wire_bytes
from engine.testing import TestDriver
from engine.topology import Topology
from engine.watermarks import bounded
from state.hashing import partition_of


class Reading(Struct, frozen=True):
    sensor: str
    letter: str
    ts: int


def is_(letter: str) -> Any:
    return lambda reading: reading.letter == letter


def driver_of(pattern: Any, **options: Any) -> TestDriver:
    topology = Topology("lab", partitions=2)
    readings = topology.source("readings", Reading, key="sensor", time="ts", watermark=bounded("0s"))
    topology.pipeline(readings, name="work")(lambda stream: stream.detect(pattern, name="find", **options).to("out"))
    return TestDriver(topology, 2)


def explain(driver: TestDriver, letters: str) -> list[tuple[int, dict[str, str], tuple[str, ...], tuple[str, ...], int | None, bool]]:
    """Send a reading a second, let time pass the last one, and return the partial matches with letters for values."""
    for second, letter in enumerate(letters):
        driver.send("readings", Reading("s", letter, second * 1_000))
    driver.send("readings", Reading("other", "x", len(letters) * 1_000), partition=_partition())
    return [
        (one.start_ms, {name: "".join(v.letter for v in values) for name, values in one.taken.items()}, *_rest(one))
        for one in driver.explain("work", "s", "find")
    ]


def _rest(one: Explained) -> tuple[tuple[str, ...], tuple[str, ...], int | None, bool]:
    return one.waits_for, one.ended_by, one.dies_ms, one.complete


def _partition() -> int:
    return partition_of(wire_bytes("s"), 2)


def test_explain_says_what_was_taken_what_it_waits_for_and_when_it_dies() -> None:
    pattern = cep.begin("a", is_("a")).not_followed_by("n", is_("n")).followed_by("b", is_("b")).optional().followed_by("c", is_("c"))
    with driver_of(pattern.within("9s")) as driver:
        assert explain(driver, "axa") == [
            # Once a record was passed over, with the optional stage and without it are two partial matches.
            (0, {"a": "a"}, ("b",), ("n",), 9_000, False),
            (0, {"a": "a"}, ("c",), ("n",), 9_000, False),
            (2_000, {"a": "a"}, ("b", "c"), ("n",), 11_000, False),
        ]
        assert driver.explain("work", "nobody") == []


def test_explain_shows_a_match_that_waits_for_an_earlier_partial_match() -> None:
    pattern = cep.begin("a", is_("a")).followed_by("b", lambda v, m: v.letter == "b" and m.start_ms > 0)
    with driver_of(pattern, skip=cep.skip.past_last) as driver:
        assert explain(driver, "aab") == [
            (0, {"a": "a"}, ("b",), (), None, False),
            (1_000, {"a": "a", "b": "b"}, (), (), None, True),
        ]


def test_explain_of_an_absence_says_when_it_comes_out() -> None:
    with driver_of(cep.begin("a", is_("a")).not_followed_by("n", is_("n")).within("5s")) as driver:
        assert explain(driver, "a") == [(0, {"a": "a"}, (), ("n",), 5_000, False)]


@pytest.mark.parametrize("skip", [cep.skip.none, cep.skip.past_last])
@pytest.mark.parametrize(
    "pattern",
    [
        cep.begin("a", is_("a")).times(3),
        cep.begin("a", is_("a")).times(3).within("9s"),
        cep.begin("a", is_("a")).times(2).followed_by("b", is_("b")).times(2).within("9s"),
        cep.begin("a", is_("a")).next("b", is_("b")).followed_by("c", is_("c")),
    ],
)
@pytest.mark.parametrize("letters", ["a", "aa", "axa", "aab", "ab"])
def test_fast_path_explains_what_the_general_matcher_explains(pattern: Pattern, skip: cep.Skip, letters: str) -> None:
    fast = linear_matcher(pattern, skip)
    general = NfaMatcher(compile_pattern(pattern, skip), skip)
    records = [(second * 1_000, Reading("s", letter, 0)) for second, letter in enumerate(letters)]
    assert fast is not None
    states = [matcher.run(None, "s", records, 2_000, Found()) for matcher in (fast, general)]
    explained = [[] if state is None else matcher.explain(state) for matcher, state in zip((fast, general), states, strict=True)]
    assert explained[0] == explained[1]


def test_explain_of_a_clause_shows_the_open_ways_and_the_match_so_far() -> None:
    sql = """PARTITION BY sensor ORDER BY ts PATTERN (A+ (B | C) | A) WITHIN INTERVAL '9' SECONDS
        DEFINE A AS letter = 'a', B AS letter = 'b', C AS letter = 'c'"""
    with driver_of(cep.match_recognize(sql)) as driver:
        assert explain(driver, "aa") == [(0, {"A": "aa"}, ("A", "B", "C"), (), 9_000, False), (0, {"A": "a"}, (), (), None, True)]
