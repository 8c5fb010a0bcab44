"""Columns that are never set to null: their null in an update is a long value that Debezium does not have."""

import json
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from cdc import Op, Unwrapped, debezium
from engine.errors import ConfigError

KEY = b'{"id":1}'


class Doc(Struct, frozen=True):
    id: int
    rates: list[int] | None = None
    note: str | None = None


def envelope(op: str, after: Any, before: Any = None) -> bytes:
    source = {"lsn": 10, "sequence": '["9","10"]', "ts_ms": 1, "snapshot": "false", "table": "docs"}
    return json.dumps({"op": op, "before": before, "after": after, "source": source, "ts_ms": 2}).encode()


@pytest.mark.parametrize("row_type", [dict, Doc])
@pytest.mark.parametrize(
    ("op", "before", "headers", "unavailable"),
    [
        ("u", None, [], ("rates",)),
        ("u", {"id": 1, "rates": [1], "note": None}, [], ()),  # REPLICA IDENTITY FULL: it has been set to null
        ("c", None, [], ()),
        ("r", None, [], ()),
        ("c", None, [("__debezium.oldkey", b'{"id":2}')], ("rates",)),
    ],
)
def test_null_is_unavailable_only_in_a_new_image_of_an_old_row(
    row_type: Any, op: str, before: Any, headers: Any, unavailable: tuple[str, ...]
) -> None:
    codec: Any = debezium(row_type, never_set_null=["rates"])
    change = codec.decode("docs", KEY, envelope(op, {"id": 1, "rates": None, "note": None}, before), headers)
    assert change.unavailable == unavailable
    assert msgspec.to_builtins(change.after) == {"id": 1, "rates": None, "note": None}
    change = codec.decode("docs", KEY, envelope(op, {"id": 1, "rates": [5], "note": None}, before), headers)
    assert (change.unavailable, msgspec.to_builtins(change.after)["rates"]) == ((), [5])


def test_unwrapped_rows_too() -> None:
    codec: Any = debezium(Doc, unwrapped=Unwrapped(add_fields="op"), never_set_null=["rates"])
    found = [codec.decode("docs", KEY, json.dumps({"id": 1, "rates": None, "__op": op}).encode(), []) for op in "ruc"]
    assert [(change.op, change.unavailable) for change in found] == [(Op.READ, ()), (Op.UPDATE, ("rates",)), (Op.CREATE, ())]


class Firm(Struct, frozen=True):
    id: int
    rates: list[int]


@pytest.mark.parametrize(
    ("row_type", "columns", "words"),
    [
        (Doc, ["rate"], "Doc has no column 'rate'; it has id, note, rates"),
        (Firm, ["rates"], "'rates' of Firm may be missing for a while; declare it | None"),
        (Doc, "rates", "give the columns as a list"),
    ],
)
def test_what_cannot_be_is_a_config_error(row_type: Any, columns: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        debezium(row_type, never_set_null=columns)
    assert words in str(caught.value)
