"""Where the time of a job goes, without a broker: `python -m tests.bench.inprocess --jobs B,C`.

One genuine task a partition on a RocksDB store takes the orders of the bench out of fetch answers made beforehand, in pieces, commits
after every 40,000 records (about what a second brings), and builds the producer's batches, which are thrown away. What is left out is
the network and the event loop. A run takes seconds, for work on the data path and for profiles (`--profile FILE`, read by
`python -m pstats`).

    A0  300,000 records  3.40 us/record  0.61 of control: fetch 0.80  decode 0.62  operators 1.02  changes 0.21  batches 0.52  store 0.24

- control: what aiokafka and a JSON decoder do with the same bytes, taken in turn with the job, fetch by fetch: other work on the
  machine slows both, so compare the ratio and not the microseconds
- fetch: bytes to columns
- decode: JSON to values, keys, times and watermark
- operators: the pipeline, results encoded
- changes: state encoded for the changelog
- batches: output and changelog records put into Kafka's format
- store: the write into RocksDB
"""

import argparse
import cProfile
import gc
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import orjson
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition as DriverPartition

from engine.records import OutputColumns, RecordBatch, TopicPartition
from engine.runtime.collector import tune_collector
from engine.runtime.cutting import cut_piece
from engine.runtime.restore import changelog_columns
from engine.runtime.transport.kafka.batches import build_batches
from engine.runtime.transport.kafka.columns import unpack
from engine.task import Commit, Task
from state.rocks import RocksMemory, RocksStore
from state.store import Position
from tests.bench.jobs import JOBS, topology
from tests.bench.workload import FLUSH_MS, PARTITIONS, Order, flush_orders, orders, partition_of

FETCH_RECORDS = 5_500
PIECE_RECORDS = 4_096
COMMIT_RECORDS = 40_000
STAGES = ("fetch", "decode", "operators", "changes", "batches", "store")


class _Driver:
    """What `build_batches` asks of a producer."""

    def create_batch(self) -> BatchBuilder:
        """Return an empty batch."""
        return BatchBuilder(1 << 18, 0)


@dataclass(frozen=True, slots=True)
class Fetch:
    """What a fetch brings of one partition, as it comes from the broker."""

    partition: int
    begin: int
    message_set: bytes

    def read(self) -> RecordBatch:
        """Return its columns."""
        return unpack(TopicPartition("orders", self.partition), self.message_set, None, self.begin, -1)

    def read_plainly(self) -> None:
        """Do what `getmany` and a JSON decoder do with it."""
        source = MemoryRecords(self.message_set)
        partition = DriverPartition("orders", self.partition)
        for record in list(PartitionRecords(partition, source, None, self.begin, None, None, True, READ_COMMITTED)):
            orjson.loads(record.value)


def fetches(number: int, of: int) -> list[Fetch]:
    """Return the first orders of so many, and those that close every window, as fetches of the partitions in turn."""
    keyed = ((partition_of(str(order["user_id"]).encode()), order) for order in islice(orders(of), number))
    return list(fetches_of(chain(keyed, flush_orders())))


def fetches_of(placed: Iterable[tuple[int, Order]]) -> Iterator[Fetch]:
    """Yield (partition, order) as fetches: one whenever a partition has enough of them, and what is left at the end."""
    rows = [OutputColumns() for _ in range(PARTITIONS)]
    begins = [0] * PARTITIONS

    def fetch(partition: int) -> Fetch:
        taken, rows[partition] = rows[partition], OutputColumns()
        begin, message_set = begins[partition], bytearray()
        for batch in build_batches(_Driver(), taken):
            encoded = bytearray(batch._build())
            encoded[:8] = begins[partition].to_bytes(8, "big")  # the broker numbers the records; the checksum leaves the number out
            begins[partition] += batch.record_count()
            message_set += encoded
        return Fetch(partition, begin, bytes(message_set))

    for partition, order in placed:
        rows[partition].append(int(order["ts"]), str(order["user_id"]).encode(), orjson.dumps(order))
        if len(rows[partition]) == FETCH_RECORDS:
            yield fetch(partition)
    for partition in range(PARTITIONS):
        if len(rows[partition]):
            yield fetch(partition)


def pieces(batch: RecordBatch, size: int) -> Iterator[RecordBatch]:
    """Yield a batch as the runner cuts it."""
    for start in range(0, len(batch), size):
        yield cut_piece(batch, start, size)


