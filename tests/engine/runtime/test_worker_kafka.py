"""`streamforge worker` on a real Kafka, as a process: it drains on SIGTERM, and finds its state again whatever became of its disk."""

import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.records import OutputColumns, TopicPartition
from engine.runtime.transport.kafka import KafkaTransport
from engine.topics import TopicSpec
from tests.chaos.worker import Worker
from tests.engine.runtime.kafka_harness import connected, read_to_end, settings_of, unique
from tests.kafka_server import KafkaServer

pytestmark = pytest.mark.kafka

PATIENCE_S = 60.0
PROGRAM = '''
from engine import App, Struct, ValueState

class Order(Struct):
    user: str
    cents: int

app = App("{name}", broker="kafka://set-by-the-environment", partitions=2, broker_session_timeout=3, grace="8s")
orders = app.source("{name}-orders", Order, key="user")

class Numbering:
    orders, cents = ValueState(int, default=0), ValueState(int, default=0)

    def on_record(self, record, ctx):
        self.orders.set(self.orders.get() + 1)
        self.cents.set(self.cents.get() + record.value.cents)
        yield {{"number": self.orders.get(), "cents": self.cents.get()}}

@app.pipeline(orders)
def totals(orders):
    """Running totals of each user."""
    return orders.process(Numbering).to("{name}-totals")
'''


class Shop:
    """One app with its topics on the broker: orders of one user go in, and its running totals come out of one partition."""

    def __init__(self, name: str, transport: KafkaTransport, worker: Worker) -> None:
        self.name = name
        self.transport = transport
        self.worker = worker
        self.sent = 0

    async def send(self, count: int) -> None:
        """Send orders of 1, 2, 3, … cents; timestamps are those of the machine, so that nothing is too old to keep."""
        cents = range(self.sent + 1, self.sent + count + 1)
        self.sent += count
        now_ms = int(time.time() * 1_000)
        values: list[bytes | None] = [json.dumps({"user": "ann", "cents": n}).encode() for n in cents]
        await self.transport.send({TopicPartition(f"{self.name}-orders", 0): OutputColumns([now_ms] * count, [b"ann"] * count, values)})

    async def totals(self) -> list[tuple[int, int]]:
        """Return (number, cents) of everything that a read_committed reader sees."""
        batches = await read_to_end(self.transport, TopicPartition(f"{self.name}-totals", 0))
        found = [json.loads(value or b"") for batch in batches for value in batch.values]
        return [(row["number"], row["cents"]) for row in found]

    async def until_all(self) -> None:
        """Wait until as many totals are there as orders were sent, and check them."""
        deadline = time.monotonic() + PATIENCE_S
        while len(found := await self.totals()) < self.sent:
            assert time.monotonic() < deadline, f"{len(found)} of {self.sent}: {self.worker.text()[-3_000:]}"
        assert found == right(self.sent)

    async def opened(self, since: int) -> str:
        """Return the line in which the worker says how it came by the state of task 0."""
        line = await self.worker.until_said("task 0: open after", since, PATIENCE_S)
        assert line is not None, self.worker.text(since)[-3_000:]
        print(line)
        return line


