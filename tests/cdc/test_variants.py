"""Columns that no capture has, written as Debezium's documentation says; what the database held is worked out by hand.

Source: Debezium documentation, "Debezium connector for PostgreSQL", section "Data type mappings".
"""

import base64
import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from cdc import debezium
from cdc.packing import row_codec
from cdc.values import Beyond, Interval
from engine.errors import RecordError

DECIMAL = "org.apache.kafka.connect.data.Decimal"


def unscaled(number: int) -> str:
    return base64.b64encode(number.to_bytes((number.bit_length() + 8) // 8, "big", signed=True)).decode()


def naive(*parts: int) -> datetime:
    return datetime(*parts)  # type: ignore[arg-type]  # noqa: DTZ001  # a timestamp without time zone


def of(kind: str, meaning: str | None = None, **more: Any) -> dict[str, Any]:
    return {"type": kind, "optional": True, **({"name": meaning} if meaning else {}), **more}


def array(kind: str, meaning: str | None = None, **more: Any) -> dict[str, Any]:
    return of("array", items=of(kind, meaning, **more))


SPARSE = of(
    "struct",
    "io.debezium.data.SparseDoubleVector",
    fields=[
        {**of("int16"), "field": "dimensions"},
        {**of("map", keys=of("int16"), values=of("double")), "field": "vector"},
    ],
)
GEOMETRY = of("struct", "io.debezium.data.geometry.Geometry", fields=[{**of("bytes"), "field": "wkb"}, {**of("int32"), "field": "srid"}])

CASES: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "numeric(20,0)": (of("bytes", DECIMAL, parameters={"scale": "0"}), unscaled(-(10**20 - 1)), Decimal("-99999999999999999999")),
    "numeric(4,3) zero": (of("bytes", DECIMAL, parameters={"scale": "3"}), "AA==", Decimal("0.000")),
    "money": (of("bytes", DECIMAL, parameters={"scale": "2"}), unscaled(-12345), Decimal("-123.45")),
    "numeric[]": (array("bytes", DECIMAL, parameters={"scale": "2"}), [unscaled(150), None], [Decimal("1.50"), None]),
    "date[]": (array("int32", "io.debezium.time.Date"), [0, None, -1], [date(1970, 1, 1), None, date(1969, 12, 31)]),
    "timestamptz[]": (
        array("string", "io.debezium.time.ZonedTimestamp"), ["2026-01-02T03:04:05.6Z"],
        [datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)],
    ),
    "timestamp[]": (array("int64", "io.debezium.time.MicroTimestamp"), [1, None], [naive(1970, 1, 1, 0, 0, 0, 1), None]),
    "uuid[]": (array("string", "io.debezium.data.Uuid"), [str(UUID(int=9))], [UUID(int=9)]),
    "bytea[]": (array("bytes"), ["AQI=", None], [b"\x01\x02", None]),
    "interval[]": (array("int64", "io.debezium.time.MicroDuration"), [-1], [timedelta(microseconds=-1)]),
    "bit(3)[]": (array("bytes", "io.debezium.data.Bits", parameters={"length": "3"}), ["BQ=="], [5]),
    "bit(10)": (of("bytes", "io.debezium.data.Bits", parameters={"length": "10"}), base64.b64encode(b"\x01\x02").decode(), 513),
    "int[][]": (of("array", items=of("array", items=of("int32"))), [[1, None], None], [[1, None], None]),
    "enum[]": (array("string", "io.debezium.data.Enum", parameters={"allowed": "a,b"}), ["a", None], ["a", None]),
    "geometry": (GEOMETRY, {"wkb": "AQID", "srid": 4326}, {"wkb": b"\x01\x02\x03", "srid": 4326}),
    "hstore as a map": (of("map", keys=of("string"), values=of("string")), {"a": "1", "b": None}, {"a": "1", "b": None}),
    "hstore as JSON": (of("string", "io.debezium.data.Json"), '{"a":"1"}', '{"a":"1"}'),
    "halfvec": (of("array", "io.debezium.data.FloatVector", items=of("float")), [1.5], [1.5]),
    "sparsevec": (SPARSE, {"dimensions": 5, "vector": [[1, 1.5], [3, 2.5]]}, {"dimensions": 5, "vector": {1: 1.5, 3: 2.5}}),
    "timestamp in nanoseconds": (of("int64", "io.debezium.time.NanoTimestamp"), 10**18 + 1_999, naive(2001, 9, 9, 1, 46, 40, 1)),
    "time in nanoseconds": (of("int64", "io.debezium.time.NanoTime"), 3_600_000_001_000, time(1, 0, 0, 1)),
    "time 24:00": (of("int64", "io.debezium.time.MicroTime"), 86_400_000_000, Beyond("24:00:00")),
    "timetz": (of("string", "io.debezium.time.ZonedTime"), "10:11:12.5Z", time(10, 11, 12, 500_000, tzinfo=UTC)),
    "interval with mixed signs": (of("string", "io.debezium.time.Interval"), "P-1Y-2M3DT-4H5M-6.789S", Interval(-14, 3, -14_106_789_000)),
    "timestamp of connect mode": (
        of("int64", "org.apache.kafka.connect.data.Timestamp"), -1, naive(1969, 12, 31, 23, 59, 59, 999_000),
    ),
    "date as ISO": (of("string", "io.debezium.time.IsoDate"), "2026-02-28Z", date(2026, 2, 28)),
    "numeric of 20,000 digits": (
        of("bytes", DECIMAL, parameters={"scale": "1000"}), unscaled(10**20_000 + 7), Decimal("1" + "0" * 19_000 + "." + "0" * 999 + "7"),
    ),
    "bigint": (of("int64"), 2**63 - 1, 2**63 - 1),
    "double": (of("double"), "-Infinity", float("-inf")),
}  # fmt: skip


