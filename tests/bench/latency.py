"""From an order handed to the producer to its result seen by a read_committed reader, at a fixed rate."""

import asyncio
import random
import time
from dataclasses import dataclass

import orjson
from aiokafka import AIOKafkaProducer

from tests.bench.measured import Measured
from tests.bench.throughput import settings
from tests.bench.topics import CommittedReader, make_topics
from tests.bench.workload import USERS, partition_of

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
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=1)
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
    begun = time.monotonic()
    while not delays and time.monotonic() - begun < _START_S and child.running:
        await _send(producer, topic, result.per_second, 1.0)
    if not delays:
        reading.cancel()
        return
    await _send(producer, topic, result.per_second, warm_s)
    first_ms = time.time() * 1_000
    result.sent = await _send(producer, topic, result.per_second, measure_s)
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


async def _send(producer: AIOKafkaProducer, topic: str, per_second: int, seconds: float) -> int:
    """Send for some seconds and return how many orders that were; their `ts` is when they were handed to the producer."""
    rng = random.Random(1)
    begun, sent = time.monotonic(), 0
    while (elapsed := time.monotonic() - begun) < seconds:
        while sent < int(elapsed * per_second):
            user, now_ms = f"u{int(USERS * rng.random() ** 3)}", int(time.time() * 1_000)
            key = user.encode()
            order = {"order_id": f"ord-{sent:012d}-checkout-web-eu-central", "user_id": user, "amount_cents": 100, "ts": now_ms}
            await producer.send(topic, orjson.dumps(order), key, partition=partition_of(key), timestamp_ms=now_ms)
            sent += 1
        await asyncio.sleep(_TICK_S)
    return sent
