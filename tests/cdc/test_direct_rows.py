"""Rows that msgspec makes directly out of JSON or Avro are the same as those made column by column."""

from typing import Any

import pytest
from msgspec import Struct

from cdc import debezium
from cdc.rows import RowType
from tests.cdc.captures import decode, of_topic, schemas


class User(Struct, frozen=True):
    """Text, nulls, a default, and columns left out."""

    id: int
    name: str
    email: str | None = "none"
    active: bool | None = None


class Document(Struct, frozen=True):
    """A long text that is left out where it does not change."""

    id: int
    title: str | None = None
    body: str | None = None


class Account(Struct, frozen=True, rename={"number": "id"}):
    """Another name than the column's."""

    number: int
    owner: str | None = None


class Strict(Struct, frozen=True):
    """A column that is null in some rows."""

    id: int
    email: str


CASES = [(User, "core", ".users"), (Document, "core", ".documents"), (Account, "txn", ".accounts"), (Strict, "core", ".users")]


@pytest.mark.parametrize("kind", ["json", "jsonschema", "avro"])
@pytest.mark.parametrize(("row", "capture", "end"), CASES)
def test_both_ways_give_the_same(monkeypatch: pytest.MonkeyPatch, kind: str, row: Any, capture: str, end: str) -> None:
    name = f"{capture}.{kind}"
    registry = schemas(name) if kind == "avro" else None
    direct = decode(debezium(row, registry=registry), of_topic(name, end))
    assert any(value is not None and value.after is not None for value in direct.values)
    monkeypatch.setattr(RowType, "is_read_directly", lambda *_: False)
    careful = decode(debezium(row, registry=registry), of_topic(name, end))
    assert direct.values == careful.values and direct.skipped == careful.skipped
    assert {number: str(error) for number, error in direct.errors.items()} == {n: str(error) for n, error in careful.errors.items()}
    assert bool(direct.errors) is (row is Strict)


def test_a_row_that_refuses_its_values_is_a_bad_record() -> None:
    class Positive(Struct, frozen=True):
        id: int

        def __post_init__(self) -> None:
            raise ValueError("never")

    decoded = decode(debezium(Positive), of_topic("core.json", ".users"))
    assert "not a valid Positive: never" in str(next(iter(decoded.errors.values())))
