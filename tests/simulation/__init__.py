"""The simulator: the genuine workers of an app, many in one process, on the memory broker and under virtual time.

    python -m tests.simulation --seeds 200 --first 0        200 runs, each with another seed
    python -m tests.simulation --seeds 1 --first 17 --trace  one of them again, with everything that happened

One seed decides everything: how many partitions and workers, which pipelines, the records, the faults and their moments. Nothing is
taken from the machine, so a seed replays any failure. Only what lies outside the process is simulated: the network, the disks and
the clocks. Runner, tasks, restore, assignor, group, commits and operators are the ones that users run.

    traffic ──► broker ◄──network: delays, losses──► process: Runner, tasks ──► disk: kept, older, lost
                              ▲                          ▲
                              └────── adversary: kills, freezes, cuts, outages, rebalances, clock jumps, compaction

At the end of a run the adversary lets go, the input ends, and `verdict` compares what is there with what plain Python makes of the
source topics (`oracle`).
"""
