"""`python -m tests.chaos`: rounds of chaos; the last line is a summary, the exit status 0 only if every round was right."""

import argparse
import asyncio
import dataclasses
import json
import logging
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

from tests.chaos.outcome import Outcome, Summary
from tests.chaos.plan import FAULTS, make_plan
from tests.chaos.round import Round, Say
from tests.kafka_server import CACHE
from tests.maven import JavaMissing

LOGS = CACHE.parent / "chaos"


def options() -> argparse.Namespace:
    """Return the command line, read."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="The shop on a real Kafka under faults, compared with an oracle.",
        epilog="faults: " + "; ".join(f"{name}: {what}" for name, what in FAULTS.items()),
    )
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (3)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first round; each next one has the next (1)")
    parser.add_argument("--faults", default=",".join(FAULTS), help="which faults to choose from, with commas (all)")
    parser.add_argument("--faults-per-round", type=int, default=3, help="how many of them in a round (3)")
    parser.add_argument("--events", type=int, default=12_000, help="records of sample traffic in a round (12000)")
    parser.add_argument("--workers", type=int, default=2, help="number of worker processes (2)")
    parser.add_argument("--json", action="store_true", help="print only JSON on standard output")
    parser.add_argument("--keep-logs", action="store_true", help="keep the workers' logs of good rounds too")
    found = parser.parse_args()
    found.faults = [name for name in found.faults.split(",") if name]
    if unknown := set(found.faults) - set(FAULTS):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}")
    if min(found.rounds, found.faults_per_round, found.workers, len(found.faults)) < 1 or found.events < 1_000:
        parser.error("there must be at least one round, fault and worker, and 1000 events")
    return found


async def run_rounds(chosen: argparse.Namespace, say: Say) -> list[Outcome]:
    """Run all rounds and say how each went."""
    outcomes = []
    for seed in range(chosen.seed, chosen.seed + chosen.rounds):
        plan = make_plan(seed, faults=chosen.faults, count=chosen.faults_per_round, workers=chosen.workers)
        say(f"round {seed}: {', '.join(map(str, plan))}")
        folder = Path(tempfile.mkdtemp(prefix="streamforge-chaos-"))
        try:
            outcome = await Round(seed, plan, events=chosen.events, workers=chosen.workers, folder=folder, say=say).run()
        except BaseException:
            keep_logs(folder, seed, say)
            raise
        else:
            if chosen.keep_logs or not outcome.good:
                keep_logs(folder, seed, say)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        outcomes.append(outcome)
        tell(outcome, say)
        if not outcome.good:
            faults = ",".join(chosen.faults)
            say(
                f"  again: python -m tests.chaos --rounds 1 --seed {seed} --faults {faults} --faults-per-round {chosen.faults_per_round} "
                f"--events {chosen.events} --workers {chosen.workers}"
            )
    return outcomes


def keep_logs(folder: Path, seed: int, say: Say) -> None:
    """Copy the workers' logs to where they stay."""
    kept = LOGS / f"seed-{seed}"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for log in folder.glob("*.log"):
        shutil.copy(log, kept)
    say(f"  logs: {kept}")


def tell(outcome: Outcome, say: Say) -> None:
    """Say how a round went."""
    say(f"  {'topic':<14}{'expected':>10}{'found':>10}{'lost':>8}{'doubled':>9}{'wrong':>8}")
    for verdict in outcome.verdicts:
        say(f"  {verdict.topic:<14}{verdict.expected:>10,}{verdict.found:>10,}{verdict.lost:>8,}{verdict.doubled:>9,}{verdict.wrong:>8,}")
    for line in (*outcome.notes, *(f"FAILED: {failure}" for failure in outcome.failures)):
        say(f"  {line}")
    for verdict in outcome.verdicts:
        for example in verdict.examples:
            say(f"  {example[:1_000]}")
    say(f"  {'right' if outcome.good else 'WRONG'}, {outcome.sent:,} records in, {outcome.seconds:.0f} s")


def main() -> int:
    """Run; return the exit status."""
    chosen = options()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a broker that is killed is no news here
    say = partial(print, file=sys.stderr if chosen.json else sys.stdout, flush=True)
    try:
        outcomes = asyncio.run(run_rounds(chosen, say))
    except JavaMissing as error:
        say(f"NO CHAOS: {error}")
        return 2
    summary = Summary.of(outcomes)
    for line in summary.lines():
        say(line)
    if chosen.json:
        rounds = [dataclasses.asdict(outcome) for outcome in outcomes]
        told = {"good": not summary.failed_seeds, "summary": str(summary), "total": summary.builtins(), "rounds": rounds}
        print(json.dumps(told, indent=2))
    return 1 if summary.failed_seeds else 0


if __name__ == "__main__":
    sys.exit(main())
