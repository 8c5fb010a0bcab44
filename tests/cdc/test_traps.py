"""What a consumer of Debezium's must know, each trap as it stands in captured records. All values: `test_debezium_codec`, `test_times`."""

from collections import Counter
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from cdc import Beyond, Change, Interval, Op, Position, Transaction, debezium, heartbeats, outbox, transaction_marks
from tests.cdc.captures import captures, decode, good, lines, of_topic, schemas


def changes(name: str, end: str = "") -> list[Any]:
    codec = debezium(dict, registry=schemas(name) if name.endswith("avro") else None)
    return good(codec, of_topic(name, end))


def test_trap_lsn_goes_back_in_a_partition_but_positions_do_not() -> None:
    streamed = [(r["topic"], r["partition"], c) for r, c in pairs("txn.json") if c.op is not Op.READ]
    partitions: dict[Any, list[Change[Any]]] = {}
    for topic, partition, change in streamed:
        partitions.setdefault((topic, partition), []).append(change)
    lsns = [c.position.lsn for c in partitions["shop.txn.json.public.accounts", 0]]
    assert lsns[:2] == sorted(lsns[:2], reverse=True)
    for found in partitions.values():
        positions = [c.position for c in found]
        assert positions == sorted(positions)


def test_trap_lsn_is_not_unique() -> None:
    moved = [c for c in changes("core.json", ".users") if c.old_key or c.new_key]
    delete, create = (next(c for c in moved if c.op == op and {"id": 40} in (c.key, c.new_key)) for op in (Op.DELETE, Op.CREATE))
    assert delete.position == create.position
    truncates = [c for c in changes("core.json") if c.op is Op.TRUNCATE]
    assert len({c.position for c in truncates}) < len(truncates)


def test_trap_snapshot_rows_share_one_position_and_say_where_they_stand() -> None:
    reads = [c for c in changes("core.json") if c.op is Op.READ]
    assert len({c.position for c in reads}) == 1
    assert {c.snapshot for c in reads} == {"first", "first_in_data_collection", "true", "last_in_data_collection", "last"}
    assert all(c.transaction is None for c in reads)
    assert {c.snapshot for c in changes("core.json", ".audit_log") if c.op is Op.READ} == {"last_in_data_collection"}


def test_trap_incremental_reads_have_a_position_without_lsn() -> None:
    reads = [c for c in changes("incr.json", ".stock") if c.op is Op.READ]
    assert {c.snapshot for c in reads} == {"incremental"}
    assert all(c.position > Position() and c.transaction is None for c in reads)


def test_trap_after_a_kill_changes_come_again_equal_but_for_the_capture_time() -> None:
    def identity(change: Change[Any]) -> str:
        return repr((change.table, change.key, change.op, change.position, change.before, change.after, change.source_ms))

    found = Counter(identity(c) for c in changes("restart.json", ".beat"))
    assert sum(number - 1 for number in found.values()) == 22, "the 23rd is a tombstone"


def test_trap_truncate_has_no_key_and_no_rows() -> None:
    truncates = [c for c in changes("core.json") if c.op is Op.TRUNCATE]
    assert {c.table for c in truncates} == {"audit_log", "orders", "order_items"}
    assert all(c.key is None and c.before is None and c.after is None and c.unavailable == () for c in truncates)


@pytest.mark.parametrize("name", ["core.json", "core.jsonschema", "core.avro"])
def test_trap_messages_come_even_from_transactions_that_roll_back(name: str) -> None:
    messages = changes(name, ".message")
    contents = [c.message.content.decode() for c in messages if c.message]
    assert contents == ["in tx é", '{"not":"transactional"}', "sent although rolled back"]
    assert [c.transaction is None for c in messages] == [False, True, True]
    assert {c.message.prefix for c in messages if c.message} == {"app"}


def test_trap_transaction_ids_differ_behind_the_colon_within_one_transaction() -> None:
    marks = good(transaction_marks(), of_topic("txn.json", ".transaction"))
    raw = [msgspec.json.decode(r["value"])["id"] for r in of_topic("txn.json", ".transaction")]
    assert len(set(raw)) > len({mark.id for mark in marks})
    events = Counter(c.transaction.id for c in changes_of_tables("txn.json") if c.transaction)
    assert {mark.id: mark.events for mark in marks if mark.is_end} == events
    first_tables = next(mark.tables for mark in marks if mark.is_end)
    assert first_tables == {"public.accounts": 2, "public.ledger": 2}


