"""Corners of patterns that Apache Flink's compiler passes over in silence, or that it reads otherwise than its documentation says."""

from collections.abc import Callable
from typing import Any

import pytest

from engine import ConfigError, cep
from engine.cep import Pattern
from engine.cep.matcher import Found, NfaMatcher
from engine.cep.nfa import compile_pattern


def is_(letters: str) -> Callable[[str], bool]:
    return lambda value: value[0] in letters


def found_in(pattern: Pattern, text: str, *, timeouts: bool = False) -> Found:
    """Run over records such as "a1 b5", letter and second, to the end of time."""
    found, state = Found(), None
    matcher = NfaMatcher(compile_pattern(pattern, cep.skip.none), cep.skip.none, value_type=str, timeouts=timeouts)
    for word in text.split():
        time = int(word[1:]) * 1_000
        state = matcher.run(state, "k", [(time, word)], time, found)
    matcher.run(state, "k", [], 10**9, found)
    return found


def taken(pattern: Pattern, text: str) -> list[str]:
    return [" ".join(word for words in match.stages.values() for word in words) for match in found_in(pattern, text).matches]


def test_group_first_stage_keeps_its_own_words_between_its_repetitions() -> None:
    group = cep.begin("a", is_("a")).times(2).consecutive().followed_by("b", is_("b"))
    pattern = cep.begin("x", is_("x")).followed_by(group)
    assert taken(pattern, "x1 a2 a3 b4") == ["x1 a2 a3 b4"]
    assert taken(pattern, "x1 a2 c3 a4 b5") == []


def test_group_in_a_group_obeys_the_words_before_both() -> None:
    inner = cep.begin("a", is_("a")).followed_by("b", is_("b"))
    pattern = cep.begin("x", is_("x")).followed_by(cep.begin(inner).followed_by("c", is_("c")))
    assert taken(pattern, "x1 o2 a3 b4 c5") == ["x1 a3 b4 c5"]


def test_until_of_a_group_ends_the_groups_inside_it() -> None:
    inner = cep.begin("a", is_("a"))
    pattern = cep.begin("x", is_("x")).followed_by(cep.begin(cep.begin(inner)).one_or_more().until(is_("u")))
    assert taken(pattern, "x1 a2 u3 a4") == ["x1 a2"]


def test_absence_after_a_loop_comes_out_at_the_limit_also_if_nothing_follows() -> None:
    pattern = cep.begin("a", is_("a")).one_or_more().not_followed_by("b", is_("b")).within("10s")
    found = found_in(pattern, "a1", timeouts=True)
    assert ([match.end_ms for match in found.matches], found.timeouts) == ([11_000], [])
    assert sorted(taken(pattern, "a1 a2")) == ["a1", "a1 a2", "a2"]
    assert taken(pattern, "a1 b2 a3") == ["a3"]


def test_limit_between_neighbours_of_a_stage_that_may_be_left_out_does_not_bind_the_next_one() -> None:
    pattern = cep.begin("a", is_("a")).followed_by("b", is_("b")).optional().within("2s", between="previous_and_current")
    pattern = pattern.followed_by("c", is_("c"))
    assert taken(pattern, "a1 b2 c9") == ["a1 b2 c9", "a1 c9"]
    assert taken(pattern, "a1 b4 c9") == ["a1 c9"]


def test_limit_between_neighbours_of_a_loop_ends_the_loop_and_not_the_match() -> None:
    pattern = cep.begin("a", is_("a")).one_or_more().within("2s", between="previous_and_current").followed_by("c", is_("c"))
    assert taken(pattern, "a1 a2 c9") == ["a1 a2 c9", "a1 c9", "a2 c9"]
    assert taken(pattern, "a1 a4 c9") == ["a1 c9", "a4 c9"]


def test_negation_is_in_force_between_repetitions_also_after_a_record_that_was_passed_over() -> None:
    pattern = cep.begin("b", is_("b")).times(1, 2).allow_combinations().not_followed_by("x", is_("x")).followed_by("c", is_("c"))
    assert taken(pattern, "b1 x2 b3 c4") == taken(pattern, "b1 o1 x2 b3 c4") == ["b3 c4"]


