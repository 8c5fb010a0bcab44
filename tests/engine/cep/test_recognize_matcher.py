"""MATCH_RECOGNIZE against backtracking over the finished table, and what comes out when."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine import ConfigError, RecordError, cep
from engine.cep.matcher import NEVER, Found
from engine.cep.recognize.matcher import END, RowMatcher
from tests.engine.cep import recognize_oracle as oracle
from tests.engine.cep.recognize_oracle import Clause, Condition, Pattern, Reading
from tests.engine.cep.stored import stored_again

SUBSET = ("A", "B")
NAMES = ("A", "B", "C")


def values(rows: Sequence[Reading], start: int, names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Prices of the rows of some variables."""
    return [rows[start + place].price for place, name in enumerate(names) if name in wanted]


def beside(rows: Sequence[Reading], at: int) -> Reading | None:
    return rows[at] if 0 <= at < len(rows) else None


def conditions_of(own: str) -> list[tuple[str, Condition]]:
    """Conditions for a variable, as SQL and as a function."""

    def now(rows: Sequence[Reading], start: int, names: Sequence[str]) -> Reading:
        return rows[start + len(names) - 1]

    def rises(rows: Sequence[Reading], start: int, names: Sequence[str]) -> bool:
        before = beside(rows, start + len(names) - 2)
        return before is not None and now(rows, start, names).price > before.price

    def above_a(rows: Sequence[Reading], start: int, names: Sequence[str]) -> bool:
        taken = values(rows, start, names, ["A"])
        return bool(taken) and now(rows, start, names).price >= taken[-1]

    def above_own_before(rows: Sequence[Reading], start: int, names: Sequence[str]) -> bool:
        taken = values(rows, start, names, [own])
        return len(taken) > 1 and taken[-1] >= taken[-2]

    def before_higher(rows: Sequence[Reading], start: int, names: Sequence[str]) -> bool:
        after = beside(rows, start + len(names))
        return after is None or after.price > now(rows, start, names).price

    def mean_of_subset(rows: Sequence[Reading], start: int, names: Sequence[str]) -> bool:
        taken = values(rows, start, names, SUBSET)
        return not taken or now(rows, start, names).price >= sum(taken) / len(taken)

    def second_first(rows: Sequence[Reading], start: int, names: Sequence[str]) -> bool:
        places = [start + place for place, name in enumerate(names) if name == "B"]
        before = beside(rows, places[0] - 1) if places else None
        return before is None or before.price <= 2

    return [
        ("letter = 'a'", lambda r, s, n: now(r, s, n).letter == "a"),
        (f"{own}.letter IN ('a', 'b')", lambda r, s, n: now(r, s, n).letter in "ab"),
        ("letter <> 'c' OR price > 3", lambda r, s, n: now(r, s, n).letter != "c" or now(r, s, n).price > 3),
        (f"price > PREV({own}.price)", rises),
        ("price >= A.price", above_a),
        (f"{own}.price >= LAST({own}.price, 1)", above_own_before),
        ("price >= FIRST(price)", lambda r, s, n: now(r, s, n).price >= r[s].price),
        (f"SUM({own}.price) < 8", lambda r, s, n: sum(values(r, s, n, [own])) < 8),
        ("COUNT(*) <= 3", lambda r, s, n: len(n) <= 3),
        ("COUNT(B.*) < 2 OR MAX(price) > 4", lambda r, s, n: n.count("B") < 2 or max(values(r, s, n, NAMES)) > 4),
        ("NEXT(price) IS NULL OR NEXT(price) > price", before_higher),
        ("AVG(U.price) IS NULL OR price >= AVG(U.price)", mean_of_subset),
        ("COALESCE(PREV(FIRST(B.price), 1), 0) <= 2", second_first),
    ]


def row_at(rows: Sequence[Reading], places: Sequence[int], which: int, shift: int = 0) -> int | None:
    if not -len(places) <= which < len(places):
        return None
    found = beside(rows, places[which] + shift)
    return None if found is None else found.n


Measure = Callable[[Sequence[Reading], int, list[str], int], Any]


def of(names: list[str], start: int, wanted: Sequence[str], upto: int) -> list[int]:
    return [start + place for place, name in enumerate(names[: upto + 1]) if name in wanted]


