"""`Match`: the records that fulfilled a pattern, stage by stage; `TimedOut`: those that were not enough in time."""

from typing import Any, Generic, TypeVar

from msgspec import Struct

V = TypeVar("V")


class Match(Struct, Generic[V], frozen=True):
    """What a pattern found for a key. `V` is the type of the values.

    Attributes:
        key: The key.
        start_ms: Event time of the first record taken.
        end_ms: Event time of the last record taken; of the limit, where a limit ended it (an absence at the end).
        stages: Values that each stage took, in order of time; [] for a stage that was skipped. Not to be changed.
    """

    key: Any
    start_ms: int
    end_ms: int
    stages: dict[str, list[V]]

    def __getitem__(self, stage: str) -> list[V]:
        """Return the values that a stage took, in order of time; [] if it was skipped."""
        try:
            return self.stages[stage]
        except KeyError:
            raise KeyError(f"the pattern has no stage {stage!r} that takes records; it has {', '.join(self.stages)}") from None


class TimedOut(Match[V], Generic[V], frozen=True):
    """A partial match whose time ran out, as `detect(timeouts_to=…)` gives it: `end_ms` is the limit, `stages` what it had by then.

    Attributes:
        waited_for: Stages that the next record could have gone to, in the order of the pattern.
    """

    waited_for: tuple[str, ...]
