"""Tasks as a whole: keys that meet through a repartition topic, and time on its way through tasks, idle and from the future."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from engine.block import MIN_TIME
from engine.operators.process import Context, Timer
from engine.operators.repartition import CONTROL_HEADERS, Control
from engine.records import RecordBatch
from engine.state_handles import ValueState
from engine.task import Task
from engine.testing.driver import START_MS, TestDriver
from engine.topology import Topology
from engine.watermarks import bounded
from state.memory import MemoryStore
from state.store import Position
from tests.engine.shop_records import Order, order
from tests.engine.task_world import batch_of, feed, header, through


@pytest.mark.parametrize("partitions", [1, 4])
def test_key_by_brings_equal_keys_together(partitions: int) -> None:
    class Count:
        seen = ValueState(int, default=0)

        def on_record(self, record: Any, ctx: Context) -> Iterator[int]:
            self.seen.set(self.seen.get() + 1)
            yield self.seen.get()

    topology = through(lambda stream: stream.key_by("currency").process(Count))
    with TestDriver(topology, partitions=partitions) as driver:
        for number in range(12):
            driver.send("orders", order(number, user=f"u{number}", currency=["EUR", "USD"][number % 2]))
        records = driver.read("out")
        assert sorted((r.key, r.value) for r in records) == [(c, n) for c in ("EUR", "USD") for n in range(1, 7)]


def timers_after_repartition() -> Topology:
    class Wait:
        def on_record(self, record: Any, ctx: Context) -> None:
            ctx.timers.event_time(record.timestamp_ms, record.value.order_id)

        def on_timer(self, timer: Timer, ctx: Context) -> Iterator[str]:
            yield timer.name

    return through(lambda stream: stream.key_by("currency").process(Wait))


def test_watermark_through_a_repartition_is_the_minimum_of_the_upstreams() -> None:
    with TestDriver(timers_after_repartition(), partitions=2) as driver:
        driver.send("orders", order(1, ts=1_000), partition=0)
        driver.send("orders", order(2, ts=100_000), partition=0)
        assert driver.read("out") == []  # partition 1 has said nothing yet
        driver.send("orders", order(3, ts=40_000), partition=1)
        assert [r.value for r in driver.read("out")] == ["o1"]
        driver.send("orders", order(4, ts=80_000), partition=1)
        assert [r.value for r in driver.read("out")] == ["o3"]


def test_idle_partition_does_not_hold_up_the_others() -> None:
    with TestDriver(timers_after_repartition(), partitions=2) as driver:
        driver.send("orders", order(1, ts=1_000), partition=0)
        driver.send("orders", order(2, ts=100_000), partition=0)
        driver.advance("59s")
        assert driver.read("out") == []
        driver.advance("2s")
        assert [r.value for r in driver.read("out")][:1] == ["o1"]


def test_all_inputs_idle_the_watermark_follows_the_wall_clock() -> None:
    with TestDriver(timers_after_repartition(), partitions=2) as driver:
        driver.send("orders", order(1, ts=1_000), partition=0)
        driver.advance("50s")
        assert driver.read("out") == []
        driver.restart()
        driver.advance("59s")
        assert driver.read("out") == []  # quiet time starts again with the restart
        driver.advance("2s")
        assert [r.value for r in driver.read("out")] == ["o1"]


def test_idleness_switched_off_never_moves_time() -> None:
    topology = Topology("shop")
    orders = topology.source("orders", Order, key="user_id", time="ts", watermark=bounded("30s", idle=None))

    class Wait:
        def on_record(self, record: Any, ctx: Context) -> None:
            ctx.timers.event_time(record.timestamp_ms)

        def on_timer(self, timer: Timer, ctx: Context) -> Iterator[int]:
            yield timer.timestamp_ms

    topology.pipeline(orders, name="work")(lambda stream: stream.process(Wait).to("out"))
    with TestDriver(topology) as driver:
        driver.send("orders", order(1, ts=1_000))
        driver.advance("1d")
        assert driver.read("out") == []


def test_record_from_the_future_moves_no_watermark() -> None:
    class Marks:
        def on_record(self, record: Any, ctx: Context) -> Iterator[int]:
            yield ctx.watermark_ms - START_MS

    with TestDriver(through(lambda stream: stream.process(Marks)), max_ahead="1h") as driver:
        driver.send("orders", order(1, ts=START_MS))
        driver.send("orders", order(2, ts=START_MS + 3_600_001))
        driver.send("orders", order(3, ts=START_MS + 1))
        assert [r.value for r in driver.read("out")][1:] == [-30_001, -30_001]
        assert driver.counters()["", "orders", "records_ahead"] == 1


def test_event_time_before_1970_survives_a_repartition() -> None:
    topology = through(lambda stream: stream.key_by("currency").process(lambda record, ctx: [record.timestamp_ms]))
    with TestDriver(topology) as driver:
        for number, ts in enumerate((-5, 0, 7)):
            driver.send("orders", order(number, ts=ts))
        assert [r.value for r in driver.read("out")] == [-5, 0, 7]


def test_struct_of_undeclared_type_across_a_key_by_says_what_to_annotate() -> None:
    topology = through(lambda stream: stream.map(lambda o: o).key_by(lambda o: o.currency).process(lambda record, ctx: [1]))
    with TestDriver(topology) as driver:
        driver.send("orders", order(1))
        assert "annotate the return type" in header(driver.read("shop-dlq")[0], "error")


def test_watermark_that_was_not_told_at_once_is_told_within_a_second() -> None:
    """A partition without data hears of the watermark at most once a second, but it does hear, also if nothing else happens."""
    plan = timers_after_repartition().plan(partitions=2)
    task = Task(plan, 0, MemoryStore(), now_ms=START_MS)
    told = []
    for step, after_ms in enumerate((0, 300, 1_000)):
        now_ms = START_MS + after_ms
        if step < 2:
            task.process("work", batch_of([msgspec.json.encode(order(step, ts=step * 1_000))], start=step), now_ms)
        else:
            assert task.next_wall_clock_ms() == now_ms
            task.advance_clock(now_ms, {"orders": True})
        commit = task.prepare_commit(now_ms)
        assert commit is not None
        controls = {partition.partition: columns.keys.count(None) for partition, columns in commit.outputs.items()}
        told.append([controls.get(0, 0), controls.get(1, 0)])
        task.committed(Position(b"id", step, now_ms))
    assert sorted(map(tuple, zip(*told, strict=True))) == [(1, 0, 1), (1, 1, 0)]
    assert task.next_wall_clock_ms() is None


def test_watermark_that_the_last_owner_told_nobody_is_told_by_the_next_one_at_once() -> None:
    """The last commit of a task may have told only the partitions with data; whoever takes over cannot know, so it tells all."""
    plan, store = timers_after_repartition().plan(partitions=2), MemoryStore()
    task = Task(plan, 0, store, now_ms=START_MS)
    task.process("work", batch_of([msgspec.json.encode(order(0, ts=5_000))]), START_MS)
    assert task.prepare_commit(START_MS) is not None
    task.committed(Position(b"id", 1, START_MS))
    again = Task(plan, 0, store, now_ms=START_MS + 10)
    assert not again.dirty and again.next_wall_clock_ms() == START_MS + 10
    again.advance_clock(START_MS + 10, {})
    commit = again.prepare_commit(START_MS + 10)
    assert commit is not None
    assert sorted(partition.partition for partition, columns in commit.outputs.items() if None in columns.keys) == [0, 1]


def test_watermark_of_another_epoch_is_not_heard() -> None:
    """A restored savepoint begins a new epoch: what tasks of the old one said about their time must not close its windows."""
    plan = timers_after_repartition().plan(partitions=1)
    task = Task(plan, 0, MemoryStore(), now_ms=START_MS)
    (topic,) = plan.internal_topics
    for epoch, reached in ((plan.epoch + 1, MIN_TIME), (plan.epoch, 7_000)):
        value = msgspec.json.encode(Control(1, epoch, 0, 1, 7_000, False))
        batch = RecordBatch(topic, 0, [0], [0], [None], [value], position=0, next_offset=1, read_headers=lambda: [CONTROL_HEADERS])
        feed(task, batch)
        assert task.watermarks()[f"work/{topic}"] == reached