def last_of(names: list[str]) -> str | None:
    return next((name for name in reversed(names) if name in SUBSET), None)


MEASURES: dict[str, tuple[str, Measure]] = {
    "seen": ("LAST(n)", lambda rows, start, names, at: row_at(rows, of(names, start, NAMES, at), -1)),
    "begun": ("FIRST(n)", lambda rows, start, names, at: row_at(rows, of(names, start, NAMES, at), 0)),
    "ended": ("FINAL LAST(n)", lambda rows, start, names, at: row_at(rows, of(names, start, NAMES, 99), -1)),
    "a": ("A.n", lambda rows, start, names, at: row_at(rows, of(names, start, "A", at), -1)),
    "b2": ("FIRST(B.n, 1)", lambda rows, start, names, at: row_at(rows, of(names, start, "B", at), 1)),
    "b_back": ("LAST(B.n, 1)", lambda rows, start, names, at: row_at(rows, of(names, start, "B", at), -2)),
    "u": ("RUNNING LAST(U.n)", lambda rows, start, names, at: row_at(rows, of(names, start, SUBSET, at), -1)),
    "before": ("PREV(FIRST(n), 2)", lambda rows, start, names, at: row_at(rows, of(names, start, NAMES, at), 0, -2)),
    "after": ("NEXT(A.n)", lambda rows, start, names, at: row_at(rows, of(names, start, "A", at), -1, 1)),
    "behind": ("NEXT(FINAL LAST(n))", lambda rows, start, names, at: row_at(rows, of(names, start, NAMES, 99), -1, 1)),
    "what": ("CLASSIFIER()", lambda rows, start, names, at: names[at] if names else None),
    "what_u": ("CLASSIFIER(U)", lambda rows, start, names, at: last_of(names[: at + 1])),
    "first_what": ("FIRST(CLASSIFIER())", lambda rows, start, names, at: names[0] if names else None),
    "count": ("COUNT(*)", lambda rows, start, names, at: len(names[: at + 1])),
    "total": ("SUM(A.price) + 0", lambda rows, start, names, at: sum(values(rows, start, names[: at + 1], "A")) or None),
    "total_end": ("FINAL SUM(price)", lambda rows, start, names, at: sum(values(rows, start, names, NAMES)) if names else None),
    "letters": (
        "FINAL COUNT(DISTINCT letter)",
        lambda rows, start, names, at: len({row.letter for row in rows[start : start + len(names)]}),
    ),
}  # fmt: skip

SKIPS = {
    "PAST LAST ROW": ("past_last", ""),
    "TO NEXT ROW": ("to_next", ""),
    "TO FIRST B": ("to_first", "B"),
    "TO LAST C": ("to_last", "C"),
}
MODES = ["ONE ROW PER MATCH", "ALL ROWS PER MATCH", "ALL ROWS PER MATCH OMIT EMPTY MATCHES", "ALL ROWS PER MATCH WITH UNMATCHED ROWS"]


def patterns(*, exclusions: bool) -> st.SearchStrategy[Pattern]:
    variables = st.sampled_from(NAMES).map(lambda name: ("var", name))
    counts = st.sampled_from([(0, None), (1, None), (0, 1), (2, 2), (1, 2), (0, 2), (2, None)])

    def larger(part: st.SearchStrategy[Pattern]) -> st.SearchStrategy[Pattern]:
        several = st.lists(part, min_size=2, max_size=3)
        choices = [
            several.map(lambda parts: ("seq", *parts)),
            several.map(lambda parts: ("alt", *parts)),
            st.tuples(part, counts, st.booleans()).map(lambda drawn: ("rep", drawn[0], *drawn[1], drawn[2])),
            st.lists(variables, min_size=2, max_size=3).map(lambda parts: ("permute", *parts)),
        ]
        return st.one_of(*choices)

    whole = st.recursive(variables, larger, max_leaves=5)
    if exclusions:
        whole = st.one_of(whole, st.tuples(variables, whole).map(lambda parts: ("seq", parts[0], ("not shown", parts[1]), ("var", "B"))))
    return whole


def names_in(pattern: Pattern) -> set[str]:
    if pattern[0] == "var":
        return {pattern[1]}
    return set().union(*(names_in(part) for part in pattern[1:] if isinstance(part, tuple)))


