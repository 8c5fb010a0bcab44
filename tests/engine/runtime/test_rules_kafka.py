"""Live rules on a real Kafka: put, changed and removed under load by the command line, over a kill -9, on every partition."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.records import OutputColumns, TopicPartition
from engine.runtime.transport.kafka import KafkaTransport
from engine.testing.driver import TestDriver
from engine.topics import TopicSpec
from state.hashing import partition_of
from tests.engine.cep.rules_world import rule, stage
from tests.engine.runtime.kafka_harness import connected, settings_of, unique
from tests.engine.runtime.rules_program import Event, make_app
from tests.kafka_server import KafkaServer
from tests.ports import free_port

pytestmark = pytest.mark.kafka

PROGRAM = Path(__file__).with_name("rules_program.py")
PARTITIONS = 4
USERS = [f"user-{number}" for number in range(24)]
PAIR = (stage("a", "kind = 'a'"), stage("b", "kind = 'b'"))
OUT = {"a": "a.ts", "b": "b.ts"}
Alert = tuple[str, int, Any]


def events(first: int, last: int) -> list[Event]:
    """Return a record a second of each user, a and b in turn."""
    return [Event(user, "ab"[second % 2], second, second * 1_000) for second in range(first, last) for user in USERS]


class World:
    """An app on Kafka: its worker process, its topics, the command line."""

    def __init__(self, folder: Path, name: str, server: KafkaServer, transport: KafkaTransport) -> None:
        self.folder, self.name, self.transport = folder, name, transport
        self.port = free_port()
        self.environ = {
            **os.environ,
            "RULES_APP": name,
            "STREAMFORGE_BROKER": f"kafka://{server.bootstrap}",
            "STREAMFORGE_STATE_DIR": str(folder / "state"),
            "PYTHONPATH": str(Path(__file__).parents[3]),
        }
        self.worker: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the worker."""
        with (self.folder / "worker.log").open("ab") as log:
            command = [sys.executable, "-m", "engine", "worker", str(PROGRAM), "--web-port", str(self.port)]
            self.worker = subprocess.Popen(command, env=self.environ, stdout=log, stderr=log, cwd=self.folder)

    def end(self, number: int) -> None:
        """End the worker by a signal."""
        if self.worker is not None:
            self.worker.send_signal(number)
            self.worker.wait(30)
            self.worker = None

    async def command(self, *args: str, given: bytes = b"") -> tuple[int, str]:
        """Run the command line; return its status and what it said."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "engine", *args, env=self.environ, cwd=self.folder,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await asyncio.wait_for(process.communicate(given), 60)
        return process.returncode or 0, said.decode()

    async def rules(self, *args: str, given: bytes = b"") -> str:
        """Run `cep rules`, which must succeed."""
        status, said = await self.command("cep", "rules", *args, "-A", str(PROGRAM), given=given)
        assert status == 0, said
        return said

    async def send(self, records: Sequence[Event]) -> None:
        """Send records, placed by user."""
        columns: dict[TopicPartition, OutputColumns] = defaultdict(OutputColumns)
        for record in records:
            key = record.user.encode()
            partition = TopicPartition(f"{self.name}-events", partition_of(key, PARTITIONS))
            columns[partition].append(record.ts, key, msgspec.json.encode(record))
        await self.transport.send(dict(columns))

    async def alerts(self) -> dict[str, list[Alert]]:
        """Return the committed alerts of each user so far, in order."""
        found: dict[str, list[Alert]] = defaultdict(list)
        partitions = [TopicPartition(f"{self.name}-alerts", number) for number in range(PARTITIONS)]
        if partitions[0].topic not in await self.transport.topics():
            return {}
        for partition, end in (await self.transport.end_offsets(partitions)).items():
            reader = await self.transport.open_reader(partition, 0)
            try:
                while reader.position < end:
                    batch = await reader.read(1.0)
                    for key, raw in zip(batch.keys, batch.values, strict=True) if batch is not None else ():
                        value = json.loads(raw or b"")
                        found[(key or b"").decode()].append((value["rule"], value["version"], value["fields"]))
            finally:
                await reader.close()
        return dict(found)

    async def alerts_of(self, number: int) -> dict[str, list[Alert]]:
        """Return the alerts once there are so many (or 60 s have passed)."""
        found: dict[str, list[Alert]] = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(60):
                while number_of(found := await self.alerts()) < number:  # noqa: ASYNC110  # a real broker
                    await asyncio.sleep(0.5)
        return found


def undisturbed(given: Sequence[bytes], records: Sequence[Event]) -> dict[str, list[Alert]]:
    """Return the alerts of each user when nothing goes wrong: the same app, in one process."""
    app = make_app("undisturbed")
    found: dict[str, list[Alert]] = defaultdict(list)
    with TestDriver(app, partitions=PARTITIONS) as driver:
        for raw in given:
            driver.send("undisturbed-rules", raw, key=json.loads(raw)["id"])
        for record in records:
            driver.send("undisturbed-events", record)
        for alert in driver.read("undisturbed-alerts"):
            found[alert.key].append((alert.value["rule"], alert.value["version"], alert.value["fields"]))
    return dict(found)


def number_of(found: dict[str, list[Alert]]) -> int:
    return sum(map(len, found.values()))


@pytest.fixture
def name() -> str:
    return unique("rules")


async def test_rules_changed_under_load_over_a_kill_give_the_alerts_of_an_undisturbed_run(
    kafka: KafkaServer, tmp_path: Path, name: str
) -> None:
    given = [
        rule("pair", 1, *PAIR, within="10m", output=OUT, skip="past_last"),
        rule("pair", 2, *PAIR, within="10m", output={"sum": "a.cents + b.cents"}, skip="past_last", from_ms=201_000),
        msgspec.json.encode({"id": "rows", "version": 1, "from_ms": 300_000, "match_recognize":
            "MEASURES COUNT(*) AS n, FIRST(ts) AS first PATTERN (A B A B) WITHIN INTERVAL '1' MINUTE "
            "DEFINE A AS kind = 'a', B AS kind = 'b'"}),
        msgspec.json.encode({"id": "pair", "version": 3, "enabled": False, "from_ms": 401_000}),
    ]  # fmt: skip
    records = events(0, 600)
    expected = undisturbed(given, records)
    assert {alert[:2] for alerts in expected.values() for alert in alerts} == {("pair", 1), ("pair", 2), ("rows", 1)}
    async with connected(settings_of(kafka)) as transport:
        world = World(tmp_path, name, kafka, transport)
        await transport.ensure_topics([TopicSpec(f"{name}-events", PARTITIONS, retention_ms=-1)])
        await world.rules("put", "-", given=given[0])
        try:
            world.start()
            per_second = len(USERS)
            for first, raw in ((0, None), (100, given[1]), (200, given[2]), (300, given[3]), (400, None), (500, None)):
                if raw is not None:
                    await world.rules("put", "-", given=raw)
                for start in range(first, first + 100, 20):
                    await world.send(records[start * per_second : (start + 20) * per_second])
                    await asyncio.sleep(0.1)
                if first in (100, 300, 400):
                    world.end(signal.SIGKILL)
                    world.start()
            found = await world.alerts_of(number_of(expected))
            assert found == expected
            status, said = await world.command("cep", "explain", "--pipeline", "alerts", "--key", USERS[0], "--worker",
                                               f"http://127.0.0.1:{world.port}")  # fmt: skip
            assert status == 0, said
            assert "rows version 1 matched at" in said
        finally:
            world.end(signal.SIGTERM)


@pytest.mark.slow
async def test_rules_without_a_moment_reach_every_partition_and_leave_it(kafka: KafkaServer, tmp_path: Path, name: str) -> None:
    async with connected(settings_of(kafka)) as transport:
        world = World(tmp_path, name, kafka, transport)
        await transport.ensure_topics([TopicSpec(f"{name}-events", PARTITIONS, retention_ms=-1)])
        second = 0

        async def until(condition: Callable[[list[Alert], int], bool]) -> None:
            """Send on, two seconds of event time a round, until the alerts of every user are as they must be."""
            nonlocal second
            async with asyncio.timeout(60):
                while True:
                    await world.send(events(second, second + 2))
                    second += 2
                    await asyncio.sleep(0.3)
                    found = await world.alerts()
                    if len(found) == len(USERS) and all(condition(alerts, (second - 12) * 1_000) for alerts in found.values()):
                        return

        try:
            world.start()
            await world.rules("put", "-", given=rule("pair", 1, *PAIR, output=OUT, skip="past_last"))
            await until(lambda alerts, since_ms: any(alert[1] == 1 for alert in alerts))
            await world.rules("put", "-", given=rule("pair", 2, *PAIR, output=OUT, skip="past_last"))
            await until(lambda alerts, since_ms: any(alert[1] == 2 for alert in alerts))
            status, said = await world.command("cep", "rules", "put", "-", "-A", str(PROGRAM), given=rule("pair", 2, stage("a")))
            assert status == 1 and "needs a higher one" in said
            status, said = await world.command("cep", "rules", "put", "-", "-A", str(PROGRAM), given=rule("new", 1, stage("a", "nope = 1")))
            assert status == 1 and "no field 'nope'" in said
            assert [one["version"] for one in json.loads(await world.rules("list", "--json"))] == [2]
            await world.rules("remove", "pair")
            assert await world.rules("list") == "no rules\n"
            await until(lambda alerts, since_ms: alerts[-1][2]["b"] < since_ms)
        finally:
            world.end(signal.SIGTERM)
