"""Chaos: the shop on a real Kafka, in real processes that are killed, frozen, robbed of their disks and rebalanced.

    python -m tests.chaos --rounds 5 --seed 1
    python -m tests.chaos --rounds 1 --seed 4 --faults freeze,broker --json

A round has its own broker and its own seed (the first one's + 0, 1, 2, …), from which its traffic and its plan of faults follow:

    traffic ──► orders, page-views ──► worker 0, worker 1 (, worker 2) ──► results ──► a read_committed reader
                                           ▲ kill -9, SIGSTOP, disk lost, disk old, broker gone, …
    … until the plan is through; then closing records in every partition, everything processed, workers ended by SIGTERM

What the reader has seen by then is compared with `tests.oracle`, row by row: every row must be there, once, right and in the order
of its key. The timing of a fault depends on the machine, so a seed replays the plan, not the microsecond.
"""
