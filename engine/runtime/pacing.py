"""When a task commits.

    commit_interval="1s"      throughput: once a second, earlier when a transaction is full
    commit_interval="0ms"     latency: commits follow one another. When one is through, the next takes what has come in meanwhile

With 0 the size of a transaction follows the load by itself: a record that comes alone is committed alone and at once, and the more comes
in while a commit is on its way (some 10 ms), the more the next one takes. The tasks of a worker take turns (`engine.runtime.turns`):
all at once they would fill its core and the broker's with commits, and each would take the longer for it. Where input never runs out, as
while a task catches up, commits keep a distance of BUSY_S, or most of the time would go into them. Progress that no reader can see (an
offset that moved past the markers of others, a watermark) waits for IDLE_S.

The interval is from begin to begin, so that what a commit takes does not come on top of it. A slow broker must not starve a task that
has input at hand: then at most half of the time goes into commits, with interval 0 a fifth of it.

    interval 200 ms, commits take  40 ms      0, 200, 400 …
    interval 200 ms, commits take 300 ms      0, 300, 600 …        more input at hand: 0, 500, 1000 …

The tasks of a worker are opened at the same moment, and would commit at the same moment ever after: each would wait for the work of
all, here and at the broker. So each has a phase of its own within the interval, and reaches it with its first commits:

    task 0    ●───────────●───────────●
    task 2    ───●───────────●───────────●        multiples of the golden ratio: even gaps for any set of tasks
    task 1    ───────●───────────●───────────●
"""

from engine.runtime.shell import Limits
from engine.runtime.turns import Turns, Wake
from engine.task import Task

BUSY_S = 0.2
IDLE_S = 0.1
_GOLDEN = 0.618034
_BUSY_SHARE = 4
"""With interval 0 and input at hand a task works so many times as long as its last commit took."""


class CommitPace:
    """Decides when the next commit is due; times are those of the monotonic clock.

    Args:
        turns: Those of the worker; with an interval of 0 a commit needs one.
        wake: Makes the task call `is_due` again.

    Attributes:
        records: Input records since the last commit.
    """

    def __init__(self, limits: Limits, number: int, turns: Turns, wake: Wake) -> None:
        self._limits = limits
        self._interval_s = limits.commit_interval_ms / 1_000
        self._phase_s = number * _GOLDEN % 1.0 * self._interval_s
        self._begun_s = self._committed_s = 0.0
        self._turns, self._wake = turns, wake
        self.records = 0

    def start(self, now_s: float) -> None:
        """The task is open, and everything is committed."""
        self._turns.join(self._wake)
        self.restart(now_s, now_s)

    def restart(self, begun_s: float, now_s: float) -> None:
        """Everything is committed, by a commit that began and has now ended."""
        self._turns.end(self._wake, now_s)
        self._begun_s, self._committed_s = begun_s, now_s
        self.records = 0

    def stop(self, now_s: float) -> None:
        """The task is not open any more."""
        self._turns.leave(self._wake, now_s)

    def is_due(self, task: Task, now_s: float, *, more: bool) -> bool:
        """Return whether to commit now; then `restart` is called when that has ended, or `stop`.

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
        if now_s < self._due_s(task, more=more):
            return False
        return bool(self._interval_s) or not task.dirty or self._turns.take(self._wake, now_s)

    def wait_s(self, task: Task, now_s: float) -> float:
        """Return how long a task without input may wait for the next commit.

        For ever if there is nothing to commit, or others have their turns: then it is woken.
        """
        if not task.dirty:
            return float("inf")
        left_s = self._due_s(task, more=False) - now_s
        if left_s <= 0 and self._turns.is_waiting(self._wake):
            return float("inf")
        return max(left_s, 0.0)

    def _due_s(self, task: Task, *, more: bool) -> float:
        took_s = self._committed_s - self._begun_s
        if self._interval_s:
            due_s = self._in_phase_s()
            return max(due_s, self._committed_s + min(took_s, self._interval_s)) if more else due_s
        if more:
            return self._committed_s + max(BUSY_S, took_s * _BUSY_SHARE)
        return self._committed_s if self.records or task.outputs.records else self._committed_s + IDLE_S

    def _in_phase_s(self) -> float:
        """Return the moment of the task's own phase that is closest to an interval after the last commit began."""
        half_s = self._interval_s / 2
        return self._begun_s + half_s + (self._phase_s - self._begun_s - half_s) % self._interval_s


__all__ = ["BUSY_S", "IDLE_S", "CommitPace"]
