"""Groups, greedy loops, `until`, limits between neighbours, absence and skip strategies against patterns that are written out."""

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine import ConfigError, cep
from engine.cep import Match, Pattern, Skip
from engine.cep.matcher import Found, NfaMatcher
from engine.cep.nfa import compile_pattern
from tests.effort import examples
from tests.engine.cep import word_oracle
from tests.engine.cep.word_oracle import Item

LETTERS = "abc"
UNWANTED, END = "x", "u"
letter_sets = st.sampled_from(["a", "b", "c", "ab", "bc", "ac"])
counts = st.sampled_from([(1, 1), (1, 1), (1, 1), (2, 2), (1, 2), (1, None), (2, None)])
inners = st.sampled_from(["relaxed", "consecutive", "allow_combinations"])
contiguities = st.sampled_from(["next", "followed_by", "followed_by_any"])
streams = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(LETTERS * 3 + UNWANTED + END)), max_size=7)


@st.composite
def items(draw: st.DrawFn, *, first: bool, in_group: bool, before: Item | None) -> Item:
    """Return a stage, or a group whose first stage is not optional, as what comes after `before`."""
    least, most = draw(counts)
    optional = draw(st.integers(0, 3)) == 0 and not (in_group and first) and not (before is not None and before.greedy)
    contiguity, inner = draw(contiguities), draw(inners)
    unwanted = ""
    if before is not None and not before.optional and before.most == 1 and draw(st.integers(0, 4)) == 0:
        unwanted = UNWANTED
    if not in_group and draw(st.integers(0, 3)) == 0:
        return Item("", draw(sequences(2, in_group=True)), contiguity, least, most, inner, optional, unwanted=unwanted)
    greedy = (least, most) != (1, 1) and least != most and inner != "allow_combinations" and not in_group and draw(st.booleans())
    until = END if most is None and not greedy and draw(st.booleans()) else ""
    limit = (
        draw(st.sampled_from([None, None, 2, 3])) if least == most and not optional and (not first or least > 1) and not in_group else None
    )
    return Item(draw(letter_sets), (), contiguity, least, most, inner, optional, greedy, until, limit, unwanted)


@st.composite
def sequences(draw: st.DrawFn, most: int, *, in_group: bool = False) -> tuple[Item, ...]:
    """Return stages in order."""
    found: list[Item] = []
    for number in range(draw(st.integers(1, most))):
        found.append(draw(items(first=number == 0, in_group=in_group, before=found[-1] if found else None)))
    return tuple(found)


def run(pattern: Pattern, skip: Skip, gaps: list[tuple[int, str]], *, stored: bool = False) -> tuple[Found, list[tuple[int, str]]]:
    """Run to the end of time; values are (place, letter)."""
    matcher = NfaMatcher(compile_pattern(pattern, skip), skip, value_type=tuple[int, str])
    found, state, time, records = Found(), None, 0, []
    for place, (gap, letter) in enumerate(gaps):
        time += gap
        records.append((time, letter))
        state = matcher.run(state, "k", [(time, (place, letter))], time, found)
        if stored and state is not None:
            state = matcher.decode(matcher.encode(state))
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
    absent = UNWANTED if absence and within_ms is not None and not last.optional and last.most == 1 and not last.parts else ""
    try:
        found, records = run(word_oracle.pattern_of(sequence, within_ms, absent), cep.skip.none, gaps, stored=stored)
    except ConfigError:  # which ones, tests/engine/cep/test_pattern.py says
        return
    expected = Counter(word_oracle.matches(sequence, records, within_ms, absent))
    assert Counter(map(taken, found.matches)) == expected


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
