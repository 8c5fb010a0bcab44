"""Every name of aiokafka 0.14 that this package uses and that aiokafka does not promise to keep.

`tests/engine/runtime/test_kafka_seam.py` compares the list with the installed version, without a broker: a new version of
aiokafka fails there, by name, and not in production.
"""

from typing import NamedTuple


class Private(NamedTuple):
    """An attribute of a class, or a function of a module (`owner` without a class).

    `parameters` are the names that calls rely on, in order and without `self`; None for a plain attribute.
    """

    owner: str
    name: str
    parameters: tuple[str, ...] | None = None


_FETCHER = "aiokafka.consumer.fetcher"
_STATE = "aiokafka.consumer.subscription_state"
_PRODUCER = "aiokafka.producer"
_RECORDS = "aiokafka.record._crecords.default_records"

SEAM = (
    Private("aiokafka.conn", "create_conn", ("host", "port", "client_id", "request_timeout_ms")),
    Private("aiokafka.consumer.consumer:AIOKafkaConsumer", "_client"),
    Private("aiokafka.consumer.consumer:AIOKafkaConsumer", "_coordinator"),
    Private("aiokafka.consumer.consumer:AIOKafkaConsumer", "_fetcher"),
    Private("aiokafka.consumer.consumer:AIOKafkaConsumer", "_subscription"),
    Private("aiokafka.consumer.group_coordinator:GroupCoordinator", "_coordination_task"),
    Private("aiokafka.consumer.group_coordinator:GroupCoordinator", "_send_req", ("request",)),
    Private("aiokafka.consumer.group_coordinator:GroupCoordinator", "check_errors", ()),
    Private("aiokafka.consumer.group_coordinator:GroupCoordinator", "generation"),
    Private(f"{_FETCHER}:Fetcher", "_create_fetch_waiter", ()),
    Private(f"{_FETCHER}:Fetcher", "_fetch_task"),
    Private(f"{_FETCHER}:Fetcher", "_notify", ("future",)),
    Private(f"{_FETCHER}:Fetcher", "_proc_fetch_request", ("assignment", "node_id", "request")),
    Private(f"{_FETCHER}:Fetcher", "_records"),
    Private(f"{_FETCHER}:Fetcher", "_wait_consume_future"),
    Private(f"{_FETCHER}:Fetcher", "error_future"),
    Private(f"{_FETCHER}:FetchError", "check_raise", ()),
    Private(f"{_FETCHER}:FetchResult", "_assignment"),
    Private(f"{_FETCHER}:FetchResult", "_partition_records"),
    Private(f"{_FETCHER}:FetchResult", "_update_position", ()),
    Private(f"{_FETCHER}:FetchResult", "check_assignment", ("tp",)),
    Private(f"{_FETCHER}:FetchResult", "has_more", ()),
    Private(
        f"{_FETCHER}:PartitionRecords",
        "__init__",
        (
            "tp",
            "records",
            "aborted_transactions",
            "fetch_offset",
            "key_deserializer",
            "value_deserializer",
            "check_crcs",
            "isolation_level",
        ),
    ),
    Private(f"{_FETCHER}:PartitionRecords", "_aborted_producers"),
    Private(f"{_FETCHER}:PartitionRecords", "_check_crcs"),
    Private(f"{_FETCHER}:PartitionRecords", "_consume_aborted_up_to", ("batch_offset",)),
    Private(f"{_FETCHER}:PartitionRecords", "_contains_abort_marker", ("next_batch",)),
    Private(f"{_FETCHER}:PartitionRecords", "_isolation_level"),
    Private(f"{_FETCHER}:PartitionRecords", "_records"),
    Private(f"{_FETCHER}:PartitionRecords", "_records_iterator"),
    Private(f"{_FETCHER}:PartitionRecords", "_tp"),
    Private(f"{_FETCHER}:PartitionRecords", "next_fetch_offset"),
    Private(f"{_STATE}:Assignment", "active"),
    Private(f"{_STATE}:Assignment", "state_value", ("tp",)),
    Private(f"{_STATE}:SubscriptionState", "fetch_context", ()),
    Private(f"{_STATE}:SubscriptionState", "reassignment_in_progress"),
    Private(f"{_STATE}:SubscriptionState", "seek", ("tp", "offset")),
    Private(f"{_STATE}:TopicPartitionState", "lso"),
    Private(f"{_STATE}:TopicPartitionState", "paused"),
    Private(f"{_STATE}:TopicPartitionState", "timestamp"),
    Private(f"{_RECORDS}:DefaultRecord", "headers"),
    Private(f"{_RECORDS}:DefaultRecord", "key"),
    Private(f"{_RECORDS}:DefaultRecord", "offset"),
    Private(f"{_RECORDS}:DefaultRecord", "timestamp"),
    Private(f"{_RECORDS}:DefaultRecord", "value"),
    Private(f"{_RECORDS}:DefaultRecordBatch", "base_offset"),
    Private(f"{_RECORDS}:DefaultRecordBatch", "is_control_batch"),
    Private(f"{_RECORDS}:DefaultRecordBatch", "is_transactional"),
    Private(f"{_RECORDS}:DefaultRecordBatch", "next_offset"),
    Private(f"{_RECORDS}:DefaultRecordBatch", "producer_id"),
    Private(f"{_RECORDS}:DefaultRecordBatch", "validate_crc"),
    Private("aiokafka.admin.client:AIOKafkaAdminClient", "_client"),
    Private("aiokafka.client:AIOKafkaClient", "_conns"),
    Private("aiokafka.client:AIOKafkaClient", "_wait_on_metadata", ("topic",)),
    Private("aiokafka.client:AIOKafkaClient", "cluster"),
    Private("aiokafka.client:AIOKafkaClient", "coordinator_lookup", ("coordinator_type", "coordinator_key")),
    Private("aiokafka.client:AIOKafkaClient", "force_metadata_update", ()),
    Private("aiokafka.client:AIOKafkaClient", "get_random_node", ()),
    Private("aiokafka.client:AIOKafkaClient", "send", ("node_id", "request", "group")),
    Private("aiokafka.protocol.fetch:FetchRequest", "__init__", ("max_wait_time", "min_bytes", "max_bytes", "isolation_level", "topics")),
    Private("aiokafka.protocol.fetch:FetchRequest", "topics"),
    Private("aiokafka.protocol.metadata:MetadataRequest", "__init__", ("topics", "allow_auto_topic_creation")),
    Private("aiokafka.protocol.offset:OffsetRequest", "__init__", ("replica_id", "isolation_level", "topics")),
    Private("aiokafka.protocol.api:Request", "build", ("request_struct_class",)),
    Private("aiokafka.protocol.api:RequestStruct", "FLEXIBLE_VERSION"),
    Private(f"{_PRODUCER}.message_accumulator:MessageAccumulator", "_batches"),
    Private(f"{_PRODUCER}.message_accumulator:MessageAccumulator", "_pending_batches"),
    Private(f"{_PRODUCER}.message_accumulator:MessageBatch", "_drain_waiter"),
    Private(f"{_PRODUCER}.message_accumulator:MessageBatch", "future"),
    Private(f"{_PRODUCER}.message_accumulator:BatchBuilder", "_builder"),
    Private(f"{_PRODUCER}.message_accumulator:BatchBuilder", "_relative_offset"),
    Private(f"{_PRODUCER}.producer:AIOKafkaProducer", "_message_accumulator"),
    Private(f"{_PRODUCER}.producer:AIOKafkaProducer", "_sender"),
    Private(f"{_PRODUCER}.producer:AIOKafkaProducer", "_txn_manager"),
    Private(f"{_PRODUCER}.producer:AIOKafkaProducer", "client"),
    Private(f"{_PRODUCER}.sender:BaseHandler", "_default_backoff"),
    Private(f"{_PRODUCER}.sender:AddPartitionsToTxnHandler", "do", ("node_id",)),
    Private(f"{_PRODUCER}.sender:AddPartitionsToTxnHandler", "handle_response", ("resp",)),
    Private(f"{_PRODUCER}.sender:Sender", "_do_add_partitions_to_txn", ("tps",)),
    Private(f"{_PRODUCER}.sender:Sender", "_find_coordinator", ("coordinator_type", "coordinator_key")),
    Private(f"{_PRODUCER}.sender:Sender", "_retry_backoff"),
    Private(f"{_PRODUCER}.sender:Sender", "_txn_manager"),
    Private(f"{_PRODUCER}.sender:Sender", "sender_task"),
    Private(f"{_PRODUCER}.transaction_manager:TransactionManager", "is_in_transaction", ()),
    Private(f"{_PRODUCER}.transaction_manager:TransactionManager", "producer_id"),
    Private(f"{_PRODUCER}.transaction_manager:TransactionManager", "wait_for_transaction_end", ()),
)
