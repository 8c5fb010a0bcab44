"""How fast patterns are: `python -m tests.bench.cep --json`.

    fraud    three orders of a user within five minutes (the shop's), 10,000 users
    rules    50 live rules over the same orders: 25 of three orders above some amount, 25 of a small order, then a large one
    rare     50 live rules whose first condition one order in a hundred fulfils, as rules mostly do
    shared   the same as rules where each condition is that of five rules, and asks for more than an amount
    hot      the fraud pattern, all orders of one user within its five minutes
    capped   a small order, then one of the year's largest, of one user who has only small ones, with max_partials=10
    loop     an order of nothing, then all that follow without an end, of one user, with max_records=20000

In process and without a broker: one genuine task on a RocksDB store takes batches of JSON orders (up to 20 s out of order), commits
after every 50,000 (the transaction itself is left out, the write into RocksDB is not), and throws its results away. Counted is what
`tests.bench.windows` counts, in CPU seconds of the thread. Results are held against a few lines of plain Python, and the state of
`hot`, `capped` and `loop` against what their pattern may keep. The job C of `make bench` is the same fraud pattern on a real Kafka.
"""

import argparse
import json
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from engine import Sink, Stream, bounded, cep
from engine.records import RecordBatch
from engine.task import Task
from engine.topology import Topology
from state.rocks import RocksStore
from tests.bench.windows import BEGIN_MS, Order, batches, commit, feed

USERS, RULES = 10_000, 50
RULE_JOBS = ("rules", "rare", "shared")
ORDERS_A_USER_MIN = 200
MINUTES_5_MS = 300_000
DISORDER_MS = 20_000
CAPPED_PARTIALS = 10
LOOP_RECORDS = 20_000
LARGE_CENTS = 49_900


class Measured(msgspec.Struct, frozen=True):
    """What a job came to; `state_bytes` of all keys at its end, `peak_mib` of the process so far."""

    job: str
    records: int
    per_cpu_second: int
    results: int
    expected: int
    dropped_partials: int
    state_bytes: int
    peak_mib: int

    @property
    def right(self) -> bool:
        """Whether results are the oracle's."""
        return self.results == self.expected


def orders(count: int, users: int, span_ms: int) -> Iterator[Order]:
    """Yield orders over a span of event time, up to 20 s out of order; the same for the same arguments."""
    for number in range(count):
        mixed = number * 2_654_435_761 % 2**32
        ts = BEGIN_MS + number * span_ms // count + mixed % DISORDER_MS
        yield Order(f"u{mixed // 7 % users}", mixed % 50_000, ts)


def app(job: str) -> Topology:
    """Return an app with one pipeline."""
    topology = Topology("bench", partitions=1, max_ahead_ms=None)
    source = topology.source("orders", Order, key="user_id", time="ts", watermark=bounded("30s"))
    rules = topology.rules("rules") if job in RULE_JOBS else None

    @topology.pipeline(source)
    def totals(orders: Stream[str, Order]) -> Sink:
        if rules is not None:
            return orders.detect(rules=rules).to("totals")
        if job == "capped":
            pattern = cep.begin("small", lambda order: order.amount_cents < LARGE_CENTS)
            pattern = pattern.followed_by("large", lambda order: order.amount_cents >= LARGE_CENTS).within("365d")
            return orders.detect(pattern, max_partials=CAPPED_PARTIALS).select(lambda match: match.start_ms).to("totals")
        if job == "loop":
            pattern = cep.begin("nothing", lambda order: order.amount_cents == 0).followed_by("more").one_or_more().greedy()
            pattern = pattern.followed_by("end", lambda order: order.amount_cents < 0)
            return orders.detect(pattern, max_records=LOOP_RECORDS).select(lambda match: match.start_ms).to("totals")
        pattern = cep.begin("order", of=Order).times(3).within("5m")
        return orders.detect(pattern, skip=cep.skip.past_last).select(lambda match: match.start_ms).to("totals")

    return topology


def bounds(job: str, number: int) -> tuple[int, int]:
    """Return the amounts that a rule asks for: of `shared` five even rules have the same, and five odd ones."""
    if job == "rare":
        return (49_500 + number * 4 if number % 2 == 0 else 500 - number * 4), 25_000
    number = number if job == "rules" else number // 10 * 10 + number % 2
    return number * 800, 49_999 - number * 10


def rule(job: str, number: int) -> dict[str, Any]:
    """Return one of the live rules: even ones find three orders, odd ones a small order and then a large one."""
    low, high = bounds(job, number)
    also = "" if job != "shared" else " AND user_id LIKE 'u%' AND user_id NOT IN ('nobody', 'test') AND amount_cents BETWEEN 0 AND 60000"
    stages = (
        [{"stage": "a", "where": f"amount_cents > {low}{also}", "times": 3}]
        if number % 2 == 0
        else [{"stage": "a", "where": f"amount_cents < {low}{also}"}, {"stage": "b", "where": f"amount_cents >= {high}{also}"}]
    )
    return {"id": f"r{number}", "version": 1, "skip": "past_last", "pattern": {"stages": stages, "within": "5m"}}


