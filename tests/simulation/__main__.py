"""`python -m tests.simulation --seeds N --first S [--trace]`: run seeds S to S + N - 1; the exit status tells whether all passed."""

import argparse
import sys
import time

from tests.simulation.run import Outcome, run_seed

LAST_LINES = 30


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
        outcome = run_seed(seed)
        if outcome.errors or options.trace:
            show(outcome, whole=options.trace)
        passed, failed = passed + (not outcome.errors), failed + bool(outcome.errors)
        if failed and options.stop:
            break
    print(f"{time.monotonic() - started_s:.1f} s", file=sys.stderr)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def show(outcome: Outcome, *, whole: bool) -> None:
    """Print the trace of a run, or its end, and what was wrong."""
    for line in outcome.trace if whole else outcome.trace[-LAST_LINES:]:
        print(line)
    if outcome.errors:
        print(outcome.report())


if __name__ == "__main__":
    sys.exit(main())
