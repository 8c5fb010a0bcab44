"""Rows as bytes: every value that a capture decodes to comes back as it was."""

import math
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from cdc import Change, debezium
from cdc.packing import row_codec
from cdc.values import INFINITY, Interval, Range
from engine.errors import RecordError
from tests.cdc.captures import captures, decode, lines, schemas

ROWS = row_codec(dict)(tuple[dict[str, Any]])


@pytest.mark.parametrize("name", captures("json", "jsonschema", "avro"))
def test_rows_of_every_capture_come_back_with_their_types(name: str) -> None:
    registry = schemas(name) if ".avro" in name else None
    for change in decode(debezium(dict, registry=registry), lines(name)).values:
        if isinstance(change, Change) and change.after is not None:
            assert repr(ROWS.decode(ROWS.encode((change.after,)))[0]) == repr(change.after)


def test_row_of_other_types_comes_back() -> None:
    row = {
        "wide": 2**70,
        "negative": -(2**63) - 1,
        "nan": float("nan"),
        "none": None,
        "range": Range(Decimal("1.50"), None),
        "interval": Interval(1, 2, 3),
        "length": timedelta(microseconds=-1),
        "end": INFINITY,
        "at": datetime(2026, 1, 1, tzinfo=UTC),
        "clock": time(1, 2, 3, 4),
        "id": UUID(int=5),
        "list": [Decimal(1), None, b"\x00"],
    }
    back = ROWS.decode(ROWS.encode((row,)))[0]
    assert math.isnan(back.pop("nan")) and math.isnan(row.pop("nan"))  # type: ignore[arg-type]  # it is one
    assert back == row
    assert list(back) == list(row)


def test_row_with_a_value_of_another_type_is_refused() -> None:
    with pytest.raises(RecordError, match="a complex in a row"):
        ROWS.encode(({"z": 1j},))
