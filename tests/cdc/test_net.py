"""Many changes at once come to what they come to one by one, and both to what the source holds."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc import Change, Op, Position
from cdc.apply import NOWHERE, Stored, apply
from cdc.net import net_of
from tests.cdc.source_log import SourceLog, straddling
from tests.effort import examples

Table = dict[bytes, Stored[dict[str, Any]]]


def pack(key: dict[str, Any]) -> bytes:
    return b"%d" % key["id"]


def one_by_one(table: Table, changes: Sequence[Change[dict[str, Any]]], truncated: Position = NOWHERE) -> int:
    applied = 0
    for change in changes:
        assert change.key is not None
        outcome = apply(table.get(pack(change.key)), change, truncated=truncated)
        table[pack(change.key)] = outcome.stored
        applied += not outcome.is_replay
    return applied


def at_once(table: Table, changes: Sequence[Change[dict[str, Any]]], truncated: Position = NOWHERE) -> int:
    net = net_of(changes, table, truncated, pack)
    assert net is not None
    rows = {pack(row): row for row in net.rows}
    for key, commit, lsn in zip(net.keys, net.commit_lsns, net.lsns, strict=True):
        table[key] = Stored(rows.get(key), Position(commit, lsn))
    return net.applied


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_both_ways_give_what_the_source_holds(seed: int, size: int) -> None:
    log = SourceLog(seed)
    log.run(120)
    careful: Table = {}
    fast: Table = {}
    for start in range(0, len(log.emitted), size):
        batch = log.emitted[start : start + size]
        assert at_once(fast, batch) == one_by_one(careful, batch)
        assert fast == careful
    assert {key: stored.row for key, stored in fast.items() if stored.row} == {pack(row): row for row in log.committed.values()}


def test_the_source_makes_what_an_order_by_lsn_would_lose() -> None:
    found = 0
    for seed in range(20):
        log = SourceLog(seed)
        log.run(120)
        found += straddling(log)
    assert found > 20


@pytest.mark.parametrize("truncated", [NOWHERE, Position(1, 50), Position(40, 45), Position(0, 60)])
def test_a_truncate_before_counts_the_same_both_ways(truncated: Position) -> None:
    chance = random.Random(3)
    changes = []
    for _ in range(200):
        op = chance.choice([Op.READ, Op.CREATE, Op.UPDATE, Op.DELETE])
        key, commit, lsn = chance.randint(1, 5), chance.choice([0, 0, 30, 44, 70]), chance.randint(0, 90)
        after = None if op is Op.DELETE else {"id": key, "v": lsn}
        changes.append(Change(op=op, key={"id": key}, after=after, position=Position(commit, lsn)))
    careful: Table = {}
    fast: Table = {}
    assert at_once(fast, changes, truncated) == one_by_one(careful, changes, truncated)
    known = {key: stored for key, stored in careful.items() if stored != Stored()}
    assert fast == known


@pytest.mark.parametrize(
    "change",
    [
        Change(op=Op.TRUNCATE, position=Position(1, 9)),
        Change(op=Op.MESSAGE, position=Position(1, 9)),
        Change(op=Op.UPDATE, key={"id": 1}, after={"id": 1}, unavailable=("body",)),
        Change(op=Op.DELETE, key={"id": 1}, new_key={"id": 2}),
        Change(op=Op.CREATE, after={"id": 1}),
        Change(op=Op.UPDATE, key={"id": 1}),
    ],
)
def test_what_is_not_plain_is_left_to_the_careful_way(change: Change[dict[str, Any]]) -> None:
    assert net_of([change], {}, NOWHERE, pack) is None


def test_keys_with_something_missing_or_departed_are_left_to_the_careful_way() -> None:
    plain: Change[dict[str, Any]] = Change(op=Op.DELETE, key={"id": 1})
    assert net_of([plain], {b"1": Stored(None, Position(), ("body",))}, NOWHERE, pack) is None
    assert net_of([plain], {b"1": Stored(None, Position(), (), {"id": 0})}, NOWHERE, pack) is None
