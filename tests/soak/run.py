"""One soak: a broker, a worker, orders, rebalances, and what came of it."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.records import OutputColumns, TopicPartition
from engine.runtime.runner import Runner
from engine.runtime.shell import Limits
from engine.runtime.stores import StateFolder
from engine.runtime.transports import make_transport
from state.hashing import partition_of
from tests.chaos.worker import Worker
from tests.kafka_server import KafkaServer
from tests.soak.app import PARTITIONS, app
from tests.soak.measure import Growth, Sample, growth, look
from tests.soak.tally import Tally

START_MS = 1_767_225_600_000
USERS, COUNTRIES = 1_000, ("DE", "FR", "US", "GB")
ORDER_MS = 3
_AT_ONCE = 20_000
_SESSION_S = 6.0
_QUIET_S = 300.0
_REST_S = 1.0
_NUDGE = 400
_PATIENT = {"broker.session.timeout.ms": "30000"}
"""On a busy machine the broker misses its own heartbeats, loses its partitions for a moment, and then the ends of transactions."""

Say = Callable[[str], None]


@dataclass(slots=True)
class Found:
    """What a soak has shown.

    Attributes:
        counted: Orders in the windows of users, and of countries: as many as were sent.
        late: Orders that came too late for theirs: none, as they are sent in order.
    """

    sent: int = 0
    seconds: float = 0.0
    counted: dict[str, int] = field(default_factory=dict)
    late: dict[str, int] = field(default_factory=dict)
    by_records: Growth | None = None
    by_rebalances: Growth | None = None


class Soak:
    """Runs one; everything is gone when `run` returns, but for the worker's log in `folder`."""

    def __init__(self, records: int, rebalances: int, folder: Path, say: Say) -> None:
        self._records = records
        self._rebalances = rebalances
        self._folder = folder
        self._say = say
        self._number = 0
        self._users = [[user for user in map(str, range(USERS)) if partition_of(user.encode(), PARTITIONS) == n] for n in range(PARTITIONS)]

    async def run(self) -> Found:
        """Run it."""
        found, begun_s = Found(), time.monotonic()
        server = KafkaServer(_PATIENT, measured=True)
        await asyncio.to_thread(server.start)
        address = f"kafka://{server.bootstrap}"
        environ = {"STREAMFORGE_BROKER": address, "STREAMFORGE_BROKER_SESSION_TIMEOUT": str(_SESSION_S)}
        worker = Worker("worker", "tests.soak.app", self._folder, environ)
        self._transport = make_transport(address, group="soak")
        try:
            await self._transport.start()
            specs = app.topology.plan().topic_specs(create_sources=True)
            # The orders lie in the past: what is older than a topic keeps would be deleted before it is read.
            kept = [spec if spec.compacted or spec.retention_ms is not None else replace(spec, retention_ms=-1) for spec in specs]
            await self._transport.ensure_topics(kept)
            worker.start()
            found.by_records = await self._take_orders(worker)
            found.by_rebalances = await self._rebalance(worker, address)
            await self._close_windows(worker)
            found.sent = self._number
            await self._count(worker, found)
        finally:
            worker.kill()
            await self._transport.stop()
            await asyncio.to_thread(server.stop)
        found.seconds = time.monotonic() - begun_s
        return found

    async def _take_orders(self, worker: Worker) -> Growth:
        sending = asyncio.create_task(self._send(self._records))
        samples: list[Sample] = []
        try:
            await self._until_taken(worker, self._records, samples)
            await sending
        finally:
            sending.cancel()
        return growth(samples, self._records)

    async def _rebalance(self, worker: Worker, address: str) -> Growth:
        """Let a second worker join and leave, which is two rebalances; look at the first one at rest after each time."""
        samples: list[Sample] = []
        folder = StateFolder(self._folder / "guest")
        for turn in range(0, self._rebalances, 2):
            transport = make_transport(address, group="soak", session_timeout_s=_SESSION_S, stored_numbers=folder.numbers)
            guest = Runner(app.topology.plan(), transport, open_store=folder.open, limits=Limits(commit_interval_ms=500))
            running = asyncio.create_task(guest.run())
            await self._wait(lambda: bool(guest.tasks) and not guest.not_ready(), f"the guest does not run: {turn}")  # noqa: B023
            await self._send(_NUDGE)
            guest.stop()
            await running
            await self._wait(lambda: len(worker.numbers()) == PARTITIONS, "the worker did not get its tasks back")
            await self._until_taken(worker, self._number, [])
            await asyncio.sleep(_REST_S)
            samples.append(look(worker.pid, turn + 2))
            if turn % 20 == 0:
                self._say(f"  {turn + 2} rebalances: {samples[-1].rss_mib:.0f} MiB, {samples[-1].files} files")
        return growth(samples, self._rebalances)

    async def _close_windows(self, worker: Worker) -> None:
        """Send an order to each partition an hour later: it closes every window but its own."""
        last = self._number
        self._number += 3_600_000 // ORDER_MS
        await self._send(PARTITIONS)
        self._number = last
        await self._until_taken(worker, last + PARTITIONS, [])

    async def _until_taken(self, worker: Worker, orders: int, samples: list[Sample]) -> None:
        """Wait until the worker has committed so many orders, and look at it meanwhile."""
        sources = [TopicPartition("orders", number) for number in range(PARTITIONS)]
        done, moved_s, said_s = -1, time.monotonic(), time.monotonic()
        while done < orders:
            await asyncio.sleep(0.2)
            assert worker.died is None, worker.text()[-3_000:]
            taken, now_s = sum((await self._transport.committed_offsets(sources)).values()), time.monotonic()
            if taken != done:
                done, moved_s = taken, now_s
                samples.append(look(worker.pid, done))
            assert now_s - moved_s < _QUIET_S, f"{done} of {orders} orders taken, and no more: {worker.text()[-3_000:]}"
            if samples and now_s - said_s >= 30.0:
                said_s = now_s
                self._say(f"  {done:,} orders: {samples[-1].rss_mib:.0f} MiB, {samples[-1].files} files")

    async def _wait(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _QUIET_S
        while not holds():
            assert time.monotonic() < deadline, what
            await asyncio.sleep(0.05)

    # -- orders

    async def _send(self, orders: int) -> None:
        """Send orders, the users of each partition in turn."""
        while orders:
            count = min(orders, _AT_ONCE)
            await self._transport.send(dict(self._columns(count)))
            orders -= count

    def _columns(self, count: int) -> Iterator[tuple[TopicPartition, OutputColumns]]:
        first = self._number
        self._number += count
        for partition, users in enumerate(self._users):
            numbers = range(first + (partition - first) % PARTITIONS, first + count, PARTITIONS)
            keys = [users[number // PARTITIONS % len(users)] for number in numbers]
            times = [START_MS + number * ORDER_MS for number in numbers]
            values: list[bytes | None] = [
                b'{"user":"%s","country":"%s","cents":%d,"ts":%d}'
                % (key.encode(), COUNTRIES[number % 7 % 4].encode(), number * 7919 % 10_000, time_ms)
                for key, number, time_ms in zip(keys, numbers, times, strict=True)
            ]
            if values:
                yield TopicPartition("orders", partition), OutputColumns(times, [key.encode() for key in keys], values)

    async def _count(self, worker: Worker, found: Found) -> None:
        """Count what came out: until all is there or nothing more comes, then whatever the worker adds as it ends."""
        tallies = [await Tally(topic, self._transport).open() for topic in ("minutes", "countries")]
        counts, moved_s = [0, 0], time.monotonic()
        while min(counts) < found.sent and time.monotonic() - moved_s < _QUIET_S:
            before, counts = counts, [await tally.read() for tally in tallies]
            moved_s = time.monotonic() if counts != before else moved_s
            await asyncio.sleep(0.2)
        status = await worker.end()
        assert status == 0, f"the worker ended with status {status}"
        for tally in tallies:
            await tally.read()
            await tally.close()
            found.counted[tally.topic], found.late[tally.topic] = tally.counted, tally.late
