"""Transactions that hang on a real broker: found with place, producer and decision, and ended as their coordinator decided."""

import asyncio
import json
import struct
import time
from collections.abc import Iterator

import pytest
from click.testing import Result

from engine.records import TopicPartition
from engine.runtime.transport.kafka import KafkaTransport
from engine.runtime.transport.kafka.producer import KafkaTransactionalProducer
from engine.runtime.transport.kafka.transaction_messages import (
    CoordinatorEntry,
    coordinator_entry,
    decision,
    last_ended,
    state_partition,
)
from engine.runtime.transport.open_transactions import Decision
from tests.engine.runtime.hanging import SETTINGS, note_end, write_late
from tests.engine.runtime.kafka_harness import columns, connected, new_topic, read_to_end, settings_of, unique, values
from tests.engine.runtime.test_cli_run import assert_one_sentence, streamforge
from tests.kafka_server import KafkaServer

P, Q = TopicPartition("t", 0), TopicPartition("t", 1)
ONGOING, PREPARE_COMMIT, PREPARE_ABORT, COMPLETE_COMMIT = 1, 2, 3, 4


# -- the coordinator's log, without a broker


def entry(status: int, *partitions: TopicPartition, producer: int = 7, epoch: int = 1) -> CoordinatorEntry:
    return CoordinatorEntry("id", producer, epoch, status, frozenset(partitions), 100, 200)


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([], None),
        ([entry(ONGOING, P), entry(PREPARE_COMMIT, P), entry(COMPLETE_COMMIT)], "commit"),
        ([entry(ONGOING, P), entry(PREPARE_ABORT, P)], "abort"),
        ([entry(ONGOING, P), entry(PREPARE_ABORT, P, epoch=2)], "abort"),  # fenced: the epoch went up with it
        ([entry(PREPARE_COMMIT, P), entry(PREPARE_ABORT, Q)], "commit"),  # the later one was of other partitions
        ([entry(PREPARE_COMMIT, P), entry(ONGOING, P)], None),  # a later one with this partition has no end yet
        ([entry(PREPARE_COMMIT, P), entry(PREPARE_ABORT, P)], "abort"),
        ([entry(PREPARE_COMMIT, Q)], None),
        ([entry(PREPARE_COMMIT, P, producer=8)], None),
        ([entry(PREPARE_COMMIT, P, epoch=0)], None),  # of an older epoch than what hangs
    ],
)
def test_decision_is_that_of_the_last_transaction_with_the_partition(history: list[CoordinatorEntry], expected: str | None) -> None:
    assert decision(last_ended(history, P, 7, 1), None) == expected
    assert decision(last_ended(history, P, 7, 1), 99) == expected  # the marker there is of an earlier transaction


@pytest.mark.parametrize("status", [PREPARE_COMMIT, PREPARE_ABORT])
def test_what_came_after_the_marker_of_the_last_transaction_was_committed_by_nobody(status: int) -> None:
    assert decision(entry(status, P), 200) == "abort"
    assert decision(entry(status, P), 150) is None  # between its begin and its end no marker is written: the clocks do not agree


def test_coordinator_entry_of_version_0_and_of_others() -> None:
    key = struct.pack(">hh4s", 0, 4, b"id-3")
    head = struct.pack(">qhib", 7, 2, 10_000, PREPARE_COMMIT)
    value = b"\0\0" + head + struct.pack(">ih1siii", 1, 1, b"t", 2, 0, 1) + struct.pack(">qq", 20, 10)
    assert coordinator_entry(key, value) == CoordinatorEntry("id-3", 7, 2, PREPARE_COMMIT, frozenset({P, Q}), 10, 20)
    assert coordinator_entry(key, b"\0\0" + head + struct.pack(">iqq", -1, 20, 10)) == CoordinatorEntry(
        "id-3", 7, 2, PREPARE_COMMIT, frozenset(), 10, 20
    )
    assert coordinator_entry(key, None) is None  # the id has expired
    assert coordinator_entry(key, b"\0\x09" + head) is None  # a version that nobody knows
    assert coordinator_entry(b"\0\x05", value) is None


def test_state_partition_is_by_javas_hash() -> None:
    assert state_partition("hello", 1 << 31) == 99_162_322  # "hello".hashCode()
    assert state_partition("shop-3", 1 << 31) == 903_152_868  # its hash is negative
    assert state_partition("polygenelubricants", 50) == 0  # its hash is the least number: without its sign 0


# -- on a broker


async def command(*arguments: str) -> Result:
    """Run a command beside this event loop: it has one of its own."""
    return await asyncio.to_thread(streamforge, *arguments)


@pytest.fixture(scope="module")
def forgetful() -> Iterator[KafkaServer]:
    """A broker that lets producers write outside of their transactions."""
    with KafkaServer(SETTINGS) as server:
        yield server


