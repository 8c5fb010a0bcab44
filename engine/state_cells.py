"""How the state of user code is kept: values by type with the event time of their last write, and what a ttl ends.

Values are stored as MessagePack by the declared type, so a Struct may gain fields with defaults, and lose fields. Any other change of
the type needs `upgrade=`: what no longer fits goes through it, as plain data, each time that it is read, until it is written again.
Without one, a value that does not fit ends the worker with the name of the state (`StoredTypeError`): no record is to blame.

**TTL.** With `ttl`, a value is gone once the watermark has reached the event time of its last write plus the ttl: reads no longer
see it at that moment, and it is deleted by a tombstone soon after. The time of the write stands in the header of the stored value,
with or without a ttl, so that one may be set over existing state: reads obey it at once, and what has no entry in the index of what
ends is entered page by page, one at each commit.

    written 10:00, no ttl     deployed with ttl="1h" at 10:30     read at 10:59: there     at 11:00: gone     deleted soon after
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from engine.errors import ConfigError, RecordError, StateError, StoredTypeError
from engine.functions import check_function
from engine.keys import KeyCodec, key_codec
from engine.operators.base import OperatorContext
from state.values import msgpack_codec, unit_codec

_PAGE = 500


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """A value as it is kept: its bytes, when it was written, and where the ttl index has its entry (both event time, ms)."""

    payload: bytes
    written_ms: int
    indexed_ms: int | None = None


INDEX_CODEC = KeyCodec(int, lambda n: n.to_bytes(8, "big"), lambda n: n.to_bytes(8, "big"), lambda raw: int.from_bytes(raw, "big"))
"""Sub keys that are numbers: the place in a list, and 0 for a single value."""


class Kind:
    """A declared type of values: bytes to and from it.

    Args:
        what: Where it is declared, for messages.
        upgrade: Makes a value out of plain data that does not fit.

    Raises:
        ConfigError: Values of this type cannot be stored, or `upgrade` cannot be called.
    """

    def __init__(self, value_type: Any, what: str, upgrade: Callable[[Any], Any] | None = None) -> None:
        self.type = value_type
        self._encode = msgspec.msgpack.Encoder().encode
        self._what, self._upgrade = what, upgrade
        if upgrade is not None:
            check_function(upgrade, f"upgrade of {what}", f"a function that makes a {value_type!r} of plain data")
        try:
            self._decode = msgspec.msgpack.Decoder(value_type).decode
        except TypeError as error:
            raise ConfigError(f"{what}: values of {value_type!r} cannot be stored: {error}") from error

    def named(self, name: str) -> "Kind":
        """Return the same for the state of an operator."""
        return Kind(self.type, name, self._upgrade)

    def encode(self, value: Any) -> bytes:
        """Return the bytes of a value.

        Raises:
            RecordError: It is not of the type: kept, it could never be read again.
        """
        payload = self._encode(value)
        try:
            self._decode(payload)
        except msgspec.ValidationError as error:
            more = "; clear() deletes a value" if value is None else ""
            raise RecordError(f"state {self._what!r} takes {self._type_name()}, not {value!r}: {error}{more}") from error
        return payload

    def check_default(self, default: Any) -> None:
        """Refuse a default that is no value of the type (None says that there is none) with a ConfigError."""
        if default is not None:
            try:
                self.encode(default)
            except (RecordError, TypeError) as error:
                raise ConfigError(f"default={default!r} of {self._what} is not of the type {self._type_name()}: {error}") from error

    def decode(self, payload: bytes) -> Any:
        """Return a value.

        Raises:
            StoredTypeError: It was written as another type, and is not upgraded to this one.
        """
        try:
            return self._decode(payload)
        except msgspec.ValidationError as error:
            return self._upgraded(payload, error)

    def _upgraded(self, payload: bytes, error: msgspec.ValidationError) -> Any:
        name = self._type_name()
        if self._upgrade is None:
            raise StoredTypeError(
                f"state {self._what!r}: a stored value does not fit {name}: {error}. Give what was added a default, or pass "
                "upgrade=, a function that makes one of what was stored"
            ) from error
        plain = msgspec.msgpack.decode(payload)
        try:
            return self._decode(self._encode(self._upgrade(plain)))
        except Exception as failure:
            raise StoredTypeError(f"state {self._what!r}: upgrade= made no {name} of the stored {plain!r}: {failure}") from failure

    def _type_name(self) -> str:
        return getattr(self.type, "__name__", repr(self.type))


@dataclass(frozen=True, slots=True)
class StoredView:
    """Shows the value inside a `Stored`; what a person writes keeps the time of the write that it takes the place of.

    Attributes:
        only_sub: The one sub key that there is, for a single value; None for lists and maps.
        refusal: Why an entry that is not there yet cannot be made by hand; "" if it can.
    """

    kind: Kind
    only_sub: int | None
    refusal: str

    def show(self, stored: Stored) -> Any:
        """Return the value."""
        return self.kind.decode(stored.payload)

    def read(self, plain: Any, old: Stored | None) -> Stored:
        """Return the value as it is kept."""
        if old is None and self.refusal:
            raise StateError(self.refusal)
        value = msgspec.json.decode(msgspec.json.encode(plain), type=self.kind.type)
        payload = self.kind.encode(value)
        return Stored(payload, 0) if old is None else Stored(payload, old.written_ms, old.indexed_ms)


class KeptCells:
    """Values by (key, sub key), with or without a ttl."""

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
        self._key = key
        # How far values have been entered into the index: all of them?, and the store key behind which to go on.
        self._entered = context.state.keyed(f"{full}-entered", key_codec(str), msgpack_codec(tuple[bool, bytes]), merge=_entered_by_all)
        if ttl_ms is None and self._entered.get("") is not None:
            self._entered.delete("")  # from here on values are written without an entry

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
        for indexed_ms, key, sub_bytes, _ in self._index.due(watermark, "any"):
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

    def enter_old(self) -> None:
        """Enter a page of the values into the index that were written without a ttl, until all are."""
        if self._index is None or self._ttl_ms is None:
            return
        done, after = self._entered.get("") or (False, b"")
        if done:
            return
        places, following = self._values.committed_places(self._key.decode, after, _PAGE)
        watermark = self._watermark()
        for key, sub in places:
            stored = self._values.get(key, sub)
            if stored is None or stored.indexed_ms is not None:
                continue
            if self._ended(stored, watermark):
                self._values.delete(key, sub)
            else:
                ends_ms = stored.written_ms + self._ttl_ms
                self._index.put(ends_ms, key, True, self._sub.encode(sub))
                self._values.put(key, sub, Stored(stored.payload, stored.written_ms, ends_ms))
        self._entered.put("", (following is None, following or b""))

    def _ended(self, stored: Stored, watermark: int) -> bool:
        return self._ttl_ms is not None and stored.written_ms + self._ttl_ms <= watermark


def view_of(kind: Kind, ttl_ms: int | None, only_sub: int | None = None) -> StoredView:
    """Return how values are shown to people; with a ttl no new ones are put by hand."""
    refusal = "" if ttl_ms is None else "a new entry would have no time to end at: put over one that is there, or let the app write it"
    return StoredView(kind, only_sub, refusal)


def _entered_by_all(marks: Sequence[tuple[bool, bytes]]) -> tuple[bool, bytes]:
    """Return the mark of a task that takes over keys of several: unless all are done, everything is looked through again."""
    return marks[0] if len(marks) == 1 or all(done for done, _ in marks) else (False, b"")
