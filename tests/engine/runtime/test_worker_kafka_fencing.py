"""A runner on a real Kafka that is stopped in the middle of a transaction, between what it has sent and its commit."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from engine import Context, Record, Sink, Stream, Struct, ValueState
from engine.records import OutputColumns, TopicPartition
from engine.runtime.runner import Runner
from engine.runtime.shell import Limits
from engine.runtime.stores import StateFolder
from engine.runtime.transport.kafka import KafkaTransport
from engine.topology import Topology
from tests.engine.runtime.kafka_harness import PATIENCE_S, connected, read_to_end, settings_of, unique
from tests.kafka_server import KafkaServer

pytestmark = pytest.mark.kafka


class Click(Struct, frozen=True):
    user: str


class Numbering:
    count = ValueState(int, default=0)

    def on_record(self, record: Record[str, Click], ctx: Context) -> list[int]:
        self.count.set(self.count.get() + 1)
        return [self.count.get()]


def numbering(name: str) -> Topology:
    """Return an app with one task that numbers the clicks of each user."""
    topology = Topology(name, partitions=1)
    clicks = topology.source(f"{name}-clicks", Click, key="user")

    @topology.pipeline(clicks)
    def number(clicks: Stream[str, Click]) -> Sink:
        return clicks.process(Numbering).to(f"{name}-numbers")

    return topology


class HeldTransport(KafkaTransport):
    """Holds up the commit of the first transaction with results: everything is sent and acknowledged, the end is not asked for."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.sent, self.go_on = asyncio.Event(), asyncio.Event()
        self.armed = False

    async def open_producer(self, transactional_id: str) -> Any:
        producer = await super().open_producer(transactional_id)
        commit = producer._driver.commit_transaction

        async def hold_and_commit() -> None:
            if self.armed:
                self.armed = False
                self.sent.set()
                await self.go_on.wait()
            await commit()

        producer._driver.commit_transaction = hold_and_commit
        return producer


async def test_runner_fenced_between_sending_and_commit_leaves_nothing_visible_and_does_it_again(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    name = unique("fenced")
    plan = numbering(name).plan()
    clicks, numbers = TopicPartition(f"{name}-clicks", 0), TopicPartition(f"{name}-numbers", 0)
    held = HeldTransport(settings_of(kafka, group=name))
    runner = Runner(
        plan, held, open_store=StateFolder(tmp_path).open, limits=Limits(commit_interval_ms=100, retry_first_s=0.1), create_sources=True
    )
    running = asyncio.create_task(runner.run())

    async def seen() -> list[int]:
        return [json.loads(value or b"") for batch in await read_to_end(other, numbers) for value in batch.values]

    async with connected(settings_of(kafka)) as other, asyncio.timeout(3 * PATIENCE_S):
        try:
            while not runner.tasks or not runner.metrics.total("opens"):  # noqa: ASYNC110 - a real broker takes real time
                await asyncio.sleep(0.05)
            held.armed = True
            await other.send({clicks: OutputColumns([1] * 3, [b"ann"] * 3, [b'{"user":"ann"}'] * 3)})
            await held.sent.wait()
            assert await seen() == [], "the results lie in the topic, and no reader gets them"
            usurper = await other.open_producer(plan.transactional_id(0))
            high = (await other.end_offsets([numbers]))[numbers]
            assert high > 3, "fencing has aborted the transaction: its marker lies behind the three results, and holds nobody up"
            assert await seen() == []
            held.go_on.set()
            while await seen() != [1, 2, 3]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            assert runner.metrics.total("commit_failures") == 1
            assert runner.metrics.total("opens") == 2
            await usurper.close()
        finally:
            runner.stop()
            await running