@pytest.mark.parametrize("kind", ["json", "jsonschema", "avro"])
def test_trap_transaction_marks_and_heartbeats_are_recognised(kind: str) -> None:
    name = f"txn.{kind}"
    registry = schemas(name) if kind == "avro" else None
    marks = of_topic(name, ".transaction")
    assert Counter(mark.is_end for mark in good(transaction_marks(registry=registry), marks)) == {False: 4, True: 4}
    refused = decode(debezium(dict, registry=registry), marks)
    assert all("transaction_marks()" in str(error) for error in refused.errors.values()) and len(refused.errors) == len(marks)
    if kind != "avro":
        beats = [r for r in lines(f"heartbeat.{kind}") if r["topic"].startswith("__debezium-heartbeat")]
        assert {beat.server for beat in good(heartbeats(), beats)} == {f"shop.heartbeat.{kind}"}
        assert len(decode(debezium(dict), beats).skipped) == len(beats)
        assert decode(heartbeats(), of_topic(f"heartbeat.{kind}", ".hb")).errors


def test_trap_a_delete_is_followed_by_a_tombstone_that_may_have_no_key() -> None:
    records = of_topic("core.json", ".audit_log")
    decoded = decode(debezium(dict), records)
    (row,) = decoded.skipped
    assert (records[row]["key"], records[row]["value"]) == (None, None)
    assert decoded.values[row - 1].op is Op.DELETE
    assert not decoded.errors


@pytest.mark.parametrize("name", ["core.json", "core.jsonschema", "core.avro"])
def test_trap_before_of_a_delete_is_invented_but_for_the_key(name: str) -> None:
    deleted = next(c for c in changes(name, ".users") if c.op is Op.DELETE and c.key == {"id": 3})
    assert deleted.before is not None
    assert (deleted.before["id"], deleted.before["name"]) == (3, "")
    assert set(deleted.unavailable) == {"name", "email", "balance", "active", "created_at"}
    updated = next(c for c in changes(name, ".users") if c.op is Op.UPDATE)
    assert updated.before is None


def test_trap_before_of_a_delete_is_true_under_replica_identity_full() -> None:
    full = good(debezium(dict, replica_identity="full"), of_topic("core.jsonschema", ".users"))
    deleted = next(c for c in full if c.op is Op.DELETE and c.key == {"id": 2})
    assert deleted.unavailable == ()
    assert deleted.before["balance"] > 0
    without_key = next(c for c in changes("core.jsonschema", ".audit_log") if c.op is Op.DELETE)
    assert without_key.unavailable == (), "without a primary key the identity must be FULL"


def test_trap_an_invented_value_that_does_not_fit_refuses_no_delete() -> None:
    class User(msgspec.Struct, frozen=True):
        id: int
        name: str
        email: str
        balance: Decimal

    values = decode(debezium(User), of_topic("core.json", ".users")).values
    deleted = next(c for c in values if c is not None and c.op is Op.DELETE and c.key == {"id": 3})
    assert deleted.before == User(3, "", "", Decimal(0))
    assert set(deleted.unavailable) >= {"name", "email", "balance"}


@pytest.mark.parametrize("name", ["core.json", "core.jsonschema", "core.avro"])
def test_trap_unchanged_toast_values_are_named(name: str) -> None:
    documents = changes(name, ".documents")
    lacking = [(c.op, c.key) for c in documents if c.unavailable == ("body",) and c.after]
    assert lacking == [(Op.UPDATE, {"id": 1}), (Op.CREATE, {"id": 11})]
    assert all(c.after["body"] is None for c in documents if c.unavailable and c.after)
    by_full = [c for c in documents if c.op is Op.UPDATE and c.key == {"id": 11}]
    assert [len(c.after["body"]) for c in by_full] == [2600]


MARK = "__debezium_unavailable_value"


@pytest.mark.parametrize("wire", [MARK, "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==", MARK.encode().hex(), [MARK], f'{{"{MARK}":"{MARK}"}}'])
def test_trap_other_columns_have_markers_of_their_own(wire: Any) -> None:
    numbers = list(MARK.encode())
    value = msgspec.json.encode({"op": "u", "source": {}, "after": {"id": 1, "a": wire, "b": numbers, "c": {MARK: MARK}, "d": "kept"}})
    record = {"topic": "t", "partition": 0, "offset": 0, "timestamp_ms": 0, "key": b'{"id":1}', "value": value, "headers": []}
    (change,) = good(debezium(dict), [record])
    assert change.unavailable == ("a", "b", "c")
    assert change.after == {"id": 1, "a": None, "b": None, "c": None, "d": "kept"}


