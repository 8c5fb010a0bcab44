"""Results go on with the trace of one record: the one that made them come out, else the latest in them that had a trace."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Context, Record, Sink, Stream, agg, bounded, cep, triggers, windows
from engine.records import RecordBatch
from engine.task import Task
from engine.testing.driver import START_MS, TestDriver
from engine.topology import Topology
from state.keys import prefix_end, store_id
from state.memory import MemoryStore
from state.store import Position
from tests.effort import examples
from tests.engine.shop_records import Order, order

S = 1_000
Sent = tuple[int, str]
"""Second of event time, name of the trace ("" for none)."""

COUNT = {"n": agg.count()}


def trace(name: str) -> tuple[tuple[str, bytes], ...]:
    return (("traceparent", name.encode()), ("baggage", b"b")) if name else ()


def pipeline(declare: Callable[[Any], Any], delay: str = "0s", **more: Any) -> Any:
    topology = Topology("app", partitions=1)
    orders = topology.source("orders", Order, key="user_id", time="ts", watermark=bounded(delay))

    @topology.pipeline(orders)
    def work(orders: Stream[str, Order]) -> Sink:
        sink: Sink = declare(orders).to("out")
        return sink

    return work


def traces(declare: Callable[[Any], Any], *sent: Sent, topic: str = "out", delay: str = "0s", ends: bool = True) -> list[str]:
    """Return the name of the trace of each result."""
    with TestDriver(pipeline(declare, delay)) as driver:
        for number, (second, name) in enumerate(sent):
            driver.send("orders", order(number, ts=second * S), headers=(("content-type", b"x"), *trace(name)))
            if number == 1:
                driver.commit()
                driver.restart()  # what is kept is state
        if ends:
            driver.finish()
        found = [tuple(header for header in record.headers if header[0] in ("traceparent", "baggage")) for record in driver.read(topic)]
    assert all(headers in ((), trace(dict(headers).get("traceparent", b"").decode())) for headers in found)  # whole, or none
    return [dict(headers).get("traceparent", b"").decode() for headers in found]


MINUTE = windows.tumbling("1m")
IN_TIME = ((7, "a"), (31, ""), (52, "b"), (57, ""))


def window(kind: windows.Window, **options: Any) -> Callable[[Any], Any]:
    emit = options.pop("emit", "close")
    return lambda orders: orders.window(kind, **options).aggregate(emit=emit, **COUNT)


def test_tumbling_window_has_the_trace_of_its_latest_traced_record() -> None:
    assert traces(window(MINUTE), *IN_TIME) == ["b"]
    assert traces(window(MINUTE), (31, "a"), (7, "b"), delay="1m") == ["a"]  # the latest by event time, not by arrival
    assert traces(window(MINUTE), (7, "a"), (7, "b")) == ["b"]  # at one time the last to come
    assert traces(window(MINUTE), (7, "a"), (65, "")) == ["a", ""]  # not a trace of the window before
    assert traces(window(windows.tumbling("1m", offset="5s")), (-70, "a"), (-50, "")) == ["a", ""]


def test_hopping_window_has_a_trace_of_each_window_that_holds_the_record() -> None:
    assert traces(window(windows.hopping("2m", every="1m")), (7, "a"), (70, "b"), (130, "")) == ["a", "b", "b", ""]


def test_session_has_the_trace_of_its_last_record() -> None:
    assert traces(window(windows.session("30s")), (0, "a"), (20, "b"), (100, "c"), (120, "")) == ["b", ""]
    assert traces(window(windows.session(lambda order: 30 * S)), (0, "a"), (20, "b")) == ["b"]
    ends = windows.session("30s", ends_with=lambda order: order.order_id == "o1")
    assert traces(window(ends), (0, "a"), (20, "b"), (25, "c")) == ["b", "c"]
    ends = windows.session(lambda order: 30 * S, ends_with=lambda order: order.order_id == "o1")
    assert traces(window(ends), (0, "a"), (20, "b"), (25, "c")) == ["b", "c"]
    assert traces(window(ends), (0, "a"), (20, ""), (25, "c"), (30, "")) == ["", ""]


def test_changes_of_tables_have_the_trace_of_the_record_that_led_to_them() -> None:
    def paid(orders: Stream[str, Order]) -> Any:
        return orders.table("paid").filter(lambda order: order.amount_cents > 0)

    def totals(orders: Stream[str, Order]) -> Any:
        return orders.table("paid").group_by("currency").aggregate(n=agg.sum("ts"))

    def itself(orders: Stream[str, Order]) -> Any:
        return orders.table("paid").join(orders.table("names").map(lambda order: {"id": order.order_id}))

    def foreign(orders: Stream[str, Order]) -> Any:
        return orders.table("paid").join(orders.key_by("currency").table("money"), on="currency")

    assert traces(paid, (0, "a"), (10, ""), (20, "c")) == ["a", "", "c"]
    assert traces(totals, (0, "a"), (10, "b"), (20, "")) == ["a", "b", ""]
    assert traces(itself, (0, "a"), (10, "b")) == ["a", "b", "b"]  # a pair when both are there, then one side after the other
    assert set(traces(foreign, (0, "a"), (10, "b"))) == {"a", "b"}  # over the repartition of the questions and of the answers


def test_sliding_count_and_everything() -> None:
    assert traces(window(windows.sliding("1m")), (0, "a"), (10, ""), (20, "c")) == ["a", "", "c"]
    assert traces(window(windows.count(2)), (0, "a"), (10, "b"), (20, "c"), (30, "")) == ["b", ""]
    assert traces(window(windows.everything()), (0, "a"), (10, "b"), (20, "")) == ["b"]
    assert traces(window(windows.everything()), (20, "a"), (10, "b"), delay="1m") == ["a"]
    assert traces(window(windows.everything(), emit="update"), (0, "a"), (10, ""), ends=False) == ["a"]


def test_firing_that_a_record_leads_to_has_its_trace() -> None:
    early = triggers.every(records=2)
    assert traces(window(MINUTE, trigger=early), *IN_TIME) == ["a", "b"]  # a record without one lends the latest
    assert traces(window(MINUTE, trigger=early), (7, "a"), (31, "b")) == ["b"]
    late = {"trigger": triggers.on_late(), "lateness": "1m"}
    assert traces(window(MINUTE, **late), (7, "a"), (70, ""), (31, "b"), (9, "")) == ["a", "b", "b", ""]


def test_late_record_keeps_its_trace_on_the_way_aside() -> None:
    assert traces(window(MINUTE, late_to="late"), (7, "a"), (70, ""), (8, "b"), (9, ""), topic="late") == ["b", ""]


def test_update_has_the_trace_of_the_latest_record_of_the_window() -> None:
    assert traces(window(MINUTE, emit="update"), (7, "a"), (8, "b"), ends=False) == ["b"]


def test_records_of_a_key_do_not_lend_their_trace_to_another() -> None:
    with TestDriver(pipeline(window(MINUTE))) as driver:
        driver.send("orders", order(1, "ann", ts=0), headers=trace("a"))
        driver.send("orders", order(2, "bob", ts=1 * S))
        driver.finish()
        assert [(record.key, tuple(record.headers)) for record in driver.read("out")] == [("ann", trace("a")), ("bob", ())]


def test_windows_behind_a_repartition_and_of_partial_results() -> None:
    assert traces(lambda orders: window(MINUTE)(orders.key_by("currency")), *IN_TIME) == ["b"]
    hours = lambda orders: window(windows.tumbling("1h"))(window(MINUTE)(orders))  # noqa: E731
    assert traces(hours, *IN_TIME) == ["b"]


def test_joins_have_the_trace_of_the_record_that_completes_the_pair() -> None:
    def halves(orders: Stream[str, Order], within: Any, how: Any) -> Any:
        odd = orders.filter(lambda order: int(order.order_id[1:]) % 2 == 1)
        even = orders.filter(lambda order: int(order.order_id[1:]) % 2 == 0)
        return even.join(odd, within=within, how=how).map(str)

    assert traces(lambda orders: halves(orders, ("0s", "1m"), "inner"), (0, "a"), (10, "b"), (500, ""), (510, "d")) == ["b", "d"]
    assert traces(lambda orders: halves(orders, ("0s", "1m"), "left"), (0, "a"), (300, "b"), (500, "")) == ["a", ""]
    assert traces(lambda orders: halves(orders, MINUTE, "inner"), (0, "a"), (10, "b"), (20, "")) == ["b", "b"]


def test_records_held_back_keep_their_own() -> None:
    assert traces(lambda orders: orders.in_event_time_order(), (20, "a"), (10, "b"), (30, ""), delay="1m") == ["b", "a", ""]


def test_matches_have_the_trace_of_their_last_record() -> None:
    two = cep.begin("first", lambda order: True).next("second", lambda order: True).within("1m")
    found = lambda orders: orders.detect(two, skip=cep.skip.past_last).select(str)  # noqa: E731
    assert traces(found, (0, "a"), (10, "b"), (20, "c"), (30, "")) == ["b", "c"]  # the last one has none


def test_match_that_waits_longer_than_its_pattern_says_has_the_trace_of_the_record_that_made_it_come_out() -> None:
    rows = cep.match_recognize(
        "MATCH_RECOGNIZE (PARTITION BY user_id ORDER BY ts MEASURES LAST(A.ts) AS ts AFTER MATCH SKIP PAST LAST ROW "
        "PATTERN (A+ B?) DEFINE A AS A.ts < 100000, B AS B.ts < 50000)"
    )
    assert traces(lambda orders: orders.detect(rows), (0, "a"), (70, "b"), (500, "c"), (600, ""), ends=False) == ["c"]


def test_rows_of_sql_have_the_trace_of_the_record_that_made_them_come_out() -> None:
    rows = cep.match_recognize(
        "MATCH_RECOGNIZE (PARTITION BY user_id ORDER BY ts MEASURES A.ts AS one ONE ROW PER MATCH AFTER MATCH SKIP PAST LAST ROW "
        "PATTERN (A B) DEFINE A AS A.ts >= 0, B AS B.ts >= 0)"
    )
    assert traces(lambda orders: orders.detect(rows), (0, "a"), (70, "b"), (500, "c"), (600, "")) == ["b", ""]


def test_matches_of_live_rules_have_the_trace_of_the_record_that_made_them_come_out() -> None:
    topology = Topology("app", partitions=1)
    source = topology.source("orders", Order, key="user_id", time="ts", watermark=bounded("0s"))
    rules = topology.rules("rules")
    topology.pipeline(source, name="work")(lambda orders: orders.detect(rules=rules).to("out"))
    with TestDriver(topology) as driver:
        clause = "MEASURES A.ts AS one AFTER MATCH SKIP PAST LAST ROW PATTERN (A B) DEFINE A AS A.ts >= 0, B AS B.ts >= 0"
        driver.send("rules", msgspec.json.encode({"id": "two", "version": 1, "match_recognize": clause}), key="two")
        for number, name in enumerate("abcd"):
            driver.send("orders", order(number, ts=number * S), headers=trace(name))
        driver.finish()
        assert [tuple(record.headers) for record in driver.read("out")] == [trace("b"), trace("d")]
        assert not driver.read("app-dlq")


def test_match_that_an_absence_ends_has_the_trace_of_its_first_record() -> None:
    unpaid = cep.begin("first", lambda order: order.order_id == "o0").not_followed_by("paid", lambda order: False).within("1m")
    found = lambda orders: orders.detect(unpaid).select(str)  # noqa: E731
    assert traces(found, (0, "a"), (10, "b"), (200, "c")) == ["a"]
    stepwise = cep.begin("first", lambda order: order.order_id == "o0")
    stepwise = stepwise.not_followed_by("paid", lambda order: False).within("1m", between="previous_and_current")
    found = lambda orders: orders.detect(stepwise).select(str)  # noqa: E731
    assert traces(found, (0, "a"), (10, "b"), (200, "c")) == ["a"]


def test_process_and_its_side_output_go_on_with_the_record() -> None:
    def echo(record: Record[str, Order], ctx: Context) -> list[str]:
        ctx.side("aside", "told")
        return ["one", "two"]

    assert traces(lambda orders: orders.process(echo), (0, "a"), (10, "")) == ["a", "a", "", ""]
    assert traces(lambda orders: orders.process(echo), (0, "a"), (10, ""), topic="aside") == ["a", ""]


def test_running_totals() -> None:
    assert traces(lambda orders: orders.aggregate(emit="record", **COUNT), (0, "a"), (10, ""), (20, "b")) == ["a", "", "b"]
    assert traces(lambda orders: orders.aggregate(**COUNT), (0, "a"), (10, "b"), (20, "c"), ends=False) == ["b", "c"]


def test_what_no_result_can_ask_for_is_dropped() -> None:
    store = MemoryStore()
    task = Task(pipeline(window(MINUTE)).topology.plan(), 0, store, now_ms=START_MS)
    for number in range(50):
        feed(task, number, [(number * 60, "t")])
        task.prepare_commit(START_MS)
        task.committed(Position(b"x", number + 1, START_MS))
        low = store_id("work/window/traces")
        assert 1 <= len(list(store.scan(low, prefix_end(low)))) <= 2


CASES: dict[str, Callable[[Any], Any]] = {
    "tumbling": window(MINUTE),
    "hopping": window(windows.hopping("40s", every="20s"), lateness="20s"),
    "session": window(windows.session("15s")),
    "sliding": window(windows.sliding("20s")),
    "count": window(windows.count(3, every=2)),
    "late": window(MINUTE, lateness="1m", trigger=triggers.on_late(), late_to="late"),
    "early": window(MINUTE, trigger=triggers.every(records=2)),
    "ordered": lambda orders: orders.in_event_time_order(),
    "self join": lambda orders: orders.join(orders.filter(lambda order: order.amount_cents > 150), within=("-9s", "9s"), how="left").map(
        str
    ),
    "detect": lambda orders: orders.detect(cep.begin("x", lambda order: True).times(2).within("30s")).select(str),
}


def feed(task: Task, start: int, rows: list[Sent]) -> None:
    """Hand a batch to a task, as it comes from a topic."""
    count = len(rows)
    values: list[bytes | None] = [
        msgspec.json.encode(order(start + i, "ab"[(start + i) % 2], second * S, amount=100 + 100 * ((start + i) % 2)))
        for i, (second, _) in enumerate(rows)
    ]
    batch = RecordBatch(
        "orders", 0, range(start, start + count), [0] * count, [None] * count, values, position=start, next_offset=start + count
    )
    if any(name for _, name in rows):
        batch.read_headers = lambda: [trace(name) for _, name in rows]
    task.process("work", batch, START_MS)
    task.finish_batch(batch)


def run(case: str, pieces: list[list[Sent]], *, reopen: bool) -> dict[str, list[Any]]:
    """Return what comes out of the pieces as batches, headers and all."""
    topology = pipeline(CASES[case], "10s").topology
    store = MemoryStore()
    task = Task(topology.plan(), 0, store, now_ms=START_MS)
    out: dict[str, list[Any]] = {}
    start = 0
    for piece in pieces:
        feed(task, start, piece)
        start += len(piece)
        if not reopen and piece is not pieces[-1]:
            continue
        made = task.prepare_commit(START_MS)
        if made is None:
            continue
        for partition, columns in made.outputs.items():
            headers = columns.headers or [()] * len(columns)
            out.setdefault(partition.topic, []).extend(
                zip(columns.timestamps, columns.keys, columns.values, map(tuple, headers), strict=True)
            )
        task.committed(Position(b"x", start, START_MS))
        task = Task(topology.plan(), 0, store, now_ms=START_MS)
    return out


def test_trace_that_a_commit_may_have_dropped_is_not_found_without_the_commit() -> None:
    sent = [(11, ""), (0, ""), (0, ""), (0, "p"), (0, ""), (0, ""), (10_000, "")]
    assert run("count", [sent[:4], sent[4:]], reopen=True) == run("count", [sent], reopen=False)


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=examples(20), deadline=None)
@given(
    sent=st.lists(st.tuples(st.integers(0, 90), st.sampled_from(["", "", "p", "q", "r"])), min_size=1, max_size=14),
    cuts=st.sets(st.integers(1, 13)),
)
def test_traces_do_not_depend_on_how_the_input_is_cut(case: str, sent: list[Sent], cuts: set[int]) -> None:
    sent = [*sent, (10_000, "")]
    bounds = [0, *sorted(cut for cut in cuts if cut < len(sent)), len(sent)]
    singly = run(case, [[one] for one in sent], reopen=False)
    assert run(case, [sent], reopen=False) == singly
    assert run(case, [sent[low:high] for low, high in pairwise(bounds)], reopen=True) == singly
