"""Making transactions that hang: what is left when a broker has forgotten to write the marker of one that its coordinator has ended.

A real broker forgets it at a moment that cannot be chosen (KAFKA-20734). Here the same traces are left by hand, of all that there is:

    partition           records under the producer's id, written after the end of its last transaction: no marker follows
    coordinator's log   Ongoing, PrepareCommit or PrepareAbort, Complete… with this partition, later than its last marker

Brokers verify since Kafka 3.6 that records belong to a transaction (KIP-890), unless `transaction.partition.verification.enable` is false;
and they let only the client `__admin_client` write to their own topics.
"""

import struct
from collections.abc import Mapping
from typing import Any

from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition as DriverPartition

from engine.records import OutputColumns, TopicPartition
from engine.runtime.transport.kafka import KafkaSettings, KafkaTransport
from engine.runtime.transport.kafka.producer import KafkaTransactionalProducer
from engine.runtime.transport.kafka.transaction_messages import STATE_TOPIC, state_partition
from engine.runtime.transport.open_transactions import Decision

SETTINGS = {"transaction.partition.verification.enable": "false"}
_STEPS: Mapping[Decision, tuple[int, int, int]] = {"commit": (1, 2, 4), "abort": (1, 3, 5)}


async def write_late(
    transport: KafkaTransport, producer: KafkaTransactionalProducer, partition: TopicPartition, rows: OutputColumns
) -> None:
    """Write records under a producer's id outside of any transaction of it: they hang, and nobody has decided anything."""
    driver: Any = producer._driver
    manager = driver._txn_manager
    sequence = manager.sequence_number(DriverPartition(*partition))
    batch = DefaultRecordBatchBuilder(2, 0, 1, manager.producer_id, manager.producer_epoch, sequence, 1 << 20)
    for at, (timestamp_ms, key, value) in enumerate(zip(rows.timestamps, rows.keys, rows.values, strict=True)):
        headers: list[tuple[str, bytes | None]] = [] if rows.headers is None else list(rows.headers[at])
        assert batch.append(at, timestamp_ms, key, value, headers) is not None
    await _produce(transport, partition, bytes(batch.build()), producer._id)


async def note_end(
    settings: KafkaSettings, producer: KafkaTransactionalProducer, partition: TopicPartition, decided: Decision, now_ms: int
) -> None:
    """Write the steps of a transaction with a partition in it into its coordinator's log, as if it had been ended."""
    manager: Any = producer._driver._txn_manager
    transport = KafkaTransport(KafkaSettings(settings.servers, client_id="__admin_client"))
    await transport.start()
    try:
        count = (await transport.partition_counts([STATE_TOPIC]))[STATE_TOPIC]
        name, topic = producer._id.encode(), partition.topic.encode()
        key = struct.pack(f">hh{len(name)}s", 0, len(name), name)
        batch = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
        for at, status in enumerate(_STEPS[decided]):
            with_partition = struct.pack(f">ih{len(topic)}sii", 1, len(topic), topic, 1, partition.partition)
            partitions = with_partition if status < 4 else struct.pack(">i", -1)
            value = struct.pack(">hqhib", 0, manager.producer_id, manager.producer_epoch, 10_000, status) + partitions
            assert batch.append(at, now_ms, key, value + struct.pack(">qq", now_ms, now_ms), []) is not None
        await _produce(transport, TopicPartition(STATE_TOPIC, state_partition(producer._id, count)), bytes(batch.build()), None)
    finally:
        await transport.stop()


async def _produce(transport: KafkaTransport, partition: TopicPartition, batch: bytes, transactional_id: str | None) -> None:
    admin = transport._admin
    request = ProduceRequest(transactional_id, -1, 5_000, [(partition.topic, [(partition.partition, batch)])])
    response = await admin.client.send(await admin.leader(partition), request)
    ((_, ((_, code, *_),)),) = response.topics
    assert code == 0, f"the broker refused it: {code}"
