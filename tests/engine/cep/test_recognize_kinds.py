"""A condition that can give no boolean is refused where it stands; what is not known, and NULL, is let through and fulfils nothing."""

import pytest

from engine import ConfigError, Sink, Stream, Struct, cep
from engine.testing import TestDriver
from engine.topology import Topology


class Order(Struct, frozen=True):
    user_id: str
    cents: int
    ts: int
    paid: bool = False
    note: str | None = None
    maybe: bool | None = None


HEAD = "PARTITION BY user_id ORDER BY ts MEASURES A.cents AS cents PATTERN (A) DEFINE A AS "


def topology_of(condition: str, value_type: type = Order) -> Topology:
    topology = Topology("kinds", partitions=1)
    orders = topology.source("orders", value_type, key="user_id", time="ts")

    @topology.pipeline(orders)
    def work(orders: Stream[str, Order]) -> Sink:
        return orders.detect(cep.match_recognize(HEAD + condition)).to("out")

    return topology


@pytest.mark.parametrize(
    ("condition", "column", "kind"),
    [
        ("5", 0, "a number"),
        ("'yes'", 0, "text"),
        ("cents + 1", 0, "a number"),
        ("(cents * 2)", 1, "a number"),
        ("cents > 1 AND cents", 14, "a number"),
        ("NOT 'x'", 4, "text"),
        ("paid OR (paid AND note || 'x')", 18, "text"),
        ("CASE WHEN cents THEN TRUE END", 10, "a number"),
        ("CASE WHEN cents > 1 THEN 1 ELSE 2 END", 10, "a number"),
        ("COALESCE(cents, 0)", 9, "a number"),
        ("COUNT(*)", 0, "a number"),
        ("MAX(A.note)", 4, "text"),
        ("PREV(A.cents)", 5, "a number"),
        ("CAST(paid AS INT)", 5, "a number"),
        ("note", 0, "text"),
        ("A.cents", 0, "a number"),
        ("timestamp_ms", 0, "a number"),
        ("CLASSIFIER()", 0, "text"),
    ],
)
def test_condition_that_is_none_is_refused_with_line_and_column(condition: str, column: int, kind: str) -> None:
    with pytest.raises(ConfigError, match=f"{kind}, and a condition says") as error:
        topology_of(condition)
    assert f"line 1, column {len(HEAD) + column + 1}:" in str(error.value) or "(" in condition or "CASE" in condition


def test_condition_whose_form_tells_is_refused_before_there_is_a_stream() -> None:
    with pytest.raises(ConfigError, match=r"line 1, column .*: cents \+ 1 is a number"):
        cep.match_recognize(HEAD + "cents + 1")


@pytest.mark.parametrize(
    ("condition", "fits"),
    [
        ("paid", ["p"]),
        ("NOT paid", ["n", "q"]),
        ("maybe", ["p"]),
        ("NOT maybe", ["q"]),
        ("NULL", []),
        ("COALESCE(maybe, FALSE)", ["p"]),
        ("CASE WHEN cents > 1 THEN paid ELSE NULL END", ["p"]),
        ("note = 'x'", ["n"]),
        ("NOT note = 'x'", []),
        ("LAST(A.paid)", ["p"]),
        ("CAST(note AS BOOLEAN)", []),
    ],
)
def test_condition_that_may_be_one_is_taken_and_unknown_is_not_fulfilled(condition: str, fits: list[str]) -> None:
    orders = {
        "p": Order("p", 2, 1_000, paid=True, maybe=True),
        "n": Order("n", 2, 2_000, note="x" if "CAST" not in condition else None),
        "q": Order("q", 2, 3_000, maybe=False),
    }
    with TestDriver(topology_of(condition)) as driver:
        for order in orders.values():
            driver.send("orders", order)
        driver.finish()
        assert [record.key for record in driver.read("out")] == fits


def test_values_without_declared_types_are_let_through() -> None:
    with TestDriver(topology_of("flag AND cents > 1", dict)) as driver:
        for user, flag in (("a", True), ("b", None), ("c", False)):
            driver.send("orders", {"user_id": user, "ts": 1_000, "cents": 5, "flag": flag})
        driver.finish()
        assert [record.key for record in driver.read("out")] == ["a"]


