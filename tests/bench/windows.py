"""How fast each window kind is, with few keys and with very many: `python -m tests.bench.windows --json`.

In process and without a broker: one genuine task on a RocksDB store takes batches of JSON orders, commits after every 50,000 (the
transaction itself is left out, the write into RocksDB is not), and throws its results away. Counted is the time in `process`,
`prepare_commit` and `committed`, in CPU seconds of the thread, so that other work on the machine (and RocksDB's compaction of the keys
that were put in first) hardly moves it; making the batches is outside.

The work is the same for any number of keys, so that the ratio shows what the number alone costs. First, uncounted, each key gets a
record in the far future (beyond `max_ahead`, so it moves no watermark): its window stays open, and all of them are in the store. Then
come rounds of 1,000 counted records: 100 keys take turns, 10 records each within 40 s of event time, in disorder, followed by 80 s of
silence; the next round has the next 100 keys. Every round closes its windows, with the same number of results for 100 keys as for a
million; a walk over all keys would show. Only `everything` closes nothing and keeps one total of each key, for ever: there a batch and
a commit are one round, so that each takes 100 keys in hand, of 100 as of a million; with long commits a hundred keys would be written
far less often than they change, which is not what is compared.

Few and many keys take turns, 50,000 records each, since a machine that others use too is not as fast in one minute as in the next.
Absolute figures belong to one machine: compare the ratios.
"""

import argparse
import gc
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import msgspec

from engine import Sink, Stream, Struct, agg, bounded, windows
from engine.records import RecordBatch
from engine.runtime.collector import tune_collector
from engine.task import Task
from engine.topology import Topology
from engine.windows import Window
from state.rocks import RocksMemory, RocksStore
from state.store import Position

BEGIN_MS = 1_760_000_040_000
ROUND_MS, ROUND_KEYS, ROUND_RECORDS = 120_000, 100, 1_000
BURST_MS, DISORDER_MS = 30_000, 10_000
AHEAD_MS = 3_600_000
BATCH_RECORDS, COMMIT_RECORDS = 4_096, 50_000
RATIO_MIN = 0.5

BY_ROUND = {"everything"}
"""Kinds for which a batch and a commit are one round."""

KINDS: dict[str, Window] = {
    "tumbling": windows.tumbling("1m"),
    "hopping": windows.hopping("2m", every="1m"),
    "sliding": windows.sliding("10s"),
    "session": windows.session("30s"),
    "count": windows.count(10),
    "everything": windows.everything(),
}


class Order(Struct, frozen=True):
    """What a record holds."""

    user_id: str
    amount_cents: int
    ts: int


class Measured(Struct, frozen=True):
    """Records a second of one window kind, and what came out."""

    kind: str
    keys_few: int
    keys_many: int
    per_second_few: int
    per_second_many: int
    results_few: int
    results_many: int
    ratio: float


def app(window: Window) -> Topology:
    """Return an app with one pipeline: sum and count of each user and window."""
    topology = Topology("bench", partitions=1, max_ahead_ms=AHEAD_MS)
    orders = topology.source("orders", Order, key="user_id", time="ts", watermark=bounded("30s"))

    @topology.pipeline(orders)
    def totals(orders: Stream[str, Order]) -> Sink:
        return orders.window(window).aggregate(total_cents=agg.sum("amount_cents"), orders=agg.count()).to("totals")

    return topology


def far_orders(records: int, keys: int) -> Iterator[Order]:
    """Yield one order of each key, after everything that will be counted."""
    begin_ms = BEGIN_MS + records // ROUND_RECORDS * ROUND_MS + 3 * AHEAD_MS
    for number in range(keys):
        yield Order(f"u{number}", 1, begin_ms + number % 60_000)


def orders(records: int, keys: int) -> Iterator[Order]:
    """Yield the orders that are counted; the same for the same arguments."""
    for number in range(records):
        in_round = number % ROUND_RECORDS
        turn = number // ROUND_RECORDS * ROUND_KEYS + in_round % ROUND_KEYS
        mixed = number * 2_654_435_761 % 2**32
        ts = BEGIN_MS + number // ROUND_RECORDS * ROUND_MS + DISORDER_MS + in_round * BURST_MS // ROUND_RECORDS - mixed % DISORDER_MS
        yield Order(f"u{turn * 2_654_435_761 % keys}", mixed % 50_000, ts)


def batches(source: Iterator[Order], start: int = 0, size: int = BATCH_RECORDS) -> Iterator[RecordBatch]:
    """Yield orders as they come from a topic, from an offset on."""
    encode = msgspec.json.Encoder().encode
    while rows := list(islice(source, size)):
        numbers = range(start, start + len(rows))
        values: list[bytes | None] = [encode(row) for row in rows]
        raw_keys: list[bytes | None] = [row.user_id.encode() for row in rows]
        yield RecordBatch("orders", 0, numbers, [row.ts for row in rows], raw_keys, values, position=start, next_offset=numbers.stop)
        start = numbers.stop


