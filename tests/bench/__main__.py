"""`make bench`: run everything once, print the figures, end with a summary line and 0 only if all results were right."""

import argparse
import asyncio
import dataclasses
import json
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

from tests.bench.baseline import read_baseline, shortfalls, verdicts, write_baseline
from tests.bench.changes import measure
from tests.bench.latency import Latency, run_latency
from tests.bench.measured import ROOT, cores, pin
from tests.bench.restore import Restores, run_restores
from tests.bench.throughput import Rate, run_control, run_job
from tests.bench.topics import make_topics, send_orders
from tests.bench.workload import answers
from tests.kafka_server import VERSION, KafkaMissing, KafkaServer

JOBS = ("A0", "A", "B", "C")


def options() -> argparse.Namespace:
    """Return the command line, read."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="Speed and latency on a real Kafka, checked against an oracle."
    )
    parser.add_argument("--n", type=int, default=500_000, help="number of orders (500000)")
    parser.add_argument("--jobs", default=",".join(JOBS), help="which of A0, A, B and C, with commas (all)")
    parser.add_argument("--latency", action=argparse.BooleanOptionalAction, default=True, help="measure latency too (yes)")
    parser.add_argument("--restore", action=argparse.BooleanOptionalAction, default=True, help="measure a restore too (yes)")
    parser.add_argument("--entries", type=int, default=1_000_000, help="changelog entries to restore (1000000)")
    parser.add_argument("--changes", type=int, default=50_000, help="change events that are decoded; 0 leaves that out (50000)")
    parser.add_argument("--commits", default="200ms,0ms", help="commit intervals of the latency runs, with commas (200ms,0ms)")
    parser.add_argument("--stages", action=argparse.BooleanOptionalAction, default=True, help="say where the time goes (yes)")
    parser.add_argument("--save-baseline", action="store_true", help="write the ratios into baseline.toml if all results are right")
    parser.add_argument("--rate", type=int, default=5_000, help="orders a second of the latency run (5000)")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long latency is measured (20)")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds that a job may take (300)")
    parser.add_argument("--json", action="store_true", help="print only JSON on standard output")
    found = parser.parse_args()
    found.commits = [commit for commit in found.commits.split(",") if commit]
    found.jobs = [job for job in found.jobs.split(",") if job]
    if unknown := set(found.jobs) - set(JOBS):
        parser.error(f"no such job: {', '.join(sorted(unknown))}; there are {', '.join(JOBS)}")
    if found.n < 1_000:
        parser.error("--n must be at least 1000: below that only the start-up is seen")
    return found


async def run(
    chosen: argparse.Namespace, server: KafkaServer, say: Callable[[str], None]
) -> tuple[list[Rate], list[Latency], Restores | None]:
    """Send the orders, run the control, the jobs, the latency runs and the restore."""
    places = cores()
    if places is not None:
        os.sched_setaffinity(0, {places[0]})
        pin(server.pid, places[0])
    core = None if places is None else places[1]
    bootstrap, topic = server.bootstrap, f"orders-{chosen.n}"
    say(
        f"Kafka {VERSION}, {platform.python_version()}, "
        + ("one core: nothing is pinned" if core is None else f"measured process on core {core}")
    )
    await make_topics(bootstrap, [topic])
    begun = time.monotonic()
    await send_orders(bootstrap, topic, chosen.n)
    want = answers(chosen.n, chosen.jobs)
    say(f"{chosen.n:,} orders sent and {sum(map(len, want.values())):,} results computed by the oracle in {time.monotonic() - begun:.0f} s")
    rates = [await run_control(bootstrap, topic, chosen.n, core, chosen.timeout)]
    tell(say, rates[0], rates[0])
    for job in chosen.jobs:
        rates.append(await run_job(bootstrap, topic, job, chosen.n, want[job], core, chosen.timeout))
        tell(say, rates[-1], rates[0])
    latencies = []
    for commit in chosen.commits if chosen.latency else []:
        latency = await run_latency(
            bootstrap, per_second=chosen.rate, commit=commit, warm_s=chosen.seconds / 2, measure_s=chosen.seconds, core=core
        )
        latencies.append(latency)
        tell_latency(say, latency)
    restores = None
    if chosen.restore:
        restores = await run_restores(bootstrap, chosen.entries, core, chosen.timeout)
        tell_restores(say, restores)
    return rates, latencies, restores


def cpu_ratios(rates: list[Rate]) -> dict[str, float]:
    """Return for each job its orders a CPU second in units of the control's."""
    control = rates[0].per_cpu_second
    return {rate.job: round(rate.per_cpu_second / control, 3) for rate in rates[1:]} if control else {}


