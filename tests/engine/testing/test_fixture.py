"""The worker fixture: the genuine app under virtual time."""

from typing import Any

from engine import App, Sink, Stream, bounded
from engine.testing.fixture import WorkerUnderTest, worker_fixture
from tests.engine.runtime.worker_world import Click, Farewell, Numbering

pytest_plugins = ["engine.testing.fixture"]


def make_app(broker: str) -> App:
    app = App("clicks-app", broker=broker, partitions=2)
    clicks = app.source("clicks", Click, key="user", time="ts", watermark=bounded("0s", idle="30s"))

    @app.pipeline(clicks)
    def number(clicks: Stream[str, Click]) -> Sink:
        return clicks.process(Numbering).to("numbers")

    @app.pipeline(clicks)
    def total(clicks: Stream[str, Click]) -> Sink:
        return clicks.process(Farewell).to("totals")

    heard = app.heard = []  # type: ignore[attr-defined]

    @app.agent(app.topic("numbers"))
    async def listener(stream: Any) -> None:
        async for value in stream:
            heard.append(value)  # noqa: PERF401  # an agent, not a comprehension

    return app


module_app = make_app("memory://")
worker = worker_fixture(make_app)
same = worker_fixture(module_app)


async def test_fixture_sends_settles_and_reads(worker: WorkerUnderTest) -> None:
    for count in (1, 2):
        await worker.send("clicks", Click("ann", "home", count))
        assert [record.value for record in await worker.read("numbers")] == [{"key": "ann", "number": count}]
    assert await worker.read("numbers") == []


async def test_fixture_keys_times_and_partitions_are_those_of_the_topic(worker: WorkerUnderTest) -> None:
    await worker.send("clicks", {"user": "ann", "page": "home"}, at=5_000)
    (record,) = await worker.read("numbers")
    assert (record.key, record.timestamp_ms, record.topic) == ("ann", 5_000, "numbers")


async def test_fixture_advance_lets_idle_inputs_close_what_is_open(worker: WorkerUnderTest) -> None:
    await worker.send("clicks", Click("ann", "home", 0))
    assert await worker.read("totals") == []
    await worker.advance("10s")
    assert await worker.read("totals") == []
    await worker.advance("120s")
    assert [record.value for record in await worker.read("totals")] == [{"key": "ann", "number": 1}]


async def test_fixture_plain_agents_run_beside_pipelines(worker: WorkerUnderTest) -> None:
    await worker.send("clicks", Click("ann", "home", 1))
    await worker.advance("5s")
    assert worker.app.heard == [{"key": "ann", "number": 1}]  # type: ignore[attr-defined]


async def test_fixture_same_app_runs_again_first(same: WorkerUnderTest) -> None:
    await same.send("clicks", Click("ann", "home", 1))
    assert [record.value["number"] for record in await same.read("numbers")] == [1]


async def test_fixture_same_app_runs_again_second(same: WorkerUnderTest) -> None:
    await same.send("clicks", Click("ann", "home", 1))
    assert [record.value["number"] for record in await same.read("numbers")] == [1]
