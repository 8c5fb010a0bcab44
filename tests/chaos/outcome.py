"""What rounds have come to: rows expected, found, lost, doubled and wrong, and how long each fault was felt."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.chaos.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long a fault was felt: from the kill to the first committed result that a reader sees of every task that was hit.

    Attributes:
        first_s: The same for the first of these tasks.
    """

    fault: str
    tasks: int
    first_s: float
    seconds: float


@dataclass(slots=True)
class Outcome:
    """What a round has come to."""

    seed: int
    plan: list[str]
    sent: int = 0
    seconds: float = 0.0
    verdicts: list[Verdict] = field(default_factory=list)
    recoveries: list[Recovery] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing was lost, doubled or wrong, and everything behaved."""
        return not self.failures and bool(self.verdicts) and all(verdict.good for verdict in self.verdicts)


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of a number of recoveries: median, 99th percentile (nearest rank: of fewer than 100 it is the longest), longest."""

    count: int
    p50_s: float
    p99_s: float
    max_s: float

    def __str__(self) -> str:
        return f"p50 {self.p50_s:.1f} s, p99 {self.p99_s:.1f} s, max {self.max_s:.1f} s of {self.count}"


@dataclass(frozen=True, slots=True)
class Summary:
    """All rounds together.

    Attributes:
        recovery: Of all faults; None when none was measured.
        recovery_by_fault: The same of each kind of fault.
        failed_seeds: Rounds that were not right.
    """

    rounds: int
    first_seed: int
    last_seed: int
    sent: int
    expected: int
    found: int
    lost: int
    doubled: int
    wrong: int
    seconds: float
    faults: int
    recovery: Times | None
    recovery_by_fault: dict[str, Times]
    failed_seeds: list[int]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> "Summary":
        """Add up; there is at least one outcome."""
        verdicts = [verdict for outcome in outcomes for verdict in outcome.verdicts]
        by_fault: dict[str, list[float]] = defaultdict(list)
        for outcome in outcomes:
            for recovery in outcome.recoveries:
                by_fault[recovery.fault].append(recovery.seconds)
        return cls(
            len(outcomes),
            outcomes[0].seed,
            outcomes[-1].seed,
            sum(outcome.sent for outcome in outcomes),
            sum(verdict.expected for verdict in verdicts),
            sum(verdict.found for verdict in verdicts),
            sum(verdict.lost for verdict in verdicts),
            sum(verdict.doubled for verdict in verdicts),
            sum(verdict.wrong for verdict in verdicts),
            round(sum(outcome.seconds for outcome in outcomes), 1),
            sum(len(outcome.plan) for outcome in outcomes),
            times([second for seconds in by_fault.values() for second in seconds]),
            {fault: found for fault, seconds in sorted(by_fault.items()) if (found := times(seconds)) is not None},
            [outcome.seed for outcome in outcomes if not outcome.good],
        )

    def lines(self) -> Iterable[str]:
        """Yield the recovery times of each fault, then the one line that says it all."""
        for fault, found in self.recovery_by_fault.items():
            yield f"recovery after {fault:<14}{found}"
        yield str(self)

    def builtins(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        recovered = "no recovery measured" if self.recovery is None else f"recovery {self.recovery}"
        failed = f"FAILED seeds: {' '.join(map(str, self.failed_seeds))}" if self.failed_seeds else "all right"
        return (
            f"chaos: {self.rounds} rounds, seeds {self.first_seed} to {self.last_seed}, {self.faults} faults, {self.sent:,} records in, "
            f"{self.expected:,} rows expected, {self.found:,} found, {self.lost} lost, {self.doubled} doubled, {self.wrong} wrong; "
            f"{recovered}; {failed}"
        )


def times(seconds: Sequence[float]) -> Times | None:
    """Return what there is to say of some durations, None if there are none."""
    if not seconds:
        return None
    ranked = sorted(seconds)
    p50, p99 = (ranked[-(-len(ranked) * percent // 100) - 1] for percent in (50, 99))
    return Times(len(ranked), p50, p99, ranked[-1])
