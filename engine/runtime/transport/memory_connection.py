"""The way of every request of a memory transport to its broker, and what may go wrong on it.

    client ──delay, or lost──► broker: takes effect ──delay, or lost──► client

A simulator gives the broker a `Faults`; without one, each request takes effect after one turn of the event loop. A lost answer
is the case that matters: the client gets UnavailableError for something that has happened, such as a commit.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from engine.errors import UnavailableError
from engine.runtime.transport.memory_broker import MemoryBroker

T = TypeVar("T")

Request = Literal[
    "describe_topics", "create_topics", "join_group", "sync_group", "heartbeat", "leave_group", "fetch", "list_offsets",
    "offset_fetch", "init_producer", "produce", "txn_offset_commit", "end_txn", "delete_records",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one request.

    Attributes:
        delay_s: Time until it takes effect, or until the client gives up on a lost request.
        answer_delay_s: Time between the effect and the answer, or until the client gives up on a lost answer.
        lost: Which half of the way gets lost; the client sees UnavailableError either way.
    """

    delay_s: float = 0.0
    answer_delay_s: float = 0.0
    lost: Literal["nothing", "request", "answer"] = "nothing"


NO_FAULT = Fault()


class Faults(Protocol):
    """Decides what happens to requests; it is asked once for each, in the order in which they are made."""

    def on_request(self, request: Request, client_id: str) -> Fault:
        """Return what happens to a request of a client (`NO_FAULT` for nothing)."""
        ...


class Connection:
    """One client's connection to a broker.

    Attributes:
        faults: None for a perfect network; may be changed at any time.
    """

    def __init__(self, broker: MemoryBroker, client_id: str, faults: Faults | None = None) -> None:
        self.broker = broker
        self.client_id = client_id
        self.faults = faults

    async def call(self, request: Request, effect: Callable[[], T]) -> T:
        """Make a request: `effect` is what the broker does, all at once.

        Raises:
            UnavailableError: It, or its answer, got lost.
            Exception: What the broker answers with.
        """
        fault = NO_FAULT if self.faults is None else self.faults.on_request(request, self.client_id)
        await asyncio.sleep(fault.delay_s)
        if fault.lost == "request":
            raise UnavailableError(f"{request}: the memory broker could not be reached")
        self.broker.expire()
        result = effect()
        if fault.answer_delay_s:
            await asyncio.sleep(fault.answer_delay_s)
        if fault.lost == "answer":
            raise UnavailableError(f"{request}: no answer from the memory broker; it may have taken effect")
        return result