async def hang(
    server: KafkaServer, transport: KafkaTransport, decided: Decision | None = "commit", *, commit_before: bool = True
) -> tuple[KafkaTransactionalProducer, TopicPartition, TopicPartition]:
    """Return a producer, a partition where its last transaction hangs at offset 2 behind an earlier one, and one where it does not.

    Without a decision it is what a zombie wrote after the end of all that its coordinator knows.
    """
    topic = await new_topic(transport, 2)
    there, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    producer = await transport.open_producer(unique("id"))
    driver = producer._driver
    await driver.begin_transaction()
    for partition in (there, other):
        await driver.send_and_wait(topic, b"v", partition=partition.partition)
    await (driver.commit_transaction() if commit_before else driver.abort_transaction())
    await read_to_end(transport, there, 2)
    await write_late(transport, producer, there, columns((b"k", b"late")))
    if decided is not None:
        await note_end(settings_of(server), producer, there, decided, time.time_ns() // 1_000_000 + 1)
    return producer, there, other


@pytest.mark.kafka
@pytest.mark.parametrize("commit_before", [True, False])
@pytest.mark.parametrize(("decided", "expected"), [("commit", [b"late"]), ("abort", []), (None, [])])
async def test_hanging_transaction_is_found_and_ended_as_was_decided(
    forgetful: KafkaServer, decided: Decision | None, expected: list[bytes], commit_before: bool
) -> None:
    async with connected(settings_of(forgetful)) as transport:
        producer, there, other = await hang(forgetful, transport, decided, commit_before=commit_before)
        assert await transport.end_offsets([there, other]) == {there: 2, other: 2}
        (found,) = await transport.open_transactions([other, there])
        assert (found.partition, found.start_offset, found.hangs, found.transactional_id) == (there, 2, True, producer._id)
        assert (found.producer_id, found.producer_epoch) == (producer.producer_id, 0)
        assert found.decided == (decided or "abort")
        assert await transport.open_transactions([there], producer.producer_id + 1) == []
        await transport.end_transaction(found, found.decided)
        assert await transport.open_transactions([other, there]) == []
        assert values(await read_to_end(transport, there, 4)) == [b"v"] * commit_before + expected
        await producer.close()


@pytest.mark.kafka
async def test_running_transaction_does_not_hang_and_is_not_ended(forgetful: KafkaServer) -> None:
    async with connected(settings_of(forgetful)) as transport:
        partition = TopicPartition(await new_topic(transport), 0)
        producer = await transport.open_producer(unique("id"))
        await producer._driver.begin_transaction()
        await producer._driver.send_and_wait(partition.topic, b"half", partition=0)
        (found,) = await transport.open_transactions([partition])
        assert (found.place, found.hangs, found.transactional_id) == (f"{partition.topic}-0@0", False, producer._id)
        result = await command("transactions", "end", found.place, "--broker", f"kafka://{forgetful.bootstrap}")
        assert_one_sentence(result, "running", "its producer or its time-out ends it")
        result = await command("transactions", "end", "--all", "--topic", partition.topic, "--broker", f"kafka://{forgetful.bootstrap}")
        assert (result.exit_code, result.stdout) == (0, "no transaction hangs\n")
        await producer._driver.commit_transaction()
        assert values(await read_to_end(transport, partition, 2)) == [b"half"]
        await producer.close()


@pytest.mark.kafka
async def test_command_lists_what_hangs_and_ends_it(forgetful: KafkaServer) -> None:
    broker = f"kafka://{forgetful.bootstrap}"
    async with connected(settings_of(forgetful)) as transport:
        producer, there, _ = await hang(forgetful, transport)
        options = ["--topic", there.topic, "--broker", broker]
        listed = (await command("transactions", "list", *options)).stdout
        assert f"{there.topic}-0@2 of producer " in listed
        assert f"({producer._id}): hanging, its end was decided: commit" in listed
        (row,) = (json.loads(line) for line in (await command("transactions", "list", "--json", "--hanging", *options)).stdout.splitlines())
        assert (row["place"], row["topic"], row["partition"], row["start_offset"]) == (f"{there.topic}-0@2", there.topic, 0, 2)
        assert (row["hangs"], row["decided"]) == (True, "commit")
        assert (await command("transactions", "end", "--all", *options)).stdout == f"{there.topic}-0@2 is ended: commit\n"
        assert (await command("transactions", "list", *options)).stdout == "no transaction is open\n"
        assert values(await read_to_end(transport, there, 4)) == [b"v", b"late"]
        await producer.close()


@pytest.mark.kafka
async def test_end_that_nobody_decided_needs_a_person(forgetful: KafkaServer) -> None:
    async with connected(settings_of(forgetful)) as transport:
        partition = TopicPartition(await new_topic(transport), 0)
        producer = await transport.open_producer(unique("id"))
        await write_late(transport, producer, partition, columns((b"k", b"late")))  # no coordinator has ever heard of it
        (found,) = await transport.open_transactions([partition])
        assert (found.hangs, found.decided) == (True, None)
        options = ["--topic", partition.topic, "--broker", f"kafka://{forgetful.bootstrap}"]
        assert_one_sentence(
            await command("transactions", "end", "--all", *options), f"{found.place} of producer", "its end is not known", "--unknown"
        )
        assert len(await transport.open_transactions([partition])) == 1
        assert (
            await command("transactions", "end", found.place, "--unknown", "abort", *options)
        ).stdout == f"{found.place} is ended: abort\n"
        assert values(await read_to_end(transport, partition, 2)) == []
        await producer.close()


def test_end_without_a_place_and_of_nothing_is_refused() -> None:
    broker = ["--broker", "kafka://127.0.0.1:1"]
    assert_one_sentence(streamforge("transactions", "end", *broker), "name transactions", "--all")
    result = streamforge("transactions", "end", "--all", "--unknown", "abort", *broker)
    assert_one_sentence(result, "--unknown is for transactions that are named")
