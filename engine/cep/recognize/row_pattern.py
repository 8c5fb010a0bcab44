"""The PATTERN: a regular expression whose letters are row pattern variables.

    PATTERN (A (B | C){2,3} D*? {- E+ -} PERMUTE(F, G))

What is preferred where a choice is left: the alternative that stands first, more repetitions (fewer with `?` behind the
quantifier), for PERMUTE the order in which its parts are written. The tree below keeps alternatives in that order.

Source: ISO/IEC 9075-2:2016, section 7.7 <row pattern>, and ISO/IEC TR 19075-5 (Row Pattern Recognition in SQL).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

from engine.cep.recognize.lexer import Cursor, Token, unquoted

PERMUTE_MAX = 6
REPETITIONS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Variable:
    """One row of a variable; `excluded` rows belong to the match but not to ALL ROWS PER MATCH."""

    name: str
    excluded: bool
    at: int


@dataclass(frozen=True, slots=True)
class Sequence:
    """Parts one after the other; none at all matches without a row."""

    parts: "tuple[RowPattern, ...]"


@dataclass(frozen=True, slots=True)
class Choice:
    """Alternatives, the preferred one first."""

    parts: "tuple[RowPattern, ...]"


@dataclass(frozen=True, slots=True)
class Repeat:
    """A part again and again; `most` None for no end."""

    part: "RowPattern"
    least: int
    most: int | None
    reluctant: bool


@dataclass(frozen=True, slots=True)
class PartitionStart:
    """The anchor `^`: holds before the first record of a key."""


RowPattern = Variable | Sequence | Choice | Repeat | PartitionStart


def variables_of(pattern: RowPattern) -> Iterator[Variable]:
    """Yield every place where a variable stands, once and in order of the text (the orders of PERMUTE share their parts)."""
    seen: set[int] = set()
    parts = [pattern]
    while parts:
        part = parts.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, Variable):
            yield part
        elif isinstance(part, Repeat):
            parts.append(part.part)
        elif isinstance(part, Sequence | Choice):
            parts.extend(reversed(part.parts))


def text_of(pattern: RowPattern) -> str:
    """Return a pattern in one normal form."""
    if isinstance(pattern, Variable):
        return f"{{-{pattern.name}-}}" if pattern.excluded else pattern.name
    if isinstance(pattern, PartitionStart):
        return "^"
    if isinstance(pattern, Repeat):
        most = "" if pattern.most is None else pattern.most
        return f"{text_of(pattern.part)}{{{pattern.least},{most}}}{'?' if pattern.reluctant else ''}"
    return f"({(' ' if isinstance(pattern, Sequence) else '|').join(map(text_of, pattern.parts))})"


def parse_row_pattern(cursor: Cursor) -> RowPattern:
    """Parse what stands between the parentheses of PATTERN, both included."""
    cursor.expect("(")
    pattern = _choice(cursor, excluded=False)
    cursor.expect(")")
    return pattern


def _choice(cursor: Cursor, *, excluded: bool) -> RowPattern:
    parts = [_sequence(cursor, excluded=excluded)]
    while cursor.accept("|"):
        parts.append(_sequence(cursor, excluded=excluded))
    return parts[0] if len(parts) == 1 else Choice(tuple(parts))


def _sequence(cursor: Cursor, *, excluded: bool) -> RowPattern:
    parts: list[RowPattern] = []
    while (part := _quantified(cursor, excluded=excluded)) is not None:
        parts.append(part)
    if not parts and not cursor.at(")"):
        cursor.fail("a pattern variable is expected here; for no row at all write ()")
    return parts[0] if len(parts) == 1 else Sequence(tuple(parts))


def _quantified(cursor: Cursor, *, excluded: bool) -> RowPattern | None:
    part = _primary(cursor, excluded=excluded)
    if part is None:
        return None
    if isinstance(part, PartitionStart) and cursor.token.text in ("*", "+", "?", "{"):
        cursor.fail("an anchor cannot be repeated")
    if cursor.accept("*"):
        least, most = 0, None
    elif cursor.accept("+"):
        least, most = 1, None
    elif cursor.accept("?"):
        least, most = 0, 1
    elif cursor.at("{"):
        least, most = _bounds(cursor)
    else:
        return part
    reluctant = cursor.accept("?")
    if cursor.token.text in ("*", "+", "?", "{"):
        cursor.fail("there is a quantifier already; put the part in parentheses to repeat it again")
    return Repeat(part, least, most, reluctant)


def _bounds(cursor: Cursor) -> tuple[int, int | None]:
    at = cursor.take().start
    least = _count(cursor)
    if cursor.accept(","):
        most = _count(cursor)
        least = 0 if least is None and most is not None else least
    else:
        most = least
    cursor.expect("}")
    if least is None:
        cursor.clause.fail(at, "a quantifier needs a number: {n}, {n,}, {n,m} or {,m}")
    if most is not None and (most < least or most == 0):
        cursor.clause.fail(at, f"{{{least},{most}}} is not a range of at least one repetition")
    return least, most


def _count(cursor: Cursor) -> int | None:
    if cursor.token.kind != "number":
        return None
    if not cursor.token.text.isdigit() or int(cursor.token.text) > REPETITIONS_MAX:
        cursor.fail(f"a number of repetitions is a whole number up to {REPETITIONS_MAX:,}")
    return int(cursor.take().text)


def _primary(cursor: Cursor, *, excluded: bool) -> RowPattern | None:
    token = cursor.token
    if cursor.at("PERMUTE", "("):
        return _permute(cursor, excluded=excluded)
    if token.word == "PERMUTE":
        cursor.clause.fail(token.end, "PERMUTE is followed by its parts, such as PERMUTE(A, B); a variable of that name stands in quotes")
    if token.kind in ("name", "quoted"):
        cursor.take()
        return Variable(unquoted(token), excluded, token.start)
    if cursor.accept("("):
        inner = _choice(cursor, excluded=excluded)
        cursor.expect(")")
        return inner
    if cursor.accept("{-"):
        if excluded:
            cursor.clause.fail(token.start, "an exclusion stands in another one already")
        inner = _choice(cursor, excluded=True)
        cursor.expect("-}")
        return inner
    if cursor.accept("^"):
        return PartitionStart()
    if token.text == "$":
        cursor.fail("a stream has no last record, so the anchor $ can never hold; say what must follow, or use WITHIN")
    return None


def _permute(cursor: Cursor, *, excluded: bool) -> RowPattern:
    at: Token = cursor.take()
    cursor.expect("(")
    parts: list[RowPattern] = []
    while not parts or cursor.accept(","):
        if cursor.at(")"):
            cursor.fail("a part of PERMUTE is expected here; for no row at all write ()")
        parts.append(_choice(cursor, excluded=excluded))
    cursor.expect(")")
    if len(parts) > PERMUTE_MAX:
        cursor.clause.fail(at.start, f"PERMUTE of {len(parts)} parts has too many orders; at most {PERMUTE_MAX} parts are taken")
    return parts[0] if len(parts) == 1 else Choice(tuple(Sequence(order) for order in permutations(parts)))
