"""The section of a store that one named state owns, and what its cells share."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final

from state.errors import StateError
from state.keys import prefix_end, store_id
from state.store import Store
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

    def foreign_key(self, raw: bytes, error: Exception) -> StateError:
        """Return the error for a store key that does not decode."""
        return StateError(f"state {self.name!r}: the store key {raw!r} does not fit its type: {error}")


__all__ = ["DECODE_ERRORS", "KEY_OF", "MISSING", "Section"]
