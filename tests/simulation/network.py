"""The network between simulated workers and the broker, and what the fetches of a worker look like on their way.

Requests are slow or lost as the weather says; a process may be frozen (what it asks for takes effect only when it thaws), cut off, or mute
(only its heartbeats are lost, so that it goes on as a second owner of what the group has given away).
"""

from collections.abc import Callable
from random import Random
from typing import Any

from engine.records import RecordBatch, TopicPartition
from engine.runtime.transport.memory import MemoryTransport
from engine.runtime.transport.memory_connection import NO_FAULT, Fault, Request
from engine.testing.clock import LoopClock

MEMBERSHIP = frozenset({"heartbeat", "join_group", "sync_group"})


class Weather:
    """What happens on the network at large.

    Attributes:
        calm: Nothing goes wrong, and everything is quick.
        slowness_s: Scale of the delays.
        loss: Share of the requests of which one half gets lost.
        outage_ends_s: Until then the broker cannot be reached.
    """

    def __init__(self, clock: LoopClock, random: Random) -> None:
        self.clock = clock
        self.calm = False
        self.slowness_s = random.choice([0.001, 0.005, 0.05])
        self.loss = random.choice([0.0, 0.002, 0.01])
        self.slow_commits = random.choice([0.0, 0.0, 0.02])
        self.outage_ends_s = 0.0
        self._random = random

    def fault(self, request: Request) -> Fault:
        """Return what happens to a request."""
        if self.calm:
            return NO_FAULT
        random = self._random
        if self.clock.monotonic_s() < self.outage_ends_s:
            return Fault(lost="request", delay_s=random.random() * 0.2)
        delay_s = random.random() * self.slowness_s * (20 if random.random() < 0.03 else 1)
        answer_s = random.random() * self.slowness_s
        if request == "end_txn" and random.random() < self.slow_commits:
            delay_s += 4.0
        if random.random() < self.loss:
            return Fault(delay_s, answer_s + 0.05, random.choice(["request", "answer"]))
        return Fault(delay_s, answer_s)


class Line:
    """The way of one process to the broker.

    Args:
        on_request: Asked for each request; it may arm the death of the process, and return how long the answer must take then.
    """

    def __init__(self, weather: Weather, on_request: Callable[[Request, float], float]) -> None:
        self.thaws_s = self.cut_ends_s = self.mute_ends_s = 0.0
        self.is_dead = False
        self._weather = weather
        self._on_request = on_request

    def on_request(self, request: Request, client_id: str) -> Fault:
        """See `Faults`."""
        now_s = self._weather.clock.monotonic_s()
        if self.is_dead:
            return Fault(lost="request", delay_s=0.01)
        if now_s < self.cut_ends_s or (request in MEMBERSHIP and now_s < self.mute_ends_s):
            return Fault(lost="request", delay_s=0.05)
        fault = self._weather.fault(request)
        delay_s = fault.delay_s + max(0.0, self.thaws_s - now_s)
        answer_s = max(fault.answer_delay_s, self._on_request(request, delay_s))
        return Fault(delay_s, answer_s, fault.lost)


class SimulatedTransport(MemoryTransport):
    """The memory transport, with fetches that come twice, late, or in another order between the topics.

    Batches of one partition stay in their order; one that comes a second time comes later, and without what was attached to it.
    """

    def __init__(self, *args: Any, random: Random, weather: Weather, **options: Any) -> None:
        super().__init__(*args, **options)
        self._random = random
        self._weather = weather
        self._held: dict[TopicPartition, list[RecordBatch]] = {}
        self._old: list[RecordBatch] = []
        self._repeats = random.choice([0.0, 0.05, 0.3])
        self._holds = random.choice([0.0, 0.1, 0.4])

    async def poll(self, timeout_s: float) -> list[RecordBatch]:
        """Return what has come, not all of it at once."""
        fetched = await super().poll(timeout_s)
        for batch in fetched:
            self._held.setdefault(TopicPartition(batch.topic, batch.partition), []).append(batch)
        random, calm = self._random, self._weather.calm
        out: list[RecordBatch] = []
        for partition in list(self._held):
            if calm or random.random() >= self._holds:
                out += self._held.pop(partition)
        if calm:
            self._old.clear()
            return out
        out = _mixed(out, random.sample(range(len(out)), len(out)))
        if self._old and random.random() < self._repeats:
            out.append(_copy(random.choice(self._old)))
        self._old = [*self._old, *fetched][-8:]
        return out


def _mixed(batches: list[RecordBatch], order: list[int]) -> list[RecordBatch]:
    """Return batches in another order, those of one partition in their own."""
    queues: dict[tuple[str, int], list[RecordBatch]] = {}
    for batch in batches:
        queues.setdefault((batch.topic, batch.partition), []).append(batch)
    return [queues[batches[index].topic, batches[index].partition].pop(0) for index in order]


def _copy(batch: RecordBatch) -> RecordBatch:
    return RecordBatch(
        batch.topic, batch.partition, batch.offsets, batch.timestamps, batch.keys, batch.values,
        batch.position, batch.next_offset, batch.high_watermark, batch.read_headers,
    )  # fmt: skip
