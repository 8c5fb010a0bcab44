"""What a MATCH_RECOGNIZE clause may say, and the place at which it is told what it may not."""

from typing import Any

import pytest

from engine import ConfigError, Struct, cep
from engine.cep.recognize.clause import SkipTo, parse_clause
from engine.cep.recognize.row_pattern import text_of


class Order(Struct, frozen=True):
    user_id: str
    amount: int
    ts: int


HEAD = "PARTITION BY user_id ORDER BY ts"
ABC = "PERMUTE(A, B, C, A, B, C)"


def place_of(sql: str, word: str) -> str:
    """Where a word stands for the last time, as messages say it; "" stands at the end."""
    offset = sql.rindex(word)
    line = sql.count("\n", 0, offset) + 1
    return f"line {line}, column {offset - sql.rfind(chr(10), 0, offset)}:"


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ('A b "c"', "(A B c)"),
        ("A*? B+ C? D{2} E{2,} F{,3}? G{1,4}", "(A{0,}? B{1,} C{0,1} D{2,2} E{2,} F{0,3}? G{1,4})"),
        ("A | B C | ()", "(A|(B C)|())"),
        ("A {- B (C | D) -} E", "(A ({-B-} ({-C-}|{-D-})) E)"),
        ("PERMUTE(A, B C)", "((A (B C))|((B C) A))"),
        ("^ A -- the first\n /* and */ B", "(^ A B)"),
        ("((A))", "A"),
        ("PERMUTE(A | B, PERMUTE(C, D))", "(((A|B) ((C D)|(D C)))|(((C D)|(D C)) (A|B)))"),
        ("a | b c | (d | e)+?", "(A|(B C)|(D|E){1,}?)"),
    ],
)
def test_pattern_is_read_as_the_standard_writes_it(text: str, normal: str) -> None:
    assert text_of(parse_clause(f"{HEAD} ALL ROWS PER MATCH PATTERN ({text})").pattern) == normal


def test_clause_with_all_its_parts() -> None:
    query = parse_clause("""MATCH_RECOGNIZE (
        PARTITION BY user_id, customer.country ORDER BY ts ASC, number
        MEASURES CAST(A.amount AS INT) AS a, CASE WHEN B.x = 1 THEN 'AS, ONE' ELSE ',' END AS "b c"
        ALL ROWS PER MATCH WITH UNMATCHED ROWS
        AFTER MATCH SKIP TO FIRST U
        PATTERN (A B) WITHIN INTERVAL '90' SECONDS
        SUBSET U = (B, A), W = (B)
        DEFINE A AS A.all > 1 AND (x, y) IS NULL, B AS TRUE);""")
    assert [column.name for column in query.partition_by] == ["user_id", "customer.country"]
    assert [column.name for column in query.order_by] == ["ts", "number"]
    text = query.clause.text
    assert {name: text[span.start : span.end] for name, span in query.measures.items()} == {
        "a": "CAST(A.amount AS INT)",
        "b c": "CASE WHEN B.x = 1 THEN 'AS, ONE' ELSE ',' END",
    }
    assert {name: text[span.start : span.end] for name, span in query.defines.items()} == {
        "A": "A.all > 1 AND (x, y) IS NULL",
        "B": "TRUE",
    }
    assert (query.rows, query.within_ms, query.subsets) == ("all_with_unmatched", 90_000, {"U": ("B", "A"), "W": ("B",)})
    assert (query.skip.kind, query.skip.variable) == ("to_first", "U")


def test_clause_says_as_little_as_possible() -> None:
    query = parse_clause("PATTERN (A)")
    assert (query.measures, query.rows, query.skip, query.within_ms, query.defines) == ({}, "one", SkipTo(), None, {})