@pytest.mark.parametrize("most", [3, None])
def test_negation_behind_a_repeated_group_is_in_force_between_its_rounds_also_after_a_record_that_was_passed_over(most: int | None) -> None:
    group = cep.begin("a", is_("a"))
    rounds = cep.begin(group).times_or_more(1) if most is None else cep.begin(group).times(1, most)
    pattern = rounds.not_followed_by("x", is_("x")).followed_by("c", is_("c"))
    assert taken(pattern, "a1 x2 a3 c4") == taken(pattern, "a1 o1 x2 a3 c4") == ["a3 c4"]
    assert taken(pattern, "a1 o2 a3 o3 c4") == ["a1 a3 c4", "a1 c4", "a3 c4"]


def test_negation_behind_a_group_leaves_alone_what_comes_between_the_records_of_a_round() -> None:
    group = cep.begin("a", is_("a")).followed_by("b", is_("b")).optional()
    pattern = cep.begin(group).not_followed_by("x", is_("x")).followed_by("c", is_("c"))
    assert taken(pattern, "a1 x2 b3 c4") == taken(pattern, "a1 o1 x2 b3 c4") == ["a1 b3 c4"]
    assert taken(pattern, "a1 x2 c4") == taken(pattern, "a1 b2 x3 c4") == []


def test_negation_behind_a_group_leaves_alone_each_way_that_goes_on_inside_it() -> None:
    inner = cep.begin("a", is_("a")).optional().followed_by("b", is_("b"))
    pattern = cep.begin(cep.begin("o", is_("o")).followed_by(inner).optional())
    pattern = pattern.not_followed_by("x", is_("x")).followed_by("c", is_("c"))
    assert taken(pattern, "o1 x2 b3 c4") == ["o1 b3 c4"]
    assert taken(pattern, "o1 x2 a3 b4 c5") == ["o1 a3 b4 c5", "o1 b4 c5"]
    assert taken(pattern, "o1 x2 c3") == []


def test_greedy_optional_group_behind_a_negation_leaves_nothing_that_it_could_take() -> None:
    group = cep.begin("g", is_("g")).followed_by("a", is_("ac")).one_or_more().greedy()
    pattern = cep.begin("o", is_("o")).not_followed_by("x", is_("x")).followed_by(group).optional().followed_by("c", is_("bc"))
    assert taken(pattern, "o1 c2") == []
    assert taken(pattern, "o1 b2") == ["o1 b2"]


def test_greedy_optional_loop_behind_a_negation_leaves_nothing_that_it_could_take_until_it_is_ended() -> None:
    loop = cep.begin("o", is_("o")).not_followed_by("x", is_("x")).followed_by("a", is_("a")).one_or_more().optional().greedy()
    pattern = loop.until(is_("u")).next("c", is_("au"))
    assert taken(pattern, "o1 a2") == []
    assert taken(pattern, "o1 a2 u3") == ["o1 a2 u3"]
    assert taken(pattern, "o1 u2") == ["o1 u2"]


def test_negation_before_a_group_is_in_force_until_its_first_record_whichever_stage_takes_it() -> None:
    group = cep.begin("b", is_("b")).optional().followed_by("c", is_("c"))
    pattern = cep.begin("a", is_("a")).not_followed_by("x", is_("x")).followed_by(group)
    assert taken(pattern, "a1 x2 c3") == taken(pattern, "a1 o1 x2 c3") == taken(pattern, "a1 o1 x2 b3 c4") == []
    assert taken(pattern, "a1 b2 x3 c4") == ["a1 b2 c4"]


def test_negation_behind_a_group_is_in_force_before_a_round_also_if_its_first_stage_is_left_out() -> None:
    group = cep.begin("a", is_("a")).optional().followed_by("b", is_("b"))
    pattern = cep.begin(group).times(2).not_followed_by("x", is_("x")).followed_by("c", is_("c"))
    assert taken(pattern, "b1 o1 x2 b3 c4") == taken(pattern, "b1 o1 x2 a3 b3 c4") == []
    assert taken(pattern, "b1 a2 x3 b4 c5") == ["a2 b1 b4 c5"]


