"""A second oracle that shares nothing with the engine, for what `brute_force` leaves out: groups, greedy loops, `until`, limits between
neighbours, absence at the end, skip strategies.

A pattern is written out: each choice of how often its parts are repeated, and which are left out, is a *word* of places, each of which
takes one record. A match is a word and a record for each of its places, so that every place gets along with what lies before it:

    a (b c?){1,2}   ──►   a b    a b c    a b b    a b c b    a b b c    a b c b c

The first stage of a group obeys the group's words also between its own repetitions, as in Apache Flink.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine import cep
from engine.cep import Pattern

Record = tuple[int, str]


@dataclass(frozen=True)
class Item:
    """A stage (`letters`: what it takes) or a group (`parts`); `unwanted`: letters of a not_followed_by before it."""

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


@dataclass(frozen=True)
class Place:
    """One record of a word: of which stage, and what has to hold since the record before.

    `rule`: next, followed_by or followed_by_any; `refused`: letters that nothing in between has; `avoided`: nor the record itself.
    """

    stage: str
    letters: str
    rule: str
    refused: str = ""
    avoided: str = ""
    until: str = ""
    limit_ms: int | None = None


Word = tuple[Place, ...]
RULES = {"relaxed": "followed_by", "consecutive": "next", "allow_combinations": "followed_by_any"}


def words(items: Sequence[Item], longest: int, name: str = "", inner: str | None = None) -> Iterator[Word]:
    """Yield the words of a sequence that are not longer; `inner`: what stands between the repetitions of a group's first stage."""
    if inner is not None:
        items = [replace(items[0], inner=inner), *items[1:]]
    yield from _sequence(items, 0, longest, name, "", "")


def _sequence(items: Sequence[Item], at: int, longest: int, name: str, refused: str, avoided: str) -> Iterator[Word]:
    if at == len(items):
        yield ()
        return
    item, here = items[at], f"{name}{at}"
    refused += item.unwanted
    counts = range(item.least, (longest if item.most is None else min(item.most, longest)) + 1)
    avoids = item.letters if item.greedy else ""
    if item.optional:
        yield from _sequence(items, at + 1, longest, name, refused, avoided + avoids)
    for count in counts:
        for word in _rounds(item, count, longest, here):
            first = replace(word[0], refused=word[0].refused + refused, avoided=word[0].avoided + avoided)
            for rest in _sequence(items, at + 1, longest - len(word), name, "", avoids):
                yield (first, *word[1:], *rest)


def _rounds(item: Item, count: int, longest: int, name: str) -> Iterator[Word]:
    if longest < count:
        return
    done: list[Word] = [()]
    repeated = (item.least, item.most) != (1, 1)
    for number in range(count):
        rule = RULES[item.inner] if number else item.contiguity
        refused = item.until if number else ""
        longer: list[Word] = []
        for word in done:
            if item.parts:
                rounds: Iterator[Word] = words(item.parts, longest - len(word), f"{name}.", item.inner if repeated else "relaxed")
            else:
                rounds = iter([(Place(name, item.letters, rule, refused, "", item.until, item.step_limit_ms),)])
            for one in rounds:
                head = replace(one[0], rule=rule)
                if len(word) + len(one) <= longest:
                    longer.append((*word, head, *one[1:]))
        done = longer
    yield from done


Taken = tuple[tuple[str, int], ...]


def matches(items: Sequence[Item], records: Sequence[Record], within_ms: int | None, absent: str = "") -> list[Taken]:
    """Return every match as (stage, place of the record); with `absent` none of these letters may follow until the limit."""
    found = []
    for word in filter(None, words(items, len(records))):  # a match takes at least one record
        for taken in _placed(word, records, within_ms, ()):
            if absent and within_ms is not None:
                end_ms = records[taken[0][1]][0] + within_ms
                if any(time < end_ms and letter in absent for time, letter in records[taken[-1][1] + 1 :]):
                    continue
            found.append(taken)
    return found


def _placed(word: Word, records: Sequence[Record], within_ms: int | None, taken: Taken) -> Iterator[Taken]:
    if len(taken) == len(word):
        yield taken
        return
    place = word[len(taken)]
    for at in range(taken[-1][1] + 1 if taken else 0, len(records)):
        time, letter = records[at]
        if letter not in place.letters or letter in place.until or letter in place.avoided:
            continue
        if taken:
            before = taken[-1][1]
            between = "".join(other for _, other in records[before + 1 : at])
            apart = time - records[before][0]
            wrong = place.refused + place.avoided + (place.letters if place.rule == "followed_by" else "")
            if any(other in wrong for other in between) or (place.rule == "next" and between):
                continue
            if place.limit_ms is not None and apart >= place.limit_ms:
                continue
            if within_ms is not None and time - records[taken[0][1]][0] >= within_ms:
                continue
        yield from _placed(word, records, within_ms, (*taken, (place.stage, at)))


def pattern_of(items: Sequence[Item], within_ms: int | None, absent: str = "") -> Pattern:
    """Return the same pattern for the engine."""
    pattern = _pattern(items, "")
    if absent:
        pattern = pattern.not_followed_by("absent", _fits(absent))
    return pattern if within_ms is None else pattern.within(f"{within_ms}ms")


def _pattern(items: Sequence[Item], name: str) -> Pattern:
    pattern: Any = None
    for number, item in enumerate(items):
        what: Any = _pattern(item.parts, f"{name}{number}.") if item.parts else f"{name}{number}"
        where = None if item.parts else _fits(item.letters)
        if pattern is None:
            pattern = cep.begin(what, where)
        else:
            if item.unwanted:
                pattern = pattern.not_followed_by(f"not {name}{number}", _fits(item.unwanted))
            pattern = getattr(pattern, item.contiguity)(what, where)
        pattern = _quantified(pattern, item)
    return pattern  # type: ignore[no-any-return]


def _quantified(pattern: Any, item: Item) -> Any:
    if (item.least, item.most) != (1, 1):
        pattern = pattern.times_or_more(item.least) if item.most is None else pattern.times(item.least, item.most)
        if item.inner != "relaxed":
            pattern = getattr(pattern, item.inner)()
        if item.greedy:
            pattern = pattern.greedy()
        if item.until:
            pattern = pattern.until(_fits(item.until))
    if item.optional:
        pattern = pattern.optional()
    if item.step_limit_ms is not None:
        pattern = pattern.within(f"{item.step_limit_ms}ms", between="previous_and_current")
    return pattern


def _fits(letters: str) -> Any:
    return lambda value: value[1] in letters
