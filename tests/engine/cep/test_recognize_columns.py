"""Conditions as columns: what they give for many records is what the same condition gives for each, errors included."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import ConfigError, Struct
from engine.cep.recognize.clause import Span
from engine.cep.recognize.columns import Records
from engine.cep.recognize.expressions import Compiler, Names
from engine.cep.recognize.lexer import Clause
from engine.cep.recognize.recognizer import values_getter
from engine.errors import RecordError
from tests.effort import examples


class Row(Struct, frozen=True):
    a: Any
    b: Any
    s: Any = None


def compiler(sql: str) -> Compiler:
    return Compiler(Clause(sql), Names(("X",), {}), values_getter(Row))


def by_row(sql: str, rows: list[Row]) -> list[Any]:
    get = compiler(sql).compile(Span(0, len(sql)), own=0).get
    return [get(row) for row in rows]  # type: ignore[arg-type]  # a plain condition gets the value in the place of a view


def by_column(sql: str, rows: list[Row]) -> list[Any]:
    return list(compiler(sql).column(Span(0, len(sql)), own=0)(Records(rows)))


terms = st.sampled_from(["a", "b", "s", "X.a", "1", "2.5", "'x'", "NULL", "a + 1", "10 / b", "LENGTH(s)"])
comparisons = st.builds("{} {} {}".format, terms, st.sampled_from(["=", "<>", "<", "<=", ">", ">="]), terms)
leaves = st.one_of(
    comparisons,
    st.builds("{} BETWEEN {} AND {}".format, terms, terms, terms),
    st.builds("{} NOT BETWEEN 0 AND 2".format, terms),
    st.sampled_from(["s LIKE 'x%'", "a IN (1, 2, NULL)", "a IS NULL", "s IS NOT NULL", "TRUE", "a", "COALESCE(a, b) > 1"]),
)
conditions = st.recursive(
    leaves, lambda inner: st.one_of(st.builds("({} AND {})".format, inner, inner), st.builds("({} OR {})".format, inner, inner),
                                    st.builds("NOT ({})".format, inner)), max_leaves=6,
)  # fmt: skip
values = st.sampled_from([None, 0, 1, 2, 3, True, False, "x", "xy", 2.5])
numbers = st.sampled_from([None, 0, 1, 2, 3])
rows = st.lists(
    st.one_of(st.builds(Row, numbers, numbers, st.sampled_from([None, "x", "y"])), st.builds(Row, values, values, values)), max_size=6
)


@settings(max_examples=examples(150), deadline=None)
@given(conditions, rows)
def test_column_gives_what_each_row_gives(sql: str, rows: list[Row]) -> None:
    try:
        compiler(sql).compile(Span(0, len(sql)), own=0)
    except ConfigError:  # a comparison of kinds that never compare
        return
    found = []
    for way in (by_row, by_column):
        try:
            found.append(way(sql, rows))
        except (TypeError, ValueError, RecordError):
            found.append(["raised"])
    assert found[0] == found[1]
    assert list(map(type, found[0])) == list(map(type, found[1]))


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("a > 1", [False, True, None]),
        ("1 < a", [False, True, None]),
        ("a > 1 AND b > 0", [False, True, None]),
        ("a > 1 OR b > 0", [True, True, None]),
        ("a BETWEEN 1 AND 5", [True, True, None]),
        ("NOT (a > 1 AND b > 0)", [True, False, None]),
    ],
)
def test_column_knows_unknown(sql: str, expected: list[Any]) -> None:
    assert by_column(sql, [Row(1, 1), Row(2, 3), Row(None, None)]) == expected


def test_column_looks_at_the_right_side_only_where_the_left_one_leaves_it_open() -> None:
    rows = [Row(1, "x"), Row(5, 7)]
    assert by_column("a > 2 AND b > 3", rows) == [False, True]
    assert by_column("a < 2 OR b > 3", rows) == [True, True]
    with pytest.raises(TypeError):
        by_column("b > 3 AND a > 2", rows)
    assert by_column("a > 2 AND b > 3", []) == []
