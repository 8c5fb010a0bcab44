"""Messages of Kafka's protocol about transactions that aiokafka lacks, and the records of the coordinator's log.

| message | asks | tells | needs the right to |
|---|---|---|---|
| DescribeProducers (61) | leaders of partitions | who has a transaction open there, from which offset on | read the topic |
| ListTransactions (66) | every broker | the transactional ids of producer ids | describe the transactional id |
| DescribeTransactions (65) | coordinators | state and partitions of a transactional id | describe the transactional id |
| WriteTxnMarkers (27) | leaders of partitions | writes the marker that ends a transaction | alter the cluster |

The last right is called ClusterAction before Kafka 3.8. `coordinator_entry` reads a record of `__transaction_state`: versions 0 and 1 of
TransactionLogValue.

Sources: KIP-664; DescribeProducersRequest.json, ListTransactionsRequest.json, DescribeTransactionsRequest.json,
WriteTxnMarkersRequest.json, TransactionLogKey.json and TransactionLogValue.json of Apache Kafka 4.3.
"""

import struct
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, CompactArray, CompactString, Int8, Int16, Int32, Int64, Schema, String, TaggedFields

from engine.records import TopicPartition
from engine.runtime.transport.open_transactions import Decision

STATE_TOPIC = "__transaction_state"
RUNNING = frozenset({"Ongoing", "PrepareCommit", "PrepareAbort", "PrepareEpochFence"})
_DECISIONS: Mapping[int, Decision] = {2: "commit", 3: "abort"}
_TEXT = CompactString("utf-8")
_TAGS = ("tags", TaggedFields)


class DescribeProducersResponseV0(Response):  # type: ignore[misc]
    """The answer, version 0."""

    API_KEY = 61
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("name", _TEXT),
                (
                    "partitions",
                    CompactArray(
                        ("partition_index", Int32),
                        ("error_code", Int16),
                        ("error_message", _TEXT),
                        (
                            "active_producers",
                            CompactArray(
                                ("producer_id", Int64),
                                ("producer_epoch", Int32),
                                ("last_sequence", Int32),
                                ("last_timestamp", Int64),
                                ("coordinator_epoch", Int32),
                                ("current_txn_start_offset", Int64),
                                _TAGS,
                            ),
                        ),
                        _TAGS,
                    ),
                ),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class DescribeProducersRequestV0(RequestStruct):  # type: ignore[misc]
    """The question, version 0."""

    FLEXIBLE_VERSION = True
    API_KEY = 61
    API_VERSION = 0
    RESPONSE_TYPE = DescribeProducersResponseV0
    SCHEMA = Schema(("topics", CompactArray(("name", _TEXT), ("partition_indexes", CompactArray(Int32)), _TAGS)), _TAGS)


class DescribeProducersRequest(Request[DescribeProducersRequestV0]):  # type: ignore[misc]
    """Who writes to these partitions (topic → numbers)?"""

    API_KEY = 61

    def __init__(self, topics: Mapping[str, Sequence[int]]) -> None:
        self._topics: list[Any] = [(topic, list(numbers), {}) for topic, numbers in topics.items()]

    def build(self, request_struct_class: type[DescribeProducersRequestV0]) -> DescribeProducersRequestV0:
        return request_struct_class(self._topics, {})


class ListTransactionsResponseV0(Response):  # type: ignore[misc]
    """The answer, version 0."""

    API_KEY = 66
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("unknown_state_filters", CompactArray(_TEXT)),
        ("transaction_states", CompactArray(("transactional_id", _TEXT), ("producer_id", Int64), ("transaction_state", _TEXT), _TAGS)),
        _TAGS,
    )


class ListTransactionsRequestV0(RequestStruct):  # type: ignore[misc]
    """The question, version 0."""

    FLEXIBLE_VERSION = True
    API_KEY = 66
    API_VERSION = 0
    RESPONSE_TYPE = ListTransactionsResponseV0
    SCHEMA = Schema(("state_filters", CompactArray(_TEXT)), ("producer_id_filters", CompactArray(Int64)), _TAGS)


