"""Questions about the state of a running task, answered with what is committed.

    web handler ──ask(f)──► questions ──after the next commit──► f(task) ──► answer

Between two commits a task's state holds changes that may yet be undone. So a question waits until nothing is uncommitted, at most
a commit interval and what the transaction takes, and is answered in the task's own coroutine, where nothing changes meanwhile. A
question is quick: it looks at one key. The rows of tables can be read at once (`task`, and `HeldRows`), since they are read past
what is uncommitted.
"""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from engine.errors import UnavailableError
from engine.task import Task

T = TypeVar("T")

QUESTIONS_MAX = 10_000
GRACE_S = 10.0


class Questions:
    """What is asked of one task.

    Attributes:
        task: The task while it can be asked, None while it is being opened, is broken or closed. Its store is open as long as nothing
            is awaited.
    """

    def __init__(self, commit_interval_ms: int) -> None:
        self._timeout_s = commit_interval_ms / 1_000 + GRACE_S
        self.task: Task | None = None
        self._waiting: list[tuple[Callable[[Task], Any], asyncio.Future[Any]]] = []

    async def ask(self, question: Callable[[Task], T]) -> T:
        """Return what a function of the task gives when nothing is uncommitted.

        Raises:
            UnavailableError: The task is not open, was lost before it could answer, or did not answer in time.
            Exception: What the question raised.
        """
        task = self.task
        if task is None:
            raise UnavailableError("the task is not open at present; ask again in a moment")
        if not task.dirty:
            return question(task)
        if len(self._waiting) >= QUESTIONS_MAX:
            raise UnavailableError(f"{QUESTIONS_MAX} questions wait already; ask again in a moment")
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except TimeoutError:
            raise UnavailableError(f"the task has not committed for {self._timeout_s:g} s; ask again in a moment") from None

    def open(self, task: Task) -> None:
        """The task can be asked from now on."""
        self.task = task

    def answer(self) -> None:
        """A commit is through: answer all that wait."""
        assert self.task is not None
        waiting, self._waiting = self._waiting, []
        for question, answer in waiting:
            if answer.done():
                continue  # whoever asked has gone
            try:
                answer.set_result(question(self.task))
            except Exception as error:  # noqa: BLE001  # it is for whoever asked
                answer.set_exception(error)

    def close(self) -> None:
        """The task is let go: nobody gets an answer any more."""
        self.task = None
        waiting, self._waiting = self._waiting, []
        for _, answer in waiting:
            if not answer.done():
                answer.set_exception(UnavailableError("the task was let go before it could answer; ask again"))
