"""What a worker process leaves behind when it ends: a profile, and how much of the work it did.

    streamforge worker shop.py --profile worker.prof          python -m pstats worker.prof
    streamforge worker shop.py --workers 2                    worker 0: 1,204,113 records, 51 % (tasks 0 2)
                                                              worker 1: 1,151,020 records, 49 % (tasks 1 3)

cProfile sees every call of Python, so it makes a worker about twice as slow, and small functions look larger than they are: read it
for what is called how often and for what stands out.
"""

import cProfile
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from engine.runtime.metrics import Metrics


@contextmanager
def observed(metrics: Metrics, *, profile: Path | None, note: Path | None) -> Iterator[None]:
    """Write, when the block ends in whatever way, a profile of it and a note about the work that was done."""
    with ExitStack() as stack:
        if note is not None:
            stack.callback(_write_note, metrics, note)
        if profile is not None:
            stack.enter_context(_profiled(profile))
        yield


@contextmanager
def _profiled(file: Path) -> Iterator[None]:
    profiler = cProfile.Profile()
    profiler.enable()
    try:
        yield
    finally:
        profiler.disable()
        profiler.dump_stats(file)


def _write_note(metrics: Metrics, file: Path) -> None:
    work = {number: task.records for number, task in sorted(metrics.tasks.items()) if task.opens}
    file.write_text(json.dumps({"records": sum(work.values()), "tasks": list(work)}))


def shares(notes: Sequence[Path]) -> list[str]:
    """Return a line for each worker about its share of the records; one that left no note was killed."""
    read = [json.loads(note.read_text()) if note.exists() else None for note in notes]
    total = sum(one["records"] for one in read if one)
    lines = []
    for number, one in enumerate(read):
        if one is None:
            lines.append(f"worker {number}: ended without saying what it did")
            continue
        share = round(100 * one["records"] / total) if total else 0
        tasks = " ".join(map(str, one["tasks"])) or "none"
        lines.append(f"worker {number}: {one['records']:,} records, {share} % (tasks {tasks})")
    return lines
