"""What a match does to others that overlap it: `cep.skip`.

    pattern a{2}, records a1 a2 a3 a4        matches
    none                                     a1 a2 · a2 a3 · a3 a4
    to_next                                  the same, but only one match a first record
    past_last                                a1 a2 · a3 a4
    to_first("x"), to_last("x")              others may begin at the first (last) record of stage x of the match, not before it

With any choice but `none` a finished match waits while a partial match that began earlier is alive, and matches come out in the
order of their first records; each one that comes out drops partial and waiting matches by where they began.
"""

from dataclasses import dataclass
from typing import Literal

from engine.cep.conditions import Node
from engine.errors import ConfigError, RecordError

Kind = Literal["none", "to_next", "past_last", "to_first", "to_last"]
OnMiss = Literal["ignore", "error"]


@dataclass(frozen=True, slots=True)
class Skip:
    """A choice; make one with `cep.skip`."""

    kind: Kind
    stage: str = ""
    on_miss: OnMiss = "ignore"

    def dropped_up_to(self, node: Node) -> int:
        """Return the number of the last record with which an overlapping match may no longer begin, -1 for none.

        Args:
            node: Last step of the match that comes out.
        Raises:
            RecordError: With on_miss="error", the stage took nothing, or the skip would lead to where the match began.
        """
        numbers: list[int] = []
        of_stage: list[int] = []
        step: Node | None = node
        while step is not None:
            stage, event, step, _ = step
            numbers.append(event[0])
            if stage == self.stage:
                of_stage.append(event[0])
        if self.kind == "to_next":
            return numbers[-1]
        if self.kind == "past_last":
            return numbers[0]
        if not of_stage:
            if self.on_miss == "error":
                raise RecordError(f"cannot skip to stage {self.stage!r}: the match has no record of it")
            return -1
        target = of_stage[-1] if self.kind == "to_first" else of_stage[0]
        if target == numbers[-1] and self.on_miss == "error":
            raise RecordError(f"cannot skip to stage {self.stage!r}: the match itself begins there")
        return target - 1


none = Skip("none")
to_next = Skip("to_next")
past_last = Skip("past_last")


def to_first(stage: str, *, on_miss: OnMiss = "ignore") -> Skip:
    """Go on at the first record that a stage took; if there is none, drop nothing, or fail with on_miss="error"."""
    return _to("to_first", stage, on_miss)


def to_last(stage: str, *, on_miss: OnMiss = "ignore") -> Skip:
    """Go on at the last record that a stage took; if there is none, drop nothing, or fail with on_miss="error"."""
    return _to("to_last", stage, on_miss)


def _to(kind: Kind, stage: str, on_miss: OnMiss) -> Skip:
    if not isinstance(stage, str) or not stage:
        raise ConfigError(f"skip.{kind}: {stage!r} is not the name of a stage")
    if on_miss not in ("ignore", "error"):
        raise ConfigError(f"skip.{kind}: on_miss={on_miss!r} is not known; use 'ignore' or 'error'")
    return Skip(kind, stage, on_miss)


__all__ = ["Skip", "none", "past_last", "to_first", "to_last", "to_next"]
