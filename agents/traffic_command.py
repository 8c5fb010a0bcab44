"""`streamforge traffic`: sample traffic of the shop and its watch for a real Kafka, at a given rate, until it is stopped.

    streamforge traffic --rate 5000                 the app's broker (STREAMFORGE_BROKER), for ever
    streamforge traffic --rate 500 --events 10000   so many orders and page views

Event times begin now and advance with the wall clock, so that windows close as they would in production. Payments come with the orders
that they are for, minutes later, and do not count: what would be paid after the last record is not sent.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator

import click

from agents import app, watch
from agents.payments import PAYMENTS, with_payments
from agents.traffic import TrafficRecord, endless_traffic
from engine.records import OutputColumns, TopicPartition
from engine.runtime.cli.connection import refuse_memory
from state.hashing import partition_of

_TICK_S = 0.05


@click.command()
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), default=100.0, show_default=True, help="Orders and page views a second."
)
@click.option("--events", type=click.IntRange(1), help="Stop after so many orders and page views; for ever without it.")
@click.option("--users", type=click.IntRange(1), default=1_000, show_default=True, help="Number of users.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same journeys.")
def traffic(rate: float, events: int | None, users: int, seed: int) -> None:
    """Send sample orders, page views and payments to the shop's topics, at a steady rate."""
    refuse_memory("traffic", app.options.broker)
    records = endless_traffic(seed=seed, users=users, records_per_second=rate, start_ms=time.time_ns() // 1_000_000)
    sent, payments = asyncio.run(_send(with_payments(records, seed=seed), rate, events))
    click.echo(f"{sent:,} records sent, and {payments:,} payments")


async def _send(records: Iterable[TrafficRecord], rate: float, events: int | None) -> tuple[int, int]:
    """Send records at a rate, whatever the broker does (an open loop); return the number of orders and page views, and of payments."""
    transport = app.make_transport("")
    source = iter(records)
    sent = payments = 0
    try:
        await transport.start()
        specs = [spec for topology in (app.topology, watch.app.topology) for spec in topology.plan().topic_specs(create_sources=True)]
        await transport.ensure_topics(list({spec.name: spec for spec in specs}.values()))
        started_s = time.monotonic()
        while events is None or sent < events:
            due = int((time.monotonic() - started_s + _TICK_S) * rate) - sent
            chunk = list(take(source, due if events is None else min(due, events - sent)))
            if chunk:
                await transport.send(_placed(chunk))
                paid = sum(record.topic == PAYMENTS for record in chunk)
                sent, payments = sent + len(chunk) - paid, payments + paid
            await asyncio.sleep(_TICK_S)
        return sent, payments
    finally:
        await transport.stop()


def take(source: Iterator[TrafficRecord], count: int) -> Iterator[TrafficRecord]:
    """Yield the next records up to so many orders and page views; payments in between do not count."""
    while count > 0:
        record = next(source)
        yield record
        count -= record.topic != PAYMENTS


def _placed(records: list[TrafficRecord]) -> dict[TopicPartition, OutputColumns]:
    placed: dict[TopicPartition, OutputColumns] = {}
    for record in records:
        partition = TopicPartition(record.topic, partition_of(record.key, app.topology.partitions))
        placed.setdefault(partition, OutputColumns()).append(record.timestamp_ms, record.key, record.value)
    return placed
