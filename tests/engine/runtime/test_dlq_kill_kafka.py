"""`streamforge dlq replay` killed by -9 wherever it is, the worker too: each letter goes back once, and who fails again knows why."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as Place

from engine.records import OutputColumns, TopicPartition
from engine.replays import REPLAY_HEADER
from engine.topics import TopicSpec
from tests.chaos.worker import Worker
from tests.engine.runtime.kafka_harness import connected, read_to_end, settings_of, unique
from tests.engine.runtime.test_dlq_kafka import streamforge
from tests.kafka_server import KafkaServer

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

LETTERS = 1_100  # three transactions of a replay
STUBBORN = 7  # every seventh fails again
FIRST = ("--all", "--error", "not mended yet")  # not the letters of those that fail again
PATIENCE_S = 120.0
PROGRAM = """
from pathlib import Path
from engine import App, Struct

class Order(Struct):
    number: int

app = App("{name}", broker="kafka://set-by-the-environment", partitions=1, broker_session_timeout=3)
orders = app.source("{name}-orders", Order)

def checked(order):
    mended = Path("{mended}").read_text()
    if mended != "all" and (not mended or order.number % {stubborn} == 0):
        raise ValueError("not mended yet" if not mended else "still wrong")
    return {{"number": order.number}}

@app.pipeline(orders)
def checks(orders):
    return orders.map(checked).to("{name}-checked")
"""


class Log:
    """The end of a partition, with what no transaction has committed yet."""

    def __init__(self, server: KafkaServer, topic: str) -> None:
        self._consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": unique("watch")})
        self._place = Place(topic, 0)

    def end(self) -> int:
        end: int = self._consumer.get_watermark_offsets(self._place, timeout=10, cached=False)[1]
        return end

    def close(self) -> None:
        self._consumer.close()


async def test_replay_killed_anywhere_sends_each_letter_once(kafka: KafkaServer, tmp_path: Path) -> None:
    name, mended, program = unique("kill"), tmp_path / "mended", tmp_path / "shop.py"
    mended.write_text("")
    program.write_text(PROGRAM.format(name=name, mended=mended, stubborn=STUBBORN))
    worker = Worker("worker", str(program), tmp_path, {"STREAMFORGE_BROKER": f"kafka://{kafka.bootstrap}"})
    orders = TopicPartition(f"{name}-orders", 0)
    async with connected(settings_of(kafka, group=name)) as transport:
        await transport.ensure_topics([TopicSpec(orders.topic, 1)])
        columns, now_ms = OutputColumns(), int(time.time() * 1_000)  # older ones the broker would delete
        for number in range(LETTERS):
            columns.append(now_ms + number, b"k%d" % number, b'{"number":%d}' % number, [("trace", b"t%d" % number)])
        await transport.send({orders: columns})
        log = Log(kafka, orders.topic)
        worker.start()
        try:
            await until(lambda: count(transport, f"{name}-dlq"), LETTERS, worker)
            mended.write_text("most")
            begun, killed = log.end(), 0
            while killed < 6:
                stopped_at = log.end()
                if not kill_when_it_has_written(kafka, program, log, beyond=stopped_at + 1 + 100 * killed):
                    break
                killed += 1
                if killed == 2:
                    worker.kill()
                    worker.start()
            assert killed >= 2, "the replays were quicker than their murderer"
            streamforge(kafka, "dlq", "replay", *FIRST, "-A", str(program))
            again = [number for number in range(LETTERS) if number % STUBBORN == 0]
            await until(lambda: count(transport, f"{name}-dlq"), LETTERS + len(again), worker)

            found = await records(transport, orders)
            times = Counter(key for key, *_ in found)
            wrong = {key: seen for key, seen in times.items() if seen != 2}
            assert not wrong, f"killed {killed} times; {Counter(wrong.values())}: {list(wrong.items())[:10]}"
            assert log.end() > begun
            for key, value, at, headers in found[LETTERS:]:
                number = int((key or b"")[1:])
                assert (value, at, headers["trace"]) == (b'{"number":%d}' % number, now_ms + number, b"t%d" % number)
                assert json.loads(headers[REPLAY_HEADER])["origin"] == f"{orders.topic}/0/{number}"
            done = [json.loads(value or b"")["number"] for _, value, *_ in await records(transport, TopicPartition(f"{name}-checked", 0))]
            assert sorted(done) == [number for number in range(LETTERS) if number % STUBBORN]

            listed = [json.loads(line) for line in streamforge(kafka, "dlq", "list", "-A", str(program), "--json").splitlines()]
            assert Counter(letter["replayed"] for letter in listed) == {1: LETTERS, 0: len(again)}
            for letter in listed[LETTERS:]:
                assert (letter["attempt"], letter["earlier_errors"]) == (2, ["map: ValueError: not mended yet"])
                assert letter["error"] == "ValueError: still wrong"
                assert letter["origin"] == f"{orders.topic}/0/{json.loads(letter['value'])['number']}"
            mended.write_text("all")
            assert streamforge(kafka, "dlq", "replay", "--all", "-A", str(program)).startswith(
                f"{len(again)} replayed; {LETTERS} were before"
            )
            await until(lambda: count(transport, f"{name}-checked"), LETTERS, worker)
        finally:
            worker.kill()
            log.close()


async def count(transport: Any, topic: str) -> int:
    there = topic in await transport.partition_counts([topic])
    return len(await records(transport, TopicPartition(topic, 0))) if there else 0


async def records(transport: Any, place: TopicPartition) -> list[tuple[bytes | None, bytes | None, int, dict[str, bytes]]]:
    found = []
    for batch in await read_to_end(transport, place):
        headers = batch.headers
        for row, (key, value, at) in enumerate(zip(batch.keys, batch.values, batch.timestamps, strict=True)):
            found.append((key, value, at, dict(headers[row])))
    return found


def kill_when_it_has_written(kafka: KafkaServer, program: Path, log: Log, *, beyond: int) -> bool:
    """Run a replay, kill -9 it as soon as something of it is in the log, committed or not; False if it came to its end."""
    env = {**os.environ, "STREAMFORGE_BROKER": f"kafka://{kafka.bootstrap}"}
    command = [sys.executable, "-m", "engine", "dlq", "replay", *FIRST, "-A", str(program)]
    process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and log.end() < beyond:
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


async def until(found: Callable[[], Awaitable[int]], wanted: int, worker: Worker) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (seen := await found()) != wanted:
        assert time.monotonic() < deadline, f"{seen}, not {wanted}: {worker.text()[-3_000:]}"
        await asyncio.sleep(0.2)
