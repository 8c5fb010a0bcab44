"""The process that is measured: `python -m tests.bench.pipelines`, told what to do by `BENCH_*` variables (see `measured.py`)."""

import os
import sys
import time
from typing import Any

from engine import App, Sink, Stream, bounded
from tests.bench.jobs import JOBS, order_type
from tests.bench.measured import note

JOB, TOPIC, RESULTS = os.environ["BENCH_JOB"], os.environ["BENCH_TOPIC"], os.environ["BENCH_RESULTS"]


app = App(
    os.environ["BENCH_APP"],
    broker=f"kafka://{os.environ['BENCH_BROKER']}",
    state_dir=os.environ["BENCH_STATE"],
    partitions=int(os.environ["BENCH_PARTITIONS"]),
    commit_interval=os.environ["BENCH_COMMIT"],
)
source = app.source(TOPIC, order_type(JOB), key="user_id", time="ts", watermark=bounded("30s"))
_begun = False


def note_first(order: object) -> bool:
    """Say once when the first order is processed. A call for each order: part of what is measured."""
    global _begun
    if not _begun:
        _begun = True
        note(first=time.time())
    return True


@app.pipeline(source)
def measured(orders: Stream[str, Any]) -> Sink:
    """One of the jobs."""
    return JOBS[JOB](orders.filter(note_first), RESULTS)


if __name__ == "__main__":
    sys.argv = [sys.argv[0], "worker", "--without-web", "--loglevel", "warn"]
    app.main()
