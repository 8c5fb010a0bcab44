"""Layout of store keys: which state, (which time,) which key, and what stands below the key.

    keyed, mapped   store id 4 | hash 4 | length varint | key | sub
    timed, panes    store id 4 | time 8 | hash 4 | length varint | key | sub

- The store id is the CRC-32 of the state's name, so that a name, and not the order of declaration, decides where state lies.
  Id 0 is reserved for what the store itself keeps (`state.changelog`).
- The hash is that of the partitioner, over the key's bytes on the wire: the entries of any partition of any partition count can
  be picked out by hash % N without decoding a key.
- Times are signed 64-bit milliseconds with the sign bit turned, big-endian: byte order is time order, and what is due is one
  range scan.
- The length makes the key's end known, so that `sub` (a map's own key, a timer's name) needs no escaping. All entries of a key
  are neighbours.

All integers are big-endian. The varint is LEB128, as in protocol buffers.
"""

from collections.abc import Callable, Collection, Sequence
from struct import Struct
from typing import Generic, Protocol, TypeVar
from zlib import crc32

from state.errors import StateError
from state.hashing import key_hash, key_hashes

K = TypeVar("K")
T = TypeVar("T")

ID_BYTES = 4
TIME_BYTES = 8
_HASH_BYTES = 4
_SIGN = 1 << 63
_SHORT = Struct(">IB").pack
_SHORT_MAX = 0x7F
_FEW = 8
"""Fewer keys are faster one by one."""
_BETWEEN_COMMITS = 50_000
"""So many keys more than are kept over a commit may be known within one: 10 MB or so."""


class Codec(Protocol[T]):
    """Both ways between a thing and its bytes: what lies below a key, or a value's payload."""

    @property
    def encode(self) -> Callable[[T], bytes]: ...

    @property
    def decode(self) -> Callable[[bytes], T]: ...


class KeyCodec(Codec[K], Protocol[K]):
    """Both ways between a key and its bytes; `wire` gives the bytes that decide about the partition (and the order of keys)."""

    @property
    def wire(self) -> Callable[[K], bytes]: ...


def store_id(name: str) -> bytes:
    """Return the four bytes with which every key of a named state begins.

    Raises:
        StateError: The name happens to have the reserved id: choose another one.
    """
    number = crc32(name.encode())
    if number == 0:
        raise StateError(f"state {name!r} cannot be stored: its id is the reserved one; give it another name")
    return number.to_bytes(ID_BYTES, "big")


def encode_time(time_ms: int) -> bytes:
    """Return eight bytes whose order is the order of the times; OverflowError beyond 64 bits."""
    return (time_ms + _SIGN).to_bytes(TIME_BYTES, "big")


def decode_time(raw: bytes, start: int = 0) -> int:
    """Return the time that stands at `start`."""
    return int.from_bytes(raw[start : start + TIME_BYTES], "big") - _SIGN


def encode_key(wire: bytes, encoded: bytes) -> bytes:
    """Return hash, length and key, given the key's bytes on the wire and in the store."""
    return _part(key_hash(wire), encoded)


def _part(number: int, encoded: bytes) -> bytes:
    length = len(encoded)
    if length <= _SHORT_MAX:
        return _SHORT(number, length) + encoded
    size = bytearray()
    while length > 0x7F:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    size.append(length)
    return number.to_bytes(_HASH_BYTES, "big") + size + encoded


def _parts(numbers: Sequence[int], encoded: Sequence[bytes]) -> list[bytes]:
    """Return hash, length and key of each: `_part`, and for short keys without a call for each."""
    lengths = list(map(len, encoded))
    if max(lengths) > _SHORT_MAX:
        return list(map(_part, numbers, encoded))
    return [_SHORT(number, length) + key for number, length, key in zip(numbers, lengths, encoded, strict=True)]


def split_key(raw: bytes, start: int) -> tuple[bytes, bytes]:
    """Return the key's bytes and the sub bytes behind them, given where the hash begins.

    Raises:
        StateError: The bytes end too early.
    """
    at = start + _HASH_BYTES
    length = shift = 0
    while True:
        if at >= len(raw):
            raise StateError(f"store key {raw!r} is cut off")
        byte = raw[at]
        at += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    end = at + length
    if end > len(raw):
        raise StateError(f"store key {raw!r} is cut off")
    return raw[at:end], raw[end:]


def hash_of(raw: bytes, start: int) -> int:
    """Return the key hash that stands at `start`: entries belong to partition `hash % N`."""
    return int.from_bytes(raw[start : start + _HASH_BYTES], "big")


def prefix_end(prefix: bytes) -> bytes:
    """Return the smallest key above all keys that begin with a prefix (which must not consist of 0xFF bytes only)."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes((kept[-1] + 1,))


class KeyParts(dict[K, bytes], Generic[K]):
    """Remembers `encode_key` of the keys seen lately: `parts[key]` costs a dict look-up when it is known.

    Who is about to ask for many keys lets it `learn` them first, all together. Between two commits it may grow beyond `keys_max`: keys
    that were read are written again at the commit, and would have to be encoded once more. `trim`, after a commit, starts over when it
    is too full: what is in use comes back at once, and no order has to be kept.
    """

    def __init__(self, codec: KeyCodec[K], *, keys_max: int) -> None:
        super().__init__()
        self._wire, self._encode, self._keys_max = codec.wire, codec.encode, keys_max

    def __missing__(self, key: K) -> bytes:
        if len(self) >= self._keys_max + _BETWEEN_COMMITS:
            self.clear()
        part = self[key] = encode_key(self._wire(key), self._encode(key))
        return part

    def learn(self, keys: Collection[K]) -> None:
        """Make sure that many keys are known."""
        unknown: Collection[K] = [key for key in keys if key not in self]
        if len(unknown) < _FEW:
            return
        if len(self) + len(unknown) > self._keys_max + _BETWEEN_COMMITS:
            self.clear()
            unknown = keys
        wires = list(map(self._wire, unknown))
        stored = wires if self._wire is self._encode else list(map(self._encode, unknown))
        self.update(zip(unknown, _parts(key_hashes(wires), stored), strict=True))

    def trim(self) -> None:
        """Forget all keys if there are too many."""
        if len(self) > self._keys_max:
            self.clear()
