"""Murmur2 against aiokafka's, and against values that the Java client gives."""

import pytest
from aiokafka.partitioner import murmur2 as reference
from hypothesis import given
from hypothesis import strategies as st

from state.hashing import key_hash, murmur2, partition_of


# From Kafka's own UtilsTest.testMurmur2, as Java's signed ints.
@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_known_keys_hash_as_in_java(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected & 0xFFFFFFFF


@given(st.binary(max_size=300))
def test_murmur2_any_bytes_agree_with_the_driver(data: bytes) -> None:
    assert murmur2(data) == reference(data) & 0xFFFFFFFF


@given(st.binary(max_size=40), st.integers(1, 100))
def test_partition_of_any_key_is_where_the_driver_puts_it(key: bytes, partitions: int) -> None:
    assert partition_of(key, partitions) == (reference(key) & 0x7FFFFFFF) % partitions
    assert 0 <= key_hash(key) < 2**31
