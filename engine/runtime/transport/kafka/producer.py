"""Producers: whole columns in prebuilt batches, inside a transaction or outside of any.

    begin → add partitions → batches of all partitions at once, and the group's offsets → all acknowledged? → commit

A failed batch must stop the commit, and aiokafka's commit would not notice it: every acknowledgement is awaited first. After any
failure the producer is used up, on purpose: opening a new one with the same id aborts what is left, and the state is restored.
Nothing here waits for ever: a commit ends with the transaction's own timeout.

Source: KIP-98 (transactions).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer, errors
from aiokafka.structs import TopicPartition as DriverPartition

from engine.errors import ConfigError, FencedError, UnavailableError
from engine.records import OutputColumns, TopicPartition
from engine.runtime.transport.kafka.backoff import eager, hasten
from engine.runtime.transport.kafka.batches import build_batches
from engine.runtime.transport.kafka.failures import describe, is_fenced, persist, translate
from engine.runtime.transport.kafka.settings import KafkaSettings

_RETRY_BACKOFF_MS = 20
_CLOSE_TIMEOUT_S = 1.0
_TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)


class KafkaTransactionalProducer:
    """A producer with a transactional id, see `TransactionalProducer`. One commit at a time."""

    def __init__(self, settings: KafkaSettings, transactional_id: str) -> None:
        self._settings = settings
        self._id = transactional_id
        self._driver = _driver(settings, transactional_id=transactional_id, transaction_timeout_ms=settings.transaction_timeout_ms)
        self._failed = False

    @property
    def producer_id(self) -> int:
        """What the broker calls the transactional id."""
        return int(self._driver._txn_manager.producer_id)

    async def open(self) -> None:
        """Fence every older producer with the same id; its open transaction, if any, is aborted before this returns.

        Raises:
            UnavailableError: The broker did not answer in time.
            ConfigError: The id is not ours to use.
        """
        await _open(self._driver, self._settings, f"fence {self._id}")
        hasten(self._driver)

    async def commit(
        self, outputs: Mapping[TopicPartition, OutputColumns], offsets: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        """Send and commit, see `TransactionalProducer.commit`.

        Raises:
            ConfigError: The broker refuses a record (too large, its time out of range): the topic's settings must change.
        """
        if self._failed:
            raise UnavailableError(f"the producer {self._id} failed before; open a new one")
        full = {partition: columns for partition, columns in outputs.items() if len(columns)}
        if not full and not offsets:
            return {}
        self._failed = True
        try:
            async with asyncio.timeout(self._settings.transaction_timeout_ms / 1000):
                with eager(self._driver):
                    next_offsets = await self._transact(full, offsets)
        except ConfigError:
            raise
        except Exception as error:
            if is_fenced(error) or is_fenced(self._sender_failure()):
                raise FencedError(f"a newer producer owns {self._id}: {describe(error)}") from error
            raise _unavailable(error, f"commit a transaction of {self._id}", self._settings.address) from error
        self._failed = False
        return next_offsets

    async def close(self) -> None:
        """Abort what is open if that is still possible, then disconnect; bounded in time, never raises."""
        manager = self._driver._txn_manager
        if manager.is_in_transaction() and not is_fenced(self._sender_failure()):
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await self._driver.abort_transaction()
        await close_driver(self._driver)

    async def _transact(
        self, outputs: Mapping[TopicPartition, OutputColumns], offsets: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        driver = self._driver
        await driver.begin_transaction()
        steps: list[Awaitable[Any]] = [send_columns(driver, partition, columns) for partition, columns in outputs.items()]
        if offsets:
            committed = {DriverPartition(*partition): offset for partition, offset in offsets.items()}
            steps.append(driver.send_offsets_to_transaction(committed, self._settings.group))
        results = await _all(steps)
        await driver.commit_transaction()
        return dict(zip(outputs, results, strict=False))

    def _sender_failure(self) -> BaseException | None:
        """Return what ended aiokafka's sender; later calls only fail with an `AssertionError` that hides it."""
        sender = self._driver._sender.sender_task
        if sender is None or not sender.done() or sender.cancelled():
            return None
        failure: BaseException | None = sender.exception()
        return failure


