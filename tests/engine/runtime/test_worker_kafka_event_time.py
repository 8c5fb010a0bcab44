"""Event time on a real Kafka: a join between two repartitions, while a worker is killed, one partition is idle and one is empty.

    orders   ─ by order ─┐
                         ├─ join ─ by country ─ windows ─► revenue
    payments ────────────┘

The watermark of the windows is the minimum over every task of the join, and theirs over every partition of orders. A worker that is
down must hold it (else records of its partitions would be late when they come), an idle and an empty partition must not, and when
all input has ended, the last windows close by the wall clock.
"""

import asyncio
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

from engine.records import OutputColumns, TopicPartition
from engine.runtime.transport.kafka import KafkaTransport
from engine.topics import TopicSpec
from state.hashing import partition_of
from tests.chaos.worker import Worker
from tests.engine.runtime.kafka_harness import connected, read_to_end, settings_of, unique
from tests.kafka_server import KafkaServer

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PATIENCE_S = 90.0
PARTITIONS, IDLE, EMPTY = 4, 2, 3
ROUNDS, IDLE_FROM, KILL_AT, BACK_AT = 60, 6, 18, 40
ROUND_S = 0.25
START_MS, STEP_MS, JITTER_MS, WITHIN_MS, WINDOW_MS = 1_767_225_600_000, 1_500, 2_000, 4_000, 10_000
PROGRAM = '''
from engine import App, Struct, agg, bounded, windows

class Order(Struct, frozen=True):
    order_id: str
    user: str
    country: str
    ts: int

class Payment(Struct, frozen=True):
    order_id: str
    cents: int
    ts: int

class Sale(Struct, frozen=True):
    country: str
    paid: int
    cents: int

def sale(found: tuple[Order, Payment | None]) -> Sale:
    order, payment = found
    return Sale(order.country, 0, 0) if payment is None else Sale(order.country, 1, payment.cents)

app = App("{name}", broker="kafka://set-by-the-environment", partitions={partitions}, broker_session_timeout=3, grace="8s")
watermark = bounded("{jitter_ms}ms", idle="6s")
orders = app.source("{name}-orders", Order, key="user", time="ts", watermark=watermark)
payments = app.source("{name}-payments", Payment, key="order_id", time="ts", watermark=watermark)

@app.pipeline(orders, payments)
def revenue(orders, payments):
    """Revenue of each country; orders that nobody paid count too."""
    return (
        orders.key_by("order_id")
        .join(payments, within=("0s", "{within_ms}ms"), how="left", late_to="{name}-late")
        .map(sale)
        .key_by("country")
        .window(windows.tumbling("{window_ms}ms"), late_to="{name}-late")
        .aggregate(key_as="country", orders=agg.count(), paid=agg.sum("paid"), cents=agg.sum("cents"))
        .to("{name}-revenue")
    )
'''

Row = tuple[str, int, int, int, int]


