"""The process that is measured: `python -m tests.bench.pipelines`, told what to do by `BENCH_*` variables (see `measured.py`)."""

import os
import sys
import time
from typing import Any

from engine import App, Sink, Stream, bounded
from engine.codecs import Decoded, JsonCodec
from engine.records import RecordBatch
from tests.bench.jobs import JOBS, order_type
from tests.bench.measured import note

JOB, TOPIC, RESULTS = os.environ["BENCH_JOB"], os.environ["BENCH_TOPIC"], os.environ["BENCH_RESULTS"]


class NotingCodec(JsonCodec[Any]):
    """JSON, and a note when the first orders are decoded: one look a batch, so that nothing is measured but the job."""

    _begun = False

    def decode_batch(self, batch: RecordBatch) -> Decoded[Any]:
        """Return the orders of a batch."""
        if not self._begun:
            self._begun = True
            note(first=time.time(), first_cpu_s=time.process_time())
        return super().decode_batch(batch)


app = App(
    os.environ["BENCH_APP"],
    broker=f"kafka://{os.environ['BENCH_BROKER']}",
    state_dir=os.environ["BENCH_STATE"],
    partitions=int(os.environ["BENCH_PARTITIONS"]),
    commit_interval=os.environ["BENCH_COMMIT"],
    state_memory_mib=int(os.environ.get("BENCH_STATE_MEMORY", "256")),
)
source = app.source(TOPIC, codec=NotingCodec(order_type(JOB)), key="user_id", time="ts", watermark=bounded("30s"))


@app.pipeline(source)
def measured(orders: Stream[str, Any]) -> Sink:
    """One of the jobs."""
    return JOBS[JOB](orders, RESULTS)


if __name__ == "__main__":
    sys.argv = [sys.argv[0], "worker", "--without-web", "--loglevel", "warn"]
    app.main()
