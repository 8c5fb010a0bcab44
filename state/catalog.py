"""The catalog of a store: what each entry means, so that people can read it, change it and take it elsewhere.

The overlay notes a `StateSpec` for every state that an operator opens. With it a store key is taken apart, a value is decoded, and
both are made again from what a person wrote:

    catalog.entry(raw_key, raw_value).line()
    {"pipeline": "visits", "operator": "process", "state": "views", "key": "ann", "sub": 0, "value": 5}

A line holds `k` (the store key, base64) besides what is decoded of it, and `v` (the stored value) only where the decoded value would
not come back as the same bytes: read again, `k` and `v` count where they stand.

States with `merge` belong to a task and not to a key (a counter of arrivals, a watermark): where partitions are cut anew, the values
of several tasks become one. States of `whole` are held by every task alike (broadcast tables).
"""

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import msgspec

from state.errors import StateError, StoredTypeError
from state.hashing import key_hash
from state.keys import ID_BYTES, TIME_BYTES, Codec, KeyCodec, decode_time, encode_key, encode_time, hash_of, split_key, store_id
from state.section import foreign_key
from state.values import DECODE_ERRORS, DatedCodec, stored

Kind = Literal["keyed", "mapped", "timed", "panes"]
Merge = Callable[[Sequence[Any]], Any]


class View(Protocol):
    """How values of a state are shown to people and read back from what they write.

    Attributes:
        only_sub: The one sub key that a mapped state of single values has, which nobody needs to say; None where there are several.
    """

    @property
    def only_sub(self) -> Any: ...

    def show(self, value: Any) -> Any:
        """Return a value as something that JSON can say."""
        ...

    def read(self, plain: Any, old: Any) -> Any:
        """Return the value that a person means; `old` is what it takes the place of, None for nothing."""
        ...


