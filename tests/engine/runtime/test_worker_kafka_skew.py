"""Bounded skew over two worker processes on a real Kafka: the fast one waits for the slow one, through its death too.

clicks-0  worker 1  1,000 s of backlog ──► waits a minute ahead
clicks-1  worker 2  second 0, later 300, then killed, and read on by worker 1
"""

import asyncio
import json
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from engine.records import OutputColumns, TopicPartition
from engine.runtime.transport.kafka import KafkaTransport
from engine.topics import TopicSpec
from tests.chaos.worker import Worker
from tests.engine.runtime.kafka_harness import connected, read_to_end, settings_of, unique
from tests.kafka_server import KafkaServer

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PATIENCE_S = 90.0
START_MS = 1_767_225_600_000
FAST, SLOW = 0, 1
SECONDS = 1_000
SLACK = 80  # of a record a second: the first piece of work is 64 records, before anybody knows how dense they lie
PROGRAM = '''
from engine import App, Struct, bounded

class Click(Struct, frozen=True):
    number: int
    ts: int

app = App("{name}", broker="kafka://set-by-the-environment", partitions=2, max_skew="1m", broker_session_timeout=6, grace="8s")
clicks = app.source("{name}-clicks", Click, time="ts", watermark=bounded("0s", idle="10m"))

@app.pipeline(clicks)
def passed(clicks):
    """Every click as it comes."""
    return clicks.map(lambda click: click.number).to("{name}-passed")
'''


async def send(transport: KafkaTransport, name: str, number: int, seconds: range) -> None:
    """Send one click of a partition for each second."""
    columns = OutputColumns()
    for second in seconds:
        value = json.dumps({"number": second, "ts": START_MS + second * 1_000}).encode()
        columns.append(START_MS, f"key-{number}".encode(), value)
    await transport.send({TopicPartition(f"{name}-clicks", number): columns})


async def passed(transport: KafkaTransport, name: str) -> dict[int, list[int]]:
    """Return the numbers that have come out, by the partition that they went in by."""
    found: dict[int, list[int]] = {FAST: [], SLOW: []}
    for number in (0, 1):
        for batch in await read_to_end(transport, TopicPartition(f"{name}-passed", number)):
            for key, value in zip(batch.keys, batch.values, strict=True):
                found[int((key or b"")[-1:])].append(json.loads(value or b""))
    return found


async def until(transport: KafkaTransport, name: str, **counts: int) -> None:
    """Wait until so many have come out of the fast and of the slow one."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = await passed(transport, name)
        now = {"fast": len(found[FAST]), "slow": len(found[SLOW])}
        if all(now[which] >= count for which, count in counts.items()):
            return
        assert time.monotonic() < deadline, f"{now}, not {counts}"
        await asyncio.sleep(0.2)


def held(worker: Worker) -> float:
    """Return how many partitions a worker holds back, by its metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{worker.web_port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("streamforge_held_partitions{"))


async def test_fast_partition_waits_for_the_slow_one_of_another_worker_and_through_its_death(kafka: KafkaServer, tmp_path: Path) -> None:
    name = unique("skew")
    program = tmp_path / "skew.py"
    program.write_text(PROGRAM.format(name=name))
    workers = [Worker(f"w{number}", str(program), tmp_path, {"STREAMFORGE_BROKER": f"kafka://{kafka.bootstrap}"}) for number in (1, 2)]
    async with connected(settings_of(kafka, group=name)) as transport:
        await transport.ensure_topics([TopicSpec(f"{name}-{topic}", 2, retention_ms=-1) for topic in ("clicks", "passed")])
        try:
            for worker in workers:
                worker.start()
            deadline = time.monotonic() + PATIENCE_S
            while sorted(number for worker in workers for number in worker.numbers()) != [0, 1] or not all(w.numbers() for w in workers):
                assert time.monotonic() < deadline, workers[0].text()[-3_000:]
                await asyncio.sleep(0.2)
            fast, slow = sorted(workers, key=lambda worker: sorted(worker.numbers()))
            await send(transport, name, SLOW, range(1))
            await until(transport, name, slow=1)
            await asyncio.sleep(3.0)
            await send(transport, name, FAST, range(SECONDS))
            await until(transport, name, fast=61)
            await asyncio.sleep(4.0)
            assert len((await passed(transport, name))[FAST]) <= 61 + SLACK
            assert (held(fast), held(slow)) == (1.0, 0.0)
            await send(transport, name, SLOW, range(1, 301))
            await until(transport, name, fast=361)
            await asyncio.sleep(2.0)
            assert len((await passed(transport, name))[FAST]) <= 361 + SLACK
            slow.kill()
            assert await fast.until_said(rf"task {SLOW}: open after", 0, PATIENCE_S), fast.text()[-3_000:]
            await asyncio.sleep(3.0)
            assert len((await passed(transport, name))[FAST]) <= 361 + SLACK, "nobody knew for a while how far the slow one was"
            await send(transport, name, SLOW, range(301, SECONDS))
            await until(transport, name, fast=SECONDS, slow=SECONDS)
            assert await passed(transport, name) == {FAST: list(range(SECONDS)), SLOW: list(range(SECONDS))}
            assert Counter(await transport.topics())[f"{name}-alignment-1"] == 1
            assert await fast.end() == 0, fast.text()[-3_000:]
        finally:
            for worker in workers:
                worker.kill()
