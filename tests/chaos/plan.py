"""What is done to the workers and the broker in a round: a plan that follows from the seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

FAULTS = {
    "kill": "kill -9 of a worker, started again after a moment",
    "kill-both": "kill -9 of all workers at once, started again after a moment",
    "restart": "SIGTERM of a worker, which must end well, started again",
    "freeze": "SIGSTOP beyond the session timeout; resumed when others have taken its tasks over, it must find out",
    "lost-disk": "kill -9 of a worker whose state folder is deleted while it is down",
    "old-disk": "kill -9 of a worker whose state folder is replaced by a copy from earlier while it is down",
    "broker": "kill -9 of the broker, started again",
    "broker-freeze": "SIGSTOP of the broker for some seconds",
    "cut": "the network between a worker and the broker is cut until others have taken its tasks over; it must find out",
    "full-disk": "the disk of a worker takes no more writes for a while; it must go on by itself when there is room again",
    "rebalance": "a further worker joins and leaves twice, once by SIGTERM and once by kill -9",
    "rebalances": "a further worker joins and leaves five times, by SIGTERM and by kill -9, before anyone has come to rest",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One fault.

    Attributes:
        after_s: How long to wait before it.
        victim: Number of the worker that it hits, where it hits one.
        down_s: How long the victim stays away before it is started again or resumed.
        settle: Whether to wait until everything works again before the next step begins.
    """

    fault: str
    after_s: float
    victim: int
    down_s: float
    settle: bool

    def __str__(self) -> str:
        return self.fault if "both" in self.fault or "broker" in self.fault or "rebalance" in self.fault else f"{self.fault} {self.victim}"


def make_plan(seed: int, *, faults: Sequence[str], count: int, workers: int) -> list[Step]:
    """Return the steps of a round; no fault comes twice before all have come once."""
    random = Random(seed)
    chosen: list[str] = []
    while len(chosen) < count:
        chosen += random.sample(list(faults), min(len(faults), count - len(chosen)))
    return [
        Step(
            fault,
            after_s=round(random.uniform(0.2, 2.0), 2),
            victim=random.randrange(workers),
            down_s=round(random.uniform(0.0, 1.5), 2),
            settle=random.random() < 0.7,
        )
        for fault in chosen
    ]
