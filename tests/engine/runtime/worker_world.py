"""A small world for tests of the shell: one memory broker, any number of workers on it, under virtual time.

The pipelines here number the records of each key: the outputs of a key must be 1, 2, 3, … without a hole and without a double,
whatever happens to the workers. That is exactly-once in a form that can be checked at a glance.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import msgspec

from engine import Context, Record, Sink, Stream, Timer, ValueState
from engine.records import OutputColumns, RecordBatch, TopicPartition
from engine.runtime.assignor import WorkerAddress
from engine.runtime.lifecycle import Phase
from engine.runtime.runner import Runner
from engine.runtime.shell import Limits
from engine.runtime.transport.memory import MemoryTransport
from engine.runtime.transport.memory_broker import MemoryBroker
from engine.runtime.transport.memory_connection import NO_FAULT, Fault, Request
from engine.testing.clock import LoopClock, virtual_loop
from engine.topics import TopicSpec
from engine.topology import Topology
from state.hashing import partition_of
from state.memory import MemoryStore
from state.store import Store

FAST = Limits(commit_interval_ms=200, retry_first_s=0.05, retry_max_s=1.0, close_timeout_s=5.0, grace_s=5.0)


class Click(msgspec.Struct, frozen=True):
    """One record of the input."""

    user: str
    page: str
    ts: int


class Numbering:
    """Numbers the records of each key."""

    count = ValueState(int, default=0)

    def on_record(self, record: Record[str, Click], ctx: Context) -> list[dict[str, Any]]:
        """Yield the record's number."""
        number = self.count.get() + 1
        self.count.set(number)
        return [{"key": ctx.key, "number": number}]


class Farewell:
    """Counts, and says the total a minute after the first record of a key, by event time."""

    count = ValueState(int, default=0)

    def on_record(self, record: Record[str, Click], ctx: Context) -> None:
        """Count, and wait."""
        self.count.set(self.count.get() + 1)
        if self.count.get() == 1:
            ctx.timers.event_time(record.timestamp_ms + 60_000)

    def on_timer(self, timer: Timer, ctx: Context) -> list[dict[str, Any]]:
        """Say the total, as one number."""
        return [{"key": ctx.key, "number": self.count.get()}]


def numbering(partitions: int = 2, *, repartition: bool = False, **options: Any) -> Topology:
    """Return an app that numbers clicks by user, or by page through a repartition topic."""
    topology = Topology("app", partitions=partitions, **options)
    clicks = topology.source("clicks", Click, key="user", time="ts")

    @topology.pipeline(clicks)
    def number(clicks: Stream[str, Click]) -> Sink:
        keyed = clicks.key_by("page") if repartition else clicks
        return keyed.process(Numbering).to("numbers")

    return topology


class Script:
    """Faults by number: the n-th request of a kind, counted from 1, of any client."""

    def __init__(self, plan: dict[tuple[Request, int], Fault]) -> None:
        self.plan = plan
        self.seen: defaultdict[str, int] = defaultdict(int)

    def on_request(self, request: Request, client_id: str) -> Fault:
        """Return the fault that the script has for this request."""
        self.seen[request] += 1
        return self.plan.get((request, self.seen[request]), NO_FAULT)


class Dead:
    """The line of a process that is gone: nothing gets through."""

    def on_request(self, request: Request, client_id: str) -> Fault:
        """Lose the request."""
        return Fault(lost="request")


