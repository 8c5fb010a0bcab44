"""Outputs: every way of adding records puts them where one after the other would."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import RecordError
from engine.outputs import Outputs
from engine.records import Headers, OutputColumns, TopicPartition
from state.hashing import key_hash, key_hashes
from tests.effort import examples

KEYS = st.sampled_from([b"a", b"b", b"c", b"user-1", None])


def outputs() -> Outputs:
    return Outputs({"narrow": 1}, partitions=3, own_partition=2, key_hashes=key_hashes)


def placed_singly(batches: list[list[tuple[bytes | None, int]]], count: int) -> dict[int, OutputColumns]:
    """Return where the records of a topic belong, one after the other."""
    found = [OutputColumns() for _ in range(count)]
    for batch in batches:
        for key, number in batch:
            place = (2 if key is None else key_hash(key)) % count
            found[place].append(number, key, b"%d" % number)
    return {place: columns for place, columns in enumerate(found) if len(columns)}


@settings(max_examples=examples(60), deadline=None)
@given(
    # Batches of one key take the way of a single partition, mixed ones mostly the other one.
    st.lists(
        st.one_of(
            st.lists(st.tuples(KEYS, st.integers(0, 99)), max_size=6),
            st.builds(lambda key, numbers: [(key, number) for number in numbers], KEYS, st.lists(st.integers(0, 99), max_size=6)),
        ),
        max_size=5,
    ),
    st.sampled_from([("wide", 3), ("narrow", 1)]),
)
def test_add_a_batch_equals_adding_its_records_singly(batches: list[list[tuple[bytes | None, int]]], topic: tuple[str, int]) -> None:
    made = outputs()
    name, count = topic
    for batch in batches:
        mark = made.mark()
        made.add(name, [b"gone"], [b"x"], [1])
        made.rollback(mark)
        made.add(name, [key for key, _ in batch], [b"%d" % number for _, number in batch], [number for _, number in batch])
    assert made.records == sum(map(len, batches))
    assert {place.partition: columns for place, columns in made.take().items()} == placed_singly(batches, count)


def test_add_behind_records_with_headers_gives_each_its_own() -> None:
    made = outputs()
    made.add("narrow", [b"a"], [b"1"], [1], [(("name", b"value"),)])
    made.add("narrow", [b"b", b"c"], [b"2", None], [2, 3])
    columns = made.take()[TopicPartition("narrow", 0)]
    assert columns.headers == [(("name", b"value"),), (), ()]
    assert columns.values == [b"1", b"2", None]


@pytest.mark.parametrize(
    "others", [[], [b"a"] * 400, [b"a", None], [b"k" * 9_000] * 90], ids=["alone", "few bytes", "no key", "many bytes"]
)
@pytest.mark.parametrize(("length", "taken"), [(1_048_000, True), (1_049_000, False), (1_500_000, False)])
def test_add_looks_at_the_keys_too(others: list[bytes | None], length: int, taken: bool) -> None:
    made = outputs()
    keys = [*others, b"x" * length, *others]
    values, times = [b"1"] * len(keys), [1] * len(keys)
    if taken:
        made.add("narrow", keys, values, times)
        assert made.records == len(keys)
        return
    with pytest.raises(RecordError, match=f"a record of {length + 101:,} bytes is more than topic 'narrow' takes"):
        made.add("narrow", keys, values, times)
    assert made.take() == {}


def test_add_places_by_other_bytes_than_the_key() -> None:
    made = outputs()
    made.add("wide", [b"x", b"y"], [b"1", b"2"], [1, 2], placed_by=[b"a", b"a"])
    assert list(made.take()) == [TopicPartition("wide", key_hash(b"a") % 3)]


@pytest.mark.parametrize("headers", [None, [(("name", b"value"),)]])
def test_hashes_beyond_the_limit_are_forgotten_at_a_commit(headers: list[Headers] | None) -> None:
    asked: list[bytes] = []

    def hashes(keys: Sequence[bytes]) -> list[int]:
        asked.extend(keys)
        return key_hashes(keys)

    made = Outputs({}, partitions=3, own_partition=2, key_hashes=hashes, hashes_max=3)

    def commit(*keys: bytes) -> list[bytes]:
        """Return the keys that were hashed."""
        asked.clear()
        for key in keys:
            made.add("wide", [key], [b"1"], [1], headers)
        made.take()
        return list(asked)

    assert commit(b"a", b"b", b"a") == [b"a", b"b"]
    assert commit(b"b", b"c", b"a") == [b"c"], "four with the one of records without a key: too many from here on"
    assert commit(b"b", b"c", b"a") == [b"b", b"c", b"a"]
