"""`Match`: the records that fulfilled a pattern, stage by stage."""

from typing import Any, Generic, TypeVar

from msgspec import Struct

V = TypeVar("V")


class Match(Struct, Generic[V], frozen=True):
    """What a pattern found for a key; also what of it there was when the time ran out. `V` is the type of the values.

    Attributes:
        key: The key.
        start_ms: Event time of the first record taken.
        end_ms: Event time of the last record taken; of the limit, where a limit ended it (an absence at the end, a time-out).
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
