"""What the wall clock does on a real Kafka, while the worker is killed with kill -9 just around it: once, whatever happens.

A firing of a wall-clock timer and an idle advance have no input whose offset would say that they have been. They are committed like
input, in a transaction with what they led to, so a restart neither does them again nor forgets them:

    timers      one timer each quarter of a second, and a chain in which each firing sets the next one; kills all along
    idle        all inputs fall silent, and the watermark follows the clock; kills before, at and after the time at which the window
                closes; then a record of that window comes, and is late, since what closed it has not been forgotten
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
SINGLE, CHAIN, STEP_MS, FIRST_MS = 60, 40, 250, 1_000
ROUNDS = 3
PROGRAM = '''
from typing import Any

from engine import App, Context, Record, Struct, Timer, ValueState, agg, bounded, windows

class Start(Struct, frozen=True):
    key: str

class Click(Struct, frozen=True):
    key: str
    ts: int

class Clock:
    """Single timers, and a chain."""

    link = ValueState(int, default=0)

    def on_record(self, record: Record[str, Start], ctx: Context) -> None:
        for number in range({single}):
            ctx.timers.wall_clock(ctx.now_ms + {first_ms} + number * {step_ms}, name=f"single {{number}}")
        ctx.timers.wall_clock(ctx.now_ms + {first_ms}, name="chain")

    def on_timer(self, timer: Timer, ctx: Context) -> list[dict[str, Any]]:
        if timer.name != "chain":
            return [{{"what": timer.name}}]
        link = self.link.get()
        self.link.set(link + 1)
        if link + 1 < {chain}:
            ctx.timers.wall_clock(timer.timestamp_ms + {step_ms}, name="chain")
        return [{{"what": f"link {{link}}"}}]

app = App("{name}", broker="kafka://set-by-the-environment", partitions={partitions}, broker_session_timeout=3, grace="8s")
starts = app.source("{name}-starts", Start, key="key")
clicks = app.source("{name}-clicks", Click, key="key", time="ts", watermark=bounded("0s", idle="2s"))

@app.pipeline(starts)
def told(starts):
    """What the timers tell."""
    return starts.process(Clock).to("{name}-told")

@app.pipeline(clicks)
def counts(clicks):
    """Clicks by second, behind a repartition: the idle advance goes on through it."""
    by_key = clicks.key_by(lambda click: click.key)
    return by_key.window(windows.tumbling("1s"), late_to="{name}-late").aggregate(n=agg.count()).to("{name}-counts")
'''

KEYS = [next(k for k in (f"{name}{n}" for n in range(50)) if partition_of(k.encode(), PARTITIONS) == p) for p in range(2) for name in "ab"]


class Story:
    """One worker, and what is sent and comes out."""

    def __init__(self, transport: KafkaTransport, name: str, worker: Worker) -> None:
        self.transport, self.name, self.worker = transport, name, worker
        self._born_at = 0

    async def send(self, topic: str, **words: Any) -> None:
        batches: dict[TopicPartition, OutputColumns] = defaultdict(OutputColumns)
        for key in KEYS:
            partition = TopicPartition(f"{self.name}-{topic}", partition_of(key.encode(), PARTITIONS))
            batches[partition].append(int(time.time() * 1_000), key.encode(), json.dumps({"key": key, **words}).encode())
        await self.transport.send(batches)

    async def found(self, topic: str, what: Callable[[Any], Any]) -> Counter[tuple[str, Any]]:
        """Return how often each (key, what the value says) has come out."""
        found = Counter[tuple[str, Any]]()
        for partition in range(PARTITIONS):
            for batch in await read_to_end(self.transport, TopicPartition(f"{self.name}-{topic}", partition)):
                for key, value in zip(batch.keys, batch.values, strict=True):
                    found[(key or b"").decode(), what(json.loads(value or b""))] += 1
        return found

    async def until(self, topic: str, what: Callable[[Any], Any], wanted: set[tuple[str, Any]]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not wanted <= (found := await self.found(topic, what)).keys():
            assert time.monotonic() < deadline, f"{wanted - found.keys()}\n{self.worker.text()[-3_000:]}"
            await asyncio.sleep(0.2)

    async def is_open(self) -> None:
        assert await self.worker.until_said("task .: open after", self._born_at, PATIENCE_S)

    def die(self) -> None:
        self.worker.kill()
        self._born_at = self.worker.said()
        self.worker.start()


async def test_firings_and_idle_advances_are_neither_repeated_nor_lost_over_kills(kafka: KafkaServer, tmp_path: Path) -> None:
    name = unique("clock")
    program = tmp_path / "clock.py"
    program.write_text(PROGRAM.format(name=name, partitions=PARTITIONS, single=SINGLE, chain=CHAIN, step_ms=STEP_MS, first_ms=FIRST_MS))
    worker = Worker("w", str(program), tmp_path, {"STREAMFORGE_BROKER": f"kafka://{kafka.bootstrap}"})
    async with connected(settings_of(kafka, group=name)) as transport:
        story = Story(transport, name, worker)
        topics = [TopicSpec(f"{name}-{topic}", PARTITIONS, retention_ms=-1) for topic in ("starts", "clicks", "told", "counts", "late")]
        await transport.ensure_topics(topics)
        try:
            worker.start()
            await timers(story)
            await idle_advances(story)
            await story.is_open()
            told = await story.found("told", what_of)
            counts, late = await story.found("counts", window_of), await story.found("late", window_of)
            assert await worker.end() == 0
            assert (await story.found("told", what_of), await story.found("counts", window_of)) == (told, counts), (
                "nothing comes as it ends"
            )
        finally:
            worker.kill()
    whats = [f"single {number}" for number in range(SINGLE)] + [f"link {number}" for number in range(CHAIN)]
    assert told == dict.fromkeys(((key, what) for key in KEYS for what in whats), 1)
    windows = [second_of(number) for number in range(ROUNDS)]
    assert counts == dict.fromkeys(((key, (start, 1)) for key in KEYS for start in windows), 1)
    assert late == dict.fromkeys(((key, (start, None)) for key in KEYS for start in windows), 1)


def what_of(value: Any) -> Any:
    return value["what"]


def window_of(value: Any) -> Any:
    """Return the window and the count of a result, or the window of a late click."""
    return (value["window_start"], value["n"]) if "n" in value else (value["ts"] // 1_000 * 1_000, None)


def second_of(number: int) -> int:
    return 1_000_000 + number * 100_000


async def timers(story: Story) -> None:
    """Kill as soon as it is open again, and a little later, until all timers are over."""
    await story.is_open()
    await story.send("starts")
    await story.until("told", what_of, {(key, "single 0") for key in KEYS})
    for pause_s in (0.0, 0.3, 0.7, 0.1, 1.1):
        await asyncio.sleep(pause_s)
        story.die()
        await story.is_open()
    wanted = {(key, what) for key in KEYS for what in (f"single {SINGLE - 1}", f"link {CHAIN - 1}")}
    await story.until("told", what_of, wanted)
    story.die()


async def idle_advances(story: Story) -> None:
    """Each round sends one click a key, falls silent, and kills before, around and after the close; then the same click comes again."""
    for number, pauses_s in zip(range(ROUNDS), ((0.5, 2.0), (1.9, 0.1), (2.9, 0.0)), strict=True):
        await story.is_open()
        second = second_of(number)
        await story.send("clicks", ts=second + 400)
        for pause_s in pauses_s:
            await asyncio.sleep(pause_s)
            story.die()
        await story.until("counts", window_of, {(key, (second, 1)) for key in KEYS})
        story.die()
        await story.send("clicks", ts=second + 500)
        await story.until("late", window_of, {(key, (second, None)) for key in KEYS})
        story.die()
