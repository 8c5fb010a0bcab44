"""Mapped cells: a map for each key, such as a user's `MapState`, the rows of a join, or the buffer of a pattern.

The map of a key is a `Group`. What is read by `get` alone is read entry by entry; `items` takes the whole map into memory, where
it stays, also when it is empty, until the cache is trimmed.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from typing import Any, Generic, TypeVar

from state.groups import Group
from state.keys import Codec, KeyParts, split_key
from state.section import DECODE_ERRORS, KEY_OF, Section
from state.store import Change
from state.values import PayloadCodec, stored

K = TypeVar("K")
S = TypeVar("S")
V = TypeVar("V")


class MapCells(Generic[K, S, V]):
    """A map of sub keys to values for each key. Values are never None."""

    def __init__(self, section: Section, parts: KeyParts[K], sub: Codec[S], value: Codec[V]) -> None:
        self.section = section
        self.codec: PayloadCodec[V] = stored(value, section.name)
        self.suffix: Callable[[S], bytes] = sub.encode
        self.learn: Callable[[Collection[S]], None] = _nothing
        self.order: Callable[[S], Any] = sub.encode
        self.key_of: Callable[[bytes], S] = sub.decode
        self._parts = parts
        self._groups: dict[K, Group[S, V]] = {}
        self._changed: dict[Group[S, V], None] = {}

    def get(self, key: K, sub: S) -> V | None:
        """Return the value of an entry, None if there is none."""
        group = self._groups.get(key)
        return (self._open(key) if group is None else group).get(sub)

    def whole(self, key: K) -> Mapping[S, V]:
        """Return the map of a key, in no order, after reading all of it into memory: one scan instead of a read for each entry.

        It is what the cells hold, not to be changed and good until the next call of any method.
        """
        group = self._groups.get(key)
        if group is None:
            group = self._open(key)
        if not group.complete:
            group.load(None)
        return group.cells

    def put(self, key: K, sub: S, value: V) -> None:
        """Set the value of an entry."""
        group = self._groups.get(key)
        (self._open(key) if group is None else group).put(sub, value)

    def delete(self, key: K, sub: S) -> None:
        """Remove an entry; nothing happens if it is not there."""
        group = self._groups.get(key)
        (self._open(key) if group is None else group).delete(sub)

    def items(self, key: K) -> Iterator[tuple[S, V]]:
        """Return the entries of a key in the order of the sub keys' bytes, as they are at the time of the call."""
        group = self._groups.get(key)
        return iter((self._open(key) if group is None else group).items())

    def clear(self, key: K) -> None:
        """Remove all entries of a key."""
        group = self._groups.get(key)
        (self._open(key) if group is None else group).drop()

    def forget(self, key: K) -> None:
        """Drop the map of a key from memory, unless it differs from the store."""
        group = self._groups.get(key)
        if group is not None and group not in self._changed:
            del self._groups[key]

    def committed_places(self, decode_key: Callable[[bytes], K], after: bytes, limit: int) -> tuple[list[tuple[K, S]], bytes | None]:
        """Return (key, sub key) of up to `limit` entries that the store holds, in store order, and where to go on.

        Args:
            after: b"" for the start, or what the call before returned.
        Returns:
            The places, and the one behind them, None at the end.
        """
        section = self.section
        low = after + b"\0" if after else section.low
        found = [raw for raw, _ in islice(section.store.scan(low, section.high), limit)]
        places = []
        for raw in found:
            try:
                key, sub = split_key(raw, len(section.low))
                places.append((decode_key(key), self.key_of(sub)))
            except DECODE_ERRORS as error:
                raise section.foreign_key(raw, error) from error
        return places, found[-1] if len(found) == limit else None

    def note(self, group: Group[S, V]) -> None:
        """Remember a group that may differ from the store."""
        self._changed[group] = None

    def changes(self) -> list[Change]:
        """Return what differs from the store, in key order."""
        found = [change for group in self._changed for change in group.changes()]
        found.sort(key=KEY_OF)
        return found

    def committed(self) -> None:
        """The store holds the changes now."""
        for group in self._changed:
            group.committed()
        self._changed.clear()

    def size(self) -> int:
        """Return how many entries are in memory; a map as such counts as one."""
        return len(self._groups) + sum(len(group.cells) for group in self._groups.values())

    def evict(self, number: int) -> None:
        """Drop about that many entries, map by map, those first that came first. Nothing may be dirty."""
        gone = []
        for key, group in self._groups.items():
            if number <= 0:
                break
            entries = len(group.cells)
            if entries < number:
                gone.append(key)
            else:
                group.evict(number)
            number -= entries + 1
        for key in gone:
            del self._groups[key]

    def _open(self, key: K) -> Group[S, V]:
        group = self._groups[key] = Group(self, self.section.low + self._parts[key], in_store=True)
        return group


def _nothing(_keys: Collection[Any]) -> None:
    """Sub keys have no hash, so there is nothing to prepare."""
