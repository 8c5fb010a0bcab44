"""`Stream.detect`: what it hands on to the operator, and what of it must not change over stored state."""

from typing import Any

import pytest

from engine import Struct, cep
from engine.testing import TestDriver
from engine.topology import Topology
from engine.watermarks import bounded


class Reading(Struct, frozen=True):
    sensor: str
    number: int
    ts: int


def topology_of(declare: Any) -> Topology:
    topology = Topology("lab", partitions=1)
    readings = topology.source("readings", Reading, key="sensor", time="ts", watermark=bounded("0s"))
    topology.pipeline(readings, name="work")(declare)
    return topology


def driver_of(pattern: cep.Pattern, **options: Any) -> TestDriver:
    def declare(stream: Any) -> Any:
        return stream.detect(pattern, **options).select(lambda match: [value.number for value in match["a"]]).to("out")

    return TestDriver(topology_of(declare))


def send(driver: TestDriver, *readings: tuple[int, int]) -> None:
    for number, ts in readings:
        driver.send("readings", Reading("s", number, ts))


def test_detect_ties_sort_records_of_the_same_time() -> None:
    with driver_of(cep.begin("a").times(2), skip=cep.skip.past_last, ties=lambda reading: -reading.number) as driver:
        send(driver, (1, 0), (2, 0), (3, 0), (4, 0))
        driver.finish()
        assert [record.value for record in driver.read("out")] == [[4, 3], [2, 1]]


@pytest.mark.parametrize(("on_too_many", "expected"), [("drop_oldest", [[2, 3]]), ("drop_newest", [[1, 3]])])
def test_detect_on_too_many_says_which_partial_matches_go(on_too_many: Any, expected: list[list[int]]) -> None:
    pattern = cep.begin("a").times(2).allow_combinations()
    with driver_of(pattern, max_partials=1, on_too_many=on_too_many) as driver:
        send(driver, (1, 0), (2, 1), (3, 2))
        driver.finish()
        assert [1, 2] in (got := [record.value for record in driver.read("out")])
        assert got[1:] == expected
        assert driver.counters()["work", "detect", "dropped_partials"] > 0


def test_detect_on_too_many_fail_makes_the_record_a_bad_one() -> None:
    pattern = cep.begin("a").times(2).allow_combinations()
    with driver_of(pattern, max_partials=1, on_too_many="fail") as driver:
        send(driver, (1, 0), (2, 1))
        driver.finish()
        assert [record.value for record in driver.read("out")] == []
        assert len(driver.read("lab-dlq")) == 1


def test_detect_signature_names_what_stored_partial_matches_rest_on() -> None:
    def signature(pattern: cep.Pattern, **options: Any) -> str:
        topology = topology_of(lambda stream: stream.detect(pattern, name="pairs", **options).to("out"))
        return topology.plan().signatures["work/pairs"]

    pattern = cep.begin("a").times(2).within("5m")
    assert signature(pattern, skip=cep.skip.past_last) == f"detect pairs {pattern.signature} past_last"
    assert len({signature(pattern), signature(pattern, skip=cep.skip.to_next), signature(cep.begin("a").times(3).within("5m"))}) == 3
    assert signature(pattern) == signature(cep.begin("a", lambda reading: reading.number > 1).times(2).within("5m"))
