"""Every type of PostgreSQL in every mode of Debezium: what is decoded is what `select column::text` said, but for what Debezium loses.

The captures and the texts are made by `tests.cdc.chain.gallery`; nothing in them was edited. What a mode loses is written out in
`carried`: a rule there is a fact about Debezium 3.5, not about this decoder.
"""

import base64
import gzip
import json
import re
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from functools import cache
from pathlib import Path
from struct import pack
from typing import Any
from uuid import UUID

import pytest

from cdc import Beyond, Interval, Op, debezium
from engine.errors import RecordError

FOLDER = Path(__file__).parent / "fixtures" / "gallery"
CAPTURES = sorted(path.name.removesuffix(".jsonl.gz") for path in FOLDER.glob("*.jsonl.gz"))
WITH_SCHEMA = [name for name in CAPTURES if not name.endswith(".json")]
UNKNOWN = {"tsquery", "pg_lsn", "xid8", "txid_snapshot", "pair", "line", "box", "circle", "polygon"}


class Lost:
    """The record does not say it: anything goes."""


LOST = Lost()


def read(name: str) -> str:
    return gzip.decompress((FOLDER / name).read_bytes()).decode()


@cache
def truth() -> Any:
    """Return {"columns": {table: {column: SQL type}}, "rows": {table: [{column: text}]}}."""
    return json.loads(read("truth.json.gz"))


def records(capture: str) -> list[tuple[str, bytes, bytes]]:
    """Return (table, key, value) of a capture."""
    binary = capture.endswith(".avro")
    raw: Callable[[str], bytes] = base64.b64decode if binary else str.encode
    found = map(json.loads, read(f"{capture}.jsonl.gz").splitlines())
    return [(r["topic"].rsplit(".", 1)[1], raw(r["key"]), raw(r["value"])) for r in found]


def codec_of(capture: str, row: Any = dict) -> Any:
    mode, _, encoding = capture.partition(".")
    schemas = {int(k): v for k, v in json.loads(read(f"{mode}.avro.schemas.json.gz")).items()} if encoding == "avro" else None
    return debezium(row, registry=schemas)


def held(type_: str, text: Any) -> Any:
    """Return the Python value of what PostgreSQL says of a value; by the standard library alone."""
    if text is None or isinstance(text, list):
        return text if text is None else [held(type_[:-2], part) for part in text]
    base = type_.split("(")[0].split(" not null")[0]
    match base:
        case "smallint" | "int" | "bigint" | "oid" | "small" | "deeper":
            return int(text)
        case "numeric" | "money" | "cents":
            return Decimal(text)
        case "real" | "double precision":
            return float(text)
        case "boolean":
            return text == "true"
        case "uuid":
            return UUID(text)
        case "bytea":
            return bytes.fromhex(text)
        case "date":
            return Beyond(text) if beyond(text) else date.fromisoformat(text)
        case "time" | "timetz":
            return Beyond(text) if text == "24:00:00" else time.fromisoformat(text.replace("+00", "+00:00"))
        case "timestamp" | "timestamptz" | "moment":
            return Beyond(text) if beyond(text) else datetime.fromisoformat(text.replace("+00", "+00:00"))
        case "bit" | "varbit":
            return text == "1" if type_ == "bit(1)" else int(text or "0", 2)
        case "point":
            return tuple(map(float, text.strip("()").split(",")))
        case "hstore":
            return json.loads(text)
    return Interval(*map(int, text.split())) if base.startswith("interval") else text


def beyond(text: str) -> bool:
    return "infinity" in text or text.endswith("BC") or re.match(r"\d{5}", text) is not None


