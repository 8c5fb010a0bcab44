"""A broker that forgets the ends of a task's transaction: the task ends it as was decided, and its results stay exact."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError, UnavailableError
from engine.records import OutputColumns, TopicPartition
from engine.runtime.lifecycle import Phase
from engine.runtime.runner import Runner
from engine.runtime.shell import Limits
from engine.runtime.stores import StateFolder
from engine.runtime.transport.kafka import KafkaTransport
from engine.runtime.transport.open_transactions import Decision, OpenTransaction
from tests.engine.runtime.hanging import SETTINGS, note_end, write_late
from tests.engine.runtime.kafka_harness import PATIENCE_S, connected, read_to_end, settings_of, unique
from tests.engine.runtime.test_cli_run import streamforge
from tests.engine.runtime.test_worker_kafka_fencing import numbering
from tests.kafka_server import KafkaServer

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

_LIMITS = Limits(commit_interval_ms=100, retry_first_s=0.1)


@pytest.fixture(scope="module")
def forgetful() -> Iterator[KafkaServer]:
    """A broker that lets producers write outside of their transactions."""
    with KafkaServer(SETTINGS) as server:
        yield server


class ForgetfulTransport(KafkaTransport):
    """Loses the end of the next transaction with results, in the partitions of one topic; the producer hears nothing of it.

    Attributes:
        forget: The topic, and what was decided; None once it has happened.
        may_end: Whether this worker has the right to end transactions.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.forget: tuple[str, Decision] | None = None
        self.may_end = True

    async def open_producer(self, transactional_id: str) -> Any:
        producer = await super().open_producer(transactional_id)
        commit = producer.commit

        async def commit_or_forget(
            outputs: Mapping[TopicPartition, OutputColumns], offsets: Mapping[TopicPartition, int]
        ) -> dict[TopicPartition, int]:
            if self.forget is None or not any(partition.topic.endswith("-numbers") and len(rows) for partition, rows in outputs.items()):
                return await commit(outputs, offsets)
            (topic, decided), self.forget = self.forget, None
            lost = {partition: rows for partition, rows in outputs.items() if partition.topic == topic and len(rows)}
            assert lost, f"nothing was to be written to {topic}"
            if decided == "commit":
                await commit({partition: rows for partition, rows in outputs.items() if partition not in lost}, offsets)
            for partition, rows in lost.items():
                await write_late(self, producer, partition, rows)
                await note_end(self._settings, producer, partition, decided, time.time_ns() // 1_000_000 + 1)
            raise UnavailableError("the broker was killed")

        producer.commit = commit_or_forget  # type: ignore[method-assign]
        return producer

    async def end_transaction(self, transaction: OpenTransaction, decided: Decision) -> None:
        if not self.may_end:
            raise ConfigError("Kafka refused: ClusterAuthorizationFailedError")
        await super().end_transaction(transaction, decided)


class Numbered:
    """A running app that numbers clicks, on a transport that can be told to forget."""

    def __init__(self, server: KafkaServer, folder: Path) -> None:
        self.name = unique("numbered")
        self.plan = numbering(self.name).plan()
        self.clicks, self.numbers = TopicPartition(f"{self.name}-clicks", 0), TopicPartition(f"{self.name}-numbers", 0)
        self.transport = ForgetfulTransport(settings_of(server, group=self.name))
        self.runner = Runner(self.plan, self.transport, open_store=StateFolder(folder).open, limits=_LIMITS, create_sources=True)
        self.reader: KafkaTransport
        self.server = server

    async def click(self, times: int = 1) -> None:
        rows = OutputColumns([1] * times, [b"ann"] * times, [b'{"user":"ann"}'] * times)
        await self.reader.send({self.clicks: rows})

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():  # noqa: ASYNC110 - a real broker takes real time
            await asyncio.sleep(0.05)

    async def until_seen(self, count: int) -> None:
        """Wait until so many results can be read, and check that they are 1, 2, 3, …"""
        found: list[int] = []
        while len(found) < count:
            found = [json.loads(value or b"") for batch in await read_to_end(self.reader, self.numbers) for value in batch.values]
            await asyncio.sleep(0.05)
        assert found == list(range(1, count + 1))


@asynccontextmanager
async def numbered(server: KafkaServer, folder: Path) -> AsyncIterator[Numbered]:
    app = Numbered(server, folder)
    running = asyncio.create_task(app.runner.run())
    async with connected(settings_of(server)) as app.reader, asyncio.timeout(4 * PATIENCE_S):
        try:
            await app.until(lambda: any(task.phase is Phase.RUNNING for task in app.runner.tasks.values()))
            await app.click(3)
            await app.until_seen(3)
            yield app
        finally:
            app.runner.stop()
            await running


@pytest.mark.parametrize(
    ("lost_in", "decided"), [("changelog", "commit"), ("changelog", "abort"), ("numbers", "commit"), ("numbers", "abort")]
)
async def test_task_ends_what_its_broker_forgot_as_was_decided_and_goes_on_exactly(
    forgetful: KafkaServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, lost_in: str, decided: Decision
) -> None:
    caplog.set_level(logging.WARNING)
    async with numbered(forgetful, tmp_path) as app:
        app.transport.forget = (app.plan.changelog_topic if lost_in == "changelog" else app.numbers.topic, decided)
        await app.click(2)
        await app.until_seen(5)
        await app.click(2)
        await app.until_seen(7)
        assert app.transport.forget is None
        assert f"hanging, its end was decided: {decided}; it is ended" in caplog.text
        assert app.runner.metrics.total("opens") == 2


async def test_task_without_the_right_waits_and_says_so_until_a_person_ends_it(
    forgetful: KafkaServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with numbered(forgetful, tmp_path) as app:
        app.transport.may_end = False
        app.transport.forget = (app.plan.changelog_topic, "commit")
        await app.click(2)
        await app.until(lambda: "could not be ended: Kafka refused: ClusterAuthorizationFailedError" in caplog.text)
        place = f"{app.plan.changelog_topic}-0@"
        assert f"A person with the right to alter the cluster can end it: streamforge transactions end {place}" in caplog.text
        assert app.runner.tasks[0].phase is not Phase.RUNNING
        options = ["--topic", app.plan.changelog_topic, "--broker", f"kafka://{forgetful.bootstrap}"]
        ended = await asyncio.to_thread(streamforge, "transactions", "end", "--all", *options)
        assert ended.stdout.startswith(place) and ended.stdout.endswith("is ended: commit\n"), ended.output
        await app.until_seen(5)
        await app.click(1)
        await app.until_seen(6)
