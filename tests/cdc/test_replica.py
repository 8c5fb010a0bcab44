"""Copies of tables in DuckDB and PostgreSQL: what the captures of a real Debezium come to, exactly once, whatever is repeated."""

import json
from datetime import date, time
from decimal import Decimal
from itertools import permutations
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from cdc import Change, Op, Position, debezium
from cdc.database import Database, open_database
from cdc.replica import Batch, Replica
from cdc.replicate import tables_of
from cdc.replicator import Replicator
from engine.errors import ConfigError, RecordError
from engine.records import OutputColumns, TopicPartition
from engine.runtime.transport.memory_broker import MemoryBrokers
from engine.runtime.transports import make_transport
from engine.topics import TopicSpec
from tests.cdc.captures import FOLDER, good, of_topic

pytestmark = pytest.mark.thorough


def rows(database: Database, table: str, order: str = "id") -> list[dict[str, Any]]:
    names = list(database.columns(table))
    found = database.execute(f"select * from {database.name(table)} order by {order}")
    return [dict(zip(names, row, strict=True)) for row in found]


def batches(name: str, end: str, table: str, size: int, codec: Any = None) -> list[Batch]:
    """Return a capture cut into batches, partition by partition."""
    found: list[Batch] = []
    for number in (0, 1):
        changes = good(codec or debezium(dict), [record for record in of_topic(name, end) if record["partition"] == number])
        place = TopicPartition(end, number)
        found += [Batch(table, changes[start : start + size], place, start + size) for start in range(0, len(changes), size)]
    return found


@pytest.mark.parametrize("size", [7, 1_000])
def test_incremental_snapshot_gives_the_final_table(database: Database, size: int) -> None:
    final = json.loads((FOLDER / "incr.final_table.json").read_text())
    replica = Replica(database)
    for batch in batches("incr.json", ".stock", "stock", size):
        replica.apply([batch])
    assert [[row[column] for column in final["columns"]] for row in rows(database, "stock")] == final["rows"]


@pytest.mark.parametrize("size", [4, 1_000])
def test_core_tables_end_as_the_database_did_also_when_all_comes_again(database: Database, size: int) -> None:
    replica = Replica(database)
    for _ in range(2):
        for end, table in ((".users", "users"), (".orders", "orders"), (".documents", "documents")):
            for batch in batches("core.jsonschema", end, table, size):
                replica.apply([batch])
        assert [row["id"] for row in rows(database, "users")] == [1, 3, 40, 50]
        assert [(row["id"], row["amount"]) for row in rows(database, "orders")] == [(108, Decimal("42219.22"))]
        assert [(row["id"], row["title"]) for row in rows(database, "documents")] == [(11, "one++")]


def change(op: str, key: int, lsn: int, row: dict[str, Any] | None = None, **more: Any) -> Change[dict[str, Any]]:
    return Change(op=Op(op), key={"id": key}, after=row, position=Position(0, lsn), **more)


def test_columns_are_added_and_widened_and_unknown_values_come_from_the_stored_row(database: Database) -> None:
    replica = Replica(database)
    place = TopicPartition("t", 0)
    replica.apply([Batch("t", [change("c", 1, 1, {"id": 1, "n": 5, "body": "long", "x": None})], place, 1)])
    replica.apply([Batch("t", [change("u", 1, 2, {"id": 1, "n": 6, "body": None, "x": 1.5}, unavailable=("body",))], place, 2)])
    assert rows(database, "t") == [{"id": 1, "n": 6, "body": "long", "x": 1.5}]
    moved = [
        change("d", 1, 3, new_key={"id": 2}),
        change("c", 2, 3, {"id": 2, "n": "six", "body": None}, old_key={"id": 1}, unavailable=("body",)),
    ]
    replica.apply([Batch("t", moved, place, 3)])
    assert rows(database, "t") == [{"id": 2, "n": "six", "body": "long", "x": None}]
    replica.apply([Batch("t", [change("c", 3, 4, {"id": 3, "new": True})], place, 4)])
    assert rows(database, "t")[1] == {"id": 3, "n": None, "body": None, "x": None, "new": True}
    replica.apply([Batch("t", [Change(op=Op.TRUNCATE, position=Position(0, 5)), change("c", 4, 6, {"id": 4})], place, 5)])
    assert [row["id"] for row in rows(database, "t")] == [4]
    replica.apply([Batch("t", [change("c", 3, 4, {"id": 3}), change("c", 9, 4, {"id": 9})], place, 6)])
    assert [row["id"] for row in rows(database, "t")] == [4], "written before the truncate, read after it"
    assert replica.positions() == {place: 6}


