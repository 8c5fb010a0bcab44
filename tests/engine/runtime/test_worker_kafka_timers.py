"""Timers and a ttl on a real Kafka, while the worker is killed with kill -9 again and again: each timer fires once.

Timers of both clocks are registered, replaced and deleted; the worker is killed between the registration and the firing, just as
event time passes, and while wall-clock time passes. Then the code is deployed anew with a ttl over the state that there is.
"""

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.records import OutputColumns, TopicPartition
from engine.runtime.transport.kafka import KafkaTransport
from engine.topics import TopicSpec
from state.hashing import partition_of
from tests.chaos.worker import Worker
from tests.engine.runtime.kafka_harness import connected, read_to_end, settings_of, unique
from tests.kafka_server import KafkaServer

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PATIENCE_S = 90.0
PARTITIONS = 2
PROGRAM = '''
from typing import Any

from engine import App, Context, Record, Struct, Timer, ValueState, bounded

class Note(Struct, frozen=True):
    key: str
    do: str
    ts: int
    name: str = ""
    at: int = 0

class Notes:
    """Counts what it has seen of a key, and sets and deletes timers as it is told."""

    seen = ValueState(int, default=0, ttl={ttl})

    def on_record(self, record: Record[str, Note], ctx: Context) -> list[dict[str, Any]]:
        note = record.value
        if note.do == "event":
            ctx.timers.event_time(note.at, name=note.name)
        elif note.do == "wall":
            ctx.timers.wall_clock(ctx.now_ms + note.at, name=note.name)
        elif note.do == "cancel":
            ctx.timers.cancel(note.name)
        elif note.do == "see":
            self.seen.set(self.seen.get() + 1)
            return [{{"what": f"seen {{self.seen.get()}} at {{note.ts}}"}}]
        return []

    def on_timer(self, timer: Timer, ctx: Context) -> list[dict[str, Any]]:
        at = timer.timestamp_ms if timer.clock == "event_time" else ""
        return [{{"what": f"{{timer.name}} {{at}}".strip()}}]

app = App("{name}", broker="kafka://set-by-the-environment", partitions={partitions}, broker_session_timeout=3, grace="8s")
notes = app.source("{name}-notes", Note, key="key", time="ts", watermark=bounded("0s", idle=None))

@app.pipeline(notes)
def told(notes):
    """What there is to tell of notes."""
    return notes.process(Notes).to("{name}-told")
'''

KEYS = [next(k for k in (f"{name}{n}" for n in range(50)) if partition_of(k.encode(), PARTITIONS) == p) for p in range(2) for name in "ab"]


class Story:
    """One worker, and what is sent and told."""

    def __init__(self, transport: KafkaTransport, name: str, program: Path, worker: Worker) -> None:
        self.transport, self.name, self.program, self.worker = transport, name, program, worker

    def write(self, ttl: str | None) -> None:
        self.program.write_text(PROGRAM.format(name=self.name, partitions=PARTITIONS, ttl=repr(ttl)))

    async def send(self, do: str, ts: int, *, keys: list[str] = KEYS, **words: Any) -> None:
        batches: dict[TopicPartition, OutputColumns] = defaultdict(OutputColumns)
        for key in keys:
            value = json.dumps({"key": key, "do": do, "ts": ts, **words}).encode()
            partition = TopicPartition(f"{self.name}-notes", partition_of(key.encode(), PARTITIONS))
            batches[partition].append(int(time.time() * 1_000), key.encode(), value)
        await self.transport.send(batches)

    async def told(self) -> Counter[tuple[str, str]]:
        found = Counter[tuple[str, str]]()
        for partition in range(PARTITIONS):
            for batch in await read_to_end(self.transport, TopicPartition(f"{self.name}-told", partition)):
                for key, value in zip(batch.keys, batch.values, strict=True):
                    found[(key or b"").decode(), json.loads(value or b"")["what"]] += 1
        return found

    async def until(self, is_told: Callable[[Counter[tuple[str, str]]], bool]) -> Counter[tuple[str, str]]:
        deadline = time.monotonic() + PATIENCE_S
        while not is_told(found := await self.told()):
            assert time.monotonic() < deadline, f"{found}\n{self.worker.text()[-3_000:]}"
            await asyncio.sleep(0.2)
        return found

    async def until_all(self, what: str, keys: list[str] = KEYS) -> None:
        await self.until(lambda found: all(found[key, what] for key in keys))

    def die(self) -> None:
        self.worker.kill()
        self.worker.start()


