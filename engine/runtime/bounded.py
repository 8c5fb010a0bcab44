"""Bounded runs: the same tasks, until the input that is there has been used up (`streamforge run`, back-fills, tests).

    sources read up to the end that they had at the start ─► each task: end of input, every window closes, time ends
    repartition topics: read until nothing is left and nobody can add to them any more ─► last commit ─► done

The second step needs no counting of stages: once every task has ended its sources and has committed everything, the repartition
topics only grow through what is read from them. When all of it has been read and committed, nothing can move any more.
"""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

from engine.errors import ConfigError
from engine.records import TopicPartition
from engine.runtime.lifecycle import Phase
from engine.runtime.runner import Runner


async def run_to_end(runner: Runner, *, feeding: Coroutine[Any, Any, None] | None = None) -> None:
    """Run until all input is used up and every window is closed, then commit, close and return.

    Args:
        runner: It must be the only member of its group: partitions that another member holds are waited for.
        feeding: Sends the input while the runner runs; the end of the input is where the topics end when it has returned.
            Without it, it is where they end now: what is sent later may be left out.
    Raises:
        ConfigError: A task cannot go on without a person.
        Exception: As `Runner.run`, and whatever `feeding` raises.
    """
    feeder = asyncio.create_task(_nothing() if feeding is None else feeding, name="feeding")
    ends: dict[TopicPartition, int] | None = None
    try:
        await runner.start()
        plan = runner.plan
        sources = [TopicPartition(topic, number) for topic in plan.sources for number in range(plan.partitions)]
        while not runner.is_stopping:
            if feeder.done() and ends is None:
                feeder.result()
                ends = await runner.transport.end_offsets(sources)
                runner.wait_for_nobody()
            if ends is not None and await _is_used_up(runner, ends):
                break
            _check(runner)
            await runner.turn()
    finally:
        feeder.cancel()
        await runner.shut_down()
    runner.raise_failure()


async def _nothing() -> None:
    """Feed nothing."""


async def _is_used_up(runner: Runner, ends: Mapping[TopicPartition, int]) -> bool:
    plan = runner.plan
    if len(runner.tasks) < plan.partitions or any(task.phase is not Phase.RUNNING for task in runner.tasks.values()):
        return False
    for number, task in runner.tasks.items():
        at_end = all(task.positions[TopicPartition(topic, number)] >= ends[TopicPartition(topic, number)] for topic in plan.sources)
        if at_end and not task.is_input_ended:
            task.end_input(tuple(plan.sources))
    if not _all_drained(runner):
        return False
    internal = [TopicPartition(topic, number) for topic in plan.internal_topics for number in range(plan.partitions)]
    internal_ends = await runner.transport.end_offsets(internal)
    read = all(runner.tasks[partition.partition].positions.get(partition, -1) >= end for partition, end in internal_ends.items())
    return read and _all_drained(runner)


def _all_drained(runner: Runner) -> bool:
    return all(task.is_input_ended and task.is_drained() for task in runner.tasks.values())


def _check(runner: Runner) -> None:
    for task in runner.tasks.values():
        if task.failure is not None:
            raise ConfigError(f"task {task.number}: {task.failure}")