def test_negations_one_after_the_other_are_all_in_force_between_repetitions() -> None:
    pattern = (
        cep.begin("a", is_("a")).one_or_more().not_followed_by("x", is_("x")).not_followed_by("y", is_("y")).followed_by("c", is_("c"))
    )
    assert taken(pattern, "a1 o1 y2 a3 c4") == taken(pattern, "a1 o1 x2 a3 c4") == ["a3 c4"]


def test_not_next_behind_a_group_counts_once_the_group_may_be_over() -> None:
    rounds = cep.begin(cep.begin("a", is_("a"))).times(2, 3)
    pattern = rounds.not_next("x", is_("x")).followed_by("c", is_("c"))
    assert taken(pattern, "a1 x2 a3 c4") == ["a1 a3 c4"]
    assert taken(pattern, "a1 a2 x3 a4 c5") == ["a2 a4 c5"]


def test_negation_before_a_stage_is_over_with_its_first_record() -> None:
    pattern = cep.begin("c", is_("c")).not_followed_by("x", is_("x")).followed_by_any("b", is_("b")).times(1, 2).allow_combinations()
    assert taken(pattern, "c1 b2 x3 b4") == taken(pattern, "c1 b2 o2 x3 b4") == ["c1 b2", "c1 b2 b4"]


def test_until_ends_the_greed_of_a_loop() -> None:
    pattern = cep.begin("a", is_("a")).one_or_more().greedy().until(is_("u")).followed_by("b", is_("ab"))
    assert taken(pattern, "a1 o2 a3") == []
    assert taken(pattern, "a1 o2 u3 a4") == ["a1 a4"]


def test_greed_reaches_over_a_not_next() -> None:
    pattern = cep.begin("a", is_("a")).one_or_more().greedy().not_next("x", is_("x")).followed_by("b", is_("ab"))
    assert taken(pattern, "a1 o2 a3 b4") == ["a1 a3 b4", "a3 b4"]


def test_time_out_tells_what_it_waited_for() -> None:
    pattern = cep.begin("a", is_("a")).one_or_more().followed_by("b", is_("b")).optional().followed_by("c", is_("c")).within("5s")
    (timed_out,) = found_in(pattern, "a1", timeouts=True).timeouts
    assert timed_out == cep.TimedOut("k", 1_000, 6_000, {"a": ["a1"], "b": [], "c": []}, ("a", "b", "c"))


A, B = cep.begin("a", is_("a")), is_("b")


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (A.not_next("x", B).followed_by("b", B).optional(), "all that comes after it is optional"),
        (cep.begin("o", B).followed_by(A.not_next("x", B).followed_by("b", B).optional()), "all that comes after it is optional"),
        (A.not_followed_by("x", B).within("1s", between="previous_and_current").followed_by("b", B), "set it on the stage after it"),
        (A.not_next("x", B).within("1s", between="previous_and_current"), "set it on the stage after it"),
        (A.one_or_more().not_followed_by("x", B).within("1s", between="previous_and_current"), "may take more; give the whole"),
        (cep.begin(A.followed_by("b", B).one_or_more().greedy()).times(2), "leave nothing to the next round"),
        (cep.begin(A.optional()).times(2), "a round of it could take no record"),
        (cep.begin("g", B).one_or_more().greedy().followed_by(A.optional().followed_by("b", B)), "right after a greedy stage"),
    ],
)
def test_pattern_whose_meaning_would_be_uncertain_is_refused_when_compiled(pattern: Pattern, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        compile_pattern(pattern, cep.skip.none)


def test_optional_after_a_greedy_stage_is_refused_also_behind_a_negation() -> None:
    greedy: Any = cep.begin("g", B).one_or_more().greedy().not_followed_by("x", B).followed_by("c", B)
    with pytest.raises(ConfigError, match="right after a greedy stage"):
        greedy.optional()


@pytest.mark.parametrize("text", ["a1 u2 c3", "a1 u2 b3 c4"])
def test_record_that_ends_a_group_may_be_passed_over_by_what_is_behind_it_though_the_group_ends_with_what_was_left_out(text: str) -> None:
    group = cep.begin("a", is_("a")).followed_by("b", is_("b")).optional()
    pattern = cep.begin(group).one_or_more().until(is_("u")).followed_by("c", is_("c"))
    assert taken(pattern, text) == [" ".join(word for word in text.split() if word[0] in "ac")]