class KafkaSender:
    """Sends outside of transactions, idempotently and acknowledged by all replicas. Opened by the first `send`."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._driver: Any = None
        self._opening = asyncio.Lock()

    async def send(self, outputs: Mapping[TopicPartition, OutputColumns]) -> None:
        """Produce, and return when everything is acknowledged.

        Raises:
            ConfigError: Unknown topic or partition, or the broker refuses a record.
            UnavailableError: Some of it may have been written.
        """
        driver = await self._opened()
        steps = [send_columns(driver, partition, columns) for partition, columns in outputs.items() if len(columns)]
        try:
            async with asyncio.timeout(self._settings.request_timeout_ms / 1000 * 2):
                await _all(steps)
        except BaseException as error:
            await self.close()  # a gap in the sequence would fail whatever came next
            if isinstance(error, ConfigError) or not isinstance(error, Exception):
                raise
            raise _unavailable(error, "send records", self._settings.address) from error

    async def close(self) -> None:
        """Disconnect; bounded in time, never raises."""
        driver, self._driver = self._driver, None
        if driver is not None:
            await close_driver(driver)

    async def _opened(self) -> Any:
        async with self._opening:
            if self._driver is None:
                driver = _driver(self._settings, enable_idempotence=True)
                await _open(driver, self._settings, "open a producer")
                self._driver = driver
            return self._driver


async def send_columns(driver: Any, partition: TopicPartition, columns: OutputColumns) -> int:
    """Send columns to one partition, and return the offset behind the last record once all of it is acknowledged.

    Raises:
        ConfigError: There is no such partition, or the broker refuses a record.
    """
    topic, number = partition
    try:
        if number not in await driver.partitions_for(topic):
            raise ConfigError(f"topic {topic!r} has no partition {number}")
    except errors.UnknownTopicOrPartitionError as error:
        raise ConfigError(f"topic {topic!r} does not exist") from error
    sent = []
    start = 0
    for batch in build_batches(driver, columns):
        count = batch.record_count()
        sent.append((start, count, await driver.send_batch(batch, topic, partition=number)))
        start += count
    next_offset = -1
    for start, count, acknowledged in sent:
        try:
            base = (await acknowledged).offset
        except (*_TOO_LARGE, errors.InvalidTimestampError) as error:
            raise _refused(partition, columns, start, start + count, error) from error
        if base < 0:
            raise UnavailableError(f"{topic}[{number}]: the broker did not say where it put a batch")
        next_offset = base + count
    return next_offset


async def close_driver(driver: Any) -> None:
    """Stop an aiokafka producer within the bound; what it still holds is dropped."""
    _forgive(driver)
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await driver.stop()
            return
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await driver.client.close()  # ends the requests that the sender waits for
    sender = driver._sender.sender_task
    if sender is not None:
        sender.cancel()
        await asyncio.wait([sender], timeout=_CLOSE_TIMEOUT_S)


def _forgive(driver: Any) -> None:
    """Mark failures as seen that were raised elsewhere already; asyncio would log each of them again."""
    accumulator, manager = driver._message_accumulator, driver._txn_manager
    waiters = [None if manager is None else manager.wait_for_transaction_end()]
    for batch in [*accumulator._pending_batches, *(batch for batches in accumulator._batches.values() for batch in batches)]:
        waiters += [batch.future, batch._drain_waiter]
    for waiter in waiters:
        if waiter is not None and waiter.done() and not waiter.cancelled():
            waiter.exception()


def _driver(settings: KafkaSettings, **options: Any) -> Any:
    return AIOKafkaProducer(
        **settings.client_arguments(),
        acks="all",
        linger_ms=0,
        max_batch_size=settings.batch_bytes,
        retry_backoff_ms=_RETRY_BACKOFF_MS,
        request_timeout_ms=settings.request_timeout_ms,
        metadata_max_age_ms=30_000,
        **options,
    )


async def _open(driver: Any, settings: KafkaSettings, what: str) -> None:
    try:
        await persist(driver.start, what, settings.address, settings.connect_timeout_ms)
    except BaseException:
        await close_driver(driver)
        raise


async def _all(steps: Sequence[Awaitable[Any]]) -> list[Any]:
    """Await everything at once; after the first failure nothing goes on, and that failure is raised."""
    tasks = [asyncio.ensure_future(step) for step in steps]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _unavailable(error: BaseException, what: str, address: str) -> Exception:
    ours = translate(error, what, address)
    return ours if isinstance(ours, UnavailableError) else UnavailableError(str(ours))


def _refused(partition: TopicPartition, columns: OutputColumns, start: int, stop: int, error: Exception) -> ConfigError:
    """Name the record that the broker most likely means, and what to change."""
    where = f"{partition.topic}[{partition.partition}]"
    if isinstance(error, errors.InvalidTimestampError):
        at = max(range(start, stop), key=lambda i: columns.timestamps[i])
        return ConfigError(
            f"the broker refuses the time of a record to {where}, key {columns.keys[at]!r}, timestamp {columns.timestamps[at]}: "
            f"set the topic's message.timestamp.after.max.ms and message.timestamp.before.max.ms to {2**63 - 1}"
        )
    sizes = {i: len(columns.keys[i] or b"") + len(columns.values[i] or b"") for i in range(start, stop)}
    at = max(sizes, key=sizes.__getitem__)
    return ConfigError(
        f"the broker refuses a record of {sizes[at]} bytes to {where}, key {_shortened(columns.keys[at])}: "
        "it is larger than the topic allows; raise max.message.bytes of the topic, or make the record smaller"
    )


def _shortened(key: bytes | None) -> str:
    text = repr(key)
    return text if len(text) <= 100 else text[:100] + "…"
