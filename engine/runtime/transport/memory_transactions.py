"""The transaction coordinator of the memory broker: who may write under a transactional id, and what is written in one piece.

    init     epoch + 1; what an older producer has open is aborted        ─┐
    produce  opens a transaction, its time-out begins                      │ each checks the epoch: an older one is fenced
    offsets  kept with the transaction                                     │
    end      markers into all its partitions; offsets into the group      ─┘
    expire   a transaction beyond its time-out is aborted, its producer fenced

Differences from Kafka: the markers are there when `end` returns (Kafka writes them a moment later).

Source: KIP-98.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from engine.errors import FencedError
from engine.records import OutputColumns, TopicPartition
from engine.runtime.transport.memory_log import PartitionLog
from engine.runtime.transport.open_transactions import OpenTransaction


@dataclass(frozen=True, slots=True)
class ProducerSession:
    """What a producer holds: its right to write lasts until a newer session with the same transactional id begins."""

    transactional_id: str
    producer_id: int
    epoch: int


@dataclass(slots=True)
class _Transaction:
    deadline_s: float
    logs: dict[TopicPartition, PartitionLog] = field(default_factory=dict)
    offsets: dict[tuple[str, TopicPartition], int] = field(default_factory=dict)


@dataclass(slots=True)
class _Producer:
    producer_id: int
    epoch: int
    timeout_s: float
    transaction: _Transaction | None = None


class TransactionCoordinator:
    """All transactional ids of a broker.

    Args:
        store_offset: Called with (group id, partition, offset) for each offset of a committed transaction.
    """

    def __init__(self, store_offset: Callable[[str, TopicPartition, int], None]) -> None:
        self._store_offset = store_offset
        self._producers: dict[str, _Producer] = {}

    def init(self, transactional_id: str, timeout_s: float) -> ProducerSession:
        """Begin a session: older ones are fenced, and an open transaction is aborted."""
        known = self._producers.get(transactional_id)
        if known is None:
            known = self._producers[transactional_id] = _Producer(len(self._producers), -1, timeout_s)
        self._end(known, commit=False)
        known.epoch += 1
        known.timeout_s = timeout_s
        return ProducerSession(transactional_id, known.producer_id, known.epoch)

    def produce(
        self,
        session: ProducerSession,
        logs: Mapping[TopicPartition, PartitionLog],
        outputs: Mapping[TopicPartition, OutputColumns],
        *,
        now_s: float,
        now_ms: int,
    ) -> dict[TopicPartition, int]:
        """Append to partitions within the session's transaction; return the offset behind the last record of each."""
        transaction = self._running(session, now_s)
        transaction.logs.update((partition, log) for partition, log in logs.items() if len(outputs[partition]))
        return {partition: logs[partition].append(columns, now_ms, session.producer_id) for partition, columns in outputs.items()}

    def add_offsets(self, session: ProducerSession, group_id: str, offsets: Mapping[TopicPartition, int], *, now_s: float) -> None:
        """Put a group's offsets into the session's transaction."""
        transaction = self._running(session, now_s)
        transaction.offsets.update(((group_id, partition), offset) for partition, offset in offsets.items())

    def end(self, session: ProducerSession, *, commit: bool) -> None:
        """Commit or abort the session's transaction; nothing happens if none is open."""
        self._end(self._checked(session), commit=commit)

    def expire(self, now_s: float) -> bool:
        """Abort what has been open for too long; return whether there was anything."""
        expired = [known for known in self._producers.values() if known.transaction is not None and now_s >= known.transaction.deadline_s]
        for known in expired:
            self._end(known, commit=False)
            known.epoch += 1
        return bool(expired)

    def open_in(self, partition: TopicPartition, log: PartitionLog) -> list[OpenTransaction]:
        """Return what is open in a partition, by offset."""
        found = [
            OpenTransaction(partition, start, known.producer_id, known.epoch, 0, -1, transactional_id)
            for transactional_id, known in self._producers.items()
            if (start := log.open_since(known.producer_id)) is not None
        ]
        return sorted(found, key=lambda each: each.start_offset)

    def _checked(self, session: ProducerSession) -> _Producer:
        known = self._producers[session.transactional_id]
        if known.epoch != session.epoch:
            raise FencedError(
                f"producer {session.transactional_id!r}: epoch {session.epoch} is over, {known.epoch} holds: a newer producer took its "
                "place, or its transaction timed out"
            )
        return known

    def _running(self, session: ProducerSession, now_s: float) -> _Transaction:
        known = self._checked(session)
        if known.transaction is None:
            known.transaction = _Transaction(now_s + known.timeout_s)
        return known.transaction

    def _end(self, known: _Producer, *, commit: bool) -> None:
        transaction, known.transaction = known.transaction, None
        if transaction is None:
            return
        for log in transaction.logs.values():
            log.end_transaction(known.producer_id, commit=commit)
        if commit:
            for (group_id, partition), offset in transaction.offsets.items():
                self._store_offset(group_id, partition, offset)
