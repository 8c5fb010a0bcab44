"""Tables joined by key and on a foreign key: random changes against plain dicts, answers under way, and ways that cross."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.testing.driver import TestDriver
from engine.topology import Topology
from tests.effort import examples
from tests.engine.table_world import FAILURES, ORDERS, USERS, Purchase, User, check_chain, feed_in_cuts, latest, set_user, world


def pair(left: Any, right: Any) -> list[Any]:
    return [left and {"order_id": left.order_id, "user_id": left.user_id, "ts": left.ts}, right and right.city]


def with_city(value: Any) -> list[Any]:
    order, user = value
    return pair(order, user)


def apply(driver: TestDriver, step: tuple[Any, ...], users: dict[str, User], orders: dict[str, Purchase], key: str) -> None:
    """Send a change of users or orders, and do the same to the dicts; `key` says which field is the key of orders."""
    topic, name, other, score, deleted = step
    if topic == "users":
        set_user(driver, name, other or "none", score, deleted=deleted)
        users.pop(name, None)
        if not deleted:
            users[name] = User(name, other or "none", score, 0)
        return
    order = Purchase(name, other, 0)
    at = name if key == "order_id" else "abc"["uvwxyz".index(name) % 3]
    driver.send("orders", None if deleted else order, key=at)
    orders.pop(at, None)
    if not deleted:
        orders[at] = order


def orders_table(topology: Topology, key: str) -> Any:
    return topology.table("orders", Purchase, key="order_id" if key == "order_id" else placed, key_type=str)


def placed(order: Purchase) -> str:
    return "abc"["uvwxyz".index(order.order_id) % 3]


@settings(max_examples=examples(50), deadline=None)
@given(st.lists(st.tuples(st.one_of(USERS, ORDERS), FAILURES), max_size=20), st.sampled_from(["inner", "left", "right", "outer"]))
def test_tables_joined_by_key_equal_the_rows_that_are_there(steps: list[tuple[Any, str]], how: Any) -> None:
    topology = Topology("shop")
    users = topology.table("users", User, key="user_id")
    orders = orders_table(topology, "user")

    @topology.pipeline(orders, users, name="work")
    def joined(orders: Any, users: Any) -> Any:
        pairs = orders.join(users, how=how).map(with_city)
        return [pairs.to("pairs"), pairs.changes().to("changes")]

    with TestDriver(topology, partitions=2) as driver:
        user_rows: dict[str, User] = {}
        order_rows: dict[str, Purchase] = {}
        for step, failure in steps:
            apply(driver, step, user_rows, order_rows, "user")
            if failure:
                getattr(driver, failure)()
        keys = {
            "inner": user_rows.keys() & order_rows.keys(),
            "left": order_rows.keys(),
            "right": user_rows.keys(),
            "outer": user_rows.keys() | order_rows.keys(),
        }[how]
        expected = {key: pair(order_rows.get(key), user_rows.get(key)) for key in keys}
        assert check_chain(driver, "changes") == latest(driver, "pairs") == expected


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.tuples(st.one_of(USERS, ORDERS), FAILURES, st.booleans()), max_size=30), st.sampled_from(["inner", "left"]))
def test_tables_joined_on_a_foreign_key_equal_the_rows_that_are_there(steps: list[tuple[Any, str, bool]], how: Any) -> None:
    topology = Topology("shop")
    users = topology.table("users", User, key="user_id")
    orders = orders_table(topology, "order_id")

    @topology.pipeline(orders, users, name="work")
    def joined(orders: Any, users: Any) -> Any:
        pairs = orders.join(users.filter(lambda user: user.score >= -1), on="user_id", how=how).map(with_city)
        return [pairs.to("pairs"), pairs.changes().to("changes")]

    with TestDriver(topology, partitions=3) as driver:
        user_rows: dict[str, User] = {}
        order_rows: dict[str, Purchase] = {}
        for step, failure, commits in steps:
            apply(driver, step, user_rows, order_rows, "order_id")
            if failure:
                getattr(driver, failure)()
            elif commits:
                driver.commit()
        expected = {}
        for key, order in order_rows.items():
            user = user_rows.get(order.user_id or "")
            user = user if user is not None and user.score >= -1 else None
            if user is not None or how == "left":
                expected[key] = pair(order, user)
        assert check_chain(driver, "changes") == latest(driver, "pairs") == expected
        for key in list(order_rows):
            driver.send("orders", None, key=key)
        assert check_chain(driver, "changes", expected) == {}
        assert [driver.state("work", user, "join-subscriptions") for user in "abc"] == [{"subscriptions": {}}] * 3
        assert not driver.read("shop-dlq")


def test_foreign_key_that_changes_while_its_answer_is_under_way_drops_the_stale_one() -> None:
    topology = Topology("shop")
    users = topology.table("users", User, key="user_id")
    orders = orders_table(topology, "order_id")
    topology.pipeline(orders, users, name="work")(lambda orders, users: orders.join(users, on="user_id").map(with_city).to("pairs"))
    with TestDriver(topology) as driver:
        set_user(driver, "a", "rome")
        set_user(driver, "b", "oslo")
        driver.send("orders", Purchase("u", "a", 1), key="u")
        driver._commit(driver._tasks[0])  # the ask for "a" is in its topic, and not yet read
        driver.send("orders", Purchase("u", "b", 2), key="u")
        assert [r.value[1] for r in driver.read("pairs")] == ["oslo"]
        assert driver.counters()["work", "join", "stale_answers"] == 1


def test_table_joined_with_itself_on_a_foreign_key_follows_both_ends() -> None:
    topology = Topology("shop")
    users = topology.table("users", User, key="user_id")
    topology.pipeline(users, name="work")(lambda users: users.join(users, on="city").map(both_scores).to("pairs"))
    with TestDriver(topology, partitions=2) as driver:
        set_user(driver, "boss", "boss", 1)
        set_user(driver, "ann", "boss", 2)
        set_user(driver, "boss", "boss", 5)
        assert latest(driver, "pairs") == {"boss": [5, 5], "ann": [2, 5]}
        set_user(driver, "boss", "", deleted=True)
        assert {record.key for record in driver.read("pairs") if record.value is None} == {"boss", "ann"}


def both_scores(value: Any) -> list[int]:
    return [value[0].score, value[1].score]


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.one_of(USERS, ORDERS), max_size=20), st.integers(2, 20))
def test_size_of_batches_changes_nothing_where_ways_cross(steps: list[tuple[Any, ...]], size: int) -> None:
    """A table joined with its own filter, and a branch that is merged again: what comes out, and in which order, is the same."""

    def declare(users: Any, orders: Any) -> Any:
        branches = orders.branch("rest", early=lambda order: order.order_id < "w")
        merged = branches["early"].map(lambda order: order.order_id).merge(branches["rest"].map(lambda order: 0))
        own = users.join(users.filter(lambda user: user.score > 0), how="left").changes()
        looked = users.changes().map(lambda change: 1).lookup(users, how="left").map(lambda found: found[1])
        others = orders.filter(lambda order: order.user_id == "a")
        paired = orders.join(others, within=("0s", "0s"), how="left").map(lambda found: [one and one.order_id for one in found])
        return [merged.to("merged"), own.to("own"), looked.to("looked"), paired.to("paired")]

    records: list[tuple[str, bytes, Any]] = []
    for topic, name, other, score, deleted in steps:
        row = User(name, other, score, 0) if topic == "users" else Purchase(name, other, 0)
        records.append((topic, name.encode(), None if deleted and topic == "users" else row))
    results = []
    for cut in (1, size):
        with TestDriver(world(declare)) as driver:
            feed_in_cuts(driver, records, cut)
            driver.finish()
            results.append([[(r.key, r.value) for r in driver.read(topic)] for topic in ("merged", "own", "looked", "paired")])
            assert not driver.read("shop-dlq")
    assert results[0] == results[1]