def measure(kind: str, records: int, keys: Sequence[int], folder: Path) -> list[tuple[float, int]]:
    """Return for each number of keys the seconds that the counted records took, and the number of results."""
    now_ms = BEGIN_MS + records // ROUND_RECORDS * ROUND_MS
    size, commit_records = (ROUND_RECORDS, ROUND_RECORDS) if kind in BY_ROUND else (BATCH_RECORDS, COMMIT_RECORDS)
    stores, tasks, inputs = [], [], []
    for number, count in enumerate(keys):
        stores.append(RocksStore(folder / str(number), memory=RocksMemory()))  # as much as a worker has
        tasks.append(Task(app(KINDS[kind]).plan(), 0, stores[-1], now_ms=now_ms))
        feed(tasks[-1], batches(far_orders(records, count)), now_ms)
        inputs.append(batches(orders(records, count), count, size))
    gc.collect()
    seconds, results = [0.0] * len(keys), [0] * len(keys)
    while (turns := [list(islice(source, -(-COMMIT_RECORDS // size))) for source in inputs])[0]:
        for number, (task, turn) in enumerate(zip(tasks, turns, strict=True)):
            took, made = feed(task, turn, now_ms, commit_records=commit_records)
            seconds[number] += took
            results[number] += made
    for store in stores:
        store.close()
    return list(zip(seconds, results, strict=True))


def feed(task: Task, source: Iterable[RecordBatch], now_ms: int, *, commit_records: int = COMMIT_RECORDS) -> tuple[float, int]:
    """Return the seconds that the batches took, commits included, and the number of results."""
    seconds, results, since = 0.0, 0, 0
    for batch in source:
        begun = time.thread_time()
        task.process("totals", batch, now_ms)
        task.finish_batch(batch)
        since += len(batch)
        if since >= commit_records:
            since, results = 0, results + commit(task, batch.next_offset)
        seconds += time.thread_time() - begun
    begun = time.thread_time()
    results += commit(task, batch.next_offset)
    return seconds + time.thread_time() - begun, results


def commit(task: Task, position: int) -> int:
    """Commit without a broker; return the number of results."""
    made = task.prepare_commit(BEGIN_MS)
    if made is None:
        return 0
    task.committed(Position(b"bench", position, BEGIN_MS))
    return sum(len(columns) for partition, columns in made.outputs.items() if partition.topic == "totals")


def compare(kind: str, records: int, few: int, many: int) -> Measured:
    """Measure a window kind with few and with many keys, each on a store of its own."""
    folder = Path(tempfile.mkdtemp(prefix="streamforge-bench-"))
    try:
        found = measure(kind, records, (few, many), folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rates = [records / seconds for seconds, _ in found]
    return Measured(kind, few, many, int(rates[0]), int(rates[1]), found[0][1], found[1][1], round(rates[1] / rates[0], 2))


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line, read."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.windows", description="Speed of each window kind by number of keys.")
    parser.add_argument("--n", type=int, default=500_000, help="counted records of each run (500000)")
    parser.add_argument("--few", type=int, default=100, help="keys of the first run (100)")
    parser.add_argument("--many", type=int, default=1_000_000, help="keys of the second run (1000000)")
    parser.add_argument("--kinds", default=",".join(KINDS), help="which window kinds, with commas (all)")
    parser.add_argument("--json", action="store_true", help="print only JSON on standard output")
    found = parser.parse_args(arguments)
    found.kinds = [kind for kind in found.kinds.split(",") if kind]
    if unknown := set(found.kinds) - set(KINDS):
        parser.error(f"no such window kind: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    if min(found.n, found.few, found.many) < 1:
        parser.error("--n, --few and --many must be at least 1")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 0 if many keys reach half of the rate of few with every window kind."""
    chosen = options(arguments)
    tune_collector()  # as a worker does
    say = partial(print, file=sys.stderr if chosen.json else sys.stdout, flush=True)
    measured = []
    for kind in chosen.kinds:
        one = compare(kind, chosen.n, chosen.few, chosen.many)
        measured.append(one)
        say(
            f"{one.kind:<11} {one.per_second_few:>9,} records/s with {one.keys_few:,} keys ({one.results_few:,} results)  "
            f"{one.per_second_many:>9,} with {one.keys_many:,} ({one.results_many:,})  ratio {one.ratio}"
        )
    good = all(one.ratio >= RATIO_MIN for one in measured)
    if chosen.json:
        print(json.dumps({"records": chosen.n, "windows": msgspec.to_builtins(measured), "good": good}, indent=2))
    else:
        say(
            f"windows: every kind keeps at least {RATIO_MIN} of its rate"
            if good
            else f"windows: BELOW {RATIO_MIN} of the rate with few keys"
        )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