def tell_stages(say: Callable[[str], None], chosen: argparse.Namespace) -> None:
    """Say where the time of the jobs goes; fetching and the event loop are what the jobs above take beyond it."""
    command = [sys.executable, "-m", "tests.bench.inprocess", "--n", str(min(chosen.n, 300_000)), "--of", str(chosen.n)]
    jobs = [job for job in chosen.jobs if job != "A"]
    if jobs:
        found = subprocess.run([*command, "--jobs", ",".join(jobs)], cwd=ROOT, capture_output=True, text=True, check=True)
        say("where the time goes, in process, without fetching and the event loop (CPU microseconds a record):")
        say(found.stdout.rstrip())


def tell(say: Callable[[str], None], rate: Rate, control: Rate) -> None:
    """Say how a job went."""
    ratio = rate.per_second / control.per_second if control.per_second else 0.0
    cpu_ratio = rate.per_cpu_second / control.per_cpu_second if control.per_cpu_second else 0.0
    verdict = "equal to the oracle" if not rate.wrong else f"NOT EQUAL to the oracle: {rate.wrong:,} wrong, missing or twice"
    results = "" if rate.wrong is None else f"  {rate.results:,} of {rate.expected:,} results, {verdict}"
    say(
        f"{rate.job:<8} {rate.per_second:>9,} orders/s ({ratio:.2f} of control)  {rate.per_cpu_second:>9,} per cpu second ({cpu_ratio:.2f})"
        f"  {rate.rss_mib:>5,} MiB{results}"
    )
    if rate.trouble:
        say(rate.trouble)


def tell_latency(say: Callable[[str], None], latency: Latency) -> None:
    """Say how long results took."""
    say(
        f"latency  {latency.per_second:,}/s, commit {latency.commit}: p50 {latency.p50_ms} ms, p99 {latency.p99_ms} ms, "
        f"max {latency.max_ms} ms ({latency.seen:,} of {latency.sent:,} seen)"
    )
    if latency.trouble:
        say(latency.trouble)


def tell_restores(say: Callable[[str], None], restores: Restores) -> None:
    """Say how fast the topic was read, and restored."""
    for way in restores.per_second:
        say(f"restore  {way:<8} {restores.per_second[way]:>9,} entries/s  {restores.per_cpu_second[way]:>9,} per cpu second")
    verdict = "every entry is there" if restores.right else "NOT all entries are there"
    say(
        f"restore of {restores.entries:,} entries of 100 bytes: {restores.ratio('getmany'):.2f} of getmany "
        f"and {restores.ratio('reader'):.2f} of the reader, by cpu time; {verdict}"
    )
    if restores.trouble:
        say(restores.trouble)


def main() -> int:
    """Run the bench; return the exit status."""
    chosen = options()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it reports each retry on a topic that has just been made
    say = partial(print, file=sys.stderr if chosen.json else sys.stdout, flush=True)
    server = KafkaServer(heap_mb=1_024)
    try:
        server.start()
    except KafkaMissing as error:
        say(f"NO BENCH: {error}")
        return 2
    try:
        rates, latencies, restores = asyncio.run(run(chosen, server, say))
    finally:
        server.stop()
    decodings = measure(chosen.changes) if chosen.changes else []
    for each in decodings:
        say(
            f"decode   {each.ours:>9,} change events per cpu second, {each.name}: {each.fraction:.2f} of plain decoding of the same bytes "
            f"({each.plain:,})"
        )
    good = all(rate.equal for rate in rates) and all(0 < latency.seen == latency.sent for latency in latencies)
    good = good and (restores is None or restores.right)
    ratios = cpu_ratios(rates)
    if chosen.stages:
        tell_stages(say, chosen)
    slower = shortfalls(ratios, read_baseline())
    for line in [*verdicts(ratios), *slower]:
        say(line)
    if chosen.save_baseline and good:
        write_baseline(ratios)
    if chosen.json:
        document = {
            "orders": chosen.n,
            "rates": [{**dataclasses.asdict(rate), "equal": None if rate.wrong is None else rate.equal} for rate in rates],
            "decoding": [{**dataclasses.asdict(each), "fraction": round(each.fraction, 3)} for each in decodings],
            "cpu_ratios": ratios,
            "slower_than_the_baseline": slower,
            "latencies": [dataclasses.asdict(latency) for latency in latencies],
            "restore": None if restores is None else dataclasses.asdict(restores),
            "good": good,
        }
        print(json.dumps(document, indent=2))
    else:
        say("bench: all results right" if good else "bench: FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
