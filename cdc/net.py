"""What a batch of plain changes comes to, reckoned at once: the newest row of each key, and its position.

    c 1 a, u 1 b, c 2 x, d 2          1: b at the position of u;  2: gone, at the position of d

A change is plain if it brings a whole row or takes one away. Others need what is stored (unavailable values, a delete that is half
of a key change) or concern all rows (a truncate, the end of a snapshot): then the batch is applied one by one by `cdc.apply`. A test
compares both ways.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cdc.apply import NOWHERE, Stored, goes_with, is_behind, place_of
from cdc.change import Change, Op, Position

_UPSERTS = (Op.READ, Op.CREATE, Op.UPDATE)


@dataclass(frozen=True, slots=True)
class Net:
    """Outcome of a batch.

    Attributes:
        keys: Columns of each key that changed, by the key as bytes.
        rows: The rows that there are then, in no particular order; keys without one are gone.
        lsns, commit_lsns: Position of the last change of each key, in the order of `keys`.
        applied: Number of changes that were no replays.
    """

    keys: dict[bytes, dict[str, Any]]
    rows: list[dict[str, Any]]
    lsns: list[int]
    commit_lsns: list[int]
    applied: int


def net_of(
    changes: Sequence[Change[dict[str, Any]]],
    stored: Mapping[bytes, Stored[dict[str, Any]]],
    truncated: Position,
    pack: Callable[[dict[str, Any]], bytes],
) -> Net | None:
    """Return what changes come to, None if one of them is not plain.

    Args:
        stored: What is known of keys so far; only the positions are asked.
        truncated: Position of the table's last truncate.
        pack: A key as bytes.
    """
    last: dict[bytes, Change[dict[str, Any]]] = {}
    guards: dict[bytes, Position] = {}
    for packed, known in stored.items():
        if known.missing or known.departed is not None:
            return None
        guards[packed] = known.position
    floored, applied = truncated != NOWHERE, 0
    for change in changes:
        key = change.key
        if key is None or change.new_key is not None or change.ends_snapshot:
            return None
        if change.op is not Op.DELETE and (change.op not in _UPSERTS or change.after is None or change.unavailable):
            return None
        packed = pack(key)
        place = change.position if change.position.commit_lsn else place_of(change)
        guard = guards.get(packed)
        if (guard is not None and is_behind(place, guard)) or (floored and goes_with(place, truncated)):
            continue
        applied += 1
        last[packed] = change
        if guard is None or place.lsn:
            guards[packed] = place
    positions = [guards[packed] for packed in last]
    return Net(
        {packed: change.key for packed, change in last.items() if change.key is not None},
        [change.after for change in last.values() if change.after is not None and change.op is not Op.DELETE],
        [position.lsn for position in positions],
        [position.commit_lsn for position in positions],
        applied,
    )


__all__ = ["Net", "net_of"]