def carried(mode: str, type_: str, value: Any, *, snapshot: bool) -> Any:
    """Return what a record can say of a value of PostgreSQL; LOST where it says something else that cannot be told from a value."""
    if value is None:
        return None
    base = type_.split("(")[0].split(" not null")[0].removesuffix("[]")
    if type_.endswith("[][]"):
        return [None, None] if value.startswith("{{") else json.loads(value.translate({ord("{"): "[", ord("}"): "]"}))
    if isinstance(value, list):
        if type_ == "bit(3)[]" or (None in value and base in ("mood", "ltree", "tsvector", "small", "label")):
            return None
        if base == "time":  # from java.sql.Time
            value = [part and part.replace(microsecond=part.microsecond // 1000 * 1000) for part in value]
        if base == "timetz":
            value = [part and part.replace(microsecond=0) for part in value]
        return [None if part is None else carried(mode, type_[:-2], part, snapshot=snapshot) for part in value]
    if base in UNKNOWN or "multirange" in base:
        value = value.replace("{1,2,3}", "{1.0,2.0,3.0}") if base == "line" else value
        return LOST if base in ("box", "circle", "polygon") else value.encode()
    if base == "numeric" and value.is_nan() and mode in ("default", "adaptive_micro", "micro", "nano"):
        return None
    if base == "name" and not snapshot and mode not in ("connect", "isostring"):  # include.unknown.datatypes
        return None
    if base == "money" and snapshot and abs(value) > 2**53:
        return LOST  # by way of a double
    if base == "date" and snapshot and isinstance(value, Beyond) and value.text.endswith(" BC"):
        return date.fromisoformat(value.text[:-3])  # java.sql.Date has no era in its text
    if isinstance(value, time) and mode == "connect" and base == "time":
        return value.replace(microsecond=value.microsecond // 1000 * 1000)
    if value == Beyond("24:00:00") and mode == "isostring":
        return time(0)
    if base == "timestamp":
        return carried_timestamp(mode, value)
    if isinstance(value, Interval) and mode in ("default", "isostring", "micro"):
        return value.as_timedelta()
    return value


def carried_timestamp(mode: str, value: Any) -> Any:
    infinite = isinstance(value, Beyond) and "infinity" in value.text
    if mode == "nano" and not infinite and (isinstance(value, Beyond) or not 1678 <= value.year <= 2261):
        return LOST  # 64 bits of ns, wrapped
    if mode == "connect":
        if isinstance(value, Beyond):
            return Beyond(value.text.replace(".999999", ".999"))
        return value.replace(microsecond=value.microsecond // 1000 * 1000)
    return value


def as_declared(mode: str, type_: str, value: Any) -> Any:
    """Return a decoded value of a dict row as the type that the column has, where a mode writes something plainer."""
    if isinstance(value, list) and not type_.endswith("[][]"):
        if type_ in ("small[]", "label[]"):  # an array of a domain is not known to Debezium
            return [int(unpacked(mode, part)) if type_ == "small[]" else unpacked(mode, part).decode() for part in value]
        return [as_declared(mode, type_[:-2], part) for part in value]
    base = type_.split("(")[0].split(" not null")[0]
    if value is None:
        return None
    if base in ("numeric", "money", "cents") and not isinstance(value, Decimal):
        return Decimal(value.replace("NAN", "NaN")) if isinstance(value, str) else Decimal(repr(value))
    if isinstance(value, str) and (base == "bytea" or base in UNKNOWN or "multirange" in base):
        return unpacked(mode, value)
    if base == "hstore":
        return json.loads(value) if isinstance(value, str) else value
    return (value["x"], value["y"]) if base == "point" else value


def unpacked(mode: str, text: str) -> bytes:
    if mode == "isostring":
        return bytes.fromhex(text)
    return base64.b64decode(text, altchars=b"-_") if mode == "adaptive_micro" else base64.b64decode(text)


def same(found: Any, wanted: Any, mode: str, type_: str) -> bool:
    """Return whether two values are the same value of the same type."""
    if isinstance(wanted, list) and isinstance(found, list):
        return len(found) == len(wanted) and all(same(f, w, mode, type_[:-2]) for f, w in zip(found, wanted, strict=True))
    if type(found) is not type(wanted):
        return False
    if isinstance(wanted, Decimal):
        if mode == "isostring":  # as doubles
            return repr(float(found)) == repr(float(wanted))
        return found == wanted or (found.is_nan() and wanted.is_nan())
    if isinstance(wanted, float):
        return pack(">d", found) == pack(">d", wanted) or (found != found and wanted != wanted)
    if type_.startswith(("inet", "cidr")):
        return bool(found == wanted or f"{found}/{128 if ':' in found else 32}" == wanted)
    return bool(found == wanted)


def lost_rows(mode: str) -> dict[str, set[int]]:
    """Return the rows that are refused: their times or lengths are beyond 64 bits, and Debezium wrote something else."""
    ids: dict[str, set[int]] = {"times": set()}
    for row in truth()["rows"]["times"]:
        far = row["c_timestamp"] is not None and row["c_timestamp"].startswith("294276") and mode in ("default", "adaptive_micro", "micro")
        long = row["c_interval"] is not None and row["c_interval"].startswith("2136000000") and mode in ("default", "isostring", "micro")
        if far or long:
            ids["times"].add(row["id"])
    return ids


@pytest.mark.parametrize("capture", WITH_SCHEMA)
def test_every_type_is_what_postgresql_says(capture: str) -> None:
    mode = capture.partition(".")[0]
    codec = codec_of(capture)
    rows: dict[str, dict[int, Any]] = {}
    read_at: dict[tuple[str, int], bool] = {}
    lost = lost_rows(mode)
    for table, key, value in records(capture):
        row_id = codec._keys.columns(key, ())["id"]
        if row_id in lost.get(table, ()):
            with pytest.raises(RecordError, match=r"column 'c_(timestamp|interval)': .* lost"):
                codec.decode(table, key, value, ())
            continue
        change = codec.decode(table, key, value, ())
        rows.setdefault(table, {})[change.after["id"]] = change.after
        read_at[table, change.after["id"]] = change.op is Op.READ
    wrong = []
    for table, columns in truth()["columns"].items():
        told = {row["id"]: row for row in truth()["rows"][table]}
        assert rows[table].keys() == told.keys() - lost.get(table, set())
        missing = {type_ for column, type_ in columns.items() if column not in rows[table][1]}
        assert missing <= UNKNOWN | {"money[]", "varbit(5)[]", "interval[]", "xml[]", "point[]", "small[]", "label[]"} | {
            type_ for type_ in columns.values() if "multirange" in type_
        }, missing
        for row_id, row in rows[table].items():
            for column, type_ in columns.items():
                if column in row:
                    text = told[row_id][column]
                    wanted = carried(mode, type_, held(type_, text), snapshot=read_at[table, row_id])
                    found = as_declared(mode, type_, row[column])
                    if wanted is not LOST and not same(found, wanted, mode, type_):
                        wrong.append(f"{table}.{column} of {row_id}: {found!r}, not {wanted!r}")
    assert not wrong, f"{len(wrong)} are wrong: " + "; ".join(wrong[:20])
