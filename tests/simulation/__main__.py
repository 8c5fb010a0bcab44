"""`python -m tests.simulation --seeds N --first S [--trace]`: run seeds S to S + N - 1; the exit status tells whether all passed."""

import argparse
import os
import signal
import sys
import time
import traceback
from types import FrameType

from tests.simulation.run import COMMAND, Outcome, run_seed

LAST_LINES = 30
SEED_CPU_S = 60.0


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many (default 200)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default 0)")
    parser.add_argument("--trace", action="store_true", help="print everything that happened")
    parser.add_argument("--stop", action="store_true", help="stop at the first seed that fails")
    options = parser.parse_args()
    started_s = time.monotonic()
    passed = failed = 0
    for seed in range(options.first, options.first + options.seeds):
        outcome = run_within_limit(seed)
        if outcome.errors or options.trace:
            show(outcome, whole=options.trace)
        passed, failed = passed + (not outcome.errors), failed + bool(outcome.errors)
        if failed and options.stop:
            break
    print(f"{time.monotonic() - started_s:.1f} s", file=sys.stderr)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def run_within_limit(seed: int) -> Outcome:
    """Run a seed; one that uses a minute of CPU time (a second is much) never ends: then say where it is, and end everything."""

    def give_up(number: int, frame: FrameType | None) -> None:
        traceback.print_stack(frame, file=sys.stdout)
        print(f"seed {seed} failed; again: {COMMAND.format(seed=seed)}\n  it does not end\n0 passed, 1 failed", flush=True)
        os._exit(1)

    signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, SEED_CPU_S)
    try:
        return run_seed(seed)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def show(outcome: Outcome, *, whole: bool) -> None:
    """Print the trace of a run, or its end, and what was wrong."""
    for line in outcome.trace if whole else outcome.trace[-LAST_LINES:]:
        print(line)
    if outcome.errors:
        print(outcome.report())


if __name__ == "__main__":
    sys.exit(main())
