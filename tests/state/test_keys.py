"""Store keys: what is put in comes out, byte order is time order, and prefixes hold exactly what begins with them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.keys import key_codec
from state.errors import StateError
from state.hashing import key_hash
from state.keys import KeyParts, decode_time, encode_key, encode_time, hash_of, prefix_end, split_key, store_id

TIMES = st.integers(-(2**63), 2**63 - 1)


@given(TIMES, TIMES)
def test_encode_time_any_two_times_keep_their_order(a: int, b: int) -> None:
    assert (encode_time(a) < encode_time(b)) == (a < b)
    assert decode_time(encode_time(a)) == a


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=20))
def test_split_key_any_key_and_sub_come_back(wire: bytes, encoded: bytes, sub: bytes) -> None:
    raw = b"head" + encode_key(wire, encoded) + sub
    assert split_key(raw, 4) == (encoded, sub)
    assert hash_of(raw, 4) == key_hash(wire)


@given(st.binary(min_size=1, max_size=6).filter(lambda p: p.strip(b"\xff")), st.binary(max_size=8))
def test_prefix_end_any_key_is_below_it_exactly_if_it_has_the_prefix(prefix: bytes, key: bytes) -> None:
    assert (prefix <= key < prefix_end(prefix)) == key.startswith(prefix)


def test_split_key_cut_off_raises_state_error() -> None:
    whole = encode_key(b"k" * 200, b"k" * 200)
    for size in (0, 3, 5, len(whole) - 1):
        with pytest.raises(StateError, match="cut off"):
            split_key(whole[:size], 0)


def test_encode_key_known_key_has_the_documented_bytes() -> None:
    assert encode_key(b"21", b"21") == ((-973932308) & 0x7FFFFFFF).to_bytes(4, "big") + b"\x02" + b"21"
    assert store_id("a") == bytes.fromhex("e8b7be43")


def test_key_parts_beyond_the_limit_start_over_at_a_commit() -> None:
    parts = KeyParts(key_codec(int), keys_max=2)
    assert [parts[n] for n in (1, 2, 3, 1)] == [encode_key(b"%d" % n, b"%d" % n) for n in (1, 2, 3, 1)]
    assert len(parts) == 3, "the commit asks for them again"
    parts.trim()
    assert len(parts) == 0
    assert [parts[n] for n in (1, 2)] == [encode_key(b"%d" % n, b"%d" % n) for n in (1, 2)]
    parts.trim()
    assert len(parts) == 2


def test_key_parts_far_beyond_the_limit_starts_over_and_still_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("state.keys._BETWEEN_COMMITS", 0)
    parts = KeyParts(key_codec(int), keys_max=2)
    assert [parts[n] for n in (1, 2, 3, 1)] == [encode_key(b"%d" % n, b"%d" % n) for n in (1, 2, 3, 1)]
    assert len(parts) <= 2


@pytest.mark.parametrize("kind", [str, Any])
def test_key_parts_learn_many_gives_what_each_key_alone_has(kind: Any) -> None:
    keys = [f"user-{number}" for number in range(120)] + ["long" * 60, "", "ü"]
    learned, one_by_one = KeyParts(key_codec(kind), keys_max=1_000), KeyParts(key_codec(kind), keys_max=1_000)
    assert learned["user-3"] == one_by_one["user-3"]
    learned.learn(keys)
    assert dict(learned) == {key: one_by_one[key] for key in keys}


def test_key_parts_learn_beyond_the_limit_keeps_all_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("state.keys._BETWEEN_COMMITS", 0)
    parts = KeyParts(key_codec(int), keys_max=30)
    parts.learn(range(20))
    parts.learn(range(10, 40))
    assert list(parts) == list(range(10, 40))
