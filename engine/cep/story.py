"""What became of partial matches: those that were matches in the end, and the near misses with the reason.

orders.detect(pattern, history=5)          so many of each kind are kept of every key, in the state; none without it

driver.explain("fraud", "ann")             what is still alive
driver.history("fraud", "ann")             [Told(what="failed", start_ms=…, taken={"cart": […]}, at_ms=…, why="a record came that …")]
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct


class Told(Struct, frozen=True, omit_defaults=True):
    """The end of a partial match.

    Attributes:
        what: It "matched"; its time ran out ("timed_out"); or a record ended it ("failed").
        start_ms: Event time of its first record. `at_ms`: of its end.
        taken: Values that each stage took, as plain data.
        waited_for: Stages that the next record could have gone to.
        why: The reason of a near miss.
        rule, version: Of a live rule.
    """

    what: Literal["matched", "timed_out", "failed"]
    start_ms: int
    at_ms: int
    taken: dict[str, list[Any]]
    waited_for: tuple[str, ...] = ()
    why: str = ""
    rule: str | None = None
    version: int | None = None


def matched(start_ms: int, at_ms: int, taken: Mapping[str, Sequence[Any]]) -> Told:
    """Return what to tell of a match."""
    return Told("matched", start_ms, at_ms, _plain(taken))


def timed_out(start_ms: int, at_ms: int, taken: Mapping[str, Sequence[Any]], waited_for: Sequence[str]) -> Told:
    """Return what to tell of a partial match whose limit has passed."""
    why = f"{' or '.join(waited_for) or 'nothing more'} did not come in time"
    return Told("timed_out", start_ms, at_ms, _plain(taken), tuple(waited_for), why)


def failed(start_ms: int, at_ms: int, taken: Mapping[str, Sequence[Any]], waited_for: Sequence[str], unwanted: Sequence[str] = ()) -> Told:
    """Return what to tell of a partial match that a record ended: one that fits a negation, or that fits nothing where it had to."""
    if unwanted:
        why = f"the record at {at_ms} is {' or '.join(unwanted)}, which must not come"
    else:
        why = f"the record at {at_ms} is not {' or '.join(waited_for)}, which had to come next"
    return Told("failed", start_ms, at_ms, _plain(taken), tuple(waited_for), why)


def _plain(taken: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    return {stage: [msgspec.to_builtins(value, enc_hook=repr) for value in values] for stage, values in taken.items()}