def right(count: int) -> list[tuple[int, int]]:
    """Return the totals of that many orders."""
    return [(number, number * (number + 1) // 2) for number in range(1, count + 1)]


@asynccontextmanager
async def shop_on(kafka: KafkaServer, folder: Path) -> AsyncIterator[Shop]:
    """Make an app of its own, its topics, and a worker that does not run yet."""
    name = unique("worker")
    program = folder / "totals.py"
    program.write_text(PROGRAM.format(name=name))
    worker = Worker("worker", str(program), folder, {"STREAMFORGE_BROKER": f"kafka://{kafka.bootstrap}"})
    async with connected(settings_of(kafka, group=name)) as transport:
        await transport.ensure_topics([TopicSpec(f"{name}-orders", 2), TopicSpec(f"{name}-totals", 2, retention_ms=-1)])
        try:
            yield Shop(name, transport, worker)
        finally:
            worker.kill()


async def test_worker_told_to_end_drains_commits_and_ends_well(kafka: KafkaServer, tmp_path: Path) -> None:
    async with shop_on(kafka, tmp_path) as shop:
        shop.worker.start()
        await shop.send(100)
        await shop.until_all()
        await shop.send(20_000)
        begun_s = time.monotonic()
        assert await shop.worker.end() == 0, shop.worker.text()[-3_000:]
        print(f"ended within {time.monotonic() - begun_s:.2f} s of SIGTERM")
        found = await shop.totals()
        assert found == right(len(found))
        orders = TopicPartition(f"{shop.name}-orders", 0)
        assert await shop.transport.committed_offsets([orders]) == {orders: len(found)}, "what came out is what was committed"
        mark = shop.worker.said()
        shop.worker.start()
        await shop.until_all()
        assert "state is intact" in await shop.opened(mark)
        assert await shop.worker.end() == 0


@pytest.mark.parametrize(
    ("disk", "said"),
    [
        ("intact", r"state is intact; 0 changelog entries in \d+\.\d+ s"),
        ("lost", r"state is built: there is no local state; [1-9]\d* changelog entries in \d+\.\d+ s"),
        ("old", r"state is \d+ records behind; [1-9]\d* changelog entries in \d+\.\d+ s"),
    ],
    ids=["intact", "lost", "old"],
)
async def test_worker_killed_goes_on_the_same_and_says_what_its_disk_was_worth(
    kafka: KafkaServer, tmp_path: Path, disk: str, said: str
) -> None:
    async with shop_on(kafka, tmp_path) as shop:
        shop.worker.start()
        await shop.send(50)
        await shop.until_all()
        assert await shop.worker.end() == 0
        shop.worker.keep_copy(tmp_path / "copy")
        shop.worker.start()
        await shop.send(50)
        await shop.until_all()
        await shop.worker.until_said("revoked", shop.worker.said(), 0.5)  # a moment in which the store takes what is committed
        shop.worker.kill()
        if disk == "lost":
            shop.worker.lose_disk()
        elif disk == "old":
            shop.worker.bring_back(tmp_path / "copy")
        mark = shop.worker.said()
        shop.worker.start()
        await shop.send(50)
        await shop.until_all()
        assert re.search(said, await shop.opened(mark))


async def test_worker_that_waits_for_input_commits_a_lone_record_soon(kafka: KafkaServer, tmp_path: Path) -> None:
    async with shop_on(kafka, tmp_path) as shop:
        shop.worker.start()
        await shop.send(1)
        await shop.until_all()
        partition = TopicPartition(f"{shop.name}-totals", 0)
        reader = await shop.transport.open_reader(partition, (await shop.transport.end_offsets([partition]))[partition])
        try:
            for _ in range(5):
                begun_s = time.monotonic()
                await shop.send(1)
                while (batch := await reader.read(PATIENCE_S)) is not None and not len(batch):
                    pass
                assert batch is not None and json.loads(batch.values[0] or b"")["number"] == shop.sent
                print(f"a lone record was committed and read {time.monotonic() - begun_s:.3f} s after it was sent")
        finally:
            await reader.close()


async def test_worker_whose_task_is_fenced_drops_it_and_doubles_nothing(kafka: KafkaServer, tmp_path: Path) -> None:
    async with shop_on(kafka, tmp_path) as shop:
        shop.worker.start()
        await shop.send(10)
        await shop.until_all()
        mark = shop.worker.said()
        usurper = await shop.transport.open_producer(f"{shop.name}-0")
        await shop.send(10)
        assert await shop.worker.until_said(f"task 0: dropped: .*a newer producer owns {shop.name}-0", mark, PATIENCE_S)
        await shop.until_all()
        await usurper.close()
        assert "state is intact" in await shop.opened(mark)
