"""Expressions of MATCH_RECOGNIZE: what SQL says of values and of NULL."""

from typing import Any

import pytest

from engine import Struct, cep
from engine.cep.matcher import Found
from engine.cep.recognize.matcher import END


class Customer(Struct, frozen=True):
    country: str | None


class Order(Struct, frozen=True):
    user_id: str
    amount: int
    ratio: float
    note: str | None
    paid: bool
    customer: Customer
    ts: int
    weight: int | None = None


ORDER = Order("ann", 7, 2.5, None, True, Customer("DE"), 90_000)


def rows_of(sql: str, values: list[Any], value_type: Any) -> list[dict[str, Any]]:
    matcher, found = cep.match_recognize(sql).matcher(value_type, max_partials=100, on_too_many="drop_oldest"), Found()
    matcher.run(None, "k", [(90_000, value) for value in values], END, found)
    return [recognized.row for recognized in found.matches]  # type: ignore[attr-defined]  # rows, not Match records


def value_of(expression: str) -> Any:
    """Evaluate an expression as a measure of a match of one order."""
    (row,) = rows_of(f"PARTITION BY user_id ORDER BY ts MEASURES {expression} AS x PATTERN (A B?) DEFINE B AS FALSE", [ORDER], Order)
    return row["x"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("amount + 2 * 3 - 1", 12),
        ("-amount / 2", -3.5),
        ("amount / 0", None),
        ("(0 - amount) % 4", -3),
        ("ratio % 0", None),
        ("7.5 % 2", 1.5),
        ("POWER(amount, 2) + SQRT(4)", 51.0),
        ("ABS(-3) + FLOOR(ratio) + CEIL(ratio)", 8),
        ("ROUND(ratio)", 3.0),
        ("ROUND(2.345, 2)", 2.35),
        ("ROUND(-ratio)", -3.0),
        ("GREATEST(amount, 3, 9) - LEAST(amount, 3)", 6),
        ("amount + weight", None),
        ("user_id || '-' || amount || paid", "ann-7true"),
        ("CONCAT(user_id, 1)", "ann1"),
        ("UPPER(user_id) || LOWER('X') || TRIM('  y ')", "ANNxy"),
        ("LENGTH(user_id)", 3),
        ("SUBSTRING(user_id, 2)", "nn"),
        ("SUBSTRING(user_id, 1, 2)", "an"),
        ("'it''s'", "it's"),
        ("amount = 7 AND paid", True),
        ("amount <> 7 OR ratio <= 2.5", True),
        ("NOT paid", False),
        ("note = 'x'", None),
        ("note = 'x' AND amount = 8", False),
        ("note = 'x' OR amount = 7", True),
        ("note = 'x' OR amount = 8", None),
        ("NOT note = 'x'", None),
        ("note IS NULL AND user_id IS NOT NULL", True),
        ("note IS DISTINCT FROM 'x'", True),
        ("note IS NOT DISTINCT FROM NULL", True),
        ("paid IS TRUE", True),
        ("amount BETWEEN 7 AND 8", True),
        ("amount NOT BETWEEN 7 AND 8", False),
        ("amount BETWEEN weight AND 6", False),
        ("amount IN (1, 7)", True),
        ("amount IN (1, NULL)", None),
        ("amount NOT IN (1, 2)", True),
        ("weight IN (1)", None),
        ("user_id LIKE 'a_%'", True),
        ("user_id NOT LIKE 'b%'", True),
        ("user_id ILIKE 'ANN'", True),
        ("user_id LIKE 'a.n'", False),
        ("CASE WHEN amount > 9 THEN 'big' WHEN note = 'x' THEN 'noted' ELSE 'small' END", "small"),
        ("CASE amount WHEN 7 THEN 'seven' END", "seven"),
        ("CASE amount WHEN 8 THEN 'eight' END", None),
        ("IF(paid, 1, 2)", 1),
        ("COALESCE(note, user_id)", "ann"),
        ("NULLIF(amount, 7)", None),
        ("NULLIF(amount, note)", 7),
        ("CAST('12' AS INT) + CAST(ratio AS BIGINT)", 14),
        ("CAST(amount AS DOUBLE)", 7.0),
        ("amount::VARCHAR", "7"),
        ("CAST('true' AS BOOLEAN)", True),
        ("ts - INTERVAL '1' MINUTE", 30_000),
        ("timestamp_ms", 90_000),
        ("customer.country || A.customer.country", "DEDE"),
        ("B.amount", None),
        ("SUM(B.amount)", None),
        ("COUNT(B.amount)", 0),
        ("AVG(B.amount)", None),
        ("ARRAY_AGG(B.amount)", None),
        ("COUNT(note)", 0),
        ("COUNT(A.*) + COUNT(*)", 2),
        ("1e2", 100.0),
    ],
)
def test_expression_gives_what_sql_says(expression: str, expected: Any) -> None:
    found = value_of(expression)
    assert found == expected
    assert type(found) is type(expected)


