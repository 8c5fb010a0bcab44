"""Running totals must count every record once, whatever the cuts and restarts, and tell the latest once a commit."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import agg
from engine.block import MAX_TIME
from engine.errors import ConfigError
from engine.operators.aggregate import AggregateSpec, aggregate_operator
from engine.testing.harness import OperatorHarness, Out
from tests.effort import examples


def make(**options: Any) -> OperatorHarness:
    aggregates = {"n": agg.count(), "total": agg.sum(lambda value: value), "last": agg.last(lambda value: value)}
    return OperatorHarness(aggregate_operator(AggregateSpec(aggregates, value_type=int, **options)))


RECORDS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(-5, 5), st.integers(0, 50)), max_size=25)
CUTS = st.lists(st.integers(1, 9), max_size=8)


def blocks(records: list[tuple[str, int, int]], cuts: list[int]) -> list[list[tuple[str, int, int]]]:
    """Cut records into blocks; the rest is one."""
    cut = []
    for size in cuts:
        cut.append(records[:size])
        records = records[size:]
    return [*cut, records]


def total_of(seen: list[tuple[str, int, int]]) -> dict[str, Any]:
    in_order = sorted(seen, key=lambda record: record[2])
    return {"key": seen[0][0], "n": len(seen), "total": sum(number for _, number, _ in seen), "last": in_order[-1][1]}


@settings(max_examples=examples(60), deadline=None)
@given(RECORDS, CUTS, st.booleans())
def test_record_totals_any_cut_follow_every_record(records: list[tuple[str, int, int]], cuts: list[int], restarts: bool) -> None:
    expected = []
    for at, (key, _, time_ms) in enumerate(records):
        expected.append((key, total_of([record for record in records[: at + 1] if record[0] == key]), time_ms))
    harness = make(emit="record")
    for block in blocks(records, cuts):
        harness.feed_block(block)
        if restarts:
            harness.snapshot_and_restore()
    assert [(out.key, out.value, out.timestamp_ms) for out in harness.take()] == expected


@settings(max_examples=examples(60), deadline=None)
@given(RECORDS, CUTS, st.booleans())
def test_update_totals_tell_each_changed_key_once_a_commit(records: list[tuple[str, int, int]], cuts: list[int], restarts: bool) -> None:
    harness = make()
    seen: list[tuple[str, int, int]] = []
    for block in blocks(records, cuts):
        half = len(block) // 2
        harness.feed_block(block[:half])
        harness.feed_block(block[half:])
        seen += block
        assert harness.take() == []
        harness.commit()
        expected = [
            (key, total_of(of_key), max(time_ms for _, _, time_ms in of_key))
            for key in sorted({record[0] for record in block})
            if (of_key := [record for record in seen if record[0] == key])
        ]
        assert [(out.key, out.value, out.timestamp_ms) for out in harness.take()] == expected
        if restarts:
            harness.restart()


def test_update_rolled_back_batch_is_neither_counted_nor_told() -> None:
    harness = make()
    harness.feed("a", 1, 1)
    mark = harness.mark()
    harness.feed_block([("a", 100, 2), ("b", 100, 2)])
    harness.rollback(mark)
    harness.commit()
    assert [(out.key, out.value["total"], out.timestamp_ms) for out in harness.take()] == [("a", 1, 1)]


def test_update_comes_out_at_the_watermark_of_the_commit() -> None:
    harness = make()
    harness.feed("a", 1, 7, watermark=6)
    harness.advance(50)
    harness.commit()
    assert harness.take() == [Out("a", {"key": "a", "n": 1, "total": 1, "last": 1}, 7, 50)]
    harness.advance(MAX_TIME)
    harness.commit()
    assert harness.take() == []


def test_totals_into_struct() -> None:
    class Spent(msgspec.Struct):
        user: str
        cents: int

    spec = AggregateSpec({"cents": agg.sum(lambda value: value)}, into=Spent, key_as="user", value_type=int)
    harness = OperatorHarness(aggregate_operator(spec))
    harness.feed("ann", 5, 1)
    harness.commit()
    assert [out.value for out in harness.take()] == [Spent("ann", 5)]
    assert dict(harness.operator.inspect("ann")) == {"total": Spent("ann", 5)}


def test_totals_name_taken_by_the_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="'user' already"):
        aggregate_operator(AggregateSpec({"user": agg.count()}, key_as="user"))
