"""From an order handed to the producer to its result seen by a read_committed reader, at a fixed rate."""

import asyncio
import random
import time
from dataclasses import dataclass

import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

from tests.bench.measured import Measured
from tests.bench.throughput import settings
from tests.bench.topics import CommittedReader, make_topics
from tests.bench.workload import USERS, partition_of

_BATCH_BYTES = 1 << 20
_TICK_S = 0.002
_START_S = 60.0
_DRAIN_S = 5.0


@dataclass(slots=True)
class Latency:
    """Milliseconds; `seen` of `sent` results came back."""

    per_second: int
    commit: str
    sent: int = 0
    seen: int = 0
    p50_ms: int = 0
    p99_ms: int = 0
    max_ms: int = 0
    trouble: str = ""


async def run_latency(bootstrap: str, *, per_second: int, commit: str, warm_s: float, measure_s: float, core: int | None) -> Latency:
    """Measure an open loop: orders are sent at the rate whatever the engine does."""
    environ = settings(bootstrap, "", "latency", commit)
    environ["BENCH_TOPIC"] = f"{environ['BENCH_APP']}-orders"
    await make_topics(bootstrap, [environ["BENCH_TOPIC"], environ["BENCH_RESULTS"]])
    result = Latency(per_second, commit)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=_BATCH_BYTES)
    await producer.start()
    try:
        async with CommittedReader(bootstrap, environ["BENCH_RESULTS"]) as reader:
            with Measured("tests.bench.pipelines", environ, core) as child:
                await _measure(result, producer, reader, child, environ["BENCH_TOPIC"], warm_s, measure_s)
                if result.seen < max(result.sent, 1) or not child.running:
                    result.trouble = child.tail()
    finally:
        await producer.stop()
    return result


async def _measure(
    result: Latency, producer: AIOKafkaProducer, reader: CommittedReader, child: Measured, topic: str, warm_s: float, measure_s: float
) -> None:
    delays: list[tuple[int, float]] = []

    async def read() -> None:
        while True:
            found = await reader.poll()
            now_ms = time.time() * 1_000
            delays.extend((ts, now_ms - ts) for ts in (orjson.loads(value)["ts"] for _, _, value in found))

    reading = asyncio.create_task(read())
    sender = _Sender(producer, topic, result.per_second)
    begun = time.monotonic()
    while not delays and time.monotonic() - begun < _START_S and child.running:
        await sender.send(1.0)
    if not delays:
        reading.cancel()
        return
    await sender.send(warm_s)
    first_ms = time.time() * 1_000
    result.sent = await sender.send(measure_s)
    last_ms = time.time() * 1_000
    await producer.flush()
    await asyncio.sleep(_DRAIN_S)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    measured = sorted(delay for ts, delay in delays if first_ms <= ts < last_ms)
    result.seen = len(measured)
    if measured:
        middle, late = measured[len(measured) // 2], measured[len(measured) * 99 // 100]
        result.p50_ms, result.p99_ms, result.max_ms = round(middle), round(late), round(measured[-1])


class _Sender:
    """Sends orders at a rate, in batches of what has come up while the last ones were on their way.

    It shares a core with the broker, so it must cost little: a call of the driver for each record would take a fifth of the core.
    """

    def __init__(self, producer: AIOKafkaProducer, topic: str, per_second: int) -> None:
        self._producer, self._topic, self._per_second = producer, topic, per_second
        self._rng = random.Random(1)
        users = [(f"u{number}", f"u{number}".encode()) for number in range(USERS)]
        self._users = [(user, key, partition_of(key)) for user, key in users]

    async def send(self, seconds: float) -> int:
        """Send for some seconds, and return how many orders that were when all are written; their `ts` is when they were made."""
        begun, sent = time.monotonic(), 0
        batches: list[tuple[int, BatchBuilder]] = []
        sending: list[asyncio.Future[object]] = []
        while (elapsed := time.monotonic() - begun) < seconds or batches or sending:
            while sent < int(min(elapsed, seconds) * self._per_second):
                self._add(batches, sent)
                sent += 1
            if sending and all(each.done() for each in sending):
                await asyncio.gather(*sending)  # raises what has failed
                sending = []
            if batches and not sending:
                sending = [await self._producer.send_batch(batch, self._topic, partition=partition) for partition, batch in batches]
                batches = []
            await asyncio.sleep(_TICK_S)
        return sent

    def _add(self, batches: list[tuple[int, BatchBuilder]], number: int) -> None:
        user, key, partition = self._users[int(USERS * self._rng.random() ** 3)]
        now_ms = int(time.time() * 1_000)
        order = {"order_id": f"ord-{number:012d}-checkout-web-eu-central", "user_id": user, "amount_cents": 100, "ts": now_ms}
        value = orjson.dumps(order)
        open_one = next((batch for other, batch in reversed(batches) if other == partition), None)
        if open_one is None or open_one.append(key=key, value=value, timestamp=now_ms) is None:  # none, or it is full
            batches.append((partition, self._producer.create_batch()))
            batches[-1][1].append(key=key, value=value, timestamp=now_ms)
