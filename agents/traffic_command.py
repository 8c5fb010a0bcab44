"""`streamforge traffic`: sample traffic of the shop for a real Kafka, at a given rate, until it is stopped.

    streamforge traffic --rate 5000                 the app's broker (STREAMFORGE_BROKER), for ever
    streamforge traffic --rate 500 --events 10000   so many records

Event times begin now and advance with the wall clock, so that windows close as they would in production.
"""

import asyncio
import time
from collections.abc import Iterator
from itertools import islice

import click

from agents import app
from agents.traffic import TrafficRecord, endless_traffic
from engine.records import OutputColumns, TopicPartition
from engine.runtime.cli.connection import refuse_memory
from state.hashing import partition_of

_TICK_S = 0.05


@click.command()
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), default=100.0, show_default=True, help="Records a second.")
@click.option("--events", type=click.IntRange(1), help="Stop after so many records; for ever without it.")
@click.option("--users", type=click.IntRange(1), default=1_000, show_default=True, help="Number of users.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same journeys.")
def traffic(rate: float, events: int | None, users: int, seed: int) -> None:
    """Send sample orders and page views to the shop's topics, at a steady rate."""
    refuse_memory("traffic", app.options.broker)
    records = endless_traffic(seed=seed, users=users, records_per_second=rate, start_ms=time.time_ns() // 1_000_000)
    sent = asyncio.run(_send(records if events is None else islice(records, events), rate))
    click.echo(f"{sent:,} records sent")


async def _send(records: Iterator[TrafficRecord], rate: float) -> int:
    """Send records at a rate, whatever the broker does (an open loop); return their number."""
    transport = app.make_transport("")
    sent = 0
    try:
        await transport.start()
        await transport.ensure_topics(app.topology.plan().topic_specs(create_sources=True))
        started_s = time.monotonic()
        while True:
            due = int((time.monotonic() - started_s + _TICK_S) * rate) - sent
            chunk = list(islice(records, max(0, due)))
            if chunk:
                await transport.send(_placed(chunk))
                sent += len(chunk)
            if len(chunk) < due:
                return sent
            await asyncio.sleep(_TICK_S)
    finally:
        await transport.stop()


def _placed(records: list[TrafficRecord]) -> dict[TopicPartition, OutputColumns]:
    placed: dict[TopicPartition, OutputColumns] = {}
    for record in records:
        partition = TopicPartition(record.topic, partition_of(record.key, app.topology.partitions))
        placed.setdefault(partition, OutputColumns()).append(record.timestamp_ms, record.key, record.value)
    return placed