class Feed:
    """Rounds of orders and payments, and what must come of them."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._number = 0
        self._users: dict[int, list[str]] = defaultdict(list)
        for number in range(200):
            user = f"user-{number}"
            self._users[partition_of(user.encode(), PARTITIONS)].append(user)
        self.orders: list[tuple[str, str, str, int]] = []
        self.payments: list[tuple[str, int, int]] = []
        self.partitions = Counter[int]()

    def round(self, number: int) -> tuple[list[tuple[str, str, str, int]], list[tuple[str, int, int]]]:
        """Return some orders of every partition that has any at this time, and payments, each within the jitter of now."""
        now_ms = START_MS + number * STEP_MS
        orders, payments = [], []
        for partition in range(PARTITIONS):
            if partition == EMPTY or (partition == IDLE and number >= IDLE_FROM):
                continue
            for _ in range(5):
                self._number += 1
                user = self._random.choice(self._users[partition])
                orders.append((f"o{self._number}", user, self._random.choice("ABC"), now_ms - self._random.randrange(JITTER_MS)))
                self.partitions[partition] += 1
        candidates = [*self.orders[-60:], *orders]
        for _ in range(24):  # so that each partition of the payments goes on
            order_id, *_, ts = self._random.choice(candidates)
            paid_ms = now_ms - self._random.randrange(JITTER_MS)
            payments.append(
                (order_id if paid_ms >= ts else f"unknown-{self._random.randrange(1_000)}", self._random.randrange(9_999), paid_ms)
            )
        self.orders += orders
        self.payments += payments
        return orders, payments

    def expected(self) -> list[Row]:
        """Return (country, window start, orders, paid, cents), by trying every pair."""
        paid_by_order: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for order_id, cents, ts in self.payments:
            paid_by_order[order_id].append((cents, ts))
        found: dict[tuple[str, int], list[int | None]] = defaultdict(list)
        for order_id, _, country, ts in self.orders:
            pairs = [(cents, paid_ms) for cents, paid_ms in paid_by_order[order_id] if 0 <= paid_ms - ts <= WITHIN_MS]
            outcomes: list[tuple[int | None, int]] = [*pairs] or [(None, ts)]
            for paid_cents, at_ms in outcomes:
                found[country, at_ms // WINDOW_MS * WINDOW_MS].append(paid_cents)
        rows: list[Row] = []
        for (country, start), values in found.items():
            paid = [cents for cents in values if cents is not None]
            rows.append((country, start, len(values), len(paid), sum(paid)))
        return sorted(rows, key=repr)


async def send(transport: KafkaTransport, name: str, feed: Feed, number: int) -> None:
    """Send a round: every record to the partition that its key says."""
    orders, payments = feed.round(number)
    batches: dict[TopicPartition, OutputColumns] = defaultdict(OutputColumns)
    now_ms = int(time.time() * 1_000)
    for order_id, user, country, ts in orders:
        value = json.dumps({"order_id": order_id, "user": user, "country": country, "ts": ts}).encode()
        to = TopicPartition(f"{name}-orders", partition_of(user.encode(), PARTITIONS))
        batches[to].append(now_ms, user.encode(), value)
    for order_id, cents, ts in payments:
        value = json.dumps({"order_id": order_id, "cents": cents, "ts": ts}).encode()
        to = TopicPartition(f"{name}-payments", partition_of(order_id.encode(), PARTITIONS))
        batches[to].append(now_ms, order_id.encode(), value)
    await transport.send(batches)


async def read(transport: KafkaTransport, topic: str) -> list[Mapping[str, object]]:
    """Return what a read_committed reader finds in a topic."""
    found = []
    for partition in range(PARTITIONS):
        for batch in await read_to_end(transport, TopicPartition(topic, partition)):
            found += [json.loads(value or b"") for value in batch.values]
    return found


def rows(results: list[Mapping[str, object]]) -> list[Row]:
    """Return results in the form of `Feed.expected`."""
    found = [(row["country"], row["window_start"], row["orders"], row["paid"], row["cents"]) for row in results]
    return sorted(found, key=repr)  # type: ignore[arg-type]  # JSON of these types


async def test_join_between_repartitions_with_a_worker_killed_and_a_partition_idle_equals_its_oracle(
    kafka: KafkaServer, tmp_path: Path
) -> None:
    name, feed = unique("time"), Feed(seed=4)
    program = tmp_path / "revenue.py"
    program.write_text(PROGRAM.format(name=name, partitions=PARTITIONS, jitter_ms=JITTER_MS, within_ms=WITHIN_MS, window_ms=WINDOW_MS))
    workers = [Worker(f"w{number}", str(program), tmp_path, {"STREAMFORGE_BROKER": f"kafka://{kafka.bootstrap}"}) for number in (1, 2)]
    first = workers[0]
    async with connected(settings_of(kafka, group=name)) as transport:
        sources = [TopicSpec(f"{name}-{topic}", PARTITIONS, retention_ms=-1) for topic in ("orders", "payments", "revenue", "late")]
        await transport.ensure_topics(sources)
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                assert await worker.until_said("task .: open after", 0, PATIENCE_S), worker.text()[-3_000:]
            for number in range(ROUNDS):
                if number == KILL_AT:
                    assert first.numbers(), "the worker that is killed must have had tasks"
                    first.kill()
                elif number == BACK_AT:
                    first.start()
                await send(transport, name, feed, number)
                await asyncio.sleep(ROUND_S)
            expected = feed.expected()
            assert feed.partitions[IDLE] and not feed.partitions[EMPTY]
            deadline = time.monotonic() + PATIENCE_S
            found: list[Row] = []
            while len(found) < len(expected) and time.monotonic() < deadline:
                await asyncio.sleep(0.5)
                found = rows(await read(transport, f"{name}-revenue"))
            said = "\n".join(worker.text()[-2_000:] for worker in workers)
            assert await read(transport, f"{name}-late") == [], said
            assert found == expected, said
            assert sum(row[3] for row in found) > 300
            assert [await worker.end() for worker in workers] == [0, 0], said
            assert rows(await read(transport, f"{name}-revenue")) == expected, "nothing comes twice as they end"
        finally:
            for worker in workers:
                worker.kill()
