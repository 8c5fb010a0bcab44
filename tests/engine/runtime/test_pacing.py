"""When a task commits: by the interval, when a transaction is full, and one after the other."""

import asyncio
from dataclasses import replace

import pytest

from engine.records import RecordBatch
from engine.runtime.pacing import BUSY_S, IDLE_S, CommitPace
from engine.runtime.shell import Limits
from engine.runtime.transport.memory_connection import Fault
from engine.runtime.turns import Turns
from engine.task import Task
from engine.testing.clock import virtual_loop, virtual_time
from state.memory import MemoryStore
from tests.engine.runtime.worker_world import FAST, Script, World, eventually, numbering

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


def new_pace(limits: Limits, number: int = 0, *, turns: Turns | None = None, woken: list[int] | None = None) -> CommitPace:
    """Return the pace of a task that shares `turns` with others, and notes its number in `woken` when it is woken."""
    log = [] if woken is None else woken
    return CommitPace(limits, number, Turns() if turns is None else turns, lambda: log.append(number))


def pace_of(limits: Limits, records: int, *, took_s: float = 0.0) -> CommitPace:
    """Return a pace whose last commit ended at 10 s, with so many records since."""
    pace = new_pace(limits)
    pace.start(5.0)
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
    pace, task = new_pace(LIMITS), task_with(1)
    pace.restart(10.0, 10.0 + took_s)
    assert pace.wait_s(task, 10.5) == pytest.approx(0.5)
    assert not pace.is_due(task, 10.999, more=False)
    assert pace.is_due(task, 11.0, more=True)


@pytest.mark.parametrize(("number", "phase_s"), [(0, 0.0), (1, 0.618), (2, 0.236), (3, 0.854), (12, 0.416)])
@pytest.mark.parametrize("begun_s", [10.0, 10.2, 10.49, 10.51, 10.9])
def test_each_task_comes_to_a_phase_of_its_own_and_stays_in_it(number: int, phase_s: float, begun_s: float) -> None:
    pace, task, commits = new_pace(LIMITS, number), task_with(1), [begun_s]
    pace.restart(begun_s, begun_s)
    for _ in range(3):
        now_s = commits[-1]
        commits.append(now_s + pace.wait_s(task, now_s))
        pace.restart(commits[-1], commits[-1] + 0.01)
    assert 0.5 < commits[1] - commits[0] <= 1.5, "the first commit of a task is not far from an interval after it was opened"
    assert [commit_s % 1.0 for commit_s in commits[1:]] == pytest.approx([phase_s] * 3, abs=0.001)
    assert commits[2] - commits[1] == pytest.approx(1.0)


def test_task_that_had_nothing_to_commit_commits_at_once() -> None:
    pace = new_pace(LIMITS, 1)
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


def test_latency_gives_half_of_the_tasks_a_turn_and_wakes_the_next() -> None:
    turns, woken = Turns(), list[int]()
    paces, task = [new_pace(LATENCY, number, turns=turns, woken=woken) for number in range(4)], task_with(1)
    for pace in paces:
        pace.start(10.0)
        pace.records = 1
    assert [pace.is_due(task, 10.0, more=False) for pace in paces] == [True, True, False, False]
    assert [pace.wait_s(task, 10.0) for pace in paces] == [0.0, 0.0, float("inf"), float("inf")]
    paces[1].restart(10.0, 10.02)
    assert woken == [2]
    paces[1].records = 1
    assert not paces[1].is_due(task, 10.02, more=False), "others are before it"
    assert not paces[3].is_due(task, 10.02, more=False)
    assert paces[2].is_due(task, 10.02, more=False)


def test_full_transaction_and_nothing_to_commit_wait_for_no_turn() -> None:
    turns = Turns()
    paces = [new_pace(LATENCY, number, turns=turns) for number in range(2)]
    for pace in paces:
        pace.start(10.0)
        pace.records = 1
    assert paces[0].is_due(task_with(1), 10.0, more=False)
    assert not paces[1].is_due(task_with(1), 10.0, more=False)
    assert paces[1].is_due(Task(numbering(partitions=1).plan(), 0, MemoryStore(), now_ms=0), 10.0, more=False)
    assert paces[1].is_due(task_with(3), 10.0, more=False)


def test_turn_that_was_taken_by_a_task_which_is_closed_is_given_on() -> None:
    turns, woken = Turns(), list[int]()
    paces, task = [new_pace(LATENCY, number, turns=turns, woken=woken) for number in range(2)], task_with(1)
    for pace in paces:
        pace.start(10.0)
        pace.records = 1
    assert paces[0].is_due(task, 10.0, more=False)
    assert not paces[1].is_due(task, 10.0, more=False)
    paces[0].stop(10.01)
    assert woken == [1]
    assert paces[1].is_due(task, 10.01, more=False)


def test_tasks_with_an_interval_need_no_turns() -> None:
    turns, task = Turns(), task_with(1)
    paces = [new_pace(LIMITS, number, turns=turns) for number in range(4)]
    for pace in paces:
        pace.start(10.0)
    assert all(pace.is_due(task, 12.0, more=False) for pace in paces)


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
async def test_commit_that_hangs_stops_only_its_own_task() -> None:
    """One of two tasks has a turn at a time; a coordinator that does not answer must not keep it."""
    world = World(numbering(partitions=2))
    users = ["ann", next(user for user in ("bob", "cid", "dan", "eve") if world.partition(user) != world.partition("ann"))]
    script = Script({})
    worker = world.worker(faults=script, limits=replace(FAST, commit_interval_ms=0))
    await worker.until_running(0, 1)
    await asyncio.sleep(1)
    script.plan["end_txn", script.seen["end_txn"] + 1] = Fault(delay_s=5.0)
    for user in users:
        world.click(user)
    begun_s = virtual_loop().time()
    await eventually(lambda: len(world.numbers()) == 1)
    (user,) = world.numbers()
    for number in range(2, 5):
        world.click(user)
        await world.until(**{user: number})
    assert virtual_loop().time() - begun_s < 2.0
    await world.until(**{user: 4}, **{other: 1 for other in users if other != user})
    await worker.stop()


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
