"""When a task commits.

    commit_interval="1s"      throughput: once a second, earlier when a transaction is full
    commit_interval="0ms"     latency: commits follow one another. As soon as one is through, the task takes what has come in
                              meanwhile, and commits that

With 0 the size of a transaction follows the load by itself: a record that comes alone is committed alone, and the more comes in while
a commit is on its way (some 10 ms), the more the next one takes. Where input never runs out, as while a task catches up, commits keep
a distance of BUSY_S, or most of the time would go into them. Progress that no reader can see (an offset that moved past the markers of
others, a watermark) waits for IDLE_S.
"""

from engine.runtime.shell import Limits
from engine.task import Task

BUSY_S = 0.2
IDLE_S = 0.1


class CommitPace:
    """Decides when the next commit is due; times are those of the monotonic clock.

    Attributes:
        records: Input records since the last commit.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._interval_s = limits.commit_interval_ms / 1_000
        self._committed_s = 0.0
        self.records = 0

    def restart(self, now_s: float) -> None:
        """Everything is committed as of now."""
        self._committed_s = now_s
        self.records = 0

    def is_due(self, task: Task, now_s: float, *, more: bool) -> bool:
        """Return whether to commit now.

        Args:
            more: Input is at hand that the task has not taken.
        """
        limits, outputs = self._limits, task.outputs
        if (
            self.records >= limits.commit_records_max
            or outputs.records >= limits.commit_records_max
            or outputs.payload_bytes >= limits.commit_bytes_max
        ):
            return True
        return now_s >= self._committed_s + self._distance_s(task, more=more)

    def wait_s(self, task: Task, now_s: float) -> float:
        """Return how long a task without input may wait for the next commit: for ever if there is nothing to commit."""
        if not task.dirty:
            return float("inf")
        return max(self._committed_s + self._distance_s(task, more=False) - now_s, 0.0)

    def _distance_s(self, task: Task, *, more: bool) -> float:
        if self._interval_s:
            return self._interval_s
        if more:
            return BUSY_S
        return 0.0 if self.records or task.outputs.records else IDLE_S


__all__ = ["BUSY_S", "IDLE_S", "CommitPace"]
