"""State that user code declares: `ValueState`, `ListState`, `MapState`, as class attributes of a `process` handler.

A declaration becomes, in each task, a handle on the state of the key that is being worked on. What is read is a fresh copy where
it could be changed in place: a change counts only when it is set again. Values are stored as JSON-like msgpack by the declared
type, so a Struct may gain fields with defaults.

**TTL.** With `ttl`, a value is gone once the watermark has reached the event time of its last write plus the ttl: reads no longer
see it at that moment, and it is deleted by a tombstone soon after. The time of the write stands in the header of the stored value.
"""

from collections.abc import Callable, Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from engine.durations import Duration, duration_ms
from engine.errors import ConfigError, StateError
from engine.keys import KeyCodec, key_codec
from engine.operators.base import OperatorContext
from state.values import msgpack_codec, unit_codec

T = TypeVar("T")
MK = TypeVar("MK")
MV = TypeVar("MV")


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

    def _unbound(self) -> ConfigError:
        return ConfigError(f"{type(self).__name__} has a value only inside process(): declare it as a class attribute of the handler")


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """A value as it is kept: its bytes, when it was written, and where the ttl index has its entry (both event time, ms)."""

    payload: bytes
    written_ms: int
    indexed_ms: int | None = None


_BIG_ENDIAN = KeyCodec(int, lambda n: n.to_bytes(8, "big"), lambda n: n.to_bytes(8, "big"), lambda raw: int.from_bytes(raw, "big"))


@dataclass(frozen=True, slots=True)
class StoredView:
    """Shows the value inside a `Stored`; what a person writes keeps the time of the write that it takes the place of.

    Attributes:
        only_sub: The one sub key that there is, for a single value; None for lists and maps.
        refusal: Why an entry that is not there yet cannot be made by hand; "" if it can.
    """

    typed: "_Typed"
    only_sub: int | None
    refusal: str

    def show(self, stored: Stored) -> Any:
        """Return the value."""
        return self.typed.decode(stored.payload)

    def read(self, plain: Any, old: Stored | None) -> Stored:
        """Return the value as it is kept."""
        if old is None and self.refusal:
            raise StateError(self.refusal)
        value = msgspec.json.decode(msgspec.json.encode(plain), type=self.typed.type)
        payload = self.typed.encode(value)
        return Stored(payload, 0) if old is None else Stored(payload, old.written_ms, old.indexed_ms)


class _Cells:
    """Values by (key, sub key) with a ttl."""

    def __init__(
        self,
        context: OperatorContext,
        name: str,
        key: KeyCodec,
        sub: KeyCodec,
        ttl_ms: int | None,
        watermark: Callable[[], int],
        time: Callable[[], int],
        view: StoredView,
    ) -> None:
        full = context.state_name(name)
        self._values = context.state.mapped(full, key, sub, msgpack_codec(Stored), view=view)
        self._sub = sub
        self._ttl_ms = ttl_ms
        self._watermark = watermark
        self._time = time
        self._index = None if ttl_ms is None else context.state.timed(f"{full}-expiry", key, unit_codec)

    def get(self, key: Any, sub: Any) -> bytes | None:
        stored = self._values.get(key, sub)
        return None if stored is None or self._ended(stored, self._watermark()) else stored.payload

    def put(self, key: Any, sub: Any, payload: bytes) -> None:
        written_ms = self._time()
        indexed_ms = None
        if self._index is not None and self._ttl_ms is not None:
            old = self._values.get(key, sub)
            indexed_ms = None if old is None else old.indexed_ms
            if indexed_ms is None:
                indexed_ms = written_ms + self._ttl_ms
                self._index.put(indexed_ms, key, True, self._sub.encode(sub))
        self._values.put(key, sub, Stored(payload, written_ms, indexed_ms))

    def delete(self, key: Any, sub: Any) -> None:
        old = self._values.get(key, sub)
        if old is None:
            return
        if self._index is not None and old.indexed_ms is not None:
            self._index.delete(old.indexed_ms, key, self._sub.encode(sub))
        self._values.delete(key, sub)

    def items(self, key: Any) -> Iterator[tuple[Any, bytes]]:
        watermark = self._watermark()
        for sub, stored in list(self._values.items(key)):
            if not self._ended(stored, watermark):
                yield sub, stored.payload

    def clear(self, key: Any) -> None:
        for sub, _ in list(self._values.items(key)):
            self.delete(key, sub)

    def expire(self, watermark: int) -> None:
        """Delete values whose time has passed; an entry whose value was written again moves to its new time."""
        if self._index is None or self._ttl_ms is None:
            return
        first_ms = self._index.next_time()
        if first_ms is None or first_ms > watermark:
            return
        for indexed_ms, key, sub_bytes, _ in self._index.due(watermark):
            self._index.delete(indexed_ms, key, sub_bytes)
            sub = self._sub.decode(sub_bytes)
            stored = self._values.get(key, sub)
            if stored is None or stored.indexed_ms != indexed_ms:
                continue
            if self._ended(stored, watermark):
                self._values.delete(key, sub)
            else:
                again_ms = stored.written_ms + self._ttl_ms
                self._index.put(again_ms, key, True, sub_bytes)
                self._values.put(key, sub, Stored(stored.payload, stored.written_ms, again_ms))

    def _ended(self, stored: Stored, watermark: int) -> bool:
        return self._ttl_ms is not None and stored.written_ms + self._ttl_ms <= watermark


class _Typed:
    """Bytes to and from the declared type."""

    def __init__(self, value_type: Any, what: str) -> None:
        self.type = value_type
        self.encode = msgspec.msgpack.Encoder().encode
        try:
            self.decode = msgspec.msgpack.Decoder(value_type).decode
        except TypeError as error:
            raise ConfigError(f"{what}: values of {value_type!r} cannot be stored: {error}") from error


