"""What can go wrong around a runner on the memory broker: disks, clocks, lines, commits, each in its own way."""

from engine.errors import StateError
from engine.runtime.transport.memory_connection import Fault
from engine.testing.clock import LoopClock
from state.hashing import partition_of
from state.memory import MemoryStore
from state.store import Position
from tests.engine.runtime.worker_world import World


class JumpingClock(LoopClock):
    """A wall clock that can be set."""

    offset_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.offset_ms


class FailingStore(MemoryStore):
    """A disk that is full once: the n-th apply with changes fails after the transaction has gone through."""

    def __init__(self, *, after: int) -> None:
        super().__init__()
        self.left = after
        self.failures = 0

    def apply(self, changes, position: Position) -> None:  # type: ignore[no-untyped-def]
        changes = list(changes)
        if changes and not self.failures:
            self.left -= 1
            if self.left == 0:
                self.failures += 1
                raise StateError("disk full")
        super().apply(changes, position)

    def reopened(self) -> "FailingStore":
        self.reopen()
        return self


class UnreadableStore(MemoryStore):
    """A store that cannot be read any more once it is `broken`, until it is emptied."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = self.emptied = False

    def get(self, key: bytes) -> bytes | None:
        if self.broken:
            raise StateError("block damaged")
        return super().get(key)

    def clear(self) -> None:
        super().clear()
        self.emptied = True


class FlushedStore(MemoryStore):
    """Counts flushes."""

    def __init__(self) -> None:
        super().__init__()
        self.flushes = 0

    def flush(self) -> None:
        self.flushes += 1


class SlowReads:
    """Every read of a changelog takes long."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.reading = False

    def on_request(self, request: str, client_id: str) -> Fault:
        if request == "fetch":
            self.reading = True
            return Fault(delay_s=self.delay_s)
        return Fault()


class Frost:
    """A process that stands still: what it asks for takes effect only when it thaws."""

    def __init__(self, world: World) -> None:
        self._clock = world.clock
        self.thaws_s = 0.0

    def on_request(self, request: str, client_id: str) -> Fault:
        return Fault(delay_s=max(0.0, self.thaws_s - self._clock.monotonic_s()))


class Silence:
    """No heartbeat arrives while `on`, everything else does."""

    def __init__(self) -> None:
        self.on = False

    def on_request(self, request: str, client_id: str) -> Fault:
        return Fault(lost="request") if self.on and request in ("heartbeat", "join_group", "sync_group") else Fault()


class Hang:
    """The first commit while `on` hangs until `on` is switched off (up to 9 s)."""

    def __init__(self, transactional_id: str) -> None:
        self.on = self.hung = False

    def on_request(self, request: str, client_id: str) -> Fault:
        if request == "end_txn" and self.on and not self.hung:
            self.hung = True
            return Fault(delay_s=5.0)
        return Fault()


def users_by_partition(partitions: int) -> dict[int, str]:
    """Return a user for each partition."""
    found: dict[int, str] = {}
    for n in range(100):
        found.setdefault(partition_of(f"user{n}".encode(), partitions), f"user{n}")
    return found
