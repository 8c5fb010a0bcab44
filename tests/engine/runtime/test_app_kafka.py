"""The app on a real Kafka: pipelines exactly once over a restart, plain agents beside them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.records import OutputColumns, TopicPartition
from engine.runtime.transport.kafka import KafkaTransport
from engine.topics import TopicSpec
from tests.engine.runtime.kafka_harness import connected, settings_of, unique
from tests.kafka_server import KafkaServer
from tests.ports import free_port

pytestmark = pytest.mark.kafka

PROGRAM = """
import os
from engine import App, Struct, ValueState
class Click(Struct):
    user: str
name = os.environ["APP"]
app = App(name, broker="kafka://overridden", partitions=2, web_enabled=False)
clicks = app.source(name + "-clicks", Click, key="user")
class Numbering:
    count = ValueState(int, default=0)
    def on_record(self, record, ctx):
        self.count.set(self.count.get() + 1)
        return [{"key": ctx.key, "number": self.count.get()}]
@app.pipeline(clicks)
def number(clicks):
    return clicks.process(Numbering).to(name + "-numbers")
@app.agent(app.topic(name + "-clicks", value_type=Click))
async def plain(stream):
    async for click in stream:
        print("HEARD", click.user, flush=True)
"""


class Worker:
    """A worker process, its output in a file."""

    def __init__(self, folder: Path, name: str, server: KafkaServer) -> None:
        (folder / "program.py").write_text(PROGRAM)
        root = Path(__file__).parents[3]
        environ = {
            **os.environ,
            "PYTHONPATH": f"{folder}:{root}:{os.environ.get('PYTHONPATH', '')}",
            "APP": name,
            "STREAMFORGE_BROKER": f"kafka://{server.bootstrap}",
            "STREAMFORGE_STATE_DIR": str(folder / "state"),
        }
        self.log = folder / "worker.log"
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "faust", "-A", "program", "worker", "-l", "info", "--web-port", str(free_port())]
            self.process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, cwd=folder)

    def end(self, number: int) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(30)


async def committed_numbers(transport: KafkaTransport, topic: str, count: int) -> list[int]:
    """Return the numbers of the one user that the tests know, once there are so many (or 30 s have passed)."""
    found: list[int] = []
    reader = await transport.open_reader(TopicPartition(topic, 0), 0)
    try:
        while len(found) < count:
            batch = await reader.read(30.0)
            if batch is None:
                break
            found += [json.loads(value)["number"] for value in batch.values if value is not None]
    finally:
        await reader.close()
    return found


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
async def test_app_on_kafka_numbers_each_record_once_over_a_restart(kafka: KafkaServer, tmp_path: Path, end: signal.Signals) -> None:
    name = unique("app")
    async with connected(settings_of(kafka)) as transport:
        await transport.ensure_topics([TopicSpec(f"{name}-clicks", 2)])

        async def click(times: int) -> None:
            columns = OutputColumns([1] * times, [b"ann"] * times, [b'{"user":"ann"}'] * times)
            await transport.send({TopicPartition(f"{name}-clicks", 0): columns})

        await click(5)
        first = Worker(tmp_path, name, kafka)
        try:
            await transport.ensure_topics([TopicSpec(f"{name}-numbers", 2, retention_ms=-1)])
            assert await committed_numbers(transport, f"{name}-numbers", 5) == [1, 2, 3, 4, 5]
            await click(3)
        finally:
            status = first.end(end)
        assert status == (0 if end is signal.SIGTERM else -end), first.log.read_text()
        second = Worker(tmp_path, name, kafka)
        try:
            await click(2)
            assert await committed_numbers(transport, f"{name}-numbers", 10) == list(range(1, 11))
        finally:
            second.end(signal.SIGTERM)
    assert second.log.read_text().count("HEARD") >= 10, "the plain agent hears each record at least once"
