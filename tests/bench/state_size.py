"""State larger than memory: running totals of many keys, beside the same of few, with one result an order.

`n` orders go to `keys` users, each of whom orders once, in no order, before anyone orders again; then to anyone. The same number goes
to `FEW` users. Both jobs run with `state_memory_mib=LIMIT_MIB`, far less than the totals of many keys take, so those lie in RocksDB's
files and are read from there. Throughput of many should be at least half of that of few, and memory bounded by the limit.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from tests.bench.throughput import Rate, run_checked, settings
from tests.bench.topics import make_topics, send
from tests.bench.workload import BEGIN_MS, Order, partition_of

FEW = 10_000
LIMIT_MIB = 64
_STEP = 0x9E3779B1


@dataclass(frozen=True, slots=True)
class StateSizes:
    """How the two runs went."""

    keys: int
    few: Rate
    many: Rate

    @property
    def ratio(self) -> float:
        """The speed with many keys in units of that with few, by CPU time."""
        return self.many.per_cpu_second / self.few.per_cpu_second if self.few.per_cpu_second else 0.0

    @property
    def right(self) -> bool:
        """Whether all results are right."""
        return self.few.equal and self.many.equal


def totals_orders(number: int, keys: int) -> Iterator[tuple[int, Order]]:
    """Yield (partition, order): each key once, in no order, then any."""
    rng = random.Random(20260102)
    for index in range(number):
        key = index * _STEP % keys if index < keys else rng.randrange(keys)
        user = f"user-{key:09d}"
        yield (
            partition_of(user.encode()),
            {"order_id": f"ord-{index:012d}", "user_id": user, "amount_cents": rng.randrange(1, 50_000), "ts": BEGIN_MS + index},
        )


def totals_of(number: int, keys: int) -> dict[str, int]:
    """Return the total of each user."""
    totals: defaultdict[str, int] = defaultdict(int)
    for _, order in totals_orders(number, keys):
        totals[str(order["user_id"])] += int(order["amount_cents"])
    return totals


def compare_totals(values: list[bytes], want: dict[str, int], number: int) -> tuple[int, int]:
    """Return how many results there are, and how many are missing, too many, or not the end of a total that grows with each."""
    latest: dict[str, int] = {}
    wrong = abs(number - len(values))
    for value in values:
        row = orjson.loads(value)
        wrong += row["total"] <= latest.get(row["key"], 0)
        latest[row["key"]] = row["total"]
    wrong += sum(latest.get(key) != total for key, total in want.items()) + len(latest.keys() - want.keys())
    return len(values), wrong


async def run_state_sizes(bootstrap: str, keys: int, core: int | None, timeout_s: float) -> StateSizes:
    """Run both; twice as many orders as keys."""
    number = 2 * keys
    rates = []
    for users in (min(FEW, keys // 10), keys):
        topic = f"bench-totals-{number}-{users}"
        await make_topics(bootstrap, [topic])
        await send(bootstrap, topic, totals_orders(number, users))
        want = totals_of(number, users)
        environ = settings(bootstrap, topic, "latency", "1s") | {"BENCH_STATE_MEMORY": str(LIMIT_MIB)}
        rate = await run_checked(environ, number, number, lambda values, want=want: compare_totals(values, want, number), core, timeout_s)  # type: ignore[misc]
        rate.job = f"{users:,} keys"
        rates.append(rate)
    return StateSizes(keys, *rates)