def test_what_fails_leaves_neither_rows_nor_offsets(database: Database) -> None:
    replica = Replica(database)
    bad: Change[dict[str, Any]] = Change(op=Op.CREATE, after={"id": 2}, position=Position(0, 2))
    with pytest.raises(RecordError, match="no primary key"):
        replica.apply([Batch("t", [change("c", 1, 1, {"id": 1}), bad], TopicPartition("t", 0), 2)])
    assert database.columns("t") == {}
    assert replica.positions() == {}


def test_schema_may_have_the_name_of_the_file_and_offsets_outlive_the_process(tmp_path: Path) -> None:
    for offset in (1, 2):
        database = open_database(f"duckdb:{tmp_path / 'copy.duckdb'}", schema="copy")
        replica = Replica(database)
        assert replica.positions() == ({} if offset == 1 else {TopicPartition("t", 0): 1})
        replica.apply([Batch("t", [change("c", 1, 1, {"id": 1})], TopicPartition("t", 0), offset)])
        assert database.select("t", ["id"], {}) == [(1,)]
        database.close()


def test_tables_are_named_by_their_topics() -> None:
    assert tables_of(["shop.public.users", "shop.public.orders=sales"]) == {"shop.public.users": "users", "shop.public.orders": "sales"}
    with pytest.raises(ConfigError, match="two topics for one table"):
        tables_of(["a.users", "b.users"])
    with pytest.raises(ConfigError, match="is not known"):
        open_database("mysql://x")


