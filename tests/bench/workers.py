"""Two workers beside one: `python -m tests.bench.workers --n 500000` (job A0, 4 partitions, exactly once, RocksDB).

Two workers on two cores need a third for the broker. On a machine with fewer the wall clock says nothing, so what is printed is CPU
time: what an order costs with one worker and with two, how even the two shared it, and what the broker took beside. On cores of
their own, two are so many times as fast as one:

    2 * (CPU seconds of one / CPU seconds of both) * (mean share / larger share)
"""

import argparse
import asyncio
import contextlib
import sys
import time
from dataclasses import dataclass

from tests.bench.broker import measured_broker
from tests.bench.measured import Measured, cpu_seconds
from tests.bench.throughput import compare, settings
from tests.bench.topics import CommittedReader, make_topics, send_orders
from tests.bench.workload import Answers, answers
from tests.kafka_server import KafkaServer

_POLL_S = 0.2
_QUIET_S = 3.0


@dataclass(frozen=True, slots=True)
class Together:
    """What so many workers took.

    Attributes:
        cpu_s: Of each worker from its first order on; 0 for one that got none.
        broker_s: CPU time of the broker meanwhile.
    """

    cpu_s: list[float]
    broker_s: float
    seconds: float
    wrong: int


async def run_workers(server: KafkaServer, topic: str, count: int, want: Answers, timeout_s: float) -> Together:
    """Run A0 with so many workers of one app over orders that are there."""
    environ = settings(server.bootstrap, topic, "A0", "1s")
    await make_topics(server.bootstrap, [environ["BENCH_RESULTS"]])
    begun, broker_s = time.time(), cpu_seconds(server.pid)
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Measured("tests.bench.pipelines", environ, None)) for _ in range(count)]
        async with CommittedReader(server.bootstrap, environ["BENCH_RESULTS"]) as reader:
            moved, before = time.time(), 0
            while time.time() - begun < timeout_s and (before < len(want) or time.time() - moved < _QUIET_S):
                await asyncio.sleep(_POLL_S)
                found = sum(await reader.stable_ends())
                if found != before:
                    moved, before = time.time(), found
            used = [worker.cpu_s() - worker.notes().get("first_cpu_s", worker.cpu_s()) for worker in workers]
            first = min((worker.notes().get("first", moved) for worker in workers), default=moved)
            broker_s = cpu_seconds(server.pid) - broker_s
            values, _ = await reader.everything()
    return Together(used, broker_s, moved - first, compare("A0", values, want)[1])


async def run(server: KafkaServer, number: int, timeout_s: float) -> bool:
    """Run one and two, and print."""
    topic = f"orders-{number}"
    await make_topics(server.bootstrap, [topic])
    await send_orders(server.bootstrap, topic, number)
    want = answers(number, ["A0"])["A0"]
    one, two = [await run_workers(server, topic, count, want, timeout_s) for count in (1, 2)]
    for name, found in (("one worker", one), ("two workers", two)):
        shares = " and ".join(f"{seconds:.1f}" for seconds in found.cpu_s)
        print(
            f"{name:<12} {sum(found.cpu_s) / number * 1e6:6.2f} CPU us an order ({shares} s), broker {found.broker_s:.1f} s, "
            f"{found.seconds:.1f} s by the wall clock; {found.wrong} results wrong"
        )
    work = sum(two.cpu_s)
    factor = 2 * sum(one.cpu_s) / work * (work / 2 / max(two.cpu_s)) if work else 0.0
    print(f"two workers on cores of their own: {factor:.2f} times one (aim 1.7); the broker takes {two.broker_s / work:.0%} of their work")
    return not one.wrong and not two.wrong


def main() -> int:
    """Start a Kafka and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.workers", description="Two workers beside one, by CPU time.")
    parser.add_argument("--n", type=int, default=500_000, help="number of orders (500000)")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds that a run may take (300)")
    chosen = parser.parse_args()
    with measured_broker() as server:
        return 0 if asyncio.run(run(server, chosen.n, chosen.timeout)) else 1


if __name__ == "__main__":
    sys.exit(main())
