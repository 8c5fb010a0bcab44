"""`App`: declarations, refusals, and whole workers beside plain Faust, on the memory broker."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from engine import App, ConfigError, Sink, Stream, WatermarkGenerator, bounded, monotonic
from engine.durations import Duration
from engine.records import OutputColumns, TopicPartition
from engine.runtime.transport.memory_broker import MemoryBrokers
from engine.testing import TestDriver
from engine.testing.clock import LoopClock, virtual_loop, virtual_time
from state.memory import MemoryStore
from tests.engine.runtime.worker_world import Click, Numbering, eventually
from tests.ports import free_port


class Restless(WatermarkGenerator):
    """A watermark that stands still when nothing comes."""

    idle: ClassVar[Duration | None] = None

    def on_record(self, timestamp_ms: int) -> int | None:
        return timestamp_ms


PROGRAM = '''
import sys
from engine import App, Struct
class Click(Struct):
    user: str
app = App("program", broker="memory://", state_dir=sys.path[0] + "/state", partitions=2, web_enabled=False)
clicks = app.source("clicks", Click, key="user")
@app.pipeline(clicks)
def echo(clicks):
    """Echo the clicks."""
    return clicks.to("echo")
@app.task
async def feed():
    await app.topic("clicks", value_type=Click).send(key="ann", value=Click("ann"))
@app.agent(app.topic("echo", value_type=Click))
async def heard(stream):
    async for click in stream:
        print("HEARD", click.user, flush=True)
@app.command()
async def hello():
    """Say hello."""
    print("hello from a command")
if __name__ == "__main__":
    app.main()
'''


def make_app(name: str = "app", **options: Any) -> App:
    app = App(name, broker="memory://test-app", web_enabled=False, **{"partitions": 2, **options})
    app.open_store = lambda _: MemoryStore()
    return app


def numbering(app: App) -> None:
    clicks = app.source("clicks", Click, key="user", time="ts")

    @app.pipeline(clicks)
    def number(clicks: Stream[str, Click]) -> Sink:
        """Number the clicks of a user."""
        return clicks.process(Numbering).to("numbers")


# -- declarations


def test_app_unknown_option_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="did you mean checkpoint_interval="):
        App("shop", broker="memory://", checkpoint_intervall="1s")


def test_app_faust_option_reaches_faust() -> None:
    assert make_app(web_port=7_123, stream_buffer_maxsize=5).conf.web_port == 7_123


def test_app_web_server_listens_on_this_machine_only_unless_told() -> None:
    assert make_app().conf.web_bind == "127.0.0.1"
    assert make_app(web_bind="0.0.0.0").conf.web_bind == "0.0.0.0"


def test_app_environment_beats_arguments_for_faust_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFORGE_PARTITIONS", "5")
    monkeypatch.setenv("STREAMFORGE_WEB_PORT", "7999")
    monkeypatch.setenv("BROKER_URL", "kafka://elsewhere")
    app = make_app(partitions=3, web_port=1)
    assert (app.topology.partitions, app.conf.web_port, app.conf.broker[0].scheme) == (5, 7_999, "memory")


@pytest.mark.parametrize("name", ["Table", "GlobalTable", "SetTable", "SetGlobalTable"])
def test_app_tables_of_faust_are_refused_with_their_replacement(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"app\.{name}\('counts'\) of Faust is not used here: use "):
        getattr(make_app(), name)("counts")


def test_app_leader_work_is_refused() -> None:
    app = make_app()
    with pytest.raises(ConfigError, match="on_leader=True"):
        app.timer(1.0, on_leader=True)
    with pytest.raises(ConfigError, match="on_leader=True"):
        app.task(on_leader=True)
    with pytest.raises(ConfigError, match="on_leader=True"):
        app.crontab("* * * * *", on_leader=True)


def test_app_pipeline_is_a_genuine_agent_that_cannot_be_asked() -> None:
    app = make_app()
    numbering(app)
    agent = app.agents["number"]
    assert type(agent).__mro__[0].__module__ == "faust.agents.agent"
    assert agent.help == "Number the clicks of a user."
    with pytest.raises(ConfigError, match="cannot be asked"):
        app.topology.pipelines["number"].ask("x")


def test_app_agent_and_pipeline_of_one_name_are_refused() -> None:
    app = make_app()
    numbering(app)
    with pytest.raises(ConfigError, match="agent 'number'"):
        app.agent(app.topic("other"), name="number")
    clicks = app.topology.sources["clicks"]
    app.agent(app.topic("other"), name="taken")(_idle)
    with pytest.raises(ConfigError, match="pipeline 'taken'"):
        app.pipeline(clicks, name="taken")(lambda clicks: clicks.to("out"))


async def _idle(stream: Any) -> None:
    async for _ in stream:
        pass


def test_app_is_what_the_test_driver_takes() -> None:
    app = make_app()
    numbering(app)
    with TestDriver(app) as driver:
        driver.send("clicks", Click("ann", "home", 1))
        assert [record.value["number"] for record in driver.read("numbers")] == [1]


def test_app_state_folder_of_the_command_line_beats_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app(state_dir="var/one")
    assert app.state_dir == Path("var/one")
    monkeypatch.setenv("F_DATADIR", "{conf.name}-data")
    assert app.state_dir == Path("var/one")
    monkeypatch.setenv("F_DATADIR", "/two")
    assert app.state_dir == Path("/two")


# -- running


class Running:
    """An app that runs on the virtual loop."""

    def __init__(self, app: App) -> None:
        app.clock = LoopClock(virtual_loop())
        self.app = app
        self.broker = MemoryBrokers.open("memory://test-app", app.clock)

    async def __aenter__(self) -> "Running":
        await self.app.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.app.stop()

    def read(self, topic: str) -> list[bytes | None]:
        count = self.broker.partition_counts([topic]).get(topic, 0)
        return [value for number in range(count) for value in self.broker.read(TopicPartition(topic, number), 0).values]


@pytest.fixture(autouse=True)
def _fresh_broker() -> Any:
    MemoryBrokers.drop("memory://test-app")
    yield
    MemoryBrokers.drop("memory://test-app")


@virtual_time
async def test_app_topic_send_feeds_a_pipeline() -> None:
    app = make_app()
    numbering(app)
    async with Running(app) as running:
        for _ in range(3):
            await app.topic("clicks", value_type=Click).send(key="ann", value=Click("ann", "home", 1))
        await eventually(lambda: len(running.read("numbers")) == 3)
    assert running.read("numbers") == [b'{"key":"ann","number":%d}' % number for number in (1, 2, 3)]


@virtual_time
async def test_app_plain_agent_hears_every_record_of_a_topic_in_its_own_group() -> None:
    app, heard = make_app(), []

    @app.agent(app.topic("clicks", value_type=Click))
    async def plain(stream: Any) -> None:
        async for click in stream:
            heard.append(click.page)  # noqa: PERF401  # an agent, not a comprehension

    numbering(app)
    async with Running(app) as running:
        await eventually(lambda: app.consumer.assignment() != set())
        for number in range(20):
            await app.topic("clicks", value_type=Click).send(key=f"user{number}", value=Click(f"user{number}", f"page{number}", 1))
        await eventually(lambda: len(heard) == 20)
        await eventually(lambda: len(running.read("numbers")) == 20)
        await asyncio.sleep(10)
    assert sorted(heard) == sorted(f"page{number}" for number in range(20))
    offsets = running.broker.group("app-agents").offsets
    assert sum(offsets.values()) == 20
    assert sum(running.broker.group("app").offsets.values()) == 20


@virtual_time
async def test_app_plain_agent_goes_on_where_its_group_has_committed() -> None:
    heard: list[str] = []

    def listening() -> App:
        app = make_app()

        @app.agent(app.topic("words", value_type=str))
        async def plain(stream: Any) -> None:
            async for word in stream:
                heard.append(word)  # noqa: PERF401

        return app

    first = listening()
    async with Running(first):
        await first.topic("words").send(key="k", value="one")
        await eventually(lambda: heard == ["one"])
        await asyncio.sleep(10)
    second = listening()
    async with Running(second):
        await second.topic("words").send(key="k", value="two")
        await eventually(lambda: "two" in heard)
        await asyncio.sleep(10)
    assert heard == ["one", "two"]


@virtual_time
async def test_app_plain_agent_moves_when_a_second_worker_joins() -> None:
    heard: list[str] = []

    def listening() -> App:
        app = make_app()

        @app.agent(app.topic("words", value_type=str))
        async def plain(stream: Any) -> None:
            async for word in stream:
                heard.append(word)  # noqa: PERF401

        return app

    first, second = listening(), listening()
    async with Running(first):
        await eventually(lambda: len(first.consumer.assignment()) == 2)
        async with Running(second):
            await eventually(lambda: len(first.consumer.assignment()) == len(second.consumer.assignment()) == 1)
            for number in range(10):
                await first.topic("words").send(key=f"k{number}", value=f"w{number}")
            await eventually(lambda: len(heard) >= 10)
        await eventually(lambda: len(first.consumer.assignment()) == 2)
        await first.topic("words").send(key="k", value="last")
        await eventually(lambda: "last" in heard)
    assert set(heard) == {f"w{number}" for number in range(10)} | {"last"}


@virtual_time
async def test_app_send_to_a_topic_that_is_missing_makes_it_in_memory() -> None:
    app = make_app()
    async with Running(app) as running:
        await app.topic("new").send(value=b"x")
        assert running.broker.partition_counts(["new"]) == {"new": 2}


@virtual_time
async def test_app_timers_and_tasks_run_beside_pipelines() -> None:
    app, ran = make_app(), []
    numbering(app)

    @app.timer(1.0)
    async def tick() -> None:
        ran.append("tick")

    @app.task
    async def once() -> None:
        ran.append("once")

    async with Running(app):
        await eventually(lambda: ran.count("tick") >= 2)
    assert ran.count("once") == 1


@virtual_time
async def test_app_user_error_under_fail_crashes_the_app() -> None:
    app = make_app(on_error="fail")
    numbering(app)
    async with Running(app) as running:
        await eventually(lambda: app.runner is not None and len(app.runner.tasks) == 2)
        running.broker.produce({TopicPartition("clicks", 0): OutputColumns([1], [b"k"], [b"not json"])})
        await eventually(lambda: app.crashed)


# -- the command line


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def environment(program: Path) -> dict[str, str]:
    root = Path(__file__).parents[3]
    return {**os.environ, "PYTHONPATH": f"{program.parent}:{root}:{os.environ.get('PYTHONPATH', '')}"}


@pytest.mark.thorough
def test_app_main_worker_on_sigterm_commits_and_exits_0(program: Path) -> None:
    worker = subprocess.Popen(
        [sys.executable, program, "worker", "-l", "info", "--web-port", str(free_port())],
        env=environment(program), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=program.parent,
    )  # fmt: skip
    assert worker.stdout is not None
    seen = ""
    for line in worker.stdout:
        seen += line
        if "ann" in line:
            break
    assert "HEARD" in seen and "ann" in seen, seen
    worker.send_signal(signal.SIGTERM)
    rest, _ = worker.communicate(timeout=30)
    assert worker.returncode == 0, rest
    assert sorted(path.name for path in (program.parent / "state" / "program").iterdir()) == ["0", "1"]


@pytest.mark.thorough
def test_app_commands_of_faust_and_of_the_app_work(program: Path) -> None:
    def run(*arguments: str, app: str = "program") -> str:
        command = [sys.executable, "-m", "faust", "-A", app, *arguments]
        done = subprocess.run(
            command, env=environment(program), capture_output=True, text=True, cwd=program.parent, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    state = program.parent / "state" / "program" / "0"
    state.mkdir(parents=True)
    assert "hello from a command" in run("hello")
    assert "hello from a command" in run("hello", app="program.py"), "a file may be named instead of a module"
    assert "hello from a command" in run("hello", app="program.py:app")
    assert "Deleted" in run("reset")
    assert not state.exists()
    other = program.parent / "elsewhere" / "program" / "1"
    other.mkdir(parents=True)
    assert "elsewhere" in run("--datadir", str(program.parent / "elsewhere"), "reset")
    assert not other.exists()


@pytest.mark.parametrize("watermark", [bounded("5s", idle=None), monotonic(idle=None), Restless])
@pytest.mark.parametrize("declare", ["source", "table"])
def test_app_source_that_never_becomes_idle_is_refused_where_others_would_wait_for_it(declare: str, watermark: Any) -> None:
    shop = App("shop", broker="memory://", max_skew="10m")
    with pytest.raises(ConfigError, match=f"app 'shop', {declare} 'clicks': idle=None does not go together with max_skew=600000 ms"):
        getattr(shop, declare)("clicks", Click, key="user", watermark=watermark)
    getattr(App("shop", broker="memory://"), declare)("clicks", Click, key="user", watermark=watermark)
    getattr(shop, declare)("clicks", Click, key="user", watermark=bounded("5s"))
