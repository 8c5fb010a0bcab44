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
        pytest.param(
            "MEASURES B.price AS b, COUNT(B.*) AS n, COUNT(B.price) AS np, SUM(B.price) AS s, MIN(B.price) AS mi, AVG(B.price) AS av, "
            "ARRAY_AGG(B.price) AS ar, FIRST(B.price) AS f, CLASSIFIER(B) AS c, COUNT(DISTINCT B.price) AS d, price AS p "
            "PATTERN (A B?) DEFINE A AS price = 1, B AS price = 2",
            prices(1, 3),
            [{"sym": "A", "n": 0, "np": 0, "d": 0, "p": 1} | dict.fromkeys(["b", "s", "mi", "av", "ar", "f", "c"])],
            id="variable without a row",
        ),
        pytest.param(
            "MEASURES PREV(A.price) AS p, PREV(A.price, 2) AS pp, NEXT(A.price) AS n, NEXT(A.price, 2) AS nn PATTERN (A) "
            "DEFINE A AS price = 7",
            prices(3, 7, 1),
            [{"sym": "A", "p": 3, "pp": None, "n": 1, "nn": None}],
            id="past both ends of the partition",
        ),
        pytest.param(
            "MEASURES COUNT(A.*) AS a, COUNT(B.*) AS b PATTERN (A?? B) DEFINE A AS TRUE, B AS price > 0",
            prices(1, 2),
            [{"sym": "A", "a": 0, "b": 1}] * 2,
            id="reluctant option",
        ),
        pytest.param(
            "MEASURES CLASSIFIER() AS c, COUNT(*) AS n PATTERN (A B | C) DEFINE A AS price=1, B AS price=2, C AS price=3",
            prices(1, 2, 3, 1, 3),
            [{"sym": "A", "c": "B", "n": 2}, {"sym": "A", "c": "C", "n": 1}, {"sym": "A", "c": "C", "n": 1}],
            id="a choice binds less than a sequence",
        ),
        pytest.param(
            "MEASURES COUNT(*) AS n PATTERN (A B*) DEFINE A AS price=1, B AS price=2",
            prices(1, 2, 2, 1, 1),
            [{"sym": "A", "n": 3}, {"sym": "A", "n": 1}, {"sym": "A", "n": 1}],
            id="a quantifier binds more than a sequence",
        ),
        pytest.param(
            "MEASURES A.ts AS a, B.ts AS b, C.ts AS c PATTERN (PERMUTE(A | B, C)) DEFINE A AS price=1, B AS price=2, C AS price=3",
            prices(3, 2, 1, 3),
            [{"sym": "A", "a": None, "b": 1000, "c": 0}, {"sym": "A", "a": 2000, "b": None, "c": 3000}],
            id="permute of a choice",
        ),
        pytest.param(
            "MEASURES COUNT(A.*) AS a, COUNT(B.*) AS b, CLASSIFIER() AS c PATTERN (PERMUTE(A, B?)) DEFINE A AS price > 0, B AS price > 1",
            prices(2, 2, 2),
            [{"sym": "A", "a": 1, "b": 1, "c": "B"}, {"sym": "A", "a": 1, "b": 0, "c": "A"}],
            id="permute of an option",
        ),
        pytest.param(
            "MEASURES CLASSIFIER() AS c PATTERN (PERMUTE(PERMUTE(A, B), C)) DEFINE A AS price=1, B AS price=2, C AS price=3",
            prices(2, 1, 3, 3, 2, 1, 1, 3, 2),
            [{"sym": "A", "c": "C"}, {"sym": "A", "c": "A"}],
            id="permute in permute",
        ),
        pytest.param(
            "MEASURES A.ts AS a AFTER MATCH SKIP TO LAST B PATTERN (A B?) DEFINE A AS price=1, B AS price=2",
            prices(1, 1, 2, 1),
            [{"sym": "A", "a": 0}, {"sym": "A", "a": 1000}, {"sym": "A", "a": 3000}],
            id="skip to a variable without a row goes to the next row",
        ),
        pytest.param(
            "MEASURES COUNT(A.*) AS n PATTERN (A+ B) DEFINE A AS LAST(A.price, 1) IS NULL OR A.price > LAST(A.price, 1), "
            "B AS B.price < FIRST(A.price)",
            prices(3, 4, 5, 2),
            [{"sym": "A", "n": 3}],
            id="a condition counts its own row",
        ),
        pytest.param(
            "MEASURES A.ts AS a PATTERN (A) DEFINE A AS NOT (qty > 1)",
            [Tick("A", 0, 1), Tick("A", 1, 1, qty=1), Tick("A", 2, 1, qty=2)],
            [{"sym": "A", "a": 1}],
            id="unknown is not fulfilled, nor is its opposite",
        ),
        pytest.param(
            "MEASURES COUNT(*) AS n, FIRST(A.price) AS f, CLASSIFIER() AS c, SUM(price) AS s, PREV(price) AS p, MATCH_NUMBER() AS m "
            "PATTERN (A*) DEFINE A AS price > 5",
            prices(1, 2),
            [{"sym": "A", "n": 0, "f": None, "c": None, "s": None, "p": None, "m": number} for number in (1, 2)],
            id="measures of empty matches",
        ),
        pytest.param(
            "MEASURES COUNT(*) AS n PATTERN (() | A) DEFINE A AS price > 5",
            prices(6, 2),
            [{"sym": "A", "n": 0}] * 2,
            id="no row at all is preferred",
        ),
        pytest.param(
            'MEASURES "All".price AS "within" PATTERN ("All" all_) /* a ; ) b */\n DEFINE "All" AS "price" = 1 /* x /* y */ AND ts < 4000, '
            "ALL_ AS (price IN (2, 3)) = (1 = 1) -- ' the end",
            prices(1, 2, 1, 5, 1, 3),
            [{"sym": "A", "within": 1}],
            id="odd but legal",
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
        pytest.param(
            "MEASURES CLASSIFIER() AS c, MATCH_NUMBER() AS m, COUNT(*) AS n ALL ROWS PER MATCH WITH UNMATCHED ROWS PATTERN (A*) "
            "DEFINE A AS price > 5",
            prices(1, 6, 7, 2),
            "c m n price",
            [(None, 1, 0, 1), ("A", 2, 1, 6), ("A", 2, 2, 7), (None, 3, 0, 2)],
            id="rows of empty matches are not unmatched",
        ),
        pytest.param(
            "MEASURES CLASSIFIER() AS c, COUNT(*) AS n, SUM(B.price) AS s ALL ROWS PER MATCH PATTERN (A ({- B -} C)+) "
            "DEFINE A AS price=1, B AS price=2, C AS price=3",
            prices(1, 2, 3, 2, 3, 9),
            "c n s",
            [("A", 1, None), ("C", 3, 2), ("C", 5, 4)],
            id="exclusion in a loop",
        ),
        pytest.param(
            "MEASURES RUNNING LAST(B.price) AS rb, FINAL LAST(B.price) AS fb, FINAL FIRST(B.price) AS ff, LAST(A.price, 1) AS l, "
            "FINAL LAST(A.price, 1) AS fl, CLASSIFIER(B) AS cb, CLASSIFIER(U) AS cu, PREV(LAST(A.price)) AS pl, "
            "NEXT(FINAL LAST(B.price)) AS nx ALL ROWS PER MATCH PATTERN (A A B B) SUBSET U = (A, B) "
            "DEFINE A AS price < 5, B AS price >= 5",
            prices(1, 2, 5, 6, 9),
            "rb fb ff l fl cb cu pl nx",
            [
                (None, 6, 5, None, 1, None, "A", None, 9),
                (None, 6, 5, 1, 1, None, "A", 1, 9),
                (5, 6, 5, 1, 1, "B", "B", 1, 9),
                (6, 6, 5, 1, 1, "B", "B", 1, 9),
            ],
            id="running and final navigation",
        ),
    ],
)
def test_all_rows_show_what_was_worked_out_by_hand(clause: str, ticks: list[Tick], columns: str, expected: list[tuple[Any, ...]]) -> None:
    assert [tuple(row[column] for column in columns.split()) for row in rows_of(clause, ticks)] == expected
