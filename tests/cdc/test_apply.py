"""Tables out of change streams: equal to the source table, whatever was repeated, and whatever the order of partitions."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc import Change, Op, Position, debezium
from cdc.apply import Applied, Stored, apply, truncate
from cdc.keyless import KeylessGuard, apply_without_key
from engine.errors import RecordError
from tests.cdc.captures import FOLDER, good, lines, of_topic, schemas

Table = dict[Any, Stored[Any]]


def key_of(key: dict[str, Any]) -> Any:
    return tuple(key.values())


def take(table: Table, change: Change[Any]) -> None:
    """Apply a change to a table in memory."""
    if change.op is Op.TRUNCATE:
        for key, stored in table.items():
            table[key] = truncate(stored, change.position).stored
        return
    assert change.key is not None
    old = table.get(key_of(change.old_key)) if change.old_key else None
    table[key_of(change.key)] = apply(table.get(key_of(change.key)), change, departed=old).stored


def rows_of(table: Table) -> dict[Any, Any]:
    return {key: stored.row for key, stored in sorted(table.items()) if stored.row is not None}


def table_of(changes: list[Change[Any]]) -> dict[Any, Any]:
    table: Table = {}
    for change in changes:
        take(table, change)
    return rows_of(table)


def by_partition(name: str, end: str, codec: Any) -> list[list[Change[Any]]]:
    records = of_topic(name, end)
    numbers = sorted({record["partition"] for record in records})
    return [good(codec, [record for record in records if record["partition"] == number]) for number in numbers]


def test_incremental_snapshot_with_writes_going_on_gives_the_final_table() -> None:
    final = json.loads((FOLDER / "incr.final_table.json").read_text())
    table = table_of(good(debezium(dict), of_topic("incr.json", ".stock")))
    assert [[row[column] for column in final["columns"]] for row in table.values()] == final["rows"]
    assert len(final["rows"]) > 20


@given(st.data())
def test_replays_of_any_stretch_leave_the_table_as_it_was(data: st.DataObject) -> None:
    """Connect goes on from an older offset: everything from there comes again, perhaps several times."""
    name, end = data.draw(
        st.sampled_from([("restart.json", ".beat"), ("incr.json", ".stock"), ("core.jsonschema", ".users"), ("txn.json", ".accounts")])
    )
    for changes in by_partition(name, end, debezium(dict)):
        once = table_of(changes)
        sent: list[Change[Any]] = []
        for number in range(len(changes)):
            sent.append(changes[number])
            if data.draw(st.integers(0, 9)) == 0:
                sent += changes[data.draw(st.integers(0, number)) : number + 1]
        assert table_of(sent) == once


def test_restart_replay_brings_no_deleted_row_back() -> None:
    for changes in by_partition("restart.json", ".beat", debezium(dict)):
        table: Table = {}
        deleted: set[Any] = set()
        for change in changes:
            take(table, change)
            key = key_of(change.key)  # type: ignore[arg-type]  # this table has a key
            if change.op is Op.DELETE:
                deleted.add(key)
            if key in deleted:
                assert table[key].row is None


@pytest.mark.parametrize("kind", ["json", "jsonschema", "avro"])
def test_core_tables_end_as_the_database_did(kind: str) -> None:
    name = f"core.{kind}"
    registry = schemas(name) if kind == "avro" else None
    users = table_of(good(debezium(dict, registry=registry), of_topic(name, ".users")))
    assert sorted(key[0] for key in users) == [1, 3, 40, 50]
    assert users[3,]["name"] == "again"
    orders = table_of(sorted(good(debezium(dict, registry=registry), of_topic(name, ".orders")), key=lambda c: c.position))
    assert list(orders) == [(108,)], "truncated, and one order since"
    documents = table_of(sorted(good(debezium(dict, registry=registry), of_topic(name, ".documents")), key=lambda c: c.position))
    assert list(documents) == [(11,)]
    assert documents[11,]["title"] == "one++"


def test_unavailable_values_come_from_the_stored_row_and_through_a_key_change() -> None:
    table: Table = {}
    seen = []
    for change in sorted(good(debezium(dict), of_topic("core.json", ".documents")), key=lambda c: (c.position, c.op != "d")):
        take(table, change)
        if change.unavailable and change.after:
            stored: Any = table[key_of(change.key or {})]
            seen.append((change.op.value, change.key, len(stored.row["body"]), stored.missing))
    assert seen == [("u", {"id": 1}, 2600, ()), ("c", {"id": 11}, 2600, ())]


def test_unavailable_values_that_nobody_has_seen_stay_named() -> None:
    first: Applied[Any] = apply(
        None, Change(op=Op.UPDATE, key={"id": 1}, after={"id": 1, "body": None}, position=Position(0, 5), unavailable=("body",))
    )
    assert first.stored.missing == ("body",)
    again = apply(first.stored, Change(op=Op.UPDATE, after={"id": 1, "body": None}, position=Position(0, 6), unavailable=("body",)))
    assert again.stored.missing == ("body",)
    known = apply(again.stored, Change(op=Op.UPDATE, after={"id": 1, "body": "x"}, position=Position(0, 7)))
    assert (known.stored.missing, known.stored.row) == ((), {"id": 1, "body": "x"})


def test_unavailable_values_fill_a_struct_by_the_names_of_its_columns() -> None:
    class Document(msgspec.Struct, frozen=True, rename="camel"):
        id: int
        long_text: str

    stored = Stored(Document(1, "kept"), Position(0, 1))
    change = Change(op=Op.UPDATE, key={"id": 1}, after=Document(1, ""), position=Position(0, 2), unavailable=("longText",))
    assert apply(stored, change).new == Document(1, "kept")


def test_delete_retracts_the_stored_row_and_not_what_debezium_invented() -> None:
    stored = Stored({"id": 1, "name": "Ada"}, Position(0, 1))
    change = Change(op=Op.DELETE, key={"id": 1}, before={"id": 1, "name": ""}, position=Position(0, 2), unavailable=("name",))
    applied = apply(stored, change)
    assert (applied.old, applied.new) == ({"id": 1, "name": "Ada"}, None)
    late = Change(op=Op.UPDATE, key={"id": 1}, after={"id": 1, "name": "Ada"}, position=Position(0, 1))
    assert apply(applied.stored, late).is_replay


def test_resnapshot_without_a_commit_lsn_wins_over_what_was_streamed() -> None:
    stored = Stored({"id": 1, "v": 1}, Position(500, 510))
    assert apply(stored, Change(op=Op.READ, after={"id": 1, "v": 2}, position=Position(0, 600))).new == {"id": 1, "v": 2}
    assert apply(stored, Change(op=Op.READ, after={"id": 1, "v": 0}, position=Position(0, 400))).is_replay


def test_truncate_parts_rows_by_position_whatever_came_first() -> None:
    at = Position(0, 100)
    assert truncate(Stored({"id": 1}, Position(0, 99)), at).new is None
    assert truncate(Stored({"id": 2}, Position(0, 101)), at).new == {"id": 2}
    late = Change(op=Op.CREATE, key={"id": 3}, after={"id": 3}, position=Position(0, 98))
    assert apply(None, late, truncated=at).is_replay
    assert apply(None, late).new == {"id": 3}


def test_change_without_position_is_always_taken() -> None:
    stored = Stored({"id": 1, "v": 1}, Position(0, 9))
    applied = apply(stored, Change(op=Op.UPDATE, key={"id": 1}, after={"id": 1, "v": 2}))
    assert applied.new == {"id": 1, "v": 2}
    assert applied.stored.position == Position(0, 9)


@pytest.mark.parametrize("op", [Op.TRUNCATE, Op.MESSAGE])
def test_apply_of_what_is_about_no_row_is_refused(op: Op) -> None:
    with pytest.raises(RecordError, match="about no row"):
        apply(None, Change(op=op))


def keyless(changes: list[Change[Any]]) -> list[Any]:
    guard = KeylessGuard()
    rows: list[Any] = []
    for change in changes:
        applied = apply_without_key(guard, change)
        guard = applied.guard
        if applied.clears:
            rows.clear()
        for row in applied.removed:
            rows.remove(row)
        rows += applied.added
    return rows


def test_rows_without_key_are_removed_by_all_of_their_columns() -> None:
    changes = good(debezium(dict), of_topic("core.jsonschema", ".audit_log"))
    assert [change.op for change in changes] == ["r", "c", "u", "d", "t"]
    assert [row["what"] for row in keyless(changes[:4])] == ["logout"]
    assert keyless(changes) == []
    assert keyless([*changes[:3], *changes[1:4]]) == keyless(changes[:4]), "a replay adds no row"


def test_rows_without_key_equal_rows_are_counted_and_a_new_snapshot_replaces_them() -> None:
    row = {"a": 1}
    first = [Change(op=Op.READ, after=row, position=Position(0, 5))] * 2
    assert keyless(first) == [row, row]
    assert keyless([*first, Change(op=Op.DELETE, before=row, position=Position(0, 6))]) == [row]
    assert keyless([*first, Change(op=Op.READ, after=row, position=Position(0, 9))]) == [row]
    with pytest.raises(RecordError):
        apply_without_key(KeylessGuard(), Change(op=Op.MESSAGE))


def test_every_capture_positions_per_key_never_go_back_but_on_a_replay() -> None:
    for name in ("core.json", "txn.json", "incr.json", "ddl.json"):
        last: dict[Any, int] = {}
        for record, change in zip(lines(name), debezium(dict).decode_batch(_batch(name)).values, strict=True):
            if change is not None and change.key is not None:
                place = (record["topic"], key_of(change.key))
                assert change.position.lsn >= last.get(place, 0)
                last[place] = change.position.lsn


def _batch(name: str) -> Any:
    from tests.cdc.captures import batch

    return batch(lines(name))


def test_delete_begun_before_an_incremental_read_and_committed_after_it_takes_the_row() -> None:
    read = apply(None, Change(op=Op.READ, after={"id": 1}, position=Position(130, 130), snapshot="incremental"))
    delete: Change[dict[str, Any]] = Change(op=Op.DELETE, key={"id": 1}, position=Position(131, 100))
    gone = apply(read.stored, delete)
    assert (gone.new, gone.is_replay) == (None, False)
    assert apply(gone.stored, Change(op=Op.UPDATE, after={"id": 1}, position=Position(120, 125))).is_replay, "it had been committed before"


def test_first_transaction_after_a_snapshot_is_no_replay_although_it_began_before() -> None:
    read = apply(None, Change(op=Op.READ, after={"id": 1}, position=Position(0, 130), snapshot="true"))
    delete: Change[dict[str, Any]] = Change(op=Op.DELETE, key={"id": 1}, position=Position(0, 100))
    gone = apply(read.stored, delete)
    assert (gone.new, gone.is_replay) == (None, False)
    assert apply(gone.stored, Change(op=Op.UPDATE, after={"id": 1}, position=Position(0, 90))).is_replay
