"""What is sent to the source topics in a run, and when; event time goes with the virtual clock, faster in some runs.

Orders lag behind the newest of their partition by less than the watermark's delay, so they are in time wherever and whenever they are
processed. Clicks lag by anything, so some come too late for their window, decided by their order in the partition alone; those that lag
by less than the delay say so by their page.
"""

from dataclasses import dataclass, field
from random import Random

import msgspec

from engine.records import OutputColumns, TopicPartition
from engine.runtime.transport.memory_broker import MemoryBroker
from engine.testing.clock import EPOCH_MS, LoopClock
from state.hashing import partition_of
from tests.simulation.app import CLICKS_DELAY_MS, ORDERS_DELAY_MS, POISON, TIMER_RAISES_FOR, AppChoice, Click, Order

USERS = (*(f"user-{n}" for n in range(6)), TIMER_RAISES_FOR)
CURRENCIES = ("EUR", "USD", "JPY", "SEK")
AGO_MS = 3_600_000


@dataclass(slots=True)
class Traffic:
    """Sends the records of a run."""

    broker: MemoryBroker
    clock: LoopClock
    choice: AppChoice
    random: Random
    pace: int = 1
    silent: frozenset[int] = frozenset()
    _ids: int = field(default=0)

    def __post_init__(self) -> None:
        if not self.choice.idle:
            self.pace = self.random.choice([1, 3, 10])

    def now_ms(self) -> int:
        """Return the event time that goes with the present moment."""
        return EPOCH_MS + int(self.clock.monotonic_s() * 1_000) * self.pace

    def send_some(self) -> None:
        """Send a few records."""
        random = self.random
        for _ in range(random.choice([1, 1, 2, 4])):
            user = random.choice(USERS)
            if self._partition(user) in self.silent:
                continue
            if random.random() < 0.03:
                self._send(random.choice(["orders", "clicks"]), user, b"{not json")
            elif random.random() < 0.6:
                self.order(user, "sale", self.now_ms() - random.randrange(ORDERS_DELAY_MS))
            else:
                self.click(user)

    def order(self, user: str, kind: str, ts: int) -> None:
        """Send an order."""
        random = self.random
        amount = random.randrange(100) * 10 + random.choice([0, 1, 2, 3])
        if random.random() < 0.05:
            amount = amount // 100 * 100 + POISON
        self._ids += 1
        order = Order(self._ids, user, random.choice(CURRENCIES), amount, kind, ts)
        self._send("orders", user, msgspec.json.encode(order))

    def click(self, user: str) -> None:
        """Send a click."""
        lag_ms = self.random.randrange(CLICKS_DELAY_MS if self.choice.idle else 4 * CLICKS_DELAY_MS)
        self._ids += 1
        page = "home" if lag_ms < CLICKS_DELAY_MS else "slow"
        self._send("clicks", user, msgspec.json.encode(Click(self._ids, user, page, self.now_ms() - lag_ms)))

    def send_late(self, count: int) -> None:
        """Send orders that are late for every window."""
        for _ in range(count):
            self.order(self.random.choice(USERS), "late", EPOCH_MS - AGO_MS + self.random.randrange(10_000))

    def end(self, ahead_ms: int = AGO_MS) -> None:
        """Send a record that means nothing to each partition, so that none is behind another; so far ahead that every window closes."""
        ts = self.now_ms() + ahead_ms
        for partition in range(self.choice.partitions):
            self._ids += 2
            order = msgspec.json.encode(Order(self._ids // 2 * 2 + 1, "user-0", "EUR", 0, "end", ts))
            self._append(TopicPartition("orders", partition), "user-0", order)
            self._append(TopicPartition("clicks", partition), "user-0", msgspec.json.encode(Click(self._ids, "user-0", "end", ts)))

    def _partition(self, user: str) -> int:
        return partition_of(user.encode(), self.choice.partitions)

    def _send(self, topic: str, user: str, value: bytes) -> None:
        self._append(TopicPartition(topic, self._partition(user)), user, value)

    def _append(self, partition: TopicPartition, user: str, value: bytes) -> None:
        self.broker.produce({partition: OutputColumns([self.clock.now_ms()], [user.encode()], [value])})