@dataclass(frozen=True, slots=True)
class StateSpec:
    """A state as its operator opened it.

    Attributes:
        name: "pipeline/operator/state", or "_task/…" for what the task itself keeps.
        sub: Codec of what stands below the key (mapped only).
        merge: Makes one value of those of several tasks; None for a state of keys.
        by_hand: A person may put an entry: it says all by itself, and its operator keeps nothing elsewhere in step with it.
        part_of: Name of the state whose values it holds parts of: a key goes from both or from none.
    """

    name: str
    kind: Kind
    key: KeyCodec[Any]
    value: Codec[Any]
    sub: Codec[Any] | None = None
    merge: Merge | None = None
    view: View | None = None
    by_hand: bool = False
    part_of: str = ""

    @property
    def is_of_task(self) -> bool:
        """Whether the state belongs to the task, not to a key."""
        return self.merge is not None or self.name.startswith("_task/")

    @property
    def is_timed(self) -> bool:
        """Whether a time stands in front of the key."""
        return self.kind in ("timed", "panes")

    @property
    def parts(self) -> tuple[str, str, str]:
        """Pipeline, operator, and the state's own name."""
        pipeline, _, rest = self.name.partition("/")
        operator, _, local = rest.partition("/")
        return pipeline, operator, local

    def hash_at(self) -> int:
        """Return where in a store key the hash stands."""
        return ID_BYTES + TIME_BYTES if self.is_timed else ID_BYTES

    def store_key(self, key: Any, *, time_ms: int | None = None, sub: Any = None) -> bytes:
        """Return the store key of an entry.

        Raises:
            StateError: The time or the sub key is missing, or given for a state that has none, or the key has another type.
        """
        if self.is_timed != (time_ms is not None):
            raise StateError(f"state {self.name!r}: an entry {'needs' if self.is_timed else 'has no'} time")
        if sub is None and self.view is not None:
            sub = self.view.only_sub
        if (self.kind == "mapped") != (sub is not None):
            raise StateError(f"state {self.name!r}: an entry {'needs' if self.kind == 'mapped' else 'has no'} sub key")
        if time_ms is not None and not (isinstance(time_ms, int) and -(1 << 63) <= time_ms < 1 << 63):
            raise StateError(f"state {self.name!r}: {time_ms!r} is no time in milliseconds of 64 bits")
        try:
            below = b"" if self.sub is None else self.sub.encode(_read(self.sub, sub))
            key = _read(self.key, key)
            part = encode_key(self.key.wire(key), self.key.encode(key))
        except (*DECODE_ERRORS, AttributeError, OverflowError) as error:
            raise StateError(f"state {self.name!r}: the key does not fit its type: {error}") from error
        return store_id(self.name) + (encode_time(time_ms) if time_ms is not None else b"") + part + below


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a store, taken apart."""

    spec: StateSpec
    raw_key: bytes
    raw_value: bytes
    key: Any
    wire: bytes
    time_ms: int | None
    sub: Any

    @property
    def hash(self) -> int:
        """The hash of the key, which decides about the partition."""
        return hash_of(self.raw_key, self.spec.hash_at())

    def value(self) -> Any:
        """Return the decoded value; StoredTypeError if it does not fit its type, StateError if it is damaged."""
        return stored(self.spec.value, self.spec.name).decode(self.raw_value)

    def shown(self) -> Any:
        """Return the value as JSON can say it, None where it cannot."""
        try:
            value = self.value()
            plain = value if self.spec.view is None else self.spec.view.show(value)
            return msgspec.json.decode(msgspec.json.encode(plain))
        except (*DECODE_ERRORS, OverflowError):
            return None

    def line(self, *, exact: bool = False) -> dict[str, Any]:
        """Return the entry as plain data; with `exact` it can be read back, byte for byte."""
        pipeline, operator, local = self.spec.parts
        row: dict[str, Any] = {"pipeline": pipeline, "operator": operator, "state": local, "key": _plain(self.key)}
        if self.time_ms is not None:
            row["time_ms"] = self.time_ms
        if self.sub is not None and (self.spec.view is None or self.spec.view.only_sub is None):
            row["sub"] = _plain(self.sub)
        row["value"] = self.shown()
        if exact:
            row["k"] = b64encode(self.raw_key).decode()
            try:
                again = encode_value(self.spec, row["value"], self.raw_value)
            except (StateError, StoredTypeError):
                again = b""
            if again != self.raw_value:
                row["v"] = b64encode(self.raw_value).decode()
        return row


@dataclass(frozen=True, slots=True)
class Catalog:
    """The states of a store by store id, and the prefixes of names of which every task holds all."""

    specs: Mapping[bytes, StateSpec]
    whole: frozenset[str] = frozenset()
    _by_name: dict[str, StateSpec] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._by_name.update({spec.name: spec for spec in self.specs.values()})

    def is_whole(self, spec: StateSpec) -> bool:
        """Return whether every task holds all of a state."""
        pipeline, operator, _ = spec.parts
        return f"{pipeline}/{operator}" in self.whole

    def kinds(self) -> dict[str, str]:
        """Return the kind of each state by its name, those of the task too."""
        return {name: self._by_name[name].kind for name in sorted(self._by_name)}

    def names(self) -> list[str]:
        """Return the names of all states of keys, sorted."""
        return sorted(name for name, spec in self._by_name.items() if not spec.is_of_task)

    def spec(self, name: str) -> StateSpec:
        """Return a state by its name.

        Raises:
            StateError: There is none; the message says which there are.
        """
        if name not in self._by_name:
            raise StateError(f"there is no state {name!r}; there are {', '.join(self.names()) or 'none'}")
        return self._by_name[name]

    def entry(self, raw_key: bytes, raw_value: bytes) -> Entry | None:
        """Return what an entry means, None for a state that the app does not declare.

        Raises:
            StoredTypeError: The key does not fit the type that the state has now.
            StateError: The key is cut off.
        """
        spec = self.specs.get(raw_key[:ID_BYTES])
        if spec is None:
            return None
        at = spec.hash_at()
        try:
            key_bytes, below = split_key(raw_key, at)
            key = spec.key.decode(key_bytes)
            wire = spec.key.wire(key)
            sub = spec.sub.decode(below) if spec.sub is not None else below if below else None
        except DECODE_ERRORS as error:
            raise foreign_key(spec.name, raw_key, error) from error
        return Entry(spec, raw_key, raw_value, key, wire, decode_time(raw_key, ID_BYTES) if spec.is_timed else None, sub)

    def raw_entry(self, row: Mapping[str, Any], old: bytes | None = None) -> tuple[bytes, bytes]:
        """Return store key and stored value of a line; `old` is the value that it takes the place of.

        Raises:
            StateError: The line does not fit the state that it names.
        """
        if "k" in row:
            raw_key = _unwrapped(row, "k")
            spec = self.specs.get(raw_key[:ID_BYTES])
            if spec is None:
                raise StateError(f"the store key {row['k']} belongs to no state that the app declares")
        else:
            missing = [name for name in ("pipeline", "operator", "state", "key") if name not in row]
            if missing:
                raise StateError(f"an entry needs {', '.join(missing)}, or a store key k")
            spec = self.spec(f"{row['pipeline']}/{row['operator']}/{row['state']}")
            raw_key = spec.store_key(row["key"], time_ms=row.get("time_ms"), sub=row.get("sub"))
        if "v" in row:
            return raw_key, _unwrapped(row, "v")
        if "value" not in row:
            raise StateError(f"state {spec.name!r}: an entry needs a value")
        return raw_key, encode_value(spec, row["value"], old)


def read_value(spec: StateSpec, plain: Any, old: Any) -> Any:
    """Return the value that a person means; `old` is the one that it takes the place of, None for nothing.

    Raises:
        StateError: It does not fit the state's type, or the state holds what only its operator can write.
    """
    try:
        return _read(spec.value, plain) if spec.view is None else spec.view.read(plain, old)
    except (*DECODE_ERRORS, AttributeError, OverflowError) as error:
        raise StateError(f"state {spec.name!r}: the value does not fit: {error}") from error


def encode_value(spec: StateSpec, plain: Any, old: bytes | None) -> bytes:
    """Return the stored form of a value as a person writes it, with the errors of `read_value`."""
    codec = stored(spec.value, spec.name)
    value = read_value(spec, plain, None if old is None or spec.view is None else codec.decode(old))
    try:
        return codec.encode(value)
    except (*DECODE_ERRORS, AttributeError, OverflowError, AssertionError) as error:
        raise StateError(f"state {spec.name!r}: the value does not fit: {error}") from error


def parse_key(spec: StateSpec, text: str) -> Any:
    """Return the key that a text on a command line means: as it is for str or an undeclared type, a number for int, JSON for a Struct.

    Raises:
        StateError: It is none.
    """
    wanted, raw = getattr(spec.key, "type", None), _text_bytes(text)
    try:
        if wanted is Any:  # its stored form has a letter in front, which nobody writes
            spec.key.encode(text)
            return text
        try:
            return spec.key.decode(raw)
        except DECODE_ERRORS:  # in another way than this engine writes such keys: 1.50, a moment of another zone
            is_json = isinstance(wanted, type) and issubclass(wanted, msgspec.Struct)
            key = msgspec.json.decode(raw, type=wanted) if is_json else msgspec.convert(text, wanted)
            spec.key.encode(key)
            return key
    except (*DECODE_ERRORS, AttributeError, OverflowError) as error:
        raise StateError(f"state {spec.name!r}: {text!r} is no key of its type: {error}") from error


def wire_of(spec: StateSpec, key: bytes | str) -> bytes:
    """Return a key's bytes on the wire in a state: of a text those of the key that it means there, else as it is."""
    if isinstance(key, bytes):
        return key
    try:
        return spec.key.wire(parse_key(spec, key))
    except (*DECODE_ERRORS, AttributeError, OverflowError):
        return _text_bytes(key)  # no key of this state: nothing has it


