"""Questions wait until nothing is uncommitted, and none of them waits for ever."""

import asyncio
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import pytest

from engine.errors import UnavailableError
from engine.runtime.questions import Questions
from engine.testing.clock import virtual_time


def opened(*, dirty: bool) -> tuple[Questions, Any]:
    """Return questions to a task, of which they only see whether it is dirty."""
    task: Any = SimpleNamespace(dirty=dirty, name="task")
    questions = Questions(200)
    questions.open(task)
    return questions, task


@virtual_time
async def test_question_to_a_clean_task_is_answered_at_once() -> None:
    questions, task = opened(dirty=False)
    assert await questions.ask(lambda asked: asked is task)


@virtual_time
async def test_question_to_a_dirty_task_waits_for_the_commit_and_gets_what_it_raises() -> None:
    questions, _ = opened(dirty=True)
    good, bad = (asyncio.create_task(questions.ask(ask)) for ask in (attrgetter("name"), attrgetter("other")))
    gone = asyncio.create_task(questions.ask(attrgetter("name")))
    await asyncio.sleep(1)
    assert not good.done()
    gone.cancel()
    await asyncio.sleep(0)
    questions.answer()
    assert await good == "task"
    with pytest.raises(AttributeError):
        await bad


@virtual_time
async def test_question_that_nobody_answers_ends_with_the_time_or_the_task() -> None:
    questions, _ = opened(dirty=True)
    with pytest.raises(UnavailableError, match=r"has not committed for 10\.2 s"):
        await questions.ask(lambda task: task)
    waiting = asyncio.create_task(questions.ask(lambda task: task))
    await asyncio.sleep(0)
    questions.close()
    with pytest.raises(UnavailableError, match="let go"):
        await waiting
    with pytest.raises(UnavailableError, match="not open"):
        await questions.ask(lambda task: task)
