"""A second oracle that shares nothing with the engine, for what `brute_force` leaves out: groups (in groups), greedy loops, `until`,
limits between neighbours, negations, conditions on the match so far, absence at the end, what runs out of time.

A pattern is written out: each choice of how often its parts are repeated, and which are left out, is a *word* of places, each of which
takes one record. A match is a word and a record for each of its places, so that every place gets along with what lies before it:

    a (b c?){1,2}   ──►   a b    a b c    a b b    a b c b    a b b c    a b c b c

What a negation forbids must not come between the repetitions of the stage before it either, as in Apache Flink; behind a group, not
between its rounds, nor between the repetitions of its last stage. A not_next there holds once the group may be over. Between two records
of one round what is behind the group forbids nothing, also where the later one could have been left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine import cep
from engine.cep import Pattern

Record = tuple[int, str]


@dataclass(frozen=True)
class Item:
    """A stage (`letters`: what it takes) or a group (`parts`).

    `unwanted`, `not_next`: letters of a not_followed_by and of a not_next before it. `look`: what the stage also asks of the match so
    far: "few" that it took less than two records, "rising" that its letter is not below the last one taken by any stage.
    """

    letters: str = ""
    parts: "tuple[Item, ...]" = ()
    contiguity: str = "followed_by"
    least: int = 1
    most: int | None = 1
    inner: str = "relaxed"
    optional: bool = False
    greedy: bool = False
    until: str = ""
    step_limit_ms: int | None = None
    unwanted: str = ""
    not_next: str = ""
    look: str = ""

    @property
    def repeated(self) -> bool:
        """True if it has a quantifier."""
        return (self.least, self.most) != (1, 1)


@dataclass(frozen=True)
class Greedy:
    """A greedy stage behind us: what it could take is not for others, until a record ends it."""

    stage: str
    letters: str
    look: str
    until: str


@dataclass(frozen=True)
class Place:
    """One record of a word: of which stage, and what has to hold since the record before.

    `rule`: next, followed_by or followed_by_any; `refused`: letters that nothing in between has; `not_next`: that the very next record
    has not; `avoided`: greedy stages before it; `until`: letters that it does not take itself.
    """

    stage: str
    letters: str
    look: str
    rule: str
    refused: str = ""
    not_next: str = ""
    avoided: tuple[Greedy, ...] = ()
    until: str = ""
    limit_ms: int | None = None


Word = tuple[Place, ...]
RULES = {"relaxed": "followed_by", "consecutive": "next", "allow_combinations": "followed_by_any"}


def words(items: Sequence[Item], longest: int, absent: str = "") -> Iterator[Word]:
    """Yield the words of a pattern that are not longer than so many records, and the empty one if everything may be left out."""
    yield from _sequence(items, 0, longest, "", Before(), absent)


@dataclass(frozen=True)
class Before:
    """What the places before a stage ask of its first record."""

    refused: str = ""
    not_next: str = ""
    avoided: tuple[Greedy, ...] = ()


def _sequence(
    items: Sequence[Item], at: int, longest: int, name: str, before: Before, following: str, not_following: str = ""
) -> Iterator[Word]:
    """Yield the words of the stages from a place on; `following`: letters of a not_followed_by (`not_`: a not_next) behind the sequence."""
    if at == len(items):
        yield ()
        return
    item, here = items[at], f"{name}{at}"
    before = replace(before, refused=before.refused + item.unwanted, not_next=before.not_next + item.not_next)
    after = items[at + 1].unwanted if at + 1 < len(items) else following
    not_after = items[at + 1].not_next if at + 1 < len(items) else not_following
    avoids = _greedy(item, here)
    passed = replace(before, avoided=before.avoided + avoids)
    if item.optional:
        yield from _sequence(items, at + 1, longest, name, passed, following, not_following)
    most = longest if item.most is None else min(item.most, longest)
    for count in range(item.least, max(most, item.least) + 1):
        for word in _rounds(item, count, longest, here, after, not_after):
            if not word:  # a group of which everything is left out
                yield from _sequence(items, at + 1, longest, name, passed, following, not_following)
                continue
            head = word[0]
            first = replace(
                head,
                refused=head.refused + before.refused,
                not_next=head.not_next + before.not_next,
                avoided=head.avoided + before.avoided,
            )
            for rest in _sequence(items, at + 1, longest - len(word), name, Before(avoided=avoids), following, not_following):
                yield (first, *word[1:], *rest)


def _greedy(item: Item, name: str) -> tuple[Greedy, ...]:
    """Return the greedy stage that a stage or a group ends with."""
    if item.parts:
        return _greedy(item.parts[-1], f"{name}.{len(item.parts) - 1}")
    return (Greedy(name, item.letters, item.look, item.until),) if item.greedy else ()


def _rounds(item: Item, count: int, longest: int, name: str, after: str, not_after: str) -> Iterator[Word]:
    done: list[Word] = [()]
    for number in range(count):
        rule = RULES[item.inner] if number else item.contiguity
        longer: list[Word] = []
        for word in done:
            if item.parts:
                may_be_over = not_after if number + 1 >= item.least else ""
                rounds = _sequence(item.parts, 0, longest - len(word), f"{name}.", Before(), after, may_be_over)
                ended = item.until
                refused, very_next = (after, not_after if number >= item.least else "") if number else ("", "")
            else:
                refused = item.until + after if number else ""
                very_next = not_after if number >= item.least else ""
                place = Place(name, item.letters, item.look, rule, refused, very_next, (), item.until, item.step_limit_ms)
                rounds, ended = iter([(place,)]), ""
                refused = very_next = ""  # the place has them
            for one in rounds:
                if len(word) + len(one) <= longest:
                    # Where the first stage of a group is left out, the words before the next one count, as outside of groups.
                    begins = bool(one) and (not item.parts or set(one[0].stage.removeprefix(f"{name}.")) <= {"0", "."})
                    head = [replace(one[0], rule=rule) if begins else one[0]] if one else []
                    head = [replace(one, refused=one.refused + refused, not_next=one.not_next + very_next) for one in head]
                    whole = [replace(place, refused=place.refused + ended, until=place.until + ended) for place in (*head, *one[1:])]
                    longer.append((*word, *whole))
        done = longer
    yield from done


Taken = tuple[tuple[str, int], ...]


def matches(items: Sequence[Item], records: Sequence[Record], within_ms: int | None, absent: str = "") -> list[Taken]:
    """Return every match as (stage, place of the record); with `absent` none of these letters may follow until the limit."""
    nothing = Place("absent", "", "", "followed_by_any", absent, avoided=_greedy(items[-1], str(len(items) - 1)))
    found = []
    for word in filter(None, words(items, len(records), absent)):  # a match takes at least one record
        for taken in _placed(word, records, within_ms, ()):
            if absent and within_ms is not None:
                end_ms = records[taken[0][1]][0] + within_ms
                later = [at for at in range(taken[-1][1] + 1, len(records)) if records[at][0] < end_ms]
                if not all(_passed_over(nothing, records, taken, at) for at in later):
                    continue
            found.append(taken)
    return found


TimedOut = tuple[Taken, int, str]


def time_outs(items: Sequence[Item], records: Sequence[Record], within_ms: int) -> set[TimedOut]:
    """Return what ran out of time: what had been taken, when it ended, and a stage that it waited for."""
    ways = dict.fromkeys(
        (word[:length], word[length]) for word in words(items, longest_begun(items, records)) for length in range(1, len(word))
    )
    found: set[TimedOut] = set()
    for before, place in ways:
        for taken in _placed(before, records, within_ms, ()):
            end_ms = records[taken[0][1]][0] + within_ms
            later = [at for at in range(taken[-1][1] + 1, len(records)) if records[at][0] < end_ms]
            if all(_passed_over(place, records, taken, at) for at in later):
                found.add((taken, end_ms, place.stage))
    return found


def longest_begun(items: Sequence[Item], records: Sequence[Record]) -> int:
    """Return how long a word may be of which a part is taken: all records, and the shortest rest."""
    return len(records) + sum(map(_shortest, items))


def _shortest(item: Item) -> int:
    return item.least * (sum(map(_shortest, item.parts)) if item.parts else 1)


def _placed(word: Word, records: Sequence[Record], within_ms: int | None, taken: Taken) -> Iterator[Taken]:
    if len(taken) == len(word):
        yield taken
        return
    place = word[len(taken)]
    for at in range(taken[-1][1] + 1 if taken else 0, len(records)):
        time = records[at][0]
        if not _takes(place, records, taken, at):
            continue
        if taken:
            before = taken[-1][1]
            if not all(_passed_over(place, records, taken, other) for other in range(before + 1, at)):
                continue
            if place.limit_ms is not None and time - records[before][0] >= place.limit_ms:
                continue
            if within_ms is not None and time - records[taken[0][1]][0] >= within_ms:
                continue
        yield from _placed(word, records, within_ms, (*taken, (place.stage, at)))


def _takes(place: Place, records: Sequence[Record], taken: Taken, at: int) -> bool:
    letter = records[at][1]
    if letter in place.until or not _fits(place.stage, place.letters, place.look, records, taken, at):
        return False
    if taken and at == taken[-1][1] + 1 and letter in place.not_next:
        return False
    return not _avoided(place, records, taken, at)


def _passed_over(place: Place, records: Sequence[Record], taken: Taken, at: int) -> bool:
    """Say whether a record may lie between what has been taken and the record of a place."""
    letter = records[at][1]
    if place.rule == "next" or letter in place.refused or (at == taken[-1][1] + 1 and letter in place.not_next):
        return False
    if place.rule == "followed_by" and _fits(place.stage, place.letters, place.look, records, taken, at):
        return False
    return not _avoided(place, records, taken, at)


def _avoided(place: Place, records: Sequence[Record], taken: Taken, at: int) -> bool:
    since = taken[-1][1] + 1 if taken else at
    for greedy in place.avoided:
        ended = any(letter in greedy.until for _, letter in records[since : at + 1])
        if not ended and _fits(greedy.stage, greedy.letters, greedy.look, records, taken, at):
            return True
    return False


def _fits(stage: str, letters: str, look: str, records: Sequence[Record], taken: Taken, at: int) -> bool:
    letter = records[at][1]
    if letter not in letters:
        return False
    if look == "few":
        return sum(name == stage for name, _ in taken) < 2
    return not (look == "rising" and taken) or letter >= records[taken[-1][1]][1]


def pattern_of(items: Sequence[Item], within_ms: int | None, absent: str = "") -> Pattern:
    """Return the same pattern for the engine; the values of its records are (place, letter)."""
    pattern = _pattern(items, "")
    if absent:
        pattern = pattern.not_followed_by("absent", _has(absent))
    return pattern if within_ms is None else pattern.within(f"{within_ms}ms")


def _pattern(items: Sequence[Item], name: str) -> Pattern:
    pattern: Any = None
    for number, item in enumerate(items):
        stage = f"{name}{number}"
        what: Any = _pattern(item.parts, f"{stage}.") if item.parts else stage
        where = None if item.parts else _condition(stage, item)
        if pattern is None:
            pattern = cep.begin(what, where)
        else:
            if item.unwanted:
                pattern = pattern.not_followed_by(f"not {stage}", _has(item.unwanted))
            if item.not_next:
                pattern = pattern.not_next(f"not next {stage}", _has(item.not_next))
            pattern = getattr(pattern, item.contiguity)(what, where)
        pattern = _quantified(pattern, item)
    return pattern  # type: ignore[no-any-return]


def _quantified(pattern: Any, item: Item) -> Any:
    if item.repeated:
        pattern = pattern.times_or_more(item.least) if item.most is None else pattern.times(item.least, item.most)
        if item.inner != "relaxed":
            pattern = getattr(pattern, item.inner)()
        if item.greedy:
            pattern = pattern.greedy()
        if item.until:
            pattern = pattern.until(_has(item.until))
    if item.optional:
        pattern = pattern.optional()
    if item.step_limit_ms is not None:
        pattern = pattern.within(f"{item.step_limit_ms}ms", between="previous_and_current")
    return pattern


def _condition(stage: str, item: Item) -> Any:
    letters = item.letters
    if item.look == "few":
        return lambda value, match: value[1] in letters and len(match[stage]) < 2
    if item.look == "rising":
        return lambda value, match: value[1] in letters and (not (path := match.path()) or value[1] >= path[-1][2][1])
    return _has(letters)


def _has(letters: str) -> Any:
    return lambda value: value[1] in letters
