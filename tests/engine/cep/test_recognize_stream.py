"""`stream.detect(cep.match_recognize(...))`: in pipelines, over restarts, and against the same pattern written in Python."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import ConfigError, Struct, cep
from engine.testing import TestDriver
from engine.topology import Topology
from engine.watermarks import bounded


class Order(Struct, frozen=True):
    number: int
    user_id: str
    country: str
    amount: int
    ts: int


Declare = Callable[[Any], Any]

TEST_PAYMENT = """
    PARTITION BY user_id ORDER BY ts
    MEASURES SMALL.number AS small, LARGE.number AS large, COUNT(*) AS orders
    ONE ROW PER MATCH
    AFTER MATCH SKIP PAST LAST ROW
    PATTERN (SMALL ANY_*? LARGE) WITHIN INTERVAL '10' SECONDS
    DEFINE SMALL AS amount < 5, LARGE AS amount > 100 * SMALL.amount
"""


def topology_of(declare: Declare, *, partitions: int = 1, **source: Any) -> Topology:
    topology = Topology("shop", partitions=partitions)
    options: dict[str, Any] = {"key": "user_id", "time": "ts", "watermark": bounded("5s")} | source
    topology.pipeline(topology.source("orders", Order, **options), name="work")(declare)
    return topology


def driver_of(sql: str, *, partitions: int = 1, **options: Any) -> TestDriver:
    return TestDriver(topology_of(lambda orders: orders.detect(cep.match_recognize(sql), **options).to("out")), partitions)


def send(driver: TestDriver, *orders: tuple[int, str, int], country: str = "DE") -> None:
    for ts, user, amount in orders:
        driver.send("orders", Order(ts, user, country, amount, ts * 1_000))


def test_rows_come_out_as_dicts_when_the_watermark_has_passed_them() -> None:
    with driver_of(TEST_PAYMENT) as driver:
        send(driver, (1, "ann", 1), (4, "ann", 500), (2, "ann", 50), (3, "bob", 900))
        assert driver.read("out") == []
        send(driver, (10, "eve", 7))
        (record,) = driver.read("out")
        assert (record.key, record.value, record.timestamp_ms) == ("ann", {"user_id": "ann", "small": 1, "large": 4, "orders": 3}, 4_000)


def test_late_records_are_counted_and_sent_on() -> None:
    with driver_of(TEST_PAYMENT, late_to="late", name="payments") as driver:
        send(driver, (1, "ann", 1), (20, "bob", 1), (3, "ann", 500))
        assert [record.value["number"] for record in driver.read("late")] == [3]
        assert driver.counters()["work", "payments", "late_records"] == 1


@pytest.mark.parametrize("stop", [TestDriver.restart, TestDriver.crash])
def test_rows_are_the_same_over_restarts_and_crashes(stop: Callable[[TestDriver], None]) -> None:
    sql = TEST_PAYMENT.replace("PATTERN", "PATTERN /* greedy */").replace("*?", "*")
    orders = [(1, "ann", 1), (2, "ann", 500), (3, "bob", 2), (4, "ann", 400), (9, "bob", 300), (11, "bob", 301), (40, "ann", 9)]
    results = []
    for stopping in (False, True):
        with driver_of(sql) as driver:
            for order in orders:
                send(driver, order)
                if stopping:
                    driver.commit()
                    stop(driver)
            driver.finish()
            results.append([(record.timestamp_ms, record.value) for record in driver.read("out")])
    assert results[0] == results[1]
    assert results[0] == [
        (11_000, {"user_id": "ann", "small": 1, "large": 4, "orders": 3}),
        (13_000, {"user_id": "bob", "small": 3, "large": 11, "orders": 3}),
    ]


def test_open_match_comes_out_when_all_input_ends() -> None:
    sql = "PARTITION BY user_id ORDER BY ts MEASURES COUNT(*) AS orders PATTERN (A{2,}) DEFINE A AS amount > 1"
    with driver_of(sql) as driver:
        send(driver, (1, "ann", 2), (2, "ann", 3), (3, "bob", 3), (50, "eve", 1))
        assert driver.read("out") == []
        driver.finish()
        assert [(record.timestamp_ms, record.value) for record in driver.read("out")] == [(2_000, {"user_id": "ann", "orders": 2})]


def test_second_order_column_decides_among_rows_of_the_same_time() -> None:
    sql = "PARTITION BY user_id ORDER BY ts, amount MEASURES ARRAY_AGG(amount) AS amounts PATTERN (A{3})"
    with driver_of(sql) as driver:
        send(driver, (1, "ann", 30), (1, "ann", 10), (1, "ann", 20))
        driver.finish()
        assert [record.value["amounts"] for record in driver.read("out")] == [[10, 20, 30]]


def test_bad_record_goes_to_the_dead_letters_and_the_others_go_on() -> None:
    sql = "PARTITION BY user_id ORDER BY ts MEASURES B.number AS b PATTERN (A B) DEFINE A AS SQRT(amount) >= 0, B AS amount > 3"
    with driver_of(sql) as driver:
        send(driver, (1, "ann", 4), (2, "ann", -4), (3, "ann", 5), (30, "bob", 9))
        driver.finish()
        assert [record.value["b"] for record in driver.read("out")] == [3]
        assert len(driver.read("shop-dlq")) == 1


# -- keys and order


def test_partition_that_is_the_key_needs_no_repartition() -> None:
    topology = topology_of(lambda orders: orders.filter(bool).detect(cep.match_recognize(TEST_PAYMENT)).to("out"))
    assert topology.plan().internal_topics == ()


@pytest.mark.parametrize("source", [{}, {"key": None}, {"key": lambda order: order.user_id}])
def test_partition_that_is_not_the_key_gets_a_repartition(source: dict[str, Any]) -> None:
    sql = TEST_PAYMENT if source else TEST_PAYMENT.replace("user_id", "country")
    topology = topology_of(lambda orders: orders.detect(cep.match_recognize(sql)).to("out"), partitions=3, **source)
    assert topology.plan().internal_topics == ("shop-work-detect-repartition-1",)
    with TestDriver(topology, 3) as driver:
        for number, (user, amount) in enumerate([("ann", 1), ("bob", 500), ("ann", 600)]):
            driver.send("orders", Order(number, user, "DE", amount, number * 1_000), key=user)
        driver.finish()
        assert [(record.value["small"], record.value["large"]) for record in driver.read("out")] == [(0, 2 if source else 1)]


def test_partition_by_several_columns_is_keyed_by_all_of_them() -> None:
    sql = "PARTITION BY user_id, country ORDER BY ts MEASURES COUNT(*) AS orders PATTERN (A{2})"
    with driver_of(sql, partitions=2) as driver:
        send(driver, (1, "ann", 1), (2, "bob", 1))
        send(driver, (3, "ann", 1), (4, "bob", 1), country="FR")
        send(driver, (5, "ann", 1))
        driver.finish()
        (record,) = driver.read("out")
        assert record.value == {"user_id": "ann", "country": "DE", "orders": 2}


def test_event_time_column_orders_a_stream_whose_field_is_not_known() -> None:
    sql = TEST_PAYMENT.replace("ORDER BY ts", "ORDER BY timestamp_ms").replace("user_id", "user")

    def declare(orders: Any) -> Any:
        mapped = orders.map(lambda order: {"user": order.user_id, "amount": order.amount, "number": order.number})
        return mapped.detect(cep.match_recognize(sql)).to("out")

    with TestDriver(topology_of(declare)) as driver:
        send(driver, (2, "ann", 500), (1, "ann", 1))
        driver.finish()
        assert [record.value for record in driver.read("out")] == [{"user": "ann", "small": 1, "large": 2, "orders": 2}]


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (
            lambda s: s.detect(cep.match_recognize(TEST_PAYMENT.replace("BY ts", "BY amount"))),
            "line 2, column 35: amount is not known .* that is ts",
        ),
        (lambda s: s.map(lambda order: order).detect(cep.match_recognize(TEST_PAYMENT)), "write ORDER BY timestamp_ms"),
        (lambda s: s.detect(cep.match_recognize(TEST_PAYMENT.replace("user_id", "nobody"))), "line 2, column 18: .*no field 'nobody'"),
        (lambda s: s.detect(cep.match_recognize(TEST_PAYMENT.replace("BY ts", "BY ts, no"))), "no field 'no'"),
        (lambda s: s.detect(cep.match_recognize(TEST_PAYMENT.replace("< 5", "< five"))), "no field 'five'; they have number, user_id"),
        (lambda s: s.detect(cep.match_recognize(TEST_PAYMENT), skip=cep.skip.past_last), "AFTER MATCH SKIP"),
        (lambda s: s.detect(cep.match_recognize(TEST_PAYMENT), on_too_many="drop_newest"), "one row after another"),
        (lambda s: s.detect(cep.match_recognize(TEST_PAYMENT), max_partials=0), "positive number"),
        (lambda s: s.detect("PATTERN (A)"), "is not a pattern"),
    ],
)
def test_clause_that_does_not_fit_the_stream_is_refused(declare: Declare, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        topology_of(lambda orders: declare(orders).to("out"))


def test_signature_follows_what_stored_rows_rest_on() -> None:
    def signature(sql: str) -> str:
        topology = topology_of(lambda orders: orders.detect(cep.match_recognize(sql)).to("out"))
        return topology.plan().signatures["work/detect"]

    same = signature(TEST_PAYMENT)
    assert signature(TEST_PAYMENT.replace("< 5", "< 6").replace("COUNT(*)", "SUM(amount)")) == same
    changes = [
        ("SMALL ANY_", "SMALL SMALL ANY_"),
        ("'10'", "'11'"),
        ("PAST LAST ROW", "TO NEXT ROW"),
        ("< 5", "< PREV(amount)"),
        ("*?", "*"),
    ]
    assert len({signature(TEST_PAYMENT.replace(old, new)) for old, new in changes} | {same}) == len(changes) + 1


# -- against the pattern algebra, where both say the same

PAIRS = {
    "three in a row": ("A{3}", cep.begin("A").times(3).consecutive(), {}),
    "one after the other": (
        "A B C",
        cep.begin("A", lambda o: o.amount < 3).next("B", lambda o: o.amount > 1).next("C", lambda o, m: o.amount > m["A"][0].amount),
        {"A": "amount < 3", "B": "amount > 1", "C": "amount > A.amount"},
    ),
    "a group again": (
        "(A B){2}",
        cep.begin(cep.begin("A", lambda o: o.amount < 3).next("B", lambda o: o.amount > 1)).times(2).consecutive(),
        {"A": "amount < 3", "B": "amount > 1"},
    ),
    "a loop that its end decides": (
        "A B+ C",
        cep.begin("A", lambda o: o.amount == 1)
        .next("B", lambda o: o.amount == 2)
        .one_or_more()
        .consecutive()
        .next("C", lambda o: o.amount > 2),
        {"A": "amount = 1", "B": "amount = 2", "C": "amount > 2"},
    ),
    "something between": (
        "A B? C",
        cep.begin("A", lambda o: o.amount == 1).next("B", lambda o: o.amount == 2).optional().next("C", lambda o: o.amount > 2),
        {"A": "amount = 1", "B": "amount = 2", "C": "amount > 2"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
@given(
    orders=st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["ann", "bob"]), st.integers(1, 4)), max_size=14),
    skip=st.sampled_from([("PAST LAST ROW", cep.skip.past_last), ("TO NEXT ROW", cep.skip.to_next)]),
    within=st.sampled_from([None, 4, 9]),
)
def test_match_recognize_finds_what_the_same_pattern_in_python_finds(
    name: str, orders: list[tuple[int, str, int]], skip: tuple[str, cep.Skip], within: int | None
) -> None:
    text, pattern, defines = PAIRS[name]
    stages = [stage for stage in "ABC" if stage in text]
    if within is not None:
        pattern = pattern.within(f"{within}s")
    sql = f"""PARTITION BY user_id ORDER BY ts
        MEASURES {", ".join(f"ARRAY_AGG({stage}.number) AS {stage}" for stage in stages)} AFTER MATCH SKIP {skip[0]}
        PATTERN ({text}) {"" if within is None else f"WITHIN INTERVAL '{within}' SECONDS"}
        {"DEFINE " + ", ".join(f"{stage} AS {condition}" for stage, condition in defines.items()) if defines else ""}"""

    def describe(match: cep.Match[Order]) -> dict[str, Any]:
        taken = {stage: [order.number for order in match[stage]] or None for stage in stages}
        return {"user_id": match.key, **taken}

    def both(stream: Any) -> Sequence[Any]:
        in_sql = stream.detect(cep.match_recognize(sql), name="in-sql").to("sql")
        return [in_sql, stream.detect(pattern, skip=skip[1], name="in-python").select(describe).to("python")]

    with TestDriver(topology_of(both)) as driver:
        time = 0
        for number, (gap, user, amount) in enumerate(orders):
            time += gap
            driver.send("orders", Order(number, user, "DE", amount, time * 1_000))
        driver.finish()
        in_sql, in_python = ([(record.timestamp_ms, record.value) for record in driver.read(topic)] for topic in ("sql", "python"))
    assert in_sql == in_python
