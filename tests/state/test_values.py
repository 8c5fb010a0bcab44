"""Stored values: header and payload come back; what does not fit is an error that names the state."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.errors import StateError, StoredTypeError
from state.values import Header, dated_codec, frame, json_codec, msgpack_codec, raw_codec, stored, unframe, unit_codec


class Totals(msgspec.Struct, frozen=True):
    count: int
    mean: float


INT64 = st.integers(-(2**63), 2**63 - 1)


@given(st.none() | st.integers(0, 2**32 - 1), st.none() | INT64, st.none() | INT64, st.binary(max_size=20))
def test_unframe_any_header_comes_back(schema_id: int | None, written_ms: int | None, ttl_ms: int | None, payload: bytes) -> None:
    header = Header(schema_id, written_ms, ttl_ms)
    assert unframe(frame(payload, header)) == (header, payload)


@pytest.mark.parametrize(
    ("codec", "value"),
    [
        (json_codec(Totals), Totals(3, 0.5)),
        (msgpack_codec(tuple[int, bytes]), (3, b"\x00\xff")),
        (raw_codec, b""),
        (unit_codec, True),
        (dated_codec(json_codec(int), ttl_ms=60_000), (7, -5)),
    ],
)
def test_stored_each_codec_gives_back_what_it_took(codec: Any, value: Any) -> None:
    whole = stored(codec, "s")
    assert whole.decode(whole.encode(value)) == value


def test_stored_golden_bytes_do_not_change() -> None:
    assert stored(json_codec(int), "s").encode(7) == b"\x01\x007"
    dated = stored(dated_codec(json_codec(int), ttl_ms=60_000), "s").encode((7, 258))
    assert dated == b"\x01\x06" + bytes(6) + b"\x01\x02" + (60_000).to_bytes(8, "big") + b"7"
    assert unframe(dated)[0] == Header(None, 258, 60_000)


@pytest.mark.parametrize("raw", [b"", b"\x01", b"\x02\x007", b"\x01\x807", b"\x01\x02123", b"\x01\x00x"])
def test_stored_foreign_bytes_raise_state_error_that_names_the_state(raw: bytes) -> None:
    with pytest.raises(StateError, match="'shop/sum'"):
        stored(json_codec(int), "shop/sum").decode(raw)


def test_stored_value_of_another_type_says_so_and_what_to_do() -> None:
    with pytest.raises(
        StoredTypeError, match=r"state 'shop/sum': .*does not fit the type that is declared now: Expected `int`, got .*Give what"
    ):
        stored(json_codec(int), "shop/sum").decode(b"\x01\x00[1]")


def test_stored_header_with_more_than_needed_is_read_all_the_same() -> None:
    assert stored(json_codec(int), "s").decode(frame(b"7", Header(schema_id=3))) == 7