def test_aggregates_over_the_rows_of_a_match() -> None:
    orders = [Order("ann", amount, 0.5, None, True, Customer(None), 90_000) for amount in (3, 5, 5)]
    (row,) = rows_of(
        """PARTITION BY user_id ORDER BY ts
        MEASURES SUM(amount) AS total, MIN(amount) AS low, MAX(amount) AS high, AVG(A.amount) AS mean, ARRAY_AGG(amount * 2) AS every,
                 COUNT(DISTINCT amount) AS different, SUM(CASE WHEN amount > 3 THEN 1 ELSE 0 END) AS large
        PATTERN (A+)""",
        orders,
        Order,
    )
    expected = {"user_id": "ann", "total": 13, "low": 3, "high": 5, "mean": 13 / 3, "every": [6, 10, 10], "different": 2, "large": 2}
    assert row == expected


def test_running_and_final_measures_of_all_rows() -> None:
    orders = [Order("ann", amount, 0.5, None, True, Customer(None), 90_000) for amount in (3, 5, 9)]
    rows = rows_of(
        """PARTITION BY user_id ORDER BY ts
        MEASURES SUM(A.amount) AS a, RUNNING SUM(A.amount) AS b, FINAL  SUM(A.amount) AS c, FINAL LAST(A.amount) - A.amount AS d,
                 PREV(FINAL FIRST(amount)) AS e, FINAL FIRST(amount, 1) AS f
        ALL ROWS PER MATCH PATTERN (A+)""",
        orders,
        Order,
    )
    assert [(row["amount"], *(row[name] for name in "abcdef")) for row in rows] == [
        (3, 3, 3, 17, 6, None, 5),
        (5, 8, 8, 17, 4, None, 5),
        (9, 17, 17, 17, 0, None, 5),
    ]


def test_values_without_declared_fields_have_null_where_a_field_is_missing() -> None:
    sql = "PARTITION BY user ORDER BY timestamp_ms MEASURES A.note AS note, A.place.city AS city, timestamp_ms AS at PATTERN (A)"
    values = [{"user": "ann", "place": {"city": "Ulm"}}, {"user": "ann", "note": "x", "place": None}]
    for value_type in (dict, dict[str, Any], Any):
        assert rows_of(sql, values, value_type) == [
            {"user": "ann", "note": None, "city": "Ulm", "at": 90_000},
            {"user": "ann", "note": "x", "city": None, "at": 90_000},
        ]
    everything = "PARTITION BY user ORDER BY timestamp_ms MEASURES CLASSIFIER() AS what ALL ROWS PER MATCH PATTERN (A)"
    assert rows_of(everything, values[:1], dict) == [{"user": "ann", "place": {"city": "Ulm"}, "what": "A"}]


def test_classifier_and_match_number_in_conditions() -> None:
    orders = [Order("ann", amount, 0.5, None, True, Customer(None), 90_000) for amount in (1, 2, 3, 4)]
    rows = rows_of(
        """PARTITION BY user_id ORDER BY ts MEASURES CLASSIFIER() AS what, LAST(CLASSIFIER(), 1) AS before, amount AS amount
        PATTERN ((A | B) C) SUBSET U = (A, B)
        DEFINE A AS MATCH_NUMBER() = 2 AND CLASSIFIER() = 'A', C AS CLASSIFIER(U) IN ('A', 'B') AND CLASSIFIER() = 'C'""",
        orders,
        Order,
    )
    assert [(row["what"], row["before"], row["amount"]) for row in rows] == [("C", "B", 2), ("C", "A", 4)]
