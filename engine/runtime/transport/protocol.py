"""The transport protocol: everything that the runner needs from the outside world.

Two transports speak it, `memory` and `kafka`, with the same semantics: partitions, a consumer group with eager rebalances,
transactions, read_committed reading, fencing by producer epoch, compaction. Errors are translated at this door: `FencedError`
(another owner), `UnavailableError` (retry), `ConfigError` (a topic that does not fit, an unknown topic, bad credentials).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.records import OutputColumns, RecordBatch, TopicPartition
from engine.runtime.assignor import WorkerAddress
from engine.runtime.transport.open_transactions import Decision, OpenTransaction
from engine.topics import TopicSpec


class RebalanceListener(Protocol):
    """What a group member is told. Both calls must return fast: heartbeats wait for `on_assigned`."""

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """All partitions of this member are about to be taken away (eager rebalance): finish, commit, let go."""
        ...

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """These are this member's partitions now. They are paused: the listener opens tasks, seeks, then resumes."""
        ...


class TransactionalProducer(Protocol):
    """A producer with a transactional id. Opening it fences every older one with the same id and ends its transaction."""

    @property
    def producer_id(self) -> int:
        """The number that the broker has given to the transactional id; older producers with it had the same, mostly."""
        ...

    async def commit(
        self,
        outputs: Mapping[TopicPartition, OutputColumns],
        offsets: Mapping[TopicPartition, int],
    ) -> dict[TopicPartition, int]:
        """Send all outputs and the group's offsets in one transaction and commit it.

        Returns: for each output partition that got records the offset behind the last one.
        Raises:
            FencedError: A newer producer owns the id; nothing was committed.
            UnavailableError: Unknown whether it was committed: drop the task and restore, the changelog knows.
        """
        ...

    async def close(self) -> None:
        """Release it without committing anything; bounded in time, never raises."""
        ...


class PartitionReader(Protocol):
    """Reads one partition outside the group, read_committed."""

    @property
    def position(self) -> int: ...

    async def read(self, timeout_s: float) -> RecordBatch | None:
        """Return the next batch (perhaps without records, only a new position), None after the timeout.

        Raises:
            StateError: The position lies outside the log (truncated or compacted away below its start).
        """
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class FetchState:
    """What the latest fetch answer of an assigned partition said (`received_s`: monotonic clock of the transport).

    `high_watermark` is the end of the log, open transactions included: while one is open, more is to be expected.
    """

    position: int
    high_watermark: int
    received_s: float


class Transport(Protocol):
    """A broker connection of one worker, and its membership in one consumer group."""

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Leave the group and close everything, without committing; bounded in time."""
        ...

    # topics
    async def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Create the missing topics and check the others.

        Raises:
            ConfigError: One does not fit (partitions, cleanup policy), or is missing and not ours to create.
            UnavailableError: The broker cannot be reached; the message names it.
        """
        ...

    async def topics(self) -> list[str]:
        """Return the names of all topics of users, sorted; the broker's own are left out."""
        ...

    async def partition_counts(self, topics: Sequence[str]) -> dict[str, int]:
        """Return the number of partitions of each topic that exists."""
        ...

    async def record_bytes_max(self, topics: Sequence[str]) -> dict[str, int]:
        """Return the size of the largest record that each of these topics takes (`max.message.bytes`); all of them exist."""
        ...

    async def add_partitions(self, counts: Mapping[str, int]) -> None:
        """Let topics grow to these numbers of partitions; none may have more."""
        ...

    # the group
    async def subscribe(self, topics: Sequence[str], listener: RebalanceListener) -> None: ...

    def assignment(self) -> frozenset[TopicPartition]: ...

    def standby_numbers(self) -> frozenset[int]:
        """Return the task numbers that this member shall keep copies of, as of the latest assignment."""
        ...

    def worker_of(self, number: int) -> WorkerAddress | None:
        """Return where the pages of the worker are that has a task, as of the latest assignment; None if that is not known."""
        ...

    async def poll(self, timeout_s: float) -> list[RecordBatch]:
        """Return what has been fetched of unpaused partitions, at most one batch each; [] after the timeout."""
        ...

    def pause(self, partitions: Sequence[TopicPartition]) -> None: ...

    def resume(self, partitions: Sequence[TopicPartition]) -> None: ...

    def seek(self, offsets: Mapping[TopicPartition, int]) -> None: ...

    def fetch_state(self, partition: TopicPartition) -> FetchState | None:
        """Return what the latest fetch answer said, None before the first since the last seek, pause or assignment."""
        ...

    def membership_confirmed_s(self) -> float:
        """Return the monotonic time of the last successful heartbeat or join: ownership was certain then."""
        ...

    # reading by position, and positions
    async def begin_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]: ...

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the last stable offsets (what read_committed reads up to)."""
        ...

    async def high_watermarks(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the ends of the logs with everything acknowledged, transactions that are not ended yet included."""
        ...

    async def open_transactions(self, partitions: Sequence[TopicPartition], producer_id: int | None = None) -> list[OpenTransaction]:
        """Return what is open in partitions, in their order and by offset, and which of it hangs; only a producer's if one is given.

        Raises:
            ConfigError: A right is missing, or the brokers cannot tell.
        """
        ...

    async def end_transaction(self, transaction: OpenTransaction, decided: Decision) -> None:
        """Write the marker that a transaction lacks which hangs; the caller has just found it by `open_transactions`.

        Raises:
            ConfigError: A right is missing, or the broker refuses it.
        """
        ...

    async def committed_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the group's committed offsets; partitions without one are left out."""
        ...

    async def open_reader(self, partition: TopicPartition, offset: int) -> PartitionReader: ...

    # writing
    async def open_producer(self, transactional_id: str) -> TransactionalProducer:
        """Fence and return; raises UnavailableError when the broker does not answer in time."""
        ...

    async def send(self, outputs: Mapping[TopicPartition, OutputColumns]) -> None:
        """Produce outside any transaction and wait for the acknowledgements (`streamforge send`, traffic)."""
        ...

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Purge records below the given offsets (repartition topics behind the committed offset)."""
        ...
