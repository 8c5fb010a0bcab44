"""`streamforge demo`: the shop at work on a broker inside this process, with RocksDB state, until its sample traffic is used up.

    traffic ──► memory broker ──► Runner, 12 tasks, RocksDB ──► revenue, sessions, fraud-alerts, …
                       ▲ at most LAG_MAX records ahead of the tasks

It ends by itself when every window is closed.
"""

import asyncio
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from agents import app
from agents.traffic import TrafficRecord, traffic
from engine.plan import Plan
from engine.records import OutputColumns, TopicPartition
from engine.runtime.bounded import run_to_end
from engine.runtime.clock import SystemClock
from engine.runtime.runner import Runner
from engine.runtime.stores import open_rocks_store
from engine.runtime.transport.memory import MemoryTransport
from engine.runtime.transport.memory_broker import MemoryBroker
from state.hashing import partition_of

if TYPE_CHECKING:
    from agents.demo_registry import AvroTraffic

CHUNK_RECORDS = 1_000
LAG_MAX = 20_000
SAMPLES = 3
_WAIT_S = 0.01


@dataclass(slots=True)
class Demo:
    """A demo while it runs, and what it has come to.

    Attributes:
        avro: The registry and what makes Avro of the traffic; None for JSON values.
        sent: Records sent to each source topic.
        seconds: Time since the start; it stands still when the demo is over.
    """

    plan: Plan
    broker: MemoryBroker
    runner: Runner
    events: int
    avro: "AvroTraffic | None" = None
    clock: SystemClock = field(default_factory=SystemClock)
    sent: dict[str, int] = field(default_factory=dict)
    started_s: float = 0.0
    ended_s: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return (self.clock.monotonic_s() if self.ended_s is None else self.ended_s) - self.started_s

    @property
    def processed(self) -> int:
        """Records that tasks have taken from the sources; what went through a repartition topic is not counted twice."""
        partitions = [TopicPartition(topic, number) for topic in self.plan.sources for number in range(self.plan.partitions)]
        tasks = self.runner.tasks
        return sum(tasks[number].positions.get(TopicPartition(topic, number), 0) for topic, number in partitions if number in tasks)

    @property
    def watermark_ms(self) -> int | None:
        """The lowest watermark of all tasks, None before there is one."""
        return min((ms for task in self.runner.metrics.tasks.values() for ms in task.watermark_ms.values()), default=None)

    def topics_of(self, pipeline: str) -> list[str]:
        """Return the topics that a pipeline writes, its sinks first."""
        nodes = self.plan.graphs[pipeline].nodes
        sinks = [node.sink.topic for node in nodes if node.sink is not None]
        return [*sinks, *(side.topic for node in nodes for side in node.sides)]

    def newest(self, topic: str, count: int) -> list[Any]:
        """Return values from the ends of a topic's partitions, newest event time last."""
        found: list[tuple[int, bytes]] = []
        for number in range(self.plan.partitions):
            partition = TopicPartition(topic, number)
            end = self.broker.log(partition).last_stable_offset
            batch = self.broker.read(partition, max(0, end - 2 * count))
            found += [(ts, value) for ts, value in zip(batch.timestamps, batch.values, strict=True) if value is not None]
        return [msgspec.json.decode(value) for _, value in sorted(found)[-count:]]

    def counted(self, topic: str) -> int:
        """Return the number of records in a topic."""
        partitions = [TopicPartition(topic, number) for number in range(self.plan.partitions)]
        return sum(len(self.broker.read(partition, 0)) for partition in partitions)

    def counter(self, pipeline: str, counter: str) -> int:
        """Return a counter of a pipeline's operators, over all tasks."""
        tasks = self.runner.metrics.tasks.values()
        return sum(count for task in tasks for name, count in task.counters.items() if name[0] == pipeline and name[2] == counter)

    def results(self) -> dict[str, Any]:
        """Return what the demo has come to as plain data."""
        return {
            "events": self.events,
            "seconds": round(self.seconds, 3),
            "records_per_second": round(self.processed / self.seconds),
            "records_in": dict(sorted(self.sent.items())),
            "dead_letters": self.counted(self.plan.dead_letter_topic),
            **({} if self.avro is None else {"schemas": self.avro.subjects}),
            "pipelines": {
                pipeline: {
                    "late": self.counter(pipeline, "late_records"),
                    "outputs": {
                        topic: {"records": self.counted(topic), "newest": self.newest(topic, SAMPLES)} for topic in self.topics_of(pipeline)
                    },
                }
                for pipeline in self.plan.graphs
            },
        }


