"""Which tasks of a worker may commit, where commits follow one another.

The more transactions a broker is given at a time, the longer each of them takes: four at once all end late, while of two and then two
the first end early and the others take more records along. So half of the tasks that run have a turn at a time, in the order in which
they asked, and the others go on processing:

    task 0   ├── commit ──┤            ├── commit ──┤
    task 1   ├── commit ──┤            ├── commit ──┤
    task 2                ├── commit ──┤            ├── commit ──┤
    task 3                ├── commit ──┤            ├── commit ──┤

No commit depends on the end of another: a turn counts for TURN_S, so that a coordinator that does not answer holds up its own tasks
only, and a task that was called and has something else to do is passed over.
"""

from collections.abc import Callable
from itertools import islice

TURN_S = 0.2

Wake = Callable[[], None]
"""Makes a task that waits for its turn ask again; a task is known by it."""


class Turns:
    """The turns of all tasks of a worker; times are those of the monotonic clock."""

    def __init__(self) -> None:
        self._tasks: set[Wake] = set()
        self._asked_s: dict[Wake, float] = {}
        """When those who wait have asked last, in the order in which they asked first."""
        self._taken_s: dict[Wake, float] = {}

    def join(self, task: Wake) -> None:
        """Count a task in: it runs."""
        self._tasks.add(task)

    def leave(self, task: Wake, now_s: float) -> None:
        """Count a task out, whatever it holds or waits for."""
        self._tasks.discard(task)
        self.end(task, now_s)

    def take(self, task: Wake, now_s: float) -> bool:
        """Give a task its turn if one is left for it; otherwise it waits, and is woken when it should ask again."""
        self._asked_s[task] = now_s
        left = self._left(now_s)
        for other, asked_s in self._asked_s.items():
            if other == task:
                break
            left -= now_s - asked_s < TURN_S
        if left <= 0:
            return False
        del self._asked_s[task]
        self._taken_s[task] = now_s
        return True

    def end(self, task: Wake, now_s: float) -> None:
        """Take back the turn of a task, or its wish to have one, and wake those who are next."""
        self._taken_s.pop(task, None)
        self._asked_s.pop(task, None)
        for wake in islice(self._asked_s, max(self._left(now_s), 0)):
            wake()

    def is_waiting(self, task: Wake) -> bool:
        """Return whether a task has asked in vain so far."""
        return task in self._asked_s

    def _left(self, now_s: float) -> int:
        return (len(self._tasks) + 1) // 2 - sum(now_s - taken_s < TURN_S for taken_s in self._taken_s.values())


__all__ = ["TURN_S", "Turns", "Wake"]
