"""What ends a running task, how an error is put into a log line, and where a task stands."""

import asyncio
import traceback
from collections.abc import Coroutine
from typing import Any

from engine.errors import StreamForgeError


class TaskDroppedError(StreamForgeError):
    """The task must be dropped and restored: a transaction failed or is in doubt, and only the changelog knows."""


class UnreportedError(TaskDroppedError):
    """The group's offsets could not be brought up to date, by a transaction of their own: there was nothing else to commit."""


class RefusedOutputError(StreamForgeError):
    """The broker will never take what the task sends (a record too large, a topic that does not fit): a person must decide."""


def describe(error: BaseException) -> str:
    """Return an error for a log line: its kind, and its message if it has one."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def closed_how(error: BaseException) -> str:
    """Return what an error on the way out has cost, for a log line."""
    if isinstance(error, UnreportedError):
        return "closed with everything committed, but the group's offsets, which lag tools read, are not up to date"
    return "closed without a last commit"


def stack_of(running: asyncio.Task[Any] | None) -> str:
    """Return where a task of the event loop waits, from the outermost call to the innermost, as text."""
    lines: list[str] = []
    waiting: Any = None if running is None else running.get_coro()
    while isinstance(waiting, Coroutine) and (frame := getattr(waiting, "cr_frame", None)) is not None:
        lines += traceback.format_stack(frame, 1)
        waiting = getattr(waiting, "cr_await", None)
    return "".join(lines) + (f"  waiting for {waiting!r}" if waiting is not None else "")
