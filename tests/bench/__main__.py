"""`make bench`: run everything once, print the figures, end with a summary line and 0 only if all results were right."""

import argparse
import asyncio
import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.bench.baseline import read_baseline, shortfalls, verdicts, write_baseline
from tests.bench.broker import measured_broker
from tests.bench.changes import measure
from tests.bench.latency import Latency, run_latency
from tests.bench.measured import ROOT, cores, pin
from tests.bench.peers import PEERS, has_library, run_peer
from tests.bench.restore import Restores, run_restores
from tests.bench.state_size import LIMIT_MIB, StateSizes, run_state_sizes
from tests.bench.throughput import Rate, run_control, run_job
from tests.bench.topics import make_topics, send_orders
from tests.bench.workload import answers
from tests.kafka_server import VERSION, KafkaServer

JOBS = ("A0", "A", "B", "C")


@dataclasses.dataclass(frozen=True, slots=True)
class Measurements:
    """Everything that the runs on Kafka have shown."""

    rates: list[Rate]
    peers: list[Rate]
    latencies: list[Latency]
    sizes: StateSizes | None
    restores: Restores | None

    @property
    def good(self) -> bool:
        """Whether all our results are right."""
        good = all(rate.equal for rate in self.rates) and all(0 < latency.seen == latency.sent for latency in self.latencies)
        return good and (self.sizes is None or self.sizes.right) and (self.restores is None or self.restores.right)