def _view(typed: _Typed, ttl_ms: int | None, only_sub: int | None = None) -> StoredView:
    refusal = "" if ttl_ms is None else "a new entry would have no time to end at: put over one that is there, or let the app write it"
    return StoredView(typed, only_sub, refusal)


def _ttl_ms(ttl: Duration | None, what: str) -> int | None:
    return None if ttl is None else duration_ms(ttl, f"ttl of {what}", minimum_ms=1)


class ValueState(StateHandle, Generic[T]):
    """One value of a key.

    Args:
        value_type: Type of the value: a Struct, a plain type, or a container of them.
        default: What `get` gives when nothing is set.
        ttl: How long, in event time, a value lives after its last write.
    """

    def __init__(self, value_type: type[T], default: T | None = None, *, ttl: Duration | None = None) -> None:
        self._type = value_type
        self._default = default
        self._ttl_ms = _ttl_ms(ttl, "ValueState")
        self._typed = _Typed(value_type, "ValueState")
        self._cells: _Cells | None = None
        self._scope = KeyScope()

    def bind(
        self, context: OperatorContext, name: str, key: KeyCodec, scope: KeyScope, watermark: Callable[[], int], time: Callable[[], int]
    ) -> "ValueState[T]":
        bound: ValueState[T] = ValueState(self._type, self._default)
        bound._scope = scope
        bound._cells = _Cells(context, name, key, _BIG_ENDIAN, self._ttl_ms, watermark, time, _view(self._typed, self._ttl_ms, only_sub=0))
        return bound

    def get(self) -> T:
        """Return the value of the present key, or the default."""
        if self._cells is None:
            raise self._unbound()
        payload = self._cells.get(self._scope.key, 0)
        return self._default if payload is None else self._typed.decode(payload)  # type: ignore[return-value]  # None only without a default

    def set(self, value: T) -> None:
        """Set the value of the present key."""
        if self._cells is None:
            raise self._unbound()
        self._cells.put(self._scope.key, 0, self._typed.encode(value))

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


class ListState(StateHandle, Generic[T]):
    """A list of a key, in the order of its appends; appending does not read what is there."""

    def __init__(self, value_type: type[T]) -> None:
        self._type = value_type
        self._typed = _Typed(value_type, "ListState")
        self._cells: _Cells | None = None
        self._lengths: Any = None
        self._scope = KeyScope()

    def bind(
        self, context: OperatorContext, name: str, key: KeyCodec, scope: KeyScope, watermark: Callable[[], int], time: Callable[[], int]
    ) -> "ListState[T]":
        bound: ListState[T] = ListState(self._type)
        bound._scope = scope
        refusal = "a list grows only by its app's own appends: put over an entry that is there"
        bound._cells = _Cells(context, name, key, _BIG_ENDIAN, None, watermark, time, StoredView(self._typed, None, refusal))
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
            cells.put(key, length, self._typed.encode(value))
            length += 1
        if length:
            self._lengths.put(key, length)

    def clear(self) -> None:
        """Delete all values of the present key."""
        self._bound().clear(self._scope.key)
        self._lengths.delete(self._scope.key)

    def __iter__(self) -> Iterator[T]:
        decode = self._typed.decode
        return iter([decode(payload) for _, payload in self._bound().items(self._scope.key)])

    def __len__(self) -> int:
        self._bound()
        return self._lengths.get(self._scope.key) or 0

    def snapshot(self) -> list[T]:
        return list(self)

    def _bound(self) -> _Cells:
        if self._cells is None:
            raise self._unbound()
        return self._cells


class MapState(StateHandle, MutableMapping[MK, MV], Generic[MK, MV]):
    """A mapping of a key; each entry is stored by itself, so a change of one does not touch the others.

    Iteration is in the order of the entries' keys as bytes.

    Args:
        key_type: str, int, bytes or a Struct.
        value_type: Type of the values.
        ttl: How long, in event time, an entry lives after its last write.
    """

    def __init__(self, key_type: type[MK], value_type: type[MV], *, ttl: Duration | None = None) -> None:
        self._types = (key_type, value_type)
        self._ttl_ms = _ttl_ms(ttl, "MapState")
        self._sub = key_codec(key_type, "key of MapState")
        self._typed = _Typed(value_type, "MapState")
        self._cells: _Cells | None = None
        self._scope = KeyScope()

    def bind(
        self, context: OperatorContext, name: str, key: KeyCodec, scope: KeyScope, watermark: Callable[[], int], time: Callable[[], int]
    ) -> "MapState[MK, MV]":
        bound: MapState[MK, MV] = MapState(*self._types)
        bound._scope = scope
        bound._cells = _Cells(context, name, key, self._sub, self._ttl_ms, watermark, time, _view(self._typed, self._ttl_ms))
        return bound

    def __getitem__(self, key: MK) -> MV:
        payload = self._bound().get(self._scope.key, key)
        if payload is None:
            raise KeyError(key)
        return self._typed.decode(payload)  # type: ignore[no-any-return]

    def __setitem__(self, key: MK, value: MV) -> None:
        self._bound().put(self._scope.key, key, self._typed.encode(value))

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
        return {key: self._typed.decode(payload) for key, payload in self._bound().items(self._scope.key)}

    def expire(self, watermark: int) -> None:
        if self._cells is not None:
            self._cells.expire(watermark)

    def _bound(self) -> _Cells:
        if self._cells is None:
            raise self._unbound()
        return self._cells
