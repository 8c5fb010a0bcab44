"""State that user code declares: `ValueState`, `ListState`, `MapState`, as class attributes of a `process` handler.

A declaration becomes, in each task, a handle on the state of the key that is being worked on. What is read is a fresh copy where
it could be changed in place: a change counts only when it is set again. How values are kept, their ttl and the change of their type:
`engine.state_cells`.
"""

from collections.abc import Callable, Iterable, Iterator, MutableMapping
from copy import deepcopy
from typing import Any, Generic, TypeVar

from engine.durations import Duration, duration_ms
from engine.errors import ConfigError
from engine.keys import KeyCodec, key_codec
from engine.operators.base import OperatorContext
from engine.state_cells import INDEX_CODEC, KeptCells, Kind, StoredView, view_of
from state.values import msgpack_codec

T = TypeVar("T")
MK = TypeVar("MK")
MV = TypeVar("MV")

_UNCHANGING = (int, float, str, bytes, type(None))


class KeyScope:
    """The key that is being worked on."""

    __slots__ = ("key",)

    def __init__(self) -> None:
        self.key: Any = None


class StateHandle:
    """A declaration, or, once bound, a handle."""

    def bind(
        self, context: OperatorContext, name: str, key: KeyCodec, scope: KeyScope, watermark: Callable[[], int], time: Callable[[], int]
    ) -> "StateHandle":
        """Return a handle for a task.

        Args:
            key: Codec of the record keys.
            scope: Tells the present key.
            watermark: Tells the watermark in force; it decides what a ttl has ended.
            time: Tells the event time of what is being worked on; it is the time of a write.
        """
        raise NotImplementedError

    def snapshot(self) -> Any:
        """Return the whole state of the present key as plain values."""
        raise NotImplementedError

    def expire(self, watermark: int) -> None:
        """Delete what a ttl has ended."""

    def enter_old(self) -> None:
        """Enter some of the values that were written without a ttl into its index; called at each commit."""

    def _unbound(self) -> ConfigError:
        return ConfigError(f"{type(self).__name__} has a value only inside process(): declare it as a class attribute of the handler")


def _ttl_ms(ttl: Duration | None, what: str) -> int | None:
    return None if ttl is None else duration_ms(ttl, f"ttl of {what}", minimum_ms=1)


class ValueState(StateHandle, Generic[T]):
    """One value of a key.

    Args:
        value_type: Type of the value: a Struct, a plain type, or a container of them.
        default: What `get` gives when nothing is set: a copy, where it could be changed in place.
        ttl: How long, in event time, a value lives after its last write; it may be set, changed and left out over existing state.
        upgrade: Makes a value of the type out of a stored one that does not fit it, given as plain data (dict, list, str, …).
    """

    def __init__(
        self,
        value_type: type[T],
        default: T | None = None,
        *,
        ttl: Duration | None = None,
        upgrade: Callable[[Any], T] | None = None,
    ) -> None:
        self._default = default
        self._copied = not isinstance(default, _UNCHANGING)
        self._ttl_ms = _ttl_ms(ttl, "ValueState")
        self._kind = Kind(value_type, "ValueState", upgrade)
        self._kind.check_default(default)
        self._cells: KeptCells | None = None
        self._scope = KeyScope()

    def bind(
        self, context: OperatorContext, name: str, key: KeyCodec, scope: KeyScope, watermark: Callable[[], int], time: Callable[[], int]
    ) -> "ValueState[T]":
        bound: ValueState[T] = ValueState(self._kind.type, self._default)
        bound._scope, bound._kind = scope, self._kind.named(context.state_name(name))
        view = view_of(bound._kind, self._ttl_ms, only_sub=0)
        bound._cells = KeptCells(context, name, key, INDEX_CODEC, self._ttl_ms, watermark, time, view)
        return bound

    def get(self) -> T:
        """Return the value of the present key, or the default."""
        if self._cells is None:
            raise self._unbound()
        payload = self._cells.get(self._scope.key, 0)
        if payload is None:
            return deepcopy(self._default) if self._copied else self._default  # type: ignore[return-value]  # None only without a default
        return self._kind.decode(payload)  # type: ignore[no-any-return]

    def set(self, value: T) -> None:
        """Set the value of the present key."""
        if self._cells is None:
            raise self._unbound()
        self._cells.put(self._scope.key, 0, self._kind.encode(value))

    def clear(self) -> None:
        """Delete the value of the present key."""
        if self._cells is None:
            raise self._unbound()
        self._cells.delete(self._scope.key, 0)

    def snapshot(self) -> T:
        return self.get()

    def expire(self, watermark: int) -> None:
        if self._cells is not None:
            self._cells.expire(watermark)

    def enter_old(self) -> None:
        if self._cells is not None:
            self._cells.enter_old()