@st.composite
def clauses(draw: st.DrawFn) -> tuple[str, Clause, str]:
    mode = draw(st.sampled_from(MODES))
    pattern = draw(patterns(exclusions=mode in MODES[1:3]))
    # All variables stand in the pattern, so that measures and conditions may name them.
    missing = [name for name in NAMES if name not in names_in(pattern)]
    pattern = ("alt", pattern, *(("seq", ("var", name), ("var", name), ("var", "A"), ("var", "A")) for name in missing))
    defines = {name: draw(st.sampled_from(conditions_of(name))) for name in NAMES}
    skip = draw(st.sampled_from(sorted(SKIPS)))
    within_ms = draw(st.sampled_from([None, None, 3, 6]))
    sql = f"""
        PARTITION BY letter ORDER BY ts
        MEASURES {", ".join(f"{text} AS {name}" for name, (text, _) in MEASURES.items())}, MATCH_NUMBER() AS match
        {mode} AFTER MATCH SKIP {skip}
        PATTERN ({oracle.text_of(pattern)}) {f"WITHIN INTERVAL '{within_ms}' MILLISECOND" if within_ms else ""}
        SUBSET U = (A, B)
        DEFINE {", ".join(f"{name} AS {text}" for name, (text, _) in defines.items())}"""
    return sql, Clause(pattern, {name: condition for name, (_, condition) in defines.items()}, SKIPS[skip], within_ms), mode


def expected(clause: Clause, mode: str, rows: Sequence[Reading]) -> list[dict[str, Any]]:
    found, alone = oracle.matches(clause, rows)
    out: list[tuple[int, dict[str, Any]]] = []
    for match in found:
        names = [name for name, _ in match.path]
        shown = [place for place, (_, seen) in enumerate(match.path) if seen] if mode != MODES[0] else [len(names) - 1]
        if not names:
            shown = [] if mode == MODES[2] else [-1]
        for place in shown:
            measured = {name: read(rows, match.start, names, place) for name, (_, read) in MEASURES.items()} | {"match": match.number}
            row = rows[match.start + max(place, 0)]
            columns = (
                {"letter": rows[match.start].letter} if mode == MODES[0] else {name: getattr(row, name) for name in row.__struct_fields__}
            )
            out.append((match.start, columns | measured))
    if mode == MODES[3]:
        nulls = dict.fromkeys([*MEASURES, "match"])
        out.extend((at, {name: getattr(rows[at], name) for name in rows[at].__struct_fields__} | nulls) for at in alone)
    return [row for _, row in sorted(out, key=lambda pair: pair[0])]


def readings(drawn: list[tuple[int, str, int]]) -> list[Reading]:
    time, rows = 0, []
    for n, (gap, letter, price) in enumerate(drawn):
        time += gap
        rows.append(Reading(n, letter, price, time))
    return rows


def matcher_of(sql: str, *, max_partials: int = 10_000, on_too_many: Any = "drop_oldest") -> RowMatcher:
    return cep.match_recognize(sql).matcher(Reading, max_partials=max_partials, on_too_many=on_too_many)


def run(
    matcher: RowMatcher, rows: Sequence[Reading], *, stored: bool = False, until: int | None = END, found: Found | None = None
) -> Found:
    found = Found() if found is None else found
    state = None
    for row in rows:
        state = matcher.run(state, "k", [(row.ts, row)], row.ts, found)
        if stored and state is not None:
            state = stored_again(matcher.layout, state)
    if until is not None:
        matcher.run(state, "k", [], until, found)
    return found


def rows_of(found: Found) -> list[dict[str, Any]]:
    return [recognized.row for recognized in found.matches]  # type: ignore[attr-defined]  # rows, not Match records


streams = st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abc"), st.integers(1, 5)), max_size=8).map(readings)


@settings(deadline=None)
@given(clauses(), streams, st.booleans())
def test_matcher_finds_what_backtracking_over_the_finished_table_finds(
    drawn: tuple[str, Clause, str], rows: list[Reading], stored: bool
) -> None:
    sql, clause, mode = drawn
    try:
        matcher = matcher_of(sql)
    except ConfigError as error:
        assume("always the first row of a match" not in str(error))
        raise
    found = run(matcher, rows, stored=stored)
    assert rows_of(found) == expected(clause, mode, rows)
    assert found.dropped_partials == 0


