"""Finding the transactions that are open in partitions, telling those that hang, and writing the marker that is missing.

    leaders        who has something open, from which offset on          ─┐
    coordinators   do you know of a transaction of his with this partition?  │ in this order: what ends meanwhile is not
    leaders        is it still open, from the same offset on?            ─┘ taken for hanging
    the coordinator's log, and the markers in the partition: how did each one that hangs end?

Source: KIP-664, which aborts whatever hangs. Here the coordinator's decision counts, see `engine.runtime.transport.open_transactions`.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from aiokafka import errors
from aiokafka.consumer.fetcher import READ_UNCOMMITTED
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords

from engine.errors import ConfigError, StateError, UnavailableError
from engine.records import TopicPartition
from engine.runtime.transport.kafka.admin import KafkaAdmin
from engine.runtime.transport.kafka.failures import describe, persist
from engine.runtime.transport.kafka.reader import KafkaReader
from engine.runtime.transport.kafka.settings import KafkaSettings
from engine.runtime.transport.kafka.transaction_messages import (
    RUNNING,
    STATE_TOPIC,
    CoordinatorEntry,
    DescribeProducersRequest,
    DescribeTransactionsRequest,
    ListTransactionsRequest,
    WriteTxnMarkersRequest,
    coordinator_entry,
    decision,
    last_ended,
    state_partition,
)
from engine.runtime.transport.open_transactions import Decision, OpenTransaction

_READ_S = 2.0
_WAIT_MS = 500
_NEAR = 10_000
_OF_TRANSACTIONS = 1
_NOT_FOUND = 105
_FINAL = (errors.InvalidProducerEpoch, errors.InvalidTxnState, errors.InvalidProducerIdMapping, errors.TransactionCoordinatorFenced)


class KafkaTransactions:
    """Looks at the transactions of a cluster through an administrator's connection."""

    def __init__(self, admin: KafkaAdmin, settings: KafkaSettings) -> None:
        self._admin = admin
        self._settings = settings

    async def find(self, partitions: Sequence[TopicPartition], producer_id: int | None = None) -> list[OpenTransaction]:
        """Return what is open in partitions, in their order and by offset; those that end meanwhile may be left out.

        Args:
            producer_id: Only what this producer has open.
        Raises:
            ConfigError: A right is missing, a partition does not exist, or the brokers are too old to tell (before Kafka 2.8).
            UnavailableError: The brokers do not answer.
        """
        found = [each for each in await self._open(partitions) if producer_id in (None, each.producer_id)]
        if not found:
            return []
        ids = await self._ids({each.producer_id for each in found})
        running = {transactional_id: await self._running(transactional_id) for transactional_id in set(ids.values())}
        still = {(each.partition, each.producer_id): each.start_offset for each in await self._open([each.partition for each in found])}
        told = []
        for each in found:
            if still.get((each.partition, each.producer_id)) != each.start_offset:
                continue
            transactional_id = ids.get(each.producer_id)
            hangs = transactional_id is None or each.partition not in running[transactional_id].get(each.producer_id, ())
            told.append(replace(each, transactional_id=transactional_id, hangs=hangs))
        return await self._with_decisions(told)

    async def end(self, transaction: OpenTransaction, decided: Decision) -> None:
        """Write the marker that ends a transaction which hangs; the caller has just found it.

        Raises:
            ConfigError: We may not, or the leader refuses it.
            UnavailableError: The brokers do not answer.
        """
        assert transaction.hangs, "a transaction that is running is ended by its producer or coordinator"
        partition = transaction.partition
        coordinator_epoch = max(0, transaction.coordinator_epoch)
        request = WriteTxnMarkersRequest(
            partition, transaction.producer_id, transaction.producer_epoch, coordinator_epoch, commit=decided == "commit"
        )

        async def attempt() -> None:
            response = await self._admin.client.send(await self._admin.leader(partition), request)
            for _, topics, _ in response.markers:
                for _, parts, _ in topics:
                    for _, code, _ in parts:
                        _check(code, transaction.place)

        await self._try(f"end the transaction {transaction.place}", attempt)

    async def _open(self, partitions: Collection[TopicPartition]) -> list[OpenTransaction]:
        async def attempt() -> list[OpenTransaction]:
            by_node: dict[int, dict[str, list[int]]] = {}
            for partition in dict.fromkeys(partitions):
                by_node.setdefault(await self._admin.leader(partition), {}).setdefault(partition.topic, []).append(partition.partition)
            requests = [self._admin.client.send(node, DescribeProducersRequest(topics)) for node, topics in by_node.items()]
            found: list[OpenTransaction] = []
            for response in await asyncio.gather(*requests):
                for topic, parts, _ in response.topics:
                    for number, code, _, producers, _ in parts:
                        _check(code, f"{topic}-{number}")
                        found += _of(TopicPartition(topic, number), producers)
            order = {partition: at for at, partition in enumerate(partitions)}
            return sorted(found, key=lambda each: (order[each.partition], each.start_offset))

        found: list[OpenTransaction] = await self._try("describe producers", attempt)
        return found

    async def _ids(self, producer_ids: Collection[int]) -> dict[int, str]:
        """Return the transactional ids of producers; each coordinator knows its own."""

        async def attempt() -> dict[int, str]:
            await self._admin.client.force_metadata_update()
            nodes = [broker.nodeId for broker in self._admin.client.cluster.brokers()]
            requests = [self._admin.client.send(node, ListTransactionsRequest(sorted(producer_ids))) for node in nodes]
            found = {}
            for response in await asyncio.gather(*requests):
                _check(response.error_code, "transactions")
                found.update({producer_id: transactional_id for transactional_id, producer_id, _, _ in response.transaction_states})
            return found

        found: dict[int, str] = await self._try("list transactions", attempt)
        return found

    async def _running(self, transactional_id: str) -> dict[int, frozenset[TopicPartition]]:
        """Return the partitions of the transaction that its coordinator takes for not ended, by producer id; {} if there is none."""

        async def attempt() -> dict[int, frozenset[TopicPartition]]:
            node = await self._admin.client.coordinator_lookup(_OF_TRANSACTIONS, transactional_id)
            response = await self._admin.client.send(node, DescribeTransactionsRequest([transactional_id]))
            for code, _, state, _, _, producer_id, _, topics, _ in response.transaction_states:
                if code == _NOT_FOUND:  # of an error that aiokafka does not know
                    return {}
                _check(code, transactional_id)
                if state in RUNNING:
                    return {producer_id: frozenset(TopicPartition(topic, number) for topic, numbers, _ in topics for number in numbers)}
            return {}

        found: dict[int, frozenset[TopicPartition]] = await self._try(f"describe the transactions of {transactional_id}", attempt)
        return found

    async def _with_decisions(self, found: list[OpenTransaction]) -> list[OpenTransaction]:
        wanted = {each.transactional_id for each in found if each.hangs and each.transactional_id is not None}
        histories = await self._histories(wanted) if wanted else {}
        told = []
        for each in found:
            history = histories.get(each.transactional_id or "", []) if each.hangs else []
            ended = last_ended(history, each.partition, each.producer_id, each.producer_epoch)
            decided = None if ended is None else decision(ended, await self._last_marker_ms(each))
            told.append(replace(each, decided=decided))
        return told

    async def _last_marker_ms(self, transaction: OpenTransaction) -> int | None:
        """Return the time of the producer's last marker before an open transaction; None if there is none.

        It is mostly near: so the partition is read from a place not far before, then from one further away.
        """
        partition, end = transaction.partition, transaction.start_offset
        begin = (await self._admin.list_offsets([partition], ends=False))[partition]
        reach = _NEAR
        while True:
            start = max(begin, end - reach)
            found = await self._marker_ms(partition, transaction.producer_id, start, end)
            if found is not None or start == begin:
                return found
            end, reach = start, reach * 10

    async def _marker_ms(self, partition: TopicPartition, producer_id: int, start: int, end: int) -> int | None:
        """Return the time of a producer's last marker in [start, end)."""
        found, position = None, start
        while position < end:
            batches = await self._try(f"read {partition.topic}-{partition.partition}", partial(self._fetch, partition, position))
            for batch in batches:
                if batch.base_offset >= end:
                    return found
                position = max(position, batch.next_offset)
                if batch.is_control_batch and batch.producer_id == producer_id and batch.base_offset >= start:
                    found = next(iter(batch)).timestamp
        return found

    async def _fetch(self, partition: TopicPartition, offset: int) -> list[Any]:
        """Return record batches as they lie in the log, those of open transactions and markers too."""
        asked = [(partition.topic, [(partition.partition, offset, self._settings.fetch_bytes)])]
        request = FetchRequest(_WAIT_MS, 1, self._settings.fetch_bytes, READ_UNCOMMITTED, asked)
        response = await self._admin.client.send(await self._admin.leader(partition), request)
        batches = []
        for _, parts in response.topics:
            for _, code, *_, message_set in parts:
                _check(code, f"{partition.topic}-{partition.partition}")
                records = MemoryRecords(message_set)
                while records.has_next():
                    batches.append(records.next_batch())
        if not batches:
            raise errors.KafkaError(f"nothing to read at {offset}")
        return batches

    async def _histories(self, transactional_ids: Collection[str]) -> dict[str, list[CoordinatorEntry]]:
        """Return what the coordinators' log says of ids, in order; nothing if it may not be read."""
        try:
            count = (await self._admin.partition_counts([STATE_TOPIC]))[STATE_TOPIC]
            numbers = sorted({state_partition(transactional_id, count) for transactional_id in transactional_ids})
            partitions = [TopicPartition(STATE_TOPIC, number) for number in numbers]
            begins = await self._admin.list_offsets(partitions, ends=False)
            ends = await self._admin.list_offsets(partitions, ends=True)
            histories: dict[str, list[CoordinatorEntry]] = {transactional_id: [] for transactional_id in transactional_ids}
            for partition in partitions:
                for entry in await self._entries(partition, begins[partition], ends[partition]):
                    if entry.transactional_id in histories:
                        histories[entry.transactional_id].append(entry)
        except (ConfigError, StateError, KeyError):
            return {}
        return histories

    async def _entries(self, partition: TopicPartition, begin: int, end: int) -> list[CoordinatorEntry]:
        reader = KafkaReader(self._admin, self._settings, partition, begin)
        entries: list[CoordinatorEntry] = []
        try:
            while reader.position < end:
                batch = await reader.read(_READ_S)
                if batch is None:
                    raise UnavailableError(f"{partition.topic}-{partition.partition} cannot be read beyond {reader.position}")
                read = (coordinator_entry(key, value) for key, value in zip(batch.keys, batch.values, strict=True))
                entries += [entry for entry in read if entry is not None]
        finally:
            await reader.close()
        return entries

    async def _try(self, what: str, attempt: Any) -> Any:
        async def once() -> Any:
            try:
                return await attempt()
            except (errors.IncompatibleBrokerVersion, NotImplementedError) as error:
                raise ConfigError(f"the brokers at {self._settings.address} are too old to {what}: Kafka 2.8 or newer can") from error
            except _FINAL as error:
                raise ConfigError(f"Kafka at {self._settings.address} did not {what}: {describe(error)}") from error

        return await persist(once, what, self._settings.address, self._settings.request_timeout_ms)


def _check(code: int, where: str) -> None:
    if code:
        raise errors.for_code(code)(where)


def _of(partition: TopicPartition, producers: Iterable[Any]) -> list[OpenTransaction]:
    return [
        OpenTransaction(partition, start, producer_id, epoch, coordinator_epoch, timestamp_ms)
        for producer_id, epoch, _, timestamp_ms, coordinator_epoch, start, _ in producers
        if start >= 0
    ]
