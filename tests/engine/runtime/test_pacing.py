"""When a task commits: by the interval, when a transaction is full, and one after the other."""

from dataclasses import replace

import pytest

from engine.records import RecordBatch
from engine.runtime.pacing import BUSY_S, IDLE_S, CommitPace
from engine.runtime.shell import Limits
from engine.task import Task
from engine.testing.clock import virtual_loop, virtual_time
from state.memory import MemoryStore
from tests.engine.runtime.worker_world import FAST, World, numbering

LIMITS = Limits(commit_interval_ms=1_000, commit_records_max=3, commit_bytes_max=10_000)
LATENCY = replace(LIMITS, commit_interval_ms=0)


def task_with(records: int) -> Task:
    """Return a task that has taken so many records, each of which gave one output; none: only its offset has moved."""
    task = Task(numbering(partitions=1).plan(), 0, MemoryStore(), now_ms=0)
    values: list[bytes | None] = [b'{"user": "ann", "page": "p", "ts": %d}' % number for number in range(records)]
    batch = RecordBatch("clicks", 0, range(records), [0] * records, [b"ann"] * records, values, position=0, next_offset=records + 1)
    task.process("number", batch, 0)
    task.finish_batch(batch)
    return task


def pace_of(limits: Limits, records: int, *, took_s: float = 0.0) -> CommitPace:
    """Return a pace whose last commit ended at 10 s, with so many records since."""
    pace = CommitPace(limits)
    pace.records = 99
    pace.restart(10.0 - took_s, 10.0)
    pace.records = records
    return pace


@pytest.mark.parametrize(("now_s", "expected"), [(10.0, False), (10.999, False), (11.0, True)])
@pytest.mark.parametrize("more", [True, False])
def test_interval_is_kept_with_and_without_input(now_s: float, expected: bool, more: bool) -> None:
    assert pace_of(LIMITS, 1).is_due(task_with(1), now_s, more=more) is expected


@pytest.mark.parametrize("took_s", [0.0, 0.1, 0.4])
def test_interval_is_from_begin_to_begin(took_s: float) -> None:
    pace, task = CommitPace(LIMITS), task_with(1)
    pace.restart(10.0, 10.0 + took_s)
    assert pace.wait_s(task, 10.5) == pytest.approx(0.5)
    assert not pace.is_due(task, 10.999, more=False)
    assert pace.is_due(task, 11.0, more=True)


@pytest.mark.parametrize(("number", "phase_s"), [(0, 0.0), (1, 0.618), (2, 0.236), (3, 0.854), (12, 0.416)])
@pytest.mark.parametrize("begun_s", [10.0, 10.2, 10.49, 10.51, 10.9])
def test_each_task_comes_to_a_phase_of_its_own_and_stays_in_it(number: int, phase_s: float, begun_s: float) -> None:
    pace, task, commits = CommitPace(LIMITS, number), task_with(1), [begun_s]
    pace.restart(begun_s, begun_s)
    for _ in range(3):
        now_s = commits[-1]
        commits.append(now_s + pace.wait_s(task, now_s))
        pace.restart(commits[-1], commits[-1] + 0.01)
    assert 0.5 < commits[1] - commits[0] <= 1.5, "the first commit of a task is not far from an interval after it was opened"
    assert [commit_s % 1.0 for commit_s in commits[1:]] == pytest.approx([phase_s] * 3, abs=0.001)
    assert commits[2] - commits[1] == pytest.approx(1.0)


def test_task_that_had_nothing_to_commit_commits_at_once() -> None:
    pace = CommitPace(LIMITS, 1)
    pace.restart(10.0, 10.0)
    assert pace.is_due(task_with(1), 25.1, more=False)


@pytest.mark.parametrize(("took_s", "due_s"), [(0.6, 10.6), (1.5, 11.0)])
def test_commits_that_take_long_leave_time_for_work_where_input_waits(took_s: float, due_s: float) -> None:
    pace, task = pace_of(LIMITS, 1, took_s=took_s), task_with(1)
    assert not pace.is_due(task, due_s - 0.01, more=True)
    assert pace.is_due(task, due_s + 0.01, more=True)
    assert pace.is_due(task, due_s, more=False)


@pytest.mark.parametrize("limits", [LIMITS, LATENCY])
def test_full_transaction_is_due_at_once(limits: Limits) -> None:
    assert pace_of(limits, 3).is_due(task_with(0), 10.0, more=True)
    assert pace_of(limits, 0).is_due(task_with(3), 10.0, more=True)
    assert pace_of(replace(limits, commit_bytes_max=20), 0).is_due(task_with(1), 10.0, more=True)


def test_latency_commits_at_once_when_all_input_is_taken() -> None:
    assert pace_of(LATENCY, 1).is_due(task_with(1), 10.0, more=False)
    assert pace_of(LATENCY, 1).wait_s(task_with(1), 10.0) == 0.0


@pytest.mark.parametrize(("took_s", "pause_s"), [(0.01, 0.01), (0.08, 0.08), (3.0, BUSY_S)])
def test_latency_gives_work_as_long_as_the_commit_took(took_s: float, pause_s: float) -> None:
    pace, task = pace_of(LATENCY, 1, took_s=took_s), task_with(1)
    assert pace.wait_s(task, 10.0) == pytest.approx(pause_s)
    assert not pace.is_due(task, 10.0 + pause_s - 0.001, more=False)
    assert pace.is_due(task, 10.0 + pause_s + 0.001, more=False)


def test_latency_keeps_a_distance_while_there_is_more() -> None:
    pace, task = pace_of(LATENCY, 1), task_with(1)
    assert not pace.is_due(task, 10.0 + BUSY_S - 0.01, more=True)
    assert pace.is_due(task, 10.0 + BUSY_S, more=True)


def test_latency_spends_a_fifth_of_the_time_on_commits_while_there_is_more() -> None:
    pace, task = pace_of(LATENCY, 1, took_s=0.1), task_with(1)
    assert not pace.is_due(task, 10.39, more=True)
    assert pace.is_due(task, 10.41, more=True)


def test_latency_lets_progress_wait_that_nobody_sees() -> None:
    pace, task = pace_of(LATENCY, 0), task_with(0)
    assert task.dirty
    assert not pace.is_due(task, 10.0, more=False)
    assert pace.wait_s(task, 10.02) == pytest.approx(IDLE_S - 0.02)


def test_wait_is_until_the_commit_and_for_ever_when_there_is_none() -> None:
    assert pace_of(LIMITS, 1).wait_s(task_with(1), 10.4) == pytest.approx(0.6)
    assert pace_of(LIMITS, 0).wait_s(Task(numbering(partitions=1).plan(), 0, MemoryStore(), now_ms=0), 10.4) == float("inf")


@virtual_time
async def test_runner_for_latency_does_not_wait_for_a_tick() -> None:
    """Ticks are 100 ms apart, and nothing else wakes the task: the memory broker and the check take 70 ms at most."""
    world = World(numbering(partitions=1))
    worker = world.worker(limits=replace(FAST, commit_interval_ms=0))
    for number in range(1, 6):
        world.click("ann")
        begun_s = virtual_loop().time()
        await world.until(ann=number)
        assert number == 1 or virtual_loop().time() - begun_s <= 0.07
    await worker.stop()
