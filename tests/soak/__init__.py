"""Soak: does a worker's memory stay flat, and its open files, over many records and many rebalances?

    python -m tests.soak --records 10000000 --rebalances 100

    orders ──► a worker, measured: windows, a repartition, state with timers ──► results, counted: each order once
                    ▲ then, again and again, a second worker joins and leaves, and half of the tasks goes there and back

Resident memory and open files of the worker are read from /proc: while the orders are taken, and at rest after each rebalance. What is
later is compared with what was earlier, once its caches had filled.
"""
