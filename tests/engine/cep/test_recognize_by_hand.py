"""MATCH_RECOGNIZE by the rules of the standard, as Oracle, Trino and Flink document them: clauses whose rows were worked out by hand."""

from typing import Any

import pytest

from engine import Sink, Stream, Struct, cep
from engine.testing import TestDriver
from engine.topology import Topology


class Tick(Struct, frozen=True):
    sym: str
    ts: int
    price: int
    kind: str = ""
    qty: int | None = None


def prices(*found: int) -> list[Tick]:
    """Return ticks of A, a second apart."""
    return [Tick("A", place * 1_000, price) for place, price in enumerate(found)]


def rows_of(clause: str, ticks: list[Tick]) -> list[dict[str, Any]]:
    topology = Topology("by-hand", partitions=1)
    source = topology.source("ticks", Tick, key="sym", time="ts")

    @topology.pipeline(source)
    def found(ticks: Stream[str, Tick]) -> Sink:
        return ticks.detect(cep.match_recognize("PARTITION BY sym ORDER BY ts " + clause)).to("found")

    with TestDriver(topology) as driver:
        for tick in ticks:
            driver.send("ticks", tick)
        driver.finish()
        return [record.value for record in driver.read("found")]


@pytest.mark.parametrize(
    ("clause", "ticks", "expected"),
    [
        pytest.param(
            "MEASURES STRT.ts AS s, LAST(DOWN.ts) AS b, LAST(UP.ts) AS e, FINAL COUNT(*) AS n ONE ROW PER MATCH "
            "AFTER MATCH SKIP TO LAST UP "
            "PATTERN (STRT DOWN+ UP+) "
            "DEFINE DOWN AS DOWN.price < PREV(DOWN.price), UP AS UP.price > PREV(UP.price)",
            prices(10, 8, 6, 7, 9, 9, 5, 4, 8, 3),
            [{"sym": "A", "s": 0, "b": 2000, "e": 4000, "n": 5}, {"sym": "A", "s": 5000, "b": 7000, "e": 8000, "n": 4}],
            id="V",
        ),
        pytest.param(
            "MEASURES FIRST(U.price) AS f, LAST(U.price) AS l, AVG(U.price) AS a, COUNT(U.*) AS n, CLASSIFIER(U) AS cu "
            "PATTERN (A B C) SUBSET U = (A, C) "
            "DEFINE A AS price=1, B AS price=2, C AS price=3",
            prices(1, 2, 3),
            [{"sym": "A", "f": 1, "l": 3, "a": 2.0, "n": 2, "cu": "C"}],
            id="subset",
        ),
        pytest.param(
            "MEASURES COUNT(A.*) AS a, COUNT(B.*) AS b PATTERN (A+? B+) DEFINE A AS price>0, B AS price>5",
            prices(1, 6, 7, 0),
            [{"sym": "A", "a": 1, "b": 2}],
            id="reluctant",
        ),
        pytest.param(
            "MEASURES COUNT(A.*) AS a, COUNT(B.*) AS b PATTERN (A{2,3}? B) DEFINE A AS price>0, B AS price>0",
            prices(1, 1, 1, 1, 1),
            [{"sym": "A", "a": 2, "b": 1}],
            id="reluct range",
        ),
        pytest.param(
            "MEASURES CLASSIFIER() AS c, A.ts AS a, B.ts AS b, C.ts AS cc "
            "PATTERN (PERMUTE(A,B,C)) "
            "DEFINE A AS price=1, B AS price=2, C AS price=3",
            prices(3, 1, 2),
            [{"sym": "A", "c": "B", "a": 1000, "b": 2000, "cc": 0}],
            id="permute",
        ),
        pytest.param("MEASURES A.price AS p PATTERN (^A) DEFINE A AS price>0", prices(5, 6, 7), [{"sym": "A", "p": 5}], id="anchor"),
        pytest.param(
            "MEASURES A.price AS p, LAST(B.price) AS q AFTER MATCH SKIP TO NEXT ROW PATTERN (A B) DEFINE B AS B.price > A.price",
            prices(1, 2, 3, 1),
            [{"sym": "A", "p": 1, "q": 2}, {"sym": "A", "p": 2, "q": 3}],
            id="to next",
        ),
        pytest.param(
            "MEASURES A.price AS p, COUNT(*) AS n AFTER MATCH SKIP TO FIRST B PATTERN (A B+) DEFINE B AS B.price > PREV(B.price)",
            prices(1, 2, 3, 1),
            [{"sym": "A", "p": 1, "n": 3}, {"sym": "A", "p": 2, "n": 2}],
            id="to first",
        ),
        pytest.param(
            "MEASURES CLASSIFIER() AS c PATTERN (A | B) DEFINE A AS price>5, B AS price>0",
            prices(1, 6),
            [{"sym": "A", "c": "B"}, {"sym": "A", "c": "A"}],
            id="alt",
        ),
        pytest.param(
            "MEASURES COUNT(*) AS n, CLASSIFIER() AS c PATTERN ((A B | A) C?) DEFINE A AS price=1, B AS price=2, C AS price=3",
            prices(1, 2, 1, 3),
            [{"sym": "A", "n": 2, "c": "B"}, {"sym": "A", "n": 2, "c": "C"}],
            id="alt2",
        ),
        pytest.param(
            "MEASURES A.ts AS a, B.ts AS b PATTERN (A X*? B) WITHIN INTERVAL '2' SECOND DEFINE A AS price=1, B AS price=2",
            prices(1, 0, 2, 1, 2),
            [{"sym": "A", "a": 3000, "b": 4000}],
            id="within",
        ),
        pytest.param(
            "MEASURES PREV(A.price, 2) AS p2, NEXT(A.price) AS nx, PREV(FIRST(A.price)) AS pf PATTERN (A+) DEFINE A AS price > 5",
            prices(1, 2, 6, 7, 3),
            [{"sym": "A", "p2": 2, "nx": 3, "pf": 2}],
            id="prevnext",
        ),
        pytest.param(
            "MEASURES COUNT(*) AS n, MATCH_NUMBER() AS m PATTERN (A*) DEFINE A AS price > 5",
            prices(1, 6, 1),
            [{"sym": "A", "n": 0, "m": 1}, {"sym": "A", "n": 1, "m": 2}, {"sym": "A", "n": 0, "m": 3}],
            id="empty one row",
        ),
        pytest.param(
            "MEASURES MIN(A.price) AS mi, MAX(A.price) AS ma, SUM(A.price * 2) AS s, AVG(A.price) AS av, "
            "COUNT(DISTINCT A.price) AS cd, ARRAY_AGG(A.price) AS ar, COUNT(A.qty) AS cq, SUM(A.qty) AS sq "
            "PATTERN (A+) "
            "DEFINE A AS price<5",
            [Tick("A", 0, 1, qty=3), Tick("A", 1000, 1), Tick("A", 2000, 4), Tick("A", 3000, 9)],
            [{"sym": "A", "mi": 1, "ma": 4, "s": 12, "av": 2.0, "cd": 2, "ar": [1, 1, 4], "cq": 1, "sq": 3}],
            id="aggs",
        ),
        pytest.param(
            "MEASURES COUNT(*) AS n PATTERN (A+ B) DEFINE A AS SUM(A.price) <= 5, B AS SUM(A.price) + B.price > 5",
            prices(2, 3, 1, 9),
            [{"sym": "A", "n": 3}],
            id="agg in define",
        ),
        pytest.param(
            "MEASURES A.price AS a, B.price AS b "
            "PATTERN (A X* B) "
            "DEFINE X AS X.price < A.price, B AS B.price > AVG(X.price) AND COUNT(X.*) >= 2",
            prices(5, 1, 2, 9),
            [{"sym": "A", "a": 5, "b": 9}],
            id="define other",
        ),
        pytest.param(
            "MEASURES LAST(X.price) AS x PATTERN (A X) DEFINE A AS price=1", prices(1, 7), [{"sym": "A", "x": 7}], id="undefined var"
        ),
        pytest.param(
            "MEASURES COUNT(*) AS n PATTERN (A{,2} B) DEFINE A AS price=1, B AS price=2",
            prices(1, 1, 1, 2),
            [{"sym": "A", "n": 3}],
            id="quantifier {,2}",
        ),
        pytest.param(
            "MEASURES COUNT(*) AS n PATTERN ((A B){2,} C) DEFINE A AS price=1, B AS price=2, C AS price=3",
            prices(1, 2, 1, 2, 1, 2, 3),
            [{"sym": "A", "n": 7}],
            id="nested group",
        ),
        pytest.param(
            "MEASURES FIRST(A.price, 1) AS f1, LAST(A.price, 1) AS l1, FIRST(A.price, 9) AS f9 "
            "PATTERN (A+ B) "
            "DEFINE A AS price<5, B AS price>=5",
            prices(1, 2, 3, 5),
            [{"sym": "A", "f1": 2, "l1": 2, "f9": None}],
            id="first offset",
        ),
        pytest.param(
            "MEASURES A.price AS p PATTERN (A B) DEFINE A AS price=1, B AS price=2",
            [Tick("A", 0, 1), Tick("B", 1, 2), Tick("B", 2, 1), Tick("A", 3, 2), Tick("B", 4, 2)],
            [{"sym": "A", "p": 1}, {"sym": "B", "p": 1}],
            id="two partitions",
        ),
        pytest.param(
            "MEASURES CASE WHEN A.price > 5 THEN 'hi' ELSE 'lo' END AS c, COALESCE(A.qty, 0) AS q, A.kind || '!' AS k "
            "PATTERN (A) "
            "DEFINE A AS kind IN ('x','y') AND price BETWEEN 1 AND 9",
            [Tick("A", 0, 7, kind="x"), Tick("A", 1, 3, kind="z")],
            [{"sym": "A", "c": "hi", "q": 0, "k": "x!"}],
            id="case",
        ),
        pytest.param(
            "MEASURES PREV(CLASSIFIER()) AS pc PATTERN (A B) DEFINE A AS price=1, B AS price=2",
            prices(1, 2),
            [{"sym": "A", "pc": "A"}],
            id="prev classifier",
        ),
        pytest.param(
            "MEASURES A.price AS p AFTER MATCH SKIP TO B PATTERN (A B) DEFINE A AS true, B AS B.price > A.price",
            prices(1, 2, 3),
            [{"sym": "A", "p": 1}, {"sym": "A", "p": 2}],
            id="trino skip last var",
        ),
    ],
)
def test_clause_gives_the_rows_worked_out_by_hand(clause: str, ticks: list[Tick], expected: list[dict[str, Any]]) -> None:
    assert rows_of(clause, ticks) == expected


