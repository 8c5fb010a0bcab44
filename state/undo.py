"""The undo log of a task's overlay: what a batch has changed, newest last, so that a failed batch can be taken back.

    mark = undo.mark()
    cells.put("a", 1)          # the log takes (cells, "a", the old value, ...)
    undo.rollback(mark)        # and hands it back, newest first

An entry is a tuple that begins with its owner; what follows is the owner's business. `serial` differs between any two stretches
of the log that could be rolled back apart, so that an owner that has noted all it holds need not note it again in that stretch.
"""

from typing import Any, Protocol


class Undoable(Protocol):
    """Who writes entries into the log."""

    def undo(self, entry: tuple[Any, ...]) -> None:
        """Put back what an entry of mine says. Called newest entry first."""
        ...


class UndoLog:
    """Entries since the last `forget`. `entries` is one list for good: owners keep it and append to it directly."""

    __slots__ = ("entries", "serial")

    def __init__(self) -> None:
        self.entries: list[tuple[Any, ...]] = []
        self.serial = 0

    def mark(self) -> int:
        """Return the present place in the log."""
        self.serial += 1
        return len(self.entries)

    def rollback(self, mark: int) -> None:
        """Undo everything after a mark; the mark stays good."""
        entries = self.entries
        assert mark <= len(entries), "rolled back to a mark that was forgotten"
        while len(entries) > mark:
            entry = entries.pop()
            entry[0].undo(entry)
        self.serial += 1

    def forget(self) -> None:
        """Drop the log: what was done stays done, and no mark is good any more."""
        self.entries.clear()
        self.serial += 1
