"""`streamforge demo`: the shop and its watch at work on a broker inside this process, with RocksDB state, until the traffic is used up.

    traffic, payments ──► memory broker ─┬► shop: 12 tasks ───► revenue, sessions, fraud-alerts, …
                              ▲          └► watch: 12 tasks ──► probe-alerts (by a live rule), unpaid-orders, odd-journeys
                              at most a chunk ahead of the tasks

It ends by itself when every window is closed. What is sent is a chunk of one topic, when the one before has been taken: so the watch,
whose pipelines read several topics, takes them in the same order each time, and what is late there is the same for the same seed.
"""

import asyncio
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from agents import app, watch
from agents.demo_part import Part, make_part, make_plans
from agents.payments import PAYMENTS, with_payments
from agents.traffic import TrafficRecord, traffic
from engine.records import OutputColumns, TopicPartition
from engine.runtime.bounded import run_to_end
from engine.runtime.clock import SystemClock
from engine.runtime.record_lines import parse_line
from engine.runtime.transport.memory_broker import MemoryBroker
from state.hashing import partition_of

if TYPE_CHECKING:
    from agents.demo_registry import AvroTraffic

CHUNK_RECORDS_MIN, CHUNKS_MAX = 1_000, 16
RULES = Path(__file__).parent / "watch" / "rules.jsonl"
_WAIT_S = 0.002


@dataclass(slots=True)
class Demo:
    """A demo while it runs, and what it has come to.

    Attributes:
        events: Orders and page views; payments come on top.
        avro: The registry and what makes Avro of the traffic; None for JSON values.
        sent: Records sent to each source topic.
        seconds: Time since the start; it stands still when the demo is over.
    """

    broker: MemoryBroker
    shop: Part
    watch: Part
    events: int
    avro: "AvroTraffic | None" = None
    clock: SystemClock = field(default_factory=SystemClock)
    sent: dict[str, int] = field(default_factory=dict)
    started_s: float = 0.0
    ended_s: float | None = None

    @property
    def parts(self) -> tuple[Part, Part]:
        """Both apps."""
        return self.shop, self.watch

    @property
    def topics(self) -> list[str]:
        """The topics of the traffic."""
        return list(dict.fromkeys(topic for part in self.parts for topic in part.plan.sources))

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return (self.clock.monotonic_s() if self.ended_s is None else self.ended_s) - self.started_s

    @property
    def processed(self) -> int:
        """Records that each app which reads them has taken."""
        return sum(min(part.processed(topic) for part in self.parts if topic in part.plan.sources) for topic in self.sent)

    @property
    def is_stopping(self) -> bool:
        """True when an app has given up."""
        return any(part.runner.is_stopping for part in self.parts)

    def results(self) -> dict[str, Any]:
        """Return what the demo has come to as plain data."""
        return {
            "events": self.events,
            "seconds": round(self.seconds, 3),
            "records_per_second": round(self.processed / self.seconds),
            "records_in": {topic: self.sent[topic] for topic in sorted(self.sent) if topic in self.shop.plan.sources},
            "payments_in": self.sent.get(PAYMENTS, 0),
            "dead_letters": self.shop.counted(self.shop.plan.dead_letter_topic),
            **({} if self.avro is None else {"schemas": self.avro.subjects}),
            "pipelines": {**self.shop.results(), **self.watch.results()},
        }


def open_demo(events: int, folder: Path, *, registry: bool = False) -> Demo:
    """Return a demo with its state in a folder; with a registry its records are Avro with schema ids."""
    plans, avro = make_plans([app.topology, watch.app.topology]), None
    if registry:
        from agents.demo_registry import AvroTraffic  # needs the libraries of the extra `avro`

        avro = AvroTraffic(plans, folder)
        plans = avro.plans
    broker = MemoryBroker()
    shop, watching = (make_part(plan, broker, folder) for plan in plans)
    return Demo(broker, shop, watching, events, avro)


async def run_demo(demo: Demo, seed: int) -> None:
    """Put the rules, send the traffic and run both apps until every window is closed."""
    demo.started_s = demo.clock.monotonic_s()
    records: Iterable[TrafficRecord] = with_payments(traffic(demo.events, seed=seed), seed=seed)
    put_rules(demo)
    if demo.avro is not None:
        await demo.avro.register()
        records = demo.avro.encoded(records)
    try:
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(_feed(demo, records), name="feeding")
            for part in demo.parts:
                group.create_task(run_to_end(part.runner, feeding=_done(feeding)), name=part.plan.app_id)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    finally:
        if demo.avro is not None:
            await demo.avro.close()
    demo.ended_s = demo.clock.monotonic_s()


def put_rules(demo: Demo) -> None:
    """Put the watch's first rules on their topic."""
    (topic,) = demo.watch.plan.broadcasts
    columns = OutputColumns()
    for line in RULES.read_bytes().splitlines():
        rule = parse_line(line)
        columns.append(0, rule.key, rule.value)
    demo.broker.produce({TopicPartition(topic, 0): columns})


async def _done(feeding: asyncio.Task[None]) -> None:
    await asyncio.wait([feeding])


async def _feed(demo: Demo, records: Iterable[TrafficRecord]) -> None:
    """Send records as fast as the tasks take them."""
    source = iter(records)
    size = max(CHUNK_RECORDS_MIN, demo.events // CHUNKS_MAX)
    while chunk := list(islice(source, size)):
        for topic in demo.topics:
            columns: dict[TopicPartition, OutputColumns] = {}
            for _, key, value, timestamp_ms in (record for record in chunk if record.topic == topic):
                partition = TopicPartition(topic, partition_of(key, demo.shop.plan.partitions))
                columns.setdefault(partition, OutputColumns()).append(timestamp_ms, key, value)
            demo.broker.produce(columns)
            demo.sent[topic] = demo.sent.get(topic, 0) + sum(map(len, columns.values()))
            sent = sum(demo.sent.values())
            while demo.processed < sent and not demo.is_stopping:  # noqa: ASYNC110  # positions notify nobody
                await asyncio.sleep(_WAIT_S)


@click.command()
@click.option(
    "--events",
    type=click.IntRange(1),
    default=100_000,
    show_default=True,
    help="Number of orders and page views; payments follow from them.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same traffic.")
@click.option("--registry", is_flag=True, help="Send Avro records with schema ids, by a schema registry in this process.")
@click.option("--json", "as_json", is_flag=True, help="Print only the results, as JSON.")
def demo(events: int, seed: int, registry: bool, as_json: bool) -> None:
    """Run the shop and its watch on sample traffic, in this process, and show what they find."""
    from agents.demo_view import show_progress, show_results

    with tempfile.TemporaryDirectory(prefix="streamforge-demo-") as folder:
        shop = open_demo(events, Path(folder), registry=registry)
        if as_json:
            asyncio.run(run_demo(shop, seed))
            click.echo(msgspec.json.encode({"seed": seed, **shop.results()}))
        else:
            asyncio.run(show_progress(shop, run_demo(shop, seed)))
            show_results(shop)
