"""`python -m tests.soak`: run a soak; the last line says what it found, the exit status is 0 if memory and files stayed flat."""

import argparse
import asyncio
import sys
import tempfile
from functools import partial
from pathlib import Path

from tests.soak.run import Soak
from tests.soak.verdict import judge


def main() -> int:
    """Run; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--records", type=int, default=10_000_000, help="orders to take (10000000)")
    parser.add_argument("--rebalances", type=int, default=100, help="rebalances after that (100)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="streamforge-soak-") as folder:
        say = partial(print, flush=True)
        found = asyncio.run(Soak(chosen.records, chosen.rebalances, Path(folder), say).run())
    wrong = judge(found)
    print(
        f"soak: {found.sent:,} orders, {chosen.rebalances} rebalances, {found.seconds:.0f} s; over the orders {found.by_records}; "
        f"over the rebalances {found.by_rebalances}; counted {found.counted}; {'; '.join(wrong) or 'all right'}"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
