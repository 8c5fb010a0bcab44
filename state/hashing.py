"""Murmur2 as Kafka's Java client computes it: it decides the partition of a key, and stands in every store key.

    partition_of(b"user-1", 12)  ==  toPositive(murmur2(b"user-1")) % 12

Plain Python needs some 2 µs for a key of ten bytes, so callers that see a key again remember its hash (`state.keys.KeyParts`), and
those that have many new ones ask for all at once: `key_hashes` takes a fifth to a tenth of the time. It works on all keys of one
length together, in integers of thousands of bits that hold a key in each lane:

    lane   63            32 31             0
          |       0        |    32 bits     |     a product of two such numbers stays in its lane, since both are below 2^32;
                                                  then the mask takes its upper half away

Source: org.apache.kafka.common.utils.Utils.murmur2 and toPositive; DefaultPartitioner for keyed records.
"""

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct, iter_unpack, unpack

_MASK = 0xFFFFFFFF
_SEED = 0x9747B28C
_M = 0x5BD1E995
_LANES_MIN = 16
"""Fewer keys of one length are faster one by one."""
_LANES_MAX = 2_000
"""More are split, for the processor's cache."""
_WORDS = [Struct(f"<{count}I").unpack_from for count in range(33)]


def murmur2(data: bytes) -> int:
    """Return the 32-bit hash, unsigned (Java's int of the same bits)."""
    length = len(data)
    tail = length & 3
    h = _SEED ^ length
    if length < 132:
        words = _WORDS[length >> 2](data)
    else:
        words = tuple(word for (word,) in iter_unpack("<I", data[: length - tail]))
    # The masks of two multiplications are folded into one: only the low 32 bits of a product matter to the next step.
    for k in words:
        k = k * _M & _MASK
        h = (h * _M ^ (k ^ k >> 24) * _M) & _MASK
    if tail:
        h = (h ^ int.from_bytes(data[length - tail :], "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


@lru_cache(maxsize=1 << 14)
def key_hash(data: bytes) -> int:
    """Return the hash of a key's bytes on the wire as Kafka's partitioner uses it: murmur2 without the sign bit.

    Remembered for the last 16,384 keys (some 3 MB): state and outputs ask for the same ones shortly after each other.
    """
    return murmur2(data) & 0x7FFFFFFF


def key_hashes(keys: Sequence[bytes]) -> list[int]:
    """Return `key_hash` of each of many keys, in their order."""
    lengths = set(map(len, keys))
    if len(lengths) == 1:
        return _hashes_of_length(keys, lengths.pop())
    alike: dict[int, list[bytes]] = {length: [] for length in lengths}
    for key in keys:
        alike[len(key)].append(key)
    found: dict[bytes, int] = {}
    for length, some in alike.items():
        found.update(zip(some, _hashes_of_length(some, length), strict=True))
    return list(map(found.__getitem__, keys))


def _hashes_of_length(keys: Sequence[bytes], length: int) -> list[int]:
    if len(keys) < _LANES_MIN:
        return list(map(key_hash, keys))
    hashes: list[int] = []
    for start in range(0, len(keys), _LANES_MAX):
        hashes += _hashes_in_lanes(keys[start : start + _LANES_MAX], length)
    return hashes


def _hashes_in_lanes(keys: Sequence[bytes], length: int) -> tuple[int, ...]:
    """Return the hashes of keys of one length: `murmur2`, step by step, with a key in each lane."""
    count = len(keys)
    joined = b"".join(keys)
    ones = int.from_bytes(b"\1\0\0\0\0\0\0\0" * count, "little")
    mask, low_8, low_19, low_17 = ones * _MASK, ones * 0xFF, ones * 0x7FFFF, ones * 0x1FFFF

    def word(start: int, size: int) -> int:
        """Return `size` bytes of each key, little-endian."""
        lanes = bytearray(8 * count)
        for at in range(size):
            lanes[at::8] = joined[start + at :: length]
        return int.from_bytes(lanes, "little")

    tail = length & 3
    h = ones * (_SEED ^ length)
    for start in range(0, length - tail, 4):
        k = word(start, 4) * _M & mask
        h = (h * _M ^ (k ^ k >> 24 & low_8) * _M) & mask
    if tail:
        h = (h ^ word(length - tail, tail)) * _M & mask
    h = (h ^ h >> 13 & low_19) * _M & mask
    h = (h ^ h >> 15 & low_17) & ones * 0x7FFFFFFF
    return unpack(f"<{count}Q", h.to_bytes(8 * count, "little"))


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition on which the Java client puts a record with this key."""
    return key_hash(key) % partitions