class ListState(StateHandle, Generic[T]):
    """A list of a key, in the order of its appends; appending does not read what is there.

    Args:
        value_type: Type of the values.
        upgrade: Makes a value of the type out of a stored one that does not fit it, given as plain data (dict, list, str, …).
    """

    def __init__(self, value_type: type[T], *, upgrade: Callable[[Any], T] | None = None) -> None:
        self._kind = Kind(value_type, "ListState", upgrade)
        self._cells: KeptCells | None = None
        self._lengths: Any = None
        self._scope = KeyScope()

    def bind(
        self, context: OperatorContext, name: str, key: KeyCodec, scope: KeyScope, watermark: Callable[[], int], time: Callable[[], int]
    ) -> "ListState[T]":
        bound: ListState[T] = ListState(self._kind.type)
        bound._scope, bound._kind = scope, self._kind.named(context.state_name(name))
        view = StoredView(bound._kind, None, "a list grows only by its app's own appends: put over an entry that is there")
        bound._cells = KeptCells(context, name, key, INDEX_CODEC, None, watermark, time, view)
        bound._lengths = context.state.keyed(f"{context.state_name(name)}-length", key, msgpack_codec(int))
        return bound

    def append(self, value: T) -> None:
        """Add a value at the end."""
        self.extend((value,))

    def extend(self, values: Iterable[T]) -> None:
        """Add values at the end."""
        cells, key = self._bound(), self._scope.key
        length = self._lengths.get(key) or 0
        for value in values:
            cells.put(key, length, self._kind.encode(value))
            length += 1
        if length:
            self._lengths.put(key, length)

    def clear(self) -> None:
        """Delete all values of the present key."""
        self._bound().clear(self._scope.key)
        self._lengths.delete(self._scope.key)

    def __iter__(self) -> Iterator[T]:
        decode = self._kind.decode
        return iter([decode(payload) for _, payload in self._bound().items(self._scope.key)])

    def __len__(self) -> int:
        self._bound()
        return self._lengths.get(self._scope.key) or 0

    def snapshot(self) -> list[T]:
        return list(self)

    def _bound(self) -> KeptCells:
        if self._cells is None:
            raise self._unbound()
        return self._cells


class MapState(StateHandle, MutableMapping[MK, MV], Generic[MK, MV]):
    """A mapping of a key; each entry is stored by itself, so a change of one does not touch the others.

    Iteration is in the order of the entries' keys as bytes.

    Args:
        key_type: str, int, bytes, UUID, date, time, datetime, Decimal or a Struct.
        value_type: Type of the values.
        ttl: How long, in event time, an entry lives after its last write; it may be set, changed and left out over existing state.
        upgrade: Makes a value of the type out of a stored one that does not fit it, given as plain data (dict, list, str, …).
    """

    def __init__(
        self, key_type: type[MK], value_type: type[MV], *, ttl: Duration | None = None, upgrade: Callable[[Any], MV] | None = None
    ) -> None:
        self._key_type = key_type
        self._ttl_ms = _ttl_ms(ttl, "MapState")
        self._sub = key_codec(key_type, "key of MapState")
        self._kind = Kind(value_type, "MapState", upgrade)
        self._cells: KeptCells | None = None
        self._scope = KeyScope()

    def bind(
        self, context: OperatorContext, name: str, key: KeyCodec, scope: KeyScope, watermark: Callable[[], int], time: Callable[[], int]
    ) -> "MapState[MK, MV]":
        bound: MapState[MK, MV] = MapState(self._key_type, self._kind.type)
        bound._scope, bound._kind = scope, self._kind.named(context.state_name(name))
        view = view_of(bound._kind, self._ttl_ms)
        bound._cells = KeptCells(context, name, key, self._sub, self._ttl_ms, watermark, time, view)
        return bound

    def __getitem__(self, key: MK) -> MV:
        payload = self._bound().get(self._scope.key, key)
        if payload is None:
            raise KeyError(key)
        return self._kind.decode(payload)  # type: ignore[no-any-return]

    def __setitem__(self, key: MK, value: MV) -> None:
        self._bound().put(self._scope.key, key, self._kind.encode(value))

    def __delitem__(self, key: MK) -> None:
        if self._bound().get(self._scope.key, key) is None:
            raise KeyError(key)
        self._bound().delete(self._scope.key, key)

    def __iter__(self) -> Iterator[MK]:
        return iter([key for key, _ in self._bound().items(self._scope.key)])

    def __len__(self) -> int:
        return sum(1 for _ in self._bound().items(self._scope.key))

    def clear(self) -> None:
        """Delete all entries of the present key."""
        self._bound().clear(self._scope.key)

    def snapshot(self) -> dict[MK, MV]:
        return {key: self._kind.decode(payload) for key, payload in self._bound().items(self._scope.key)}

    def expire(self, watermark: int) -> None:
        if self._cells is not None:
            self._cells.expire(watermark)

    def enter_old(self) -> None:
        if self._cells is not None:
            self._cells.enter_old()

    def _bound(self) -> KeptCells:
        if self._cells is None:
            raise self._unbound()
        return self._cells
