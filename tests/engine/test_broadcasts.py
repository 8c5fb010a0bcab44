"""Broadcast tables: every task holds all rows, whatever partition a record that looks into them lies in."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from engine import agg
from engine.drawing import describe_plan, draw_mermaid, draw_text
from engine.errors import ConfigError
from engine.testing.driver import TestDriver
from engine.topology import Topology
from tests.effort import examples


class Rate(Struct, frozen=True):
    """How many cents one unit of a currency is worth."""

    currency: str
    cents: int


class Sale(Struct, frozen=True):
    """A record that looks a rate up."""

    user: str
    currency: str | None
    units: int


def market(declare: Callable[[Any, Any], Any], *, partitions: int = 2, **options: Any) -> Topology:
    topology = Topology("market", **options)
    sales = topology.source("sales", Sale, key="user")
    rates = topology.broadcast("rates", Rate, key="currency", partitions=partitions)
    topology.pipeline(sales, rates, name="work")(declare)
    return topology


def worth(found: Any) -> int | None:
    sale, rate = found
    return None if rate is None else sale.units * rate.cents


def by_currency(sales: Any, rates: Any) -> Any:
    return sales.lookup(rates, "currency", how="left").map(worth).to("out")


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (lambda sales, rates: rates.to("a"), "every task holds the whole"),
        (lambda sales, rates: rates.changes().to("a"), "every task holds the whole"),
        (lambda sales, rates: rates.group_by("cents").aggregate(n=agg.count()).to("a"), "every task holds the whole"),
        (lambda sales, rates: sales.table("s").join(rates, on="currency").to("a"), "every task holds the whole"),
        (lambda sales, rates: sales.as_of(rates).to("a"), "keeps no versions"),
        (lambda sales, rates: sales.key_by("units").lookup(rates).to("a"), "keys differ"),
    ],
)
def test_broadcast_table_what_it_cannot_do_is_refused(declare: Callable[[Any, Any], Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        market(declare)
    assert "work" in str(error.value)


def test_broadcast_bad_declarations_are_refused() -> None:
    with pytest.raises(ConfigError, match="partitions=0"):
        Topology("market").broadcast("rates", Rate, partitions=0)
    topology = Topology("market")
    topology.pipeline(topology.broadcast("rates", Rate, key="currency"), name="none")(lambda rates: [])
    with pytest.raises(ConfigError, match="'none' reads only broadcast tables"):
        topology.plan()


@settings(max_examples=examples(40), deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from(["EUR", "USD", "GBP"]), st.integers(0, 9), st.sampled_from(["", "", "restart"])),
        max_size=20,
    )
)
def test_broadcast_row_is_found_from_every_partition(steps: list[tuple[bool, str, int, str]]) -> None:
    with TestDriver(market(by_currency), partitions=3) as driver:
        rates: dict[str, int] = {}
        expected = []
        for number, (is_rate, currency, amount, failure) in enumerate(steps):
            if is_rate:
                driver.send("rates", Rate(currency, amount) if amount else None, key=currency)
                rates[currency] = amount
            else:
                driver.send("sales", Sale(f"user-{number}", currency, amount))
                expected.append((f"user-{number}", rates[currency] * amount if rates.get(currency) else None))
            if failure:
                getattr(driver, failure)()
        assert sorted((r.key, r.value) for r in driver.read("out")) == sorted(expected)
        assert not driver.read("market-dlq")


def test_broadcast_table_filtered_and_mapped_is_seen_that_way_and_writes_nothing_by_itself() -> None:
    def declare(sales: Any, rates: Any) -> Any:
        cheap = rates.filter(lambda rate: rate.cents < 100).map(lambda rate: rate.cents)
        return sales.lookup(cheap, "currency", how="left").map(lambda found: found[1]).to("out")

    with TestDriver(market(declare), partitions=2) as driver:
        for currency, cents in (("EUR", 99), ("USD", 100)):
            driver.send("rates", Rate(currency, cents))
        for asked in ("EUR", "USD", None):
            driver.send("sales", Sale("ann", asked, 1))
        assert [r.value for r in driver.read("out")] == [99, None, None]


def test_broadcast_bad_record_is_one_dead_letter_however_many_tasks_read_it() -> None:
    with TestDriver(market(by_currency), partitions=3) as driver:
        driver.send("rates", b"not json", key="EUR")
        driver.send("rates", None, partition=1)
        letters = driver.read("market-dlq")
        assert [dict(letter.headers)["pipeline"] for letter in letters] == [b"work", b"work"]
    with TestDriver(market(by_currency, on_error="fail")) as driver, pytest.raises(Exception, match="not a valid Rate"):
        driver.send("rates", b"not json", key="EUR")


def test_broadcast_crash_reads_on_where_the_state_ends() -> None:
    with TestDriver(market(by_currency), partitions=2) as driver:
        driver.send("rates", Rate("EUR", 2))
        driver.commit()
        driver.send("rates", Rate("EUR", 3))
        driver.crash()
        driver.send("sales", Sale("ann", "EUR", 5))
        assert [r.value for r in driver.read("out")] == [15]


def test_broadcast_holds_no_time_back() -> None:
    def declare(sales: Any, rates: Any) -> Any:
        return sales.lookup(rates, "currency", how="left").process(lambda record, ctx: [ctx.watermark_ms]).to("out")

    with TestDriver(market(declare)) as driver:
        for at in (1_000, 2_000):
            driver.send("sales", Sale("ann", "EUR", 1), at=at)
        assert driver.read("out")[1].value == 999


def test_broadcast_topic_is_part_of_the_plan_and_of_its_drawings() -> None:
    plan = market(by_currency, partitions=2).plan()
    assert list(plan.input_topics) == ["sales", "market-control"] and len(plan.broadcast_inputs) == 2
    assert {spec.name: spec.partitions for spec in plan.topic_specs()}["rates"] == 2
    assert {topic["name"]: topic["role"] for topic in describe_plan(plan)["topics"]}["rates"] == "broadcast"
    assert "lookup, in rates" in draw_text(plan)
    assert "-.->" in draw_mermaid(plan)


def test_broadcast_of_changes_is_refused() -> None:
    from cdc import debezium

    app = Topology("changes")
    orders, rows = app.source("orders", dict), app.broadcast("rows", codec=debezium(dict))
    with pytest.raises(ConfigError, match="these are changes of rows"):

        @app.pipeline(orders, rows)
        def looked(stream: Any, table: Any) -> Any:
            return stream.lookup(table).to("out")