class Run:
    """A job over all partitions, timed by stage."""

    def __init__(
        self,
        job: str,
        folder: Path,
        *,
        piece_records: int = PIECE_RECORDS,
        commit_records: int = COMMIT_RECORDS,
        memory: RocksMemory | None = None,
        cache_entries_max: int = 200_000,
    ) -> None:
        memory = memory or RocksMemory()
        plan = topology(job).plan()
        self.tasks = [
            Task(plan, number, RocksStore(folder / str(number), memory=memory), now_ms=FLUSH_MS, cache_entries_max=cache_entries_max)
            for number in range(PARTITIONS)
        ]
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.control_s = 0.0
        self.results = self.changes = 0
        self._piece_records, self._commit_records = piece_records, commit_records
        self._since = [0] * PARTITIONS
        self._driver = _Driver()

    def feed(self, fetch: Fetch) -> None:
        """Take what a fetch brought, and commit when enough has come."""
        task, seconds, now = self.tasks[fetch.partition], self.seconds, time.process_time
        begun = now()
        batch = fetch.read()
        seconds["fetch"] += now() - begun
        for piece in pieces(batch, self._piece_records):
            begun = now()
            task.runs["measured"].inputs["orders"].block(piece, FLUSH_MS)
            decoded = now()
            task.process("measured", piece, FLUSH_MS)
            task.finish_batch(piece)
            seconds["decode"] += decoded - begun
            seconds["operators"] += now() - decoded
            self._since[batch.partition] += len(piece)
            if self._since[batch.partition] >= self._commit_records:
                self.commit(batch.partition)

    def commit(self, partition: int) -> None:
        """Commit a task, up to the network."""
        task, seconds, now = self.tasks[partition], self.seconds, time.process_time
        self._since[partition] = 0
        begun = now()
        commit = task.prepare_commit(FLUSH_MS)
        changed = now()
        if commit is None:
            return
        self._build(commit)
        built = now()
        task.committed(Position(b"bench", task.store.position.next_offset + len(commit.changes), FLUSH_MS))
        seconds["changes"] += changed - begun
        seconds["batches"] += built - changed
        seconds["store"] += now() - built
        self.changes += len(commit.changes)

    def _build(self, commit: Commit) -> None:
        for columns in [*commit.outputs.values(), changelog_columns(commit, FLUSH_MS)]:
            for batch in build_batches(self._driver, columns):
                batch._build()
        self.results += sum(len(columns) for partition, columns in commit.outputs.items() if partition.topic == "results")


def measure(job: str, source: list[Fetch], profile: cProfile.Profile | None, *, piece_records: int, commit_records: int) -> Run:
    """Run a job over the batches."""
    folder = Path(tempfile.mkdtemp(prefix="streamforge-bench-"))
    try:
        run = Run(job, folder, piece_records=piece_records, commit_records=commit_records)
        gc.collect()
        for fetch in source:
            begun = time.process_time()
            fetch.read_plainly()
            run.control_s += time.process_time() - begun
            if profile is not None:
                profile.enable()
            run.feed(fetch)
            if profile is not None:
                profile.disable()
        if profile is not None:
            profile.enable()
        for partition in range(PARTITIONS):
            run.commit(partition)
        if profile is not None:
            profile.disable()
        for task in run.tasks:
            task.store.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return run


def main(arguments: list[str] | None = None) -> int:
    """Measure the jobs and print them."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.inprocess", description="Where the time of a job goes, in process.")
    parser.add_argument("--n", type=int, default=300_000, help="number of orders (300000)")
    parser.add_argument("--of", type=int, default=2_000_000, help="take them from the beginning of so many in the same two hours (2000000)")
    parser.add_argument("--jobs", default="A0,B,C", help="which jobs, with commas (A0,B,C)")
    parser.add_argument("--piece", type=int, default=PIECE_RECORDS, help=f"records of a piece; fewer on a loaded machine ({PIECE_RECORDS})")
    parser.add_argument("--commit", type=int, default=COMMIT_RECORDS, help=f"records of a commit of a task ({COMMIT_RECORDS})")
    parser.add_argument("--profile", help="write what cProfile counts into a file, for python -m pstats")
    chosen = parser.parse_args(arguments)
    names = [job for job in chosen.jobs.split(",") if job]
    here = [job for job in JOBS if job != "A"]  # which needs a broker between its two halves
    if unknown := set(names) - set(here):
        parser.error(f"no such job here: {', '.join(sorted(unknown))}; there are {', '.join(here)}")
    source = fetches(chosen.n, max(chosen.of, chosen.n))
    profile = cProfile.Profile() if chosen.profile else None
    for job in names:
        run = measure(job, source, profile, piece_records=chosen.piece, commit_records=chosen.commit)
        total = sum(run.seconds.values())
        parts = "  ".join(f"{stage} {run.seconds[stage] / chosen.n * 1e6:.2f}" for stage in STAGES)
        made = f"{run.results:,} results, {run.changes:,} changes"
        ratio = run.control_s / total
        print(f"{job:<3} {chosen.n:,} records  {total / chosen.n * 1e6:5.2f} us/record  {ratio:.2f} of control: {parts}  ({made})")
    if profile is not None:
        profile.dump_stats(chosen.profile)
    return 0


if __name__ == "__main__":
    tune_collector()
    sys.exit(main())