def expected_of(job: str, made: list[Order]) -> int:
    """Return how many results there are, by plain Python."""
    users: dict[str, list[Order]] = {}
    for order in sorted(made, key=lambda order: order.ts):
        users.setdefault(order.user_id, []).append(order)
    if job in ("capped", "loop"):
        return 0
    if job not in RULE_JOBS:
        return sum(_threes(of_user, -1) for of_user in users.values())
    found = 0
    for number in range(RULES):
        low, high = bounds(job, number)
        count = partial(_threes, above=low) if number % 2 == 0 else partial(_pairs, below=low, least=high)
        found += sum(count(of_user) for of_user in users.values())
    return found


def _threes(made: list[Order], above: int) -> int:
    times: list[int] = []
    found = 0
    for order in made:
        if order.amount_cents > above:
            times = [ts for ts in times if order.ts - ts < MINUTES_5_MS]
            times.append(order.ts)
            if len(times) == 3:
                found, times = found + 1, []
    return found


def _pairs(made: list[Order], below: int, least: int) -> int:
    since: int | None = None  # of the last small order: if the limit of the last one has passed, that of the others has
    found = 0
    for order in made:
        if order.amount_cents >= least:
            if since is not None and order.ts - since < MINUTES_5_MS:
                found += 1
            since = None
        elif order.amount_cents < below:
            since = order.ts
    return found


JOBS: dict[str, tuple[int, int]] = {
    "fraud": (USERS, 7_200_000),
    "rules": (USERS, 7_200_000),
    "rare": (USERS, 7_200_000),
    "shared": (USERS, 7_200_000),
    "hot": (1, 240_000),
    "capped": (1, 240_000),
    "loop": (1, 240_000),
}
"""Users and span of event time of each job."""


def measure(job: str, count: int, folder: Path) -> Measured:
    """Run a job, with fewer users if there are few orders; the rules are there before the orders."""
    of_users, span_ms = JOBS[job]
    made = list(_made(job, count, min(of_users, max(count // ORDERS_A_USER_MIN, 1)), span_ms))
    store = RocksStore(folder)
    task = Task(app(job).plan(), 0, store, now_ms=BEGIN_MS)
    if job in RULE_JOBS:
        _put_rules(task, job)
    seconds, results = feed(task, batches(iter(made)), BEGIN_MS)
    kept = sum(len(value) for _, value in store.scan(b"", b"\xff" * 8))
    task.end_of_input("orders")
    results += commit(task, count)
    dropped = sum(number for name, number in task.counters.items() if name[2] == "dropped_partials")
    store.close()
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1_024
    return Measured(job, count, int(count / seconds), results, expected_of(job, made), dropped, kept, peak_mib)


def _made(job: str, count: int, users: int, span_ms: int) -> Iterator[Order]:
    for order in orders(count, users, span_ms):
        yield order if job != "capped" else msgspec.structs.replace(order, amount_cents=order.amount_cents % LARGE_CENTS)


def _put_rules(task: Task, job: str) -> None:
    raw = [(f"r{number}".encode(), msgspec.json.encode(rule(job, number))) for number in range(RULES)]
    keys: list[bytes | None] = [key for key, _ in raw]
    values: list[bytes | None] = [value for _, value in raw]
    task.process_broadcast(RecordBatch("rules", 0, range(RULES), [0] * RULES, keys, values, position=0, next_offset=RULES), BEGIN_MS)
    commit(task, 0)


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line, read."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cep", description="Speed of patterns and of live rules.")
    parser.add_argument("--n", type=int, default=2_000_000, help="orders of fraud, hot, capped and loop (2000000)")
    parser.add_argument(
        "--rules-n", type=int, default=200_000, help="orders of rules, rare and shared, each of which 50 rules look at (200000)"
    )
    parser.add_argument("--jobs", default=",".join(JOBS), help="which jobs, with commas (all)")
    parser.add_argument("--json", action="store_true", help="print only JSON on standard output")
    found = parser.parse_args(arguments)
    found.jobs = [job for job in found.jobs.split(",") if job]
    if unknown := set(found.jobs) - set(JOBS):
        parser.error(f"no such job: {', '.join(sorted(unknown))}; there are {', '.join(JOBS)}")
    if min(found.n, found.rules_n) < 1:
        parser.error("--n and --rules-n must be at least 1")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 0 if all results are right."""
    chosen = options(arguments)
    say: Callable[..., None] = partial(print, file=sys.stderr if chosen.json else sys.stdout, flush=True)
    measured = []
    for job in chosen.jobs:
        folder = Path(tempfile.mkdtemp(prefix="streamforge-bench-"))
        try:
            one = measure(job, chosen.rules_n if job in RULE_JOBS else chosen.n, folder / "store")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        measured.append(one)
        verdict = "right" if one.right else f"NOT the {one.expected:,} of the oracle"
        say(
            f"{job:<7} {one.per_cpu_second:>9,} records/s of CPU time, {one.records:,} records: {one.results:,} results, {verdict}; "
            f"{one.state_bytes:,} bytes of state, {one.dropped_partials:,} partial matches dropped, {one.peak_mib:,} MiB at most so far"
        )
    good = all(one.right for one in measured)
    if chosen.json:
        print(json.dumps({"cep": msgspec.to_builtins(measured), "good": good}, indent=2))
    else:
        say("cep: all results right" if good else "cep: FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
