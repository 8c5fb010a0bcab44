"""A0 in Quix Streams, exactly once with RocksDB state and a commit a second: `python -m tests.bench.peer_quix`, told by `BENCH_*`."""

import os
import time
from typing import Any

from quixstreams import Application  # type: ignore[import-not-found, unused-ignore]  # it is in an environment of its own

from tests.bench.measured import note

WINDOW_MS, DELAY_MS = 60_000, 30_000
_begun = False


def note_first(order: Any) -> bool:
    """Say once when the first order is processed."""
    global _begun
    if not _begun:
        _begun = True
        note(first=time.time(), first_cpu_s=time.process_time())
    return True


def main() -> None:
    """Go on until the process is ended."""
    app = Application(
        broker_address=os.environ["BENCH_BROKER"],
        consumer_group=os.environ["BENCH_APP"],
        auto_offset_reset="earliest",
        state_dir=os.environ["BENCH_STATE"],
        processing_guarantee="exactly-once",
        commit_interval=1.0,
        loglevel="WARNING",
        consumer_extra_config={"isolation.level": "read_committed"},
    )
    source = app.topic(os.environ["BENCH_TOPIC"], value_deserializer="json", key_deserializer="str")
    results = app.topic(os.environ["BENCH_RESULTS"], value_serializer="json", key_serializer="str")
    windows = app.dataframe(source).filter(note_first).tumbling_window(WINDOW_MS, grace_ms=DELAY_MS)
    totals = windows.reduce(
        reducer=lambda total, order: [total[0] + order["amount_cents"], total[1] + 1], initializer=lambda order: [order["amount_cents"], 1]
    )
    closed = totals.final(closing_strategy="partition")  # by default a window waits for its own key to come again

    def shape(window: Any, key: Any, _timestamp_ms: int, _headers: Any) -> dict[str, Any]:
        return {"key": key, "window_start": window["start"], "sum": window["value"][0], "count": window["value"][1]}

    closed.apply(shape, metadata=True).to_topic(results)
    app.run()


if __name__ == "__main__":
    main()
