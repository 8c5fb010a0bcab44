"""Record lines: the one text form of records, for `run`, `send`, `tail` and fixtures; one JSON object a line.

    {"topic":"orders","partition":3,"offset":17,"timestamp_ms":1767225600000,"key":"alice","value":{"order_id":"o-1"},"headers":{}}

On input only `value` is needed. A value of null is a tombstone. What is not JSON stands in `value_text` (UTF-8) or
`value_base64` instead of `value`, a key that is not UTF-8 in `key_base64`; so every record has a line, and reading the line
gives the same bytes back (but for line ends between the tokens of a value). A key may also be written as a number or an object.
Headers are an object: name to text, to {"base64": …}, or to a list of these where a name comes more than once.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from engine.errors import RecordError
from engine.records import Headers, RecordBatch


class LineRecord(NamedTuple):
    """What an input line says; None where it leaves something open."""

    key: bytes | None
    value: bytes | None
    timestamp_ms: int | None
    partition: int | None
    headers: Headers


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    value: msgspec.Raw = msgspec.Raw()
    value_text: str | None = None
    value_base64: bytes | None = None
    key: str | int | dict[str, Any] | None = None
    key_base64: bytes | None = None
    timestamp_ms: int | None = None
    partition: int | None = None
    headers: dict[str, Any] | None = None
    topic: str | None = None
    offset: int | None = None


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode
_encode = msgspec.json.Encoder().encode
_NULL, _EMPTY = b"null", b""


def parse_line(line: bytes) -> LineRecord:
    """Return the record that a line describes; its topic and offset are where it came from and do not count.

    Raises:
        RecordError: Not a JSON object, an unknown field, or no value.
    """
    try:
        parsed = _decode_line(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"not a record line: {error}") from error
    raw = bytes(parsed.value)
    given = (raw != _EMPTY) + (parsed.value_text is not None) + (parsed.value_base64 is not None)
    if given != 1:
        raise RecordError("not a record line: it needs exactly one of value, value_text and value_base64")
    value: bytes | None = raw
    if parsed.value_text is not None:
        value = parsed.value_text.encode()
    elif parsed.value_base64 is not None:
        value = parsed.value_base64
    elif raw == _NULL:
        value = None
    headers = () if not parsed.headers else _parse_headers(parsed.headers)
    return LineRecord(_parse_key(parsed), value, parsed.timestamp_ms, parsed.partition, headers)


def format_batch(batch: RecordBatch) -> Iterator[bytes]:
    """Yield the line of each record of a batch, without a line end."""
    for offset, timestamp_ms, key, value, headers in zip(
        batch.offsets, batch.timestamps, batch.keys, batch.values, batch.headers, strict=True
    ):
        yield format_line(batch.topic, batch.partition, offset, timestamp_ms, key, value, headers)


def format_line(
    topic: str, partition: int, offset: int, timestamp_ms: int, key: bytes | None, value: bytes | None, headers: Headers = ()
) -> bytes:
    """Return the line of a record, without a line end."""
    place = b'{"topic":%b,"partition":%d,"offset":%d,"timestamp_ms":%d,' % (_encode(topic), partition, offset, timestamp_ms)
    return b"%b%b,%b,%b}" % (place, _format_key(key), _format_value(value), b'"headers":' + _format_headers(headers))


def _parse_key(line: _Line) -> bytes | None:
    if line.key_base64 is not None:
        if line.key is not None:
            raise RecordError("not a record line: it has both key and key_base64")
        return line.key_base64
    if line.key is None:
        return None
    return line.key.encode() if isinstance(line.key, str) else _encode(line.key)


def _parse_headers(headers: dict[str, Any]) -> Headers:
    pairs = []
    for name, given in headers.items():
        for one in given if isinstance(given, list) else [given]:
            if isinstance(one, str):
                pairs.append((name, one.encode()))
            elif isinstance(one, dict) and list(one) == ["base64"]:
                pairs.append((name, _base64(name, one["base64"])))
            else:
                raise RecordError(f'not a record line: header {name!r} must be a text, {{"base64": …}} or a list of them')
    return pairs


def _base64(name: str, text: object) -> bytes:
    try:
        return b64decode(text, validate=True)  # type: ignore[arg-type]  # anything but a text raises, and is reported
    except (ValueError, TypeError) as error:
        raise RecordError(f"not a record line: header {name!r} is not base64: {error}") from error


def _format_key(key: bytes | None) -> bytes:
    if key is None:
        return b'"key":null'
    try:
        return b'"key":' + _encode(key.decode())
    except UnicodeDecodeError:
        return b'"key_base64":' + _encode(key)


def _format_value(value: bytes | None) -> bytes:
    if value is None:
        return b'"value":null'
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return b'"value_base64":' + _encode(value)
    try:
        _decode_raw(value)
    except msgspec.DecodeError:
        return b'"value_text":' + _encode(text)
    if value.strip() == _NULL:
        return b'"value_text":' + _encode(text)
    return b'"value":' + (msgspec.json.format(value, indent=-1) if b"\n" in value or b"\r" in value else value)


def _format_headers(headers: Headers) -> bytes:
    if not headers:
        return b"{}"
    by_name: dict[str, list[Any]] = {}
    for name, raw in headers:
        try:
            by_name.setdefault(name, []).append(raw.decode())
        except UnicodeDecodeError:
            by_name.setdefault(name, []).append({"base64": b64encode(raw).decode()})
    return _encode({name: values[0] if len(values) == 1 else values for name, values in by_name.items()})
