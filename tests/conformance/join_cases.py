"""Join cases: the interval join, and a record without an event time."""

from collections.abc import Sequence
from typing import Any

import msgspec

from engine.operators.join import JoinSpec, join_operator
from engine.testing.driver import TestDriver
from engine.testing.harness import OperatorHarness
from engine.topology import Topology
from tests.conformance.case import Case, expect, expect_late, time_of, unordered


class Untimed(msgspec.Struct, frozen=True):
    """A record's value whose event time may be missing."""

    ts: int | None


def interval_join(case: Case) -> None:
    """Run the join operator plainly, and restarted before every step."""
    for restarts in (False, True):
        _replay_join(case["spec"], case["steps"], restarts)


def _replay_join(spec: Case, steps: Sequence[Case], restarts: bool) -> None:
    late_to = "late" if spec.get("late_side_output") else None
    bounds: Any = ("[" if spec["lower_inclusive"] else "(") + ("]" if spec["upper_inclusive"] else ")")
    declared = JoinSpec(spec["lower_ms"], spec["upper_ms"], bounds=bounds, late_to=late_to, left_type=int, right_type=int)
    harness = OperatorHarness(join_operator(declared))
    ports = {"left": 0, "right": 1}
    for number, step in enumerate(steps):
        where = f"step {number}{', restarted' if restarts else ''}"
        if restarts or "checkpoint_restore" in step:
            harness.snapshot_and_restore()
        if "expect_error" in step:
            expect((step["expect_error"], step["event"]["ts"]), ("missing_timestamp", None), where)
            _expect_no_time(where)
            continue
        if "event" in step:
            event = step["event"]
            timestamp_ms = time_of(event["ts"])
            harness.feed(event["key"], timestamp_ms, timestamp_ms, port=ports[event["side"]])
        elif "watermark" in step:
            harness.advance(time_of(step["watermark"]["ts"]), port=ports[step["watermark"]["side"]])
        pairs = [{"left": out.value[0], "right": out.value[1], "ts": out.timestamp_ms} for out in harness.take()]
        expect(unordered(pairs), unordered(step.get("emit", [])), where)
        expect_late(harness, step, late_to, [{"ts": side.timestamp_ms} for side in harness.take_sides()], where)
        if "buffered_after" in step:
            held = {name: [timestamp_ms for timestamp_ms, _ in rows] for name, rows in harness.operator.inspect("key")}
            expect(held, step["buffered_after"], f"{where}, buffered")


def _expect_no_time(where: str) -> None:
    """A record without an event time does not get as far as an operator: its source refuses it."""
    topology = Topology("conformance")
    source = topology.source("events", Untimed, time=lambda value: value.ts)
    topology.pipeline(source, name="copy")(lambda stream: stream.to("copies"))
    with TestDriver(topology) as driver:
        driver.send("events", {"ts": None}, key="key")
        letters = driver.read("conformance-dlq")
        expect((len(driver.read("copies")), len(letters)), (0, 1), where)
        expect(any(b"event time" in value for _, value in letters[0].headers), True, f"{where}, {letters[0].headers}")