def options() -> argparse.Namespace:
    """Return the command line, read."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="Speed and latency on a real Kafka, checked against an oracle."
    )
    parser.add_argument("--n", type=int, default=500_000, help="number of orders (500000)")
    parser.add_argument("--jobs", default=",".join(JOBS), help="which of A0, A, B and C, with commas (all)")
    parser.add_argument("--latency", action=argparse.BooleanOptionalAction, default=True, help="measure latency too (yes)")
    parser.add_argument("--restore", action=argparse.BooleanOptionalAction, default=True, help="measure a restore too (yes)")
    parser.add_argument("--keys", type=int, default=500_000, help="keys of the job with much state; 0 leaves that out (500000)")
    parser.add_argument("--peers", default=",".join(PEERS), help="which others do A0 beside it, where they are installed (all)")
    parser.add_argument("--peers-python", default=sys.executable, help="the interpreter that has them (this one)")
    parser.add_argument("--entries", type=int, default=1_000_000, help="changelog entries to restore (1000000)")
    parser.add_argument("--changes", type=int, default=50_000, help="change events that are decoded; 0 leaves that out (50000)")
    parser.add_argument(
        "--rules-n", type=int, default=100_000, help="orders that 50 live rules look at; 0 leaves patterns in process out (100000)"
    )
    parser.add_argument(
        "--commits", default="50ms,100ms,200ms,1s,0ms", help="commit intervals of the latency runs, with commas (50ms,100ms,200ms,1s,0ms)"
    )
    parser.add_argument("--stages", action=argparse.BooleanOptionalAction, default=True, help="say where the time goes (yes)")
    parser.add_argument("--save-baseline", action="store_true", help="write the ratios into baseline.toml if all results are right")
    parser.add_argument("--rate", type=int, default=5_000, help="orders a second of the latency run (5000)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long latency is measured, after as long to warm up (10)")
    parser.add_argument(
        "--warm", type=float, default=120.0, help="seconds of such a load before the first latency run, for the broker (120)"
    )
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds that a job may take (300)")
    parser.add_argument("--json", action="store_true", help="print only JSON on standard output")
    found = parser.parse_args()
    found.commits = [commit for commit in found.commits.split(",") if commit]
    found.jobs = [job for job in found.jobs.split(",") if job]
    found.peers = [peer for peer in found.peers.split(",") if peer]
    if unknown := set(found.peers) - set(PEERS):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    if unknown := set(found.jobs) - set(JOBS):
        parser.error(f"no such job: {', '.join(sorted(unknown))}; there are {', '.join(JOBS)}")
    if found.keys and found.keys < 1_000:
        parser.error("--keys must be at least 1000, or 0")
    if found.n < 1_000:
        parser.error("--n must be at least 1000: below that only the start-up is seen")
    return found


async def run(chosen: argparse.Namespace, server: KafkaServer, say: Callable[[str], None]) -> Measurements:
    """Send the orders, run the control, the jobs, the peers, the latency runs, the state runs and the restore."""
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
    rates[0] = both(rates[0], await run_control(bootstrap, topic, chosen.n, core, chosen.timeout))
    say("the control before and after the jobs, from here on:")
    tell(say, rates[0], rates[0])
    peers = await run_peers(chosen, server, say, rates[0], core)
    latencies = await measure_latencies(chosen, bootstrap, say, core) if chosen.latency else []
    sizes = None
    if chosen.keys:
        sizes = await run_state_sizes(bootstrap, chosen.keys, core, chosen.timeout)
        tell_state_sizes(say, sizes)
    restores = None
    if chosen.restore:
        restores = await run_restores(bootstrap, chosen.entries, core, chosen.timeout)
        tell_restores(say, restores)
    return Measurements(rates, peers, latencies, sizes, restores)


def both(before: Rate, after: Rate) -> Rate:
    """Return the mean of two runs of the control: a machine that becomes busier meanwhile slows the jobs and not one of them."""
    if not (before.equal and after.equal):
        return after if before.equal else before
    return dataclasses.replace(
        before,
        per_second=round(2 / (1 / before.per_second + 1 / after.per_second)),
        per_cpu_second=round(2 / (1 / before.per_cpu_second + 1 / after.per_cpu_second)),
        rss_mib=max(before.rss_mib, after.rss_mib),
    )


async def run_peers(
    chosen: argparse.Namespace, server: KafkaServer, say: Callable[[str], None], control: Rate, core: int | None
) -> list[Rate]:
    """Measure the peers that are installed, and say which are not."""
    rates = []
    for name in chosen.peers:
        peer = PEERS[name]
        if not has_library(peer, chosen.peers_python):
            say(f"{name:<8} not installed ({peer.library}), skipped")
            continue
        number, topic = min(chosen.n, peer.orders_max), f"orders-{min(chosen.n, peer.orders_max)}"
        if number != chosen.n:
            await make_topics(server.bootstrap, [topic])
            await send_orders(server.bootstrap, topic, number)
        want = answers(number, ["A0"])["A0"]
        rates.append(await run_peer(server.bootstrap, topic, name, number, want, core, chosen.timeout, chosen.peers_python))
        tell(say, rates[-1], control)
        say(f"         ({name} does A0 with {number:,} orders: {peer.about})")
    return rates


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


def measure_patterns(say: Callable[[str], None], chosen: argparse.Namespace) -> dict[str, Any]:
    """Measure 50 live rules and one busy key in process, by `tests.bench.cep`, and say what it says."""
    command = [sys.executable, "-m", "tests.bench.cep", "--json", "--n", str(chosen.n), "--rules-n", str(chosen.rules_n)]
    found = subprocess.run([*command, "--jobs", "fraud,rules,hot,loop"], cwd=ROOT, capture_output=True, text=True, check=False)
    say("patterns, in process (see tests/bench/cep.py):")
    say(found.stderr.rstrip())
    return dict(json.loads(found.stdout)) if found.stdout else {"cep": [], "good": False}


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


async def measure_latencies(chosen: argparse.Namespace, bootstrap: str, say: Callable[[str], None], core: int | None) -> list[Latency]:
    """Measure each commit interval, on a broker that has had such a load for a while: a cold JVM takes twice the time and more."""
    latencies = []
    if chosen.warm:
        await run_latency(bootstrap, per_second=chosen.rate, commit="200ms", warm_s=0, measure_s=chosen.warm, core=core)
    for commit in chosen.commits:
        seconds = chosen.seconds
        latency = await run_latency(bootstrap, per_second=chosen.rate, commit=commit, warm_s=seconds, measure_s=seconds, core=core)
        latencies.append(latency)
        tell_latency(say, latency)
    return latencies


def tell_latency(say: Callable[[str], None], latency: Latency) -> None:
    """Say how long results took."""
    say(
        f"latency  {latency.per_second:,}/s, commit {latency.commit}: p50 {latency.p50_ms} ms, p99 {latency.p99_ms} ms, "
        f"max {latency.max_ms} ms ({latency.seen:,} of {latency.sent:,} seen)"
    )
    if latency.trouble:
        say(latency.trouble)


def tell_state_sizes(say: Callable[[str], None], sizes: StateSizes) -> None:
    """Say how much state slows a job down, and what it takes."""
    for rate in (sizes.few, sizes.many):
        verdict = "right" if rate.equal else f"{rate.wrong} WRONG"
        say(
            f"totals   {rate.per_second:>9,} orders/s  {rate.per_cpu_second:>9,} per cpu second  {rate.rss_mib:>5,} MiB, "
            f"{rate.disk_mib:,} MiB on disk  {rate.job}, state_memory_mib={LIMIT_MIB}: {rate.results:,} results, {verdict}"
        )
        if rate.trouble:
            say(rate.trouble)
    say(f"totals of {sizes.keys:,} keys: {sizes.ratio:.2f} of the speed with few, by cpu time (aim 0.5)")


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
    say = partial(print, file=sys.stderr if chosen.json else sys.stdout, flush=True)
    with measured_broker(say) as server:
        found = asyncio.run(run(chosen, server, say))
    decodings = measure(chosen.changes) if chosen.changes else []
    for each in decodings:
        say(
            f"decode   {each.ours:>9,} change events per cpu second, {each.name}: {each.fraction:.2f} of plain decoding of the same bytes "
            f"({each.plain:,})"
        )
    patterns = measure_patterns(say, chosen) if chosen.rules_n else {"cep": [], "good": True}
    good, ratios = found.good and patterns["good"], cpu_ratios(found.rates)
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
            "rates": [
                {**dataclasses.asdict(rate), "equal": None if rate.wrong is None else rate.equal} for rate in found.rates + found.peers
            ],
            "decoding": [{**dataclasses.asdict(each), "fraction": round(each.fraction, 3)} for each in decodings],
            "cpu_ratios": ratios,
            "slower_than_the_baseline": slower,
            "latencies": [dataclasses.asdict(latency) for latency in found.latencies],
            "state": None if found.sizes is None else {**dataclasses.asdict(found.sizes), "ratio": round(found.sizes.ratio, 3)},
            "patterns": patterns["cep"],
            "restore": None if found.restores is None else dataclasses.asdict(found.restores),
            "good": good,
        }
        print(json.dumps(document, indent=2))
    else:
        say("bench: all results right" if good else "bench: FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
