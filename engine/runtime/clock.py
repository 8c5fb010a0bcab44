"""The clocks of a worker: the only place of the shell that reads them, so that a test can put others in.

`now_ms` is the wall clock (UTC, it may jump); `monotonic_s` never goes back, and it is the clock that the transport stamps fetch
answers and heartbeats with. `working_s` stands still while the thread does not run: how much work something is, whatever else the
machine does.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Wall clock and monotonic clock."""

    def now_ms(self) -> int:
        """Return the wall clock, UTC milliseconds."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds since some moment; only differences mean anything."""
        ...

    def working_s(self) -> float:
        """Return the CPU seconds of this thread."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Return the wall clock, UTC milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Return the monotonic clock, seconds."""
        return time.monotonic()

    def working_s(self) -> float:
        """Return the CPU seconds of this thread."""
        return time.thread_time()
