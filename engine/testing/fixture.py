"""A pytest fixture for whole workers: the genuine app, its agents, runner and transactions, on a memory broker under virtual time.

    # conftest.py
    pytest_plugins = ["engine.testing.fixture"]

    # test_revenue.py
    from agents import app
    shop = worker_fixture(app)

    async def test_revenue_minute_is_over_comes_out(shop):
        await shop.send("orders", {"order_id": "o1", …, "ts": 1_000}, at=1_000)
        await shop.advance("90s")
        assert (await shop.read("revenue"))[0].value["orders"] == 1

Time stands still in a test but for `advance`, and for the little that workers need between a `send` and a `read` (`settle`). The
plugin runs coroutine tests that use such a fixture on the fixture's own event loop; other tests are left alone.

Limits: an `App` that was handed in is not started itself, since a Faust app starts only once: the fixture runs its pipelines in a
fresh one. Plain agents and timers run too if a function that makes the app is handed in.
"""

import asyncio
import inspect
import itertools
from collections.abc import Callable, Coroutine, Iterator
from datetime import datetime
from typing import Any

import pytest

from engine.durations import Duration
from engine.records import OutputColumns, Record, TopicPartition
from engine.runtime.app import App
from engine.runtime.clock import Clock
from engine.runtime.runner import Runner
from engine.runtime.transport.memory_broker import MemoryBroker, MemoryBrokers
from engine.testing.clock import LoopClock, VirtualTimeLoop
from engine.testing.wire import decode_value, key_decoder, to_wire
from state.memory import MemoryStore

START_MS = 1_735_689_600_000  # 2025-01-01T00:00:00Z, as the TestDriver's
_STEP = "50ms"
_SETTLE_STEPS_MAX = 600
_numbers = itertools.count(1)


class WorkerUnderTest:
    """One worker of an app, running.

    Attributes:
        app: The app that runs.
        broker: Its memory broker, to look at or to meddle with.
        run: Runs a coroutine on the worker's loop; set by the fixture, for the plugin.
    """

    run: Callable[[Coroutine[Any, Any, Any]], Any]

    def __init__(self, make_app: Callable[[str], App], loop: VirtualTimeLoop, now_ms: int = START_MS) -> None:
        self._url = f"memory://fixture-{next(_numbers)}"
        self._loop = loop
        self._clock: Clock = LoopClock(loop, now_ms)
        self._stores: dict[int, MemoryStore] = {}
        self._read: dict[TopicPartition, int] = {}
        self.broker: MemoryBroker = MemoryBrokers.open(self._url, self._clock)
        self.app = make_app(self._url)
        self.app.clock = self._clock
        self.app.open_store = self._open_store
        self.app.conf.web_enabled = False
        self.plan = self.app.topology.plan()

    # -- for tests

    async def send(
        self, topic: str, value: Any, *, key: Any = None, at: int | datetime | None = None, partition: int | None = None
    ) -> None:
        """Produce one record to a source topic; see `TestDriver.send` for the arguments."""
        record = to_wire(self.plan, topic, value, key=key, at=at, partition=partition, now_ms=self._clock.now_ms())
        columns = OutputColumns([record.timestamp_ms], [record.key], [record.value])
        self.broker.produce({TopicPartition(topic, record.partition): columns})

    async def advance(self, duration: Duration) -> None:
        """Let time pass: whatever is due until then happens, in order."""
        await self.settle()
        await self._loop.advance(duration)

    async def settle(self) -> None:
        """Let as much time pass as the worker needs to process and commit what it has been sent, at most 30 s."""
        for _ in range(_SETTLE_STEPS_MAX):
            await self._loop.advance(_STEP)
            if self._is_settled():
                return
        raise TimeoutError("the worker does not come to rest")

    async def read(self, topic: str) -> list[Record[Any, Any]]:
        """Return the committed records of a topic since the last read, by partition; values as JSON gives them."""
        await self.settle()
        decode_key = key_decoder(self.plan, topic)
        records = []
        for number in range(self.broker.partition_counts([topic]).get(topic, 0)):
            partition = TopicPartition(topic, number)
            batch = self.broker.read(partition, self._read.get(partition, 0))
            self._read[partition] = batch.next_offset
            columns = zip(batch.keys, batch.values, batch.timestamps, batch.offsets, batch.headers, strict=True)
            records += [
                Record(None if key is None else decode_key(key), decode_value(value), timestamp_ms, topic, number, offset, tuple(headers))
                for key, value, timestamp_ms, offset, headers in columns
            ]
        return records

    # -- life

    async def start(self) -> None:
        """Start the app and wait until all its tasks run."""
        self._loop.held = False
        await self.app.start()
        async with asyncio.timeout(60):
            while not self._is_settled():  # noqa: ASYNC110  # phases notify nobody
                await asyncio.sleep(0.05)
        self._loop.held = True

    async def stop(self) -> None:
        """Shut the app down."""
        self._loop.held = False
        await self.app.stop()
        MemoryBrokers.drop(self._url)

    @property
    def runner(self) -> Runner | None:
        """The app's runner once it has started."""
        return self.app.runner

    def _is_settled(self) -> bool:
        runner = self.runner
        if runner is None or len(runner.tasks) < self.plan.partitions or not all(task.is_drained() for task in runner.tasks.values()):
            return runner is not None and runner.is_stopping
        return all(
            position >= self.broker.log(partition).last_stable_offset
            for task in runner.tasks.values()
            for partition, position in task.positions.items()
        )

    def _open_store(self, number: int) -> MemoryStore:
        store = self._stores.setdefault(number, MemoryStore())
        store.reopen()
        return store


def worker_fixture(app: App | Callable[[str], App]) -> Any:
    """Return a pytest fixture that is a running worker.

    Args:
        app: An app, whose pipelines are run; or a function that is given the broker's address and returns a fresh app.
    """

    @pytest.fixture
    def worker() -> Iterator[WorkerUnderTest]:
        with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(held=True)) as runner:
            loop = runner.get_loop()
            assert isinstance(loop, VirtualTimeLoop)
            under_test = runner.run(_started(app, loop))
            under_test.run = runner.run
            yield under_test
            runner.run(under_test.stop())

    return worker


async def _started(app: App | Callable[[str], App], loop: VirtualTimeLoop) -> WorkerUnderTest:
    under_test = WorkerUnderTest(app if not isinstance(app, App) else _like(app), loop)
    await under_test.start()
    return under_test


def _like(app: App) -> Callable[[str], App]:
    def make(broker: str) -> App:
        options = app.options
        fresh = App(
            options.app_id,
            broker=broker,
            state_dir=options.state_dir,
            partitions=options.partitions,
            commit_interval=f"{options.commit_interval_ms}ms",
            checkpoint_interval=f"{options.checkpoint_interval_ms}ms",
            on_error=options.on_error,
            max_skew=None if options.max_skew_ms is None else f"{options.max_skew_ms}ms",
            grace=f"{round(options.grace_s * 1_000)}ms",
        )
        fresh.adopt(app.topology)
        return fresh

    return make


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test on the loop of the worker that it uses."""
    test = inspect.unwrap(pyfuncitem.obj)  # another plugin may have made it synchronous, for a loop of its own
    if not inspect.iscoroutinefunction(test):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    worker = next((value for value in arguments.values() if isinstance(value, WorkerUnderTest)), None)
    if worker is None:
        return None
    worker.run(test(**arguments))
    return True
