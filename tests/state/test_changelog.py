"""Changelog records, and each reason for which a store is or is not built upon."""

from uuid import UUID

import pytest

from state.changelog import (
    DELETE_RETENTION_MS,
    Identity,
    decode_identity,
    identity_record,
    is_identity,
    judge,
    read_identity,
    restore_changes,
)
from state.errors import StateError
from state.store import Position

UNIQUE = UUID(int=7)
IDENTITY = identity_record(UNIQUE)[1]
NOW = 1_700_000_000_000


def test_identity_record_golden_bytes_do_not_change() -> None:
    key, value = identity_record(UNIQUE, epoch=2)
    assert (key, value) == (b"\0\0\0\0identity", b"\x01\0\0\0\x02" + UNIQUE.bytes)
    assert decode_identity(value) == Identity(UNIQUE, 2)
    assert read_identity(key, value) == value
    assert is_identity(key)


def test_read_identity_of_another_record_is_none() -> None:
    assert read_identity(b"\0\0\0\1abc", b"x") is None
    assert read_identity(None, b"x") is None


@pytest.mark.parametrize("value", [None, b"", b"\x02" + bytes(20), IDENTITY[:-1]])
def test_read_identity_of_an_unknown_format_raises_state_error(value: bytes | None) -> None:
    with pytest.raises(StateError, match="format"):
        read_identity(identity_record(UNIQUE)[0], value)


def test_restore_changes_of_a_batch_are_its_entries_in_order_without_the_identity() -> None:
    identity_key, identity = identity_record(UNIQUE)
    changes = [(b"a", b"1"), (b"b", None), (b"a", b"2")]
    assert list(restore_changes([identity_key, b"a", b"b", b"a"], [identity, b"1", None, b"2"])) == changes
    assert list(restore_changes([b"a", b"b", b"a"], [b"1", None, b"2"])) == changes


@pytest.mark.parametrize("key", [None, b""])
def test_restore_changes_of_a_record_without_key_raises_state_error(key: bytes | None) -> None:
    with pytest.raises(StateError, match="without a key"):
        restore_changes([key], [b"1"])


@pytest.mark.parametrize(
    ("position", "usable", "reason"),
    [
        (Position(), False, "no local state"),
        (Position(IDENTITY, 900, NOW - 1), True, "100 records behind"),
        (Position(IDENTITY, 1_000, NOW - 1), True, "intact"),
        (Position(IDENTITY, 1_000, 0), True, "intact"),
        (Position(identity_record(UUID(int=8))[1], 900, NOW), False, "another changelog"),
        (Position(identity_record(UNIQUE, epoch=1)[1], 900, NOW), False, "another changelog"),
        (Position(IDENTITY, 99, NOW), False, "ends at 99, but the changelog begins only at 100"),
        (Position(IDENTITY, 100, NOW), True, "900 records behind"),
        (Position(IDENTITY, 1_001, NOW), False, "goes up to 1001, but the changelog ends at 1000"),
        (Position(IDENTITY, 900, NOW - DELETE_RETENTION_MS // 2), False, "84 h old"),
        (Position(IDENTITY, 900, NOW - DELETE_RETENTION_MS // 2 + 1), True, "100 records behind"),
        (Position(IDENTITY, 900, 0), False, "h old"),
    ],
)
def test_judge_each_situation_has_its_verdict_and_reason(position: Position, usable: bool, reason: str) -> None:
    verdict = judge(position, identity=IDENTITY, begin=100, end=1_000, now_ms=NOW)
    assert verdict.usable is usable
    assert reason in verdict.reason
