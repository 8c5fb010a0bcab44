"""Tables of changes in the engine: the captures of a real Debezium through source, repartition and table, trap by trap."""

import datetime as dt
import json
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc import Change, Op, Position, debezium
from cdc.debezium_codec import DebeziumCodec
from engine import agg
from engine.errors import ConfigError
from engine.stream import Sink, Stream
from engine.testing import TestDriver
from engine.topology import Topology
from tests.cdc.captures import FOLDER, of_topic, schemas
from tests.effort import examples

TOPIC = "pg.public.rows"


def mirror(codec: Any, *, key: Any = "id", partitions: int = 1, versions: str | None = None) -> Topology:
    """An app that writes a table of changes to the topic `rows`, with the number of rows in `count`."""
    app = Topology("mirror", partitions=partitions)
    source = app.source(TOPIC, codec=codec, key=key, time="source_ms")

    @app.pipeline(source)
    def copy(changes: Stream[Any, Change[Any]]) -> list[Sink]:
        table = changes.table("rows", versions=versions)
        count = table.map(_one).group_by(lambda row: row["all"]).aggregate(count=agg.count())
        return [table.map(_shown).to("rows"), count.to("count")]

    return app


def _one(row: Any) -> dict[str, Any]:
    return {"all": "all"}


def _shown(row: Any) -> str:
    return repr(row)


def feed(driver: TestDriver, records: list[dict[str, Any]], partitions: int = 1) -> None:
    for record in records:
        driver.send(
            TOPIC,
            record["value"],
            key=record["key"],
            at=record["timestamp_ms"],
            partition=record["partition"] % partitions,
            headers=record["headers"],
        )


def shown(driver: TestDriver) -> dict[Any, Any]:
    """Return the compacted output: what a reader of upserts and tombstones has in the end."""
    rows: dict[Any, Any] = {}
    for record in driver.read("rows"):
        key = int(record.key) if str(record.key).isdigit() else record.key
        rows.pop(key, None)
        if record.value is not None:
            rows[key] = eval(record.value, _NAMES)
    count = driver.read("count")
    assert (count[-1].value["count"] if count and count[-1].value else 0) == len(rows), "the count goes up and down with the rows"
    return rows


_NAMES = {"datetime": dt, "Decimal": Decimal}


def result_of(name: str, end: str, codec: DebeziumCodec[Any] | None = None, *, key: Any = "id", partitions: int = 2) -> dict[Any, Any]:
    with TestDriver(mirror(codec or debezium(dict), key=key), partitions=partitions) as driver:
        feed(driver, of_topic(name, end), partitions)
        assert driver.read("mirror-dlq") == []
        return shown(driver)


@pytest.mark.parametrize("partitions", [1, 2, 3])
def test_trap_4_incremental_snapshot_gives_the_final_table(partitions: int) -> None:
    final = json.loads((FOLDER / "incr.final_table.json").read_text())
    rows = result_of("incr.json", ".stock", partitions=partitions)
    assert sorted([row[column] for column in final["columns"]] for row in rows.values()) == final["rows"]


@pytest.mark.parametrize("kind", ["json", "jsonschema", "avro"])
def test_core_tables_end_as_the_database_did(kind: str) -> None:
    registry = schemas(f"core.{kind}") if kind == "avro" else None
    codec: Any = debezium(dict, registry=registry)
    users = result_of(f"core.{kind}", ".users", codec)
    assert sorted(users) == [1, 3, 40, 50]
    assert (users[3]["name"], users[1]["name"]) == ("again", "Eve B")
    assert list(result_of(f"core.{kind}", ".orders", codec)) == [108], "trap 6: truncated, and one order since"
    items = result_of(f"core.{kind}", ".order_items", codec, key=_item_key)
    assert items == {}, "trap 6: a truncate of two tables at one LSN"


def _item_key(change: Change[Any]) -> str | None:
    return None if change.key is None else "{order_id}/{line_no}".format_map(change.key)