@pytest.mark.parametrize(
    ("clause", "ticks", "columns", "expected"),
    [
        pytest.param(
            "MEASURES MATCH_NUMBER() AS mn, CLASSIFIER() AS c, RUNNING SUM(A.price) AS rs, FINAL SUM(A.price) AS fs, "
            "FIRST(A.price) AS f, FINAL LAST(B.price) AS lb ALL ROWS PER MATCH "
            "AFTER MATCH SKIP PAST LAST ROW "
            "PATTERN (A+ B) "
            "DEFINE A AS price < 10, B AS price >= 10",
            prices(1, 2, 10, 3, 11),
            "mn c rs fs f lb price",
            [
                (1, "A", 1, 3, 1, 10, 1),
                (1, "A", 3, 3, 1, 10, 2),
                (1, "B", 3, 3, 1, 10, 10),
                (2, "A", 3, 3, 3, 11, 3),
                (2, "B", 3, 3, 3, 11, 11),
            ],
            id="all rows",
        ),
        pytest.param(
            "MEASURES CLASSIFIER() AS c, RUNNING COUNT(*) AS n ALL ROWS PER MATCH "
            "PATTERN (A {- B+ -} C) "
            "DEFINE A AS price=1, B AS price=2, C AS price=3",
            prices(1, 2, 2, 3),
            "c n",
            [("A", 1), ("C", 4)],
            id="exclude",
        ),
        pytest.param(
            "MEASURES CLASSIFIER() AS c, MATCH_NUMBER() AS m ALL ROWS PER MATCH WITH UNMATCHED ROWS "
            "PATTERN (A B) "
            "DEFINE A AS price=1, B AS price=2",
            prices(1, 2, 5, 1, 1, 2),
            "c m price",
            [("A", 1, 1), ("B", 1, 2), (None, None, 5), (None, None, 1), ("A", 2, 1), ("B", 2, 2)],
            id="all with unmatched",
        ),
        pytest.param(
            "MEASURES CLASSIFIER() AS c ALL ROWS PER MATCH OMIT EMPTY MATCHES PATTERN (A*) DEFINE A AS price > 5",
            prices(1, 6, 1),
            "c",
            [("A",)],
            id="omit empty",
        ),
        pytest.param(
            "MEASURES CLASSIFIER() AS c, COUNT(*) AS n ALL ROWS PER MATCH SHOW EMPTY MATCHES PATTERN (A*) DEFINE A AS price > 5",
            prices(1, 6, 1),
            "c n",
            [(None, 0), ("A", 1), (None, 0)],
            id="show empty",
        ),
    ],
)
def test_all_rows_show_what_was_worked_out_by_hand(clause: str, ticks: list[Tick], columns: str, expected: list[tuple[Any, ...]]) -> None:
    assert [tuple(row[column] for column in columns.split()) for row in rows_of(clause, ticks)] == expected
