"""What reads a table of changes: filters, sums that go down, joins and `as_of`, with rows of a Struct."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from msgspec import Struct

from cdc import Change, Op, Position, debezium
from engine import agg
from engine.stream import Sink, Stream
from engine.testing import TestDriver
from engine.topology import Topology


class User(Struct, frozen=True):
    id: int
    country: str


class Order(Struct, frozen=True):
    id: int
    user_id: int
    cents: int


def app() -> Topology:
    topology = Topology("uses", partitions=3)
    users = topology.source("pg.users", codec=debezium(User), key="id", time="source_ms")
    orders = topology.source("pg.orders", codec=debezium(Order), key="id", time="source_ms")

    @topology.pipeline(orders)
    def totals(changes: Stream[int, Change[Order]]) -> Sink:
        large = changes.table("orders").filter(lambda order: order.cents >= 100)
        return large.group_by("user_id").aggregate(cents=agg.sum("cents"), orders=agg.count()).to("totals")

    @topology.pipeline(users, orders)
    def joined(people: Stream[int, Change[User]], changes: Stream[int, Change[Order]]) -> Sink:
        pairs = changes.table("orders").join(people.table("users"), on="user_id")
        return pairs.map(lambda pair: {"cents": pair[0].cents, "country": pair[1].country}).to("joined")

    @topology.pipeline(users, orders)
    def placed(people: Stream[int, Change[User]], changes: Stream[int, Change[Order]]) -> Sink:
        new = changes.filter(lambda change: change.op is Op.CREATE).map(row_of)
        pairs = new.as_of(people.table("users", versions="1d"), on="user_id")
        return pairs.map(lambda pair: {"id": pair[0].id, "country": pair[1].country}).to("placed")

    return topology


def row_of(change: Change[Order]) -> Order:
    assert change.after is not None
    return change.after


def send(driver: TestDriver, topic: str, op: str, key: int, lsn: int, row: Any = None) -> None:
    image = {"before" if op == "d" else "after": row}
    change: Change[Any] = Change(op=Op(op), key={"id": key}, position=Position(lsn, lsn), source_ms=lsn * 1_000, **image)
    driver.send(topic, change, key=b'{"id":%d}' % key, at=lsn * 1_000, partition=key % 3)


def latest(driver: TestDriver, topic: str) -> dict[Any, Any]:
    rows = {record.key: record.value for record in driver.read(topic)}
    return {key: value for key, value in rows.items() if value is not None}


def test_sum_goes_down_when_a_row_is_updated_or_deleted() -> None:
    with TestDriver(app(), partitions=3) as driver:
        for key, cents in ((1, 500), (2, 300), (3, 50)):
            send(driver, "pg.orders", "c", key, key, Order(key, 7, cents))
        assert latest(driver, "totals") == {7: {"key": 7, "cents": 800, "orders": 2}}
        send(driver, "pg.orders", "u", 1, 10, Order(1, 7, 400))
        assert latest(driver, "totals") == {7: {"key": 7, "cents": 700, "orders": 2}}
        send(driver, "pg.orders", "u", 1, 11, Order(1, 7, 99))
        send(driver, "pg.orders", "u", 2, 12, Order(2, 8, 300))
        assert latest(driver, "totals") == {8: {"key": 8, "cents": 300, "orders": 1}}
        send(driver, "pg.orders", "d", 2, 13, Order(2, 0, 0))
        assert latest(driver, "totals") == {}
        assert driver.read("uses-dlq") == []


def test_join_on_a_foreign_key_follows_both_sides() -> None:
    with TestDriver(app(), partitions=3) as driver:
        send(driver, "pg.orders", "c", 1, 1, Order(1, 7, 500))
        send(driver, "pg.users", "r", 7, 2, User(7, "FR"))
        assert latest(driver, "joined") == {1: {"cents": 500, "country": "FR"}}
        send(driver, "pg.users", "u", 7, 3, User(7, "IT"))
        assert latest(driver, "joined") == {1: {"cents": 500, "country": "IT"}}
        send(driver, "pg.users", "d", 7, 4, User(7, ""))
        assert driver.read("joined")[-1].value is None


def test_as_of_gives_the_row_as_it_was_when_the_order_was_placed() -> None:
    with TestDriver(app(), partitions=3) as driver:
        send(driver, "pg.users", "c", 7, 1, User(7, "FR"))
        send(driver, "pg.users", "u", 7, 50, User(7, "IT"))
        send(driver, "pg.orders", "c", 1, 40, Order(1, 7, 500))
        send(driver, "pg.orders", "c", 2, 60, Order(2, 7, 500))
        driver.finish()
        assert {record.value["id"]: record.value["country"] for record in driver.read("placed")} == {1: "FR", 2: "IT"}


def test_dict_rows_keep_their_types_through_group_by_and_joins() -> None:
    topology = Topology("rich", partitions=3)
    lives: Any = debezium(dict, columns={"born": date, "asleep": timedelta})
    sales: Any = debezium(dict, columns={"amount": Decimal, "placed": datetime, "tags": list[UUID]})
    users = topology.source("pg.users", codec=lives, key="id", time="source_ms")
    orders = topology.source("pg.orders", codec=sales, key="id", time="source_ms")
    seen: list[tuple[str, Any]] = []

    def look(where: str) -> Any:
        def take(value: Any) -> dict[str, str]:
            seen.append((where, value))
            return {"seen": repr(value)}

        return take

    @topology.pipeline(orders)
    def totals(changes: Stream[int, Change[dict[str, Any]]]) -> Sink:
        return changes.table("orders").group_by("user_id").aggregate(cents=agg.sum(lambda row: int(row["amount"] * 100))).to("totals")

    @topology.pipeline(users, orders)
    def joined(people: Stream[int, Change[dict[str, Any]]], changes: Stream[int, Change[dict[str, Any]]]) -> Sink:
        return changes.table("orders").join(people.table("users"), on="user_id").map(look("join")).to("joined")

    @topology.pipeline(orders)
    def moved(changes: Stream[int, Change[dict[str, Any]]]) -> Sink:
        rows: Stream[int, Any] = changes.map(lambda change: change.after).filter(lambda row: row is not None)
        return rows.key_by(lambda row: row["user_id"]).map(look("key_by")).to("moved")

    row = {"id": 1, "user_id": 7, "amount": Decimal("9.50"), "placed": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "tags": [UUID(int=3)]}
    user = {"id": 7, "born": date(1990, 5, 6), "asleep": timedelta(hours=8)}
    with TestDriver(topology, partitions=3) as driver:
        send(driver, "pg.users", "c", 7, 10, user)
        send(driver, "pg.orders", "c", 1, 20, row)
        other = {**row, "id": 2, "amount": Decimal("0.25")}
        send(driver, "pg.orders", "c", 2, 30, other)
        send(driver, "pg.orders", "d", 1, 40, row)
        driver.finish()
        totals_seen = [record.value for record in driver.read("totals")]
        assert driver.read("rich-dlq") == []
    assert totals_seen[-1]["cents"] == 25
    assert ("join", (other, user)) in seen
    assert ("key_by", other) in seen
