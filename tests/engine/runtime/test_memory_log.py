"""A partition's log: offsets, markers, what read_committed sees, compaction, deletion."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError, StateError
from engine.records import OutputColumns, RecordBatch, TopicPartition
from engine.runtime.transport.memory_log import PartitionLog


def new_log(*, compacted: bool = False, append_time: bool = False) -> PartitionLog:
    return PartitionLog(TopicPartition("orders", 0), compacted=compacted, append_time=append_time)


def columns(*values: str | None, key: str | None = "k", headers: bool = False) -> OutputColumns:
    """Return records with the given values; their timestamps count from 100."""
    made = OutputColumns()
    for index, value in enumerate(values):
        raw_key = None if key is None else key.encode()
        made.append(100 + index, raw_key, None if value is None else value.encode(), [("h", value.encode())] if headers and value else ())
    return made


def seen(batch: RecordBatch) -> list[tuple[int, bytes | None]]:
    return list(zip(batch.offsets, batch.values, strict=True))


def test_append_gives_ascending_offsets() -> None:
    log = new_log()
    assert log.append(columns("a", "b"), 0) == 2
    assert log.append(columns("c"), 0) == 3
    batch = log.read(0, 10)
    assert seen(batch) == [(0, b"a"), (1, b"b"), (2, b"c")]
    assert (batch.timestamps, batch.keys) == ([100, 101, 100], [b"k", b"k", b"k"])
    assert (batch.position, batch.next_offset, batch.high_watermark) == (0, 3, 3)


def test_append_copies_the_columns() -> None:
    log, sent = new_log(), columns("a")
    log.append(sent, 0, producer=1)
    log.append(sent, 0)
    sent.append(0, b"k", b"later")
    assert seen(log.read(0, 10, committed=False)) == [(0, b"a"), (1, b"a")]


def test_read_gives_columns_that_later_appends_do_not_change() -> None:
    log = new_log()
    log.append(columns("a"), 0)
    batch = log.read(0, 10)
    log.append(columns("b"), 0)
    assert seen(batch) == [(0, b"a")]


def test_append_time_replaces_the_timestamps() -> None:
    log = new_log(append_time=True)
    log.append(columns("a", "b"), 7_000)
    assert log.read(0, 10).timestamps == [7_000, 7_000]


def test_read_of_headers_fills_in_records_without() -> None:
    log = new_log()
    log.append(columns("a"), 0)
    log.append(columns("b", headers=True), 0)
    log.append(columns("c"), 0)
    assert list(log.read(0, 10).headers) == [(), [("h", b"b")], ()]
    assert list(log.read(2, 10).headers) == [()]


def test_read_at_most_so_many_records_goes_on_behind_them() -> None:
    log = new_log()
    for value in "abcde":
        log.append(columns(value), 0)
    first = log.read(0, 3)
    assert (seen(first), first.next_offset) == ([(0, b"a"), (1, b"b"), (2, b"c")], 3)
    assert seen(log.read(first.next_offset, 3)) == [(3, b"d"), (4, b"e")]


def test_marker_takes_an_offset_and_read_moves_past_it() -> None:
    log = new_log()
    log.append(columns("a"), 0, producer=7)
    log.end_transaction(7, commit=True)
    assert (log.high_watermark, log.last_stable_offset) == (2, 2)
    batch = log.read(0, 10)
    assert (seen(batch), batch.next_offset) == ([(0, b"a")], 2)
    behind = log.read(1, 10)
    assert (seen(behind), behind.next_offset) == ([], 2)


def test_read_committed_stops_at_an_open_transaction() -> None:
    log = new_log()
    log.append(columns("a"), 0)
    log.append(columns("open"), 0, producer=7)
    log.append(columns("b"), 0)
    assert (log.last_stable_offset, log.high_watermark) == (1, 3)
    batch = log.read(0, 10)
    assert (seen(batch), batch.next_offset, batch.high_watermark) == ([(0, b"a")], 1, 1)
    log.end_transaction(7, commit=True)
    assert seen(log.read(1, 10)) == [(1, b"open"), (2, b"b")]


def test_last_stable_offset_is_held_by_the_oldest_open_transaction() -> None:
    log = new_log()
    log.append(columns("a"), 0, producer=1)
    log.append(columns("b"), 0, producer=2)
    log.end_transaction(2, commit=True)
    assert log.last_stable_offset == 0
    log.end_transaction(1, commit=False)
    assert log.last_stable_offset == log.high_watermark == 4


def test_read_committed_leaves_out_aborted_records_only() -> None:
    log = new_log()
    log.append(columns("kept"), 0, producer=1)
    log.end_transaction(1, commit=True)
    log.append(columns("x", "y"), 0, producer=1)
    log.append(columns("plain"), 0)
    log.end_transaction(1, commit=False)
    log.append(columns("after"), 0, producer=1)
    log.end_transaction(1, commit=True)
    assert seen(log.read(0, 10)) == [(0, b"kept"), (4, b"plain"), (6, b"after")]
    assert [value for _, value in seen(log.read(0, 10, committed=False))] == [b"kept", b"x", b"y", b"plain", b"after"]


@pytest.mark.parametrize("position", [-1, 1, 4])
def test_read_outside_the_log_is_a_state_error(position: int) -> None:
    log = new_log()
    log.append(columns("a", "b", "c"), 0)
    log.delete_below(2)
    with pytest.raises(StateError, match=r"orders\[0\]: offset .* from 2 to 3"):
        log.read(position, 10)


def test_delete_below_moves_the_start_and_frees_no_later_record() -> None:
    log = new_log()
    log.append(columns("a", "b", "c"), 0)
    log.append(columns("d"), 0, producer=1)
    log.end_transaction(1, commit=True)
    log.delete_below(1)
    assert (log.start, seen(log.read(1, 10))) == (1, [(1, b"b"), (2, b"c"), (3, b"d")])
    log.delete_below(0)
    assert log.start == 1
    log.delete_below(-1)
    assert (log.start, log.read(5, 10).next_offset) == (5, 5)


def test_delete_below_an_offset_behind_the_end_is_refused() -> None:
    log = new_log()
    log.append(columns("a"), 0)
    with pytest.raises(ConfigError, match="ends at 1"):
        log.delete_below(2)


def test_delete_below_of_a_compacted_topic_is_refused() -> None:
    with pytest.raises(ConfigError, match="compacted"):
        new_log(compacted=True).delete_below(0)


def test_check_of_a_compacted_topic_refuses_records_without_a_key() -> None:
    with pytest.raises(ConfigError, match="without a key"):
        new_log(compacted=True).check(columns("a", key=None))


def filled(*records: tuple[str, str | None]) -> PartitionLog:
    log = new_log(compacted=True)
    for key, value in records:
        log.append(columns(value, key=key), 0)
    return log


def test_compact_keeps_the_newest_of_each_key_and_leaves_holes() -> None:
    log = filled(("a", "1"), ("b", "1"), ("a", "2"), ("c", "1"), ("c", "2"))
    log.append(columns("gone", key="z"), 0, producer=1)
    log.end_transaction(1, commit=True)
    log.append(columns("3", key="z"), 0)
    log.compact(0, 1_000)
    batch = log.read(0, 10)
    assert list(zip(batch.offsets, batch.keys, batch.values, strict=True)) == [
        (1, b"b", b"1"),
        (2, b"a", b"2"),
        (4, b"c", b"2"),
        (7, b"z", b"3"),
    ]
    assert (batch.next_offset, log.high_watermark, log.start) == (8, 8, 0)


def test_compact_leaves_a_hole_at_the_end_and_read_moves_past_it() -> None:
    log = filled(("a", "1"))
    log.append(columns("x", key="a"), 0, producer=1)
    log.end_transaction(1, commit=False)
    log.compact(0, 1_000)
    batch = log.read(1, 10)
    assert (seen(batch), batch.next_offset) == ([], 3)
    assert seen(log.read(0, 10)) == [(0, b"1")]


def test_compact_ignores_aborted_records_when_it_looks_for_the_newest() -> None:
    log = filled(("a", "kept"))
    log.append(columns("aborted", key="a"), 0, producer=1)
    log.end_transaction(1, commit=False)
    log.compact(0, 1_000)
    assert seen(log.read(0, 10)) == [(0, b"kept")]


def test_compact_touches_nothing_from_an_open_transaction_on() -> None:
    log = filled(("a", "1"))
    log.append(columns("2", key="a"), 0, producer=1)
    log.append(columns("3", key="a"), 0)
    log.append(columns("4", key="a"), 0)
    log.compact(0, 1_000)
    log.end_transaction(1, commit=True)
    assert [value for _, value in seen(log.read(0, 10))] == [b"1", b"2", b"3", b"4"]


def test_compact_keeps_a_tombstone_for_the_delete_retention_after_it_met_it() -> None:
    log = filled(("a", "1"), ("a", None), ("b", "1"))
    log.compact(50_000, 1_000)
    assert seen(log.read(0, 10)) == [(1, None), (2, b"1")]
    log.compact(50_999, 1_000)
    assert seen(log.read(0, 10)) == [(1, None), (2, b"1")]
    log.compact(51_000, 1_000)
    assert seen(log.read(0, 10)) == [(2, b"1")]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(-1, 2), st.integers(1, 3)),
        st.tuples(st.just("commit"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("abort"), st.integers(0, 2), st.just(0)),
    ),
    max_size=25,
)


def oracle(steps: Sequence[tuple[str, int, int]]) -> tuple[list[tuple[int, bytes]], int]:
    """Return the committed (offset, value) and the last stable offset, one record at a time."""
    rows: list[tuple[int, int, bytes]] = []
    fate: dict[int, str] = {}
    open_rows: dict[int, list[int]] = {}
    offset = 0
    for what, producer, count in steps:
        if what == "append":
            for _ in range(count):
                rows.append((offset, producer, b"%d" % offset))
                open_rows.setdefault(producer, []).append(offset)
                offset += 1
        elif open_rows.get(producer):
            fate.update(dict.fromkeys(open_rows.pop(producer), what))
            offset += 1
    stable = min((row for row, producer, _ in rows if producer >= 0 and row not in fate), default=offset)
    return [(row, value) for row, producer, value in rows if row < stable and (producer < 0 or fate[row] == "commit")], stable


@given(STEPS, st.integers(1, 5))
def test_read_in_any_steps_gives_what_one_record_at_a_time_would(steps: list[tuple[str, int, int]], records_max: int) -> None:
    log = new_log()
    for what, producer, count in steps:
        if what == "append":
            log.append(columns(*(str(log.high_watermark + index) for index in range(count))), 0, producer)
        else:
            log.end_transaction(producer, commit=what == "commit")
    expected, stable = oracle(steps)
    position, found = 0, []
    while position < stable:
        batch = log.read(position, records_max)
        assert batch.position == position < batch.next_offset
        assert len(batch) <= records_max
        found += seen(batch)
        position = batch.next_offset
    assert (found, position, log.last_stable_offset) == (expected, stable, stable)