@pytest.mark.parametrize("name", ["core.json", "core.jsonschema", "core.avro", "txn.json", "txn.jsonschema", "txn.avro"])
def test_trap_a_key_change_is_a_delete_and_a_create_that_name_each_other(name: str) -> None:
    found = changes_of_tables(name)
    deletes = {(c.table, *(c.key or {}).values()): c.new_key for c in found if c.new_key}
    creates = {(c.table, *(c.old_key or {}).values()): c.key for c in found if c.old_key}
    assert deletes == creates
    assert len(deletes) == (4 if name.startswith("core") else 1)


def test_trap_null_becomes_the_columns_default_unless_told_otherwise() -> None:
    stored_null = next(c for c in changes("types-default.jsonschema") if c.after and c.after["id"] == 2)
    assert stored_null.after["c_intd"] == 7, "the converter's doing: nothing in the record says that it was null"
    kept = changes("nullkeep.jsonschema")
    assert {c.after["id"]: (c.after["bal"], c.after["flag"]) for c in kept if c.after} == dict.fromkeys((1, 2, 3), (None, None))


def test_trap_where_nulls_are_kept_a_missing_snapshot_mark_means_no_snapshot() -> None:
    assert [c.snapshot for c in changes("nullkeep.json") if c.op is not Op.READ] == [None] * 4


@pytest.mark.parametrize("kind", ["json", "jsonschema", "avro"])
def test_trap_a_changed_table_has_no_event_only_other_rows(kind: str) -> None:
    name = f"ddl.{kind}"
    rows = {c.after["id"]: c for c in changes(name) if c.after}
    assert "price" not in rows[2].after
    assert "old_col" not in rows[4].after
    assert rows[7].after["qty"] == "seven"
    assert (rows[8].after["title"], rows[7].after["label"]) == ("h", "g")
    assert "late" in rows[11].after and "late" not in rows[10].after
    if kind != "json":
        assert len({c.schema_version for c in changes(name)}) == 9
        assert (rows[6].after["price"], rows[5].after["price"]) == (Decimal("1.2345"), Decimal("3.75"))


def test_trap_rows_of_an_older_and_a_newer_shape_fit_one_struct() -> None:
    class Product(msgspec.Struct, frozen=True):
        id: int
        price: Decimal | None = None
        must: int = 3

    for kind in ("jsonschema", "avro"):
        name = f"ddl.{kind}"
        codec = debezium(Product, registry=schemas(name) if kind == "avro" else None)
        found = {c.after.id: c.after for c in good(codec, lines(name)) if c.after}
        assert (found[2], found[3]) == (Product(2), Product(3, Decimal("1.25")))


def test_trap_a_null_payload_of_an_outbox_is_no_tombstone() -> None:
    for kind in ("json", "jsonschema", "avro"):
        name = f"outbox.{kind}"
        events = good(outbox(dict, registry=schemas(name) if kind == "avro" else None), lines(name))
        assert len(events) == 5
        (gone,) = [event for event in events if event.payload is None]
        assert (gone.type, gone.aggregate_id) == ("OrderDeleted", "501")
        assert len({event.id for event in events}) == 5


def test_trap_expanding_an_outbox_payload_drops_null_fields() -> None:
    assert all("note" not in e.payload for e in good(outbox(dict), lines("outbox.json")) if e.payload)
    assert all("note" in e.payload for e in good(outbox(dict), lines("outbox.jsonschema")) if e.payload)


def test_trap_nan_of_a_numeric_is_null_text_or_double_by_mode() -> None:
    found = {}
    for mode in ("default", "alt1", "alt2"):
        codec = debezium(dict, columns={"c_numv": Decimal | None})
        found[mode] = next(c.after["c_numv"] for c in good(codec, lines(f"types-{mode}.jsonschema")) if c.after and c.after["id"] == 14)
    assert found["default"] is None
    assert found["alt1"].is_nan() and found["alt2"].is_nan()


def test_trap_decimals_without_schema_are_refused_unless_the_scale_is_declared() -> None:
    class User(msgspec.Struct, frozen=True):
        id: int
        balance: Decimal | None

    decoded = decode(debezium(User), of_topic("core.json", ".users"))
    assert decoded.errors
    assert all("declare Annotated[Decimal, Scale(digits)]" in str(error) for error in decoded.errors.values())


def test_trap_an_id_of_another_schema_is_refused_where_the_bytes_do_not_fit() -> None:
    wrong = schemas("core.avro")
    wrong[2] = wrong[1]
    decoded = decode(debezium(dict, registry=wrong), of_topic("core.avro", ".users"))
    assert "left over" in str(decoded.errors[0])


