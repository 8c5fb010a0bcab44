"""Tasks as a whole: bad records, undo, streams, offsets, and that cuts never change a result."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import agg, windows
from engine.errors import ConfigError
from engine.operators.process import Context, Timer
from engine.state_handles import ValueState
from engine.task import Task
from engine.testing.driver import START_MS, TestDriver
from engine.topology import Topology
from engine.watermarks import bounded
from state.memory import MemoryStore
from state.store import Position
from tests.engine.shop_records import Order, order, shop
from tests.engine.task_world import batch_of, feed, header, through

# -- bad records


def test_undecodable_records_go_to_the_dead_letters_once_for_all_pipelines() -> None:
    topology, orders = shop()
    topology.pipeline(orders, name="one")(lambda stream: stream.to("out"))
    topology.pipeline(orders, name="two")(lambda stream: stream.map(lambda o: o.ts).to("times"))
    with TestDriver(topology) as driver:
        driver.send("orders", b'{"order_id": "o1"', key="k", at=5)
        driver.send("orders", {"order_id": "o2", "user_id": "ann", "amount_cents": "x", "currency": "EUR", "ts": 1})
        driver.send("orders", None, key="k")
        driver.send("orders", order(4, ts=9))
        assert [r.value for r in driver.read("times")] == [9]
        letters = driver.read("shop-dlq")
        assert [header(r, "offset") for r in letters] == ["0", "1", "2"]
        assert {header(r, "pipeline") for r in letters} == {"one,two"}
        assert {header(r, "operator") for r in letters} == {"source"}
        assert letters[0].value == b'{"order_id": "o1"' and letters[0].key == "k" and letters[0].timestamp_ms == 5


def test_record_that_raises_is_undone_only_in_the_pipeline_that_failed() -> None:
    topology, orders = shop()
    topology.pipeline(orders, name="strict")(lambda stream: stream.map(lambda o: 100 // o.amount_cents).to("out"))
    topology.pipeline(orders, name="lenient")(lambda stream: stream.map(lambda o: o.order_id).to("ids"))
    with TestDriver(topology) as driver:
        for number, amount in enumerate([1, 0, 50]):
            driver.send("orders", order(number, amount=amount))
        assert [r.value for r in driver.read("out")] == [100, 2]
        assert [r.value for r in driver.read("ids")] == ["o0", "o1", "o2"]
        (letter,) = driver.read("shop-dlq")
        assert (header(letter, "pipeline"), header(letter, "operator"), header(letter, "offset")) == ("strict", "map", "1")
        assert driver.counters()["strict", "map", "dead_letters"] == 1


def test_bad_record_in_the_middle_of_a_batch_leaves_the_others_exactly_once() -> None:
    topology = through(lambda stream: stream.map(lambda o: 100 // o.amount_cents))
    task = Task(topology.plan(partitions=1), 0, MemoryStore(), now_ms=START_MS)
    values = [msgspec.json.encode(order(number, amount=amount)) for number, amount in enumerate([1, 2, 0, 4, 0, 5])]
    feed(task, batch_of([*values, b"not json"]))
    commit = task.prepare_commit(START_MS)
    assert commit is not None
    out = {partition.topic: columns for partition, columns in commit.outputs.items()}
    assert out["out"].values == [b"100", b"50", b"25", b"20"]
    assert [dict(headers)["offset"] for headers in out["shop-dlq"].headers or []] == [b"6", b"2", b"4"]


@pytest.mark.parametrize(("length", "taken"), [(1_048_000, True), (1_049_000, False), (3_000_000, False)])
def test_result_that_is_larger_than_its_topic_takes_is_a_bad_record(length: int, taken: bool) -> None:
    with TestDriver(through(lambda stream: stream.map(lambda o: "x" * o.amount_cents))) as driver:
        for number, amount in enumerate([3, length, 4]):
            driver.send("orders", order(number, amount=amount))
        assert [len(r.value) for r in driver.read("out")] == ([3, length, 4] if taken else [3, 4])
        letters = driver.read("shop-dlq")
        assert [header(r, "offset") for r in letters] == ([] if taken else ["1"])
        if not taken:
            assert "is more than topic 'out' takes (1,048,588)" in header(letters[0], "error")


def test_record_that_is_larger_than_the_dead_letters_take_is_named_there() -> None:
    topology = through(lambda stream: stream)
    plan = topology.plan(partitions=1)
    task = Task(plan, 0, MemoryStore(), now_ms=START_MS, record_bytes_max={plan.dead_letter_topic: 50_000})
    feed(task, batch_of([b"x" * 20_000, b"y" * 60_000], keys=[b"k", b"k"]))
    commit = task.prepare_commit(START_MS)
    assert commit is not None
    letters = next(columns for partition, columns in commit.outputs.items() if partition.topic == "shop-dlq")
    assert letters.values == [b"x" * 20_000, None]
    assert [dict(headers).get("left_out") for headers in letters.headers or []] == [None, b"60001"]
    assert [dict(headers)["offset"] for headers in letters.headers or []] == [b"0", b"1"]


def test_key_that_is_larger_than_its_topic_takes_is_a_bad_record() -> None:
    topology = through(lambda stream: stream.key_by(lambda o: "k" * o.amount_cents).map(lambda o: o.ts))
    with TestDriver(topology) as driver:
        for number, amount in enumerate([3, 1_500_000, 4]):
            driver.send("orders", order(number, amount=amount))
        assert sorted(r.key for r in driver.read("out")) == ["kkk", "kkkk"]
        (letter,) = driver.read("shop-dlq")
        assert "a record of 1,500,1" in header(letter, "error")


def test_dead_letters_from_before_1970_have_the_first_time_that_kafka_knows() -> None:
    def fail(row: Any) -> Any:
        raise ValueError("no")

    topology, orders = shop()
    topology.pipeline(orders, name="one")(lambda stream: stream.window(windows.tumbling("1s")).aggregate(n=agg.count()).map(fail).to("out"))
    task = Task(topology.plan(partitions=1), 0, MemoryStore(), now_ms=START_MS)
    batch = batch_of([b"{", *(msgspec.json.encode(order(number, ts=ts)) for number, ts in enumerate([-5_000, 60_000]))])
    batch.timestamps[0] = -1  # type: ignore[index]  # a record without a timestamp
    feed(task, batch)
    commit = task.prepare_commit(START_MS)
    assert commit is not None
    (letters,) = commit.outputs.values()
    assert letters.timestamps == [0, 0]
    assert [dict(headers).get("timer_ms") for headers in letters.headers or []] == [None, b"-4001"]


def test_firing_with_a_key_larger_than_the_dead_letters_take_is_named_there() -> None:
    topology = through(lambda stream: stream.aggregate(n=agg.count()).map(lambda row: 1 // 0))
    plan = topology.plan(partitions=1)
    task = Task(plan, 0, MemoryStore(), now_ms=START_MS, record_bytes_max={plan.dead_letter_topic: 50_000})
    feed(task, batch_of([msgspec.json.encode(order(1, user="u" * 60_000))]))
    commit = task.prepare_commit(START_MS)
    assert commit is not None
    (letters,) = commit.outputs.values()
    (headers,) = map(dict, letters.headers or [])
    assert (letters.keys, headers["timer"], headers["left_out"]) == ([None], b"aggregate", b"60000")


def test_bad_record_still_moves_time() -> None:
    """A decoded record advances the watermark although user code refuses it: its time is not in doubt."""

    class Wait:
        def on_record(self, record: Any, ctx: Context) -> None:
            if record.value.amount_cents == 0:
                raise ValueError("no amount")
            ctx.timers.event_time(record.timestamp_ms + 1_000)

        def on_timer(self, timer: Timer, ctx: Context) -> Iterator[int]:
            yield timer.timestamp_ms

    with TestDriver(through(lambda stream: stream.process(Wait))) as driver:
        driver.send("orders", order(1, ts=0))
        driver.send("orders", order(2, ts=50_000, amount=0))
        assert [r.value for r in driver.read("out")] == [1_000]


def test_on_error_fail_raises() -> None:
    topology = through(lambda stream: stream.map(lambda o: 1 // o.amount_cents), on_error="fail")
    with TestDriver(topology) as driver, pytest.raises(ZeroDivisionError):
        driver.send("orders", order(1, amount=0))


def test_null_key_into_a_keyed_operator_is_a_dead_letter() -> None:
    topology = Topology("shop")
    source = topology.source("orders", Order)
    topology.pipeline(source, name="work")(lambda stream: stream.process(lambda record, ctx: [record.key]).to("out"))
    with TestDriver(topology) as driver:
        driver.send("orders", order(1))
        driver.send("orders", order(2), key="ann")
        driver.send("orders", order(3), key=b"\xff")
        assert [r.value for r in driver.read("out")] == ["ann"]
        assert ["no key" in header(r, "error") for r in driver.read("shop-dlq")] == [True, False]


# -- streams


def test_merge_takes_the_minimum_of_its_inputs_and_leaves_idle_ones_out() -> None:
    class Wait:
        def on_record(self, record: Any, ctx: Context) -> None:
            ctx.timers.event_time(record.timestamp_ms, record.value.order_id)

        def on_timer(self, timer: Timer, ctx: Context) -> Iterator[str]:
            yield timer.name

    topology = Topology("shop")
    sources = [topology.source(name, Order, key="user_id", time="ts", watermark=bounded("0s")) for name in ("web", "app")]
    topology.pipeline(*sources, name="work")(lambda web, mobile: web.merge(mobile).process(Wait).to("out"))
    with TestDriver(topology) as driver:
        driver.send("web", order(1, ts=10))
        driver.send("web", order(2, ts=100))
        assert driver.read("out") == []
        driver.send("app", order(3, ts=50))
        assert [r.value for r in driver.read("out")] == ["o1"]
        driver.advance("30s")
        driver.send("web", order(4, ts=200))
        driver.advance("31s")  # "app" is idle now
        driver.send("web", order(5, ts=201))
        assert [r.value for r in driver.read("out")] == ["o3", "o2", "o4"]


def test_branch_first_match_wins_and_the_rest_is_counted() -> None:
    topology, orders = shop()

    @topology.pipeline(orders)
    def split(stream: Any) -> Any:
        branches = stream.branch(large=lambda o: o.amount_cents > 100, some=lambda o: o.amount_cents > 10)
        return [branches["large"].map(lambda o: o.order_id).to("large"), branches["some"].map(lambda o: o.order_id).to("some")]

    with TestDriver(topology) as driver:
        for number, amount in enumerate([500, 50, 5]):
            driver.send("orders", order(number, amount=amount))
        assert ([r.value for r in driver.read("large")], [r.value for r in driver.read("some")]) == (["o0"], ["o1"])
        assert driver.counters()["split", "branch", "unmatched_records"] == 1


def test_flat_map_keeps_key_and_time() -> None:
    with TestDriver(through(lambda stream: stream.flat_map(lambda o: [o.order_id] * o.amount_cents))) as driver:
        for number in range(3):
            driver.send("orders", order(number, ts=number, amount=number))
        assert [(r.key, r.value, r.timestamp_ms) for r in driver.read("out")] == [("ann", "o1", 1), ("ann", "o2", 2), ("ann", "o2", 2)]


def test_in_event_time_order_releases_sorted_and_counts_late_records() -> None:
    topology = through(lambda stream: stream.in_event_time_order().map(lambda o: o.ts))
    with TestDriver(topology) as driver:
        for number, ts in enumerate((50_000, 30_000, 40_000, 30_000, 90_000, 10_000)):
            driver.send("orders", order(number, ts=ts))
        assert [r.value for r in driver.read("out")] == [30_000, 30_000, 40_000, 50_000]
        driver.finish()
        assert [r.value for r in driver.read("out")] == [90_000]
        assert driver.counters()["work", "in_event_time_order", "late_records"] == 1


# -- offsets, graph, cuts


def test_offsets_are_state_and_unseen_topics_have_none() -> None:
    topology = through(lambda stream: stream)
    store = MemoryStore()
    task = Task(topology.plan(partitions=1), 0, store, now_ms=START_MS)
    assert set(task.positions.values()) == {None}
    feed(task, batch_of([msgspec.json.encode(order(1))], start=7))
    assert task.prepare_commit(START_MS) is not None
    task.committed(Position(b"id", 3, START_MS))
    again = Task(topology.plan(partitions=1), 0, store, now_ms=START_MS)
    assert list(again.positions.values()) == [8, None]  # nobody has told this task anything
    assert again.prepare_commit(START_MS) is None


def test_state_of_another_graph_is_refused_with_what_changed() -> None:
    def plan(name: str) -> Any:
        return through(lambda stream: stream.process(lambda record, ctx: None, name=name)).plan(partitions=1)

    store = MemoryStore()
    task = Task(plan("history"), 0, store, now_ms=START_MS)
    feed(task, batch_of([msgspec.json.encode(order(1))]))
    task.prepare_commit(START_MS)
    task.committed(Position(b"id", 1, START_MS))
    with pytest.raises(ConfigError, match=r"work/history .* is gone"):
        Task(plan("renamed"), 0, store, now_ms=START_MS)


class Everything:
    """State, timers and errors in one handler."""

    total = ValueState(int, default=0)

    def on_record(self, record: Any, ctx: Context) -> Iterator[tuple[str, int, int]]:
        self.total.set(self.total.get() + record.value.amount_cents)
        if record.value.amount_cents == 13:
            raise ValueError("thirteen")
        ctx.timers.event_time(record.timestamp_ms + 5, "t")
        yield (record.value.order_id, self.total.get(), ctx.watermark_ms)

    def on_timer(self, timer: Timer, ctx: Context) -> Iterator[tuple[str, int, int]]:
        if self.total.get() % 7 == 6:
            raise ValueError("six")
        yield ("timer", timer.timestamp_ms, self.total.get())


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60), st.integers(1, 15)), max_size=25),
    st.lists(st.integers(1, 25), max_size=6),
    st.booleans(),
)
def test_cuts_and_restarts_change_nothing(rows: list[tuple[str, int, int]], cuts: list[int], restarts: bool) -> None:
    topology = Topology("shop")
    orders = topology.source("orders", Order, key="user_id", time="ts", watermark=bounded("10ms"))
    topology.pipeline(orders, name="work")(lambda stream: stream.filter(lambda o: o.amount_cents != 14).process(Everything).to("out"))
    plan = topology.plan(partitions=1)
    values = [msgspec.json.encode(order(n, user, ts, amount)) for n, (user, ts, amount) in enumerate(rows)]

    def run(bounds: list[int], restart: bool) -> list[tuple[str, list[Any], list[Any]]]:
        store = MemoryStore()
        collected: dict[str, tuple[list[Any], list[Any]]] = {}
        task = Task(plan, 0, store, now_ms=START_MS)
        for start, stop in zip([0, *bounds], [*bounds, len(values)], strict=True):
            if start < stop:
                feed(task, batch_of(values[start:stop], start=start))
            if restart or stop == len(values):
                if stop == len(values):
                    task.end_of_input("orders")
                commit = task.prepare_commit(START_MS)
                if commit is None:
                    continue
                for partition, columns in commit.outputs.items():
                    kept = collected.setdefault(partition.topic, ([], []))
                    kept[0].extend(zip(columns.keys, columns.values, columns.timestamps, strict=True))
                task.committed(Position(b"id", 1, START_MS))
                task = Task(plan, 0, store, now_ms=START_MS)
        return sorted((topic, sorted(rows[0], key=repr) if topic == "shop-dlq" else rows[0], rows[1]) for topic, rows in collected.items())

    whole = run([], False)
    assert run(list(range(1, len(values))), False) == whole
    assert run(sorted({cut for cut in cuts if cut < len(values)}), restarts) == whole
