"""Inputs that meet are taken in the order of event time, whatever came first over the network, and nobody waits for ever."""

import asyncio
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from engine import Sink, Stream, Table, bounded
from engine.records import OutputColumns, RecordBatch, TopicPartition
from engine.runtime.intake import Intake
from engine.runtime.merging import WAIT_S, Merging, meeting_inputs
from engine.runtime.metrics import TaskMetrics
from engine.runtime.transport.protocol import FetchState
from engine.task import Task
from engine.testing.clock import virtual_time
from engine.topology import Topology
from state.memory import MemoryStore
from tests.effort import examples
from tests.engine.runtime.worker_world import World, eventually


class Tick(Struct, frozen=True):
    """A record of either side."""

    number: int
    ts: int


def lookups(idle: Any = "1m") -> Topology:
    """Return an app in which orders look into prices: what comes out tells what was taken first."""
    app = Topology("app", partitions=1)
    prices = app.table("prices", Tick, time="ts", watermark=bounded("0s", idle=idle))
    orders = app.source("orders", Tick, time="ts", watermark=bounded("0s", idle=idle))

    @app.pipeline(prices, orders)
    def work(prices: Table[str, Tick], orders: Stream[str, Tick]) -> Sink:
        return orders.lookup(prices, how="left").map(lambda pair: [pair[0].ts, None if pair[1] is None else pair[1].ts]).to("out")

    return app


def send(world: World, topic: str, times: Any) -> None:
    values: list[bytes | None] = [json.dumps({"number": 0, "ts": ts}).encode() for ts in times]
    world.broker.produce({TopicPartition(topic, 0): OutputColumns([1] * len(values), [b"k"] * len(values), values)})


def out(world: World) -> list[list[int | None]]:
    return [json.loads(value or b"") for batch in world.read("out") for value in batch.values]


def of_then(prices: Any, orders: Any) -> list[list[int | None]]:
    """Return each order with the latest price before it, one by one."""
    return [[ts, max((price for price in prices if price < ts), default=None)] for ts in orders]


# -- whole tasks


@virtual_time
async def test_merging_backlog_is_read_as_it_came_about() -> None:
    world = World(lookups())
    prices, orders = range(0, 2_000, 20), range(5, 2_005, 10)
    send(world, "orders", orders)
    send(world, "prices", prices)
    worker = world.worker()
    await eventually(lambda: len(out(world)) == len(orders))
    assert out(world) == of_then(prices, orders)
    await worker.stop()


@virtual_time
async def test_merging_long_backlog_is_in_order_to_within_some_hundred_records() -> None:
    world = World(lookups())
    orders = range(5, 20_005, 10)
    send(world, "orders", orders)
    send(world, "prices", range(0, 20_000, 10))
    worker = world.worker()
    await eventually(lambda: worker.runner.metrics.total("output_records") == len(orders))
    found = out(world)
    assert [ts for ts, _ in found] == list(orders)
    assert max(abs(ts - (price or 0)) for ts, price in found if ts is not None) <= 10 * 512
    await worker.stop()


@virtual_time
async def test_merging_quiet_side_that_has_been_read_to_its_end_holds_nobody_up() -> None:
    world = World(lookups(idle=None))
    worker = world.worker()
    send(world, "prices", [0])
    await eventually(lambda: worker.runner.metrics.total("records") == 1)
    begun_s = world.clock.monotonic_s()
    send(world, "orders", range(10, 500, 10))
    await eventually(lambda: len(out(world)) == 49)
    assert world.clock.monotonic_s() - begun_s < 0.5
    await worker.stop()


# -- the decision itself


class Fetched:
    """The part of a transport that says how far a partition has been fetched."""

    def __init__(self) -> None:
        self.ends: dict[str, int | None] = {"prices": 0, "orders": 0}

    def fetch_state(self, partition: TopicPartition) -> FetchState | None:
        end = self.ends[partition.topic]
        return None if end is None else FetchState(0, end, 0.0)

    def seek(self, *_: Any) -> None: ...
    def pause(self, *_: Any) -> None: ...
    def resume(self, *_: Any) -> None: ...


class Queue:
    """A task of `lookups`, its intake, and what is taken."""

    def __init__(self) -> None:
        plan = lookups().plan()
        self.task = Task(plan, 0, MemoryStore(), now_ms=0)
        self.fetched = Fetched()
        inputs = [TopicPartition(topic, 0) for topic in plan.input_topics]
        self.intake = Intake(self.fetched, inputs, 10_000, TaskMetrics())  # type: ignore[arg-type]
        self.intake.open(dict.fromkeys(inputs, 0))
        self.merging = Merging(plan, self.intake, self.fetched)  # type: ignore[arg-type]

    def offer(self, topic: str, times: list[int], start: int = 0) -> None:
        values: list[bytes | None] = [json.dumps({"number": 0, "ts": ts}).encode() for ts in times]
        offsets = list(range(start, start + len(times)))
        batch = RecordBatch(
            topic, 0, offsets, [1] * len(times), [b"k"] * len(times), values, position=start, next_offset=start + len(times)
        )
        self.intake.offer(batch)

    def take(self, now_s: float = 0.0) -> list[tuple[str, int]]:
        """Take until there is nothing, or something waits; return (topic, event time)."""
        taken = []
        while (item := self.merging.next(self.task, now_s)) is not None:
            assert isinstance(item, RecordBatch)
            for pipeline in self.task.plan.readers(item.topic):
                self.task.process(pipeline, item, 0)
            self.task.finish_batch(item)
            self.intake.done(TopicPartition(item.topic, 0), len(item))
            taken += [(item.topic, json.loads(value or b"")["ts"]) for value in item.values]
        return taken


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(st.integers(0, 50), max_size=20),
    st.lists(st.integers(0, 50), max_size=20),
    st.lists(st.integers(1, 7), min_size=20, max_size=20),
)
def test_merging_takes_everything_once_in_order_of_each_input_and_of_time(left: list[int], right: list[int], cuts: list[int]) -> None:
    async def taken() -> list[tuple[str, int]]:
        queue = Queue()
        for topic, times in (("prices", left), ("orders", right)):
            start = 0
            sizes = iter(cuts)
            while start < len(times):
                size = next(sizes, len(times))
                queue.offer(topic, times[start : start + size], start)
                start += size
        return queue.take()

    found = asyncio.run(taken())
    assert [ts for topic, ts in found if topic == "prices"] == left
    assert [ts for topic, ts in found if topic == "orders"] == right
    if left == sorted(left) and right == sorted(right):
        assert [ts for _, ts in found] == sorted(left + right)


