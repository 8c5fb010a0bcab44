"""Pre-aggregation before a repartition must change nothing but the number of records that cross."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import agg, triggers, windows
from engine.records import RecordBatch
from engine.task import Task
from engine.testing.driver import START_MS, TestDriver
from engine.topology import Topology
from engine.watermarks import bounded
from state.memory import MemoryStore


class Sale(msgspec.Struct, frozen=True):
    """A sale; the shop decides about its partition, the currency about where it is counted."""

    shop: str
    currency: str
    cents: int
    weight: float
    ts: int
    rebate: int | None = None


ALL = {
    "n": agg.count(),
    "cents": agg.sum("cents"),
    "weight": agg.sum("weight"),
    "mean": agg.mean("weight"),
    "spread": agg.variance("weight"),
    "low": agg.min("cents"),
    "high": agg.max("cents"),
    "rebate": agg.sum("rebate"),
    "least": agg.min("rebate"),
    "shops": agg.distinct("shop"),
}


FEW = {"n": agg.count(), "cents": agg.sum("cents")}
LATE = ("work", "window", "late_records")


def app(window: Any, emit: Any = "close", aggregates: Any = ALL, **options: Any) -> Topology:
    topology = Topology("app", max_ahead_ms=None)
    sales = topology.source("sales", Sale, key="shop", time="ts", watermark=bounded("2s", idle=None))

    @topology.pipeline(sales)
    def work(sales: Any) -> Any:
        return sales.key_by("currency").window(window, **options).aggregate(emit=emit, **aggregates).to("out")

    return topology


def is_combined(topology: Topology) -> bool:
    return any(node.kind == "combine" for node in topology.pipelines["work"].graph.nodes)


def run(topology: Topology, commits: list[list[Sale]], partitions: int) -> tuple[list[Any], int]:
    """Return the results, and how many records were late; what is sent between two commits arrives as one block a partition."""
    late = 0
    with TestDriver(topology, partitions=partitions) as driver:
        found = []
        for sales in commits:
            for sale in sales:
                driver.send("sales", sale)
            driver.crash()  # hands out what is uncommitted once more, as one fetch answer
            found += driver.read("out")
            late += driver.counters().get(LATE, 0)
            driver.restart()  # counters begin anew
        driver.finish()
        found += driver.read("out")
        late += driver.counters().get(LATE, 0)
    rows = sorted(
        (record.key, record.value["window_start"], index, msgspec.json.encode(record.value)) for index, record in enumerate(found)
    )
    return [(key, start, value) for key, start, _, value in rows], late


SALES = st.builds(
    Sale,
    st.sampled_from(["a", "b", "c", "d"]),
    st.sampled_from(["EUR", "USD", "JPY"]),
    st.integers(-5, 5),
    st.floats(-1e9, 1e9) | st.sampled_from([0.1, 1e300, -1e300, 5e-324]),
    st.integers(0, 15_000),
    st.none() | st.integers(0, 9),
)
WINDOWS = [windows.tumbling("3s", offset="1s"), windows.hopping("6s", every="2s"), windows.hopping("2s", every="2s")]


@given(
    st.lists(st.lists(SALES, max_size=12), max_size=3),
    st.integers(1, 2),
    st.sampled_from(WINDOWS),
    st.sampled_from(["0s", "2s"]),
    st.booleans(),
)
def test_combine_any_stream_gives_what_single_records_give(
    commits: list[list[Sale]], partitions: int, window: Any, lateness: str, is_update: bool
) -> None:
    emit = "update" if is_update else "close"
    combined, single = app(window, emit, lateness=lateness), app(window, emit, lateness=lateness, late_to="late")
    assert is_combined(combined)
    assert not is_combined(single)
    assert run(combined, commits, partitions) == run(single, commits, partitions)


def test_combine_late_row_counts_as_many_late_records_as_it_holds() -> None:
    commits = [[Sale("a", "EUR", 1, 0.0, 10_000)], [Sale("a", "EUR", 1, 0.0, ts) for ts in (1_000, 1_001, 1_002, 9_500)]]
    found, late = run(app(windows.tumbling("2s"), aggregates=FEW), commits, 1)
    assert [(start, msgspec.json.decode(value)["n"]) for _, start, value in found] == [(8_000, 1), (10_000, 1)]
    assert late == 3


def batch_of(sales: list[Sale]) -> RecordBatch:
    values: list[bytes | None] = [msgspec.json.encode(sale) for sale in sales]
    offsets = list(range(len(sales)))
    return RecordBatch("sales", 0, offsets, [0] * len(sales), [b"a"] * len(sales), values, position=0, next_offset=len(sales))


def moved(topology: Topology, batch: RecordBatch) -> tuple[list[Any], list[Any]]:
    """Return the rows that go to the repartition topic, and the offsets of the dead letters."""
    task = Task(topology.plan(partitions=1), 0, MemoryStore(), now_ms=START_MS)
    task.process("work", batch, START_MS)
    task.finish_batch(batch)
    commit = task.prepare_commit(START_MS)
    assert commit is not None
    rows, letters = [], []
    for partition, columns in commit.outputs.items():
        if partition.topic == "app-dlq":
            letters += [int(dict(headers)["offset"]) for headers in columns.headers or []]
        else:
            rows += [(k, msgspec.msgpack.decode(v)) for k, v in zip(columns.keys, columns.values, strict=True) if k is not None and v]
    return rows, letters


def test_combine_one_row_for_each_key_and_window_of_a_block_crosses() -> None:
    sales = [Sale("a", "EUR", 5, 0.0, 7), Sale("a", "USD", 2, 0.0, 9), Sale("a", "EUR", 1, 0.0, 31), Sale("a", "EUR", 4, 0.0, 1_002)]
    rows, _ = moved(app(windows.tumbling("1s"), aggregates=FEW), batch_of(sales))
    assert rows == [(b"EUR", [2, 2, 6]), (b"USD", [1, 1, 2]), (b"EUR", [1, 1, 4])]


def test_combine_record_that_raises_goes_alone_to_the_dead_letters() -> None:
    aggregates = {"n": agg.count(), "share": agg.sum(lambda sale: 10 // sale.cents)}
    sales = [Sale("a", "EUR", cents, 0.0, 7) for cents in (5, 0, 2)]
    rows, letters = moved(app(windows.tumbling("1s"), aggregates=aggregates), batch_of(sales))
    assert letters == [1]
    assert [row[0] for _, row in rows] == [1, 1]


def test_combine_sum_beyond_64_bits_is_not_lost() -> None:
    sales = [Sale("a", "EUR", 2**62, 0.0, 7)] * 3
    rows, letters = moved(app(windows.tumbling("1s"), aggregates=FEW), batch_of(sales))
    assert (sum(row[2] for _, row in rows), letters) == (3 * 2**62, [])


def test_combine_value_without_a_key_is_the_only_dead_letter() -> None:
    topology = Topology("app", max_ahead_ms=None)
    sales = topology.source("sales", Sale, key="shop", time="ts")

    @topology.pipeline(sales)
    def work(sales: Any) -> Any:
        keyed = sales.key_by(lambda sale: sale.currency or None)
        return keyed.window(windows.tumbling("1s")).aggregate(**FEW).to("out")

    assert is_combined(topology)
    rows, letters = moved(topology, batch_of([Sale("a", currency, 1, 0.0, 7) for currency in ("EUR", "", "EUR")]))
    assert ([key for key, _ in rows], letters) == ([b"sEUR", b"sEUR"], [1])  # a key of undeclared type says which it is


@pytest.mark.parametrize(
    "aggregate",
    [agg.first("cents"), agg.last("cents"), agg.collect("cents", 3), agg.top("cents", 2), agg.quantile("cents", 0.5), agg.min("weight"),
     agg.approx_distinct("shop"), agg.reduce(lambda total, sale: total + 1, 0)],
    ids=lambda aggregate: aggregate.name,
)  # fmt: skip
def test_combine_aggregate_that_depends_on_the_grouping_is_left_alone(aggregate: Any) -> None:
    assert not is_combined(app(windows.tumbling("1s"), aggregates={"n": agg.count(), "x": aggregate}))


@pytest.mark.parametrize("window", [windows.session("1s"), windows.sliding("1s"), windows.count(3), windows.everything()], ids=repr)
def test_combine_other_windows_are_left_alone(window: Any) -> None:
    assert not is_combined(app(window))


@pytest.mark.parametrize("options", [{"late_to": "late"}, {"trigger": triggers.on_late()}], ids=["late_to", "trigger"])
def test_combine_whatever_sees_single_records_is_left_alone(options: Any) -> None:
    assert not is_combined(app(windows.tumbling("1s"), **options))


def test_combine_stream_with_two_readers_is_moved_once_and_left_alone() -> None:
    topology = Topology("app")
    sales = topology.source("sales", Sale, key="shop", time="ts")

    @topology.pipeline(sales)
    def work(sales: Any) -> Any:
        keyed = sales.key_by("currency")
        return [keyed.window(windows.tumbling("1s")).aggregate(n=agg.count()).to("out"), keyed.aggregate(n=agg.count()).to("totals")]

    assert not is_combined(topology)
    assert len(topology.plan().internal_topics) == 1


def test_combine_without_a_repartition_there_is_nothing_to_do() -> None:
    topology = Topology("app")
    sales = topology.source("sales", Sale, key="shop", time="ts")
    topology.pipeline(sales, name="work")(lambda stream: stream.window(windows.tumbling("1s")).aggregate(n=agg.count()).to("out"))
    assert not is_combined(topology)