@pytest.mark.parametrize(
    ("clause", "reason"),
    [
        ("MEASURES A.ts AS t PATTERN (A) DEFINE A AS cents > 'x'", "compares a number (cents) with text ('x')"),
        ("MEASURES A.ts AS t PATTERN (A) DEFINE A AS note = cents + 1", "compares text (note) with a number (cents + 1)"),
        ("MEASURES A.ts AS t PATTERN (A) DEFINE A AS cents BETWEEN 1 AND 'b'", "with text ('b')"),
        ("MEASURES A.ts AS t PATTERN (A) DEFINE A AS cents IN (1, 'b')", "with text ('b')"),
        ("MEASURES A.ts AS t PATTERN (A) DEFINE A AS cents LIKE '1%'", "wants text, and cents is a number"),
        ("MEASURES A.ts AS t PATTERN (A B) DEFINE B AS B.cents > AVG(A.note)", "AVG(A.note) wants a number, and A.note is text"),
        ("MEASURES A.note + 1 AS t PATTERN (A)", "A.note + 1 wants a number, and A.note is text"),
        ("MEASURES SUM(A.note) AS t PATTERN (A)", "SUM(A.note) wants a number, and A.note is text"),
        ("MEASURES LOWER(A.cents) AS t PATTERN (A)", "wants text, and A.cents is a number"),
        ("MEASURES A.ts AS t PATTERN (A B) DEFINE B AS B.note > PREV(B.cents)", "compares text (B.note) with a number"),
    ],
)
def test_operator_that_can_never_be_evaluated_is_refused_with_its_place(clause: str, reason: str) -> None:
    topology = Topology("kinds", partitions=1)
    orders = topology.source("orders", Order, key="user_id", time="ts")
    with pytest.raises(ConfigError, match="line 1, column") as error:

        @topology.pipeline(orders)
        def work(orders: Stream[str, Order]) -> Sink:
            return orders.detect(cep.match_recognize(f"PARTITION BY user_id ORDER BY ts {clause}")).to("out")

    assert reason in str(error.value)


def test_literals_alone_tell_it_before_there_is_a_stream() -> None:
    with pytest.raises(ConfigError, match="1 \\+ 'x' wants a number, and 'x' is text"):
        cep.match_recognize(HEAD + "1 + 'x' > cents")


@pytest.mark.parametrize(
    "condition", ["cents = NULL", "paid = 1", "cents > 1.5", "note IN ('a', NULL)", "COALESCE(note, 'x') = 'x'", "paid < maybe"]
)
def test_operator_that_can_be_evaluated_is_taken(condition: str) -> None:
    topology_of(condition)


@pytest.mark.parametrize(
    ("clause", "error"),
    [
        ("MEASURES A.n AS n PATTERN (A) DEFINE A AS n > 1", "condition of A: '>' not supported"),
        ("MEASURES A.n AS n PATTERN (A) DEFINE A AS kind", "kind is 'x', and a condition says true or false"),
        ("MEASURES A.n AS n PATTERN (A B?) DEFINE A AS TRUE, B AS B.n > A.n", None),
        ("MEASURES -A.kind AS n PATTERN (A)", "measure n: bad operand type"),
        ("MEASURES SUM(A.kind) AS n PATTERN (A)", "an aggregate over the rows of a match: unsupported operand"),
    ],
)
def test_value_of_a_wrong_kind_in_a_dict_is_a_dead_letter_that_names_the_expression(clause: str, error: str | None) -> None:
    topology = Topology("kinds", partitions=1)
    orders = topology.source("orders", dict, key="user_id", time="ts")

    @topology.pipeline(orders)
    def work(orders: Stream[str, dict[str, object]]) -> Sink:
        return orders.detect(cep.match_recognize(f"PARTITION BY user_id ORDER BY ts {clause}")).to("out")

    with TestDriver(topology) as driver:
        driver.send("orders", {"user_id": "u", "ts": 1_000, "kind": "x", "n": "text"})
        driver.finish()
        letters = [dict(letter.headers)["error"].decode() for letter in driver.read("kinds-dlq")]
    assert letters == [] if error is None else error in letters[0]
