"""Keyed cells: one value a key. The simplest state, and the hottest path of the engine.

    cache   key -> value, None for "known to be absent"; what is not in it has not been looked up yet
    dirty   key -> what it was at its first change since the commit (MISSING if that was never looked up)

Everything dirty is in the cache. `get` is the cache's own subscript, which asks the store where it has nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice, repeat
from typing import Any, Generic, TypeVar

from state.keys import Codec, KeyParts, split_key
from state.section import DECODE_ERRORS, KEY_OF, MISSING, Section
from state.store import Change
from state.values import stored

K = TypeVar("K")
V = TypeVar("V")

_MANY: Any = object()
"""In the undo log in place of a key: what follows is about many."""


class _Cache(dict[K, V | None], Generic[K, V]):
    """Known values; a key asked for with `[]` for the first time is read from the store."""

    __slots__ = ("_decode", "_parts", "_section")

    def __init__(self, section: Section, parts: KeyParts[K], decode: Callable[[bytes], V]) -> None:
        super().__init__()
        self._section, self._parts, self._decode = section, parts, decode

    def __missing__(self, key: K) -> V | None:
        raw = self._section.store.get(self._section.low + self._parts[key])
        value = self[key] = None if raw is None else self._decode(raw)
        return value


class KeyedCells(Generic[K, V]):
    """One value a key.

    Attributes:
        get: Called with a key, returns its value, or None if there is none.
    """

    __slots__ = ("_cache", "_dirty", "_encode", "_log", "_parts", "_section", "get")

    get: Callable[[K], V | None]

    def __init__(self, section: Section, parts: KeyParts[K], value: Codec[V]) -> None:
        codec = stored(value, section.name)
        self._section, self._parts, self._encode = section, parts, codec.encode
        self._cache: _Cache[K, V] = _Cache(section, parts, codec.decode)
        self._dirty: dict[K, V | None] = {}
        self._log = section.undo.entries
        self.get = self._cache.__getitem__

    def put(self, key: K, value: V | None) -> None:
        """Set the value of a key; None deletes it."""
        cache, dirty = self._cache, self._dirty
        old = cache.get(key, MISSING)
        cache[key] = value
        if key in dirty:
            self._log.append((self, key, old, False))
        else:
            dirty[key] = old
            self._log.append((self, key, old, True))

    def put_many(self, values: Mapping[K, V | None]) -> None:
        """Set the values of many keys: `put` for each, in less time."""
        if not values:
            return
        cache, dirty = self._cache, self._dirty
        olds: dict[K, Any] = dict(zip(values, map(cache.get, values, repeat(MISSING)), strict=True))
        first = olds if dirty.keys().isdisjoint(olds) else {key: old for key, old in olds.items() if key not in dirty}
        dirty.update(first)
        cache.update(values)
        self._log.append((self, _MANY, olds, first))

    def read(self, keys: Iterable[K]) -> None:
        """Read what is not known yet of some keys, together and in the order of the store: faster than one by one as they come."""
        section, cache, parts = self._section, self._cache, self._parts
        low, decode = section.low, cache._decode
        unknown = [key for key in keys if key not in cache]
        if not unknown:
            return
        parts.learn(unknown)
        key_of = dict(zip(map(low.__add__, map(parts.__getitem__, unknown)), unknown, strict=True))
        ordered = sorted(key_of)
        found = section.store.get_many(ordered)
        values = [None if raw is None else decode(raw) for raw in found]
        cache.update(zip(map(key_of.__getitem__, ordered), values, strict=True))

    def items(self, decode_key: Callable[[bytes], K]) -> Iterator[tuple[K, V]]:
        """Yield every entry there is, those of the store first, without keeping them in memory; nothing may be put meanwhile."""
        section, cache, dirty = self._section, self._cache, self._dirty
        for raw, stored_value in section.store.scan(section.low, section.high):
            try:
                key = decode_key(split_key(raw, len(section.low))[0])
            except DECODE_ERRORS as error:
                raise section.foreign_key(raw, error) from error
            if key not in dirty:
                yield key, cache._decode(stored_value)
        for key in dirty:
            value = cache[key]
            if value is not None:
                yield key, value

    def delete(self, key: K) -> None:
        """Remove a key; nothing happens if it is not there."""
        self.put(key, None)

    def undo(self, entry: tuple[Any, ...]) -> None:
        """Put back what a `put` or `put_many` replaced."""
        _, key, old, first = entry
        if key is _MANY:
            for other in first:
                del self._dirty[other]
            for other, value in old.items():
                self._put_back(other, value)
            return
        if first:
            del self._dirty[key]
        self._put_back(key, old)

    def _put_back(self, key: K, old: V | None) -> None:
        if old is MISSING:
            del self._cache[key]
        else:
            self._cache[key] = old

    def changes(self) -> list[Change]:
        """Return what differs from the store, in key order."""
        dirty, parts, encode, low = self._dirty, self._parts, self._encode, self._section.low
        parts.learn(dirty)
        values = list(map(self._cache.__getitem__, dirty))
        raws = map(low.__add__, map(parts.__getitem__, dirty))
        if all(value is not None for value in values):
            found: list[Change] = list(zip(raws, map(encode, values), strict=True))  # type: ignore[arg-type]
            found.sort(key=KEY_OF)
            return found
        found, unknown = [], []
        for raw, value, before in zip(raws, values, dirty.values(), strict=True):
            if value is not None:
                found.append((raw, encode(value)))
            elif before is MISSING:
                unknown.append(raw)
            elif before is not None:
                found.append((raw, None))
        found += self._section.deletions(unknown)
        found.sort(key=KEY_OF)
        return found

    def committed(self) -> None:
        """The store holds the changes now."""
        self._dirty.clear()

    def size(self) -> int:
        """Return how many entries are in memory."""
        return len(self._cache)

    def evict(self, number: int) -> None:
        """Drop about that many clean entries, those first that came first."""
        cache, dirty = self._cache, self._dirty
        oldest = list(islice(cache, number))
        for key in oldest if not dirty else [key for key in oldest if key not in dirty]:
            del cache[key]