async def test_timers_fire_once_and_a_ttl_ends_what_it_must_over_kills(kafka: KafkaServer, tmp_path: Path) -> None:
    name = unique("timers")
    program = tmp_path / "timers.py"
    worker = Worker("w", str(program), tmp_path, {"STREAMFORGE_BROKER": f"kafka://{kafka.bootstrap}"})
    async with connected(settings_of(kafka, group=name)) as transport:
        story = Story(transport, name, program, worker)
        await transport.ensure_topics([TopicSpec(f"{name}-{topic}", PARTITIONS, retention_ms=-1) for topic in ("notes", "told")])
        try:
            story.write(None)
            worker.start()
            await timers_of_both_clocks(story)
            await ttl_over_existing_state(story)
            found = await story.told()
            expected = {(key, what) for key in KEYS for what in ("kept 65000", "late 400000", "wall", "seen 1 at 1000", "seen 1 at 300000")}
            expected |= {(key, what) for key in KEYS[::2] for what in ("seen 2 at 70000", "seen 3 at 121000")}
            expected |= {(key, "seen 1 at 121000") for key in KEYS[1::2]}
            assert found == dict.fromkeys(expected, 1)
            assert await worker.end() == 0
            assert await story.told() == found, "nothing comes twice as it ends"
        finally:
            worker.kill()


async def timers_of_both_clocks(story: Story) -> None:
    """Register, replace and delete timers; kill before they are due, as they become due, and while the worker is down."""
    for timer, at in (("kept", 60_000), ("gone", 50_000), ("late", 400_000)):
        await story.send("event", 1_000, name=timer, at=at)
    for timer, at in (("wall", 1_000), ("never", 20_000)):
        await story.send("wall", 1_000, name=timer, at=at + 60_000)
    await story.send("see", 1_000)
    await story.until_all("seen 1 at 1000")
    story.die()
    await story.send("event", 2_000, name="kept", at=65_000)
    await story.send("wall", 2_000, name="wall", at=12_000)
    await story.send("cancel", 2_000, name="gone")
    await story.send("cancel", 2_000, name="never")
    await story.send("tick", 64_000)
    assert await story.worker.until_said("task .: open after", 0, PATIENCE_S)
    for pause_s in (0.0, 0.3, 0.6):
        await asyncio.sleep(pause_s)
        story.die()
    await story.send("tick", 65_001)
    for pause_s in (1.5, 2.2):
        await asyncio.sleep(pause_s)
        story.die()
    await story.until_all("kept 65000")
    story.worker.kill()
    await asyncio.sleep(12.0)  # by now the wall clock has passed the last of its timers
    story.worker.start()
    await story.until_all("wall")


async def ttl_over_existing_state(story: Story) -> None:
    """Deploy with a ttl of 100 s of event time: what was written at 1 s without one ends at 101 s, unless it is written again."""
    story.worker.kill()
    story.write("100s")
    story.worker.start()
    await story.send("see", 70_000, keys=KEYS[::2])
    await story.until_all("seen 2 at 70000", KEYS[::2])
    story.die()
    await story.send("tick", 120_000)
    story.die()
    await story.send("see", 121_000)
    await story.until_all("seen 3 at 121000", KEYS[::2])
    await story.until_all("seen 1 at 121000", KEYS[1::2])
    await story.send("tick", 299_000)
    story.die()
    await story.send("see", 300_000)
    await story.until_all("seen 1 at 300000")
    await story.send("tick", 400_001)
    story.die()
    await story.until_all("late 400000")
