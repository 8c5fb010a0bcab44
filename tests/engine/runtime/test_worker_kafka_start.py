"""Workers that start before their broker, on a real Kafka: they wait for it; with nothing to wait for they end with one sentence."""

import asyncio
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.records import OutputColumns, TopicPartition
from engine.topics import TopicSpec
from tests.chaos.worker import Worker
from tests.conftest import needs_java
from tests.engine.runtime.kafka_harness import connected, read_to_end, settings_of
from tests.kafka_server import KafkaServer

PATIENCE_S = 60.0
PROGRAM = """
from engine import App, Struct

class Order(Struct):
    user: str

app = App("late", broker="kafka://set-by-the-environment", partitions=2, broker_session_timeout=3)
orders = app.source("orders", Order, key="user")

@app.pipeline(orders)
def copies(orders):
    return orders.key_by("user").map(lambda order: {"user": order.user}).to("copies")
"""
PLAIN = """
@app.agent(app.topic("orders", value_type=Order))
async def plain(stream):
    async for order in stream:
        print("HEARD", order.user, flush=True)
"""
ORDERS, COPIES = TopicPartition("orders", 0), TopicPartition("copies", 0)


@pytest.mark.kafka
async def test_worker_started_before_its_broker_waits_and_then_works_and_plain_agents_too(tmp_path: Path) -> None:
    server = KafkaServer()
    with needs_java():
        server.start()
    worker = worker_of(tmp_path, server)
    try:
        async with connected(settings_of(server)) as transport:
            await transport.ensure_topics([TopicSpec("orders", 2), TopicSpec("copies", 2, retention_ms=-1)])
            await transport.send({ORDERS: OutputColumns([int(time.time() * 1_000)], [b"ann"], [b'{"user": "ann"}'])})
        await asyncio.to_thread(server.kill)
        worker.start()
        # Longer than the 15 s for which one attempt to connect goes on.
        assert await worker.until_said(r"waits for the broker, for another \d+ s", 0, PATIENCE_S), worker.text()
        assert worker.running
        await asyncio.to_thread(server.start)
        async with connected(settings_of(server)) as transport:
            deadline = time.monotonic() + PATIENCE_S
            while not (batches := await read_to_end(transport, COPIES)):
                assert worker.running and time.monotonic() < deadline, worker.text()[-3_000:]
                await asyncio.sleep(0.2)
        assert [value for batch in batches for value in batch.values] == [b'{"user":"ann"}']
        assert await worker.until_said("HEARD", 0, PATIENCE_S), worker.text()[-3_000:]
        assert await worker.end() == 0
        assert "Traceback" not in worker.text()
    finally:
        worker.kill()
        server.stop()


@pytest.mark.slow
def test_worker_without_any_broker_ends_with_one_sentence_after_its_wait(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(PROGRAM)
    worker = run(tmp_path, "worker", "late.py", environ={"STREAMFORGE_BROKER": "kafka://127.0.0.1:1", "STREAMFORGE_BROKER_WAIT": "1s"})
    assert worker.returncode == 1
    assert re.fullmatch(r"Error: no broker within 1 s \(broker_wait\), so the worker ends: Kafka at 127\.0\.0\.1:1 .*", lines(worker)[-1])
    assert "Traceback" not in worker.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", [["topics", "list"], ["send", "orders", "late.py"], ["tail", "orders"]], ids=lambda command: command[0])
def test_command_without_any_broker_ends_with_one_sentence_and_does_not_wait(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "late.py").write_text('{"value": {"user": "ann"}}\n')
    begun_s = time.monotonic()
    ended = run(tmp_path, *command, "--broker", "kafka://127.0.0.1:1", environ={"STREAMFORGE_BROKER_WAIT": "5m"})
    assert ended.returncode == 1
    assert re.fullmatch(r"Error: Kafka at 127\.0\.0\.1:1 could not connect: .*", lines(ended)[-1])
    assert time.monotonic() - begun_s < PATIENCE_S


def worker_of(folder: Path, server: KafkaServer) -> Worker:
    (folder / "late.py").write_text(PROGRAM + PLAIN)
    return Worker("worker", str(folder / "late.py"), folder, {"STREAMFORGE_BROKER": f"kafka://{server.bootstrap}"})


def run(folder: Path, *command: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[3])
    everything = {**os.environ, "PYTHONPATH": root, **environ, "STREAMFORGE_STATE_DIR": str(folder / "state")}
    return subprocess.run(
        [sys.executable, "-m", "engine", *command], env=everything, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


def lines(ended: subprocess.CompletedProcess[str]) -> list[str]:
    return ended.stderr.strip().splitlines()