@pytest.mark.parametrize("name", captures("json", "jsonschema", "avro"))
def test_every_capture_is_understood(name: str) -> None:
    if name.startswith("outbox"):
        return
    records = [r for r in lines(name) if not r["topic"].endswith(".transaction")]
    decoded = decode(debezium(dict, registry=schemas(name) if name.endswith("avro") else None), records)
    assert not decoded.errors
    assert Counter(v is None for v in decoded.values)[True] == len(decoded.skipped)


def pairs(name: str) -> list[tuple[dict[str, Any], Change[Any]]]:
    records = [r for r in lines(name) if not r["topic"].endswith(".transaction")]
    decoded = decode(debezium(dict), records)
    return [(r, v) for r, v in zip(records, decoded.values, strict=True) if v is not None]


def changes_of_tables(name: str) -> list[Change[Any]]:
    codec = debezium(dict, registry=schemas(name) if name.endswith("avro") else None)
    return good(codec, [r for r in lines(name) if ".public." in r["topic"]])


def test_transaction_of_a_change_has_its_order() -> None:
    first = next(c for c in changes_of_tables("txn.json") if c.transaction and c.transaction.order == 1)
    assert isinstance(first.transaction, Transaction)
    assert first.transaction.table_order == 1


def test_trap_each_start_of_a_connector_is_another_run() -> None:
    """It is read only where there is no key: rows without one are told from their replays by it."""
    runs = [value for r in lines("restart.json") for name, value in r["headers"] if name == "__debezium.context.runId"]
    assert len(set(runs)) == 2
    assert {c.run is None for c in changes("restart.json", ".beat")} == {True}
    assert {c.run is None for c in changes("core.json", ".audit_log") if c.op is not Op.TRUNCATE} == {False}


def edge(mode: str, column: str, row: int = 13) -> Any:
    """Return a value of the table of all types as it stands in the capture, and as it is read."""
    for record in lines(f"types-{mode}.jsonschema"):
        after = msgspec.json.decode(record["value"])["payload"]["after"] if record["value"] else None
        if after and after["id"] == row:
            (change,) = good(debezium(dict), [record])
            return after[column], change.after[column]
    raise AssertionError("there is no such row")


def test_trap_special_floats_are_strings_and_large_ints_plain_numbers() -> None:
    written, read = edge("default", "c_real", row=3)
    assert (written, read) == ("-Infinity", float("-inf"))
    written, read = edge("default", "c_bigint", row=3)
    assert written == read == 2**53 + 1


@pytest.mark.parametrize(
    ("mode", "column", "written", "held"),
    [
        ("default", "c_date", -2147472692, "infinity"),
        ("default", "c_time", 86_400_000_000, "24:00:00"),
        ("default", "c_ts", 9223372036825200000, "infinity"),
        ("default", "c_tstz", "-infinity", "-infinity"),
    ],
)
def test_trap_what_no_number_can_say_overflows(mode: str, column: str, written: Any, held: str) -> None:
    assert edge(mode, column) == (written, Beyond(held))


def test_trap_the_unit_of_a_time_is_in_its_schema_alone() -> None:
    micros, at = edge("default", "c_ts", row=11)
    millis, cut = edge("alt1", "c_ts", row=11)
    assert (micros, millis) == (1772323199123456, 1772323199123)
    assert (at.microsecond, cut.microsecond) == (123456, 123000)


MICROS = ((14 * 2_629_800 + 3 * 86_400 + 4 * 3_600 + 5 * 60 + 6) * 1_000 + 789) * 1_000
"""1 year 2 months 3 days 04:05:06.789, a month being 30.4375 days."""


def test_trap_intervals_are_microseconds_with_months_of_30_days_and_a_half_or_text() -> None:
    micros, length = edge("default", "c_interval", row=11)
    assert (micros, length) == (MICROS, timedelta(microseconds=micros))
    text, parts = edge("alt1", "c_interval", row=11)
    assert text.startswith("P1Y2M3D") and parts == Interval(14, 3, (4 * 3_600 + 5 * 60 + 6) * 1_000_000 + 789_000)


def test_trap_padding_bits_and_nested_arrays() -> None:
    assert edge("default", "c_char", row=11) == ("ab   ", "ab   ")
    assert edge("default", "c_bit8", row=11) == ("sw==", 0b10110011)
    assert edge("default", "c_inta", row=3) == ([None, None], [None, None]), "an array of two dimensions: Debezium's doing"
    assert edge("default", "c_jsonb", row=11)[1] == '{"a": [1, 2.50, null], "b": 1}'