async def test_replicator_goes_on_where_the_database_says_and_stops_at_the_end(database: Database) -> None:
    address = f"memory://{database.name('replica')}"
    broker = MemoryBrokers.open(address)
    broker.create_topic(TopicSpec("pg.stock", 2))
    records = of_topic("incr.json", ".stock")
    codec: Any = debezium(dict)
    for half in (0, 1):
        for number in (0, 1):
            mine = [record for record in records if record["partition"] == number]
            some = mine[: len(mine) // 2] if half == 0 else mine[len(mine) // 2 :]
            columns = OutputColumns()
            for record in some:
                columns.append(record["timestamp_ms"], record["key"], record["value"], record["headers"])
            broker.produce({TopicPartition("pg.stock", number): columns})
        transport = make_transport(address, group="")
        await transport.start()
        await Replicator(transport, Replica(database), {"pg.stock": "stock"}, {"pg.stock": codec}).run_to_end()
        await transport.stop()
    final = json.loads((FOLDER / "incr.final_table.json").read_text())
    assert [[row[column] for column in final["columns"]] for row in rows(database, "stock")] == final["rows"]


def read(key: int, lsn: int, mark: str = "true") -> Change[dict[str, Any]]:
    return change("r", key, lsn, {"id": key, "v": lsn}, snapshot=mark)


@pytest.mark.parametrize("size", [1, 2, 100])
def test_snapshot_that_was_broken_off_and_taken_anew_leaves_no_row_that_went_meanwhile(database: Database, size: int) -> None:
    replica = Replica(database)
    changes = [read(1, 50), read(2, 50), read(3, 50), read(1, 90), read(3, 90, "last")]  # Connect was killed; 2 has gone meanwhile
    for start in range(0, len(changes), size):
        replica.apply([Batch("t", changes[start : start + size], TopicPartition("t", 0), start + size)])
    assert [(row["id"], row["v"]) for row in rows(database, "t")] == [(1, 90), (3, 90)]
    replica.apply([Batch("t", [read(4, 50), read(5, 90)], TopicPartition("t", 1), 2)])
    assert [row["id"] for row in rows(database, "t")] == [1, 3, 5], "another partition, read later: 4 is from before"


def test_first_snapshot_is_no_guard_against_a_transaction_across_it(database: Database) -> None:
    replica = Replica(database)
    replica.apply([Batch("t", [read(1, 50), read(2, 50, "last")], TopicPartition("t", 0), 2)])
    replica.apply([Batch("t", [change("d", 1, 40), change("c", 3, 45, {"id": 3, "v": 0})], TopicPartition("t", 0), 4)])
    assert [row["id"] for row in rows(database, "t")] == [2, 3]


@pytest.mark.parametrize("order", list(permutations((0, 1, 2))))
@pytest.mark.parametrize("together", [False, True])
def test_long_value_moves_through_keys_in_whatever_order_their_partitions_are_read(
    database: Database, order: tuple[int, ...], together: bool
) -> None:
    """Row 1 becomes 2 and then 3; its note is never written again. Each key has a partition of its own."""
    note = ("note",)
    life = [
        [change("c", 1, 10, {"id": 1, "note": "long", "n": 0}), change("d", 1, 20, new_key={"id": 2})],
        [
            change("c", 2, 20, {"id": 2, "note": None, "n": 0}, old_key={"id": 1}, unavailable=note),
            change("u", 2, 25, {"id": 2, "note": None, "n": 1}, unavailable=note),
            change("d", 2, 30, new_key={"id": 3}),
        ],
        [
            change("c", 3, 30, {"id": 3, "note": None, "n": 1}, old_key={"id": 2}, unavailable=note),
            change("u", 3, 40, {"id": 3, "note": None, "n": 2}, unavailable=note),
        ],
    ]
    replica = Replica(database)
    some = [Batch("t", life[number], TopicPartition("t", number), 1) for number in order]
    for batches_ in [some] if together else [[batch] for batch in some]:
        replica.apply(batches_)
    assert rows(database, "t") == [{"id": 3, "note": "long", "n": 2}]
    assert replica.apply(some) == 3, "the last change of each key is where its guard is"
    assert rows(database, "t") == [{"id": 3, "note": "long", "n": 2}]


def plain(*, key: dict[str, Any], row: dict[str, Any] | None = None) -> Change[dict[str, Any]]:
    """Return a row as it is now, or a tombstone: unwrapped records that say no more."""
    return Change(op=Op.DELETE if row is None else Op.UPDATE, key=key, after=row)


UUID_1 = UUID("6f1c2f0e-4a3d-4c5b-9e11-012345678901")


@pytest.mark.parametrize("together", [False, True])
def test_tombstone_whose_key_has_no_schema_deletes_the_row_of_the_column_s_type(database: Database, together: bool) -> None:
    replica, place = Replica(database), TopicPartition("t", 0)
    first, second = (plain(key={"id": UUID_1, "day": date(2026, 2, day)}, row={"id": UUID_1, "day": date(2026, 2, day)}) for day in (1, 2))
    tombstone = plain(key={"id": str(UUID_1), "day": 20_485})  # as JSON without schemas has it: days since 1970
    for changes in [[first, second, tombstone]] if together else [[first, second], [tombstone]]:
        replica.apply([Batch("t", changes, place, 1)])
    assert [row["day"] for row in rows(database, "t")] == [date(2026, 2, 2)]


@pytest.mark.parametrize(("value", "told"), [(Decimal("1.5"), "AQ=="), (time(10), 36_000_000), (b"x", "eA=="), (UUID_1, "no UUID")])
def test_tombstone_whose_key_may_be_several_things_is_refused(database: Database, value: Any, told: Any) -> None:
    replica, place = Replica(database), TopicPartition("t", 0)
    replica.apply([Batch("t", [plain(key={"id": value}, row={"id": value})], place, 1)])
    with pytest.raises(RecordError, match=r"table 't': a tombstone has the key id = .*key.converter.schemas.enable=true"):
        replica.apply([Batch("t", [plain(key={"id": told})], place, 2)])
    assert len(rows(database, "t")) == 1 and replica.positions() == {place: 1}


def test_column_of_the_key_that_is_in_no_row_tells_rows_apart(database: Database) -> None:
    """Two tables in one topic, by ByLogicalTableRouter."""
    replica = Replica(database)
    a, b = ({"__dbz__physicalTableIdentifier": f"pg.public.parts_{name}", "id": 1} for name in "ab")
    changes = [plain(key=a, row={"id": 1, "v": "a"}), plain(key=b, row={"id": 1, "v": "b"}), plain(key=b)]
    replica.apply([Batch("t", changes, TopicPartition("t", 0), 3)])
    assert rows(database, "t") == [{**a, "v": "a"}]
