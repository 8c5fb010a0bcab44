"""The pattern algebra: what it builds, and what it refuses at declaration."""

from collections.abc import Callable
from typing import Any

import pytest

from engine import ConfigError, cep
from engine.cep import Pattern
from engine.cep.conditions import AllOf, AnyOf
from engine.cep.nfa import compile_pattern


def test_pattern_chained_leaves_the_piece_as_it_was() -> None:
    piece = cep.begin("a")
    piece.followed_by("b").times(2)
    assert piece.next("b").stage_names == ("a", "b")
    assert piece.stage_names == ("a",)


def test_stage_names_leave_negations_out_and_name_the_stages_of_groups() -> None:
    pattern = cep.begin("a").not_followed_by("n").followed_by(cep.begin("b").next("c")).next("d")
    assert pattern.stage_names == ("a", "b", "c", "d")


def test_limit_several_given_the_smallest_counts() -> None:
    inner = cep.begin("b").followed_by("c").within("3s")
    assert cep.begin("a").within("1m").followed_by(inner).within("5s").limit_ms == 3_000


def test_where_twice_asks_for_both_and_or_where_for_either() -> None:
    pattern = cep.begin("a", where=lambda v: v > 1).where(lambda v: v < 9)
    assert isinstance(pattern.stages[0].condition, AllOf)
    assert isinstance(pattern.or_where(lambda v: v == 0).stages[0].condition, AnyOf)


def test_times_from_zero_is_optional() -> None:
    stage = cep.begin("a").followed_by("b").times(0, 2).stages[-1]
    assert (stage.optional, stage.least, stage.most) == (True, 1, 2)


def test_signature_tells_shapes_apart_but_not_conditions() -> None:
    one = cep.begin("a", where=lambda v: v == 1).followed_by("b").one_or_more().greedy().within("5m")
    other = cep.begin("a", where=lambda v: v == 2).followed_by("b").one_or_more().greedy().within("5m")
    assert one.signature == other.signature
    assert one.signature != cep.begin("a").followed_by("b").one_or_more().within("5m").signature


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: cep.begin(""), "neither the name of a stage nor a pattern"),
    (lambda: cep.begin("a").next("a"), "has a stage of that name already"),
    (lambda: cep.begin("a").next(cep.begin("b").next("a")), "has a stage of that name already"),
    (lambda: cep.begin("a", where=3), "is not a condition"),  # type: ignore[arg-type]
    (lambda: cep.begin("a", where=lambda: True), r"f\(value\) or f\(value, match\)"),
    (lambda: cep.begin("a", where=lambda a, b, c: True), r"f\(value\) or f\(value, match\)"),
    (lambda: cep.begin("a", of="Order"), "is not a type"),  # type: ignore[arg-type]
    (lambda: cep.begin(cep.begin("a"), where=lambda v: True), "a group has no condition"),
    (lambda: cep.begin(cep.begin("a")).where(lambda v: True), "a group has no condition"),
    (lambda: cep.begin("a").times(0), "at least one repetition"),
    (lambda: cep.begin("a").times(3, 2), "at least one repetition"),
    (lambda: cep.begin("a").times_or_more(0), "not a positive number"),
    (lambda: cep.begin("a").times(2).one_or_more(), "has a quantifier already"),
    (lambda: cep.begin("a").not_next("b").times(2), "is a negation and cannot be repeated"),
    (lambda: cep.begin("a").not_next("b").optional(), "is a negation and cannot be optional"),
    (lambda: cep.begin("a").optional().optional(), "is optional already"),
    (lambda: cep.begin("a").optional().not_followed_by("b"), "a negation cannot follow an optional stage"),
    (lambda: cep.begin("a").not_next(cep.begin("b")), "a group cannot be negated"),  # type: ignore[arg-type]
    (lambda: cep.begin("a").greedy(), "is not repeated"),
    (lambda: cep.begin("a").consecutive(), "is not repeated"),
    (lambda: cep.begin("a").one_or_more().allow_combinations().greedy(), "asks for the opposite"),
    (lambda: cep.begin("a").one_or_more().greedy().allow_combinations(), "asks for the opposite"),
    (lambda: cep.begin("a").one_or_more().consecutive().allow_combinations(), "is consecutive already"),
    (lambda: cep.begin(cep.begin("a")).one_or_more().greedy(), "a group cannot be greedy"),
    (lambda: cep.begin("a").one_or_more().greedy().next("b").optional(), "right after a greedy stage"),
    (lambda: cep.begin("a").times(2).until(lambda v: True), "only a loop has an end"),
    (lambda: cep.begin("a").one_or_more().until(lambda v: True).until(lambda v: True), "there is one already"),
    (lambda: cep.begin("a").within(300), "is not a duration"),  # type: ignore[arg-type]
    (lambda: cep.begin("a").within("0s"), "must be positive"),
    (lambda: cep.begin("a").within("5s", between="neighbours"), "is not known"),  # type: ignore[arg-type]
    (lambda: cep.begin("a").within("5s", between="previous_and_current"), "has no record before it"),
    (lambda: cep.begin("a").next(cep.begin("b")).within("5s", between="previous_and_current"), "on the group's own stages"),
    (lambda: cep.skip.to_first(""), "not the name of a stage"),
    (lambda: cep.skip.to_last("a", on_miss="raise"), "is not known"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("declare", "reason"), REFUSED)
def test_pattern_that_makes_no_sense_is_refused_with_the_reason(declare: Callable[[], Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        declare()


INCOMPLETE: list[tuple[Pattern, cep.Skip, str]] = [
    (cep.begin("a").not_followed_by("b"), cep.skip.none, "say with within"),
    (cep.begin("a").next(cep.begin("b").not_next("c")).next("d"), cep.skip.none, "a group cannot end with a negation"),
    (cep.begin("a").next(cep.begin(cep.begin("b").not_next("c"))), cep.skip.none, "a group cannot end with a negation"),
    (
        cep.begin("a").next(cep.begin("b").optional().next("c").optional()).one_or_more(),
        cep.skip.none,
        "a round of it could take no record",
    ),
    (cep.begin("a").next("b"), cep.skip.to_last("c"), "the pattern has no such stage; it has a, b"),
    (cep.begin("a").not_next("n").next("b"), cep.skip.to_first("n"), "the pattern has no such stage"),
]


@pytest.mark.parametrize(("pattern", "skip", "reason"), INCOMPLETE)
def test_pattern_that_cannot_be_complete_is_refused_when_compiled(pattern: Pattern, skip: cep.Skip, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        compile_pattern(pattern, skip)


def test_absence_at_the_end_with_a_limit_between_neighbours_compiles() -> None:
    pattern = cep.begin("a").not_followed_by("b").within("5s", between="previous_and_current")
    assert compile_pattern(pattern, cep.skip.none).timed