def entries_of(catalog: Catalog, entries: Iterator[tuple[bytes, bytes]], key: bytes | str | None = None) -> Iterator[Entry]:
    """Yield the entries that keys own; those of one key if it is given, by its bytes on the wire or as text (`wire_of`)."""
    wires: dict[str, tuple[bytes, int]] = {}
    for raw_key, raw_value in entries:
        spec = catalog.specs.get(raw_key[:ID_BYTES])
        if spec is None or spec.is_of_task:
            continue
        wire = None
        if key is not None:
            if spec.name not in wires:
                found = wire_of(spec, key)
                wires[spec.name] = found, key_hash(found)
            wire, wanted = wires[spec.name]
            if hash_of(raw_key, spec.hash_at()) != wanted:
                continue
        entry = catalog.entry(raw_key, raw_value)
        if entry is not None and wire in (None, entry.wire):
            yield entry


def _text_bytes(text: str) -> bytes:
    """Return what a command line holds of a text: bytes that are no UTF-8 come as surrogates."""
    return text.encode(errors="surrogateescape")


def _unwrapped(row: Mapping[str, Any], name: str) -> bytes:
    """Return the bytes that a line holds in base64."""
    try:
        return b64decode(row[name], validate=True)
    except (ValueError, TypeError) as error:
        raise StateError(f"{name} of an entry must be base64, not {row[name]!r}: {error}") from error


def _plain(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def _read(codec: Codec[Any], plain: Any) -> Any:
    """Return a value of a codec's type from plain data; what is of the type already stays."""
    wanted = getattr(codec.inner if isinstance(codec, DatedCodec) else codec, "type", None)
    if wanted is None:
        raise StateError("only its operator can write it")
    if isinstance(wanted, type) and isinstance(plain, wanted):
        return plain
    return msgspec.json.decode(msgspec.json.encode(plain), type=wanted)