def open_demo(events: int, folder: Path, *, registry: bool = False) -> Demo:
    """Return a demo of the shop with its state in a folder; with a registry its records are Avro with schema ids."""
    plan = replace(app.topology.plan(), max_ahead_ms=None)
    avro = None
    if registry:
        from agents.demo_registry import AvroTraffic  # needs the libraries of the extra `avro`

        avro = AvroTraffic(plan, folder)
        plan = avro.plan
    broker = MemoryBroker()
    for spec in plan.topic_specs(create_sources=True):
        broker.create_topic(spec)
    transport = MemoryTransport(broker, group_id=plan.app_id)
    runner = Runner(plan, transport, open_store=lambda number: open_rocks_store(folder / str(number)), create_sources=True)
    return Demo(plan, broker, runner, events, avro)


async def run_demo(demo: Demo, seed: int) -> None:
    """Send the traffic and run the shop until every window is closed."""
    demo.started_s = demo.clock.monotonic_s()
    records: Iterable[TrafficRecord] = traffic(demo.events, seed=seed)
    if demo.avro is not None:
        await demo.avro.register()
        records = demo.avro.encoded(records)
    try:
        await run_to_end(demo.runner, feeding=_feed(demo, records))
    finally:
        if demo.avro is not None:
            await demo.avro.close()
    demo.ended_s = demo.clock.monotonic_s()


async def _feed(demo: Demo, records: Iterable[TrafficRecord]) -> None:
    """Send records as fast as the tasks take them."""
    source = iter(records)
    sent = 0
    while chunk := list(islice(source, CHUNK_RECORDS)):
        columns: dict[TopicPartition, OutputColumns] = {}
        for topic, key, value, timestamp_ms in chunk:
            partition = TopicPartition(topic, partition_of(key, demo.plan.partitions))
            columns.setdefault(partition, OutputColumns()).append(timestamp_ms, key, value)
            demo.sent[topic] = demo.sent.get(topic, 0) + 1
        demo.broker.produce(columns)
        sent += len(chunk)
        while sent - demo.processed > LAG_MAX and not demo.runner.is_stopping:  # noqa: ASYNC110  # positions notify nobody
            await asyncio.sleep(_WAIT_S)
        await asyncio.sleep(0)


@click.command()
@click.option("--events", type=click.IntRange(1), default=100_000, show_default=True, help="Number of records of the sample traffic.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same traffic.")
@click.option("--registry", is_flag=True, help="Send Avro records with schema ids, by a schema registry in this process.")
@click.option("--json", "as_json", is_flag=True, help="Print only the results, as JSON.")
def demo(events: int, seed: int, registry: bool, as_json: bool) -> None:
    """Run the shop on sample traffic, in this process, and show what it finds."""
    from agents.demo_view import show_progress, show_results

    with tempfile.TemporaryDirectory(prefix="streamforge-demo-") as folder:
        shop = open_demo(events, Path(folder), registry=registry)
        if as_json:
            asyncio.run(run_demo(shop, seed))
            click.echo(msgspec.json.encode({"seed": seed, **shop.results()}))
        else:
            asyncio.run(show_progress(shop, run_demo(shop, seed)))
            show_results(shop)
