"""Running totals of very many keys, in process and beyond memory: `python -m tests.bench.many_keys --keys 10000000`.

As `tests.bench.inprocess`: four genuine tasks on RocksDB, no broker, no event loop. Each key has an order, in no order, before anyone has
two; then anyone. State may take `--memory` MiB over all tasks, shared out as a worker does. A fetch is made when it is needed, and that
is not timed; what is timed is CPU time, of the thread, so that other work on the machine hardly moves it (but through the caches of the
processor: compare runs of one time, such as that with `--keys 10000 --n 2000000`).
"""

import argparse
import resource
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from engine.runtime.collector import collect_young, tune_collector
from engine.runtime.options import ENTRY_BYTES
from state.rocks import RocksMemory
from tests.bench.inprocess import STAGES, Run, fetches_of
from tests.bench.state_size import totals_orders
from tests.bench.workload import PARTITIONS

COMMIT_RECORDS = 8_000
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class ManyKeys:
    """How a run went; `seconds` by stage."""

    orders: int
    results: int
    seconds: dict[str, float]
    disk_mib: int

    @property
    def per_second(self) -> float:
        """Orders a second."""
        return self.orders / sum(self.seconds.values())


def measure(keys: int, number: int, memory_mib: int) -> ManyKeys:
    """Send so many orders to so many keys."""
    folder = Path(tempfile.mkdtemp(prefix="streamforge-bench-"))
    quarter = memory_mib * _MIB // 4
    memory = RocksMemory(cache_bytes=quarter, write_buffers_bytes=quarter)
    entries = max(1, memory_mib * _MIB // 2 // ENTRY_BYTES // PARTITIONS)
    try:
        collecting_s = 0.0
        run = Run("latency", folder, commit_records=COMMIT_RECORDS, memory=memory, cache_entries_max=entries)
        for fetch in fetches_of(totals_orders(number, keys)):
            run.feed(fetch)
            begun = time.process_time()
            collect_young()
            collecting_s += time.process_time() - begun
        for partition in range(PARTITIONS):
            run.commit(partition)
        disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        for task in run.tasks:
            task.store.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ManyKeys(number, run.results, run.seconds | {"collector": collecting_s}, disk // _MIB)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.many_keys", description="Running totals of very many keys, in process.")
    parser.add_argument("--keys", type=int, default=10_000_000, help="number of keys (10000000)")
    parser.add_argument("--n", type=int, help="number of orders (half as many again as keys)")
    parser.add_argument("--memory", type=int, default=64, help="state_memory_mib (64)")
    chosen = parser.parse_args(arguments)
    number = chosen.n or chosen.keys * 3 // 2
    tune_collector()
    done = measure(chosen.keys, number, chosen.memory)
    parts = "  ".join(f"{stage} {done.seconds[stage] / number * 1e6:.2f}" for stage in (*STAGES, "collector"))
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{chosen.keys:,} keys  {number:,} orders  {done.per_second:,.0f}/s  {1e6 / done.per_second:.2f} us/order: {parts}")
    print(f"{done.results:,} results; at most {peak_mib} MiB in memory, {done.disk_mib} MiB on disk")
    return 0 if done.results == number else 1


if __name__ == "__main__":
    sys.exit(main())