@pytest.mark.parametrize("partitions", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", ["json", "avro"])
def test_trap_10_unavailable_values_come_from_the_stored_row_also_through_a_key_change(kind: str, partitions: int) -> None:
    codec = debezium(dict, registry=schemas("core.avro") if kind == "avro" else None)
    records = of_topic(f"core.{kind}", ".documents")
    with TestDriver(mirror(codec), partitions=partitions) as driver:
        feed(driver, records[:-3], partitions)  # without the last update, which has the value, and the delete of the other
        driver.commit()
        rows = shown(driver)
        assert sorted(rows) == [2, 11]
        assert (rows[11]["title"], len(rows[11]["body"])) == ("one+", 2600)


def change(op: str, key: int, lsn: int, row: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Return one record as a connector writes it."""
    fields = {"after": row} if op != "d" else {"before": {"id": key}}
    value = Change(op=Op(op), key={"id": key}, position=Position(0, lsn), source_ms=lsn * 1_000, **fields, **more)
    raw = debezium(dict).encode_column([value])[0]
    assert raw is not None
    if row is not None:
        for name in more.get("unavailable", ()):
            raw = raw.replace(b'"%s":null' % name.encode(), b'"%s":"__debezium_unavailable_value"' % name.encode())
    headers = [
        (f"__debezium.{name}key", b'{"id":%d}' % columns["id"])
        for name, columns in (("new", more.get("new_key")), ("old", more.get("old_key")))
        if columns
    ]
    return {"key": b'{"id":%d}' % key, "value": raw, "headers": headers, "timestamp_ms": lsn * 1_000, "partition": key}


KEY_CHANGE = [
    change("c", 1, 10, {"id": 1, "title": "a", "body": "long"}),
    change("d", 1, 20, new_key={"id": 4}),
    change("c", 4, 20, {"id": 4, "title": "a", "body": None}, old_key={"id": 1}, unavailable=("body",)),
    change("u", 4, 30, {"id": 4, "title": "b", "body": None}, unavailable=("body",)),
]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 1, 3), (2, 3, 0, 1), (0, 2, 1, 3), (0, 2, 3, 1)])
@pytest.mark.parametrize("commits", [False, True])
def test_trap_11_key_change_across_partitions_in_any_order_keeps_the_value(order: tuple[int, ...], *, commits: bool) -> None:
    with TestDriver(mirror(debezium(dict)), partitions=3) as driver:
        for number in order:
            feed(driver, [KEY_CHANGE[number]], 3)
            if commits:
                driver.restart()
        assert shown(driver) == {4: {"id": 4, "title": "b", "body": "long"}}
        assert driver.read("mirror-dlq") == []


TWO_KEY_CHANGES = [
    [change("c", 1, 10, {"id": 1, "body": "long", "n": 0}), change("d", 1, 20, new_key={"id": 5})],
    [
        change("c", 5, 20, {"id": 5, "body": None, "n": 0}, old_key={"id": 1}, unavailable=("body",)),
        change("u", 5, 25, {"id": 5, "body": None, "n": 1}, unavailable=("body",)),
        change("d", 5, 30, new_key={"id": 3}),
    ],
    [
        change("c", 3, 30, {"id": 3, "body": None, "n": 1}, old_key={"id": 5}, unavailable=("body",)),
        change("u", 3, 40, {"id": 3, "body": None, "n": 2}, unavailable=("body",)),
    ],
]


@pytest.mark.parametrize("order", list(permutations((0, 1, 2))))
@pytest.mark.parametrize("commits", [False, True])
def test_trap_11_value_moves_through_two_keys_in_whatever_order_their_partitions_are_read(order: tuple[int, ...], *, commits: bool) -> None:
    with TestDriver(mirror(debezium(dict)), partitions=3) as driver:
        for _ in range(2):  # the second time by a connector that repeats itself
            for number in order:
                feed(driver, TWO_KEY_CHANGES[number], 3)
                if commits:
                    driver.restart()
        assert shown(driver) == {3: {"id": 3, "body": "long", "n": 2}}
        assert driver.read("mirror-dlq") == []


def test_trap_11_old_row_that_comes_late_fills_no_later_row() -> None:
    """The key is deleted and given again before the first old row has come: it belongs to a row that is no more."""
    second = [
        change("d", 4, 40),
        change("c", 7, 25, {"id": 7, "title": "other", "body": "other long"}),
        change("d", 7, 50, new_key={"id": 4}),
        change("c", 4, 50, {"id": 4, "title": "other", "body": None}, old_key={"id": 7}, unavailable=("body",)),
    ]
    with TestDriver(mirror(debezium(dict)), partitions=3) as driver:
        for record in (KEY_CHANGE[0], KEY_CHANGE[2], second[0], second[3], KEY_CHANGE[1], second[1]):
            feed(driver, [record], 3)
            driver.commit()
        rows = shown(driver)
        assert rows[4] == {"id": 4, "title": "other", "body": None}, "the row of key 1 went into another row of key 4"
    with TestDriver(mirror(debezium(dict)), partitions=3) as driver:
        for record in (KEY_CHANGE[0], KEY_CHANGE[2], second[0], second[3], KEY_CHANGE[1], *second[1:3]):
            feed(driver, [record], 3)
            driver.commit()
        assert shown(driver) == {4: {"id": 4, "title": "other", "body": "other long"}}


def test_trap_5_replay_after_kill_9_brings_no_deleted_row_back() -> None:
    """The capture holds 23 records twice; at no time may a row come back that was deleted before."""
    with TestDriver(mirror(debezium(dict)), partitions=2) as driver:
        feed(driver, of_topic("restart.json", ".beat"), 2)
        seen: dict[Any, list[bool]] = {}
        for record in driver.read("rows"):
            seen.setdefault(record.key, []).append(record.value is not None)
        assert driver.counters()["copy", "rows", "replayed_changes"] >= 20
    assert all(True not in states[states.index(False) :] for states in seen.values() if False in states)


@pytest.mark.thorough
@settings(max_examples=examples(6))
@given(st.data())
def test_trap_5_replays_of_any_stretch_change_nothing(data: st.DataObject) -> None:
    name, end = data.draw(
        st.sampled_from([("restart.json", ".beat"), ("incr.json", ".stock"), ("core.json", ".users"), ("txn.json", ".accounts")])
    )
    partitions = data.draw(st.sampled_from([1, 2, 3]))
    once = result_of(name, end, partitions=partitions)
    with TestDriver(mirror(debezium(dict)), partitions=partitions) as driver:
        for partition in (0, 1):
            records = [record for record in of_topic(name, end) if record["partition"] == partition]
            for number in range(len(records)):
                feed(driver, [records[number]], partitions)
                if data.draw(st.integers(0, 19)) == 0:
                    feed(driver, records[data.draw(st.integers(0, number)) : number + 1], partitions)
                if data.draw(st.integers(0, 19)) == 0:
                    driver.crash()
        assert shown(driver) == once


def test_trap_6_truncate_reaches_every_partition_and_parts_rows_by_position() -> None:
    truncate: dict[str, Any] = {"key": None, "headers": [], "timestamp_ms": 20_000, "partition": 0}
    truncate["value"] = debezium(dict).encode_column([Change(op=Op.TRUNCATE, position=Position(0, 20), source_ms=20_000)])[0]
    before = [change("c", key, key, {"id": key}) for key in range(1, 9)]
    after = [change("c", key, 30 + key, {"id": key}) for key in range(5, 12)]
    for records in ([*before, truncate, *after], [*after, truncate, *before], [*before[:4], *after, truncate, *before[4:], truncate]):
        with TestDriver(mirror(debezium(dict)), partitions=4) as driver:
            feed(driver, records, 4)
            assert sorted(shown(driver)) == list(range(5, 12))


def test_trap_8_and_6_rows_without_primary_key_are_counted() -> None:
    records = of_topic("core.json", ".audit_log")
    with TestDriver(mirror(debezium(dict), key=None), partitions=2) as driver:
        feed(driver, records[:3], 2)
        assert sorted(row["what"] for row in shown(driver).values()) == ["logout", "start"]
        feed(driver, records[3:5], 2)
        driver.read("rows")
        assert driver.read("count")[-1].value["count"] == 1
        feed(driver, records[2:5], 2)
        driver.commit()
        assert driver.counters()["copy", "rows-changes", "replayed_changes"] == 2, "of the tombstone nothing is known"
        feed(driver, records[5:], 2)
        assert driver.read("count")[-1].value is None
        assert driver.read("mirror-dlq") == []


def keyless(op: str, lsn: int, name: str, run: str = "one") -> dict[str, Any]:
    row = {"name": name}
    value = Change(op=Op(op), position=Position(lsn, lsn), source_ms=1_000, **{"before" if op == "d" else "after": row})  # type: ignore[arg-type]
    raw = debezium(dict).encode_column([value])[0]
    return {"key": None, "value": raw, "headers": [("__debezium.context.runId", run.encode())], "timestamp_ms": 1_000, "partition": 0}


def test_rows_without_primary_key_equal_rows_of_one_copy_are_all_there() -> None:
    """COPY writes several rows at one LSN; the connector starts again and repeats them."""
    rows = [keyless("c", 10, "a"), keyless("c", 10, "a"), keyless("c", 10, "b"), keyless("d", 20, "a")]
    with TestDriver(mirror(debezium(dict, replica_identity="full"), key=None), partitions=3) as driver:
        feed(driver, rows)
        assert sorted(row["name"] for row in shown(driver).values()) == ["a", "b"]
        feed(
            driver, [keyless("c", 10, "a", "two"), keyless("c", 10, "a", "two"), keyless("c", 10, "b", "two"), keyless("d", 20, "a", "two")]
        )
        feed(driver, [keyless("c", 30, "a", "two"), keyless("c", 30, "a", "three"), keyless("c", 30, "c", "three")])
        assert driver.read("count")[-1].value["count"] == 4


def test_retake_of_the_snapshot_drops_what_was_deleted_meanwhile() -> None:
    first = [change("c", key, key, {"id": key}) for key in range(1, 6)]
    again = [change("r", key, 100, {"id": key, "v": 2}, snapshot="last" if key == 4 else "true") for key in (1, 2, 4)]
    with TestDriver(mirror(debezium(dict)), partitions=2) as driver:
        feed(driver, [*first, *again], 2)
        assert shown(driver) == {key: {"id": key, "v": 2} for key in (1, 2, 4)}


@pytest.mark.parametrize("kind", ["json", "jsonschema", "avro"])
def test_trap_14_schema_changes_in_mid_stream_keep_old_rows_as_they_were_written(kind: str) -> None:
    codec: Any = debezium(dict, registry=schemas("ddl.avro") if kind == "avro" else None)
    rows = result_of(f"ddl.{kind}", ".products", codec)
    assert len({tuple(row) for row in rows.values()}) > 3, "rows of several shapes lie side by side"


def test_dict_rows_keep_their_types_in_the_table() -> None:
    rows = result_of("core.jsonschema", ".orders", debezium(dict))
    assert rows[108]["amount"] == Decimal("42219.22")


def test_versions_follow_the_position_where_the_times_go_back() -> None:
    late = change("u", 1, 20, {"id": 1, "v": 2})
    late["value"] = late["value"].replace(b'"ts_ms":20000', b'"ts_ms":5000')
    with TestDriver(mirror(debezium(dict), versions="1d")) as driver:
        feed(driver, [change("c", 1, 10, {"id": 1, "v": 1}), late])
        assert shown(driver) == {1: {"id": 1, "v": 2}}


def test_table_of_changes_without_row_type_is_refused() -> None:
    codec = debezium(dict)
    codec.type = Change
    app = Topology("bare")
    source = app.source(TOPIC, codec=codec)
    with pytest.raises(ConfigError, match="have no type here"):

        @app.pipeline(source)
        def copy(changes: Stream[Any, Any]) -> Sink:
            return changes.table("rows").to("rows")


def test_change_of_a_row_without_key_into_a_table_of_numbers_is_a_dead_letter() -> None:
    with TestDriver(mirror(debezium(dict), key=_number)) as driver:
        feed(driver, [keyless("c", 1, "a"), change("c", 1, 2, {"id": 1})])
        [letter] = driver.read("mirror-dlq")
        assert b"no primary key" in dict(letter.headers)["error"]
        assert shown(driver) == {1: {"id": 1}}


def _number(change: Change[Any]) -> int | None:
    return None if change.key is None else change.key["id"]
