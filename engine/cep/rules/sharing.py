"""Conditions that several live rules, or several stages of one, ask of the record alone: each is evaluated once a record and batch.

    rule "cards"     kind = 'pay' AND cents > 1000      ─┐
    rule "three"     kind='pay' and (paid.cents)>1000   ─┼──►  one function, which keeps what it has found until the batch is over
    rule "abroad"    kind = 'pay' AND cents > 1000      ─┘

Conditions are the same if their trees are, once the names of the stages or variables that they belong to are left out. A condition that
only one rule asks for is evaluated as it is: to look up what is known takes a good part of the time of a single comparison.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Test = Callable[[Any], Any]


class Sharing:
    """The shared conditions of the rules of a task.

    A record is known by its identity, so what was asked about is kept until `forget`, which is called before each batch: of a record that
    came out of the store and was dropped meanwhile, another one could have the identity.
    """

    def __init__(self) -> None:
        self.often: frozenset[str] = frozenset()
        self._tests: dict[str, Test] = {}
        self._known: list[dict[int, tuple[Any, bool]]] = []  # never shortened: compiled rules that are kept use theirs again

    def serve(self, asked: Iterable[Sequence[str]]) -> None:
        """Share what the rules that stand ask for more than once: the conditions of each, by their canonical texts."""
        counts = Counter(text for of_rule in asked for text in of_rule)
        self.often = frozenset(text for text, count in counts.items() if count > 1)

    def test(self, text: str, function: Test) -> Test:
        """Return the function of a condition: the shared one, if it is asked for often."""
        if text not in self.often:
            return function
        if text not in self._tests:
            known: dict[int, tuple[Any, bool]] = {}
            self._tests[text] = _kept(function, known)
            self._known.append(known)
        return self._tests[text]

    def forget(self) -> None:
        """Begin a batch."""
        for known in self._known:
            known.clear()


def _kept(function: Test, known: dict[int, tuple[Any, bool]]) -> Test:
    get = known.get

    def test(value: Any) -> bool:
        place = id(value)
        found = get(place)
        if found is None:
            found = known[place] = value, bool(function(value))
        return found[1]

    return test


__all__ = ["Sharing", "Test"]
