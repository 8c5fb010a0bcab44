"""What the tests of the memory transport share: a broker in virtual time, a member that notes what it is told, planned faults."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.records import OutputColumns, RecordBatch, TopicPartition
from engine.runtime.transport.memory import MemoryTransport
from engine.runtime.transport.memory_broker import MemoryBroker
from engine.runtime.transport.memory_connection import NO_FAULT, Fault, Request
from engine.testing.clock import LoopClock, virtual_loop
from engine.topics import TopicSpec

INPUT = TopicPartition("orders", 0)
OUTPUT = TopicPartition("revenue", 0)
LOST_REQUEST, LOST_ANSWER = Fault(lost="request"), Fault(lost="answer")


def new_broker(partitions: int = 1) -> MemoryBroker:
    broker = MemoryBroker(LoopClock(virtual_loop()))
    for topic in ("orders", "revenue"):
        broker.create_topic(TopicSpec(topic, partitions))
    return broker


def columns(*values: str) -> OutputColumns:
    made = OutputColumns()
    for value in values:
        made.append(0, b"k", value.encode())
    return made


def values(batches: list[RecordBatch]) -> list[bytes | None]:
    return [value for batch in batches for value in batch.values]


@dataclass
class Member:
    """A listener that reads from offset 0 whatever it is given, and notes what it is told."""

    transport: MemoryTransport
    told: list[tuple[str, list[int]]] = field(default_factory=list)
    on_revoke: Callable[[], None] | None = None
    revoke_takes_s: float = 0.0

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        self.told.append(("revoked", numbers(partitions)))
        await asyncio.sleep(self.revoke_takes_s)
        if self.on_revoke is not None:
            self.on_revoke()

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        self.told.append(("assigned", numbers(partitions)))
        self.transport.seek(dict.fromkeys(partitions, 0))
        self.transport.resume(sorted(partitions))

    @property
    def owned(self) -> list[int]:
        return numbers(self.transport.assignment())


def numbers(partitions: frozenset[TopicPartition]) -> list[int]:
    return sorted(partition.partition for partition in partitions)


@dataclass
class Script:
    """Faults for the next requests of a kind, and for all requests of a client that is cut off."""

    next: dict[str, list[Fault]] = field(default_factory=dict)
    is_cut_off: bool = False
    asked: list[str] = field(default_factory=list)

    def on_request(self, request: Request, client_id: str) -> Fault:
        self.asked.append(f"{client_id} {request}")
        if self.is_cut_off:
            return LOST_REQUEST
        planned = self.next.get(request)
        return planned.pop(0) if planned else NO_FAULT


async def new_member(broker: MemoryBroker, name: str, *, faults: Script | None = None) -> Member:
    member = Member(MemoryTransport(broker, group_id="shop", client_id=name, faults=faults))
    await member.transport.start()
    await member.transport.subscribe(["orders"], member)
    return member