@pytest.mark.parametrize(
    ("sql", "word", "message"),
    [
        ("SELECT * FROM t", "SELECT", "stream stands for FROM"),
        ("PARTITION BY user_id ORDER BY ts DESC PATTERN (A)", "DESC", "backwards"),
        (f"{HEAD} PATTERN (A $)", "$", "no last record"),
        (f"{HEAD} PATTERN (A", "", "is expected here, not the end"),
        (f"{HEAD} PATTERN (A **)", "*)", "a quantifier already"),
        (f"{HEAD} PATTERN (A{{3,2}})", "{", "not a range"),
        (f"{HEAD} PATTERN (A{{0}})", "{", "not a range"),
        (f"{HEAD} PATTERN (A{{}})", "{", "needs a number"),
        (f"{HEAD} PATTERN (())", "", "no variable"),
        (f"{HEAD} PATTERN (^* A)", "* A", "anchor cannot be repeated"),
        (f"{HEAD} PATTERN (A {{- B -}})", "B -", "leave out"),
        (f"{HEAD} ALL ROWS PER MATCH PATTERN (A {{--}})", "-}", "a pattern variable is expected"),
        (f"{HEAD} ALL ROWS PER MATCH PATTERN (A {{-B--}})", "", "-} is expected here, not the end"),
        (f"{HEAD} ALL ROWS PER MATCH WITH UNMATCHED ROWS PATTERN (A {{- B -}})", "B -", "WITH UNMATCHED ROWS"),
        (f"{HEAD} ALL ROWS PER MATCH PATTERN (A {{- B {{- C -}} -}})", "{- C", "stands in another"),
        (f"{HEAD} PATTERN (PERMUTE(A,B,C,D,E,F,G))", "PERMUTE", "too many orders"),
        (f"{HEAD} PATTERN (A) WITHIN INTERVAL '0' MINUTE", "'0'", "positive"),
        (f"{HEAD} PATTERN (A) WITHIN INTERVAL '1' MONTH", "MONTH", "not a unit"),
        (f"{HEAD} PATTERN (A) WITHIN INTERVAL '\u00b2' MINUTE", "'\u00b2'", "positive whole number"),
        (f"{HEAD} PATTERN (A) WITHIN INTERVAL '9999999999' DAY", "'9", "ten thousand years"),
        (f"{HEAD} PATTERN (A) SUBSET A = (A)", "A = ", "another variable already"),
        (f"{HEAD} PATTERN (A) SUBSET U = (B)", "B)", "has no variable B"),
        (f"{HEAD} PATTERN (A) SUBSET U = (A), V = (A, u)", "u)", "U is a subset itself"),
        (f"{HEAD} PATTERN (A) SUBSET U = (A) DEFINE U AS TRUE", "U AS", "only a variable of the pattern has a condition"),
        (f"{HEAD} PATTERN (A) DEFINE B AS TRUE", "B AS", "has no variable B; it has A"),
        (f"{HEAD} PATTERN (A) DEFINE A AS within > 5", "within", 'written "within"'),
        (f"{HEAD} PATTERN (A) DEFINE A AS ts > 1; ts < 5", "ts < 5", "not expected here"),
        (f"MATCH_RECOGNIZE ({HEAD} PATTERN (A)) AS found", "AS", "leave it out"),
        (f"{HEAD} PATTERN (A) DEFINE A AS TRUE, A AS TRUE", "A AS TRUE", "defined already"),
        (f"{HEAD} PATTERN (A) DEFINE A AS ", "", "an expression is expected"),
        (f"{HEAD} AFTER MATCH SKIP TO LAST Z PATTERN (A)", "Z", "has no variable Z"),
        (f"{HEAD} AFTER MATCH SKIP TO FIRST A PATTERN (A B)", "A PATTERN", "always the first row"),
        (f"{HEAD} AFTER MATCH SKIP TO LAST A PATTERN (A B)", "A PATTERN", "always the first row"),
        (f"{HEAD} PATTERN (A) ORDER BY ts", "ORDER", "not expected here; the order is"),
        (f"{HEAD} MEASURES ts AS a, ts AS a PATTERN (A)", "a PATTERN", "measure a already"),
        (f"{HEAD} PATTERN (A) DEFINE A AS x = 'oops", "'oops", "never closed"),
        (f"{HEAD} PATTERN (A /* oops)", "/*", "never closed"),
        (f"{HEAD} PATTERN (A{{1000}}{{2}})", "{2", "a quantifier already"),
        (f"{HEAD} PATTERN (A{{1001}})", "1001", "up to 1,000"),
        (f"{HEAD} PATTERN (A{{,}})", "{", "needs a number"),
        (f"{HEAD} PATTERN (PERMUTE(A,))", "))", "a part of PERMUTE is expected"),
        (f"{HEAD} PATTERN (PERMUTE())", "))", "a part of PERMUTE is expected"),
        (f"{HEAD} PATTERN (PERMUTE(A |, B))", ", B", "a pattern variable is expected"),
        (f"{HEAD} PATTERN (PERMUTE({','.join(['X', *[f'PERMUTE({ABC},{ABC})'] * 5])}))", "X", "more than 2,000 places"),
        (f"{HEAD} PATTERN (A (((){{1000}}){{1000}}){{1000}})", "A (", "more than 100,000 parts"),
        (f"{HEAD} PATTERN ((A?){{1000}} (B?){{1000}})", "A?", "more than 1,000,000 ways"),
        (f"{HEAD} PATTERN (PERMUTE A)", " A)", "stands in quotes"),
        (f"{HEAD} PATTERN (A{{1000}} B{{1000}} C)", "A{", "more than 2,000 places"),
        ("", "", "PATTERN is expected here, not the end"),
        (";", ";", "PATTERN is expected here"),
        ("MATCH_RECOGNIZE (PATTERN (A)", "", "is expected here, not the end"),
        (f"{HEAD} PATTERN (A | | B)", "| B", "a pattern variable is expected"),
        (f"{HEAD} PATTERN (A{{1.5}})", "1.5", "whole number"),
        (f"{HEAD} PATTERN (A) LIMIT 3", "LIMIT", "not expected here"),
        (f"{HEAD} PATTERN (A) WITHIN 5 MINUTES", "5", "INTERVAL is expected"),
        (f"{HEAD} MEASURES A.amount PATTERN (A)", "PATTERN", "AS is expected"),
        (f"{HEAD} AFTER MATCH SKIP PAST FIRST ROW PATTERN (A)", "FIRST", "LAST is expected"),
        (f"{HEAD} ALL ROW PER MATCH PATTERN (A)", "ROW", "ROWS is expected"),
        ("PARTITION BY LOWER(user_id) ORDER BY ts PATTERN (A)", "(user", "not expected|is expected"),
        ("ORDER BY ts PATTERN (A)", "ORDER", "PARTITION BY is needed"),
        ("PARTITION BY user_id PATTERN (A)", "PARTITION", "ORDER BY is needed"),
    ],
)  # fmt: skip
def test_clause_that_cannot_be_is_refused_at_its_place(sql: str, word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        cep.match_recognize(sql)
    assert place_of(sql, word) in str(error.value)


def test_pattern_may_have_an_alternative_without_rows() -> None:
    assert text_of(cep.match_recognize(f"{HEAD} PATTERN (A |)").query.pattern) == "(A|())"


@pytest.mark.parametrize(
    ("expression", "word", "message"),
    [
        ("A.price > 1", "A.price", "no field 'price'; they have user_id, amount, ts"),
        ("PREV(A.amount, 1) > nothing", "nothing", "no field 'nothing'"),
        ("amount >", ">", "missing"),
        ("(amount + * 2)", "2)", "Expecting"),
        ("FINAL LAST(A.amount) = 1", "FINAL", "only MEASURES may ask"),
        ("FIRST(A.amount + B.amount) = 1", "FIRST", "of the same variable"),
        ("FIRST(LAST(A.amount)) = 1", "LAST", "already looks at other rows"),
        ("LAST(A.amount, amount) = 1", "amount)", "whole number"),
        ("ARRAY_AGG(A.amount) IS NULL", "ARRAY", "is for MEASURES"),
        ("SUM(DISTINCT A.amount) = 1", "SUM", "DISTINCT is for COUNT"),
        ("PREV(CLASSIFIER()) = 'A'", "CLASSIFIER", "is for MEASURES"),
        ("shout(amount) = 1", "shout", "is not supported here"),
        ("CAST(amount AS DATE) IS NULL", "amount", "CAST to DATE is not supported"),
        ("INTERVAL '1' YEAR > 2", "'1'", "whole number of one unit"),
        ("INTERVAL '\u00b2' MINUTE > 2", "'\u00b2'", "whole number of one unit"),
        ("amount > 1e", "1e", "is not a number"),
        ("amount > 1 {# amount #}", "{", "no meaning in an expression"),
        ("amount > 1 /* x /* y */ AND nope > 1", "nope", "no field 'nope'"),
        ("FINAL CLASSIFIER() = 'A'", "FINAL", "is not supported here"),
        ("amount LIKE 'x' ESCAPE '!'", "amount", "is not supported here"),
        ("amount IN (SELECT 1)", "amount", "is not supported here"),
        ("TRIM(LEADING 'x' FROM amount) = ''", "'x'", "is not supported here"),
        ("MIN(A.amount, 2) = 1", "MIN", "takes one argument"),
        ("COUNT() = 1", "COUNT", "takes one argument"),
        ("COUNT(DISTINCT *) = 1", "COUNT", "DISTINCT is for COUNT of one expression"),
        ("amount IN ()", "amount", "IN needs a value"),
        ("amount > CURRENT_TIMESTAMP", "amount", "is not supported here"),
        ("amount > ?", "amount", "is not supported here"),
    ],
)
def test_expression_that_cannot_be_is_refused_at_its_place(expression: str, word: str, message: str) -> None:
    sql = f"{HEAD}\n  PATTERN (A B)\n  DEFINE B AS TRUE, A AS {expression}"
    with pytest.raises(ConfigError, match=message) as error:
        cep.match_recognize(sql).matcher(Order, max_partials=10, on_too_many="drop_oldest")
    line = f"line 3, column {len('  DEFINE B AS TRUE, A AS ') + expression.index(word) + 1}:"
    assert line in str(error.value)


def test_error_shows_the_line_and_a_mark_below_the_place() -> None:
    with pytest.raises(ConfigError) as error:
        cep.match_recognize(f"{HEAD}\n\tPATTERN (A $)")
    assert str(error.value).split("\n")[1:] == ["    \tPATTERN (A $)", "    \t           ^"]


@pytest.mark.parametrize(
    ("mode", "measure", "message"),
    [("ONE ROW", "user_id", "a column 'user_id' already"), ("ALL ROWS", "amount", "a column 'amount' already")],
)
def test_measure_named_like_a_column_of_the_rows_is_refused(mode: str, measure: str, message: str) -> None:
    sql = f"{HEAD} MEASURES A.ts AS {measure} {mode} PER MATCH PATTERN (A)"
    with pytest.raises(ConfigError, match=message):
        cep.match_recognize(sql).matcher(Order, max_partials=10, on_too_many="drop_oldest")


def test_all_rows_of_values_without_fields_are_refused() -> None:
    with pytest.raises(ConfigError, match="does not say which"):
        cep.match_recognize(f"{HEAD} ALL ROWS PER MATCH PATTERN (A)").matcher(Any, max_partials=10, on_too_many="drop_oldest")


def test_text_is_needed() -> None:
    with pytest.raises(ConfigError, match="the text of a clause"):
        cep.match_recognize(7)  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize(
    "rest",
    [
        "PATTERN (" + "(" * 3_000 + "A" + ")" * 3_000 + ")",
        "PATTERN (A) DEFINE A AS " + "(" * 3_000 + "amount" + ")" * 3_000 + " > 1",
        "PATTERN (A) DEFINE A AS " + "amount + " * 5_000 + "1 > 2",
    ],
)
def test_clause_that_nests_too_deeply_is_refused(rest: str) -> None:
    with pytest.raises(ConfigError, match=r"line 1, column 1: .* nest too deeply"):
        cep.match_recognize(f"{HEAD} {rest}")


@pytest.mark.parametrize(
    "sql",
    [
        "match_recognize (partition by user_id order by ts pattern (a b) define a as A.amount > 1);;",
        f"{HEAD} PATTERN (A B); -- the end",
        f"{HEAD} MEASURES \"A\".ts AS \"define\", CASE WHEN 'ONE (' = ')' THEN 1 END AS x PATTERN (A) DEFINE A AS \"user_id\" <> 'a''s;('",
        f"{HEAD} PATTERN (größe b) DEFINE größe AS GRÖSSE.amount > 1 OR größe.amount < 5",
        f"{HEAD} MEASURES running AS a, final AS b PATTERN (A) DEFINE A AS final IN (1, 2) AND running = 1",
    ],
)
def test_odd_but_legal_clause_is_taken(sql: str) -> None:
    cep.match_recognize(sql)
