"""The changelog partition of a task: what its records are, and how far a store may be trusted against it.

Its records are store entries: record key = store key, record value = stored value, None deletes. So it compacts to the store, and a
restore copies. One record more, under the reserved store id 0, is the first of a partition: its identity, written when the partition
is made. Its value is what `Position.identity` of a store holds that follows this partition.

    key     00 00 00 00 "identity"
    value   format 1 | epoch 4 | uuid 16

    judge(store.position, identity=identity, begin=0, end=5_000, now_ms=now)
        Verdict(usable=True, reason="is 12 records behind")         read on from store.position.next_offset
        Verdict(usable=False, reason="is rebuilt: ...")     clear the store and read from the begin

**Why age matters.** A compacted topic forgets a deletion `delete.retention.ms` after it was written. A store that has not seen a
deletion by then never will: what was deleted would be back. The limit is half of it, for the clocks of two machines and for the time
that the restore itself takes. A store that is at the end of the log has missed nothing, however old it is.

Source: Kafka documentation, "Log compaction" (guarantee 4, delete retention point).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from struct import Struct as Layout
from typing import cast
from uuid import UUID

from state.errors import StateError
from state.store import Change, Position

FORMAT = 1
DELETE_RETENTION_MS = 7 * 86_400_000
"""`delete.retention.ms` that changelog topics are made with."""

_KEY = bytes(4) + b"identity"
_LAYOUT = Layout(">BI16s")


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a changelog partition this one: it stays the same as long as the partition's content may be built upon.

    Attributes:
        unique: Made up when the partition is first used; another one means that the topic was deleted and made again.
        epoch: Counts the restored savepoints of an app.
    """

    unique: UUID
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a store may be built upon, and why (reads after "the state of shop-3 ...")."""

    usable: bool
    reason: str


def identity_record(unique: UUID, *, epoch: int = 0) -> tuple[bytes, bytes]:
    """Return key and value of the record that begins a changelog partition; the value is also what `Position.identity` holds."""
    return _KEY, _LAYOUT.pack(FORMAT, epoch, unique.bytes)


def is_identity(key: bytes) -> bool:
    """Return whether a record key is that of the identity record."""
    return key == _KEY


def read_identity(key: bytes | None, value: bytes | None) -> bytes | None:
    """Return the identity that a record holds, in the form of `Position.identity`, None if it is another record.

    Raises:
        StateError: An identity, but of a format that this version does not know.
    """
    if key != _KEY:
        return None
    decode_identity(value or b"")
    return value


def decode_identity(raw: bytes) -> Identity:
    """Return what the bytes of an identity say.

    Raises:
        StateError: A format that this version does not know.
    """
    if len(raw) != _LAYOUT.size or raw[0] != FORMAT:
        raise StateError(
            f"the changelog has format {raw[0] if raw else 'none'}, this version reads format {FORMAT}: use the version that wrote it"
        )
    _, epoch, unique = _LAYOUT.unpack(raw)
    return Identity(UUID(bytes=unique), epoch)


def restore_changes(keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> Iterable[Change]:
    """Return the changes that a batch of changelog records makes to a store, in order; the identity is no entry.

    They come straight from the columns, to be gone through once: nothing is made for each record.

    Raises:
        StateError: A record without a key: something else has written to the topic.
    """
    if not all(keys):
        raise StateError("the changelog has a record without a key: something else writes to this topic")
    changes = cast(Iterable[Change], zip(keys, values, strict=True))
    return (change for change in changes if change[0] != _KEY) if _KEY in keys else changes


def judge(
    position: Position, *, identity: bytes, begin: int, end: int, now_ms: int, delete_retention_ms: int = DELETE_RETENTION_MS
) -> Verdict:
    """Decide whether a store may be built upon, or must be rebuilt from the changelog's begin.

    Args:
        position: Where the store says it is.
        identity: That of the changelog partition as it is now.
        begin, end: First offset of the partition, and its last stable offset.
    """
    at = position.next_offset
    if not position.identity:
        return Verdict(False, "is built: there is no local state")
    if position.identity != identity:
        return Verdict(False, "is rebuilt: the local one follows another changelog (the topic was made anew, or a savepoint restored)")
    if at < begin:
        return Verdict(False, f"is rebuilt: the local one ends at {at}, but the changelog begins only at {begin}")
    if at > end:
        return Verdict(False, f"is rebuilt: the local one goes up to {at}, but the changelog ends at {end} already")
    if at == end:
        return Verdict(True, "is intact")
    age_ms = now_ms - position.time_ms
    if age_ms >= delete_retention_ms // 2:
        return Verdict(
            False,
            f"is rebuilt: the local one is {age_ms // 3_600_000} h old, and the changelog may forget deletions "
            f"after {delete_retention_ms // 3_600_000} h (half of that is the limit)",
        )
    return Verdict(True, f"is {end - at} records behind")
