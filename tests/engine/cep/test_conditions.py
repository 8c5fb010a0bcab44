"""Conditions: arity, combination, and what one that takes the match sees."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from engine import cep
from engine.cep import Match, PartialMatch, Pattern
from engine.cep.conditions import AllOf, AnyOf, Condition, Not, Predicate, all_of, check_of, condition, negated, predicate_of
from engine.cep.matcher import Found, NfaMatcher
from engine.cep.nfa import compile_pattern


def found(pattern: Pattern, records: list[tuple[int, Any]]) -> list[Match[Any]]:
    results = Found()
    NfaMatcher(compile_pattern(pattern, cep.skip.none), cep.skip.none).run(None, "k", records, records[-1][0], results)
    return results.matches


def both(value: int, match: Any) -> bool:
    return True


class Callable2:
    def __call__(self, value: int, match: Any) -> bool:
        return True


@pytest.mark.parametrize(
    ("function", "wants_match"),
    [
        (lambda v: v, False),
        (lambda v, m: v, True),
        (lambda v, limit=5: v > limit, False),
        (lambda *values: True, False),
        (both, True),
        (partial(both, match=None), False),
        (Callable2(), True),
        (str.isdigit, False),
        (bool, False),
    ],
)
def test_condition_arity_decides_whether_it_gets_the_match(function: Any, wants_match: bool) -> None:
    assert condition(function, "where").wants_match is wants_match


def test_condition_on_the_value_alone_is_asked_once_a_record() -> None:
    asked: list[int] = []

    def is_even(value: int) -> bool:
        asked.append(value)
        return value % 2 == 0

    pattern = cep.begin("a").followed_by_any("b", where=is_even).followed_by_any("c", where=is_even)
    found(pattern, [(time, time) for time in range(6)])
    assert all(asked.count(value) <= 2 for value in range(6)), "each stage has a condition of its own"


def test_condition_with_match_sees_what_was_taken_the_times_and_the_key() -> None:
    seen: list[tuple[Any, ...]] = []

    def look(value: str, match: PartialMatch) -> bool:
        seen.append((value, match["a"], match["b"], match.start_ms, match.timestamp_ms, match.key))
        return True

    found(cep.begin("a", where=lambda v: v == "x").next("b", where=look), [(10, "x"), (25, "y")])
    assert seen == [("y", ["x"], [], 10, 25, "k")]


def test_condition_of_the_first_stage_begins_at_its_own_record() -> None:
    starts: list[int] = []

    def look(value: str, match: PartialMatch) -> bool:
        starts.append(match.start_ms)
        return True

    found(cep.begin("a", where=look), [(10, "x"), (25, "y")])
    assert starts == [10, 25]


def test_condition_that_asks_for_an_unknown_stage_is_told_which_there_are() -> None:
    with pytest.raises(KeyError, match="no stage 'c'; it has a, b"):
        found(cep.begin("a").next("b", where=lambda v, m: m["c"] == []), [(1, "x"), (2, "y")])


def test_or_where_after_no_condition_is_that_condition() -> None:
    assert [match["a"] for match in found(cep.begin("a").or_where(lambda v: v == 2), [(1, 1), (2, 2)])] == [[2]]


def test_of_keeps_other_types_out() -> None:
    pattern = cep.begin("a", of=int, where=lambda v: v > 1)
    assert [match["a"] for match in found(pattern, [(1, "x"), (2, 2), (3, 1)])] == [[2]]


def test_trees_combine_as_logic_says() -> None:
    small, even = Predicate(lambda v: v < 10, wants_match=False), Predicate(lambda v: v % 2 == 0, wants_match=False)
    trees: dict[str, tuple[Condition, Callable[[int], bool]]] = {
        "and": (all_of(small, even), lambda v: v < 10 and v % 2 == 0),
        "or": (AnyOf((small, even)), lambda v: v < 10 or v % 2 == 0),
        "not and": (negated(all_of(small, even)), lambda v: not (v < 10 and v % 2 == 0)),
        "not not": (negated(negated(small)), lambda v: v < 10),
        "never": (Not(AllOf(())), lambda v: False),
        "or always": (AnyOf((small, AllOf(()))), lambda v: True),
    }
    for name, (tree, expected) in trees.items():
        predicate, check = predicate_of(tree), check_of(tree)
        for value in (1, 2, 11, 12):
            assert bool(predicate is None or predicate(value)) is expected(value), name
            assert bool(check is None or check(PartialMatch("k", 0, value, ()))) is expected(value), name
