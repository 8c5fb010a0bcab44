"""From an order handed to the producer to its result seen by a read_committed reader, at a fixed rate.

Both ends are librdkafka's, in threads of the bench: what they take of the core that they share with the broker is then small, and the
same as where others were measured.
"""

import asyncio
import random
import threading
import time
from dataclasses import dataclass

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.bench.measured import Measured
from tests.bench.throughput import settings
from tests.bench.topics import make_topics
from tests.bench.workload import PARTITIONS, USERS, partition_of

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
    with (
        Measured("tests.bench.pipelines", environ, core) as child,
        Ends(bootstrap, environ["BENCH_TOPIC"], environ["BENCH_RESULTS"]) as ends,
    ):
        await asyncio.to_thread(_measure, result, ends, child, warm_s, measure_s)
        if result.seen < max(result.sent, 1) or not child.running:
            result.trouble = child.tail()
    return result


def _measure(result: Latency, ends: "Ends", child: Measured, warm_s: float, measure_s: float) -> None:
    begun = time.monotonic()
    while not ends.delays and time.monotonic() - begun < _START_S and child.running:
        ends.send(result.per_second, 1.0)
    if not ends.delays:
        return
    ends.send(result.per_second, warm_s)
    first_ms = time.time() * 1_000
    result.sent = ends.send(result.per_second, measure_s)
    last_ms = time.time() * 1_000
    time.sleep(_DRAIN_S)
    measured = sorted(delay for ts, delay in list(ends.delays) if first_ms <= ts < last_ms)
    result.seen = len(measured)
    if measured:
        middle, late = measured[len(measured) // 2], measured[len(measured) * 99 // 100]
        result.p50_ms, result.p99_ms, result.max_ms = round(middle), round(late), round(measured[-1])


class Ends:
    """Sends orders and reads results, the latter in a thread of its own. Use it in a `with`.

    Attributes:
        delays: (when its order was handed to the producer, milliseconds until the result was read) of each result.
    """

    def __init__(self, bootstrap: str, orders: str, results: str) -> None:
        self.delays: list[tuple[int, float]] = []
        self._bootstrap, self._orders, self._results = bootstrap, orders, results
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 1})
        self._random = random.Random(1)
        self._is_over = threading.Event()
        self._reader = threading.Thread(target=self._read, name="reader of results")

    def __enter__(self) -> "Ends":
        self._reader.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._is_over.set()
        self._reader.join()

    def send(self, per_second: int, seconds: float) -> int:
        """Send for some seconds and return how many orders that were; their `ts` is when they were handed to the producer."""
        begun, sent = time.monotonic(), 0
        while (elapsed := time.monotonic() - begun) < seconds:
            while sent < int(elapsed * per_second):
                user, now_ms = f"u{int(USERS * self._random.random() ** 3)}", int(time.time() * 1_000)
                order = {"order_id": f"ord-{sent:012d}-checkout-web-eu-central", "user_id": user, "amount_cents": 100, "ts": now_ms}
                key = user.encode()
                self._producer.produce(self._orders, orjson.dumps(order), key, partition=partition_of(key), timestamp=now_ms)
                sent += 1
            self._producer.poll(0)
            time.sleep(_TICK_S)
        self._producer.flush()
        return sent

    def _read(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": "latency",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 10,
            }
        )
        consumer.assign([TopicPartition(self._results, number, 0) for number in range(PARTITIONS)])
        while not self._is_over.is_set():
            found = consumer.consume(2_000, timeout=0.01)
            now_ms = time.time() * 1_000
            times = [orjson.loads(message.value() or b"")["ts"] for message in found if message.error() is None]
            self.delays += [(ts, now_ms - ts) for ts in times]
        consumer.close()
