"""Groups, greedy loops, `until`, limits between neighbours, negations, conditions on the match so far, time-outs and skip strategies
against patterns that are written out."""

from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine import ConfigError, cep
from engine.cep import Match, Pattern, Skip
from engine.cep.matcher import Found, NfaMatcher
from engine.cep.nfa import compile_pattern
from tests.effort import examples
from tests.engine.cep import word_oracle
from tests.engine.cep.stored import stored_again
from tests.engine.cep.word_oracle import Item

LETTERS = "abc"
UNWANTED, END = "x", "u"
letter_sets = st.sampled_from(["a", "b", "c", "ab", "bc", "ac"])
counts = st.sampled_from([(1, 1), (1, 1), (1, 1), (2, 2), (1, 2), (1, None), (2, None)])
inners = st.sampled_from(["relaxed", "consecutive", "allow_combinations"])
contiguities = st.sampled_from(["next", "followed_by", "followed_by_any"])
looks = st.sampled_from(["", "", "few", "rising"])
streams = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(LETTERS * 3 + UNWANTED + END)), max_size=6)


def seldom(draw: st.DrawFn, one_in: int = 4) -> bool:
    return draw(st.integers(1, one_in)) == one_in


@st.composite
def items(draw: st.DrawFn, *, first: bool, depth: int, before: Item | None, limits: bool) -> Item:
    """Return a stage or a group, as what comes after `before`."""
    least, most = draw(counts)
    optional = seldom(draw) and not (before is not None and before.greedy)
    item = Item("", (), draw(contiguities), least, most, draw(inners), optional)
    if before is not None and not before.optional:
        word = draw(st.sampled_from(["", "", "", "unwanted", "not_next"]))
        item = replace(item, unwanted=UNWANTED) if word == "unwanted" else replace(item, not_next=UNWANTED) if word else item
    if seldom(draw) and depth < 2:
        until = END if most is None and draw(st.booleans()) else ""
        return replace(item, parts=draw(sequences(2, depth=depth + 1, limits=limits)), until=until)
    greedy = item.repeated and least != most and item.inner != "allow_combinations" and draw(st.booleans())
    until = END if most is None and draw(st.booleans()) else ""
    limit = draw(st.sampled_from([None, None, 2, 3])) if limits and (not first or item.repeated) else None
    return replace(item, letters=draw(letter_sets), greedy=greedy, until=until, step_limit_ms=limit, look=draw(looks))


@st.composite
def sequences(draw: st.DrawFn, most: int, *, depth: int = 0, limits: bool = True) -> tuple[Item, ...]:
    """Return stages in order."""
    found: list[Item] = []
    for number in range(draw(st.integers(1, most))):
        found.append(draw(items(first=number == 0, depth=depth, before=found[-1] if found else None, limits=limits)))
    return tuple(found)


def run(
    pattern: Pattern, skip: Skip, gaps: list[tuple[int, str]], *, stored: bool = False, timeouts: bool = False
) -> tuple[Found, list[tuple[int, str]]]:
    """Run to the end of time; values are (place, letter)."""
    matcher = NfaMatcher(compile_pattern(pattern, skip), skip, value_type=tuple[int, str], timeouts=timeouts)
    found, state, time, records = Found(), None, 0, []
    for place, (gap, letter) in enumerate(gaps):
        time += gap
        records.append((time, letter))
        state = matcher.run(state, "k", [(time, (place, letter))], time, found)
        if stored and state is not None:
            state = stored_again(matcher.layout, state)
    matcher.run(state, "k", [], 10_000, found)
    return found, records


def taken(match: Match[Any]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(((stage, place) for stage, values in match.stages.items() for place, _ in values), key=lambda one: one[1]))


@settings(max_examples=examples(500), deadline=None)
@given(sequences(3), streams, st.sampled_from([None, 4, 6]), st.booleans(), st.booleans())
def test_matcher_finds_what_the_words_of_the_pattern_find(
    sequence: tuple[Item, ...], gaps: list[tuple[int, str]], within_ms: int | None, absence: bool, stored: bool
) -> None:
    last = sequence[-1]
    absent = UNWANTED if absence and within_ms is not None and not last.optional else ""
    try:
        found, records = run(word_oracle.pattern_of(sequence, within_ms, absent), cep.skip.none, gaps, stored=stored)
    except ConfigError:  # which ones, tests/engine/cep/test_pattern.py says
        return
    expected = Counter(word_oracle.matches(sequence, records, within_ms, absent))
    assert Counter(map(taken, found.matches)) == expected


@settings(max_examples=examples(100), deadline=None)
@given(sequences(2, limits=False), streams, st.sampled_from([4, 6, 9]), st.booleans())
def test_time_outs_tell_what_was_taken_and_what_it_waited_for(
    sequence: tuple[Item, ...], gaps: list[tuple[int, str]], within_ms: int, stored: bool
) -> None:
    try:
        found, records = run(word_oracle.pattern_of(sequence, within_ms), cep.skip.none, gaps[:5], stored=stored, timeouts=True)
    except ConfigError:
        return
    longest = word_oracle.longest_begun(sequence, records)
    assume(len(list(islice(word_oracle.words(sequence, longest), 1_000))) < 1_000)  # written out it would be endless
    expected = word_oracle.time_outs(sequence, records, within_ms)
    assert {(taken(one), one.end_ms, stage) for one in found.timeouts for stage in one.waited_for} == expected
    assert all(one.start_ms + within_ms == one.end_ms == time for one, time in zip(found.timeouts, found.timeout_times, strict=True))


SKIPS = [cep.skip.to_next, cep.skip.past_last, cep.skip.to_first("0"), cep.skip.to_last("0")]


@settings(max_examples=examples(300), deadline=None)
@given(sequences(3), streams, st.sampled_from([4, 6]), st.sampled_from(SKIPS), st.booleans())
def test_skip_takes_the_matches_in_order_of_their_beginnings_and_leaves_out_what_each_makes_obsolete(
    sequence: tuple[Item, ...], gaps: list[tuple[int, str]], within_ms: int, skip: Skip, stored: bool
) -> None:
    if sequence[0].parts:
        return
    try:
        pattern = word_oracle.pattern_of(sequence, within_ms)
        everything, _ = run(pattern, cep.skip.none, gaps)
    except ConfigError:
        return
    found, _ = run(pattern, skip, gaps, stored=stored)
    expected, obsolete = [], -1
    for match in sorted(map(taken, everything.matches), key=lambda path: path[0][1]):  # of one beginning as they come
        if match[0][1] <= obsolete:
            continue
        expected.append(match)
        of_stage = [place for stage, place in match if stage == "0"]
        if skip.kind == "to_next":
            obsolete = match[0][1]
        elif skip.kind == "past_last":
            obsolete = match[-1][1]
        elif of_stage:
            obsolete = (of_stage[0] if skip.kind == "to_first" else of_stage[-1]) - 1
    assert list(map(taken, found.matches)) == expected
