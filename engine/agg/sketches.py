"""Approximations of bounded size: number of distinct values (HyperLogLog) and quantiles (DDSketch). Both start out exact.

What they give depends only on the multiset of values, never on the order or on how parts were merged.

| sketch     | exact up to          | then                                   | size at most  |
|------------|----------------------|----------------------------------------|---------------|
| `Distinct` | 512 distinct values  | standard error 1.6% (4,096 registers)  | 4 KiB         |
| `quantile` | 256 values           | within 1% of the value                 | 4,096 buckets |

Sources: Flajolet et al., "HyperLogLog", AofA 2007, with linear counting for small numbers; Masson, Rim and Lee, "DDSketch", VLDB
2019, section 2.
"""

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from hashlib import blake2b
from math import ceil, floor, isfinite, log
from typing import Any

import msgspec

from engine.agg.decimals import canonical
from engine.errors import RecordError

_encode = msgspec.msgpack.Encoder(order="deterministic").encode

# -- distinct values

_INDEX_BITS = 12
_REGISTERS = 1 << _INDEX_BITS
_EXACT_HASHES = 512
_ALPHA = 0.7213 / (1 + 1.079 / _REGISTERS)

Distinct = frozenset[int] | bytes
"""64-bit hashes of the values, as signed ints, while they are few; then the registers."""


def value_hash(value: Any) -> int:
    """Return a 64-bit hash, the same in every process and version; numbers that are equal have one."""
    if (type(value) is float and value.is_integer()) or type(value) is bool:
        value = int(value)
    elif type(value) is Decimal:
        form = canonical(value)
        value = int(value) if form.is_finite() and form == form.to_integral_value() else form
    if type(value) is int and not -(2**63) <= value < 2**63:
        value = str(value)
    return int.from_bytes(blake2b(_encode(value), digest_size=8).digest(), "big", signed=True)


def distinct_create(value: Any) -> Distinct:
    """Return the sketch of one value."""
    return frozenset((value_hash(value),))


def distinct_add(sketch: Distinct, value: Any) -> Distinct:
    """Return a sketch with one more value."""
    hashed = value_hash(value)
    if isinstance(sketch, bytes):
        index, rank = _place(hashed)
        return sketch if sketch[index] >= rank else sketch[:index] + bytes((rank,)) + sketch[index + 1 :]
    if hashed in sketch:
        return sketch
    grown = sketch | {hashed}
    return grown if len(grown) <= _EXACT_HASHES else _registers(grown)


def distinct_merge(left: Distinct, right: Distinct) -> Distinct:
    """Return the sketch of two together."""
    if isinstance(left, bytes) or isinstance(right, bytes):
        return bytes(map(max, _registers(left), _registers(right)))
    grown = left | right
    return grown if len(grown) <= _EXACT_HASHES else _registers(grown)


def distinct_result(sketch: Distinct) -> int:
    """Return the number of distinct values."""
    if not isinstance(sketch, bytes):
        return len(sketch)
    estimate = _ALPHA * _REGISTERS**2 / sum(2.0**-rank for rank in sketch)
    empty = sketch.count(0)
    if empty and estimate <= 2.5 * _REGISTERS:
        estimate = _REGISTERS * log(_REGISTERS / empty)
    return round(estimate)


def _registers(sketch: Distinct) -> bytes:
    if isinstance(sketch, bytes):
        return sketch
    registers = bytearray(_REGISTERS)
    for hashed in sketch:
        index, rank = _place(hashed)
        registers[index] = max(registers[index], rank)
    return bytes(registers)


def _place(hashed: int) -> tuple[int, int]:
    bits = hashed & (2**64 - 1)
    rest = bits & ((1 << (64 - _INDEX_BITS)) - 1)
    return bits >> (64 - _INDEX_BITS), 64 - _INDEX_BITS - rest.bit_length() + 1


# -- quantiles

_EXACT_VALUES = 256
_BUCKETS_MAX = 4_096
_GAMMA = 1.01 / 0.99
_LOG_GAMMA = log(_GAMMA)
_SIGNS = 100_000  # bucket numbers of positive values lie above it, those of negative ones below its negative, zero has 0

Quantile = tuple[tuple[float, ...], tuple[tuple[int, int], ...]]
"""Sorted values while they are few, then (bucket, number of values) sorted by bucket: one of the two is empty."""


def quantile_create(value: Any) -> Quantile:
    """Return the sketch of one number."""
    return (_number(value),), ()


def quantile_add(sketch: Quantile, value: Any) -> Quantile:
    """Return a sketch with one more number."""
    return quantile_add_all(sketch, (value,))


def quantile_add_all(sketch: Quantile, values: Iterable[Any]) -> Quantile:
    """Return a sketch with more numbers."""
    numbers = list(map(_number, values))
    few, buckets = sketch
    if not buckets and len(few) + len(numbers) <= _EXACT_VALUES:
        return tuple(sorted((*few, *numbers))), ()
    counts = Counter(dict(buckets))
    counts.update(map(_bucket, few))
    counts.update(map(_bucket, numbers))
    return (), _collapse(counts)


def quantile_merge(left: Quantile, right: Quantile) -> Quantile:
    """Return the sketch of two together."""
    if not right[1]:
        return quantile_add_all(left, right[0])
    if not left[1]:
        return quantile_add_all(right, left[0])
    return (), _collapse(Counter(dict(left[1])) + Counter(dict(right[1])))


def quantile_result(sketch: Quantile, q: float) -> float:
    """Return the value below which a fraction q of the numbers lies (the lower of two neighbours)."""
    few, buckets = sketch
    if few:
        return few[floor(q * (len(few) - 1))]
    rank = floor(q * (sum(count for _, count in buckets) - 1))
    seen = 0
    for bucket, count in buckets:
        seen += count
        if seen > rank:
            return _middle(bucket)
    raise AssertionError("a sketch has no values")


def _collapse(counts: Counter[int]) -> tuple[tuple[int, int], ...]:
    """Keep the number of buckets bounded: the smallest ones become one. That is rare: 4,096 span 35 powers of ten."""
    buckets = sorted(counts.items())
    surplus = len(buckets) - _BUCKETS_MAX
    if surplus > 0:
        low = sum(count for _, count in buckets[: surplus + 1])
        buckets = [(buckets[surplus][0], low), *buckets[surplus + 1 :]]
    return tuple(buckets)


def _bucket(value: float) -> int:
    if value == 0.0:
        return 0
    number = _SIGNS + ceil(log(abs(value)) / _LOG_GAMMA)
    return number if value > 0 else -number


def _middle(bucket: int) -> float:
    if bucket == 0:
        return 0.0
    value: float = 2.0 * _GAMMA ** (abs(bucket) - _SIGNS) / (_GAMMA + 1.0)
    return value if bucket > 0 else -value


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or not isfinite(value):
        raise RecordError(f"a quantile needs finite numbers, not {value!r}")
    return float(value)