async def test_merging_waits_for_the_side_that_is_behind_and_has_more_but_not_for_ever() -> None:
    queue = Queue()
    queue.fetched.ends["prices"] = 5
    queue.offer("orders", [100, 200])
    assert queue.take(now_s=1.0) == []
    assert queue.take(now_s=1.0 + WAIT_S - 0.01) == []
    assert queue.take(now_s=1.01 + WAIT_S) == [("orders", 100), ("orders", 200)]
    queue.offer("orders", [300], start=2)
    assert queue.take(now_s=1.01 + WAIT_S) == [("orders", 300)], "it has had its time until it gives something"
    queue.offer("prices", [50, 150])
    assert queue.take(now_s=2.0) == [("prices", 50), ("prices", 150)]
    queue.offer("orders", [400], start=3)
    assert queue.take(now_s=2.0) == []
    queue.offer("prices", [350], start=2)
    assert queue.take(now_s=2.0) == [("prices", 350)]
    queue.offer("prices", [450, 460], start=3)
    assert queue.take(now_s=2.1) == [("orders", 400), ("prices", 450), ("prices", 460)]


async def test_merging_waits_for_nobody_who_is_idle_held_ahead_or_read_to_the_end() -> None:
    queue = Queue()
    queue.offer("orders", [100])
    assert queue.take() == [("orders", 100)], "read to the end"
    queue.fetched.ends["prices"] = 5
    queue.intake.hold(TopicPartition("prices", 0))
    queue.offer("orders", [200], start=1)
    assert queue.take() == [("orders", 200)], "held back"
    queue.intake.let_go(TopicPartition("prices", 0))
    queue.offer("prices", [500])
    queue.offer("orders", [300], start=2)
    assert queue.take() == [("orders", 300), ("prices", 500)]
    queue.offer("orders", [400], start=3)
    assert queue.take() == [("orders", 400)], "the other one is ahead"
    queue.task.advance_clock(0, {"prices": True, "orders": False})
    queue.task.advance_clock(60_001, {"prices": True, "orders": False})
    queue.offer("orders", [90_000], start=4)
    assert queue.take() == [("orders", 90_000)], "idle"


async def test_merging_side_that_has_not_been_answered_yet_is_waited_for() -> None:
    queue = Queue()
    queue.fetched.ends["prices"] = None
    queue.offer("orders", [100])
    assert queue.take(now_s=0.0) == []
    queue.offer("prices", [1])
    assert queue.take(now_s=0.1) == [("prices", 1)]


async def test_merging_bad_records_keep_their_place_and_become_dead_letters() -> None:
    queue = Queue()
    queue.offer("orders", [10, 20])
    values: list[bytes | None] = [b'{"number":0,"ts":5}', b"bad", None, b'{"number":0,"ts":15}']
    queue.intake.offer(RecordBatch("prices", 0, [0, 1, 2, 3], [1, 1, 12, 1], [b"k"] * 4, values, position=0, next_offset=4))
    taken = []
    while (item := queue.merging.next(queue.task, 0.0)) is not None:
        assert isinstance(item, RecordBatch)
        queue.task.process("work", item, 0)
        queue.task.finish_batch(item)
        taken += [(item.topic, offset) for offset in item.offsets]
    assert taken == [("prices", 0), ("prices", 1), ("orders", 0), ("prices", 2), ("prices", 3), ("orders", 1)]
    commit = queue.task.prepare_commit(0)
    assert commit is not None
    assert sum(len(columns) for (topic, _), columns in commit.outputs.items() if topic == "app-dlq") == 1


def test_inputs_meet_where_an_operator_sees_both_and_not_because_one_pipeline_reads_them() -> None:
    app = Topology("app", partitions=1)
    views, buys, users, lonely = (app.source(name, Tick, time="ts") for name in ("views", "buys", "users", "lonely"))

    @app.pipeline(views, buys, users, lonely)
    def work(views: Any, buys: Any, users: Any, lonely: Any) -> list[Sink]:
        moved = views.key_by("number")
        return [
            moved.join(buys.key_by("number"), within=("0s", "1s")).to("a"),
            buys.lookup(users.table("users"), how="left").to("b"),
            lonely.to("c"),
        ]

    groups = meeting_inputs(app.plan())
    moved = app.plan().internal_topics
    assert len(moved) == 2 and groups[moved[0]] == groups[moved[1]]
    assert groups["buys"] == groups["users"] != groups[moved[0]]
    assert set(groups) == {*moved, "buys", "users"}
