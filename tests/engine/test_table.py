"""Tables as users declare them: refusals, deletes, aggregates that go down; random changes against plain dicts."""

from collections import defaultdict
from collections.abc import Callable
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from engine import agg
from engine.block import Block
from engine.errors import ConfigError
from engine.operators.base import OperatorContext
from engine.operators.rows import Rows
from engine.operators.table import RowsOperator
from engine.table import stored_table
from engine.testing.driver import TestDriver
from engine.topology import Topology
from tests.effort import examples
from tests.engine.table_world import FAILURES, USERS, Purchase, User, check_chain, latest, set_user, world

# -- declarations


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (lambda users, orders: users, "returned a Table"),
        (lambda users, orders: users.filter(7).to("a"), "filter: 7 is not callable"),
        (lambda users, orders: users.group_by("planet").aggregate(n=agg.count()).to("a"), "no field 'planet'"),
        (lambda users, orders: users.group_by("city").aggregate(n=agg.first("score")).to("a"), "agg.first cannot follow"),
        (lambda users, orders: users.group_by("city").aggregate(n=agg.sum("city")).to("a"), "a number is needed"),
        (lambda users, orders: users.group_by("city").aggregate(n=3).to("a"), "not an aggregate"),
        (lambda users, orders: users.group_by("city").aggregate().to("a"), "at least one aggregate"),
        (lambda users, orders: users.group_by("city").aggregate(key=agg.count()).to("a"), "a field 'key' already"),
        (lambda users, orders: users.join(orders).to("a"), "is not a table"),
        (lambda users, orders: users.join(orders.table("o"), how="cross").to("a"), "how='cross'"),
        (lambda users, orders: orders.table("o").join(users, on="user_id", how="outer").to("a"), "how='outer'"),
        (lambda users, orders: orders.table("o").join(users, on="ts").to("a"), "on=ts gives"),
        (lambda users, orders: orders.table("o").join(users, on="nothing").to("a"), "no field 'nothing'"),
        (lambda users, orders: users.join(orders.key_by("ts").table("o")).to("a"), "keys differ"),
        (lambda users, orders: orders.table("").changes().to("a"), "is not a name"),
        (lambda users, orders: orders.table("o", versions="0s").to("a"), "must be positive"),
        (lambda users, orders: orders.lookup(orders).to("a"), "is not a table"),
        (lambda users, orders: orders.lookup(users, "ts").to("a"), "keys differ"),
        (lambda users, orders: orders.lookup(users, "nothing").to("a"), "no field 'nothing'"),
        (lambda users, orders: orders.lookup(users, how="outer").to("a"), "how='outer'"),
        (lambda users, orders: orders.as_of(users).to("a"), "keeps only the present values"),
    ],
)
def test_table_bad_declaration_is_refused_by_name(declare: Callable[[Any, Any], Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        world(declare)
    assert "work" in str(error.value)


def test_table_outside_of_a_pipeline_says_where_it_belongs() -> None:
    users = Topology("shop").table("users", User)
    with pytest.raises(ConfigError, match="belongs inside a pipeline"):
        users.lookup(users)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="versions of table 'users'"):
        Topology("shop").table("users", User, versions="a while")


def test_table_with_other_versions_over_its_state_is_refused() -> None:
    assert world(lambda users, orders: users.to("a")).plan().signatures == {"work/users": "table"}
    assert world(lambda users, orders: users.to("a"), versions="1d").plan().signatures == {"work/users": "table with versions"}


# -- what a table does


def test_table_hands_on_changes_and_deletes() -> None:
    with TestDriver(world(lambda users, orders: [users.changes().map(cities).to("changes"), users.to("rows")])) as driver:
        set_user(driver, "a", "rome")
        set_user(driver, "a", "oslo")
        set_user(driver, "b", "", deleted=True)
        assert driver.state("work", "a")["value"].city == "oslo"
        set_user(driver, "a", "", deleted=True)
        assert [r.value for r in driver.read("changes")] == [[None, "rome"], ["rome", "oslo"], ["oslo", None]]
        assert [r.value and r.value["city"] for r in driver.read("rows")] == ["rome", "oslo", None]
        assert driver.state("work", "a") == {"value": None}
        assert not driver.read("shop-dlq")


def cities(change: Any) -> tuple[str | None, str | None]:
    old, new = change
    return old and old.city, new and new.city


def test_table_output_is_compacted() -> None:
    plan = world(lambda users, orders: users.to("rows")).plan()
    assert plan.outputs["rows"].compacted


def test_table_of_a_stream_takes_none_as_a_delete() -> None:
    def named(purchase: Purchase) -> str | None:
        return purchase.user_id

    with TestDriver(world(lambda users, orders: orders.map(named).table("of").to("rows"))) as driver:
        for user in ("ann", None):
            driver.send("orders", Purchase("o1", user, 0))
        assert [r.value for r in driver.read("rows")] == ["ann", None]


def test_table_of_structs_needs_their_type() -> None:
    with TestDriver(world(lambda users, orders: orders.map(lambda order: order).table("untyped").to("rows"))) as driver:
        driver.send("orders", Purchase("o1", "ann", 0))
        assert "annotate" in str(dict(driver.read("shop-dlq")[0].headers)["error"])


def test_tombstone_without_a_key_is_a_dead_letter() -> None:
    with TestDriver(world(lambda users, orders: users.to("rows"))) as driver:
        driver.send("users", None, partition=0)
        assert "no key" in str(dict(driver.read("shop-dlq")[0].headers)["error"])


def test_infinity_in_the_sum_of_a_table_is_a_dead_letter() -> None:
    def declare(users: Any, orders: Any) -> Any:
        return users.group_by("city").aggregate(total=agg.mean(weight)).to("sums")

    def weight(user: User) -> float:
        return 1.0 / user.score if user.score else float("inf")

    with TestDriver(world(declare)) as driver:
        for user, score in (("a", 2), ("b", 0), ("c", 4)):
            set_user(driver, user, "rome", score)
        assert latest(driver, "sums") == {"rome": {"key": "rome", "total": 0.375}}
        assert "could not be taken back" in str(dict(driver.read("shop-dlq")[0].headers)["error"])
        set_user(driver, "c", "", deleted=True)
        assert latest(driver, "sums") == {"rome": {"key": "rome", "total": 0.5}}


@settings(max_examples=examples(50), deadline=None)
@given(st.lists(st.tuples(USERS, FAILURES), max_size=20), st.booleans())
def test_table_aggregates_equal_those_over_the_rows_that_are_there(steps: list[tuple[Any, str]], restarts: bool) -> None:
    def declare(users: Any, orders: Any) -> Any:
        grouped = users.filter(lambda user: user.score >= -2).group_by(city_of).aggregate(
            n=agg.count(), total=agg.sum("score"), mean=agg.mean(weight), low=agg.min("score"), high=agg.max(some_score),
            kinds=agg.distinct("score"), spread=agg.variance("score"),
        )  # fmt: skip
        return [grouped.to("groups"), grouped.changes().to("changes")]

    with TestDriver(world(declare), partitions=2) as driver:
        rows: dict[str, User] = {}
        for (_, user_id, city, score, deleted), failure in steps:
            set_user(driver, user_id, city, score, deleted=deleted)
            rows.pop(user_id, None)
            if not deleted:
                rows[user_id] = User(user_id, city, score, 0)
            if failure and restarts:
                getattr(driver, failure)()
        groups: dict[str, list[User]] = defaultdict(list)
        for user in rows.values():
            if user.score >= -2:
                groups[city_of(user)].append(user)
        expected = {}
        for city, members in groups.items():
            scores = [user.score for user in members]
            mean = fmean(scores)
            expected[city] = {
                "key": city,
                "n": len(members),
                "total": sum(scores),
                "mean": pytest.approx(fmean(map(weight, members))),
                "low": min(scores),
                "high": max((score for score in map(some_score, members) if score is not None), default=None),
                "kinds": len(set(scores)),
                "spread": None if len(scores) < 2 else pytest.approx(sum((s - mean) ** 2 for s in scores) / (len(scores) - 1)),
            }
        assert check_chain(driver, "changes") == latest(driver, "groups") == expected
        assert not driver.read("shop-dlq")


def city_of(user: User) -> str:
    return user.city or "nowhere"


def weight(user: User) -> float:
    return user.score * 0.1


def some_score(user: User) -> int | None:
    return user.score if user.score > 0 else None


class Edit(Struct, frozen=True):
    """A record that is itself a change of a row, and says how a stream of its like becomes a table."""

    user_id: str
    add: int | None

    @staticmethod
    def stream_to_table(stream: Any, name: str, versions_ms: int | None, upgrade: Any) -> Any:
        return stored_table(stream._placed(name), name, Sums, int, versions_ms)


class Sums(RowsOperator):
    """Rows that edits add to; None empties the whole table of the task."""

    def __init__(self, context: OperatorContext) -> None:
        super().__init__(context)
        self.rows = Rows(context, str, int)

    def process(self, block: Block, port: int = 0) -> None:
        keys: list[str] = []
        changes: list[Any] = []
        for key, edit, timestamp_ms in zip(block.keys, block.values, block.timestamps, strict=True):
            edits = [(key, (self.rows.get(key) or 0) + edit.add)] if edit.add is not None else [(row, None) for row, _ in self.rows.items()]
            for row, value in edits:
                keys.append(row)
                changes.append(self.rows.put(row, value, timestamp_ms))
        time = block.watermark
        self.emit(Block(keys, changes, [0] * len(keys), block.start, time, [block.start] * len(keys)))


def test_table_of_values_that_are_changes_themselves_is_made_their_own_way() -> None:
    topology = Topology("shop")
    edits = topology.source("edits", Edit, key="user_id")
    topology.pipeline(edits, name="work")(
        lambda edits: [edits.table("sums").to("sums"), edits.lookup(edits.table("own")).map(second).to("o")]
    )
    with TestDriver(topology) as driver:
        for user_id, add in (("a", 1), ("b", 2), ("a", 3), ("b", None), ("a", 5)):
            driver.send("edits", Edit(user_id, add))
        assert [(r.key, r.value) for r in driver.read("sums")] == [("a", 1), ("b", 2), ("a", 4), ("a", None), ("b", None), ("a", 5)]
        assert driver.state("work", "a", "sums") == {"value": 5}
        assert [r.value for r in driver.read("o")] == [1, 2, 4, 5]


def second(pair: Any) -> Any:
    return pair[1]
