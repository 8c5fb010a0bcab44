"""Totals of `agg.reduce`: what comes out of the store is what went in, and what would not is the fault of its record."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypedDict

import msgspec
import pytest

from engine import agg
from engine.agg.folding import Folding
from engine.errors import RecordError
from engine.testing import TestDriver
from engine.topology import Topology


class Seen(msgspec.Struct, frozen=True):
    """A total of its own."""

    last: Decimal | None = None


class Shade(StrEnum):
    """Text that is not quite a str."""

    DARK = "dark"


class Row(TypedDict):
    """A total that is a dict with names."""

    n: int


def by_number(total: dict[int, int], value: dict[str, Any]) -> dict[int, int]:
    return {**total, value["x"]: total.get(value["x"], 0) + 1}


def largest(total: int, value: dict[str, Any]) -> int:
    return value["x"] if value["x"] > total else total


def ratio(total: float, value: dict[str, Any]) -> float:
    return value["x"]  # type: ignore[no-any-return]


def text(total: str, value: dict[str, Any]) -> str:
    return value["x"]  # type: ignore[no-any-return]


def seen(total: Seen, value: dict[str, Any]) -> Seen:
    return value["x"] if isinstance(value["x"], str) else Seen(value["x"])  # type: ignore[return-value]


def named(total: Row, value: dict[str, Any]) -> Row:
    return {"n": value["x"]}


def maybe(total: str | None, value: dict[str, Any]) -> str | None:
    return value["x"]  # type: ignore[no-any-return]


def totals(function: Callable[[Any, Any], Any], initial: Any, *xs: Any) -> Any:
    """Return the total of values one by one, each time through the store."""
    folding = Folding({"total": agg.reduce(function, initial, merge=lambda a, b: b)}, dict, "test")
    kept: dict[str, Any] = {}
    for x in xs:
        new: dict[str, Any] = {}
        folding.fold(kept.get, new, ["k"], [0], folding.columns([{"x": x}]))
        kept = {"k": folding.codec.decode(folding.codec.encode(new["k"]))}
        assert kept == new
        assert type(kept["k"][0]) in (type(new["k"][0]), float)
    return kept["k"][0]


@pytest.mark.parametrize(
    ("function", "initial", "xs", "expected"),
    [
        (lambda total, value: total + value["x"], 0, (1, 2.5, 2**70, True), 1 + 2.5 + 2**70 + 1),
        (lambda total, value: total + value["x"], 0, (2**63 - 1, 2**63), 2**64 - 1),
        (lambda total, value: total + value["x"], Decimal(0), (Decimal("1.10"), 2), Decimal("3.10")),
        (lambda total, value: total or value["x"], False, (0, 3, 4), 3),
        (lambda total, value: [total, value["x"]], "", ("a", None), [["", "a"], None]),
        (lambda total, value: value["x"], None, (1, "a", [Decimal(1)], None), None),
        (lambda total, value: total | {value["x"]}, set(), (1, "a", Decimal(1), 2**70), {1, "a", 2**70}),
        (lambda total, value: total | {value["x"]}, frozenset(), (2, 2, "b"), frozenset((2, "b"))),
        (lambda total, value: (*total, value["x"]), (), (1, Decimal(2), None), (1, Decimal(2), None)),
        (lambda total, value: {**total, value["x"]: 2**70}, {}, ("a", 5, -1), {"a": 2**70, 5: 2**70, -1: 2**70}),
        (lambda total, value: None if value["x"] is None else [value["x"]], [], (1, None), None),
        (by_number, {}, (7, -7, 7, 2**70), {7: 2, -7: 1, 2**70: 1}),
        (largest, 0, (False, True, 5, 2**70), 2**70),
        (ratio, 0.0, (1, 0.5), 0.5),
        (text, "", ("a", Shade.DARK), "dark"),
        (seen, Seen(), (Decimal(1), Decimal(2)), Seen(Decimal(2))),
        (named, {"n": 0}, (1, 2), {"n": 2}),
        (maybe, None, ("a", None, "b"), "b"),
    ],
)
def test_totals_come_out_of_the_store_as_they_were(function: Callable[[Any, Any], Any], initial: Any, xs: Any, expected: Any) -> None:
    assert totals(function, initial, *xs) == expected


@pytest.mark.parametrize(
    ("function", "initial", "x", "message"),
    [
        (largest, 0, 1.5, "but is declared int"),
        (ratio, 0.0, "a", "but is declared float"),
        (ratio, 0.0, True, "but is declared float"),
        (seen, Seen(), "a", "but is declared Seen"),
        (lambda total, value: value["x"], Decimal(0), 1.5, "but is declared Decimal"),
        (lambda total, value: value["x"], date(2026, 1, 1), datetime(2026, 1, 1, 12, tzinfo=UTC), "but is declared date"),
        (lambda total, value: value["x"], (), [], "is a list, but begins with tuple"),
        (lambda total, value: value["x"], {}, 1, "is a int, but begins with dict"),
        (lambda total, value: value["x"], 0, Seen(), "a Seen is kept by an aggregate"),
        (lambda total, value: value["x"], None, object(), "cannot be stored"),
        (lambda total, value: {"x": value["x"]}, {}, object(), "cannot be stored"),
    ],
)
def test_total_that_would_not_come_back_is_refused(function: Callable[[Any, Any], Any], initial: Any, x: Any, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        totals(function, initial, x)


def test_totals_by_number_are_committed() -> None:
    topology = Topology("app", partitions=1)
    events = topology.source("events", dict, key="k", time="ts")

    @topology.pipeline(events)
    def counts(events: Any) -> Any:
        return events.aggregate(counts=agg.reduce(by_number, {}), seen=agg.reduce(lambda total, value: total | {value["x"]}, set())).to(
            "counts"
        )

    with TestDriver(topology) as driver:
        for x in (3, 4, 3):
            driver.send("events", {"k": "a", "x": x, "ts": 0})
            driver.commit()
        driver.finish()
        assert driver.dead_letters() == []
        assert driver.read("counts")[-1].value["counts"] == {"3": 2, "4": 1}
