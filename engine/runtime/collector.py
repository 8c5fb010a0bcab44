"""CPython's cyclic garbage collector in a worker: rarer, and blind to what was there at the start.

A worker makes hundreds of thousands of containers a second that reference counting frees at once; the collector, by default, looks
at the young ones after every 700. With keyed state in memory that costs a fifth to a third of the time (sessions 8.6 to 7.0 µs a
record, patterns 17.5 to 12.7, both 300,000 records in process, one run each on a shared machine). Cycles are still found, later.
"""

import gc

YOUNG_MAX = 50_000


def tune_collector() -> None:
    """Raise the thresholds of this process, once; what has been imported by now is never looked at again."""
    if gc.get_threshold()[0] >= YOUNG_MAX:
        return
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, 20, 20)