def record(column: dict[str, Any], value: Any, op: str = "c") -> bytes:
    row = {"type": "struct", "optional": True, "field": "after", "fields": [{"type": "int32", "field": "id"}, {**column, "field": "x"}]}
    schema = {"type": "struct", "fields": [row, {"type": "struct", "fields": [], "field": "source"}, {"type": "string", "field": "op"}]}
    source = {"sequence": '["4","5"]', "lsn": 5, "snapshot": "false", "ts_ms": 1}
    payload = {"before": None, "after": {"id": 1, "x": value}, "source": source, "op": op, "ts_ms": 2}
    return json.dumps({"schema": schema, "payload": payload}, separators=(",", ":")).encode()


@pytest.mark.parametrize("name", CASES)
def test_column_is_what_the_database_held(name: str) -> None:
    column, written, held = CASES[name]
    change = debezium(dict).decode("t", b'{"id":1}', record(column, written), ())
    assert change is not None and change.after is not None
    assert repr(change.after["x"]) == repr(held)
    rows = row_codec(dict)(tuple[dict[str, Any]])
    assert repr(rows.decode(rows.encode((change.after,)))[0]["x"]) == repr(held), "as a table keeps it"


@pytest.mark.parametrize("name", CASES)
def test_column_may_be_null(name: str) -> None:
    change = debezium(dict).decode("t", b'{"id":1}', record(CASES[name][0], None), ())
    assert change is not None and change.after == {"id": 1, "x": None}


@pytest.mark.parametrize(
    ("column", "written"),
    [
        (of("map", keys=of("string"), values=of("string")), 5),
        (array("int32", "io.debezium.time.Date"), 5),
        (GEOMETRY, "text"),
        (of("bytes", DECIMAL, parameters={"scale": "2"}), "§"),
        (of("string", "io.debezium.data.Uuid"), "not one"),
    ],
)
def test_value_that_its_schema_does_not_allow_is_refused_and_named(column: dict[str, Any], written: Any) -> None:
    with pytest.raises(RecordError, match="column 'x'"):
        debezium(dict).decode("t", b'{"id":1}', record(column, written), ())
