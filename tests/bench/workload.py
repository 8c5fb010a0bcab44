"""The orders, and the right answers.

Orders are deterministic: 184 bytes of JSON, keyed by user and placed as Java clients do, record timestamp = `ts`; 10,000 users, a
few of whom order most; two hours of event time, each order up to 20 s late. Nothing is late under a watermark of 30 s. Two flush
records a partition, ten hours later, close every window.

The answers are computed the slow and obvious way: all orders in memory, sorted by user and time.
"""

import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from aiokafka.partitioner import murmur2

PARTITIONS = 4
BEGIN_MS = 1_760_000_040_000
SPAN_MS = 2 * 3_600_000
DISORDER_MS = 20_000
WINDOW_MS = 60_000
GAP_MS = 60_000
PATTERN_MS = 300_000
USERS = 10_000
FLUSH = "flush-"
FLUSH_MS = BEGIN_MS + SPAN_MS + 10 * 3_600_000

Order = dict[str, str | int]
Answers = dict[tuple[str | int, ...], tuple[int, ...]]
"""What identifies a result → its numbers."""

_COUNTRIES = ["DE", "FR", "NL", "BE", "ES", "IT", "PT", "PL", "AT", "CH", "SE", "NO", "DK", "FI", "IE", "GB", "US", "CZ", "HU", "GR"]
_CURRENCIES = ["EUR", "USD", "GBP"]


def orders(number: int) -> Iterator[Order]:
    """Yield the first so many orders, in the order in which they are sent."""
    rng = random.Random(20260101)
    weights = list(itertools.accumulate(1.0 / (rank + 10) ** 0.9 for rank in range(USERS)))
    users = rng.choices(range(USERS), cum_weights=weights, k=number)
    for index, user in enumerate(users):
        ts = BEGIN_MS + index * SPAN_MS // number - rng.randrange(DISORDER_MS)
        yield {
            "order_id": f"ord-{index:012d}-{user * 7919 % 1000003:08x}-checkout-web-eu-central-{index % 97:02d}-session-{user:06d}-v2",
            "user_id": f"u{user}",
            "amount_cents": rng.randrange(100, 50_000),
            "currency": _CURRENCIES[user % 3],
            "country": _COUNTRIES[user * 31 % 20],
            "items": rng.randrange(1, 9),
            "ts": ts,
        }


def flush_orders() -> Iterator[tuple[int, Order]]:
    """Yield (partition, order) of the records that close every window."""
    for partition in range(PARTITIONS):
        user = next(name for name in (f"{FLUSH}{number}" for number in itertools.count()) if partition_of(name.encode()) == partition)
        for step in range(2):
            ts = FLUSH_MS + step * 3_600_000
            row: Order = {
                "order_id": "flush",
                "user_id": user,
                "amount_cents": 0,
                "currency": "EUR",
                "country": FLUSH,
                "items": 0,
                "ts": ts,
            }
            yield partition, row


def partition_of(key: bytes) -> int:
    """Return the partition of a key, as Java's default partitioner has it."""
    return int((murmur2(key) & 0x7FFFFFFF) % PARTITIONS)


def answers(number: int, jobs: Sequence[str]) -> dict[str, Answers]:
    """Return the right results of each job."""
    by_user: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for order in orders(number):
        by_user[str(order["user_id"])].append((int(order["ts"]), int(order["amount_cents"])))
    for events in by_user.values():
        events.sort(key=lambda event: event[0])
    compute = {"A0": minutes, "B": sessions, "C": patterns}
    return {job: countries(number) if job == "A" else compute[job](by_user) for job in jobs}


def countries(number: int) -> Answers:
    """Return (country, window start) → (sum, count)."""
    totals: defaultdict[tuple[str | int, ...], list[int]] = defaultdict(lambda: [0, 0])
    for order in orders(number):
        cell = totals[str(order["country"]), int(order["ts"]) // WINDOW_MS * WINDOW_MS]
        cell[0] += int(order["amount_cents"])
        cell[1] += 1
    return {key: (total, count) for key, (total, count) in totals.items()}


def minutes(by_user: Mapping[str, Sequence[tuple[int, int]]]) -> Answers:
    """Return (user, window start) → (sum, count)."""
    totals: defaultdict[tuple[str | int, ...], list[int]] = defaultdict(lambda: [0, 0])
    for user, events in by_user.items():
        for ts, amount in events:
            cell = totals[user, ts // WINDOW_MS * WINDOW_MS]
            cell[0] += amount
            cell[1] += 1
    return {key: (total, count) for key, (total, count) in totals.items()}


def sessions(by_user: Mapping[str, Sequence[tuple[int, int]]]) -> Answers:
    """Return (user, start, end) → (sum, count); the end is the last order's time plus the gap; orders exactly a gap apart are one."""
    found: Answers = {}
    for user, events in by_user.items():
        start = end = events[0][0]
        total = count = 0
        for ts, amount in events:
            if ts - end > GAP_MS:
                found[user, start, end + GAP_MS] = (total, count)
                start, total, count = ts, 0, 0
            end, total, count = ts, total + amount, count + 1
        found[user, start, end + GAP_MS] = (total, count)
    return found


def patterns(by_user: Mapping[str, Sequence[tuple[int, int]]]) -> Answers:
    """Return (user, first, second, third time) → (): three orders less than the limit apart, no order in two matches."""
    found: Answers = {}
    for user, events in by_user.items():
        index = 0
        while index + 2 < len(events):
            first, second, third = (events[index + step][0] for step in range(3))
            if third - first < PATTERN_MS:
                found[user, first, second, third] = ()
                index += 3
            else:
                index += 1
    return found