class ListTransactionsRequest(Request[ListTransactionsRequestV0]):  # type: ignore[misc]
    """Which transactional ids have these producer ids?"""

    API_KEY = 66

    def __init__(self, producer_ids: Sequence[int]) -> None:
        self._producer_ids = list(producer_ids)

    def build(self, request_struct_class: type[ListTransactionsRequestV0]) -> ListTransactionsRequestV0:
        return request_struct_class([], self._producer_ids, {})


class DescribeTransactionsResponseV0(Response):  # type: ignore[misc]
    """The answer, version 0."""

    API_KEY = 65
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "transaction_states",
            CompactArray(
                ("error_code", Int16),
                ("transactional_id", _TEXT),
                ("transaction_state", _TEXT),
                ("transaction_timeout_ms", Int32),
                ("transaction_start_time_ms", Int64),
                ("producer_id", Int64),
                ("producer_epoch", Int16),
                ("topics", CompactArray(("topic", _TEXT), ("partitions", CompactArray(Int32)), _TAGS)),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class DescribeTransactionsRequestV0(RequestStruct):  # type: ignore[misc]
    """The question, version 0."""

    FLEXIBLE_VERSION = True
    API_KEY = 65
    API_VERSION = 0
    RESPONSE_TYPE = DescribeTransactionsResponseV0
    SCHEMA = Schema(("transactional_ids", CompactArray(_TEXT)), _TAGS)


class DescribeTransactionsRequest(Request[DescribeTransactionsRequestV0]):  # type: ignore[misc]
    """What does their coordinator know of these transactional ids?"""

    API_KEY = 65

    def __init__(self, transactional_ids: Sequence[str]) -> None:
        self._transactional_ids = list(transactional_ids)

    def build(self, request_struct_class: type[DescribeTransactionsRequestV0]) -> DescribeTransactionsRequestV0:
        return request_struct_class(self._transactional_ids, {})


class WriteTxnMarkersResponseV1(Response):  # type: ignore[misc]
    """The answer, version 1."""

    API_KEY = 27
    API_VERSION = 1
    SCHEMA = Schema(
        (
            "markers",
            CompactArray(
                ("producer_id", Int64),
                (
                    "topics",
                    CompactArray(
                        ("name", _TEXT), ("partitions", CompactArray(("partition_index", Int32), ("error_code", Int16), _TAGS)), _TAGS
                    ),
                ),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class WriteTxnMarkersRequestV1(RequestStruct):  # type: ignore[misc]
    """The question, version 1."""

    FLEXIBLE_VERSION = True
    API_KEY = 27
    API_VERSION = 1
    RESPONSE_TYPE = WriteTxnMarkersResponseV1
    SCHEMA = Schema(
        (
            "markers",
            CompactArray(
                ("producer_id", Int64),
                ("producer_epoch", Int16),
                ("transaction_result", Boolean),
                ("topics", CompactArray(("name", _TEXT), ("partition_indexes", CompactArray(Int32)), _TAGS)),
                ("coordinator_epoch", Int32),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class WriteTxnMarkersRequest(Request[WriteTxnMarkersRequestV1]):  # type: ignore[misc]
    """End what a producer has open in one partition."""

    API_KEY = 27

    def __init__(self, partition: TopicPartition, producer_id: int, producer_epoch: int, coordinator_epoch: int, *, commit: bool) -> None:
        topics: list[Any] = [(partition.topic, [partition.partition], {})]
        self._markers: list[Any] = [(producer_id, producer_epoch, commit, topics, coordinator_epoch, {})]

    def build(self, request_struct_class: type[WriteTxnMarkersRequestV1]) -> WriteTxnMarkersRequestV1:
        return request_struct_class(self._markers, {})


# -- the coordinator's log

_VALUES = {
    0: Schema(
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("timeout_ms", Int32),
        ("status", Int8),
        ("partitions", Array(("topic", String("utf-8")), ("partition_ids", Array(Int32)))),
        ("last_update_timestamp_ms", Int64),
        ("start_timestamp_ms", Int64),
    ),
    1: Schema(
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("timeout_ms", Int32),
        ("status", Int8),
        ("partitions", CompactArray(("topic", _TEXT), ("partition_ids", CompactArray(Int32)), _TAGS)),
        ("last_update_timestamp_ms", Int64),
        ("start_timestamp_ms", Int64),
    ),
}


class CoordinatorEntry(NamedTuple):
    """A step of a transactional id, as its coordinator wrote it down.

    Attributes:
        started_ms: When its transaction began; -1 if there was none.
        at_ms: When this step was taken.
    """

    transactional_id: str
    producer_id: int
    producer_epoch: int
    status: int
    partitions: frozenset[TopicPartition]
    started_ms: int = -1
    at_ms: int = -1


def coordinator_entry(key: bytes | None, value: bytes | None) -> CoordinatorEntry | None:
    """Read a record of the coordinator's log; None for one that ends an id, or is of a version that is not known."""
    if key is None or value is None or key[:2] != b"\0\0":
        return None
    transactional_id = String("utf-8").decode(BytesIO(key[2:]))
    (version,) = struct.unpack_from(">h", value)
    schema = _VALUES.get(version)
    if schema is None or transactional_id is None:
        return None
    fields: tuple[Any, ...] = schema.decode(BytesIO(value[2:]))
    producer_id, epoch, _, status, topics, at_ms, started_ms = fields
    partitions = frozenset(TopicPartition(topic, number) for topic, numbers, *_ in topics or () for number in numbers)
    return CoordinatorEntry(transactional_id, producer_id, epoch, status, partitions, started_ms, at_ms)


def last_ended(
    history: Sequence[CoordinatorEntry], partition: TopicPartition, producer_id: int, producer_epoch: int
) -> CoordinatorEntry | None:
    """Return the step that ended the last transaction of a producer with a partition in it; None if the log does not say.

    An abort by fencing is written down with the epoch raised by one; what an older epoch decided is of an older transaction.

    Args:
        history: The log of the producer's transactional id, in order; its older part may be compacted away.
    """
    found: CoordinatorEntry | None = None
    for entry in history:
        if entry.producer_id == producer_id and entry.producer_epoch >= producer_epoch and partition in entry.partitions:
            found = entry if entry.status in _DECISIONS else None
    return found


def decision(ended: CoordinatorEntry | None, marker_ms: int | None) -> Decision | None:
    """Return how to end what hangs, so that it becomes what the coordinator has told the producer; None if that cannot be known.

        coordinator   … ended │ started ──── decided │          time by the brokers' clocks
        partition     marker? │                      │ marker?
                      the marker of `ended` is       it is there: what hangs came later, from outside of any
                      missing: as it was decided     transaction (KIP-890), and nobody has committed it: abort

    Args:
        ended: The last transaction with this partition, see `last_ended`.
        marker_ms: The time of the producer's last marker in the partition before what hangs, None if there is none.
    """
    if ended is None:
        return None
    if marker_ms is None or marker_ms < ended.started_ms:
        return _DECISIONS[ended.status]
    return "abort" if marker_ms >= ended.at_ms else None


def state_partition(transactional_id: str, partitions: int) -> int:
    """Return the partition of the coordinator's log for an id: the absolute value of Java's `String.hashCode`, 0 for the least one."""
    hashed = 0
    for (unit,) in struct.iter_unpack(">H", transactional_id.encode("utf-16-be")):
        hashed = (31 * hashed + unit) & 0xFFFFFFFF
    signed = hashed - (1 << 32) if hashed >> 31 else hashed
    return (0 if hashed == 1 << 31 else abs(signed)) % partitions
