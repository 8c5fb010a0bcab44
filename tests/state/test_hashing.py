"""Murmur2 against aiokafka's, and against values that the Java client gives."""

import random

import pytest
from aiokafka.partitioner import murmur2 as reference
from hypothesis import given
from hypothesis import strategies as st

from state.hashing import key_hash, key_hashes, murmur2, partition_of


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


@given(st.lists(st.binary(max_size=12), max_size=60), st.integers(0, 9), st.randoms(use_true_random=False))
def test_key_hashes_of_many_keys_of_all_lengths_are_those_of_each(keys: list[bytes], length: int, rng: random.Random) -> None:
    keys = keys + [rng.randbytes(length) for _ in range(20)]
    rng.shuffle(keys)
    assert key_hashes(keys) == [reference(key) & 0x7FFFFFFF for key in keys]


def test_key_hashes_of_more_keys_than_are_worked_on_at_once_are_in_order() -> None:
    keys = [f"user-{number:09}".encode() for number in range(4_500)]
    assert key_hashes(keys) == [murmur2(key) & 0x7FFFFFFF for key in keys]


@pytest.mark.parametrize("byte", [0x00, 0x80, 0xFF])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 7, 132, 300])
def test_key_hashes_at_the_edges_stay_in_their_lanes(byte: int, length: int) -> None:
    assert key_hashes([bytes((byte,)) * length] * 40) == [murmur2(bytes((byte,)) * length) & 0x7FFFFFFF] * 40
