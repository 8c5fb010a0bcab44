"""Words of a MATCH_RECOGNIZE clause, each with its place in the text, and errors that point there.

    PATTERN (A {- B+? -})     PATTERN ( A {- B +? -} )

Only what the clause itself is made of is told apart; the expressions inside are cut out by their places and go to the SQL parser.
"""

import re
from dataclasses import dataclass
from typing import Literal, NoReturn

from engine.errors import ConfigError

Kind = Literal["name", "quoted", "number", "string", "sign", "end"]

_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*|/\*.*?\*/)
    |(?P<name>[^\W\d]\w*)
    |(?P<quoted>"(?:[^"]|"")*")
    |(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    |(?P<string>'(?:[^']|'')*')
    |(?P<sign>\{-|-\}|[^\w\s])""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    """A word: `text` as written, `start` and `end` its offsets in the clause."""

    kind: Kind
    text: str
    start: int
    end: int

    @property
    def word(self) -> str:
        """The text of a plain name in capitals, to compare with the words of the language; "" for anything else."""
        return self.text.upper() if self.kind == "name" else ""


@dataclass(frozen=True, slots=True)
class Clause:
    """The text of a clause; everything that reads it reports its errors through it."""

    text: str

    def fail(self, offset: int, message: str) -> NoReturn:
        """Raise an error that points at a place.

        Raises:
            ConfigError: Always; with line and column from 1, the line, and a mark below the place.
        """
        offset = min(offset, len(self.text))
        begin = self.text.rfind("\n", 0, offset) + 1
        line, column = self.text.count("\n", 0, offset) + 1, offset - begin + 1
        shown = self.text[begin:].split("\n", 1)[0]
        mark = "".join("\t" if letter == "\t" else " " for letter in shown[: column - 1]) + "^"
        raise ConfigError(f"match_recognize, line {line}, column {column}: {message}\n    {shown}\n    {mark}")

    def tokens(self) -> list[Token]:
        """Return the words in order, and one of kind "end" behind them."""
        found: list[Token] = []
        place = 0
        while place < len(self.text):
            match = _TOKEN.match(self.text, place)
            assert match is not None, "every letter is some token"
            kind = match.lastgroup
            if match.group() in ("'", '"') or (kind == "sign" and self.text.startswith("/*", place)):
                self.fail(place, "this is never closed")
            if kind != "space":
                found.append(Token(kind, match.group(), match.start(), match.end()))  # type: ignore[arg-type]  # the names above
            place = match.end()
        return [*found, Token("end", "", len(self.text), len(self.text))]


def unquoted(token: Token) -> str:
    """Return a name as SQL means it: capitals, but for a quoted one."""
    return token.text.upper() if token.kind == "name" else token.text[1:-1].replace('""', '"')


class Cursor:
    """Reads words one after the other."""

    def __init__(self, clause: Clause, tokens: list[Token]) -> None:
        self.clause = clause
        self._tokens = tokens
        self._place = 0

    @property
    def token(self) -> Token:
        """The present word."""
        return self._tokens[self._place]

    def ahead(self, number: int) -> Token:
        """Return a later word, the end if there are not so many."""
        return self._tokens[min(self._place + number, len(self._tokens) - 1)]

    def take(self) -> Token:
        """Return the present word and go on to the next."""
        token = self.token
        if token.kind != "end":
            self._place += 1
        return token

    def at(self, *words: str) -> bool:
        """Say whether these words or signs come now."""
        return all((found := self.ahead(number)).word == word or found.text == word for number, word in enumerate(words))

    def accept(self, *words: str) -> bool:
        """Go past these words if they come now."""
        found = self.at(*words)
        if found:
            self._place += len(words)
        return found

    def expect(self, *words: str) -> None:
        """Go past these words; they must come now."""
        for word in words:
            if not self.accept(word):
                self.fail(f"{word} is expected here, not {self.token.text or 'the end'}")

    def name(self, what: str) -> Token:
        """Take a name."""
        if self.token.kind not in ("name", "quoted"):
            self.fail(f"{what} is expected here, not {self.token.text or 'the end'}")
        return self.take()

    def fail(self, message: str) -> NoReturn:
        """Raise an error that points at the present word."""
        self.clause.fail(self.token.start, message)
