"""Which epoch an app is in, as workers and commands find out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from engine.records import OutputColumns, TopicPartition
from engine.runtime.epochs import Epoch, visible_plan
from engine.runtime.transport.memory import MemoryTransport
from engine.runtime.transport.memory_broker import MemoryBroker
from engine.testing.clock import LoopClock, virtual_loop, virtual_time
from engine.topics import TopicSpec
from tests.engine.runtime.kafka_harness import connected, settings_of, unique
from tests.engine.runtime.worker_world import numbering
from tests.kafka_server import KafkaServer

SECOND = msgspec.json.encode(Epoch(2, 2, "before", "eve", "why not", 1))
PROGRAM = """
from engine import App, Sink, Stream, agg
app = App("{name}", broker="kafka://set-by-the-environment", partitions=2)
words = app.source("words", dict)

@app.pipeline(words)
def counts(words: Stream[str, dict]) -> Sink:
    return words.key_by("word").aggregate(count=agg.count()).to("counts")
"""


@virtual_time
async def test_visible_plan_is_that_of_the_newest_epoch_and_makes_nothing() -> None:
    plan = numbering(2, repartition=True).plan()
    clock = LoopClock(virtual_loop())
    broker = MemoryBroker(clock)
    transport = MemoryTransport(broker, group_id="", client_id="command", clock=clock)
    await transport.start()
    assert (await visible_plan(transport, plan)).epoch == 1
    assert await transport.topics() == []
    broker.ensure_topic(TopicSpec(plan.epochs_topic, 1, compacted=True))
    assert (await visible_plan(transport, plan)).epoch == 1
    broker.produce({TopicPartition(plan.epochs_topic, 0): OutputColumns([1], [b"epoch"], [SECOND])})
    present = await visible_plan(transport, plan)
    assert (present.epoch, present.changelog_topic) == (2, "app-changelog-2")
    await transport.stop()


@pytest.mark.kafka
async def test_topics_commands_are_about_the_epoch_that_the_app_is_in(kafka: KafkaServer, tmp_path: Path) -> None:
    name = unique("epochs")
    program = tmp_path / "words.py"
    program.write_text(PROGRAM.format(name=name))

    def command(*arguments: str) -> str:
        environ = {**os.environ, "STREAMFORGE_BROKER": f"kafka://{kafka.bootstrap}"}
        call = [sys.executable, "-m", "engine", "topics", *arguments, "--app", str(program), "--json"]
        return subprocess.run(call, env=environ, capture_output=True, text=True, check=True).stdout

    async with connected(settings_of(kafka)) as transport:
        await transport.ensure_topics([TopicSpec(f"{name}-epochs", 1, compacted=True)])
        await transport.send({TopicPartition(f"{name}-epochs", 0): OutputColumns([1], [b"epoch"], [SECOND])})
    created = json.loads(command("create"))["topics"]
    assert f"{name}-changelog-2" in created and f"{name}-changelog-1" not in created
    listed = {row["name"]: row["partitions"] for row in json.loads(command("list"))}
    assert listed[f"{name}-changelog-2"] == 2
    assert all(listed[topic] for topic in created)
