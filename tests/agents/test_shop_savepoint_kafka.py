"""The shop on a real Kafka: on 4 partitions, its savepoint by the command line, restored on 12, exact against the oracle."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from agents.traffic import TrafficRecord
from engine.records import OutputColumns, TopicPartition
from engine.runtime.transport.kafka import KafkaTransport
from engine.topics import TopicSpec
from state.hashing import partition_of
from tests.agents.test_shop_savepoint import in_time
from tests.engine.runtime.kafka_harness import connected, read_to_end, settings_of
from tests.kafka_server import KafkaServer
from tests.oracle.shop import compute
from tests.ports import free_port

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

EVENTS = 4_000
PATIENCE_S = 120.0
SOURCES, OUTPUTS = (
    ("orders", "page-views"),
    ("sessions", "fraud-alerts", "first-orders", "user-history", "revenue", "orders-late", "shop-dlq"),
)


class ShopOnKafka:
    """Worker processes and commands of the shop, all with the same environment but for the number of partitions."""

    def __init__(self, server: KafkaServer, transport: KafkaTransport, folder: Path) -> None:
        self.transport = transport
        self._folder = folder
        self._environment = {**os.environ, "STREAMFORGE_BROKER": f"kafka://{server.bootstrap}", "STREAMFORGE_MAX_AHEAD": "none"}

    def environment(self, partitions: int) -> dict[str, str]:
        state = str(self._folder / f"state-{partitions}")
        return {**self._environment, "STREAMFORGE_PARTITIONS": str(partitions), "STREAMFORGE_STATE_DIR": state}

    def command(self, partitions: int, *arguments: str) -> str:
        """Run a command to its end; return what it printed."""
        command = [sys.executable, "-m", "engine", *arguments]
        done = subprocess.run(command, env=self.environment(partitions), capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert done.returncode == 0, done.stderr[-3_000:]
        return done.stdout

    def worker(self, partitions: int) -> subprocess.Popen[bytes]:
        """Start a worker."""
        log = (self._folder / f"worker-{partitions}.log").open("wb")
        command = [sys.executable, "-m", "engine", "worker", "agents", "--web-port", str(free_port())]
        return subprocess.Popen(command, env=self.environment(partitions), stdout=log, stderr=subprocess.STDOUT)

    async def produce(self, records: list[TrafficRecord], partitions: int) -> None:
        """Send records as a producer does that knows of so many partitions."""
        columns: dict[TopicPartition, OutputColumns] = defaultdict(OutputColumns)
        for topic, key, value, timestamp_ms in records:
            columns[TopicPartition(topic, partition_of(key, partitions))].append(timestamp_ms, key, value)
        await self.transport.send(columns)

    async def until_read(self, partitions: int) -> None:
        """Wait until the group has committed everything that the sources hold."""
        asked = [TopicPartition(topic, number) for topic in SOURCES for number in range(partitions)]
        deadline = time.monotonic() + PATIENCE_S
        while True:
            ends = await self.transport.end_offsets(asked)
            committed = await self.transport.committed_offsets(asked)
            if all(committed.get(partition, 0) >= end for partition, end in ends.items()):
                return
            assert time.monotonic() < deadline, f"{committed} of {ends}"
            await asyncio.sleep(0.2)

    async def results(self, topic: str) -> dict[str, list[Any]]:
        """Return the values of each key, in the order of their times."""
        found: dict[str, list[tuple[int, int, Any]]] = defaultdict(list)
        counts = await self.transport.partition_counts([topic])
        for number in range(counts[topic]):
            for batch in await read_to_end(self.transport, TopicPartition(topic, number)):
                for key, value, timestamp_ms, offset in zip(batch.keys, batch.values, batch.timestamps, batch.offsets, strict=True):
                    found[(key or b"").decode()].append((timestamp_ms, offset, json.loads(value or b"null")))
        return {key: [value for *_, value in sorted(rows, key=lambda row: row[:2])] for key, rows in found.items()}


def by_window(revenue: dict[str, list[Any]]) -> dict[tuple[str, int], tuple[int, int]]:
    """Return (orders, revenue_cents) of each currency and minute."""
    return {(row["currency"], row["window_start"]): (row["orders"], row["revenue_cents"]) for rows in revenue.values() for row in rows}


async def test_shop_on_kafka_goes_on_with_12_partitions_exactly(kafka: KafkaServer, tmp_path: Path) -> None:
    records = in_time(EVENTS, seed=5)
    middle = len(records) // 2
    expected = compute(
        [value for topic, _, value, _ in records if topic == "orders"],
        [value for topic, _, value, _ in records if topic == "page-views"],
    )
    async with connected(settings_of(kafka, group="shop")) as transport:
        await transport.ensure_topics([TopicSpec(topic, 4, retention_ms=-1) for topic in SOURCES])
        shop = ShopOnKafka(kafka, transport, tmp_path)
        first = shop.worker(4)
        try:
            await shop.produce(records[:middle], 4)
            await shop.until_read(4)
            at = ["-A", "agents", "--to", str(tmp_path / "savepoints"), "--why", "more traffic"]
            running = await asyncio.to_thread(shop.command, 4, "savepoint", "create", "warm", *at, "--json")
            pause_ms = json.loads(running)["pause_ms"]
            print(f"the longest pause of a savepoint of 4 tasks: {pause_ms} ms")
            assert pause_ms > 0
            await asyncio.to_thread(shop.command, 4, "savepoint", "create", "four", *at, "--stop")
        finally:
            first.terminate()
            first.wait(60)
        said = await asyncio.to_thread(shop.command, 12, "savepoint", "restore", "four", *at, "--grow")
        assert "epoch 2 has" in said and "in 12 tasks" in said
    async with connected(settings_of(kafka, group="shop")) as transport:  # a new one: the old one knows the topics as they were
        shop.transport = transport
        second = shop.worker(12)
        try:
            await shop.produce(records[middle:], 12)
            await shop.until_read(12)
            # A minute without input, and every minute of revenue is closed.
            whole, deadline = expected.revenue_given_late([]), time.monotonic() + PATIENCE_S
            while by_window(await shop.results("revenue")) != whole:
                assert time.monotonic() < deadline, (tmp_path / "worker-12.log").read_text()[-3_000:]
                await asyncio.sleep(1)
            assert await shop.results("first-orders") == {user: [row] for user, row in expected.first_orders.items()}
            histories = await shop.results("user-history")
            alerts, sessions, revenue = [await shop.results(topic) for topic in ("fraud-alerts", "sessions", "revenue")]
        finally:
            second.terminate()
            second.wait(60)
    # user-history is compacted, and the broker of the tests compacts at once: only the newest of each user is sure to be there.
    assert {user: max(rows, key=lambda row: row["orders"]) for user, rows in histories.items()} == expected.histories
    # Sessions stay open for half an hour: what is closed must be right, and once.
    for user, rows in alerts.items():
        assert rows == expected.alerts[user][: len(rows)]
    for user, rows in sessions.items():
        assert rows == expected.sessions[user][: len(rows)]
    assert sum(map(len, revenue.values())) == len(whole)
    assert sum(map(len, alerts.values())) > sum(map(len, expected.alerts.values())) * 9 // 10
