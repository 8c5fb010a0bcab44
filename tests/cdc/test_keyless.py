"""Rows without a primary key: copies that come and go in any order, and replays told apart by the run of the connector."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc import Change, Op, Position
from cdc.keyless import Copies, KeylessGuard, apply_without_key
from engine.errors import RecordError


@given(st.permutations([("add", 10), ("add", 20), ("remove", 15), ("remove", 30), ("add", 40)]))
def test_copies_are_the_same_in_any_order(steps: list[tuple[str, int]]) -> None:
    copies = Copies()
    for step, lsn in steps:
        copies = copies.add(lsn) if step == "add" else copies.remove(lsn)
    assert copies.number == 1


def test_truncate_keeps_the_copies_that_were_written_after_it() -> None:
    assert Copies((10, 20, 30), (15, 40)).truncate(20) == Copies((20, 30), (40,))


def change(lsn: int, run: str, op: Op = Op.CREATE, snapshot: str | None = None) -> Change[Any]:
    return Change(op=op, after={"a": 1}, position=Position(lsn, lsn), run=run, snapshot=snapshot)


def test_changes_at_one_position_are_counted_and_passed_over_in_another_run() -> None:
    guard = KeylessGuard()
    taken = []
    for lsn, run in [
        (10, "x"),
        (10, "x"),
        (10, "y"),
        (10, "y"),
        (10, "y"),
        (5, "z"),
        (10, "z"),
        (10, "z"),
        (10, "z"),
        (10, "z"),
        (11, "z"),
    ]:
        applied = apply_without_key(guard, change(lsn, run))
        guard = applied.guard
        taken.append(not applied.is_replay)
    assert taken == [True, True, False, False, True, False, False, False, False, True, True]


def test_incremental_read_is_refused() -> None:
    with pytest.raises(RecordError, match="incremental snapshot"):
        apply_without_key(KeylessGuard(), change(10, "x", Op.READ, "incremental"))
