"""A queue of keyed timers on one clock: at most one for each (key, name), kept in state."""

from collections.abc import Iterator
from typing import Any

from engine.keys import KeyCodec, key_codec
from engine.operators.base import OperatorContext
from state.values import msgpack_codec, unit_codec

NEVER = 2**63  # beyond the end of time, which a watermark can reach


class TimerQueue:
    """Timers sorted by time. `next_ms` is the earliest time, NEVER for none: cheap to ask before each record.

    Attributes:
        set_ms: Earliest time for which one has been set since `due` was last called, NEVER for none.
    """

    def __init__(self, context: OperatorContext, local: str, key: KeyCodec) -> None:
        name = context.state_name(local)
        self._due = context.state.timed(name, key, unit_codec)
        self._times = context.state.mapped(f"{name}-times", key, key_codec(str), msgpack_codec(int))
        self._next_ms: int | None = None
        self.set_ms = NEVER

    @property
    def next_ms(self) -> int:
        """Earliest time of all timers."""
        if self._next_ms is None:
            first = self._due.next_time()
            self._next_ms = NEVER if first is None else first
        return self._next_ms

    def set(self, key: Any, name: str, timestamp_ms: int) -> None:
        """Set or replace a timer."""
        old_ms = self._times.get(key, name)
        if old_ms == timestamp_ms:
            return
        if old_ms is not None:
            self._due.delete(old_ms, key, name.encode())
        self._times.put(key, name, timestamp_ms)
        self._due.put(timestamp_ms, key, True, name.encode())
        self._next_ms = None if old_ms == self._next_ms else min(timestamp_ms, self.next_ms)
        self.set_ms = min(timestamp_ms, self.set_ms)

    def cancel(self, key: Any, name: str) -> None:
        """Delete a timer if there is one."""
        old_ms = self._times.get(key, name)
        if old_ms is not None:
            self._due.delete(old_ms, key, name.encode())
            self._times.delete(key, name)
            self._next_ms = None

    def due(self, until_ms: int) -> Iterator[tuple[int, Any, str]]:
        """Yield (time, key, name) of the timers due, by time, then key bytes, then name; take each, and ask again for what is set then."""
        self.set_ms = NEVER
        return ((due_ms, key, sub.decode()) for due_ms, key, sub, _ in self._due.due(until_ms))

    def take(self, due_ms: int, key: Any, name: str) -> bool:
        """Use up a timer; False if it is no longer set for that time."""
        if self._times.get(key, name) != due_ms:
            return False
        self.cancel(key, name)
        return True

    def pending(self, key: Any) -> dict[str, int]:
        """Return the timers of a key: name and time."""
        return dict(self._times.items(key))

    def rolled_back(self) -> None:
        """Forget what is cached."""
        self._next_ms = None