def texts(letters: str, prices: str = "") -> list[Reading]:
    """One row a millisecond; prices as digits, 1 without."""
    return [Reading(n, letter, int(price), n) for n, (letter, price) in enumerate(zip(letters, prices or "1" * len(letters), strict=True))]


def found_in(
    pattern: str, letters: str, *, skip: str = "PAST LAST ROW", within: str = "", until: int | None = END
) -> list[tuple[int, int, int]]:
    """Return (first row, last row, time at which it came out) of the matches; empty ones end before they begin."""
    defined = ", ".join(f"{name} AS letter = '{name.lower()}'" for name in "ABC" if name in pattern)
    sql = f"""PARTITION BY letter ORDER BY ts MEASURES FIRST(n) AS a, LAST(n) AS b, MATCH_NUMBER() AS m AFTER MATCH SKIP {skip}
        PATTERN ({pattern}) {within} DEFINE {defined}"""
    found = run(matcher_of(sql), texts(letters), until=until)
    assert [row["m"] for row in rows_of(found)] == list(range(1, len(found.matches) + 1))
    return [(row["a"], row["b"], time) for row, time in zip(rows_of(found), found.times, strict=True)]


@pytest.mark.parametrize(
    ("pattern", "letters", "expected"),
    [
        ("A B", "ab", [(0, 1, 1)]),  # at its last row
        ("A B+", "abbx", [(0, 2, 3)]),  # when a row ends it
        ("A B+?", "abbx", [(0, 1, 1)]),  # reluctant: nothing better can come
        ("A | A B", "ab", [(0, 0, 0)]),  # the first alternative is preferred, though shorter
        ("A B | A", "ab", [(0, 1, 1)]),
        ("A B | A", "ax", [(0, 0, 1)]),  # the second one, when the first is out of the question
        ("PERMUTE(A, B)", "ba", [(0, 1, 1)]),
        ("A B+", "ab", [(0, 1, 1)]),  # at the end of all input, at the time of the last record
    ],
)
def test_match_comes_out_when_no_later_row_can_change_it(pattern: str, letters: str, expected: list[tuple[int, int, int]]) -> None:
    assert found_in(pattern, letters) == expected


def test_limit_decides_an_open_match_at_its_time_and_a_row_as_far_away_is_outside() -> None:
    within = "WITHIN INTERVAL '3' MILLISECOND"
    assert found_in("A B+", "abb", within=within, until=3) == [(0, 2, 3)]
    assert found_in("A B+", "abbb", within=within) == [(0, 2, 3)]
    assert found_in("A A* B", "aaaab", within=within) == [(2, 4, 4)]


def test_open_match_without_a_limit_waits() -> None:
    assert found_in("A B+", "abb", until=1_000_000) == []


def test_rows_of_a_failed_attempt_begin_the_next_one() -> None:
    assert found_in("A A B", "aaab") == [(1, 3, 3)]
    assert found_in("A B C | B", "abab") == [(1, 1, 2), (3, 3, 3)]


@pytest.mark.parametrize(
    ("skip", "expected"),
    [("PAST LAST ROW", [(0, 2)]), ("TO NEXT ROW", [(0, 2), (1, 2), (2, 2)]), ("TO LAST A", [(0, 2), (2, 2)]), ("TO A", [(0, 2), (2, 2)])],
)
def test_skip_says_which_row_is_tried_next(skip: str, expected: list[tuple[int, int]]) -> None:
    assert [(first, last) for first, last, _ in found_in("A+", "aaax", skip=skip)] == expected


def test_anchor_holds_before_the_first_row_of_a_key_only() -> None:
    assert found_in("^ A", "aa") == [(0, 0, 0)]
    assert found_in("^ A | B", "baab") == [(0, 0, 0), (3, 3, 3)]
    assert found_in("A", "aa") == [(0, 0, 0), (1, 1, 1)]


def test_row_that_looks_ahead_waits_for_the_row_asked_for() -> None:
    sql = "PARTITION BY letter ORDER BY ts MEASURES A.n AS n PATTERN (A) DEFINE A AS price > NEXT(price)"
    found = run(matcher_of(sql), texts("aaaa", "3215"), until=None)
    assert [(row["n"], time) for row, time in zip(rows_of(found), found.times, strict=True)] == [(0, 1), (1, 2)]


