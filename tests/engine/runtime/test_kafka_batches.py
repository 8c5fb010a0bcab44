"""Batches: the fast way and the careful one make the same bytes, and together the batches are the columns."""

from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.records import OutputColumns
from engine.runtime.transport.kafka.batches import _fill, _fill_carefully, build_batches
from tests.effort import examples

BATCH_BYTES = 200
"""Room for a few records."""


class Driver:
    """What is asked of a producer."""

    def create_batch(self) -> BatchBuilder:
        """Return an empty batch."""
        return BatchBuilder(BATCH_BYTES, 0)


ROWS = st.lists(
    st.tuples(
        st.integers(0, 2**40), st.one_of(st.none(), st.binary(max_size=30)), st.one_of(st.none(), st.binary(max_size=BATCH_BYTES * 2))
    ),
    max_size=30,
)


@given(ROWS)
@settings(max_examples=examples(60), deadline=None)
def test_build_batches_without_headers_gives_the_bytes_of_the_careful_way(rows: list[tuple[int, bytes | None, bytes | None]]) -> None:
    columns = OutputColumns()
    for timestamp_ms, key, value in rows:
        columns.append(timestamp_ms, key, value)
    fast, careful = _fill(Driver(), columns), _fill_carefully(Driver(), columns)
    assert [batch.record_count() for batch in fast] == [batch.record_count() for batch in careful]
    assert sum(batch.record_count() for batch in fast) == len(rows)
    if rows:
        assert [batch._build() for batch in fast] == [batch._build() for batch in careful]


def test_build_batches_record_larger_than_a_batch_gets_one_of_its_own() -> None:
    columns = OutputColumns([1, 2, 3], [b"a", b"b", b"c"], [b"x", b"y" * BATCH_BYTES * 2, b"z"])
    assert [batch.record_count() for batch in build_batches(Driver(), columns)] == [1, 1, 1]


def test_build_batches_keeps_headers() -> None:
    columns = OutputColumns()
    columns.append(1, b"a", b"x")
    columns.append(2, b"b", b"y", (("h", b"1"),))
    (batch,) = build_batches(Driver(), columns)
    read = MemoryRecords(bytes(batch._build())).next_batch()
    assert [(record.key, record.headers) for record in read] == [(b"a", []), (b"b", [("h", b"1")])]
