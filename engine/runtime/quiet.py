"""Is an input partition quiet? The shell's half of design rule 7: what it says lets idle time run in the task.

A partition is quiet when the latest fetch answer shows that there is nothing more to read, and the task has taken everything
that was read. Idle time starts again at open, resume and error (the transport forgets the answer then) and after a gap of the
event loop, because nothing is known about the time in which the process stood still; after a jump of the wall clock too, because
idle time is counted by it, and that time has not passed. An answer from before the idle time began does not count either.

    answer at 10.0 s: position 5, end 5    → quiet
    loop stands still from 10.1 to 12.4 s  → not quiet until an answer later than 12.4 s
"""

from collections.abc import Mapping

from engine.graph import SourceSpec
from engine.records import TopicPartition
from engine.runtime.metrics import TaskMetrics
from engine.runtime.transport.protocol import FetchState, Transport

GAP_S = 1.0
STALE_S = 5.0
FRESH_S = 2.0
"""However short the idle time is: a busy broker may take that long to answer."""


class Pulse:
    """Notices when the event loop stood still: the poll loop and every task call `beat`, several times a second."""

    def __init__(self, now_s: float) -> None:
        self.last_s = now_s
        self.restarted_s = now_s

    def beat(self, now_s: float) -> None:
        """The loop goes round."""
        if now_s - self.last_s > GAP_S:
            self.restarted_s = now_s
        self.last_s = now_s


class Steadiness:
    """Notices what begins idle time anew for one task: a jump of the wall clock, or time in which it was told nothing."""

    def __init__(self, now_s: float, now_ms: int) -> None:
        self._wall_ahead_s = now_ms / 1_000 - now_s
        self._interrupted = False

    def interrupt(self) -> None:
        """Time stands still for the task."""
        self._interrupted = True

    def restarted_s(self, now_s: float, now_ms: int) -> float:
        """Return now if idle time begins anew, else 0; called with both clocks each time that the task is told the time."""
        wall_ahead_s = now_ms / 1_000 - now_s
        is_anew = self._interrupted or abs(wall_ahead_s - self._wall_ahead_s) > GAP_S
        self._interrupted, self._wall_ahead_s = False, wall_ahead_s
        return now_s if is_anew else 0.0


def is_quiet(state: FetchState | None, position: int, since_s: float, now_s: float, idle_s: float = STALE_S) -> bool:
    """Return whether a partition has nothing to read, as far as is known.

    Args:
        state: The latest fetch answer; None while paused, and before the first since a seek.
        position: Up to where the task has processed: what is still queued is activity.
        since_s: When the loop last began anew after a gap, or the task last processed a record of the partition, whichever is
            later; an older answer says nothing.
        now_s: Monotonic clock; an answer older than a few seconds (the broker does not answer) counts no more.
        idle_s: The idle time of the partition: an older answer is from before that began.
    """
    return (
        state is not None
        and state.received_s >= since_s
        and now_s - state.received_s <= min(STALE_S, max(FRESH_S, idle_s))
        and state.position >= state.high_watermark
        and position == state.position
    )


def observe(
    transport: Transport,
    sources: Mapping[str, SourceSpec],
    positions: Mapping[TopicPartition, int],
    active_s: Mapping[TopicPartition, float],
    restarted_s: float,
    now_s: float,
    metrics: TaskMetrics,
) -> dict[str, bool]:
    """Return for each input topic of a task whether it is quiet, and put its lag into the metrics.

    Args:
        sources: Those of the topics that have an idle time.
        active_s: When each input last brought records.
        restarted_s: Quiet time before this does not count.
    """
    quiet = {}
    for partition, position in positions.items():
        state = transport.fetch_state(partition)
        idle_ms = sources[partition.topic].watermark.idle_ms if partition.topic in sources else None
        idle_s = STALE_S if idle_ms is None else idle_ms / 1_000
        quiet[partition.topic] = is_quiet(state, position, max(restarted_s, active_s.get(partition, 0.0)), now_s, idle_s)
        if state is not None:
            lag = max(0, state.high_watermark - position)
            metrics.lag[partition.topic] = lag
            if position == state.position:  # nothing could be read: what is left belongs to open transactions
                metrics.stable_distance[partition.topic] = lag
    return quiet
