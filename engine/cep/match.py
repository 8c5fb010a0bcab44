"""`Match`: the records that fulfilled a pattern, stage by stage."""

from typing import Any, Generic, TypeVar

from msgspec import Struct

K = TypeVar("K")


class Match(Struct, Generic[K], frozen=True):
    """What a pattern found for a key; also what of it there was when the time ran out.

    Attributes:
        key: The key.
        start_ms: Event time of the first record taken.
        end_ms: Event time of the last record taken; of the limit, where a limit ended it (an absence at the end, a time-out).
        stages: Values that each stage took, in order of time; [] for a stage that was skipped. Not to be changed.
    """

    key: K
    start_ms: int
    end_ms: int
    stages: dict[str, list[Any]]

    def __getitem__(self, stage: str) -> list[Any]:
        """Return the values that a stage took, in order of time; [] if it was skipped."""
        try:
            return self.stages[stage]
        except KeyError:
            raise KeyError(f"the pattern has no stage {stage!r} that takes records; it has {', '.join(self.stages)}") from None
