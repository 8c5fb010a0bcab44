"""A0 without an engine: a loop written by hand on confluent-kafka (librdkafka), exactly once, its windows in memory only.

What a crash would lose makes it an upper limit and not a peer: `python -m tests.bench.peer_confluent`, told what to do by `BENCH_*`.
"""

import os
import time
from collections import defaultdict
from typing import Any

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.bench.measured import note

WINDOW_MS, DELAY_MS, COMMIT_S = 60_000, 30_000, 1.0


class Loop:
    """Minute sums of each user, partition by partition, closed by the highest time less the delay."""

    def __init__(self, broker: str, topic: str, results: str, name: str, partitions: int) -> None:
        self._topic, self._results = topic, results
        self._consumer = Consumer(
            {
                "bootstrap.servers": broker,
                "group.id": name,
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "queued.min.messages": 100_000,
                "fetch.queue.backoff.ms": 10,
            }
        )
        self._producer = Producer(
            {"bootstrap.servers": broker, "transactional.id": name, "linger.ms": 50, "queue.buffering.max.messages": 2_000_000}
        )
        self._windows: list[defaultdict[int, dict[str, list[int]]]] = [defaultdict(dict) for _ in range(partitions)]
        self._highest, self._closed = [0] * partitions, [0] * partitions
        self._positions: dict[int, int] = {}
        self._is_open = False

    def run(self) -> None:
        """Go on until the process is ended."""
        self._producer.init_transactions()
        self._consumer.subscribe([self._topic])
        committed_s, begun = time.monotonic(), False
        while True:
            messages = self._consumer.consume(5_000, timeout=0.05)
            if messages and not begun:
                begun = True
                note(first=time.time(), first_cpu_s=time.process_time())
            for message in messages:
                self._take(message)
            if self._positions and time.monotonic() - committed_s > COMMIT_S:
                self._commit()
                committed_s = time.monotonic()

    def _take(self, message: Any) -> None:
        partition, order = message.partition(), orjson.loads(message.value())
        ts = order["ts"]
        if ts > self._highest[partition]:
            self._highest[partition] = ts
            if ts - DELAY_MS - WINDOW_MS >= self._closed[partition]:
                self._close(partition)
                self._closed[partition] = (ts - DELAY_MS) // WINDOW_MS * WINDOW_MS
        window = self._windows[partition][ts // WINDOW_MS * WINDOW_MS]
        cell = window.get(order["user_id"])
        if cell is None:
            window[order["user_id"]] = [order["amount_cents"], 1]
        else:
            cell[0] += order["amount_cents"]
            cell[1] += 1
        self._positions[partition] = message.offset() + 1

    def _close(self, partition: int) -> None:
        windows, until = self._windows[partition], self._highest[partition] - DELAY_MS
        for start in sorted(start for start in windows if start + WINDOW_MS <= until):
            self._begin()
            for user, (total, count) in windows.pop(start).items():
                row = {"key": user, "window_start": start, "sum": total, "count": count}
                self._producer.produce(self._results, orjson.dumps(row), user, partition=partition)
            self._producer.poll(0)

    def _begin(self) -> None:
        if not self._is_open:
            self._producer.begin_transaction()
            self._is_open = True

    def _commit(self) -> None:
        self._begin()
        offsets = [TopicPartition(self._topic, partition, offset) for partition, offset in self._positions.items()]
        self._producer.send_offsets_to_transaction(offsets, self._consumer.consumer_group_metadata())
        self._producer.commit_transaction()
        self._positions, self._is_open = {}, False


if __name__ == "__main__":
    Loop(
        os.environ["BENCH_BROKER"],
        os.environ["BENCH_TOPIC"],
        os.environ["BENCH_RESULTS"],
        os.environ["BENCH_APP"],
        int(os.environ["BENCH_PARTITIONS"]),
    ).run()
