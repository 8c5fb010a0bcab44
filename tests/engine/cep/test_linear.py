"""The fast path gives what the matcher of all patterns gives."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import RecordError, cep
from engine.cep import Pattern, Skip
from engine.cep.linear import LinearMatcher, RepetitionMatcher, linear_matcher
from engine.cep.matcher import Found, Matcher, NfaMatcher
from engine.cep.nfa import compile_pattern
from tests.effort import examples
from tests.engine.cep.stored import stored_again

SKIPS = [cep.skip.none, cep.skip.to_next, cep.skip.past_last]


def fits(letters: str) -> Any:
    return lambda value: value[1] in letters


@st.composite
def patterns(draw: st.DrawFn) -> Pattern:
    letter_sets = st.sampled_from(["a", "b", "ab", "abc", None])
    pattern: Any = None
    for number in range(draw(st.integers(1, 3))):
        letters = draw(letter_sets)
        where = None if letters is None else fits(letters)
        name = f"s{number}"
        if pattern is None:
            pattern = cep.begin(name, where)
        else:
            pattern = getattr(pattern, draw(st.sampled_from(["next", "followed_by"])))(name, where)
        times = draw(st.integers(1, 3))
        if times > 1:
            pattern = pattern.times(times)
            if draw(st.booleans()):
                pattern = pattern.consecutive()
    within_ms = draw(st.sampled_from([None, 3, 8]))
    return pattern if within_ms is None else pattern.within(f"{within_ms}ms")  # type: ignore[no-any-return]


def run(matcher: Matcher, records: list[tuple[int, Any]], cuts: list[int], *, stored: bool) -> tuple[Found, list[int]]:
    """Run records in pieces; also return the deadlines in between."""
    found, state, deadlines = Found(), None, []
    for start, stop in zip([0, *cuts], [*cuts, len(records)], strict=True):
        piece = records[start:stop]
        if piece:
            state = matcher.run(state, "k", piece, piece[-1][0], found)
        if state is not None:
            deadlines.append(matcher.deadline_ms(state))
            if stored:
                state = stored_again(matcher.layout, state)
    return found, deadlines


@st.composite
def repetitions(draw: st.DrawFn) -> Pattern:
    pattern = cep.begin("s", draw(st.sampled_from([None, fits("ab")]))).times(draw(st.integers(1, 4)))
    return pattern.within(f"{draw(st.integers(1, 6))}ms") if draw(st.booleans()) else pattern


def check_the_same(data: st.DataObject, pattern: Pattern) -> None:
    skip = data.draw(st.sampled_from(SKIPS))
    time, records = 0, []
    for place, (gap, letter) in enumerate(data.draw(st.lists(st.tuples(st.integers(0, 4), st.sampled_from("abcx")), max_size=14))):
        time += gap
        records.append((time, (place, letter)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(records)), max_size=4)))
    options: dict[str, Any] = {
        "value_type": tuple[int, str],
        "max_partials": data.draw(st.sampled_from([1, 3, 10_000])),
        "on_too_many": data.draw(st.sampled_from(["drop_oldest", "drop_newest"])),
    }
    fast = linear_matcher(pattern, skip, **options)
    assert fast is not None
    stored = data.draw(st.booleans())
    expected, expected_deadlines = run(NfaMatcher(compile_pattern(pattern, skip), skip, **options), records, cuts, stored=stored)
    got, deadlines = run(fast, records, cuts, stored=stored)
    assert got == expected
    assert deadlines == expected_deadlines


@settings(max_examples=examples(200), deadline=None)
@given(st.data(), patterns())
def test_sequence_on_the_fast_path_gives_what_the_general_matcher_gives(data: st.DataObject, pattern: Pattern) -> None:
    check_the_same(data, pattern)


@settings(max_examples=examples(200), deadline=None)
@given(st.data(), repetitions())
def test_repetition_on_the_fast_path_gives_what_the_general_matcher_gives(data: st.DataObject, pattern: Pattern) -> None:
    check_the_same(data, pattern)


@settings(max_examples=examples(100), deadline=None)
@given(
    repetitions(), st.sampled_from(SKIPS), st.lists(st.tuples(st.integers(0, 4), st.sampled_from("abcx")), max_size=14), st.integers(0, 14)
)
def test_repetition_that_tells_its_story_gives_the_same(pattern: Pattern, skip: Skip, gaps: list[tuple[int, str]], cut: int) -> None:
    matcher = RepetitionMatcher(pattern, skip)
    times = [sum(gap for gap, _ in gaps[: place + 1]) for place in range(len(gaps))]
    records = [(time, (place, letter)) for place, (time, (_, letter)) in enumerate(zip(times, gaps, strict=True))]
    plain, telling = Found(), Found(story=[])
    states: list[Any] = [None, None]
    for piece in (records[:cut], records[cut:]):
        until = piece[-1][0] + 1 if piece else 0
        states = [matcher.run(state, "k", piece, until, found) for state, found in zip(states, (plain, telling), strict=True)]
        assert states[0] == states[1]
    assert (plain.times, plain.matches) == (telling.times, telling.matches)


@pytest.mark.parametrize("matcher", ["best", "general"])
@pytest.mark.parametrize("pattern", [cep.begin("s").times(2), cep.begin("s").next("t")])
def test_limit_on_the_fast_path_a_record_exactly_as_far_away_is_outside(pattern: Pattern, matcher: str) -> None:
    limited = pattern.within("3ms")
    general = NfaMatcher(compile_pattern(limited, cep.skip.none), cep.skip.none)
    chosen = linear_matcher(limited, cep.skip.none) if matcher == "best" else general
    assert chosen is not None
    found = Found()
    chosen.run(None, "k", [(0, "a"), (3, "b"), (5, "c"), (8, "d")], 8, found)
    assert [(match.start_ms, match.end_ms) for match in found.matches] == [(3, 5)]


@pytest.mark.parametrize(
    ("pattern", "skip", "kind"),
    [
        (cep.begin("a").times(3), cep.skip.past_last, RepetitionMatcher),
        (cep.begin("a").times(3).consecutive(), cep.skip.none, LinearMatcher),
        (cep.begin("a").followed_by("b").times(2), cep.skip.none, LinearMatcher),
        (cep.begin("a").followed_by_any("b"), cep.skip.none, type(None)),
        (cep.begin("a").one_or_more(), cep.skip.none, type(None)),
        (cep.begin("a").times(1, 2), cep.skip.none, type(None)),
        (cep.begin("a").next("b").optional(), cep.skip.none, type(None)),
        (cep.begin("a").times(2).allow_combinations(), cep.skip.none, type(None)),
        (cep.begin("a").next(cep.begin("b")), cep.skip.none, type(None)),
        (cep.begin("a").not_next("n").next("b"), cep.skip.none, type(None)),
        (cep.begin("a").next("b", lambda v, m: True), cep.skip.none, type(None)),
        (cep.begin("a").next("b").within("5s", between="previous_and_current"), cep.skip.none, type(None)),
        (cep.begin("a").times(3), cep.skip.to_last("a"), type(None)),
    ],
)
def test_fast_path_takes_plain_sequences_only(pattern: Pattern, skip: Skip, kind: type[Any]) -> None:
    assert type(linear_matcher(pattern, skip)) is kind


def test_fast_path_max_partials_fails_if_asked() -> None:
    matcher = linear_matcher(cep.begin("a").next("b").next("c"), cep.skip.none, max_partials=1, on_too_many="fail")
    assert matcher is not None
    with pytest.raises(RecordError, match="max_partials"):
        matcher.run(None, "k", [(1, "x"), (2, "y")], 2, Found())


@pytest.mark.parametrize("on_too_many", ["drop_oldest", "drop_newest"])
def test_fast_path_max_records_bounds_what_a_key_holds(on_too_many: Any) -> None:
    pattern = cep.begin("s", fits("a")).followed_by("t", fits("b")).times(3).followed_by("u", fits("c"))
    matcher = linear_matcher(pattern, cep.skip.none, max_records=10, on_too_many=on_too_many)
    assert isinstance(matcher, LinearMatcher)
    found = Found()
    state = matcher.run(None, "k", [(at, (at, letter)) for at, letter in enumerate("aaaabbaaa")], 9, found)
    assert state is not None and sum(map(len, state[1])) <= 10
    begun = [run[0][0] for run in state[1]]
    assert begun == ([2, 3, 6, 7, 8] if on_too_many == "drop_oldest" else [0, 1, 2, 6])
    assert found.dropped_partials == 7 - len(begun)


def test_fast_path_max_records_fails_if_asked() -> None:
    matcher = linear_matcher(cep.begin("a").times(3), cep.skip.none, max_records=1, on_too_many="fail")
    assert isinstance(matcher, LinearMatcher), "the one for repetitions would hold two"
    with pytest.raises(RecordError, match=r"more than 1 records in partial matches of the pattern \(max_records\)"):
        matcher.run(None, "k", [(0, "a"), (1, "b")], 1, Found())
