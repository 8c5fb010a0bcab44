"""CPython's cyclic garbage collector in a worker: rarer, at a good moment, and blind to what was there at the start.

A worker makes hundreds of thousands of containers a second that reference counting frees at once; the collector, by default, looks
at the young ones after every 700. With keyed state in memory that costs a fifth to a third of the time (sessions 8.6 to 7.0 µs a
record, patterns 17.5 to 12.7, both 300,000 records in process, one run each on a shared machine). Cycles are still found, later.

The good moment is behind a commit, when what was made for its records has been freed and old entries of state were dropped:

    young containers   ▁▃▅▇▁▃▅▇▁▃▅▇▁     records come, a commit lets them go
                           ▲   ▲   ▲     looked at here, if many are left: 6 collections instead of 19 with large state

Many means: more than the entries of state, which come and go, are above their mean at any time (some 100,000 with 64 MiB). With 50,000
the collector looked at each entry once in its life and found nothing, 2.7 of 31 µs an order with large state.
"""

import gc

YOUNG_MAX = 250_000
UNCOMMITTED_MAX = 500_000
OLDER_EVERY = 20


def tune_collector() -> None:
    """Raise the thresholds of this process, once; what has been imported by now is never looked at again."""
    if gc.get_threshold()[0] >= YOUNG_MAX:
        return
    gc.collect()
    gc.freeze()
    gc.set_threshold(UNCOMMITTED_MAX, OLDER_EVERY, OLDER_EVERY)


def collect_young() -> None:
    """Look for cycles if many young containers are alive; to be called after a commit, in a tuned process (nothing else happens)."""
    young, times, _ = gc.get_count()
    if young >= YOUNG_MAX and gc.get_threshold()[0] == UNCOMMITTED_MAX:
        gc.collect(1 if times >= OLDER_EVERY else 0)
