"""The overlay of a task: what has changed since the last commit, over what the store holds, with undo.

    cells.get(key)      overlay, else decoded cache, else the store (read-your-writes)
    cells.put(key, v)   into the overlay; the old value into the undo log
    mark() / rollback() a batch that fails is undone as if it had never been
    changes()           every entry that differs from the store, encoded, in key order: for the changelog and the store
    committed()         after the transaction and `Store.apply`: the overlay becomes cache, and the cache is trimmed

Values are treated as immutable: an operator puts a new object, it never changes one that it has put or got. That makes undo a
matter of putting references back, and lets the decoded cache be shared. What was created and deleted between two commits is
no change at all, so a window that opens and closes within one commit interval costs nothing in changelog and store.

    state = TaskState(MemoryStore())
    totals = state.keyed("revenue/totals/sum", key_codec(str), json_codec(int))
    mark = state.mark()
    totals.put("EUR", 12)
    state.rollback(mark)                  totals.get("EUR") is None again
    totals.put("EUR", 7)
    store.apply(state.changes(), position); state.committed()

The store must not change under the overlay but by its own changes. An entry that is put counts as changed even if it is equal to
what was there. The four kinds of cells: `state.cells`, `state.maps`, `state.timed`, `state.panes`.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from state.catalog import Catalog, Merge, StateSpec, View
from state.cells import KeyedCells
from state.errors import StateError
from state.keys import Codec, KeyCodec, KeyParts
from state.maps import MapCells
from state.panes import Pane, PaneCells
from state.section import Section
from state.store import Change, Store
from state.timed import TimedCells
from state.undo import UndoLog

K = TypeVar("K")
S = TypeVar("S")
V = TypeVar("V")


class _Cells(Protocol):
    """What the overlay asks of every kind of cells."""

    def changes(self) -> list[Change]: ...

    def committed(self) -> None: ...

    def size(self) -> int: ...

    def evict(self, number: int) -> None: ...


C = TypeVar("C", bound=_Cells)


class TaskState:
    """All state of a task, by name.

    Args:
        store: Opened and restored.
        cache_entries_max: How many decoded entries stay in memory after a commit, over all states together. A read that goes past
            the end of memory takes at most an eighth of that at once.
    """

    def __init__(self, store: Store, *, cache_entries_max: int = 200_000) -> None:
        self._store = store
        self._entries_max = cache_entries_max
        self._undo = UndoLog()
        self._cells: dict[bytes, tuple[str, _Cells]] = {}  # by store id
        self._parts: dict[KeyCodec[Any], KeyParts[Any]] = {}  # states with the same type of key share what they know of keys
        self._specs: dict[bytes, StateSpec] = {}
        self._before_changes: list[Callable[[], None]] = []

    def before_changes(self, function: Callable[[], None]) -> None:
        """Call a function each time before changes are gathered: it may put what follows from other changes."""
        self._before_changes.append(function)

    def keyed(self, name: str, key: KeyCodec[K], value: Codec[V], *, merge: Merge | None = None, by_hand: bool = False) -> KeyedCells[K, V]:
        """Open a state of one value a key.

        Args:
            merge: For a state of the task and not of its keys: makes one value of those of several tasks.
            by_hand: A person may put an entry, since nothing else has to be kept in step with it. So for the others.
        Raises:
            StateError: The name is open already, or its store id is that of another name: choose another one. So for the others.
        """
        section = self._section(name)
        self._specs[section.low] = StateSpec(name, "keyed", key, value, merge=merge, by_hand=by_hand)
        return self._add(section, KeyedCells(section, self._parts_of(key), value))

    def mapped(
        self, name: str, key: KeyCodec[K], subkey: Codec[S], value: Codec[V], *, view: View | None = None, part_of: str = ""
    ) -> MapCells[K, S, V]:
        """Open a state of one map a key.

        Args:
            view: How its values are shown to people, who may then put entries.
            part_of: Name of the state whose values it holds parts of, "" for none.
        """
        section = self._section(name)
        self._specs[section.low] = StateSpec(name, "mapped", key, value, subkey, view=view, by_hand=view is not None, part_of=part_of)
        return self._add(section, MapCells(section, self._parts_of(key), subkey, value))

    def timed(self, name: str, key: KeyCodec[K], value: Codec[V]) -> TimedCells[K, V]:
        """Open a state of entries by time, key and sub bytes."""
        section = self._section(name)
        self._specs[section.low] = StateSpec(name, "timed", key, value)
        return self._add(section, TimedCells(section, self._parts_of(key), key, value))

    def panes(self, name: str, key: KeyCodec[K], value: Codec[V], *, by_hand: bool = False) -> PaneCells[K, V]:
        """Open a state of panes: for each time a value a key."""
        section = self._section(name)
        self._specs[section.low] = StateSpec(name, "panes", key, value, by_hand=by_hand)
        return self._add(section, PaneCells(section, self._parts_of(key), key, value))

    def catalog(self, whole: frozenset[str] = frozenset()) -> Catalog:
        """Return what all states opened so far are; `whole` names those ("pipeline/operator") of which every task holds all."""
        return Catalog(dict(self._specs), whole)

    def cells(self, low: bytes) -> Any:
        """Return the open cells of a store id, for edits."""
        return self._cells[low][1]

    def mark(self) -> int:
        """Return a place to roll back to; it is good until `forget` or `committed`, and after a roll-back to it too."""
        return self._undo.mark()

    def rollback(self, mark: int) -> None:
        """Undo every change since the mark."""
        self._undo.rollback(mark)

    def forget(self) -> None:
        """Drop the undo log: the batch is done."""
        self._undo.forget()

    def changes(self) -> list[Change]:
        """Return every entry that differs from the store, in key order; None for an entry that is to be deleted."""
        for function in self._before_changes:
            function()
        return [change for low in sorted(self._cells) for change in self._cells[low][1].changes()]

    def committed(self) -> None:
        """Take note that `Store.apply` has written the changes; trims the cache, and forgets the undo log."""
        self._undo.forget()
        for parts in self._parts.values():
            parts.trim()
        states = [cells for _, cells in self._cells.values()]
        sizes = []
        for cells in states:
            cells.committed()
            sizes.append(cells.size())
        total = sum(sizes)
        if total > self._entries_max:
            # A quarter more than needed goes, so that trimming, which looks at everything, is rare.
            surplus = total - self._entries_max * 3 // 4
            for cells, size in zip(states, sizes, strict=True):
                cells.evict(-(-size * surplus // total))

    def cached(self) -> int:
        """Return how many decoded entries are in memory."""
        return sum(cells.size() for _, cells in self._cells.values())

    def _section(self, name: str) -> Section:
        section = Section(name, self._store, self._undo, chunk=max(1, min(self._entries_max // 8, 10_000)))
        other = self._cells.get(section.low)
        if other is not None:
            reason = "is open already" if other[0] == name else f"has the same store id as {other[0]!r}"
            raise StateError(f"state {name!r} {reason}: give one of the operators another name")
        return section

    def _add(self, section: Section, cells: C) -> C:
        self._cells[section.low] = (section.name, cells)
        return cells

    def _parts_of(self, key: KeyCodec[K]) -> KeyParts[K]:
        parts = self._parts.get(key)
        if parts is None:
            parts = self._parts[key] = KeyParts(key, keys_max=self._entries_max)
        return parts


__all__ = ["KeyedCells", "MapCells", "Pane", "PaneCells", "TaskState", "TimedCells"]
