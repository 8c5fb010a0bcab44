"""What ends a running task, and how an error is put into a log line."""

from engine.errors import StreamForgeError


class TaskDroppedError(StreamForgeError):
    """The task must be dropped and restored: a transaction failed or is in doubt, and only the changelog knows."""


class RefusedOutputError(StreamForgeError):
    """The broker will never take what the task sends (a record too large, a topic that does not fit): a person must decide."""


def describe(error: BaseException) -> str:
    """Return an error for a log line: its kind, and its message if it has one."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
