"""The section of a store that one named state owns, and what its cells share."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final

from state.errors import StateError, StoredTypeError, StreamForgeError
from state.keys import prefix_end, store_id
from state.store import Change, Store
from state.undo import UndoLog
from state.values import DECODE_ERRORS

MISSING: Final[Any] = object()
"""Stands for "not looked up yet", where None stands for "known to be absent"."""

KEY_OF: Final = itemgetter(0)
"""Sorts changes by their keys."""


@dataclass(slots=True)
class Section:
    """All entries below a store id.

    Attributes:
        low, high: Every key of the section is in [low, high); `low` is the store id.
        chunk: How many entries are read at a time where a state may be larger than memory.
    """

    name: str
    store: Store
    undo: UndoLog
    chunk: int
    low: bytes = field(init=False)
    high: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.low = store_id(self.name)
        self.high = prefix_end(self.low)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Return the entries below a prefix, in key order."""
        return self.store.scan(prefix, prefix_end(prefix))

    def deletions(self, raws: Iterable[bytes]) -> list[Change]:
        """Return the changes that delete some keys, those that the store has not left out."""
        wanted = sorted(raws)
        return [(raw, None) for raw, value in zip(wanted, self.store.get_many(wanted), strict=True) if value is not None]

    def foreign_key(self, raw: bytes, error: Exception) -> StreamForgeError:
        """Return the error for a store key that does not decode."""
        return foreign_key(self.name, raw, error)


def foreign_key(name: str, raw: bytes, error: Exception) -> StreamForgeError:
    """Return the error for a store key of a state that does not decode: it is cut off, or the type of keys has changed."""
    what = f"state {name!r}: the store key {raw!r} does not fit the type of keys"
    if isinstance(error, StateError):
        return StateError(f"{what}: {error}")
    return StoredTypeError(f"{what} that is declared now: {error}. Bring the old type of the key back: keys cannot change theirs")


__all__ = ["DECODE_ERRORS", "KEY_OF", "MISSING", "Section", "foreign_key"]
