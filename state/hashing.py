"""Murmur2 as Kafka's Java client computes it: it decides the partition of a key, and stands in every store key.

    partition_of(b"user-1", 12)  ==  toPositive(murmur2(b"user-1")) % 12

Plain Python needs about 1 µs for a key of ten bytes, so callers that see a key again remember its hash (`state.keys.KeyParts`).

Source: org.apache.kafka.common.utils.Utils.murmur2 and toPositive; DefaultPartitioner for keyed records.
"""

from functools import lru_cache
from struct import Struct, iter_unpack

_MASK = 0xFFFFFFFF
_SEED = 0x9747B28C
_M = 0x5BD1E995
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


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition on which the Java client puts a record with this key."""
    return key_hash(key) % partitions
