"""A worker that keeps copies of source tables in another database, from the topics that Debezium writes.

    streamforge replicate --broker kafka://host:9092 --to postgresql://host/shop --schema copy shop.public.users shop.public.orders=sales
    streamforge replicate --broker kafka://host:9092 --to duckdb:copy.duckdb --registry http://host:8081 shop.public.users

It stands beside the engine, since a database is no part of a Kafka transaction: it reads the topics itself, read_committed and
outside any group, from the offsets that the database holds, and commits rows and offsets together (`cdc.replica`). One worker
a database; a second one would wait for the first one's locks and then apply nothing twice.

    reader of each partition ──batch──► queue (bounded) ──► one transaction with all that has come

A record that cannot be decoded stops the worker with its place: to go on without it would make the copy differ.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from cdc.change import Change
from cdc.database import open_database
from cdc.debezium_codec import DebeziumCodec, debezium
from cdc.registry.client import Registry
from cdc.replica import Batch, Replica
from engine.errors import ConfigError, RecordError, UnavailableError
from engine.records import RecordBatch, TopicPartition
from engine.runtime.transport.protocol import Transport
from engine.runtime.transports import make_transport

log = logging.getLogger(__name__)

RECORDS_MAX = 20_000
"""Records in one transaction, about; a batch is not cut."""
_QUEUED_BATCHES_MAX = 16
_WAIT_S = 0.5
_RETRY_S = 2.0


class Replicator:
    """Applies topics to a replica until it is stopped.

    Args:
        tables: Topic -> name of the table.
        codec: Decodes the topics' records into dict rows.
    Attributes:
        applied: Number of changes that were no replays; `positions`: the next offset of each partition.
    """

    def __init__(self, transport: Transport, replica: Replica, tables: Mapping[str, str], codec: DebeziumCodec[dict[str, Any]]) -> None:
        self._transport, self._replica, self._tables, self._codec = transport, replica, tables, codec
        self._queue: asyncio.Queue[RecordBatch] = asyncio.Queue(_QUEUED_BATCHES_MAX)
        self.applied = 0
        self.positions: dict[TopicPartition, int] = {}

    async def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Apply what comes, until `until` says so (asked after each transaction and twice a second).

        Raises:
            RecordError: A record cannot be decoded or applied.
            UnavailableError: The database does not answer.
            StateError: The log no longer holds what comes next.
        """
        self.positions = await asyncio.to_thread(self._replica.positions)
        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(self._read_topic(topic), name=f"replicate {topic}") for topic in self._tables]
            while not until():
                batches = await self._take()
                if batches:
                    await self._apply(batches)
            for reader in readers:
                reader.cancel()

    async def run_to_end(self) -> None:
        """Apply what the topics hold now, and return."""
        ends: dict[TopicPartition, int] = {}
        for topic, count in (await self._transport.partition_counts(list(self._tables))).items():
            ends |= await self._transport.end_offsets([TopicPartition(topic, number) for number in range(count)])
        await self.run(lambda: all(self.positions.get(partition, 0) >= end for partition, end in ends.items()))

    async def _read_topic(self, topic: str) -> None:
        while topic not in (counts := await self._transport.partition_counts([topic])):  # noqa: ASYNC110  # the broker tells nobody
            await asyncio.sleep(_WAIT_S)
        partitions = [TopicPartition(topic, number) for number in range(counts[topic])]
        begins = await self._transport.begin_offsets(partitions)
        async with asyncio.TaskGroup() as group:
            for partition in partitions:
                group.create_task(self._read(partition, self.positions.get(partition, begins[partition])))

    async def _read(self, partition: TopicPartition, position: int) -> None:
        reader = await self._transport.open_reader(partition, position)
        try:
            while True:
                try:
                    batch = await reader.read(_WAIT_S)
                    if batch is not None:
                        await self._codec.prepare(batch)
                except UnavailableError as error:  # broker or registry; also a topic that was just made and has no leader yet
                    log.warning("%s-%d: %s; read again in %.1f s", *partition, error, _RETRY_S)
                    await reader.close()
                    await asyncio.sleep(_RETRY_S)
                    reader = await self._transport.open_reader(partition, position)
                    continue
                if batch is not None:
                    position = batch.next_offset
                    await self._queue.put(batch)
        finally:
            await reader.close()

    async def _take(self) -> list[RecordBatch]:
        """Return what has come, in the order of each partition; [] after a while."""
        try:
            async with asyncio.timeout(_WAIT_S):
                batches = [await self._queue.get()]
        except TimeoutError:
            return []
        records = len(batches[0])
        while records < RECORDS_MAX and not self._queue.empty():
            batches.append(self._queue.get_nowait())
            records += len(batches[-1])
        return batches

    async def _apply(self, batches: Sequence[RecordBatch]) -> None:
        decoded = [self._decode(batch) for batch in batches]
        self.applied += await asyncio.to_thread(self._replica.apply, decoded)
        self.positions |= {batch.partition: batch.next_offset for batch in decoded}

    def _decode(self, batch: RecordBatch) -> Batch:
        decoded = self._codec.decode_batch(batch)
        for row, error in decoded.errors.items():
            raise RecordError(f"{batch.topic}-{batch.partition} offset {batch.offsets[row]}: {error}") from error
        changes: list[Change[dict[str, Any]]] = [value for row, value in enumerate(decoded.values) if row not in decoded.skipped]
        return Batch(self._tables[batch.topic], changes, TopicPartition(batch.topic, batch.partition), batch.next_offset)


def tables_of(topics: Sequence[str]) -> dict[str, str]:
    """Return topic -> table from "topic" (its last part names the table) or "topic=table".

    Raises:
        ConfigError: Two topics for one table.
    """
    tables: dict[str, str] = {}
    for given in topics:
        topic, _, table = given.partition("=")
        tables[topic] = table or topic.rpartition(".")[2]
    if len(set(tables.values())) < len(tables):
        raise ConfigError(f"two topics for one table: {tables}; name the tables, as in shop.public.orders=sales")
    return tables


@click.command()
@click.argument("topics", nargs=-1, required=True, metavar="TOPIC[=TABLE]...")
@click.option("--broker", envvar="STREAMFORGE_BROKER", required=True, help="Address, such as kafka://host:9092.")
@click.option("--to", "address", required=True, help="postgresql://user@host/database or duckdb:FILE.")
@click.option("--schema", default="public", show_default=True, help="Schema of the copies; it is made if it is not there.")
@click.option("--registry", help="Address of the schema registry, for Avro.")
@click.option("--no-follow", is_flag=True, help="Stop at the present end of the topics.")
def replicate(topics: Sequence[str], broker: str, address: str, schema: str, registry: str | None, no_follow: bool) -> None:
    """Keep copies of source tables in another database, from Debezium's topics, until Ctrl-C."""
    tables = tables_of(topics)
    replica = Replica(open_database(address, schema=schema))
    try:
        asyncio.run(_replicate(broker, replica, tables, registry, follow=not no_follow))
    except KeyboardInterrupt:
        click.echo("stopped")


async def _replicate(broker: str, replica: Replica, tables: Mapping[str, str], registry: str | None, *, follow: bool) -> None:
    transport = make_transport(broker, group="")
    await transport.start()
    try:
        codec = debezium(dict, registry=None if registry is None else Registry(registry))
        replicator = Replicator(transport, replica, tables, codec)
        await (replicator.run() if follow else replicator.run_to_end())
    finally:
        await transport.stop()


__all__ = ["Replicator", "replicate", "tables_of"]
