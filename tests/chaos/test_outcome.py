"""The summary of rounds adds up, and says which seeds failed."""

import json

from tests.chaos.outcome import Outcome, Recovery, Summary, Times, times
from tests.chaos.verdict import Verdict


def test_times_are_nearest_ranks() -> None:
    assert times([]) is None
    assert times([3.0]) == Times(1, 3.0, 3.0, 3.0)
    assert times([float(second) for second in range(200, 0, -1)]) == Times(200, 100.0, 198.0, 200.0)


def test_summary_adds_up_rows_and_recoveries_and_names_the_seeds_that_failed() -> None:
    good = Outcome(1, ["kill 0"], sent=10, seconds=2.0, verdicts=[Verdict("a", 5, 5)], recoveries=[Recovery("kill", 6, 1.0, 4.0)])
    bad = Outcome(
        2, ["kill 1", "cut 0"], sent=10, seconds=3.0, verdicts=[Verdict("a", 5, 4, lost=1)], recoveries=[Recovery("cut", 6, 1.0, 8.0)]
    )
    summary = Summary.of([good, bad])
    assert list(summary.lines()) == [
        "recovery after cut           p50 8.0 s, p99 8.0 s, max 8.0 s of 1",
        "recovery after kill          p50 4.0 s, p99 4.0 s, max 4.0 s of 1",
        (
            "chaos: 2 rounds, seeds 1 to 2, 3 faults, 20 records in, 10 rows expected, 9 found, 1 lost, 0 doubled, 0 wrong; "
            "recovery p50 4.0 s, p99 8.0 s, max 8.0 s of 2; FAILED seeds: 2"
        ),
    ]
    told = json.loads(json.dumps(summary.builtins()))
    assert (told["lost"], told["recovery"]["p99_s"], told["recovery_by_fault"]["cut"]["max_s"], told["failed_seeds"]) == (1, 8.0, 8.0, [2])
