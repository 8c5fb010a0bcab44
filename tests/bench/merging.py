"""What it costs to take inputs that meet in the order of event time: `python -m tests.bench.merging`.

In process and without a broker: a genuine task whose intake holds a backlog of two topics, and takes it once merged by event time and
once in the order of arrival, batch by batch. Counted is the CPU time of the thread for taking, processing and committing; each way is
measured several times in turn, and the fastest run counts. Absolute figures belong to one machine: compare the ratios.

| job | what it is |
|---|---|
| lookup | orders look into prices: hardly any work of its own, so that the ratio shows the cost of merging alone |
| join | an interval join of both within a second: what is taken in order is held shorter |
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from engine import Sink, Stream, Struct, Table, bounded
from engine.records import RecordBatch, TopicPartition
from engine.runtime.intake import EndOfInput, Intake
from engine.runtime.merging import Merging
from engine.runtime.metrics import TaskMetrics
from engine.runtime.transport.protocol import FetchState
from engine.task import Task
from engine.topology import Topology
from state.memory import MemoryStore
from state.store import Position

BATCH_RECORDS, KEYS, STEP_MS = 4_096, 500, 10
ROUNDS = 3
JOBS = ("lookup", "join")


class Tick(Struct, frozen=True):
    """A record of either side."""

    user: str
    number: int
    ts: int


class Fetched:
    """The part of a transport that an intake needs: everything has been fetched."""

    def fetch_state(self, partition: TopicPartition) -> FetchState | None:
        return FetchState(0, 0, 0.0)

    def seek(self, *_: Any) -> None: ...
    def pause(self, *_: Any) -> None: ...
    def resume(self, *_: Any) -> None: ...


def app(job: str) -> Topology:
    """Return the app of a job."""
    topology = Topology("bench", partitions=1, max_ahead_ms=None)
    prices = topology.table("prices", Tick, key="user", time="ts", watermark=bounded("1s"))
    views = topology.source("views", Tick, key="user", time="ts", watermark=bounded("1s"))
    orders = topology.source("orders", Tick, key="user", time="ts", watermark=bounded("1s"))
    if job == "lookup":

        @topology.pipeline(prices, orders)
        def lookup(prices: Table[str, Tick], orders: Stream[str, Tick]) -> Sink:
            return orders.lookup(prices, how="left").map(lambda pair: pair[0].number).to("out")

    else:

        @topology.pipeline(views, orders)
        def join(views: Stream[str, Tick], orders: Stream[str, Tick]) -> Sink:
            return views.join(orders, within=("0s", "1s")).map(lambda pair: pair[0].number).to("out")

    return topology


def backlog(topic: str, records: int, shift_ms: int) -> list[RecordBatch]:
    """Return the batches of a topic."""
    encode = msgspec.json.Encoder().encode
    found = []
    for start in range(0, records, BATCH_RECORDS):
        numbers = range(start, min(start + BATCH_RECORDS, records))
        ticks = [Tick(f"u{number * 7_919 % KEYS}", number, number * STEP_MS + shift_ms) for number in numbers]
        values: list[bytes | None] = [encode(tick) for tick in ticks]
        keys: list[bytes | None] = [tick.user.encode() for tick in ticks]
        times = [tick.ts for tick in ticks]
        found.append(RecordBatch(topic, 0, numbers, times, keys, values, position=start, next_offset=numbers.stop))
    return found


def measure(job: str, records: int, *, merged: bool) -> float:
    """Return the CPU seconds that the backlog takes."""
    plan = app(job).plan()
    task = Task(plan, 0, MemoryStore(), now_ms=0)
    inputs = [TopicPartition(topic, 0) for topic in plan.input_topics]
    transport: Any = Fetched()
    intake = Intake(transport, inputs, 10 * records, TaskMetrics())
    intake.open(dict.fromkeys(inputs, 0))
    topics = [topic for topic in plan.sources if plan.readers(topic)]
    for batches in zip(*(backlog(topic, records, 5 * at) for at, topic in enumerate(topics)), strict=True):
        for batch in batches:
            intake.offer(batch)
    merging = Merging(plan, intake, transport)
    take: Callable[[], RecordBatch | EndOfInput | None] = lambda: merging.next(task, 0.0)  # noqa: E731
    if not merged:
        take = lambda: intake.pop() if intake else None  # noqa: E731
    begun = time.thread_time()
    since = 0
    while (item := take()) is not None:
        assert isinstance(item, RecordBatch)
        for name in plan.readers(item.topic):
            task.process(name, item, 0)
        task.finish_batch(item)
        intake.done(TopicPartition(item.topic, 0), len(item))
        since += len(item)
        if since >= 10 * BATCH_RECORDS:
            since = 0
            task.prepare_commit(0)
            task.committed(Position(b"bench", 1, 0))
    return time.thread_time() - begun


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.merging", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--n", type=int, default=100_000, help="records of each topic (100000)")
    parser.add_argument("--json", action="store_true", help="print only JSON on standard output")
    chosen = parser.parse_args(arguments)
    if chosen.n < 1:
        parser.error("--n must be at least 1")
    found = []
    for job in JOBS:
        runs = [(measure(job, chosen.n, merged=True), measure(job, chosen.n, merged=False)) for _ in range(ROUNDS)]
        merged_s, arrival_s = (min(seconds) for seconds in zip(*runs, strict=True))
        times = round(merged_s / arrival_s, 2)
        found.append({"job": job, "merged_s": round(merged_s, 3), "arrival_s": round(arrival_s, 3), "times": times})
        line = f"{job:<7} {2 * chosen.n:,} records: merged {merged_s:.2f} s of CPU, by arrival {arrival_s:.2f} s, {times} times"
        print(line, file=sys.stderr if chosen.json else sys.stdout, flush=True)
    if chosen.json:
        print(json.dumps({"records": 2 * chosen.n, "jobs": found}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
