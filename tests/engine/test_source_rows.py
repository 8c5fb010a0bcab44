"""What is read of a batch: the good records, why the others are bad, and the same for a piece as for the whole."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.records import RecordBatch
from engine.runtime.cutting import cut_piece
from engine.source_rows import RowReader, Rows
from engine.testing.driver import TestDriver
from engine.topology import Topology
from tests.effort import examples


class Order(msgspec.Struct, frozen=True):
    """A record of the source; `ts` may be anything that JSON has."""

    user: str
    ts: Any


def reader(*, table: bool = False, timed: bool = True) -> RowReader:
    topology = Topology("app")
    declare = topology.table if table else topology.source
    return RowReader(declare("orders", Order, key="user", time="ts" if timed else None).spec)


def batch_of(values: list[bytes | None]) -> RecordBatch:
    """Return a batch whose records lie 10 ms apart, from 1,000 on."""
    count = len(values)
    times = range(1_000, 1_000 + 10 * count, 10)
    return RecordBatch("orders", 0, range(count), list(times), [b"k"] * count, values, position=0, next_offset=count)


def order(user: str, ts: Any) -> bytes:
    return json.dumps({"user": user, "ts": ts}).encode()


def test_rows_of_good_records_are_all_rows() -> None:
    rows = reader().read(batch_of([order("ann", 5), order("bob", 3)]))
    assert (rows.keys, rows.timestamps, rows.numbers, rows.errors) == (["ann", "bob"], [5, 3], None, {})


def test_rows_that_are_bad_are_named_with_the_reason_and_have_the_time_before_them() -> None:
    batch = batch_of([b"{", order("ann", 7), order("bob", "noon"), order("eve", 2**63), order("ann", 9)])
    rows = reader().read(batch)
    assert (rows.keys, rows.timestamps, rows.numbers) == (["ann", "ann"], [7, 9], [1, 4])
    assert {row: str(error).split(",")[0] for row, error in rows.errors.items() if row > 0} == {
        2: "the event time must be a whole number of milliseconds",
        3: f"the event time {2**63} is beyond what 64 bits leave room for",
    }
    assert "truncated" in str(rows.errors[0])
    assert rows.all_times(batch) == [1_000, 7, 7, 7, 9]


class Timed(msgspec.Struct, frozen=True):
    """A record whose time is declared as an int: whether it is one is the codec's business, how large it may be is not."""

    user: str
    ts: int


def as_float(timed: Timed) -> int:
    return timed.ts / 2  # type: ignore[return-value]  # annotations of user code need not be true


LAST = 2**62 - 2


@pytest.mark.parametrize("beside", [[], [b"{"]], ids=["alone", "beside a bad record"])
@pytest.mark.parametrize("time_ms", [10**30, 2**64 - 1, 2**63 + 5, LAST + 1, -(2**62), -(2**63), -(10**30)])
def test_rows_with_a_time_beyond_the_bounds_are_bad_also_of_an_int_field(time_ms: int, beside: list[bytes | None]) -> None:
    declared = Topology("app").source("orders", Timed, key="user", time="ts")
    rows = RowReader(declared.spec).read(batch_of([order("ann", LAST), order("bob", time_ms), order("eve", -LAST), *beside]))
    assert (rows.keys, rows.timestamps, rows.numbers) == (["ann", "eve"], [LAST, -LAST], [0, 2])
    assert str(rows.errors[1]) == f"the event time {time_ms} is beyond what 64 bits leave room for"
    assert set(rows.errors) == ({1, 3} if beside else {1})


def test_rows_with_a_timestamp_of_kafka_beyond_the_bounds_are_bad() -> None:
    batch = batch_of([order("ann", 1), order("bob", 1)])
    batch.timestamps[1] = 2**63 - 1  # type: ignore[index]  # it is the list that was given
    rows = reader(timed=False).read(batch)
    assert (rows.keys, list(rows.errors)) == (["ann"], [1])


def test_rows_of_a_callable_that_is_annotated_as_int_must_still_have_whole_times() -> None:
    declared = Topology("app").source("orders", Timed, key="user", time=as_float)
    rows = RowReader(declared.spec).read(batch_of([order("ann", 4)]))
    assert str(rows.errors[0]) == "the event time must be a whole number of milliseconds, not 2.0"


@pytest.mark.parametrize("max_ahead", [None, "1h"])
def test_time_beyond_the_bounds_is_a_dead_letter_and_the_commit_goes_through(max_ahead: str | None) -> None:
    topology = Topology("app", partitions=1)
    timed = topology.source("orders", Timed, key="user", time="ts")
    topology.pipeline(timed, name="copy")(lambda orders: orders.to("out"))
    with TestDriver(topology, max_ahead=max_ahead) as driver:
        driver.send("orders", Timed("ann", 5))
        driver.send("orders", Timed("bob", 2**64 - 1))
        driver.commit()
        assert [record.key for record in driver.read("out")] == ["ann"]
        assert [letter.value["user"] for letter in driver.read("app-dlq")] == ["bob"]


def test_rows_of_a_table_delete_by_key_at_the_time_of_the_record() -> None:
    batch = batch_of([order("ann", 7), None])
    rows = reader(table=True).read(batch)
    assert (rows.keys, rows.timestamps, rows.errors) == (["ann", "k"], [7, 1_010], {})


VALUES = st.one_of(
    st.builds(order, st.sampled_from(["ann", "bob"]), st.one_of(st.integers(0, 99), st.just("noon"))), st.just(b"{"), st.none()
)


@given(values=st.lists(VALUES, min_size=1, max_size=12), data=st.data(), table=st.booleans(), timed=st.booleans())
@settings(max_examples=examples(300), deadline=None)
def test_rows_of_a_piece_are_a_cut_of_those_of_the_batch(values: list[bytes | None], data: st.DataObject, table: bool, timed: bool) -> None:
    rows_reader, batch = reader(table=table, timed=timed), batch_of(values)
    start = data.draw(st.integers(0, len(values) - 1))
    stop = data.draw(st.integers(start + 1, len(values)))
    assert described(rows_reader.read(batch).cut(start, stop)) == described(rows_reader.read(cut_piece(batch, start, stop - start)))


def described(rows: Rows) -> Any:
    """Return what can be compared; a piece in which all is good has no need to number its rows."""
    numbers = list(range(len(rows.keys))) if rows.numbers is None else list(rows.numbers)
    errors = {row: repr(error) for row, error in rows.errors.items()}
    return list(rows.keys), list(rows.values), list(rows.timestamps), numbers, errors, rows.skipped
