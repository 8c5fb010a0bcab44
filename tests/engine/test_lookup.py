"""A stream that looks into a table: the value of now, and the value as of the record's time, against plain searches."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.testing.driver import TestDriver
from engine.topology import Topology
from engine.watermarks import bounded
from tests.effort import examples
from tests.engine.table_world import Purchase, User, feed_in_cuts, set_user, world

RECORDS = st.lists(
    st.tuples(
        st.sampled_from(["users", "orders"]),
        st.sampled_from("abc"),
        st.integers(0, 40),
        st.booleans(),
        st.sampled_from(["", "", "", "restart", "crash"]),
    ),
    max_size=25,
)


def city(found: Any) -> list[Any]:
    order, user = found
    return [order.order_id, user and user.city]


def outputs(driver: TestDriver) -> list[tuple[str, str, str | None, int]]:
    assert not driver.read("shop-dlq")
    return [(r.key, *r.value, r.timestamp_ms) for r in driver.read("out")]


# -- lookup


@settings(max_examples=examples(50), deadline=None)
@given(RECORDS, st.sampled_from(["inner", "left"]), st.booleans())
def test_lookup_finds_what_the_table_holds_when_the_record_comes(records: list[Any], how: Any, filtered: bool) -> None:
    def declare(users: Any, orders: Any) -> Any:
        table = users.filter(lambda user: user.score > 0) if filtered else users
        return orders.lookup(table, "user_id", how=how).map(city).to("out")

    with TestDriver(world(declare), partitions=3) as driver:
        rows: dict[str, tuple[str, int]] = {}
        expected = []
        for number, (topic, user_id, ts, flag, failure) in enumerate(records):
            if topic == "users":
                set_user(driver, user_id, f"city-{number}", int(flag), ts, deleted=number % 5 == 0)
                rows.pop(user_id, None)
                if number % 5:
                    rows[user_id] = (f"city-{number}", int(flag))
            else:
                driver.send("orders", Purchase(f"o{number}", user_id, ts))
                found, score = rows.get(user_id, (None, 0))
                found = found if score or not filtered else None
                if found is not None or how == "left":
                    expected.append((user_id, f"o{number}", found, ts))
            driver.commit()
            if failure:
                getattr(driver, failure)()
        assert outputs(driver) == expected


def test_lookup_without_a_row_is_counted() -> None:
    with TestDriver(world(lambda users, orders: orders.lookup(users, "user_id").map(city).to("out"))) as driver:
        driver.send("orders", Purchase("o1", "ann", 0))
        assert outputs(driver) == [] and driver.counters()["work", "lookup", "unmatched_records"] == 1


def test_lookup_does_not_wait_for_a_table_that_is_silent() -> None:
    """Time is that of the stream alone, so its windows close although nothing comes from the table."""

    def declare(users: Any, orders: Any) -> Any:
        return orders.lookup(users, "user_id", how="left").process(lambda record, ctx: [ctx.watermark_ms]).to("out")

    with TestDriver(world(declare, delay="0s")) as driver:
        for ts in (1_000, 2_000):
            driver.send("orders", Purchase("o1", "ann", ts))
            driver.commit()
        assert driver.read("out")[1].value == 999


def test_lookup_in_a_table_of_another_pipeline_is_refused_by_the_partition_it_lies_in() -> None:
    """Rows that another partitioner has placed are refused with the reason, not missed."""
    with TestDriver(world(lambda users, orders: orders.lookup(users, "user_id").map(city).to("out")), partitions=2) as driver:
        for partition in (0, 1):
            driver.send("users", User("ann", "rome", 1, 0), partition=partition)
        (letter,) = driver.read("shop-dlq")
        assert "murmur2" in str(dict(letter.headers)["error"])


# -- as_of


def as_of_world(how: str, delay: str, versions: str, *, keyed: bool = True) -> Topology:
    def declare(users: Any, orders: Any) -> Any:
        return orders.as_of(users, "user_id", how=how).map(city).to("out")

    return world(declare, delay=delay, versions=versions)


@settings(max_examples=examples(60), deadline=None)
@given(RECORDS, st.sampled_from(["inner", "left"]), st.sampled_from(["1ms", "10ms", "1d"]))
def test_as_of_finds_the_newest_version_at_or_before_the_record(records: list[Any], how: Any, versions: str) -> None:
    """Whatever the order of arrival, and however short the retention: it counts from the watermark, which nothing here is behind."""
    with TestDriver(as_of_world(how, "41ms", versions), partitions=3) as driver:
        changes: dict[str, list[tuple[int, int, str | None]]] = {}
        orders = []
        for number, (topic, user_id, ts, deletes, failure) in enumerate(records):
            if topic == "users":
                set_user(driver, user_id, f"city-{number}", 0, ts, deleted=deletes)
                changes.setdefault(user_id, []).append((ts, number, None if deletes else f"city-{number}"))
            else:
                driver.send("orders", Purchase(f"o{number}", user_id, ts))
                orders.append((user_id, f"o{number}", ts))
            if failure:
                getattr(driver, failure)()
        driver.finish()
        out = outputs(driver)
        expected = []
        for user_id, name, ts in orders:
            earlier = [change for change in changes.get(user_id, []) if change[0] <= ts]
            found = max(earlier)[2] if earlier else None
            if found is not None or how == "left":
                expected.append((user_id, name, found, ts))
    assert sorted(out, key=repr) == sorted(expected, key=repr)


@settings(max_examples=examples(40), deadline=None)
@given(RECORDS, st.integers(2, 25), st.booleans())
def test_as_of_gives_the_same_for_every_cut_and_restart(records: list[Any], size: int, restarts: bool) -> None:
    """Late records included: with a watermark close behind the highest time, some come after it."""
    rows: list[tuple[str, bytes, Any]] = []
    for number, (topic, user_id, ts, deletes, _) in enumerate(records):
        row = User(user_id, f"city-{number}", 0, ts) if topic == "users" else Purchase(f"o{number}", user_id, ts)
        rows.append((topic, user_id.encode(), None if deletes and topic == "users" else row))
    results = []
    for cut in (1, size):
        topology = Topology("shop")
        users = topology.table("users", User, time="ts", watermark=bounded("5ms"), versions="10ms")
        orders = topology.source("orders", Purchase, time="ts", watermark=bounded("5ms"))
        topology.pipeline(users, orders, name="work")(lambda users, orders: orders.as_of(users, how="left").map(city).to("out"))
        with TestDriver(topology) as driver:
            half = len(rows) // 2
            feed_in_cuts(driver, rows[:half], cut)
            if restarts and cut > 1:
                driver.restart()
            feed_in_cuts(driver, rows[half:], cut)
            driver.finish()
            results.append((outputs(driver), driver.counters().get(("work", "as_of", "before_history"), 0) if not restarts else 0))
    assert results[0] == results[1]


def test_as_of_waits_for_the_table_and_not_for_an_idle_one() -> None:
    with TestDriver(as_of_world("left", "0s", "1d")) as driver:
        driver.send("orders", Purchase("o1", "ann", 1_000))
        driver.send("orders", Purchase("o2", "ann", 5_000))
        assert outputs(driver) == []
        set_user(driver, "ann", "rome", ts=900)
        set_user(driver, "ann", "oslo", ts=3_000)
        assert outputs(driver) == [("ann", "o1", "rome", 1_000)]
        driver.advance("30s")
        driver.send("orders", Purchase("o3", "ann", 9_000))
        driver.commit()
        driver.advance("31s")  # the table is idle now
        driver.send("orders", Purchase("o4", "ann", 9_500))
        assert outputs(driver) == [("ann", "o2", "oslo", 5_000), ("ann", "o3", "oslo", 9_000)]


def test_as_of_late_record_is_looked_up_as_far_back_as_the_history_goes() -> None:
    with TestDriver(as_of_world("left", "0s", "10s")) as driver:
        for ts in (0, 20_000, 40_000):
            set_user(driver, "ann", f"city-{ts}", ts=ts)
            driver.send("orders", Purchase(f"at-{ts}", "ann", ts))
            driver.commit()
        outputs(driver)
        for ts in (38_000, 29_998):
            driver.send("orders", Purchase("late", "ann", ts))
        assert outputs(driver) == [("ann", "late", "city-20000", 38_000), ("ann", "late", None, 29_998)]
        assert driver.counters()["work", "as_of", "before_history"] == 1
        driver.finish()
        assert driver.state("work", "ann", "users")["versions"] == [(40_000, User("ann", "city-40000", 0, 40_000))]


def test_as_of_forgets_a_deleted_row_with_its_history() -> None:
    with TestDriver(as_of_world("left", "0s", "10s")) as driver:
        set_user(driver, "ann", "rome", ts=0)
        set_user(driver, "ann", "", ts=1_000, deleted=True)
        driver.finish()
        assert driver.state("work", "ann", "users") == {"value": None}
        assert not [key for key, _ in driver._stores[0].scan(b"\x00\x00\x00\x01", b"\xff" * 8) if b"ann" in key]


def test_as_of_record_that_fails_downstream_is_the_only_one_that_goes_to_the_dead_letters() -> None:
    def declare(users: Any, orders: Any) -> Any:
        return orders.as_of(users, "user_id").map(lambda found: 100 // found[1].score).to("out")

    with TestDriver(world(declare, delay="0s", versions="1d")) as driver:
        for user, score in (("a", 5), ("b", 0), ("c", 4)):
            set_user(driver, user, "rome", score, ts=1)
            driver.send("orders", Purchase(f"of-{user}", user, 10))
        driver.finish()
        assert sorted(r.value for r in driver.read("out")) == [20, 25]
        assert [(r.key, r.timestamp_ms) for r in driver.read("shop-dlq")] == [("b", 10)]
