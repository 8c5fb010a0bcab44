"""A group: neighbouring entries of a store under one prefix, held as a plain dict. What maps and panes are made of.

    map:   store id | key part            | sub        a group is the map of a key
    pane:  store id | time                | key part   a group is all keys of a window

Of a group in memory either everything is known (`complete`), or `cells` holds part of it and the store has the rest. A group that
the store never had is complete from its first entry, so a window that opens and closes between two commits reads and writes
nothing. Dropping a group costs one range scan at the commit, and only if the store has it.

Undo comes in three sizes: one entry; the entries of a small `put_many`; or a copy of the whole group, when as much is about to
change: after that nothing more is noted until the next mark, since the copy undoes it all.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from state.keys import prefix_end
from state.section import DECODE_ERRORS, KEY_OF, Section
from state.store import Change
from state.values import PayloadCodec

K = TypeVar("K")
V = TypeVar("V")

_ONE, _MANY, _ALL = range(3)
_NONE: Any = frozenset()  # stands for the sets of a clean group, which is most of them; `_touch` makes real ones


class GroupOwner(Protocol[K, V]):
    """The cells that a group belongs to: what all its groups have in common.

    Attributes:
        suffix: Bytes of an entry below the group's prefix.
        key_of: What `suffix` gave back into a key.
        order: What entries of a group are sorted by.
        learn: Called with keys of which the suffix is going to be asked for.
    """

    section: Section
    codec: PayloadCodec[V]
    suffix: Callable[[K], bytes]
    key_of: Callable[[bytes], K]
    order: Callable[[K], Any]
    learn: Callable[[Collection[K]], None]

    def note(self, group: Any) -> None:
        """A group is about to differ from the store, or does so again after a roll-back."""
        ...


class Group(Generic[K, V]):
    """Entries under one prefix. Values are never None.

    Attributes:
        cells: What is known, decoded: read it freely, change it only through the methods. After a commit, a roll-back or `drop`
            take it anew: it may be another dict then.
        complete: True if `cells` holds everything there is; otherwise what is not in it is found by `get`.
    """

    __slots__ = (
        "__weakref__",
        "_anew",
        "_dirty",
        "_fresh",
        "_in_store",
        "_noted",
        "_owner",
        "_prefix",
        "_saved",
        "_undo",
        "cells",
        "complete",
    )

    def __init__(self, owner: GroupOwner[K, V], prefix: bytes, *, in_store: bool) -> None:
        self._owner, self._prefix, self._undo = owner, prefix, owner.section.undo
        self.cells: dict[K, V] = {}
        self.complete = not in_store
        self._in_store = in_store  # the store may hold entries of this group
        self._anew = not in_store  # all there is stands in cells, and all of it is a change: what the store may hold is void
        self._dirty: set[K] = _NONE  # unless anew: keys changed since the commit
        self._fresh: set[K] = _NONE  # those of them that are known not to be in the store
        self._noted = False  # the owner knows that this group may have changed
        self._saved = -1

    def get(self, key: K) -> V | None:
        """Return the value of a key, None if there is none."""
        value = self.cells.get(key)
        if value is None and not self.complete and key not in self._dirty:
            raw = self._owner.section.store.get(self._prefix + self._owner.suffix(key))
            if raw is not None:
                value = self.cells[key] = self._owner.codec.decode(raw)
        return value

    def read(self, keys: Iterable[K]) -> None:
        """Read some keys from the store, so that `cells` holds all there is of them: together, faster than one by one."""
        if self.complete:
            return
        own, cells, dirty, prefix = self._owner, self.cells, self._dirty, self._prefix
        unknown = [key for key in keys if key not in cells and key not in dirty]
        if not unknown:
            return
        own.learn(unknown)
        raws, ordered = zip(*sorted([(prefix + own.suffix(key), key) for key in unknown], key=KEY_OF), strict=True)
        decode = own.codec.decode
        for key, raw in zip(ordered, own.section.store.get_many(raws), strict=True):
            if raw is not None:
                cells[key] = decode(raw)

    def put(self, key: K, value: V) -> None:
        """Set the value of a key."""
        cells, undo = self.cells, self._undo
        first = not self._anew and key not in self._dirty
        if self._saved != undo.serial:
            undo.entries.append((self, _ONE, key, cells.get(key), first, self.complete))
        if first:
            self._touch().add(key)
            if self.complete and key not in cells:
                self._fresh.add(key)
        elif not self._noted:
            self._note()
        cells[key] = value

    def put_many(self, values: Mapping[K, V]) -> None:
        """Set the values of many keys at little more than the cost of `dict.update`."""
        if not values:
            return
        cells, undo = self.cells, self._undo
        dirty = _NONE if self._anew else self._touch()
        if self._saved != undo.serial:
            if 2 * len(values) < len(cells):
                olds = dict(zip(values, map(cells.get, values), strict=True))
                undo.entries.append((self, _MANY, olds, _NONE if self._anew else values.keys() - dirty, self.complete))
            else:
                self._save(cells.copy(), dirty.copy(), self._fresh.copy())
        if self._anew:
            self._note()
        else:
            dirty.update(values)
        cells.update(values)

    def delete(self, key: K) -> None:
        """Remove a key; nothing happens if it is not there."""
        old = self.cells.pop(key, None)
        if old is None and self.complete:
            return
        undo = self._undo
        first = not self._anew and key not in self._dirty
        if self._saved != undo.serial:
            undo.entries.append((self, _ONE, key, old, first, self.complete))
        if first:
            self._touch().add(key)

    def items(self) -> list[tuple[K, V]]:
        """Return everything there is, in order; reads what is not in memory."""
        if not self.complete:
            self.load(None)
        cells = self.cells
        return [(key, cells[key]) for key in sorted(cells, key=self._owner.order)]

    def drop(self) -> None:
        """Delete the whole group."""
        if self._saved != self._undo.serial:
            self._save(self.cells, self._dirty, self._fresh)
        self.cells, self._dirty, self._fresh = {}, _NONE, _NONE
        self._anew = self.complete = True
        self._note()

    def exists(self) -> bool:
        """Return whether there is any entry."""
        if self.cells or self.complete:
            return bool(self.cells)
        own, prefix = self._owner, self._prefix
        gone = {prefix + own.suffix(key) for key in self._dirty}
        return any(raw not in gone for raw, _ in own.section.scan(prefix))

    def load(self, limit: int | None) -> None:
        """Read up to `limit` entries from the store, None for all; the group is complete if that was everything."""
        own, cells, dirty = self._owner, self.cells, self._dirty
        length, decode = len(self._prefix), own.codec.decode
        entries = own.section.scan(self._prefix)
        for raw, value in entries if limit is None else islice(entries, limit):
            try:
                key = own.key_of(raw[length:])
            except DECODE_ERRORS as error:
                raise own.section.foreign_key(raw, error) from error
            if key not in dirty and key not in cells:
                cells[key] = decode(value)
        self.complete = next(entries, None) is None

    def committed_value(self, key: K) -> V | None:
        """Return the value that the store holds for a key, whatever has changed since the last commit."""
        raw = self._owner.section.store.get(self._prefix + self._owner.suffix(key))
        return None if raw is None else self._owner.codec.decode(raw)

    def committed_items(self, after: bytes, limit: int) -> tuple[list[tuple[K, V]], bytes | None]:
        """Return up to `limit` entries that the store holds, in store order, and where to go on.

        Args:
            after: b"" for the start, or what the call before returned.
        Returns:
            The entries, and the place behind them, None at the end.
        """
        own, length = self._owner, len(self._prefix)
        low = after + b"\0" if after else self._prefix
        found = list(islice(own.section.store.scan(low, prefix_end(self._prefix)), limit))
        items = [(own.key_of(raw[length:]), own.codec.decode(value)) for raw, value in found]
        return items, found[-1][0] if len(found) == limit else None

    def undo(self, entry: tuple[Any, ...]) -> None:
        """Put back what one of the methods above noted.

        A load in between has passed over an entry that was dirty then: a group that was not complete at the time no longer is.
        """
        kind = entry[1]
        if kind == _ONE:
            _, _, key, old, first, complete = entry
            self._restore(key, old)
            if first:
                self._dirty.discard(key)
                self._fresh.discard(key)
            self.complete = self.complete and complete
        elif kind == _MANY:
            _, _, olds, first, complete = entry
            for key, old in olds.items():
                self._restore(key, old)
            if first:
                self._dirty -= first
            self.complete = self.complete and complete
        else:
            _, _, self.cells, self._dirty, self._fresh, self.complete, self._anew = entry

    def changes(self) -> list[Change]:
        """Return what differs from the store, in key order."""
        own, prefix, cells, suffix, encode = self._owner, self._prefix, self.cells, self._owner.suffix, self._owner.codec.encode
        own.learn(cells if self._anew else self._dirty)
        if self._anew:
            found: list[Change] = [(prefix + suffix(key), encode(value)) for key, value in cells.items()]
            if self._in_store:
                kept = {raw for raw, _ in found}
                found += [(raw, None) for raw, _ in own.section.scan(prefix) if raw not in kept]
        else:
            found, unknown = [], []
            for key in self._dirty:
                value = cells.get(key)
                if value is not None:
                    found.append((prefix + suffix(key), encode(value)))
                elif key not in self._fresh:
                    unknown.append(prefix + suffix(key))
            found += own.section.deletions(unknown)
        found.sort(key=KEY_OF)
        return found

    def committed(self) -> bool:
        """The store holds the changes now; return whether the group is still there (or may be)."""
        self._dirty = self._fresh = _NONE
        self._noted = False
        self._in_store = bool(self.cells) or not self.complete
        self._anew = not self._in_store
        return self._in_store

    def evict(self, number: int) -> None:
        """Drop about that many entries of a clean group from memory, those first that came first."""
        cells = self.cells
        if number >= len(cells):
            cells.clear()
        else:
            for key in list(islice(cells, number)):
                del cells[key]
        self.complete = False

    def _touch(self) -> set[K]:
        """Return the set of dirty keys, to be added to."""
        if self._dirty is _NONE:
            self._dirty, self._fresh = set(), set()
        if not self._noted:
            self._note()
        return self._dirty

    def _note(self) -> None:
        if not self._noted:
            self._noted = True
            self._owner.note(self)

    def _save(self, cells: dict[K, V], dirty: set[K], fresh: set[K]) -> None:
        self._undo.entries.append((self, _ALL, cells, dirty, fresh, self.complete, self._anew))
        self._saved = self._undo.serial

    def _restore(self, key: K, old: V | None) -> None:
        if old is None:
            self.cells.pop(key, None)
        else:
            self.cells[key] = old
