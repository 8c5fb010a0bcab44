"""Records a second: the control and the jobs, over one topic of orders."""

import asyncio
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from tests.bench.measured import Measured
from tests.bench.topics import CommittedReader, make_topics
from tests.bench.workload import FLUSH, PARTITIONS, Answers

_QUIET_S = 3.0
_STALLED_S = 30.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Child:
    """A module that takes the `BENCH_*` variables, and the interpreter that runs it."""

    module: str
    python: str = sys.executable


OURS = Child("tests.bench.pipelines")


@dataclass(slots=True)
class Rate:
    """How fast a job was.

    Attributes:
        per_second: Orders per second; 0 where it did not come to an end.
        per_cpu_second: The same by the CPU time of the process.
        rss_mib, disk_mib: Most memory that it had, and what its state takes on disk at the end.
        results, expected: Number of results found and wanted.
        wrong: Results that are missing, differ, are too many or came twice; None for the control, which has none.
        trouble: The end of the process' output where something went wrong.
    """

    job: str
    per_second: int = 0
    per_cpu_second: int = 0
    rss_mib: int = 0
    disk_mib: int = 0
    results: int = 0
    expected: int = 0
    wrong: int | None = None
    trouble: str = ""

    @property
    def equal(self) -> bool:
        """Whether it ended and all its results are right."""
        return self.per_second > 0 and not self.wrong


def settings(bootstrap: str, topic: str, job: str, commit: str) -> dict[str, str]:
    """Return the variables that tell `pipelines.py` what to do; the app has a name of its own, so runs share nothing."""
    app = f"bench-{job.lower()}-{uuid.uuid4().hex[:8]}"
    return {
        "BENCH_APP": app,
        "BENCH_BROKER": bootstrap,
        "BENCH_COMMIT": commit,
        "BENCH_JOB": job,
        "BENCH_PARTITIONS": str(PARTITIONS),
        "BENCH_RESULTS": f"{app}-results",
        "BENCH_TOPIC": topic,
    }


async def run_control(bootstrap: str, topic: str, number: int, core: int | None, timeout_s: float) -> Rate:
    """Measure plain reading and decoding."""
    environ = {"BENCH_BROKER": bootstrap, "BENCH_TOPIC": topic, "BENCH_RECORDS": str(number + 2 * PARTITIONS)}
    rate = Rate("control")
    begun = time.monotonic()
    with Measured("tests.bench.control", environ, core) as child:
        while child.running and time.monotonic() - begun < timeout_s:
            rate.rss_mib = child.rss_peak_mib()
            await asyncio.sleep(_POLL_S)
        notes = child.notes()
        if "last" in notes:
            rate.per_second = round(number / (notes["last"] - notes["first"]))
            rate.per_cpu_second = round(number / notes["cpu_s"])
        else:
            rate.trouble = child.tail()
    return rate


async def run_job(bootstrap: str, topic: str, job: str, number: int, want: Answers, core: int | None, timeout_s: float) -> Rate:
    """Measure a job, and compare its results with the right ones."""
    environ = settings(bootstrap, topic, job, "1s")
    return await run_checked(environ, number, len(want), lambda values: compare(job, values, want), core, timeout_s)


async def run_checked(
    environ: dict[str, str],
    number: int,
    expected: int,
    check: Callable[[list[bytes]], tuple[int, int]],
    core: int | None,
    timeout_s: float,
    child_is: Child = OURS,
) -> Rate:
    """Run a process over orders that are there, until its results are.

    Args:
        environ: What `settings` returns.
        check: Of all results, how many there are and how many are wrong.
    """
    bootstrap, results = environ["BENCH_BROKER"], environ["BENCH_RESULTS"]
    rate = Rate(environ["BENCH_JOB"], expected=expected)
    await make_topics(bootstrap, [results])
    async with CommittedReader(bootstrap, results) as reader:
        with Measured(child_is.module, environ, core, python=child_is.python) as child:
            ends = await _watch(child, reader, expected, timeout_s)
            alive = child.running
            rate.rss_mib, rate.disk_mib = child.rss_peak_mib(), child.disk_mib()
            trouble = child.tail()
            notes = child.notes()
            values, last = await reader.everything()
        rate.results, rate.wrong = check(values)
        reached = next((moment for moment in ends if all(end > offset for end, offset in zip(moment.ends, last, strict=True))), None)
        if "first" in notes and reached is not None and rate.results >= rate.expected:
            rate.per_second = round(number / (reached.at - notes["first"]))
            used = reached.cpu_s - notes["first_cpu_s"]
            rate.per_cpu_second = round(number / used) if used > 0 else 0
        if not rate.equal or not alive:
            rate.trouble = trouble
    return rate


@dataclass(frozen=True, slots=True)
class Moment:
    """What the watcher saw: the last stable offsets of the results, and the CPU time used, at a time."""

    at: float
    ends: list[int]
    cpu_s: float


async def _watch(child: Measured, reader: CommittedReader, expected: int, timeout_s: float) -> list[Moment]:
    """Look until the results are all there and nothing has moved for a while, or nothing more is to be hoped for."""
    seen: list[Moment] = []
    begun = moved = time.time()
    while child.running and time.time() - begun < timeout_s:
        await asyncio.sleep(_POLL_S)
        if not child.running:
            break
        moment = Moment(time.time(), await reader.stable_ends(), child.cpu_s())
        if not seen or moment.ends != seen[-1].ends:
            moved = moment.at
        seen.append(moment)
        quiet, found = moment.at - moved, sum(moment.ends)
        if (found >= expected and quiet > _QUIET_S) or (found > 0 and quiet > _STALLED_S):
            break
    return seen


def compare(job: str, values: list[bytes], want: Answers) -> tuple[int, int]:
    """Return how many results there are, and how many are wrong, missing, too many or there twice."""
    got: Answers = {}
    twice = 0
    for value in values:
        row = orjson.loads(value)
        if row["key"].startswith(FLUSH):
            continue
        key, numbers = _shape(job, row)
        twice += key in got
        got[key] = numbers
    missing = sum(1 for key in want if key not in got)
    wrong = sum(1 for key, numbers in got.items() if want.get(key) != numbers)
    return len(got), missing + wrong + twice


def _shape(job: str, row: dict[str, Any]) -> tuple[tuple[str | int, ...], tuple[int, ...]]:
    if job == "C":
        return (row["key"], *row["times"]), ()
    window = (row["window_start"],) if job in ("A0", "A") else (row["window_start"], row["window_end"])
    return (row["key"], *window), (row["sum"], row["count"])
