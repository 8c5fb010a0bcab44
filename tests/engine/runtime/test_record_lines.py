"""Record lines: every record has a line, and reading the line gives the record back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RecordError
from engine.records import RecordBatch
from engine.runtime.record_lines import LineRecord, format_batch, format_line, parse_line

payloads = (
    st.none() | st.binary() | st.text().map(str.encode) | st.sampled_from([b"null", b" null ", b"1", b'"a"', b'{"a":[1,2.5,null]}', b""])
)
header_lists = st.lists(st.tuples(st.text(max_size=3), st.binary(max_size=4) | st.just(b"text")), max_size=4)


@given(payloads, payloads, header_lists, st.integers(-(2**62), 2**62))
def test_record_lines_of_any_record_give_it_back(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]], timestamp_ms: int
) -> None:
    line = format_line("t", 3, 17, timestamp_ms, key, value, headers)
    assert b"\n" not in line
    back = parse_line(line)
    assert (back.key, back.timestamp_ms, back.partition) == (key, timestamp_ms, 3)
    assert sorted(back.headers, key=lambda pair: pair[0]) == sorted(headers, key=lambda pair: pair[0])
    assert back.value == value or json.loads(back.value or b"0") == json.loads(value or b"1")


def test_record_lines_of_json_values_read_as_json() -> None:
    line = format_line("orders", 1, 2, 3, b"alice", b'{"order_id":"o-1"}', [("trace", b"abc")])
    assert json.loads(line) == {
        "topic": "orders",
        "partition": 1,
        "offset": 2,
        "timestamp_ms": 3,
        "key": "alice",
        "value": {"order_id": "o-1"},
        "headers": {"trace": "abc"},
    }


def test_record_lines_of_a_value_on_several_lines_stay_on_one() -> None:
    line = format_line("t", 0, 0, 0, None, b'{\n "a": 1\r\n}')
    assert b"\n" not in line
    assert json.loads(line)["value"] == {"a": 1}


def test_record_lines_with_only_a_value_leave_the_rest_open() -> None:
    assert parse_line(b'{"value":{"a": 1}}') == LineRecord(None, b'{"a": 1}', None, None, ())


def test_record_lines_with_null_value_are_tombstones() -> None:
    assert parse_line(b'{"key":"alice","value":null}').value is None


@pytest.mark.parametrize(("key", "wire"), [(b'"alice"', b"alice"), (b"17", b"17"), (b'{"a":1}', b'{"a":1}')])
def test_record_lines_with_keys_of_all_types_give_their_wire_form(key: bytes, wire: bytes) -> None:
    assert parse_line(b'{"value":1,"key":%b}' % key).key == wire


def test_record_lines_with_repeated_headers_keep_them_all() -> None:
    assert parse_line(b'{"value":1,"headers":{"a":["1","2"],"b":{"base64":"/w=="}}}').headers == [("a", b"1"), ("a", b"2"), ("b", b"\xff")]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b'{"order_id":"o-1"}',
        b'{"key":"alice"}',
        b'{"value":1,"value_text":"1"}',
        b'{"value":1,"headers":{"a":1}}',
        b'{"value":1,"headers":{"a":{"base64":"?"}}}',
        b'{"value":1,"timestamp":5}',
        b'{"value":1,"key":"a","key_base64":"YQ=="}',
    ],
)
def test_record_lines_that_are_none_are_refused(line: bytes) -> None:
    with pytest.raises(RecordError, match="not a record line"):
        parse_line(line)


def test_record_lines_of_a_batch_come_in_its_order() -> None:
    batch = RecordBatch("t", 2, [5, 7], [10, 11], [b"a", None], [b"1", None], position=5, next_offset=8)
    assert [json.loads(line)["offset"] for line in format_batch(batch)] == [5, 7]