class Worker:
    """One worker: its own disk, transport and runner."""

    def __init__(
        self, world: "World", name: str, *, disk: dict[int, MemoryStore], faults: Any, limits: Limits, standbys: int = 0, **options: Any
    ) -> None:
        self.name = name
        self.disk = disk
        self.open_store: Callable[[int], Store] = self._open_store
        transport = MemoryTransport(
            world.broker,
            group_id=world.plan.app_id,
            client_id=name,
            clock=world.clock,
            faults=faults,
            stored=lambda: list(disk),
            standbys=standbys,
            address=WorkerAddress(f"http://{name}:6066", name),
        )
        self.transport = transport
        self.runner = Runner(
            world.plan,
            transport,
            open_store=lambda number: self.open_store(number),
            clock=world.clock,
            limits=limits,
            create_sources=True,
            **options,
        )
        self.running = asyncio.create_task(self.runner.run(), name=f"worker {name}")

    def _open_store(self, number: int) -> MemoryStore:
        if number not in self.disk:
            self.disk[number] = MemoryStore()
        self.disk[number].reopen()
        return self.disk[number]

    async def until_running(self, *numbers: int) -> None:
        """Wait until exactly these tasks run."""
        await eventually(lambda: self.running_numbers() == sorted(numbers))

    def running_numbers(self) -> list[int]:
        """Return the numbers of the tasks that take input."""
        return sorted(number for number, task in self.runner.tasks.items() if task.phase is Phase.RUNNING)

    async def stop(self) -> None:
        """Shut down in order."""
        self.runner.stop()
        await self.running

    async def kill(self) -> None:
        """End it as a power failure would: nothing is committed, nothing said to the broker."""
        self.transport._connection.faults = Dead()
        self.running.cancel()
        for task in self.runner.tasks.values():
            if task.holder.running is not None:
                task.holder.running.cancel()
        await asyncio.wait([self.running])


class World:
    """One app's broker and workers. Make it within a virtual-time test."""

    def __init__(self, topology: Topology) -> None:
        self.plan = topology.plan()
        self.clock = LoopClock(virtual_loop())
        self.broker = MemoryBroker(self.clock)
        self._sent: defaultdict[str, int] = defaultdict(int)
        for spec in self.plan.topic_specs(create_sources=True):
            self.broker.ensure_topic(TopicSpec(spec.name, spec.partitions, spec.compacted, spec.retention_ms, True, spec.config))

    def worker(
        self, name: str = "w1", *, disk: dict[int, MemoryStore] | None = None, faults: Any = None, limits: Limits = FAST, **options: Any
    ) -> Worker:
        """Start a worker."""
        return Worker(self, name, disk={} if disk is None else disk, faults=faults, limits=limits, **options)

    def click(self, user: str, page: str = "p", *, ts: int | None = None, times: int = 1) -> None:
        """Send clicks of a user."""
        for _ in range(times):
            time_ms = self.clock.now_ms() if ts is None else ts
            value = msgspec.json.encode(Click(user, page, time_ms))
            partition = TopicPartition("clicks", self.partition(user))
            self.broker.produce({partition: OutputColumns([time_ms], [user.encode()], [value])})

    def partition(self, user: str) -> int:
        """Return the partition that has the clicks of a user."""
        return partition_of(user.encode(), self.plan.partitions)

    def read(self, topic: str) -> list[RecordBatch]:
        """Return what is committed in a topic, a batch a partition."""
        count = self.broker.partition_counts([topic])[topic]
        partitions = [TopicPartition(topic, number) for number in range(count)]
        return [self.broker.read(partition, self.broker.log(partition).start) for partition in partitions]

    def numbers(self) -> dict[str, list[int]]:
        """Return the numbers that came out, by key, in the order of the topic."""
        found: defaultdict[str, list[int]] = defaultdict(list)
        for batch in self.read("numbers"):
            for value in batch.values:
                assert value is not None
                row = json.loads(value)
                found[row["key"]].append(row["number"])
        return dict(found)

    async def until(self, **expected: int) -> None:
        """Wait until each key has been numbered up to a count, and check that no number is missing or doubled."""
        wanted = {key: list(range(1, count + 1)) for key, count in expected.items()}
        try:
            await eventually(lambda: self.numbers() == wanted)
        except TimeoutError:
            assert self.numbers() == wanted  # shows the difference


async def eventually(condition: Callable[[], bool], timeout_s: float = 120.0, step_s: float = 0.05) -> None:
    """Wait, in virtual time, until a condition holds; it is looked at every so often."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # whatever the test waits for
            await asyncio.sleep(step_s)
