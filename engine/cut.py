"""The cut of a savepoint through a task: everything that came in before it has taken effect, and nothing that comes after.

The sources have stopped. What they brought may still be on its way through repartition topics, so those are drained in order: behind
its last record each upstream task writes a barrier to every partition of a topic, in the transaction that commits what led to that
record. A topic is drained where the barriers of all upstreams have been read; only then does the stage behind it write its own.

    sources stop ─ commit ─ barrier ──► [repartition 1] ──► N barriers read ─ commit ─ barrier ──► [repartition 2] ──► …

A task has its cut when it has read the barriers of all its repartition topics and committed. Nobody takes new input until all have
theirs, so no topic holds anything that matters: the state of all tasks and the offsets of the sources are the whole app.

A barrier has no key and the header `streamforge: barrier`. Source: Carbone et al., "Lightweight Asynchronous Snapshots for Distributed
Dataflows", 2015 (aligned barriers; here the sources wait, instead of buffering what overtakes).
"""

from typing import TYPE_CHECKING

import msgspec

from engine.inputs import RepartitionInput
from engine.operators.repartition import BARRIER_HEADERS, Barrier, RepartitionSink

if TYPE_CHECKING:
    from engine.task import Task


class Cut:
    """How far the cut of one savepoint has come in a task. Make it when the sources have stopped."""

    def __init__(self, task: "Task", savepoint: str) -> None:
        self._task = task
        self._savepoint = savepoint
        self._sent: set[str] = set()

    def step(self) -> bool:
        """Write the barriers that are due; return whether the task has its cut. Call it when everything taken so far is committed.

        What it writes goes out with the next commit.
        """
        assert not self._task.dirty, "what led to the last record is not committed yet"
        done = True
        for run in self._task.runs.values():
            for topic, upstream in run.upstream_of.items():
                if topic not in self._sent and all(self._is_drained(source) for source in upstream):
                    self._sent.add(topic)
                    for operator in run.operators.values():
                        if isinstance(operator, RepartitionSink) and operator.topic == topic:
                            operator.tell_all()  # told behind the barrier, it would close windows behind the cut of the stage that reads it
                    self._send(topic)
                done = done and topic in self._sent
            done = done and all(self._is_drained(source) for source in run.inputs.values())
        return done and not self._task.dirty

    def forget(self) -> None:
        """The savepoint is over, one way or the other."""
        for run in self._task.runs.values():
            for source in run.inputs.values():
                if isinstance(source, RepartitionInput):
                    source.barriers.pop(self._savepoint, None)

    def _is_drained(self, source: object) -> bool:
        return not isinstance(source, RepartitionInput) or source.is_drained(self._savepoint)

    def _send(self, topic: str) -> None:
        task = self._task
        barrier = msgspec.json.encode(Barrier(1, task.plan.epoch, task.number, self._savepoint))
        task.dirty = True
        for partition in range(task.plan.partitions):
            task.outputs.add_to(topic, partition, max(0, task.now_ms), None, barrier, BARRIER_HEADERS)
