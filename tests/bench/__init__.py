"""How fast the engine is on a real Kafka, on one core, with its results checked against an oracle.

    make bench                                            # or: python -m tests.bench
    make bench ARGS="--n 2000000 --jobs A0 --no-latency --json"

One broker on the first core, the process that is measured on the second one; generator and watcher share the broker's core. The
same orders go through

- control: plain aiokafka, `getmany` and JSON decoding, no engine and no output: what the driver leaves room for;
- A0: a tumbling minute per user: sum and count, one record when the window closes;
- A: the same of each country, through a repartition topic;
- B: sessions per user with a gap of one minute: sum and count;
- C: a pattern: three orders of a user within five minutes in event-time order, skip past the last;

each exactly once, with RocksDB state. Rate = orders / (first order processed to last result readable by a read_committed reader);
start-up is outside. `per cpu second` is the same with the CPU time of the process: other work on the machine hardly
moves it. Ratios to the control are given for both.

In the end the ratios by CPU time are compared with the aims and with `baseline.toml`: what falls more than 15 % short of it is said.

Others that are installed do A0 beside it (`tests.bench.peers`).

Large state: running totals of many keys beside those of few, with a limit on memory (`tests.bench.state_size`).

Latency: 5,000 orders a second, whatever the engine does (an open loop), a running total of each user with commit intervals from 50 ms
to a second, and with commits that follow one another (`--commits`); from handing an order to the producer to seeing its result with
read_committed. Absolute figures belong to one machine: compare ratios, and runs next to each other.

`python -m tests.bench.workers` has two workers beside one, by CPU time. `python -m tests.bench.inprocess` runs the jobs without a broker
and says where the time goes: for work on the data path, and for profiles. `python -m tests.bench.windows` is apart from this: each
window kind at 100 and at a million keys, in process, without a broker.
"""