def test_measure_that_looks_behind_the_match_waits_for_the_row_or_the_end() -> None:
    sql = "PARTITION BY letter ORDER BY ts MEASURES A.n AS n, NEXT(A.n) AS after PATTERN (A) DEFINE A AS letter = 'a'"
    found = run(matcher_of(sql), texts("aba"))
    assert [(row["n"], row["after"], time) for row, time in zip(rows_of(found), found.times, strict=True)] == [(0, 1, 1), (2, None, 2)]


def deadlines(pattern: str, letters: str, within: str = "") -> list[int | None]:
    """The deadline after each row; None where nothing is kept."""
    sql = f"PARTITION BY letter ORDER BY ts PATTERN ({pattern}) {within} DEFINE A AS letter = 'a', B AS letter = 'b'"
    matcher, state, times = matcher_of(sql), None, []
    for row in texts(letters):
        state = matcher.run(state, "k", [(row.ts, row)], row.ts, Found())
        times.append(None if state is None else matcher.deadline_ms(state))
    return times


def test_state_says_when_to_look_again_and_is_gone_when_nothing_is_open() -> None:
    assert deadlines("A B", "xabx") == [None, END, None, None]
    assert deadlines("A+ B", "xaab", "WITHIN INTERVAL '9' MILLISECONDS") == [None, 10, 10, None]


def test_state_keeps_what_prev_and_match_number_ask_for() -> None:
    for measure, rows in (("PREV(A.n) AS x", 1), ("MATCH_NUMBER() AS x", 0), ("A.n AS x", None)):
        sql = f"PARTITION BY letter ORDER BY ts MEASURES {measure} PATTERN (A) DEFINE A AS letter = 'a'"
        matcher = matcher_of(sql)
        state = matcher.run(None, "k", [(row.ts, row) for row in texts("axx")], 2, Found())
        assert (None if state is None else len(state.rows)) == rows
        assert state is None or matcher.deadline_ms(state) == NEVER


def test_ways_with_the_same_future_are_kept_once() -> None:
    sql = "PARTITION BY letter ORDER BY ts PATTERN ((A | B)+ C) DEFINE C AS letter = 'c'"
    state = matcher_of(sql).run(None, "k", [(row.ts, row) for row in texts("x" * 50)], 50, Found())
    assert state is not None
    assert len(state.threads) == 2


def test_max_partials_gives_the_older_rows_up_and_counts_them() -> None:
    sql = "PARTITION BY letter ORDER BY ts MEASURES FIRST(n) AS a PATTERN (A+ B) DEFINE A AS letter = 'a', B AS letter = 'b'"
    found = run(matcher_of(sql, max_partials=4), texts("aaaaaab"))
    assert found.dropped_partials == 2
    assert rows_of(found) == [{"letter": "a", "a": 2}]


def test_max_partials_fails_if_asked() -> None:
    sql = "PARTITION BY letter ORDER BY ts PATTERN (A+ B) DEFINE A AS letter = 'a', B AS letter = 'b'"
    with pytest.raises(RecordError, match="max_partials"):
        run(matcher_of(sql, max_partials=4, on_too_many="fail"), texts("aaaaaab"))


def test_division_by_zero_is_null_so_that_one_row_cannot_stop_the_others() -> None:
    sql = "PARTITION BY letter ORDER BY ts MEASURES A.n AS n PATTERN (A) DEFINE A AS 6 / price >= 2 OR price % price = 0"
    assert [row["n"] for row in rows_of(run(matcher_of(sql), texts("aaaa", "0369")))] == [1, 2, 3]


def test_variables_with_the_same_condition_are_held_against_a_row_once() -> None:
    recognizer = cep.match_recognize("PARTITION BY k ORDER BY ts PATTERN (A B C) DEFINE A AS A.n > 1, B AS (n > 1), C AS n > 2")
    matcher = recognizer.matcher(dict, max_partials=10, on_too_many="fail")
    assert [(label, bits) for label, _, bits in matcher.by_row] == [(0, 0b011), (2, 0b100)]
