"""What aiokafka says again and again is said once in a while: without a broker it tells hundreds of times a second that there is none.

12:00:01 [ERROR] Unable connect to node with id 1: …
12:00:11 [ERROR] Unable connect to node with id 1: … (2911 more like it since)

And what nobody would see is not even made: Faust's progress display lowers the level of everything to DEBUG, and aiokafka tells of
each request (a twentieth of a worker's CPU time with short commits).
"""

import logging
import time
from collections.abc import Callable

INTERVAL_S = 10.0
_KINDS_MAX = 1_000


class Repeats(logging.Filter):
    """Lets a warning or error of one kind (logger, level, text before its arguments are filled in) pass once an interval."""

    def __init__(self, interval_s: float = INTERVAL_S, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._interval_s = interval_s
        self._now_s = now_s
        self._said: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is to be said; what was left out since the last of its kind is counted in its text."""
        if record.levelno < logging.WARNING:
            return True
        kind, now_s = (record.name, record.levelno, str(record.msg)), self._now_s()
        since_s, left_out = self._said.get(kind, (float("-inf"), 0))
        if now_s - since_s < self._interval_s:
            self._said[kind] = since_s, left_out + 1
            return False
        if len(self._said) >= _KINDS_MAX:
            self._said.clear()
        self._said[kind] = now_s, 0
        if left_out:
            record.msg, record.args = f"{record.getMessage()} ({left_out} more like it since)", ()
        return True


def say_once_in_a_while(library: str) -> None:
    """Put the filter on all loggers of a library that are there; calling it again changes nothing."""
    repeats = Repeats()
    for name in [library, *(name for name in logging.root.manager.loggerDict if name.startswith(f"{library}."))]:
        logger = logging.getLogger(name)
        if not any(isinstance(known, Repeats) for known in logger.filters):
            logger.addFilter(repeats)


def leave_out_details(library: str) -> None:
    """Give a library the lowest level that is written anywhere, unless it has one of its own."""
    logger = logging.getLogger(library)
    written = [handler.level for handler in logging.root.handlers if isinstance(handler, logging.StreamHandler)]
    if logger.level == logging.NOTSET and written:
        logger.setLevel(min(written))
