"""The transactions of an open task, and which of them carry the group's offsets.

The input offsets are state: they are in the changelog, in each transaction, and a restart reads on from them (design rule 2). The
group's offsets only serve lag tools, and cost a transaction two more requests one after the other, answered by two coordinators, and a
marker in one more log. So they go along no more often than consumers commit by themselves (`auto.commit.interval.ms`):

    ● with the group's offsets       REPORT_S ├────────────────────────┤        │ IDLE_S
    commits                          ●  ○  ○  ○  ○  ○  ○  ○  ○  ○  ○  ○  ●  ○  ○        ●
                                                                            input ends ┘ (a transaction of its own)

A task that has nothing to do and the last commit before it closes leave the group's offsets exact.
"""

from collections.abc import Mapping

from engine.errors import ConfigError
from engine.records import TopicPartition
from engine.runtime.breakdown import RefusedOutputError, TaskDroppedError, UnreportedError, describe
from engine.runtime.opening import Opened
from engine.runtime.restore import changelog_columns
from engine.runtime.shell import Shell
from engine.task import Commit
from state.store import Position

REPORT_S = 5.0
IDLE_S = 0.5


class Transactions:
    """Commits what one open task has prepared. Times are those of the monotonic clock.

    Raises, from its methods:
        RefusedOutputError: The broker refuses an output, and would again.
        TaskDroppedError: It is unknown whether it was committed, or a newer producer owns the task.
        UnreportedError: The same, and there was nothing to commit but the group's offsets.
    """

    def __init__(self, shell: Shell, number: int, opened: Opened) -> None:
        self._shell = shell
        self._opened = opened
        self._changelog = TopicPartition(shell.plan.changelog_topic, number)
        known = opened.task.positions.items()  # a worker that was killed has left the group's behind them
        self._offsets = {partition: offset for partition, offset in known if offset is not None}
        self._reported: dict[TopicPartition, int] = {}
        self._reported_s = float("-inf")
        self._committed_s = 0.0

    async def commit(self, commit: Commit, now_ms: int, *, is_last: bool) -> Position:
        """Send outputs and changelog in one transaction; return the position of the store behind it.

        Args:
            is_last: None is to follow, so the group's offsets go along.
        """
        if not commit.outputs and not commit.changes:
            return self._opened.store.position
        now_s = self._shell.clock.monotonic_s()
        is_reported = commit.offsets != self._reported and (is_last or now_s - self._reported_s >= REPORT_S)
        ends = await self._send(commit, now_ms, commit.offsets if is_reported else {})
        self._committed_s, self._offsets = now_s, commit.offsets
        if is_reported:
            self._reported_s, self._reported = now_s, commit.offsets
        return Position(self._opened.identity, ends[self._changelog], now_ms) if commit.changes else self._opened.store.position

    async def report(self, *, is_last: bool) -> None:
        """Where nothing was to be committed: bring the group's offsets up to date if that is due."""
        now_s = self._shell.clock.monotonic_s()
        if self._offsets != self._reported and (is_last or now_s - self._committed_s >= IDLE_S):
            await self._send(None, 0, self._offsets)
            self._reported_s, self._reported = now_s, self._offsets

    async def _send(self, commit: Commit | None, now_ms: int, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        outputs = {} if commit is None else {**commit.outputs, self._changelog: changelog_columns(commit, now_ms)}
        try:
            await self._shell.ensure_outputs(() if commit is None else commit.outputs)
            return await self._opened.producer.commit(outputs, offsets)
        except ConfigError as error:
            raise RefusedOutputError(f"its outputs are refused, and would be again: {error}") from error
        except Exception as error:
            self._shell.metrics.task(self._changelog.partition).commit_failures += 1
            raise (UnreportedError if commit is None else TaskDroppedError)(describe(error)) from error
