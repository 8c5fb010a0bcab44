"""The life of a task in a worker, as a table.

    OPENING ───► RUNNING ───► CLOSING ───► CLOSED ◄── every other phase, when cancelled
     │ │ ▲         │ │
     │ ▼ │         │ │
     │ BROKEN ◄────┘ │
     └──► FAILED ◄───┘

OPENING  fence, restore, take the offsets, seek (design rule 2); may be cancelled at any point
RUNNING  takes batches and commits
BROKEN   an attempt to open, or a commit, failed: nothing is held; waits until the ownership is confirmed, then OPENING again
CLOSING  takes no more input; the batch in hand ends, what is there is committed
FAILED   cannot go on without a person (its offset is gone from the log, its output is refused): holds nothing, says so until it is revoked
CLOSED   holds nothing; a new assignment makes a new task
"""

from enum import Enum


class Phase(Enum):
    """Where a task stands."""

    OPENING = "opening"
    RUNNING = "running"
    BROKEN = "broken"
    CLOSING = "closing"
    FAILED = "failed"
    CLOSED = "closed"


ALLOWED: dict[Phase, frozenset[Phase]] = {
    Phase.OPENING: frozenset({Phase.RUNNING, Phase.BROKEN, Phase.FAILED, Phase.CLOSED}),
    Phase.RUNNING: frozenset({Phase.CLOSING, Phase.BROKEN, Phase.FAILED, Phase.CLOSED}),
    Phase.BROKEN: frozenset({Phase.OPENING, Phase.CLOSED}),
    Phase.CLOSING: frozenset({Phase.CLOSED}),
    Phase.FAILED: frozenset({Phase.CLOSED}),
    Phase.CLOSED: frozenset(),
}


class Lifecycle:
    """The phase of one task; a transition that the table does not have is a bug."""

    def __init__(self) -> None:
        self.phase = Phase.OPENING

    def to(self, phase: Phase) -> None:
        """Move on to a phase."""
        assert phase in ALLOWED[self.phase], f"a task cannot go from {self.phase.value} to {phase.value}"
        self.phase = phase
